//! Schemas: what the table's columns are and where each column's values come from.

pub mod evolve;
pub mod infer;
pub mod json_schema;
mod text;

use std::collections::HashSet;
use std::sync::Arc;

pub use self::text::{Reference, SchemaLanguage, SchemaText};
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

/// A plan shared by the lines of a run.
pub type RowPlanRef = Arc<RowPlan>;
