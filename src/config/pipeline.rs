//! A pipeline as it is run: every default applied, every path absolute, nothing left to decide.

use std::collections::BTreeMap;
use std::fmt;

use iceberg::spec::{Transform, Type};

use super::secret::{KeysOnly, Secret, without_password};
use crate::units::Millis;

/// One table and the topic that feeds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// The table's name, and `source_name` in sync_points.
    pub name: String,
    /// The Iceberg namespace; dots separate its levels.
    pub schema: String,
    /// Where the table is registered.
    pub catalog: CatalogConfig,
    /// The directory or URI of the state, without the schema; `None`: `.aperio` under the table's own location.
    pub state_dir: Option<String>,
    /// The lag above which the service isn't ready; `None`: lag doesn't count.
    pub max_lag: Option<u64>,
    /// The topic and how it is read.
    pub source: KafkaSource,
    /// The declared columns in their order; `None`: inferred from samples.
    pub columns: Option<Vec<Column>>,
    /// The table's layout.
    pub materialize: Materialize,
    /// What happens to records that can't be read.
    pub errors: Errors,
}

impl Pipeline {
    /// Returns the table's name with its namespace, `sales.orders`: what reports, messages and `--table` call it.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

/// The kinds of catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CatalogKind {
    /// A SQLite file.
    Sql,
    /// An Iceberg REST catalog.
    Rest,
}

/// A catalog and how to reach it. `Debug` shows no property values.
#[derive(Clone, PartialEq, Eq)]
pub struct CatalogConfig {
    /// Its kind.
    pub kind: CatalogKind,
    /// The `catalog_name` column of a SQL catalog.
    pub name: String,
    /// `sqlite://` and an absolute path, or the REST catalog's URL.
    pub uri: String,
    /// An absolute path, a URI, or the name a REST catalog knows; empty: the REST catalog's own default.
    pub warehouse: String,
    /// Catalog and file-io properties under their Iceberg names, secrets in clear.
    pub properties: BTreeMap<String, String>,
}

impl CatalogConfig {
    /// Returns the URI as it may be printed, its password hidden.
    pub fn shown(&self) -> String {
        without_password(&self.uri)
    }
}

impl fmt::Debug for CatalogConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CatalogConfig")
            .field("kind", &self.kind)
            .field("name", &self.name)
            .field("uri", &self.shown())
            .field("warehouse", &without_password(&self.warehouse))
            .field("properties", &KeysOnly(&self.properties))
            .finish()
    }
}

/// A topic and how it is read. `Debug` shows no client property values.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaSource {
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// The topic's name.
    pub topic: String,
    /// The consumer group.
    pub group: String,
    /// Where the very first run starts.
    pub start: StartOffset,
    /// A window closes at the first poll that reaches this many records; above 0.
    pub batch_size: u64,
    /// A window closes at this age from its first record; above 0.
    pub batch_window: Millis,
    /// The most records taken by one poll; above 0.
    pub max_poll_records: u32,
    /// Whether records of aborted transactions are left out.
    pub read_committed: bool,
    /// Where the event time is found; `None`: the record's own timestamp.
    pub event_time: Option<EventTime>,
    /// The columns about the record itself, in the order written, each once.
    pub include: Vec<KafkaColumn>,
    /// Whether objects inside the payload become columns named `a_b`.
    pub flatten: bool,
    /// How values are encoded.
    pub format: ValueFormat,
    /// Values are validated against their JSON Schema.
    pub validate: bool,
    /// How keys are encoded.
    pub key_format: KeyFormat,
    /// What is around each row.
    pub envelope: Option<Envelope>,
    /// The schema registry, where one is named.
    pub registry: Option<RegistryConfig>,
    /// The absolute path of the schema in a file; there where `registry` isn't and the format needs a schema.
    pub schema_file: Option<String>,
    /// The message in a `.proto` file; `None`: its first.
    pub message_type: Option<String>,
    /// librdkafka properties from `security` and `consumerConfig`, secrets in clear.
    pub client: BTreeMap<String, String>,
}

impl fmt::Debug for KafkaSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSource")
            .field("brokers", &self.brokers)
            .field("topic", &self.topic)
            .field("group", &self.group)
            .field("start", &self.start)
            .field("batch_size", &self.batch_size)
            .field("batch_window", &self.batch_window)
            .field("max_poll_records", &self.max_poll_records)
            .field("read_committed", &self.read_committed)
            .field("event_time", &self.event_time)
            .field("include", &self.include)
            .field("flatten", &self.flatten)
            .field("format", &self.format)
            .field("registry", &self.registry)
            .field("schema_file", &self.schema_file)
            .field("message_type", &self.message_type)
            .field("client", &KeysOnly(&self.client))
            .finish()
    }
}

