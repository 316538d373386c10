//! Resolves `source`: the topic, how it is read, and how to log in to its brokers.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;

use super::choices::{
    Apply as WrittenApply, EnvelopeType, Format, Include, IsolationLevel, KeyFormat as WrittenKey, Nested, Protocol,
    StartAt,
};
use super::file::{Envelope as WrittenEnvelope, SaslMechanism, Scalar, Security, Source};
use super::formats;
use super::kafka_keys;
use super::names::{absolute, check_topic, dotted, required, texts};
use super::pipeline::{
    Apply, Envelope, EnvelopeKind, EventTime, EventTimeFormat, KafkaColumn, KafkaSource, KeyFormat, StartOffset,
    ValueFormat,
};
use super::registry::registry;
use super::report::Report;
use super::secret::Secret;
use crate::units::Millis;

const BATCH_SIZE: u64 = 1_000_000;
const BATCH_WINDOW: Millis = Millis(60_000);
const MAX_POLL_RECORDS: u32 = 8192;

/// Offsets for which an event is remembered: a source connector that starts again sends some thousands again.
const HORIZON: u64 = 100_000;

/// The field of an event that is its own in all the topic.
pub(super) const EVENT_ID: &str = "event_id";

/// Resolves `source` of the table called `name`; `at` is the table's path.
pub(super) fn kafka_source(
    entry: Source,
    name: &str,
    at: &str,
    directory: &Path,
    report: &mut Report<'_>,
) -> KafkaSource {
    let at = &format!("{at}.source");
    let brokers = required(entry.brokers, at, "brokers", report);
    if brokers.split(',').any(|broker| broker.trim().is_empty()) && !brokers.is_empty() {
        report.add(
            &format!("{at}.brokers"),
            "has an empty entry",
            Some("write it like `kafka-1:9092,kafka-2:9092`"),
        );
    }
    let topic = required(entry.topic, at, "topic", report);
    check_topic(&topic, &format!("{at}.topic"), report);
    if entry.consumer_group.as_deref().is_some_and(str::is_empty) {
        report.add(
            &format!("{at}.consumerGroup"),
            "is empty",
            Some("leave it out for `aperio-{name}`"),
        );
    }
    let start = match (entry.start_offset.unwrap_or(StartAt::Earliest), entry.start_timestamp) {
        (StartAt::Earliest, _) => StartOffset::Earliest,
        (StartAt::Latest, _) => StartOffset::Latest,
        (StartAt::Timestamp, Some(time)) => StartOffset::Timestamp(time.0),
        (StartAt::Timestamp, None) => {
            let path = format!("{at}.startTimestamp");
            report.add(
                &path,
                "`startOffset: timestamp` needs `startTimestamp`",
                Some("write it like `\"2024-01-01T00:00:00Z\"`"),
            );
            StartOffset::Earliest
        }
    };
    let batch_window = entry.batch_window.map_or(BATCH_WINDOW, |span| span.0);
    if batch_window.0 == 0 {
        report.add(
            &format!("{at}.batchWindow"),
            "is not above 0",
            Some("write it like `60s`"),
        );
    }
    let event_time = event_time(entry.event_time_field, entry.event_time_format, at, report);
    let mut include = Vec::new();
    let written = entry
        .include
        .unwrap_or_else(|| vec![Include::Partition, Include::Offset, Include::Timestamp]);
    for (index, column) in written.iter().map(|column| kafka_column(*column)).enumerate() {
        if include.contains(&column) {
            report.add(&format!("{at}.include[{index}]"), "is listed twice", None);
        } else {
            include.push(column);
        }
    }
    let envelope = entry.envelope.and_then(|entry| envelope(entry, at, report));
    let registry = entry
        .schema_registry
        .map(|entry| registry(entry, &format!("{at}.schemaRegistry"), directory, report));
    let schema = registry.is_some() || entry.schema_file.is_some();
    let format = format(entry.format, envelope, schema, at, report);
    let validate = entry.validate.unwrap_or(false);
    if validate && (format != ValueFormat::Json || !schema) {
        report.add(
            &format!("{at}.validate"),
            "is for JSON with a JSON Schema",
            Some("write `format: json`, and name a `schemaRegistry` or a `schemaFile`; other formats always follow their schemas"),
        );
    }
    KafkaSource {
        group: entry.consumer_group.unwrap_or_else(|| format!("aperio-{name}")),
        brokers,
        topic,
        start,
        batch_size: entry.batch_size.unwrap_or(BATCH_SIZE),
        batch_window,
        max_poll_records: entry.max_poll_records.unwrap_or(MAX_POLL_RECORDS),
        read_committed: entry.isolation_level.unwrap_or(IsolationLevel::ReadCommitted) == IsolationLevel::ReadCommitted,
        event_time,
        include,
        flatten: entry.nested == Some(Nested::Flatten),
        format,
        validate,
        envelope,
        key_format: key_format(entry.key_format, registry.is_some(), at, report),
        registry,
        schema_file: entry.schema_file.map(|file| absolute(&file, directory)),
        message_type: entry.message_type,
        client: client(entry.security, entry.consumer_config, at, directory, report),
    }
}

