//! From the file as written to pipelines as run: defaults, absolute paths, and what contradicts itself or isn't built.

use std::path::Path;

use iceberg::spec::{PrimitiveType, Type};

use super::choices::{
    CatalogType, DecodeErrorAction, IncompatibleSchema as WrittenIncompatible, MissingSchema as WrittenMissing, Mode,
    SchemaEvolution, TableFormat as WrittenFormat,
};
use super::file::{Catalog, ColumnEntry, ErrorsEntry, MaterializeEntry, PipelineFile, Source, Table};
use super::formats;
use super::names::{absolute, absolute_sqlite, check_name, check_topic, dotted, looks_like_path, required, texts};
use super::pipeline::{
    Apply, CatalogConfig, CatalogKind, Column, Errors, Evolution, IncompatibleSchema, KafkaColumn, KafkaSource,
    Materialize, MaxRejected, MissingSchema, OnDecodeError, PartitionField, Pipeline, TableFormat,
};
use super::problem::did_you_mean;
use super::report::Report;
use super::source::{EVENT_ID, kafka_source, no_source};
use super::types;

const MAX_REJECTED: MaxRejected = MaxRejected::Share(0.01);

/// Makes one pipeline per table; whatever is wrong is added to `report`, and the pipelines are then of no use.
pub(super) fn resolve(file: PipelineFile, directory: &Path, report: &mut Report<'_>) -> Vec<Pipeline> {
    let (catalog, schema) = catalog(file.catalog.unwrap_or_default(), directory, report);
    let state_dir = state_dir(file.state_dir, &catalog, directory, report);
    let tables = file.partitioned_tables.unwrap_or_default();
    if tables.is_empty() {
        report.add(
            "partitionedTables",
            "names no table",
            Some("add an entry with `name` and `source`"),
        );
    }
    let shared = Shared {
        catalog,
        schema,
        state_dir,
        max_lag: file.health.and_then(|health| health.max_lag),
        directory,
    };
    tables
        .into_iter()
        .enumerate()
        .map(|(index, entry)| table(entry, index, &shared, report))
        .collect()
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
                report.add(
                    "catalog.uri",
                    "is not an HTTP address",
                    Some("write it like `http://catalog:8181`"),
                );
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
    for key in ["uri", "warehouse"]
        .into_iter()
        .filter(|key| properties.contains_key(*key))
    {
        report.add(
            &format!("catalog.properties.{key}"),
            &format!("`{key}` has a place of its own"),
            Some(&format!("write it as `catalog.{key}`")),
        );
    }
    let schema = entry.schema.unwrap_or_else(|| "default".to_owned());
    check_name(&schema, "catalog.schema", report);
    let name = entry.name.unwrap_or_else(|| "aperio".to_owned());
    (
        CatalogConfig {
            kind,
            name,
            uri,
            warehouse,
            properties,
        },
        schema,
    )
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
        Some(text) => Some(absolute(
            &text.replace("{warehouse}", catalog.warehouse.trim_end_matches('/')),
            directory,
        )),
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
        report.add(
            &format!("{at}.source"),
            "`source` is required",
            Some("add `brokers` and `topic` to it"),
        );
    }
    let errors_entry = entry.errors.unwrap_or_default();
    if let Some(source) = &entry.source {
        refuse_unbuilt(source, &at, report);
    }
    let source = entry
        .source
        .map(|source| kafka_source(source, &name, &at, shared.directory, report))
        .unwrap_or_else(no_source);
    let columns = columns(entry.columns.unwrap_or_default(), &source.include, &at, report);
    let materialize = materialize(
        entry.materialize.unwrap_or_default(),
        columns.as_deref(),
        &source,
        &at,
        report,
    );
    if materialize.format == TableFormat::Parquet {
        check_places(
            &shared.catalog.warehouse,
            shared.state_dir.as_deref(),
            &schema,
            &name,
            &at,
            report,
        );
    }
    if source.envelope.is_some_and(|envelope| envelope.horizon.is_some()) {
        check_idempotent(&source, columns.as_deref(), materialize.format, &at, report);
    }
    let errors = errors(errors_entry, &name, &source, &at, report);
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

/// Events that were sent again are known by the rows of the table, and by the offsets in them.
fn check_idempotent(
    source: &KafkaSource,
    columns: Option<&[Column]>,
    format: TableFormat,
    at: &str,
    report: &mut Report<'_>,
) {
    let key = format!("{at}.source.envelope.idempotent");
    let needed = [KafkaColumn::Partition, KafkaColumn::Offset];
    if needed.iter().any(|column| !source.include.contains(column)) {
        report.add(
            &key,
            "`idempotent` needs the columns of the partition and the offset: events are known again by the table's own rows",
            Some("let `include` name `partition` and `offset`, as it does if you leave it out"),
        );
    }
    if format == TableFormat::Parquet {
        report.add(
            &key,
            "`idempotent` needs an Iceberg table: events are known again by the table's own rows",
            Some("write `format: iceberg`"),
        );
    }
    let events = source.envelope.is_some_and(|envelope| envelope.apply == Apply::Events);
    let declared = |columns: &[Column]| columns.iter().any(|column| column.from == [EVENT_ID]);
    if events && columns.is_some_and(|columns| !declared(columns)) {
        report.add(
            &key,
            "`idempotent` needs a column for `event_id`: events are known again by the table's own rows",
            Some("add `{name: event_id, type: string}` to `columns`"),
        );
    }
}