/// A schema registry and how to reach it. `Debug` shows no password and no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryConfig {
    /// `http` and `https` addresses of one registry, the first to ask first; never empty. They hold no credentials, and no
    /// slash at their end.
    pub urls: Vec<String>,
    /// Who we are to it.
    pub auth: RegistryAuth,
    /// The absolute path of a PEM file: certificates to trust beside the usual ones.
    pub ca: Option<String>,
    /// The absolute path of a PEM file with the client's certificate; there if and only if `key` is.
    pub cert: Option<String>,
    /// The absolute path of a PEM file with the client's key.
    pub key: Option<String>,
    /// Which subjects hold the topic's schemas.
    pub subject: SubjectNaming,
}

/// Who we are to a schema registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryAuth {
    /// Nobody in particular, or whom the client's certificate names.
    None,
    /// A user.
    Basic {
        /// The user's name.
        username: String,
        /// The user's password; may be empty where it was written inside the URL.
        password: Secret,
    },
    /// Whoever has this token.
    Bearer(Secret),
}

/// Which subjects of a registry hold a topic's schemas.
///
/// Source: `TopicNameStrategy`, `RecordNameStrategy` and `TopicRecordNameStrategy` of Confluent Platform 7.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SubjectNaming {
    /// `{topic}-value` and `{topic}-key`.
    #[default]
    Topic,
    /// The full name of the record's type.
    Record,
    /// `{topic}-` and the full name of the record's type.
    TopicRecord,
    /// This one.
    Named(String),
}

/// How the values of a topic are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueFormat {
    /// JSON objects.
    Json,
    /// Avro, by a schema.
    Avro,
    /// Protobuf, by a schema.
    Protobuf,
    /// MessagePack maps.
    MessagePack,
    /// Text, in one column.
    String,
    /// Bytes, in one column.
    Bytes,
}

/// What is around each row (`source.envelope`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// Whose it is.
    pub kind: EnvelopeKind,
    /// What becomes of a change.
    pub apply: Apply,
    /// `idempotent`: an event is dropped if its partition brought the same one within this many offsets before.
    pub horizon: Option<u64>,
}

impl Envelope {
    /// Says whether there is something to be taken off: a cdc event that is kept as an event is a record as any other.
    pub fn is_opened(self) -> bool {
        self.apply == Apply::Rows || self.kind == EnvelopeKind::Debezium
    }

    /// Says whether rows are to be known by the ids of the events that they were inside.
    pub fn keeps_ids(self) -> bool {
        self.apply == Apply::Rows && self.horizon.is_some()
    }
}

/// Whose envelope it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvelopeKind {
    /// Debezium's: `before`, `after`, `op`, with or without its schema around, or as its unwrap step flattens it.
    ///
    /// Source: Debezium 3 documentation, "Data change events" of the PostgreSQL connector, "New record state extraction".
    Debezium,
    /// `event_id`, `tx_id`, `commit_ts_utc`, `schema_id`, `table_id`, `row_id`, `operation`, `payload_before`,
    /// `payload_after`.
    Cdc,
}

impl EnvelopeKind {
    /// The field that says what was done.
    pub fn operation(self) -> &'static str {
        match self {
            EnvelopeKind::Debezium => "op",
            EnvelopeKind::Cdc => "operation",
        }
    }

    /// The field that holds the row as it is now.
    pub fn after(self) -> &'static str {
        match self {
            EnvelopeKind::Debezium => "after",
            EnvelopeKind::Cdc => "payload_after",
        }
    }
}

/// What becomes of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Apply {
    /// The row as it is after the change becomes a row.
    Rows,
    /// The change itself becomes a row.
    Events,
}

/// How the keys of a topic are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFormat {
    /// As values can be.
    Of(ValueFormat),
    /// 4 bytes, big-endian.
    Int,
    /// 8 bytes, big-endian.
    Long,
}

/// The columns that `include` adds, with their fixed names and types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KafkaColumn {
    /// `_kafka_topic` string
    Topic,
    /// `_kafka_partition` int
    Partition,
    /// `_kafka_offset` long
    Offset,
    /// `_kafka_timestamp` timestamptz
    Timestamp,
    /// `_kafka_key`, of what `keyFormat` makes of keys: binary for `bytes`
    Key,
    /// `_kafka_headers` list<struct<key: string, value: binary>>
    Headers,
    /// `_kafka_schema_id` int: the registry's id that the value begins with, null where it doesn't
    SchemaId,
    /// `_event_id` string: the id of the event that the row was inside; added by `envelope.idempotent`, not by `include`
    EventId,
}

impl KafkaColumn {
    /// Every column that `include` can add: their names are ours, whether it does or not.
    pub const ALL: [KafkaColumn; 7] = [
        KafkaColumn::Topic,
        KafkaColumn::Partition,
        KafkaColumn::Offset,
        KafkaColumn::Timestamp,
        KafkaColumn::Key,
        KafkaColumn::Headers,
        KafkaColumn::SchemaId,
    ];

