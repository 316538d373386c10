//! Samples decoded as a run would decode them.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BinaryBuilder, Int64Array, ListArray, ListBuilder, StringBuilder, StructBuilder,
};
use arrow::datatypes::{DataType, Field};
use iceberg::spec::{NestedField, PrimitiveType, Schema, Type};

use super::kind::Kind;
use super::schemas::{Newest, header, name_in};
use super::{Sample, SchemaLanguage, Schemas, WriterSchema};
use crate::chunk::Chunk;
use crate::decode::framed::{FramedDecoder, Framing, fits};
use crate::decode::json::JsonDecoder;
use crate::decode::raw::RawDecoder;
use crate::decode::transcoded::{Holds, TranscodedDecoder};
use crate::decode::{Decoder, messagepack};
use crate::offsets::{Offset, OffsetRange, Partition};
use crate::place::{column_at, leaves};
use crate::schema::frame::{self, Part, SchemaKey, SchemaName, VALUE_HEADER};
use crate::schema::infer::{self, Shape};
use crate::schema::{ColumnSource, Missing, RowPlan, RowPlanRef, UnknownFields, VALUE, Writers, evolve, follow};

/// Samples as rows.
#[derive(Debug, Default)]
pub(super) struct Sampled {
    /// The columns of the table that a run would make, without those about Kafka.
    pub fields: Vec<NestedField>,
    /// Those of them, and inside structs of them, that hold simple values; as many rows as there are samples that fit.
    pub columns: Vec<Column>,
    /// When Kafka got the record of each row, milliseconds since 1970.
    pub timestamps_ms: Vec<Option<i64>>,
    /// For each row the place of its sample among the values.
    pub indexes: Vec<u32>,
    /// How many values there are.
    pub values: usize,
    /// Why samples don't fit, one reason each.
    pub rejects: Vec<String>,
    /// Samples whose schema nobody has.
    pub unregistered: usize,
    /// Schemas that the registry has and that can't be used, and why.
    pub unusable: Vec<String>,
    /// What schemas of the samples have that the table's columns don't take.
    pub differences: Vec<String>,
}

/// A column of simple values.
#[derive(Debug)]
pub(super) struct Column {
    /// Its name, behind those of what it is inside.
    pub path: Vec<String>,
    /// Its type.
    pub of: PrimitiveType,
    /// `(n,)`, a value for each row.
    pub values: ArrayRef,
}

/// Decodes values of one kind; the others are rejects.
pub(super) fn decode(kind: Kind, values: &[&Sample], schemas: &Schemas) -> Sampled {
    let mut sampled = Sampled {
        values: values.len(),
        ..Sampled::default()
    };
    let writers = match kind {
        Kind::Framed(language) => Arc::new(writers(language, values, schemas, &mut sampled)),
        _ => Arc::default(),
    };
    let value_column = |of| vec![NestedField::optional(1, VALUE, Type::Primitive(of))];
    sampled.fields = match kind {
        Kind::Unregistered | Kind::SingleObject => return sampled,
        Kind::Framed(_) => follow::merged(&writers, follow::Form::default()),
        Kind::Json | Kind::MessagePack => inferred(kind, values),
        Kind::Text => value_column(PrimitiveType::String),
        Kind::Bytes => value_column(PrimitiveType::Binary),
    };
    if sampled.fields.is_empty() {
        return sampled;
    }
    let plan = plan(sampled.fields.clone());
    if matches!(kind, Kind::Framed(SchemaLanguage::Avro | SchemaLanguage::Protobuf)) {
        for (key, writer) in writers.all() {
            let differences = fits(writer, &writers, &plan).err().unwrap_or_default();
            let told = differences.into_iter().map(|difference| format!("{key}: {difference}"));
            sampled.differences.extend(told);
        }
    }
    let mut decoder = match kind {
        Kind::Json => Decoder::Json(JsonDecoder::new(plan.clone())),
        Kind::MessagePack => transcoded(&plan, writers, Holds::MessagePack),
        Kind::Framed(SchemaLanguage::Json) => transcoded(&plan, writers, Holds::Framed),
        Kind::Framed(language) => {
            let indexes = language == SchemaLanguage::Protobuf;
            let framing = Framing::Registry { indexes };
            Decoder::Framed(FramedDecoder::new(plan.clone(), writers, framing, None))
        }
        _ => Decoder::Raw(RawDecoder::new(&plan, None)),
    };
    let chunk = chunk(values);
    let decoded = decoder.decode(&chunk, &Missing::new());
    sampled.rejects = decoded.rejects.into_iter().map(|reject| reject.reason).collect();
    sampled.timestamps_ms = decoded
        .indexes
        .iter()
        .map(|index| values[*index as usize].timestamp_ms)
        .collect();
    sampled.indexes = decoded.indexes;
    sampled.columns = simple_columns(&plan, &decoded.rows);
    sampled
}

/// What the schema of an empty topic tells.
pub(super) fn of_schema(newest: &Newest) -> Sampled {
    let mut sampled = Sampled::default();
    let mut key = SchemaKey::id(newest.id);
    if newest.text.language == SchemaLanguage::Protobuf {
        key.message = vec![0];
    }
    let columns = WriterSchema::parse(&key, &newest.text).and_then(|writer| writer.columns(false));
    match columns {
        Ok(fields) => sampled.fields = fields,
        Err(why) => sampled.unusable.push(format!("{key} can't be used: {why}")),
    }
    if !sampled.fields.is_empty() {
        let plan = plan(sampled.fields.clone());
        let rows = arrow::array::RecordBatch::new_empty(plan.arrow.clone());
        sampled.columns = simple_columns(&plan, &rows);
    }
    sampled
}

