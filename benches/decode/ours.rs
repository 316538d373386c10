//! This library's decoders, as a run makes them.

use std::sync::Arc;

use aperio::decode::framed::{FramedDecoder, Framing};
use aperio::decode::json::JsonDecoder;
use aperio::schema::evolve::{create_schema, row_plan};
use aperio::schema::frame::SchemaKey;
use aperio::schema::infer::{Shape, schema};
use aperio::schema::{Missing, RowPlan, SchemaLanguage, SchemaText, UnknownFields, WriterSchema, Writers, follow};
use iceberg::spec::NestedField;

use super::events::{AVRO, PROTOBUF, json_records};
use super::{Decode, SCHEMA_ID};

pub fn avro() -> Decode {
    framed(SchemaLanguage::Avro, AVRO, SchemaKey::id(SCHEMA_ID), false)
}

pub fn protobuf() -> Decode {
    let key = SchemaKey {
        message: vec![0],
        ..SchemaKey::id(SCHEMA_ID)
    };
    framed(SchemaLanguage::Protobuf, PROTOBUF, key, true)
}

fn framed(language: SchemaLanguage, text: &str, key: SchemaKey, indexes: bool) -> Decode {
    let text = SchemaText {
        language,
        text: text.to_owned(),
        references: Vec::new(),
    };
    let writer = WriterSchema::parse(&key, &text).expect("a schema");
    let mut writers = Writers::default();
    writers.add(key, Arc::new(writer));
    let plan = plan(follow::merged(&writers, follow::Form::default()));
    let mut decoder = FramedDecoder::new(plan, Arc::new(writers), Framing::Registry { indexes }, None);
    Box::new(move |chunk| {
        let decoded = decoder.decode(chunk, &Missing::new());
        assert_eq!(decoded.rows.num_rows(), chunk.len());
        vec![decoded.rows]
    })
}

pub fn json() -> Decode {
    let mut decoder = JsonDecoder::new(json_plan());
    Box::new(move |chunk| {
        let decoded = decoder.decode(chunk);
        assert_eq!(decoded.rows.num_rows(), chunk.len());
        vec![decoded.rows]
    })
}

/// The columns that a table gets of such records.
pub fn json_plan() -> Arc<RowPlan> {
    let mut shape = Shape::default();
    for record in json_records().iter().take(1000) {
        shape.observe(record).expect("a record is a JSON object");
    }
    plan(schema(&shape, false))
}

fn plan(columns: Vec<NestedField>) -> Arc<RowPlan> {
    let columns = create_schema(columns, &[], false);
    Arc::new(row_plan(
        Arc::new(columns),
        None,
        &[],
        false,
        UnknownFields::Evolve,
        false,
    ))
}