/// Stands for a source that is missing; the problem is reported, so nobody runs it.
pub(super) fn no_source() -> KafkaSource {
    KafkaSource {
        brokers: String::new(),
        topic: String::new(),
        group: String::new(),
        start: StartOffset::Earliest,
        batch_size: BATCH_SIZE,
        batch_window: BATCH_WINDOW,
        max_poll_records: MAX_POLL_RECORDS,
        read_committed: true,
        event_time: None,
        include: vec![],
        flatten: false,
        format: ValueFormat::Json,
        validate: false,
        key_format: KeyFormat::Of(ValueFormat::Bytes),
        envelope: None,
        registry: None,
        schema_file: None,
        message_type: None,
        client: BTreeMap::new(),
    }
}

fn event_time(field: Option<String>, format: Option<String>, at: &str, report: &mut Report<'_>) -> Option<EventTime> {
    let format = match format.as_deref().map(formats::event_time) {
        None => EventTimeFormat::Default,
        Some(Ok(format)) => format,
        Some(Err(wrong)) => {
            report.add_wrong(&format!("{at}.eventTimeFormat"), wrong);
            EventTimeFormat::Default
        }
    };
    let path = dotted(&field?, &format!("{at}.eventTimeField"), report);
    Some(EventTime { path, format })
}

fn kafka_column(column: Include) -> KafkaColumn {
    match column {
        Include::Partition => KafkaColumn::Partition,
        Include::Offset => KafkaColumn::Offset,
        Include::Timestamp => KafkaColumn::Timestamp,
        Include::Key => KafkaColumn::Key,
        Include::Headers => KafkaColumn::Headers,
        Include::Topic => KafkaColumn::Topic,
        Include::SchemaId => KafkaColumn::SchemaId,
    }
}

fn envelope(written: WrittenEnvelope, at: &str, report: &mut Report<'_>) -> Option<Envelope> {
    let (kind, apply, idempotent, horizon) = match written {
        WrittenEnvelope::Name(kind) => (kind, None, None, None),
        WrittenEnvelope::Full(entry) => match entry.kind {
            Some(kind) => (kind, entry.apply, entry.idempotent, entry.horizon),
            None => {
                report.add(
                    &format!("{at}.envelope.type"),
                    "`type` is required",
                    Some("write `debezium` or `cdc`"),
                );
                return None;
            }
        },
    };
    let kind = match kind {
        EnvelopeType::None => return None,
        EnvelopeType::Debezium => EnvelopeKind::Debezium,
        EnvelopeType::Cdc => EnvelopeKind::Cdc,
    };
    let idempotent = idempotent.unwrap_or(false);
    if idempotent && kind == EnvelopeKind::Debezium {
        report.add(
            &format!("{at}.envelope.idempotent"),
            "`idempotent` knows an event by its `event_id`, and Debezium's have none",
            Some("leave it out; with `mode: ktable` an event that comes again changes nothing"),
        );
    }
    Some(Envelope {
        kind,
        apply: match apply.unwrap_or(WrittenApply::Rows) {
            WrittenApply::Rows => Apply::Rows,
            WrittenApply::Events => Apply::Events,
        },
        horizon: idempotent.then(|| horizon.unwrap_or(HORIZON)),
    })
}

fn format(
    written: Option<Format>,
    envelope: Option<Envelope>,
    schema: bool,
    at: &str,
    report: &mut Report<'_>,
) -> ValueFormat {
    let usual = match envelope.map(|envelope| envelope.kind) {
        Some(EnvelopeKind::Cdc) => Format::Messagepack,
        Some(EnvelopeKind::Debezium) | None => Format::Json,
    };
    let format = match written.unwrap_or(usual) {
        Format::Json => ValueFormat::Json,
        Format::Protobuf => ValueFormat::Protobuf,
        Format::Avro => ValueFormat::Avro,
        Format::Messagepack => ValueFormat::MessagePack,
        Format::String => ValueFormat::String,
        Format::Bytes => ValueFormat::Bytes,
    };
    if envelope.is_some() && matches!(format, ValueFormat::String | ValueFormat::Bytes) {
        report.add(
            &format!("{at}.envelope"),
            "is around records, and `format` says that values are one thing",
            Some("write the format of the records as `format`"),
        );
    }
    let needs = match format {
        ValueFormat::Avro => Some("avro"),
        ValueFormat::Protobuf => Some("protobuf"),
        _ => None,
    };
    if let Some(name) = needs.filter(|_| !schema) {
        report.add(
            &format!("{at}.format"),
            &format!("`format: {name}` needs a schema"),
            Some("name a `schemaRegistry`, or the schema that all values are written with as `schemaFile`"),
        );
    }
    format
}

