//! From the file as written to pipelines as run: defaults, absolute paths, and what contradicts itself or isn't built.

use std::collections::BTreeMap;
use std::path::Path;

use super::file::{
    Catalog, CatalogType, ColumnEntry, DecodeErrorAction, Envelope, EnvelopeType, ErrorsEntry, Format, Include,
    IsolationLevel, KeyFormat, MaterializeEntry, Mode, Nested, PipelineFile, Protocol, SaslMechanism, Scalar,
    SchemaEvolution, Security, Source, StartAt, Table, TableFormat,
};
use super::formats;
use super::kafka_keys;
use super::pipeline::{
    CatalogConfig, CatalogKind, Column, Errors, EventTime, EventTimeFormat, Evolution, KafkaSource, Materialize,
    MaxRejected, OnDecodeError, PartitionField, Pipeline, StartOffset,
};
use super::problem::did_you_mean;
use super::report::Report;
use crate::schema::KafkaColumn;
use crate::units::Millis;

const BATCH_SIZE: u64 = 1_000_000;
const BATCH_WINDOW: Millis = Millis(60_000);
const MAX_POLL_RECORDS: u32 = 8192;
const MAX_REJECTED: MaxRejected = MaxRejected::Share(0.01);

/// Makes one pipeline per table; whatever is wrong is added to `report`, and the pipelines are then of no use.
pub(super) fn resolve(file: PipelineFile, directory: &Path, report: &mut Report<'_>) -> Vec<Pipeline> {
    let (catalog, schema) = catalog(file.catalog.unwrap_or_default(), directory, report);
    let state_dir = state_dir(file.state_dir, &catalog, directory, report);
    let tables = file.partitioned_tables.unwrap_or_default();
    if tables.is_empty() {
        report.add("partitionedTables", "names no table", Some("add an entry with `name` and `source`"));
    }
    let shared =
        Shared { catalog, schema, state_dir, max_lag: file.health.and_then(|health| health.max_lag), directory };
    tables.into_iter().enumerate().map(|(index, entry)| table(entry, index, &shared, report)).collect()
}

/// What the tables of one file have in common.
struct Shared<'a> {
    catalog: CatalogConfig,
    schema: String,
    state_dir: Option<String>,
    max_lag: Option<u64>,
    directory: &'a Path,
}

fn catalog(entry: Catalog, directory: &Path, report: &mut Report<'_>) -> (CatalogConfig, String) {
    let kind = match entry.kind.unwrap_or(CatalogType::Sql) {
        CatalogType::Sql => CatalogKind::Sql,
        CatalogType::Rest => CatalogKind::Rest,
        CatalogType::Glue | CatalogType::S3tables | CatalogType::Hms => {
            report.unsupported("catalog.type", None);
            CatalogKind::Rest
        }
    };
    let sql = kind == CatalogKind::Sql;
    let uri = match entry.uri {
        Some(uri) if sql && !uri.starts_with("sqlite:") => {
            let scheme = uri.split(':').next().unwrap_or_default().to_owned();
            match uri.contains("://") && !report.secret("catalog.uri") {
                true => report.unsupported("catalog.uri", Some(&scheme)),
                false => report.add(
                    "catalog.uri",
                    "is not a SQLite address",
                    Some("write it like `sqlite://./warehouse/catalog.db`"),
                ),
            }
            uri
        }
        Some(uri) if sql => absolute_sqlite(&uri, directory),
        Some(uri) => {
            if !uri.starts_with("http://") && !uri.starts_with("https://") {
                report.add("catalog.uri", "is not an HTTP address", Some("write it like `http://catalog:8181`"));
            }
            uri
        }
        None if sql => absolute_sqlite("sqlite://./warehouse/catalog.db", directory),
        None => {
            // A kind that isn't supported may not have an address at all.
            if matches!(entry.kind, Some(CatalogType::Rest)) {
                report.add(
                    "catalog.uri",
                    "`uri` is required for a REST catalog",
                    Some("write it like `http://catalog:8181`"),
                );
            }
            String::new()
        }
    };
    let warehouse = match entry.warehouse {
        Some(warehouse) if sql || looks_like_path(&warehouse) => absolute(&warehouse, directory),
        Some(name) => name,
        None if sql => absolute("./warehouse", directory),
        None => String::new(),
    };
    let properties = texts(entry.properties);
    for key in ["uri", "warehouse"].into_iter().filter(|key| properties.contains_key(*key)) {
        report.add(
            &format!("catalog.properties.{key}"),
            &format!("`{key}` has a place of its own"),
            Some(&format!("write it as `catalog.{key}`")),
        );
    }
    let schema = entry.schema.unwrap_or_else(|| "default".to_owned());
    check_name(&schema, "catalog.schema", report);
    let name = entry.name.unwrap_or_else(|| "aperio".to_owned());
    (CatalogConfig { kind, name, uri, warehouse, properties }, schema)
}

