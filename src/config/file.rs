//! The pipeline file as it is written. The comments here are the reference page that operators read.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::choices::{
    Apply, CatalogType, CommitAfter, DecodeErrorAction, Deleted, EnvelopeType, Format, Include, IncompatibleSchema,
    IncrementalMode, IsolationLevel, KeyFormat, LateName, MissingSchema, Mode, Nested, Protocol, SchemaEvolution,
    SourceType, StartAt, Strategy, SubjectStrategy, TableFormat,
};
use super::formats::{Instant, ShareOrCount, Span};
use super::secret::Secret;

/// A pipeline file: a catalog and the tables that are kept in it.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PipelineFile {
    /// Where the tables are registered. Default: a SQLite file in `./warehouse`, nothing to install.
    pub catalog: Option<Catalog>,
    /// Where sync points are kept: `{stateDir}/{schema}/sync_points.parquet`. Default `{warehouse}/.aperio`, or `.aperio`
    /// under the table's location where the warehouse is a catalog's name.
    pub state_dir: Option<String>,
    /// When the service counts as ready.
    pub health: Option<Health>,
    /// Merged under every table; what a table says itself wins.
    pub defaults: Option<Value>,
    /// The tables. At least one.
    pub partitioned_tables: Option<Vec<Table>>,
}

/// Where tables are registered.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Catalog {
    /// The kind of catalog. Default sql.
    #[serde(rename = "type")]
    pub kind: Option<CatalogType>,
    /// The `catalog_name` column of a SQL catalog: Spark's and Trino's must equal it. Default aperio.
    pub name: Option<String>,
    /// Where it is. Default `sqlite://./warehouse/catalog.db`.
    pub uri: Option<String>,
    /// Where tables are stored: a path, a URI like `s3://bucket/prefix`, or the name a REST catalog knows. Default
    /// `./warehouse`; for a REST catalog what it chooses itself.
    pub warehouse: Option<String>,
    /// The Iceberg namespace. Default `default`.
    pub schema: Option<String>,
    /// Catalog and file-io properties under their Iceberg names: credential, token, scope, s3.endpoint, …
    pub properties: Option<BTreeMap<String, Scalar>>,
}

/// When the service counts as ready.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Health {
    /// Records of lag above which the service isn't ready. Default: lag doesn't count.
    pub max_lag: Option<u64>,
}

/// One table and the topic that feeds it.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Table {
    /// The table's name, and `source_name` in sync_points.
    pub name: Option<String>,
    /// The Iceberg namespace of this table. Default: the catalog's `schema`.
    pub schema: Option<String>,
    /// The topic and how it is read.
    pub source: Option<Source>,
    /// The table's columns. Default: from the schema, else inferred from samples of every partition.
    pub columns: Option<Vec<ColumnEntry>>,
    /// The table's layout.
    pub materialize: Option<MaterializeEntry>,
    /// How the run goes on from where it was.
    pub incremental: Option<Incremental>,
    /// What happens to records that can't be read.
    pub errors: Option<ErrorsEntry>,
}

/// A topic and how it is read.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Source {
    /// The kind of source: kafka.
    #[serde(rename = "type")]
    pub kind: Option<SourceType>,
    /// The brokers to ask first, `host:port` separated by commas. Required.
    pub brokers: Option<String>,
    /// The topic. Required.
    pub topic: Option<String>,
    /// The consumer group, for sharing partitions and for lag tools. Default `aperio-{name}`.
    pub consumer_group: Option<String>,
    /// How values are encoded. Default json.
    pub format: Option<Format>,
    /// How keys are encoded. Default bytes (ktable: string).
    pub key_format: Option<KeyFormat>,
    /// The schema registry, Confluent's REST API: its URL or URLs, or a map with credentials.
    pub schema_registry: Option<Registry>,
    /// A schema file instead of a registry: `.avsc`, `.proto`, `.json`.
    pub schema_file: Option<String>,
    /// The message in a `.proto` file.
    pub message_type: Option<String>,
    /// json: whether values are validated against their JSON Schema; those that violate it are rejects. Default false.
    pub validate: Option<bool>,
    /// kstream appends; ktable upserts by key. Default kstream.
    pub mode: Option<Mode>,
    /// ktable: the field or fields that make the key; `$key` is the record key itself.
    pub key_field: Option<OneOrMany>,
    /// ktable: the field that decides which version wins. Default: the offset.
    pub order_by: Option<String>,
    /// The wrapping around each row. Default none.
    pub envelope: Option<Envelope>,
    /// Whether objects inside the payload stay structs or become columns named `a_b`. Default keep.
    pub nested: Option<Nested>,
    /// Where the very first run starts. Later runs start where the table ends. Default earliest.
    pub start_offset: Option<StartAt>,
    /// The time to start from, with `startOffset: timestamp`.
    pub start_timestamp: Option<Instant>,
    /// A window closes at the first poll that reaches this many records. Default 1000000. Smaller makes more, smaller
    /// files; larger takes more memory.
    #[schemars(range(min = 1))]
    pub batch_size: Option<u64>,
    /// A window closes at this age from its first record. Default 1 minute. Smaller makes more snapshots.
    pub batch_window: Option<Span>,
    /// The most records taken by one poll. Default 8192.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_poll_records: Option<u32>,
    /// Whether records of open and aborted transactions are read. Default read_committed.
    pub isolation_level: Option<IsolationLevel>,
    /// The dotted path of the event time. Default: the record's own timestamp.
    pub event_time_field: Option<String>,
    /// epoch_seconds, epoch_millis, epoch_micros, epoch_nanos, ISO8601, or a strftime pattern. Default ISO8601 for text,
    /// epoch_millis for numbers.
    pub event_time_format: Option<String>,
    /// Columns about the record itself, `_kafka_partition` and so on. Default partition, offset, timestamp.
    pub include: Option<Vec<Include>>,
    /// How to log in to the brokers.
    pub security: Option<Security>,
    /// librdkafka properties, passed through; the ones that exactly-once owns are refused.
    pub consumer_config: Option<BTreeMap<String, Scalar>>,
}