fn key_format(written: Option<WrittenKey>, registry: bool, at: &str, report: &mut Report<'_>) -> KeyFormat {
    let (format, needs) = match written.unwrap_or(WrittenKey::Bytes) {
        WrittenKey::Int => return KeyFormat::Int,
        WrittenKey::Long => return KeyFormat::Long,
        WrittenKey::Avro => (ValueFormat::Avro, Some("avro")),
        WrittenKey::Protobuf => (ValueFormat::Protobuf, Some("protobuf")),
        WrittenKey::Json => (ValueFormat::Json, None),
        WrittenKey::Messagepack => (ValueFormat::MessagePack, None),
        WrittenKey::String => (ValueFormat::String, None),
        WrittenKey::Bytes => (ValueFormat::Bytes, None),
    };
    if let Some(name) = needs.filter(|_| !registry) {
        report.add(
            &format!("{at}.keyFormat"),
            &format!("`keyFormat: {name}` needs the schemas of the keys"),
            Some("name the registry that has them as `schemaRegistry`; `schemaFile` is the schema of values"),
        );
    }
    KeyFormat::Of(format)
}

fn client(
    security: Option<Security>,
    config: Option<BTreeMap<String, Scalar>>,
    at: &str,
    directory: &Path,
    report: &mut Report<'_>,
) -> BTreeMap<String, String> {
    let mut client = security
        .map(|entry| login(entry, at, directory, report))
        .unwrap_or_default();
    for (key, value) in texts(config) {
        let path = format!("{at}.consumerConfig.{key}");
        if let Err(refused) = kafka_keys::check(&key) {
            report.add(&path, &refused.message, refused.hint.as_deref());
            continue;
        }
        match client.entry(key) {
            Entry::Vacant(free) => {
                free.insert(value);
            }
            Entry::Occupied(held) => {
                let message = format!("`{}` is set by `security` too", held.key());
                report.add(&path, &message, Some("keep one of the two"));
            }
        }
    }
    client
}

fn login(entry: Security, at: &str, directory: &Path, report: &mut Report<'_>) -> BTreeMap<String, String> {
    let at = &format!("{at}.security");
    let (protocol, sasl, tls) = match entry.protocol.unwrap_or(Protocol::Plaintext) {
        Protocol::Plaintext => ("PLAINTEXT", false, false),
        Protocol::Ssl => ("SSL", false, true),
        Protocol::SaslPlaintext => ("SASL_PLAINTEXT", true, false),
        Protocol::SaslSsl => ("SASL_SSL", true, true),
    };
    let mechanism = entry.sasl_mechanism.map(|mechanism| match mechanism {
        SaslMechanism::Plain => "PLAIN",
        SaslMechanism::Scram256 => "SCRAM-SHA-256",
        SaslMechanism::Scram512 => "SCRAM-SHA-512",
        SaslMechanism::OauthBearer => "OAUTHBEARER",
    });
    let file = |path: Option<String>| path.map(|path| absolute(&path, directory));
    let username_needed = mechanism.is_some_and(|mechanism| mechanism != "OAUTHBEARER");
    let secret = |secret: Option<Secret>| secret.map(|secret| secret.expose().to_owned());
    let properties = [
        (
            "saslMechanism",
            "sasl.mechanism",
            mechanism.map(str::to_owned),
            sasl,
            sasl,
        ),
        (
            "saslUsername",
            "sasl.username",
            entry.sasl_username,
            sasl,
            sasl && username_needed,
        ),
        (
            "saslPassword",
            "sasl.password",
            secret(entry.sasl_password),
            sasl,
            sasl && username_needed,
        ),
        ("ca", "ssl.ca.location", file(entry.ca), tls, false),
        ("cert", "ssl.certificate.location", file(entry.cert), tls, false),
        ("key", "ssl.key.location", file(entry.key), tls, false),
        (
            "keyPassword",
            "ssl.key.password",
            secret(entry.key_password),
            tls,
            false,
        ),
    ];
    let mut client = BTreeMap::from([("security.protocol".to_owned(), protocol.to_owned())]);
    for (key, property, value, fits, needed) in properties {
        match value {
            Some(value) if fits => {
                client.insert(property.to_owned(), value);
            }
            Some(_) => {
                let hint = if key.starts_with("sasl") {
                    "write `protocol: SASL_SSL` or leave it out"
                } else {
                    "write `protocol: SSL` or `SASL_SSL`, or leave it out"
                };
                report.add(
                    &format!("{at}.{key}"),
                    &format!("`{key}` contradicts `protocol: {protocol}`"),
                    Some(hint),
                );
            }
            None if needed => report.add(
                &format!("{at}.{key}"),
                &format!("`protocol: {protocol}` needs `{key}`"),
                None,
            ),
            None => {}
        }
    }
    client
}
