//! What an event's envelope says, without decoding what is inside it.

use super::super::envelope::{Names, Picked};
use super::super::framed::Bad;
use super::reader::Reader;
use super::text;
use crate::schema::avro::{Around, Avro, AvroSchema, NamedType};

/// Finds the fields of an envelope in an event's bytes.
///
/// # Errors
/// What is wrong with the event.
pub(in super::super) fn pick<'a>(
    schema: &'a AvroSchema,
    around: Option<&'a Around>,
    body: &'a [u8],
    names: &Names,
) -> Result<Picked<'a>, Bad> {
    let mut reader = Reader::new(body, schema);
    let mut picked = Picked::default();
    let mut of = around.map_or(&schema.root, |around| &around.of);
    if let Avro::Union(arms) = of {
        of = &arms[reader.arm(arms.len())?];
    }
    let Avro::Named(index) = of else { return Ok(picked) };
    let NamedType::Record(fields) = &schema.named[*index].of else {
        return Ok(picked);
    };
    for field in fields {
        let start = reader.at;
        reader.skip(&field.of, 0)?;
        let Some(into) = names.place(&field.name, around.is_some()) else {
            continue;
        };
        let bytes = &body[start..reader.at];
        let mut value = Reader::new(bytes, schema);
        if is_null(&mut value, &field.of)? {
            continue;
        }
        if into.row && around.is_some_and(|around| !around.text) {
            picked.row = Some(bytes.into());
            if !into.time {
                continue;
            }
        }
        let mut out = Vec::new();
        text::write(&mut Reader::new(bytes, schema), &field.of, &mut out)?;
        picked.put(into, out);
    }
    reader.end()?;
    Ok(picked)
}

/// Returns a value as JSON; text without its quotes.
///
/// # Errors
/// What is wrong with it.
pub(in super::super) fn json(schema: &AvroSchema, body: &[u8]) -> Result<Vec<u8>, Bad> {
    let mut out = Vec::new();
    text::write(&mut Reader::new(body, schema), &schema.root, &mut out)?;
    Ok(out)
}

fn is_null(reader: &mut Reader<'_>, of: &Avro) -> Result<bool, Bad> {
    Ok(match of {
        Avro::Null => true,
        Avro::Union(arms) => arms[reader.arm(arms.len())?] == Avro::Null,
        _ => false,
    })
}