/// A registry's URL or URLs, or a map with credentials.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Registry {
    /// The URL, or several separated by commas.
    Url(String),
    /// The URL and what is needed to be let in.
    Full(Box<RegistryEntry>),
}

/// A registry and what is needed to be let in.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RegistryEntry {
    /// The URL, or several of one registry separated by commas: where one doesn't answer, the next is asked. Apicurio's
    /// ends in `/apis/ccompat/v7`. Required.
    pub url: Option<String>,
    /// The user of basic authentication.
    pub username: Option<String>,
    /// The user's password, best as `${ENV}` or `${file:/path}`. Required with `username`.
    pub password: Option<Secret>,
    /// A bearer token, instead of `username` and `password`.
    pub token: Option<Secret>,
    /// A PEM file with the CA, trusted beside the usual ones.
    pub ca: Option<String>,
    /// A PEM file with the client's certificate.
    pub cert: Option<String>,
    /// A PEM file with the client's key, not encrypted. Required with `cert`.
    pub key: Option<String>,
    /// How subjects are named: after the topic (`orders-value`), the record's full name, or both. Default topic.
    pub subject_strategy: Option<SubjectStrategy>,
    /// The subject, where no strategy fits.
    pub subject: Option<String>,
}

/// One text or a list of them.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// The wrapping around each row.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Envelope {
    /// Its name.
    Name(EnvelopeType),
    /// Its name and how it is applied.
    Full(EnvelopeEntry),
}

/// A wrapping and how it is applied.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct EnvelopeEntry {
    /// Its name.
    #[serde(rename = "type")]
    pub kind: Option<EnvelopeType>,
    /// Whether changes become rows, or are kept as events. Default rows.
    pub apply: Option<Apply>,
    /// cdc: whether an event that was sent again is dropped, by its `event_id`. Default false.
    pub idempotent: Option<bool>,
    /// idempotent: how many offsets of its partition an event is remembered for. Default 100000; each takes some 100 bytes
    /// of memory.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub horizon: Option<u64>,
}

/// How to log in to the brokers.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Security {
    /// PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL. Default PLAINTEXT.
    pub protocol: Option<Protocol>,
    /// PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER. Required with a SASL protocol.
    pub sasl_mechanism: Option<SaslMechanism>,
    /// The user. Required with PLAIN and SCRAM.
    pub sasl_username: Option<String>,
    /// The password, best as `${ENV}` or `${file:/path}`. Required with PLAIN and SCRAM.
    pub sasl_password: Option<Secret>,
    /// A PEM file with the CA. Default: the system's.
    pub ca: Option<String>,
    /// A PEM file with the client's certificate.
    pub cert: Option<String>,
    /// A PEM file with the client's key.
    pub key: Option<String>,
    /// The password of the client's key.
    pub key_password: Option<Secret>,
}

/// The ways to log in that this build of librdkafka has.
#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq)]
pub(super) enum SaslMechanism {
    #[serde(rename = "PLAIN")]
    Plain,
    #[serde(rename = "SCRAM-SHA-256")]
    Scram256,
    #[serde(rename = "SCRAM-SHA-512")]
    Scram512,
    #[serde(rename = "OAUTHBEARER")]
    OauthBearer,
}