fn transcoded(plan: &RowPlanRef, writers: Arc<Writers>, holds: Holds) -> Decoder {
    Decoder::Transcoded(TranscodedDecoder::new(plan.clone(), writers, holds, None))
}

fn plan(fields: Vec<NestedField>) -> RowPlanRef {
    let schema = evolve::create_schema(fields, &[], false);
    Arc::new(evolve::row_plan(
        Arc::new(schema),
        None,
        &[],
        false,
        UnknownFields::Ignore,
        false,
    ))
}

/// The schemas of a language that values name; those that nobody has are counted.
fn writers(language: SchemaLanguage, values: &[&Sample], schemas: &Schemas, sampled: &mut Sampled) -> Writers {
    let mut writers = Writers::default();
    let mut useless = BTreeSet::new();
    for sample in values {
        let value = sample.value.as_deref().unwrap_or_default();
        let header = header(&sample.headers, VALUE_HEADER);
        let Some(name) = name_in(value, header) else { continue };
        let Some(text) = schemas.text(&name) else {
            // Unframed JSON, and what begins with a 0 by chance, isn't missing anything.
            sampled.unregistered += usize::from(header.is_some() || super::schemas::looks_framed(value));
            continue;
        };
        let Some(key) = key_of(value, header, language, name) else {
            continue;
        };
        if text.language != language || writers.get(&key).is_some() || useless.contains(&key) {
            continue;
        }
        match WriterSchema::parse(&key, text) {
            Ok(writer) => writers.add(key, Arc::new(writer)),
            Err(why) => {
                sampled.unusable.push(format!("{key} can't be used: {why}"));
                useless.insert(key);
            }
        }
    }
    writers
}

/// Names the type that a value was written with, which for Protobuf is more than its schema.
fn key_of(value: &[u8], header: Option<&[u8]>, language: SchemaLanguage, name: SchemaName) -> Option<SchemaKey> {
    let indexes = language == SchemaLanguage::Protobuf;
    match header {
        Some(header) => frame::header_key(header, indexes).ok(),
        None if indexes => frame::key(frame::split(value, true).ok()?.prefix).ok(),
        None => Some(SchemaKey {
            part: Part::Value,
            name,
            message: Vec::new(),
        }),
    }
}

fn inferred(kind: Kind, values: &[&Sample]) -> Vec<NestedField> {
    let mut shape = Shape::default();
    for sample in values {
        // What can't be read is a reject below.
        drop(json_of(kind, sample).map(|json| shape.observe(&json)));
    }
    infer::schema(&shape, false)
}

/// The JSON that a value is, or stands for.
pub(super) fn json_of(kind: Kind, sample: &Sample) -> Option<Vec<u8>> {
    let value = sample.value.as_deref()?;
    match kind {
        Kind::MessagePack => messagepack::json(value).ok(),
        Kind::Framed(SchemaLanguage::Json) if frame::id(value).is_some() => Some(value[5..].to_vec()),
        _ => Some(value.to_vec()),
    }
}

fn chunk(values: &[&Sample]) -> Chunk {
    let count = i64::try_from(values.len()).expect("samples are few");
    Chunk {
        partition: Partition(0),
        range: OffsetRange::new(Offset::new(0), Offset::new(count)),
        offsets: (0..count).collect::<Vec<_>>().into(),
        timestamps: values.iter().map(|sample| sample.timestamp_ms).collect::<Int64Array>(),
        keys: values
            .iter()
            .map(|sample| sample.key.as_deref())
            .collect::<BinaryArray>(),
        values: values
            .iter()
            .map(|sample| sample.value.as_deref())
            .collect::<BinaryArray>(),
        headers: Some(headers(values)),
    }
}

fn headers(values: &[&Sample]) -> ListArray {
    let fields = vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Binary, true),
    ];
    let builders: Vec<Box<dyn arrow::array::ArrayBuilder>> =
        vec![Box::new(StringBuilder::new()), Box::new(BinaryBuilder::new())];
    let mut lists = ListBuilder::new(StructBuilder::new(fields, builders));
    for sample in values {
        for (name, value) in &sample.headers {
            let entry = lists.values();
            let names: &mut StringBuilder = entry.field_builder(0).expect("field 0 is a string");
            names.append_value(name);
            let values: &mut BinaryBuilder = entry.field_builder(1).expect("field 1 is binary");
            values.append_option(value.as_deref());
            entry.append(true);
        }
        lists.append(true);
    }
    lists.finish()
}

/// Takes the rows apart.
fn simple_columns(plan: &RowPlan, rows: &arrow::array::RecordBatch) -> Vec<Column> {
    // The place among the rows' columns of each of the schema's that comes from the payload.
    let mut places = Vec::new();
    let mut next = 0;
    for source in &plan.sources {
        let payload = matches!(source, ColumnSource::Payload(_));
        places.push(payload.then_some(next));
        next += usize::from(payload);
    }
    let column = |leaf: crate::place::Leaf| {
        let mut positions = leaf.positions.clone();
        positions[0] = places[positions[0]]?;
        Some(Column {
            path: names(&plan.schema, &leaf.positions),
            of: leaf.kind,
            values: column_at(rows, &positions),
        })
    };
    leaves(&plan.schema).into_iter().filter_map(column).collect()
}

fn names(schema: &Schema, positions: &[usize]) -> Vec<String> {
    let mut fields = schema.as_struct();
    let mut names = Vec::with_capacity(positions.len());
    for position in positions {
        let field = &fields.fields()[*position];
        names.push(field.name.clone());
        if let Type::Struct(inner) = &*field.field_type {
            fields = inner;
        }
    }
    names
}