fn state_dir(
    written: Option<String>,
    catalog: &CatalogConfig,
    directory: &Path,
    report: &mut Report<'_>,
) -> Option<String> {
    let has_path = catalog.kind == CatalogKind::Sql || looks_like_path(&catalog.warehouse);
    match written {
        None if has_path => Some(format!("{}/.aperio", catalog.warehouse.trim_end_matches('/'))),
        None => None,
        Some(text) if text.contains("{warehouse}") && !has_path => {
            report.add(
                "stateDir",
                "`{warehouse}` is a catalog's name here, not a path",
                Some("leave `stateDir` out, or write a path or URI"),
            );
            None
        }
        Some(text) => Some(absolute(&text.replace("{warehouse}", catalog.warehouse.trim_end_matches('/')), directory)),
    }
}

fn table(entry: Table, index: usize, shared: &Shared<'_>, report: &mut Report<'_>) -> Pipeline {
    let at = format!("partitionedTables[{index}]");
    let name = required(entry.name, &at, "name", report);
    check_name(&name, &format!("{at}.name"), report);
    if let Some(schema) = &entry.schema {
        check_name(schema, &format!("{at}.schema"), report);
    }
    let schema = entry.schema.unwrap_or_else(|| shared.schema.clone());
    if entry.source.is_none() {
        report.add(&format!("{at}.source"), "`source` is required", Some("add `brokers` and `topic` to it"));
    }
    let errors_entry = entry.errors.unwrap_or_default();
    if let Some(source) = &entry.source {
        refuse_unbuilt(source, &errors_entry, &at, report);
    }
    let source =
        entry.source.map(|source| kafka_source(source, &name, &at, shared.directory, report)).unwrap_or_else(no_source);
    let columns = columns(entry.columns.unwrap_or_default(), &source.include, &at, report);
    let materialize = materialize(entry.materialize.unwrap_or_default(), columns.as_deref(), &source, &at, report);
    let errors = errors(errors_entry, &name, &source.topic, &at, report);
    Pipeline {
        name,
        schema,
        catalog: shared.catalog.clone(),
        state_dir: shared.state_dir.clone(),
        max_lag: shared.max_lag,
        source,
        columns,
        materialize,
        errors,
    }
}

/// Refuses what the file can say and aperio can't do yet.
fn refuse_unbuilt(source: &Source, errors: &ErrorsEntry, at: &str, report: &mut Report<'_>) {
    let key = |name: &str| format!("{at}.source.{name}");
    let format = source.format.unwrap_or(Format::Json);
    if format != Format::Json {
        report.unsupported(&key("format"), None);
    }
    if source.key_format.is_some_and(|format| format != KeyFormat::Bytes) {
        report.unsupported(&key("keyFormat"), None);
    }
    if source.mode == Some(Mode::Ktable) {
        report.unsupported(&key("mode"), None);
    }
    let wrapped = match &source.envelope {
        None => None,
        Some(Envelope::Name(kind)) => Some((*kind, key("envelope"))),
        Some(Envelope::Full(entry)) => Some((entry.kind.unwrap_or(EnvelopeType::None), key("envelope.type"))),
    };
    if let Some((_, path)) = wrapped.filter(|(kind, _)| *kind != EnvelopeType::None) {
        report.unsupported(&path, None);
    }
    let present = [
        ("schemaRegistry", source.schema_registry.is_some()),
        ("schemaFile", source.schema_file.is_some()),
        ("messageType", source.message_type.is_some()),
    ];
    for (name, _) in present.into_iter().filter(|(_, present)| *present) {
        report.unsupported(&key(name), Some(name));
    }
    for (index, _) in source.include.iter().flatten().enumerate().filter(|(_, column)| **column == Include::SchemaId) {
        report.unsupported(&key(&format!("include[{index}]")), Some("schema_id"));
    }
    // JSON, strings and bytes have no registry, so there the two keys mean nothing and contradict nothing.
    if matches!(format, Format::Avro | Format::Protobuf) {
        if errors.on_missing_schema.is_some() {
            report.unsupported(&format!("{at}.errors.onMissingSchema"), Some("onMissingSchema"));
        }
        if errors.on_incompatible_schema.is_some() {
            report.unsupported(&format!("{at}.errors.onIncompatibleSchema"), Some("onIncompatibleSchema"));
        }
    }
}