/// A table of plain Parquet lies in the warehouse's directory, and its files are moved there from the state directory.
fn check_places(warehouse: &str, state_dir: Option<&str>, schema: &str, name: &str, at: &str, report: &mut Report<'_>) {
    let key = format!("{at}.materialize.format");
    if !looks_like_path(warehouse) {
        report.add(
            &key,
            "`format: parquet` needs a place for its files",
            Some("write a path or URI as `catalog.warehouse`; the name of a REST catalog's warehouse is none"),
        );
        return;
    }
    let bucket = |location: &str| match location.strip_prefix("file://") {
        Some(_) => None,
        None => location
            .split_once("://")
            .map(|(_, rest)| rest.split('/').next().unwrap_or_default().to_owned()),
    };
    let state_dir = state_dir.unwrap_or(warehouse);
    if bucket(warehouse) != bucket(state_dir) {
        report.add(
            &key,
            "`format: parquet` moves files from `stateDir` to `catalog.warehouse`",
            Some("put both on disks, or both into one bucket"),
        );
    }
    let table = format!(
        "{}/{}/{name}/",
        warehouse.trim_end_matches('/'),
        schema.replace('.', "/")
    );
    if format!("{}/", state_dir.trim_end_matches('/')).starts_with(&table) {
        report.add(
            &key,
            "`stateDir` lies inside the table's directory",
            Some("readers of the table would see files that aren't committed; choose another `stateDir`"),
        );
    }
}

/// Refuses what the file can say and aperio can't do yet.
fn refuse_unbuilt(source: &Source, at: &str, report: &mut Report<'_>) {
    let key = |name: &str| format!("{at}.source.{name}");
    if source.mode == Some(Mode::Ktable) {
        report.unsupported(&key("mode"), None);
    }
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
        } else if columns
            .iter()
            .any(|column| column.name.eq_ignore_ascii_case(&entry.name))
        {
            report.add(
                &format!("{path}.name"),
                &format!("the column `{shown}` is declared twice"),
                Some("names match case-insensitively"),
            );
        } else if include
            .iter()
            .any(|column| column.name().eq_ignore_ascii_case(&entry.name))
        {
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
        let of = types::parse(&entry.kind).unwrap_or_else(|reason| {
            let hint = did_you_mean(&entry.kind, types::PRIMITIVES);
            report.add(&format!("{path}.type"), &reason, hint.as_deref());
            // What names the column isn't wrong for it.
            Type::Primitive(PrimitiveType::String)
        });
        columns.push(Column {
            name: entry.name,
            from,
            of,
            required: entry.required.unwrap_or(false),
        });
    }
    Some(columns)
}

fn materialize(
    entry: MaterializeEntry,
    columns: Option<&[Column]>,
    source: &KafkaSource,
    at: &str,
    report: &mut Report<'_>,
) -> Materialize {
    let at = &format!("{at}.materialize");
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
        format: match entry.format.unwrap_or(WrittenFormat::Iceberg) {
            WrittenFormat::Iceberg => TableFormat::Iceberg,
            WrittenFormat::Parquet => TableFormat::Parquet,
        },
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
    let (PartitionField::Transform { column, .. }, Some(columns)) = (field, columns) else {
        return;
    };
    let root = column.split('.').next().unwrap_or(column);
    let included = source.include.iter().map(|column| column.name());
    let names: Vec<&str> = columns
        .iter()
        .map(|column| column.name.as_str())
        .chain(included)
        .chain(["_event_time"])
        .collect();
    if !names
        .iter()
        .any(|name| name.eq_ignore_ascii_case(root) || name.eq_ignore_ascii_case(column))
    {
        let hint = did_you_mean(root, names);
        report.add(path, "names a column that `columns` doesn't declare", hint.as_deref());
    }
}

fn errors(entry: ErrorsEntry, name: &str, source: &KafkaSource, at: &str, report: &mut Report<'_>) -> Errors {
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
                if *dead == source.topic {
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
            OnDecodeError::DeadLetter {
                topic: letter.topic,
                table,
            }
        }
    };
    let on_missing_schema = match entry.on_missing_schema {
        None | Some(WrittenMissing::Fail) => MissingSchema::Fail,
        Some(WrittenMissing::DeadLetter) => MissingSchema::DeadLetter,
        Some(WrittenMissing::Default) => MissingSchema::Default,
    };
    if on_missing_schema == MissingSchema::Default && source.schema_file.is_none() {
        report.add(
            &format!("{at}.errors.onMissingSchema"),
            "`onMissingSchema: default` needs a schema to read such records with",
            Some("name it as `source.schemaFile`"),
        );
    }
    Errors {
        on_missing_schema,
        on_incompatible_schema: match entry.on_incompatible_schema {
            None | Some(WrittenIncompatible::Fail) => IncompatibleSchema::Fail,
            Some(WrittenIncompatible::DeadLetter) => IncompatibleSchema::DeadLetter,
        },
        on_decode_error,
        max_rejected: entry.max_rejected.map_or(MAX_REJECTED, |limit| limit.0),
    }
}
