//! The words that keys of the pipeline file choose from.

use schemars::JsonSchema;
use serde::Deserialize;

/// The kinds of catalog.
#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum CatalogType {
    Sql,
    Rest,
    Glue,
    S3tables,
    Hms,
}

/// The kinds of source.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum SourceType {
    Kafka,
}

/// How values are encoded.
#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    Json,
    Avro,
    Protobuf,
    String,
    Bytes,
    Messagepack,
}

/// How keys are encoded; int and long are big-endian.
#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum KeyFormat {
    Json,
    Avro,
    Protobuf,
    String,
    Bytes,
    Messagepack,
    Int,
    Long,
}

/// How a registry's subjects are named after what is written.
#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum SubjectStrategy {
    Topic,
    Record,
    TopicRecord,
}

/// Append, or upsert by key.
#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    Kstream,
    Ktable,
}

/// The known wrappings.
#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum EnvelopeType {
    None,
    Debezium,
    Cdc,
}

/// Whether changes become rows, or are kept as events.
#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Apply {
    Rows,
    Events,
}

/// What becomes of objects inside the payload.
#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Nested {
    Keep,
    Flatten,
}

/// Where the very first run starts.
#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum StartAt {
    Earliest,
    Latest,
    Timestamp,
}

/// Whether records of open and aborted transactions are read.
#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum IsolationLevel {
    ReadCommitted,
    ReadUncommitted,
}

/// What `include` can add.
#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Include {
    Partition,
    Offset,
    Timestamp,
    Key,
    Headers,
    Topic,
    SchemaId,
}

/// The protocols of Kafka.
#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Protocol {
    Plaintext,
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

/// How tables are stored.
#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum TableFormat {
    Iceberg,
    Parquet,
}

/// What happens to fields that no column takes.
#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum SchemaEvolution {
    Evolve,
    Ignore,
    Strict,
}

/// ktable: how changes are applied.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Strategy {
    MergeOnRead,
    CopyOnWrite,
    DeleteInsert,
    AppendDedupe,
}

/// ktable: what a tombstone does.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Deleted {
    Delete,
    Mark,
}

/// Late rows are written, or dropped and counted.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum LateName {
    Write,
    Drop,
}

/// How the run goes on.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum IncrementalMode {
    Streaming,
}

/// What the offsets wait for.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum CommitAfter {
    Iceberg,
}

/// What happens to a record that can't be read.
#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(super) enum DecodeErrorAction {
    DeadLetter,
    Skip,
    Fail,
}

/// When the registry lacks a record's schema; default decodes with `schemaFile`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum MissingSchema {
    Fail,
    DeadLetter,
    Default,
}

/// When a record's schema doesn't fit the table.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum IncompatibleSchema {
    Fail,
    DeadLetter,
}