fn kafka_source(entry: Source, name: &str, at: &str, directory: &Path, report: &mut Report<'_>) -> KafkaSource {
    let at = &format!("{at}.source");
    let brokers = required(entry.brokers, at, "brokers", report);
    if brokers.split(',').any(|broker| broker.trim().is_empty()) && !brokers.is_empty() {
        report.add(&format!("{at}.brokers"), "has an empty entry", Some("write it like `kafka-1:9092,kafka-2:9092`"));
    }
    let topic = required(entry.topic, at, "topic", report);
    check_topic(&topic, &format!("{at}.topic"), report);
    if entry.consumer_group.as_deref().is_some_and(str::is_empty) {
        report.add(&format!("{at}.consumerGroup"), "is empty", Some("leave it out for `aperio-{name}`"));
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
        report.add(&format!("{at}.batchWindow"), "is not above 0", Some("write it like `60s`"));
    }
    let event_time = event_time(entry.event_time_field, entry.event_time_format, at, report);
    let mut include = Vec::new();
    let written = entry.include.unwrap_or_else(|| vec![Include::Partition, Include::Offset, Include::Timestamp]);
    for (index, column) in written.iter().filter_map(|column| kafka_column(*column)).enumerate() {
        if include.contains(&column) {
            report.add(&format!("{at}.include[{index}]"), "is listed twice", None);
        } else {
            include.push(column);
        }
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
        client: client(entry.security, entry.consumer_config, at, directory, report),
    }
}

/// Stands for a source that is missing; the problem is reported, so nobody runs it.
fn no_source() -> KafkaSource {
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

fn kafka_column(column: Include) -> Option<KafkaColumn> {
    match column {
        Include::Partition => Some(KafkaColumn::Partition),
        Include::Offset => Some(KafkaColumn::Offset),
        Include::Timestamp => Some(KafkaColumn::Timestamp),
        Include::Key => Some(KafkaColumn::Key),
        Include::Headers => Some(KafkaColumn::Headers),
        Include::Topic => Some(KafkaColumn::Topic),
        Include::SchemaId => None,
    }
}

fn client(
    security: Option<Security>,
    config: Option<BTreeMap<String, Scalar>>,
    at: &str,
    directory: &Path,
    report: &mut Report<'_>,
) -> BTreeMap<String, String> {
    let mut client = security.map(|entry| login(entry, at, directory, report)).unwrap_or_default();
    for (key, value) in texts(config) {
        let path = format!("{at}.consumerConfig.{key}");
        if let Err(refused) = kafka_keys::check(&key) {
            report.add(&path, &refused.message, refused.hint.as_deref());
        } else if client.contains_key(&key) {
            report.add(&path, &format!("`{key}` is set by `security` too"), Some("keep one of the two"));
        } else {
            client.insert(key, value);
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
    let secret = |secret: Option<super::Secret>| secret.map(|secret| secret.expose().to_owned());
    let properties = [
        ("saslMechanism", "sasl.mechanism", mechanism.map(str::to_owned), sasl, sasl),
        ("saslUsername", "sasl.username", entry.sasl_username, sasl, sasl && username_needed),
        ("saslPassword", "sasl.password", secret(entry.sasl_password), sasl, sasl && username_needed),
        ("ca", "ssl.ca.location", file(entry.ca), tls, false),
        ("cert", "ssl.certificate.location", file(entry.cert), tls, false),
        ("key", "ssl.key.location", file(entry.key), tls, false),
        ("keyPassword", "ssl.key.password", secret(entry.key_password), tls, false),
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
                report.add(&format!("{at}.{key}"), &format!("`{key}` contradicts `protocol: {protocol}`"), Some(hint));
            }
            None if needed => {
                report.add(&format!("{at}.{key}"), &format!("`protocol: {protocol}` needs `{key}`"), None)
            }
            None => {}
        }
    }
    client
}

fn columns(
    entries: Vec<ColumnEntry>,
    include: &[KafkaColumn],
    at: &str,
    report: &mut Report<'_>,
) -> Option<Vec<Column>> {
    if entries.is_empty() {
        return None;
    }
    let mut columns: Vec<Column> = Vec::with_capacity(entries.len());
    for (index, entry) in entries.into_iter().enumerate() {
        let path = format!("{at}.columns[{index}]");
        let shown = report.shown(&format!("{path}.name"));
        if entry.name.is_empty() {
            report.add(&format!("{path}.name"), "is empty", None);
        } else if columns.iter().any(|column| column.name.eq_ignore_ascii_case(&entry.name)) {
            report.add(
                &format!("{path}.name"),
                &format!("the column `{shown}` is declared twice"),
                Some("names match case-insensitively"),
            );
        } else if include.iter().any(|column| column_name(*column).eq_ignore_ascii_case(&entry.name)) {
            report.add(
                &format!("{path}.name"),
                &format!("`include` adds a column `{shown}` too"),
                Some("rename it and name its field in `from`"),
            );
        }
        let from = match entry.from {
            Some(from) => dotted(&from, &format!("{path}.from"), report),
            None => vec![entry.name.clone()],
        };
        let required = entry.required.unwrap_or(false);
        columns.push(Column { name: entry.name, from, type_text: entry.kind, required });
    }
    Some(columns)
}

fn column_name(column: KafkaColumn) -> &'static str {
    match column {
        KafkaColumn::Topic => "_kafka_topic",
        KafkaColumn::Partition => "_kafka_partition",
        KafkaColumn::Offset => "_kafka_offset",
        KafkaColumn::Timestamp => "_kafka_timestamp",
        KafkaColumn::Key => "_kafka_key",
        KafkaColumn::Headers => "_kafka_headers",
    }
}

