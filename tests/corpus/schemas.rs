//! Schemas for every reader of them, and some values for what they make.

use std::sync::Arc;

use aperio::decode::Decoder;
use aperio::decode::framed::{FramedDecoder, Framing};
use aperio::decode::json::JsonDecoder;
use aperio::schema::frame::SchemaKey;
use aperio::schema::{Missing, SchemaLanguage, SchemaText, UnknownFields, WriterSchema, Writers, evolve, follow};

use super::cases::{cases, variants};
use super::counted::peak;
use super::{PER_BYTE, as_text, chunk, text};

/// What a schema may cost: ten thousand columns, some hundred thousand keywords.
const SCHEMA_BYTES_MAX: usize = 256 << 20;

/// Reads schemas, makes columns of those that can be read, and decodes some values with them.
fn read_schemas(corpus: &str, language: SchemaLanguage) {
    let cases = cases(corpus);
    let (mut readable, mut most) = (0, 0);
    for case in &cases {
        let count = match case.bytes.len() {
            // Of Protobuf's each is compiled with all that it imports.
            0..=600 if language == SchemaLanguage::Protobuf => 20,
            0..=600 => 60,
            601..=8000 => 5,
            _ => 0,
        };
        for bytes in variants(&case.bytes, &cases, count)
            .into_iter()
            .chain([case.bytes.clone()])
        {
            let what = || {
                format!(
                    "{}: {}",
                    case.name,
                    String::from_utf8_lossy(&bytes[..bytes.len().min(2000)])
                )
            };
            let written = text(language, &String::from_utf8_lossy(&bytes));
            let (held, found) = peak(|| read_schema(&written));
            assert!(
                held <= SCHEMA_BYTES_MAX + PER_BYTE * bytes.len(),
                "{held} bytes for {}",
                what()
            );
            readable += usize::from(found);
            most = most.max(held);
        }
    }
    println!(
        "{} cases, {readable} schemas that can be read, {} MiB at most",
        cases.len(),
        most >> 20
    );
    // A corpus of nothing but refusals would try little.
    assert!(3 * readable > cases.len(), "{readable}");
}

/// Says whether it can be read.
fn read_schema(written: &SchemaText) -> bool {
    let Ok(writer) = WriterSchema::parse_named(written, None) else {
        return false;
    };
    let writer = Arc::new(writer);
    let mut writers = Writers::default();
    writers.add(SchemaKey::file(), writer.clone());
    let _ = (writer.columns(false), writer.columns(true), writer.name());
    let form = follow::Form::default();
    let mut decoders = vec![as_text(written.language, writer.clone(), &["id", "a", "last", "f60"])];
    for flatten in [false, true] {
        let columns = follow::merged(&writers, follow::Form { flatten, ..form });
        let schema = evolve::create_schema(columns, &[], false);
        let changed = follow::follow(&schema, schema.highest_field_id(), &[].into(), &writer, &writers, form);
        // What it was made of it takes.
        assert!(flatten || !matches!(&changed, Ok(Some(_))), "{changed:?}");
        let plan = evolve::row_plan(Arc::new(schema), None, &[], false, UnknownFields::Ignore, flatten);
        decoders.push(match written.language {
            SchemaLanguage::Json => Decoder::Json(JsonDecoder::new(Arc::new(plan))),
            _ => Decoder::Framed(FramedDecoder::new(
                Arc::new(plan),
                Arc::new(writers.clone()),
                Framing::File,
                None,
            )),
        });
    }
    for decoder in &mut decoders {
        for value in [
            &[0; 200][..],
            &[0; 1],
            &[],
            &[2; 50],
            &[0xFF; 30],
            b"{\"id\":1,\"a\":{}}",
        ] {
            let decoded = decoder.decode(&chunk(&[value]), &Missing::new());
            assert_eq!(
                decoded.rows.num_rows() + decoded.rejects.len() + decoded.filtered as usize,
                1
            );
        }
    }
    true
}

#[test]
fn schemas_of_avro_are_read_or_refused() {
    read_schemas(include_str!("avsc.txt"), SchemaLanguage::Avro);
}

#[test]
fn schemas_of_protobuf_are_read_or_refused() {
    read_schemas(include_str!("proto.txt"), SchemaLanguage::Protobuf);
}

#[test]
fn schemas_of_json_are_read_or_refused() {
    read_schemas(include_str!("json_schema.txt"), SchemaLanguage::Json);
}