/// The value of a property: a text, a number, or a switch. Never printed, as properties may hold secrets.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Scalar {
    Switch(bool),
    Whole(i64),
    Fraction(f64),
    Text(String),
}

impl Scalar {
    /// Returns the value as librdkafka and Iceberg take it.
    pub fn into_text(self) -> String {
        match self {
            Scalar::Switch(value) => value.to_string(),
            Scalar::Whole(value) => value.to_string(),
            Scalar::Fraction(value) => value.to_string(),
            Scalar::Text(value) => value,
        }
    }
}

/// A declared column.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ColumnEntry {
    /// The column's name.
    pub name: String,
    /// The dotted path of the payload field. Default: the field of the column's name.
    pub from: Option<String>,
    /// An Iceberg type: `long`, `string`, `decimal(12, 2)`, `timestamptz`, `list<string>`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether a record without it is a reject. Default false.
    pub required: Option<bool>,
}

/// The table's layout.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct MaterializeEntry {
    /// Iceberg, or hive-partitioned Parquet. Default iceberg.
    pub format: Option<TableFormat>,
    /// date, hour of the event time, a column, or `bucket(16, user_id)`, `truncate(4, country)`, `day(ts)`. Default none.
    pub partition: Option<Vec<String>>,
    /// What happens to fields that no column takes: evolve (add, widen), ignore (drop, count), strict (exit 3). Default
    /// evolve.
    pub schema_evolution: Option<SchemaEvolution>,
    /// The Iceberg format version. Default 2.
    #[schemars(range(min = 2, max = 3))]
    pub format_version: Option<u8>,
    /// ktable: how changes are applied. Default merge-on-read.
    pub strategy: Option<Strategy>,
    /// ktable: whether tombstones delete rows or mark them with `_deleted`. Default delete.
    pub deleted: Option<Deleted>,
    /// What happens to rows that come late. Default: they are written.
    pub lateness: Option<Lateness>,
    /// Compaction, snapshot expiry, orphan files. Default off.
    pub maintenance: Option<BTreeMap<String, Value>>,
    /// Iceberg table properties at creation.
    pub table_properties: Option<BTreeMap<String, Scalar>>,
}

/// What happens to rows that come late.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Lateness {
    /// How far behind the newest event time a row is late.
    pub threshold: Option<Span>,
    /// write, drop (counted), or a table to put them in.
    pub action: Option<LateAction>,
}

/// Where late rows go.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum LateAction {
    Name(LateName),
    Table(LateTable),
}

/// A table for late rows.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LateTable {
    /// Its name.
    pub table: String,
}

/// How the run goes on from where it was.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Incremental {
    /// streaming is the only mode.
    pub mode: Option<IncrementalMode>,
    /// Offsets are stored after the Iceberg commit, never before.
    pub commit_after: Option<CommitAfter>,
}

/// What happens to records that can't be read.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ErrorsEntry {
    /// deadLetter, skip (counted) or fail. Default deadLetter.
    pub on_decode_error: Option<DecodeErrorAction>,
    /// Where dead letters go. Default: the table `{name}_dead_letters`.
    pub dead_letter: Option<DeadLetterEntry>,
    /// A share of a window like `1%`, from 10 rejects on, or a count; above it the run fails before any is stored.
    /// Default 1%.
    pub max_rejected: Option<ShareOrCount>,
    /// When the registry lacks a record's schema. Default fail.
    pub on_missing_schema: Option<MissingSchema>,
    /// When a record's schema doesn't fit the table. Default fail.
    pub on_incompatible_schema: Option<IncompatibleSchema>,
}

/// Where dead letters go: a topic, a table, or both.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DeadLetterEntry {
    /// A topic on the same brokers.
    pub topic: Option<String>,
    /// A table in the same schema.
    pub table: Option<String>,
}

/// Returns the JSON Schema of the pipeline file, for editors.
pub fn json_schema() -> Value {
    let mut schema = schemars::schema_for!(PipelineFile).to_value();
    let mut defaults = schema["$defs"]["Table"].clone();
    if let Some(keys) = defaults["properties"].as_object_mut() {
        keys.remove("name");
    }
    let description = schema["properties"]["defaults"]["description"].clone();
    schema["$defs"]["Defaults"] = defaults;
    schema["properties"]["defaults"] =
        json!({"description": description, "anyOf": [{"$ref": "#/$defs/Defaults"}, {"type": "null"}]});
    schema
}