fn materialize(
    entry: MaterializeEntry,
    columns: Option<&[Column]>,
    source: &KafkaSource,
    at: &str,
    report: &mut Report<'_>,
) -> Materialize {
    let at = &format!("{at}.materialize");
    if entry.format == Some(TableFormat::Parquet) {
        report.unsupported(&format!("{at}.format"), None);
    }
    if entry.format_version == Some(3) {
        report.unsupported(&format!("{at}.formatVersion"), Some("formatVersion: 3"));
    }
    if entry.lateness.is_some() {
        report.unsupported(&format!("{at}.lateness"), Some("lateness"));
    }
    if entry.maintenance.is_some_and(|keys| !keys.is_empty()) {
        report.unsupported(&format!("{at}.maintenance"), Some("maintenance"));
    }
    let mut partition = Vec::new();
    for (index, text) in entry.partition.unwrap_or_default().iter().enumerate() {
        let path = format!("{at}.partition[{index}]");
        match formats::partition(text) {
            Err(wrong) => report.add_wrong(&path, wrong),
            Ok(field) if partition.contains(&field) => {
                report.add(&path, &format!("`{}` is listed twice", report.shown(&path)), None)
            }
            Ok(field) => {
                check_partition_column(&field, columns, source, &path, report);
                partition.push(field);
            }
        }
    }
    Materialize {
        partition,
        evolution: match entry.schema_evolution.unwrap_or(SchemaEvolution::Evolve) {
            SchemaEvolution::Evolve => Evolution::Evolve,
            SchemaEvolution::Ignore => Evolution::Ignore,
            SchemaEvolution::Strict => Evolution::Strict,
        },
        format_version: 2,
        properties: texts(entry.table_properties),
    }
}

/// Declared columns are all the columns there are, so a partition field must name one of them.
fn check_partition_column(
    field: &PartitionField,
    columns: Option<&[Column]>,
    source: &KafkaSource,
    path: &str,
    report: &mut Report<'_>,
) {
    let (PartitionField::Transform { column, .. }, Some(columns)) = (field, columns) else { return };
    let root = column.split('.').next().unwrap_or(column);
    let included = source.include.iter().map(|column| column_name(*column));
    let names: Vec<&str> =
        columns.iter().map(|column| column.name.as_str()).chain(included).chain(["_event_time"]).collect();
    if !names.iter().any(|name| name.eq_ignore_ascii_case(root) || name.eq_ignore_ascii_case(column)) {
        let hint = did_you_mean(root, names);
        report.add(path, "names a column that `columns` doesn't declare", hint.as_deref());
    }
}

