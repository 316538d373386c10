//! Schemas: what the table's columns are and where each column's values come from.

pub mod avro;
pub mod compatibility;
pub mod debezium;
pub mod evolve;
pub mod follow;
pub mod frame;
pub mod infer;
pub mod json_schema;
pub mod protobuf;
mod text;
mod writer;

use std::collections::HashSet;
use std::sync::Arc;

use iceberg::spec::Type;

pub use self::text::{Reference, SchemaLanguage, SchemaText};
pub use self::writer::{Missing, Rename, WriterSchema, Writers};
pub use crate::config::KafkaColumn;

/// Where the values of one top-level column of the table come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnSource {
    /// A field of the payload, by its path from the root; one segment for a top-level field.
    Payload(Vec<String>),
    /// Something Kafka knows about the record.
    Kafka(KafkaColumn),
    /// The event time that placing computed (`_event_time`).
    EventTime,
    /// Nothing of ours: a column that somebody else added. Written as null.
    Absent,
}

/// How every column of the table is filled, for one schema of the table. Immutable; a new schema makes a new plan.
#[derive(Debug, Clone)]
pub struct RowPlan {
    /// The table's schema, with the field ids that the catalog granted.
    pub schema: iceberg::spec::SchemaRef,
    /// The same as Arrow, with `PARQUET:field_id` metadata on every field at every depth.
    pub arrow: arrow::datatypes::SchemaRef,
    /// One source for each top-level field of `schema`, in its order.
    pub sources: Vec<ColumnSource>,
    /// Ids of top-level columns that a record must have a value for, although the table may not ask for it.
    pub required: HashSet<i32>,
    /// What to do with fields that no column takes.
    pub unknown: UnknownFields,
    /// `nested: flatten`: objects inside the payload become columns named `a_b`.
    pub flatten: bool,
}

impl RowPlan {
    /// Finds the column that holds a field of the payload, itself or inside it.
    ///
    /// - returns its place among the payload columns, and the names from there down to the field.
    pub fn payload_column<'p>(&self, path: &'p [String]) -> Option<(usize, &'p [String])> {
        let fields = self.schema.as_struct().fields().iter().zip(&self.sources);
        let payloads = fields.filter_map(|(field, source)| match source {
            ColumnSource::Payload(source) => Some((field, source)),
            _ => None,
        });
        let flat = path.join("_");
        let found = |same: fn(&str, &str) -> bool| {
            let leads = |source: &[String]| {
                let inside = source.iter().zip(path).all(|(one, other)| same(one, other));
                match source.len() <= path.len() && inside {
                    true => Some(source.len()),
                    false if self.flatten && same(&source.join("_"), &flat) => Some(path.len()),
                    false => None,
                }
            };
            let fitting = payloads.clone().enumerate().filter_map(|(at, (field, source))| {
                let used = leads(source)?;
                holds(&field.field_type, &path[used..]).then_some((at, used))
            });
            fitting.max_by_key(|(_, used)| *used)
        };
        let (at, used) = found(|one, other| one == other).or_else(|| found(str::eq_ignore_ascii_case))?;
        Some((at, &path[used..]))
    }
}

/// Says whether there is a field at `path` inside a type; names match as written, else in letters of another case.
fn holds(of: &Type, path: &[String]) -> bool {
    let Some((name, rest)) = path.split_first() else {
        return true;
    };
    let Type::Struct(fields) = of else { return false };
    let fields = fields.fields();
    let exact = fields.iter().find(|field| field.name == *name);
    let found = exact.or_else(|| fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)));
    found.is_some_and(|field| holds(&field.field_type, rest))
}

/// `materialize.schemaEvolution`: what happens to a field that no column takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownFields {
    /// Reported as unseen, so that the table gets a column.
    Evolve,
    /// Dropped and counted.
    Ignore,
    /// Reported as unseen, so that the run stops with exit code 3.
    Strict,
    /// The columns are declared: other fields are none of our business.
    Declared,
}

/// The column of values that aren't records, and of `format: string` and `bytes`.
pub const VALUE: &str = "value";

/// The column of records' keys.
pub const KEY: &str = "_kafka_key";

/// A plan shared by the lines of a run.
pub type RowPlanRef = Arc<RowPlan>;
