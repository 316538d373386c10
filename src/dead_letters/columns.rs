//! The columns of a dead-letter table, and letters as rows of it.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int32Array, Int64Array, LargeBinaryArray, ListArray, RecordBatch, StringArray, StructArray,
    TimestampMicrosecondArray, new_empty_array, new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Fields};
use arrow::error::ArrowError;
use chrono::{DateTime, Datelike};
use iceberg::arrow::schema_to_arrow_schema;
use iceberg::spec::{
    ListType, NestedField, NestedFieldRef, PrimitiveType, Schema, SchemaRef, StructType, TableMetadata, Type,
};

use super::Origin;
use crate::decode::DeadLetter;
use crate::place::{UTC, conform};
use crate::schema::{ColumnSource, RowPlan, RowPlanRef, UnknownFields};

/// The Kafka topic, string.
pub(super) const TOPIC: &str = "topic";
/// The Kafka partition, int.
pub(super) const PARTITION: &str = "partition";
/// The offset, long.
pub(super) const OFFSET: &str = "offset";
/// The record's time, timestamptz; null where it has none, or one that engines can't read back.
pub(super) const TIMESTAMP: &str = "timestamp";
/// The pipeline whose record it is, string: `{schema}.{name}`, as its table is called.
pub(super) const PIPELINE: &str = "pipeline";
/// The UUID of the pipeline's table, string: a table that was dropped and made anew has another.
pub(super) const TABLE_UUID: &str = "table_uuid";
/// The Kafka cluster's id, string; null where the brokers don't tell.
pub(super) const CLUSTER_ID: &str = "cluster_id";
/// The Kafka topic's id, string: a topic that was made anew has another; null where the brokers don't tell.
pub(super) const TOPIC_ID: &str = "topic_id";

/// The columns that dead-letter tables of earlier versions lack.
const CAME_LATER: [&str; 5] = ["schema_id", PIPELINE, TABLE_UUID, CLUSTER_ID, TOPIC_ID];

/// Returns the columns with which a dead-letter table is created.
pub(super) fn fields() -> Vec<NestedFieldRef> {
    let header = StructType::new(vec![
        NestedField::required(12, "key", primitive(PrimitiveType::String)).into(),
        NestedField::optional(13, "value", primitive(PrimitiveType::Binary)).into(),
    ]);
    let headers = ListType::new(NestedField::list_element(11, Type::Struct(header), true).into());
    let fields = [
        NestedField::required(1, TOPIC, primitive(PrimitiveType::String)),
        NestedField::required(2, PARTITION, primitive(PrimitiveType::Int)),
        NestedField::required(3, OFFSET, primitive(PrimitiveType::Long)),
        NestedField::optional(4, TIMESTAMP, primitive(PrimitiveType::Timestamptz)),
        NestedField::optional(5, "key", primitive(PrimitiveType::Binary)),
        NestedField::optional(6, "value", primitive(PrimitiveType::Binary)),
        NestedField::optional(7, "headers", Type::List(headers)),
        NestedField::required(8, "stage", primitive(PrimitiveType::String)),
        NestedField::required(9, "error", primitive(PrimitiveType::String)),
        NestedField::optional(10, "schema_id", primitive(PrimitiveType::Int)),
        NestedField::optional(14, PIPELINE, primitive(PrimitiveType::String)),
        NestedField::optional(15, TABLE_UUID, primitive(PrimitiveType::String)),
        NestedField::optional(16, CLUSTER_ID, primitive(PrimitiveType::String)),
        NestedField::optional(17, TOPIC_ID, primitive(PrimitiveType::String)),
    ];
    fields.into_iter().map(Arc::new).collect()
}

/// Adds the columns that a table of an earlier version lacks; `None` if it lacks none, or one that was always there.
pub(super) fn evolved(metadata: &TableMetadata) -> Option<iceberg::Result<Schema>> {
    let schema = metadata.current_schema();
    let lacks = |ours: &NestedFieldRef| schema.as_struct().field_by_name(&ours.name).is_none();
    let lacking: Vec<_> = fields().into_iter().filter(lacks).collect();
    let addable = |field: &NestedFieldRef| CAME_LATER.contains(&field.name.as_str());
    if lacking.is_empty() || !lacking.iter().all(addable) {
        return None;
    }
    let ids = metadata.last_column_id() + 1..;
    let added = lacking.iter().zip(ids).map(|(field, id)| {
        let field = NestedField::optional(id, &field.name, (*field.field_type).clone());
        NestedFieldRef::from(field)
    });
    let fields = schema.as_struct().fields().iter().cloned().chain(added);
    let identifier = schema.identifier_field_ids();
    Some(
        Schema::builder()
            .with_fields(fields)
            .with_identifier_field_ids(identifier)
            .build(),
    )
}

/// Plans the rows of a table that may have been made or altered by others: columns in any order, more of them than ours.
///
/// # Errors
/// What keeps letters from being stored whole, for a person.
pub fn plan(schema: &SchemaRef) -> Result<RowPlanRef, String> {
    let arrow = schema_to_arrow_schema(schema).map_err(|error| error.to_string())?;
    for ours in fields() {
        let found = schema.as_struct().field_by_name(&ours.name);
        let found = found.ok_or_else(|| format!("it has no column `{}`", ours.name))?;
        let wrong = || {
            format!(
                "its column `{}` is {}, not {}",
                ours.name, found.field_type, ours.field_type
            )
        };
        if ours.field_type.is_primitive() {
            if found.field_type != ours.field_type {
                return Err(wrong());
            }
        } else {
            let target = arrow.field_with_name(&ours.name).map_err(|error| error.to_string())?;
            conform(&new_empty_array(&headers_type()), target.data_type()).map_err(|_| wrong())?;
        }
    }
    let mut sources = Vec::with_capacity(arrow.fields().len());
    for field in schema.as_struct().fields() {
        let ours = fields().iter().any(|ours| ours.name == field.name);
        if !ours && field.required {
            return Err(format!(
                "its column `{}` is required, and dead letters have nothing for it",
                field.name
            ));
        }
        sources.push(if ours {
            ColumnSource::Payload(vec![field.name.clone()])
        } else {
            ColumnSource::Absent
        });
    }
    Ok(Arc::new(RowPlan {
        schema: Arc::clone(schema),
        arrow: Arc::new(arrow),
        sources,
        required: HashSet::new(),
        unknown: UnknownFields::Ignore,
        flatten: false,
    }))
}