fn errors(entry: ErrorsEntry, name: &str, topic: &str, at: &str, report: &mut Report<'_>) -> Errors {
    let on_decode_error = match entry.on_decode_error.unwrap_or(DecodeErrorAction::DeadLetter) {
        DecodeErrorAction::Skip => OnDecodeError::Skip,
        DecodeErrorAction::Fail => OnDecodeError::Fail,
        DecodeErrorAction::DeadLetter => {
            let letter = entry.dead_letter.unwrap_or_default();
            let table = match (letter.table, &letter.topic) {
                (None, None) => Some(format!("{name}_dead_letters")),
                (table, _) => table,
            };
            if let Some(dead) = &letter.topic {
                let path = format!("{at}.errors.deadLetter.topic");
                check_topic(dead, &path, report);
                if dead == topic {
                    report.add(
                        &path,
                        "is the topic that is read",
                        Some("dead letters would be read again; name another topic"),
                    );
                }
            }
            if let Some(dead) = &table {
                let path = format!("{at}.errors.deadLetter.table");
                check_name(dead, &path, report);
                if dead == name {
                    report.add(&path, "is the table itself", Some("name another table"));
                }
            }
            OnDecodeError::DeadLetter { topic: letter.topic, table }
        }
    };
    Errors { on_decode_error, max_rejected: entry.max_rejected.map_or(MAX_REJECTED, |limit| limit.0) }
}

fn required(value: Option<String>, at: &str, key: &str, report: &mut Report<'_>) -> String {
    let path = format!("{at}.{key}");
    match &value {
        None => report.add(&path, &format!("`{key}` is required"), None),
        Some(text) if text.trim().is_empty() => report.add(&path, &format!("`{key}` is empty"), None),
        Some(_) => {}
    }
    value.unwrap_or_default()
}

/// Names become directories and catalog entries, so they hold nothing that means something there.
fn check_name(name: &str, path: &str, report: &mut Report<'_>) {
    if name.contains(['/', '\\', '`', '"']) || name.contains(char::is_control) || name.contains(char::is_whitespace) {
        report.add(
            path,
            &format!("`{}` has a character that a table can't be named with", report.shown(path)),
            Some("use letters, digits, `_`, `-` and `.`"),
        );
    } else if name.split('.').any(str::is_empty) && !name.is_empty() {
        report.add(path, &format!("`{}` has an empty part", report.shown(path)), None);
    }
}

/// Source: Apache Kafka 3.9, `org.apache.kafka.common.internals.Topic`: at most 249 of `[a-zA-Z0-9._-]`.
fn check_topic(topic: &str, path: &str, report: &mut Report<'_>) {
    const LENGTH_MAX: usize = 249;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if topic.starts_with('^') {
        report.add(path, "is a pattern; one table reads one topic", Some("write one table per topic"));
    } else if topic.len() > LENGTH_MAX || !topic.chars().all(legal) {
        report.add(
            path,
            &format!("`{}` can't be a topic's name", report.shown(path)),
            Some("topics have up to 249 letters, digits, `.`, `_` and `-`"),
        );
    }
}

fn dotted(text: &str, path: &str, report: &mut Report<'_>) -> Vec<String> {
    if text.split('.').any(str::is_empty) {
        report.add(
            path,
            &format!("`{}` has an empty step", report.shown(path)),
            Some("write it like `payload.created_at`"),
        );
    }
    text.split('.').map(str::to_owned).collect()
}

fn texts(map: Option<BTreeMap<String, Scalar>>) -> BTreeMap<String, String> {
    map.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_text())).collect()
}

fn looks_like_path(text: &str) -> bool {
    text.contains("://") || text.starts_with(['/', '.'])
}

/// Makes a path absolute, from the YAML file's directory; a URI stays as it is.
fn absolute(text: &str, directory: &Path) -> String {
    if text.contains("://") {
        return text.to_owned();
    }
    let mut path = directory.to_path_buf();
    for part in Path::new(text).components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                path.pop();
            }
            other => path.push(other),
        }
    }
    path.to_string_lossy().into_owned()
}

fn absolute_sqlite(uri: &str, directory: &Path) -> String {
    let rest = uri.trim_start_matches("sqlite:");
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, format!("?{query}")),
        None => (rest, String::new()),
    };
    if path.is_empty() || path == ":memory:" {
        return uri.to_owned();
    }
    format!("sqlite://{}{query}", absolute(path, directory))
}
