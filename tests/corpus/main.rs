//! Hostile input for every decoder and every reader of schemas, kept in files and varied: never a panic, a row or a reject for
//! each record, its neighbours as if it weren't there, and memory within bounds.
//!
//! The property tests beside the decoders try made-up values; here is what somebody thought of, and what goes wrong near that.

mod cases;
mod counted;
mod schemas;
mod values;

use std::sync::Arc;

use aperio::chunk::Chunk;
use aperio::config::{Column, types};
use aperio::decode::Decoder;
use aperio::decode::framed::{FramedDecoder, Framing};
use aperio::decode::json::JsonDecoder;
use aperio::offsets::{Offset, OffsetRange, Partition};
use aperio::schema::frame::SchemaKey;
use aperio::schema::{RowPlan, SchemaLanguage, SchemaText, UnknownFields, WriterSchema, Writers, evolve};
use arrow::array::{BinaryArray, Int64Array};
use iceberg::spec::NestedField;

use self::cases::{Case, cases};

/// What may be held for each byte of input, beside what any input may cost.
const PER_BYTE: usize = 1024;

fn shown(value: &[u8]) -> String {
    let start: String = value.iter().take(100).map(|byte| format!("{byte:02x}")).collect();
    format!("{} bytes {start}", value.len())
}

fn chunk(values: &[&[u8]]) -> Chunk {
    let count = values.len() as i64;
    Chunk {
        partition: Partition(0),
        range: OffsetRange::new(Offset::new(0), Offset::new(count)),
        offsets: (0..count).collect::<Int64Array>(),
        timestamps: (0..count).collect::<Int64Array>(),
        keys: BinaryArray::from(vec![None::<&[u8]>; values.len()]),
        values: values.iter().copied().map(Some).collect(),
        headers: None,
    }
}

fn text(language: SchemaLanguage, text: &str) -> SchemaText {
    SchemaText {
        language,
        text: text.to_owned(),
        references: Vec::new(),
    }
}

fn parsed(language: SchemaLanguage, schema: &str) -> Arc<WriterSchema> {
    let parsed = WriterSchema::parse_named(&text(language, schema), None);
    Arc::new(parsed.unwrap_or_else(|why| panic!("{why}: {schema}")))
}

fn plan(fields: Vec<NestedField>, declared: Option<&[Column]>, unknown: UnknownFields) -> Arc<RowPlan> {
    let schema = Arc::new(evolve::create_schema(fields, &[], false));
    Arc::new(evolve::row_plan(schema, declared, &[], false, unknown, false))
}

/// A decoder into columns of text, one for each of these fields.
fn as_text(language: SchemaLanguage, schema: Arc<WriterSchema>, names: &[&str]) -> Decoder {
    let columns: Vec<Column> = names
        .iter()
        .map(|name| Column {
            name: (*name).to_owned(),
            from: vec![(*name).to_owned()],
            of: types::parse("string").expect("a type"),
            required: false,
        })
        .collect();
    let fields = columns.iter().zip(1..);
    let fields = fields.map(|(column, id)| NestedField::optional(id, &column.name, column.of.clone()));
    let plan = plan(fields.collect(), Some(&columns), UnknownFields::Declared);
    let mut writers = Writers::default();
    match language {
        SchemaLanguage::Json => Decoder::Json(JsonDecoder::new(plan)),
        _ => {
            writers.add(SchemaKey::file(), schema);
            Decoder::Framed(FramedDecoder::new(plan, Arc::new(writers), Framing::File, None))
        }
    }
}

#[test]
fn the_corpus_is_small() {
    let all = [
        include_str!("avro.txt"),
        include_str!("protobuf.txt"),
        include_str!("json.txt"),
        include_str!("messagepack.txt"),
        include_str!("frames.txt"),
        include_str!("avsc.txt"),
        include_str!("proto.txt"),
        include_str!("json_schema.txt"),
    ];
    for text in all {
        let named: Vec<Case> = cases(text);
        let mut names: Vec<_> = named.iter().map(|case| &case.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), named.len(), "each case has a name of its own");
        assert!(text.len() < 10_000);
    }
}
