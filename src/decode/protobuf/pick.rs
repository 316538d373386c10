//! What an event's envelope says, without decoding what is inside it.

use super::super::envelope::{Names, Picked};
use super::super::framed::Bad;
use super::reader::Reader;
use super::text;
use crate::schema::protobuf::ProtoSchema;

/// Finds the fields of an envelope in an event's bytes.
///
/// # Errors
/// What is wrong with the event.
pub(in super::super) fn pick<'a>(schema: &'a ProtoSchema, body: &'a [u8], names: &Names) -> Result<Picked<'a>, Bad> {
    let mut picked = Picked::default();
    let around = schema.around;
    let root = around.map_or(schema.root, |around| around.root);
    let message = &schema.messages[root];
    let mut reader = Reader::new(body, schema);
    let mut came = vec![false; message.fields.len()];
    // A message that is written in parts is all of them, one behind the other.
    let mut row: Vec<u8> = Vec::new();
    while reader.at < reader.end {
        let (number, wire) = reader.tag()?;
        let at = message.field(number);
        let into = at.and_then(|at| names.place(&message.fields[at].name, around.is_some()));
        let part = into.is_some_and(|into| into.row && around.is_some_and(|around| !around.text));
        match part {
            true => {
                let body = reader.body(number, wire)?;
                row.extend_from_slice(reader.at_place(body));
            }
            false => reader.skip(number, wire)?,
        }
        if let Some(at) = at {
            came[at] = true;
        }
    }
    for (at, field) in message.fields.iter().enumerate() {
        let Some(into) = names.place(&field.name, around.is_some()).filter(|_| came[at]) else {
            continue;
        };
        if into.row && around.is_some_and(|around| !around.text) {
            picked.row = Some(std::mem::take(&mut row).into());
            if !into.time {
                continue;
            }
        }
        let mut out = Vec::new();
        text::write_field(&mut Reader::new(body, schema), 0..body.len(), root, at, &mut out)?;
        if out.starts_with(b"\"") {
            text::unquote(&mut out, 0);
        }
        picked.put(into, out);
    }
    Ok(picked)
}

/// Returns a message as JSON.
///
/// # Errors
/// What is wrong with it.
pub(in super::super) fn json(schema: &ProtoSchema, body: &[u8]) -> Result<Vec<u8>, Bad> {
    let mut out = Vec::new();
    text::write_message(&mut Reader::new(body, schema), schema.root, &mut out)?;
    Ok(out)
}