/// Makes letters rows of the planned table, order kept.
///
/// # Errors
/// If a column of the table can't hold what it is given; [`plan`] has looked at the types.
pub fn rows(plan: &RowPlan, origin: &Origin, letters: &[&DeadLetter]) -> Result<RecordBatch, ArrowError> {
    let columns = plan
        .arrow
        .fields()
        .iter()
        .map(|field| match column(field.name(), origin, letters) {
            Some(column) => conform(&column, field.data_type()),
            None => Ok(new_null_array(field.data_type(), letters.len())),
        });
    RecordBatch::try_new(Arc::clone(&plan.arrow), columns.collect::<Result<_, _>>()?)
}

/// Gives rows of the table, as a scan brings them, the planned columns.
///
/// # Errors
/// If the scan lacks a required column, or brings one that doesn't fit.
pub(super) fn planned(plan: &RowPlan, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = plan.arrow.fields().iter().map(|field| {
        match rows.column_by_name(field.name()) {
            Some(column) => conform(column, field.data_type()),
            // Added since the rows were written, or under another name then.
            None if field.is_nullable() => Ok(new_null_array(field.data_type(), rows.num_rows())),
            None => Err(ArrowError::SchemaError(format!("column `{}` is missing", field.name()))),
        }
    });
    RecordBatch::try_new(Arc::clone(&plan.arrow), columns.collect::<Result<_, _>>()?)
}

/// Returns the schema of a new table.
///
/// # Errors
/// Those of the crate; the fields are constant, so none in practice.
pub fn schema() -> iceberg::Result<Schema> {
    Schema::builder().with_fields(fields()).build()
}

fn column(name: &str, origin: &Origin, letters: &[&DeadLetter]) -> Option<ArrayRef> {
    let every = |text: Option<String>| Arc::new(StringArray::from(vec![text; letters.len()]));
    let letters = letters.iter().copied();
    Some(match name {
        TOPIC => Arc::new(StringArray::from_iter_values(letters.map(|letter| &letter.topic))),
        PARTITION => Arc::new(Int32Array::from_iter_values(letters.map(|letter| letter.partition.0))),
        OFFSET => Arc::new(Int64Array::from_iter_values(letters.map(|letter| letter.offset.get()))),
        TIMESTAMP => {
            let times: TimestampMicrosecondArray = letters.map(stored_time).collect();
            Arc::new(times.with_timezone(UTC))
        }
        "key" => Arc::new(
            letters
                .map(|letter| letter.key.as_deref())
                .collect::<LargeBinaryArray>(),
        ),
        "value" => Arc::new(
            letters
                .map(|letter| letter.value.as_deref())
                .collect::<LargeBinaryArray>(),
        ),
        "headers" => Arc::new(headers(letters)),
        "stage" => Arc::new(StringArray::from_iter_values(letters.map(|letter| letter.stage))),
        "error" => Arc::new(StringArray::from_iter_values(letters.map(|letter| &letter.error))),
        PIPELINE => every(Some(origin.pipeline.clone())),
        TABLE_UUID => every(Some(origin.table.to_string())),
        CLUSTER_ID => every(origin.source.cluster_id.clone()),
        TOPIC_ID => every(origin.source.topic_id.clone()),
        "schema_id" => Arc::new(letters.map(|letter| letter.schema_id).collect::<Int32Array>()),
        _ => return None,
    })
}

/// Returns the time of a letter's record in microseconds, as it is stored.
pub(super) fn stored_time(letter: &DeadLetter) -> Option<i64> {
    letter.timestamp_ms.and_then(readable_micros)
}

fn headers<'a>(letters: impl Iterator<Item = &'a DeadLetter> + Clone) -> ListArray {
    let flat = letters.clone().flat_map(|letter| &letter.headers);
    let keys: StringArray = flat.clone().map(|(key, _)| Some(key.as_str())).collect();
    let values: LargeBinaryArray = flat.map(|(_, value)| value.as_deref()).collect();
    let lengths = OffsetBuffer::from_lengths(letters.clone().map(|letter| letter.headers.len()));
    let present: NullBuffer = letters
        .map(|letter| !letter.headers.is_empty())
        .collect::<Vec<bool>>()
        .into();
    let headers = StructArray::new(header_fields(), vec![Arc::new(keys), Arc::new(values)], None);
    ListArray::new(header_element(), lengths, Arc::new(headers), Some(present))
}

fn header_fields() -> Fields {
    Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::LargeBinary, true),
    ])
}

fn header_element() -> Arc<Field> {
    Arc::new(Field::new("element", DataType::Struct(header_fields()), false))
}

fn headers_type() -> DataType {
    DataType::List(header_element())
}

/// Returns microseconds, or `None` for a time that Spark, Trino or Python's `datetime` can't read back.
fn readable_micros(timestamp_ms: i64) -> Option<i64> {
    let time = DateTime::from_timestamp_millis(timestamp_ms)?;
    (1..=9999).contains(&time.year()).then(|| time.timestamp_micros())
}

fn primitive(kind: PrimitiveType) -> Type {
    Type::Primitive(kind)
}