    /// Returns the column's name.
    pub fn name(self) -> &'static str {
        match self {
            KafkaColumn::Topic => "_kafka_topic",
            KafkaColumn::Partition => "_kafka_partition",
            KafkaColumn::Offset => "_kafka_offset",
            KafkaColumn::Timestamp => "_kafka_timestamp",
            KafkaColumn::Key => "_kafka_key",
            KafkaColumn::Headers => "_kafka_headers",
            KafkaColumn::SchemaId => "_kafka_schema_id",
            KafkaColumn::EventId => "_event_id",
        }
    }
}

/// Where the very first run of a table starts to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartOffset {
    /// At the oldest record.
    Earliest,
    /// At the end the topic has at that moment.
    Latest,
    /// At the first record of this time or later.
    Timestamp(Millis),
}

/// Where a record's event time is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventTime {
    /// The field's path from the payload's root; never empty.
    pub path: Vec<String>,
    /// How it is written.
    pub format: EventTimeFormat,
}

/// How an event time is written (`eventTimeFormat`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum EventTimeFormat {
    /// ISO 8601 for text, milliseconds since 1970 for numbers.
    #[default]
    Default,
    /// Seconds since 1970-01-01T00:00Z; a fraction is kept to the microsecond.
    EpochSeconds,
    /// Milliseconds since 1970-01-01T00:00Z.
    EpochMillis,
    /// Microseconds since 1970-01-01T00:00Z.
    EpochMicros,
    /// Nanoseconds since 1970-01-01T00:00Z, floored to the microsecond.
    EpochNanos,
    /// ISO 8601 text; UTC where it names no zone, midnight where it names no time.
    Iso8601,
    /// A strftime pattern as chrono 0.4 reads it; UTC where it has no zone, midnight where it has no time.
    Strftime(String),
}

/// A declared column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name in the table.
    pub name: String,
    /// The payload field's path; never empty.
    pub from: Vec<String>,
    /// Its Iceberg type; field ids are provisional.
    pub of: Type,
    /// Whether a record without it is a reject.
    pub required: bool,
}

/// The table's layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Materialize {
    /// What the table is made of.
    pub format: TableFormat,
    /// How rows are split into partitions, in the order written, each once; may be empty.
    pub partition: Vec<PartitionField>,
    /// What happens to fields that no column takes.
    pub evolution: Evolution,
    /// The Iceberg format version.
    pub format_version: u8,
    /// Table properties at creation.
    pub properties: BTreeMap<String, String>,
}

/// What a table is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableFormat {
    /// An Iceberg table in the catalog.
    Iceberg,
    /// Parquet files in Hive's directories; `format_version` is then that of a description which readers never see.
    Parquet,
}

/// What happens to fields that no column takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evolution {
    /// The table gets a column, or a wider one.
    Evolve,
    /// They are dropped and counted.
    Ignore,
    /// The run stops with exit code 3.
    Strict,
}

/// One entry of `materialize.partition`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartitionField {
    /// The UTC date of the event time.
    Date,
    /// The UTC hour of the event time.
    Hour,
    /// A transform of a column.
    Transform {
        /// What is done to the column's values; a column alone is the identity.
        transform: Transform,
        /// The column; dots lead into structs.
        column: String,
    },
}

/// What happens to records that can't be read.
#[derive(Debug, Clone, PartialEq)]
pub struct Errors {
    /// What happens to one.
    pub on_decode_error: OnDecodeError,
    /// How many of a window are too many.
    pub max_rejected: MaxRejected,
    /// What happens to records whose schema the registry lacks.
    pub on_missing_schema: MissingSchema,
    /// What happens to records whose schema doesn't fit the table.
    pub on_incompatible_schema: IncompatibleSchema,
}

/// What happens to records whose schema the registry lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingSchema {
    /// The run fails.
    Fail,
    /// They are rejects.
    DeadLetter,
    /// They are read with `schemaFile`.
    Default,
}

/// What happens to records whose schema doesn't fit the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IncompatibleSchema {
    /// The run fails.
    Fail,
    /// They are rejects.
    DeadLetter,
}

/// What happens to a record that can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnDecodeError {
    /// It is stored; at least one of the two is named.
    DeadLetter {
        /// The topic it is sent to.
        topic: Option<String>,
        /// The table, in the same schema, that it is written to.
        table: Option<String>,
    },
    /// It is counted.
    Skip,
    /// The run fails.
    Fail,
}

/// How many rejects of a window are accepted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MaxRejected {
    /// This share of its records, 0 to 1, from 10 rejects on.
    Share(f64),
    /// This many.
    Count(u64),
}
