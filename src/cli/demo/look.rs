//! Looks at what the demo made: from the table's metadata and files, not from what the runs said.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{Int32Type, Int64Type};
use arrow::record_batch::RecordBatch;
use iceberg::spec::{DataFile, Literal, ManifestList, PrimitiveLiteral, SnapshotRef, Transform};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::super::open;
use super::super::output::{Columns, counted, grouped, moment, say};
use super::super::sync_points::{columns, of_pipeline};
use crate::catalog::LoadedTable;
use crate::config::{OnDecodeError, Pipeline};
use crate::error::{Exit, Failure};
use crate::shell::open::catalog;
use crate::table::ledger::{LEDGER_KEY, Ledger};

/// Characters of a dead letter's value that are shown.
const VALUE_SHOWN_MAX: usize = 60;

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    /// The table's current metadata file.
    pub metadata_location: String,
    /// Every record is a row or a dead letter, once.
    pub whole: bool,
}

/// Prints partitions, snapshots, sync points, dead letters and the account of all records.
pub(super) async fn look(pipeline: &Pipeline, produced: u64) -> Result<Found, Failure> {
    let catalog = catalog(&pipeline.catalog)?;
    let missing = || {
        Failure::new(
            Exit::Bug,
            format!("table `{}` is missing after the run", pipeline.full_name()),
        )
    };
    let table = open::table(pipeline, &catalog, &pipeline.name)
        .await?
        .ok_or_else(missing)?;
    let files = data_files(&table).await?;
    show_partitions(&table, &files);
    show_snapshots(&table);
    say("\n   Sync points, the published copy of the newest offsets:");
    say(&columns(&of_pipeline(pipeline, Some(&table)).await?).text(5));
    let dead = match &pipeline.errors.on_decode_error {
        OnDecodeError::DeadLetter { table: Some(name), .. } => {
            let table = open::table(pipeline, &catalog, name).await?;
            show_dead_letters(name, table.as_ref()).await?
        }
        _ => 0,
    };
    let (rows, different) = offsets_in(&table, &files).await?;
    let whole = rows == different && rows + dead == produced;
    say(&format!(
        "\n   The account: {} in the topic = {} ({} different Kafka offsets) + {}. {}",
        counted(produced, "record"),
        counted(rows, "row"),
        grouped(different),
        counted(dead, "dead letter"),
        if whole {
            "Each is there exactly once."
        } else {
            "THIS DOESN'T ADD UP: please report it."
        }
    ));
    Ok(Found {
        metadata_location: table.metadata_location,
        whole,
    })
}

fn unreadable(what: &str, error: &dyn std::error::Error) -> Failure {
    Failure::new(Exit::Bug, format!("{what} can't be read back")).detail(crate::error::chain(error))
}

/// Lists the files of the current snapshot.
async fn data_files(table: &LoadedTable) -> Result<Vec<DataFile>, Failure> {
    let failed = |error: iceberg::Error| unreadable(&format!("the manifests of `{}`", table.ident), &error);
    let Some(snapshot) = table.metadata.current_snapshot() else {
        return Ok(Vec::new());
    };
    let input = table.file_io.new_input(snapshot.manifest_list()).map_err(failed)?;
    let bytes = input.read().await.map_err(failed)?;
    let list = ManifestList::parse_with_version(&bytes, table.metadata.format_version()).map_err(failed)?;
    let mut files = Vec::new();
    for manifest in list.entries() {
        let manifest = manifest.load_manifest(&table.file_io).await.map_err(failed)?;
        files.extend(
            manifest
                .entries()
                .iter()
                .filter(|entry| entry.is_alive())
                .map(|entry| entry.data_file().clone()),
        );
    }
    Ok(files)
}

fn show_partitions(table: &LoadedTable, files: &[DataFile]) {
    let spec = table.metadata.default_partition_spec();
    let mut partitions: BTreeMap<String, (u64, u64, u64)> = BTreeMap::new();
    for file in files {
        let values = file.partition().iter().zip(spec.fields());
        let name: Vec<_> = values
            .map(|(value, field)| format!("{}={}", field.name, shown(field.transform, value)))
            .collect();
        let (rows, count, bytes) = partitions.entry(name.join("/")).or_default();
        *rows += file.record_count();
        *count += 1;
        *bytes += file.file_size_in_bytes();
    }
    say(&format!("   Table {} at {}", table.ident, table.metadata.location()));
    let mut columns = Columns::new(&["partition", ">rows", ">files", ">bytes"]);
    for (name, (rows, count, bytes)) in partitions {
        columns.row(vec![name, grouped(rows), grouped(count), grouped(bytes)]);
    }
    say(&columns.text(5));
}

/// Returns a partition value as people say it; Iceberg stores hours and days as counts from 1970.
fn shown(transform: Transform, value: Option<&Literal>) -> String {
    match (transform, value) {
        (_, None) => "null".to_owned(),
        (Transform::Hour, Some(Literal::Primitive(PrimitiveLiteral::Int(hours)))) => {
            moment(i64::from(*hours) * 3_600_000)
                .chars()
                .take("2026-01-01 00:00".len())
                .collect()
        }
        (Transform::Day, Some(Literal::Primitive(PrimitiveLiteral::Int(days)))) => {
            moment(i64::from(*days) * 86_400_000)
                .chars()
                .take("2026-01-01".len())
                .collect()
        }
        (_, Some(value)) => format!("{value:?}"),
    }
}

fn show_snapshots(table: &LoadedTable) {
    let mut snapshots: Vec<&SnapshotRef> = table.metadata.snapshots().collect();
    snapshots.sort_by_key(|snapshot| snapshot.sequence_number());
    say("\n   Snapshots, each with the offsets to go on from (`aperio.ledger` in its summary), partition:offset:");
    let mut columns = Columns::new(&[
        "snapshot",
        "committed",
        "operation",
        ">rows added",
        ">rows in all",
        "offsets",
    ]);
    for snapshot in snapshots {
        let summary = &snapshot.summary().additional_properties;
        let of = |key: &str| summary.get(key).map_or("0", String::as_str).to_owned();
        let ledger = summary
            .get(LEDGER_KEY)
            .and_then(|text| serde_json::from_str::<Ledger>(text).ok());
        let offsets = ledger.map_or("-".to_owned(), |ledger| {
            let pairs: Vec<_> = ledger
                .offsets
                .iter()
                .map(|(partition, offset)| format!("{partition}:{offset}"))
                .collect();
            pairs.join(" ")
        });
        columns.row(vec![
            snapshot.snapshot_id().to_string(),
            moment(snapshot.timestamp_ms()),
            snapshot.summary().operation.as_str().to_owned(),
            of("added-records"),
            of("total-records"),
            offsets,
        ]);
    }
    say(&columns.text(5));
}

/// Reads a data file.
async fn read(table: &LoadedTable, file: &DataFile) -> Result<Vec<RecordBatch>, Failure> {
    let what = format!("file `{}`", file.file_path());
    let input = table
        .file_io
        .new_input(file.file_path())
        .map_err(|error| unreadable(&what, &error))?;
    let bytes = input.read().await.map_err(|error| unreadable(&what, &error))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .map_err(|error| unreadable(&what, &error))?;
    reader
        .collect::<Result<_, _>>()
        .map_err(|error| unreadable(&what, &error))
}

/// Counts the rows of the files, and their different Kafka offsets.
async fn offsets_in(table: &LoadedTable, files: &[DataFile]) -> Result<(u64, u64), Failure> {
    let (mut rows, mut seen) = (0, BTreeSet::new());
    for file in files {
        for batch in read(table, file).await? {
            rows += batch.num_rows() as u64;
            let partitions = batch
                .column_by_name("_kafka_partition")
                .and_then(|column| column.as_primitive_opt::<Int32Type>());
            let offsets = batch
                .column_by_name("_kafka_offset")
                .and_then(|column| column.as_primitive_opt::<Int64Type>());
            let Some((partitions, offsets)) = partitions.zip(offsets) else {
                continue;
            };
            seen.extend(
                partitions
                    .values()
                    .iter()
                    .copied()
                    .zip(offsets.values().iter().copied()),
            );
        }
    }
    Ok((rows, seen.len() as u64))
}

/// Prints the dead letters and returns how many there are.
async fn show_dead_letters(name: &str, table: Option<&LoadedTable>) -> Result<u64, Failure> {
    let Some(table) = table else { return Ok(0) };
    say(&format!("\n   Dead letters, in the table {}:", table.ident));
    let mut lines = Columns::new(&[">partition", ">offset", "stage", "error", "value"]);
    let mut count = 0;
    for file in data_files(table).await? {
        for batch in read(table, &file).await? {
            count += batch.num_rows() as u64;
            for row in 0..batch.num_rows() {
                let cell = |column: &str| {
                    batch
                        .column_by_name(column)
                        .map_or("-".to_owned(), |array| cell(array, row))
                };
                lines.row(["partition", "offset", "stage", "error", "value"].map(cell).to_vec());
            }
        }
    }
    if count == 0 {
        say(&format!("     none in {name}"));
    } else {
        say(&lines.text(5));
    }
    Ok(count)
}

/// Returns a value as text, cut where it is long.
fn cell(array: &ArrayRef, row: usize) -> String {
    if array.is_null(row) {
        return "null".to_owned();
    }
    let text = if let Some(numbers) = array.as_primitive_opt::<Int32Type>() {
        numbers.value(row).to_string()
    } else if let Some(numbers) = array.as_primitive_opt::<Int64Type>() {
        numbers.value(row).to_string()
    } else if let Some(texts) = array.as_string_opt::<i32>() {
        texts.value(row).to_owned()
    } else if let Some(bytes) = array.as_binary_opt::<i32>() {
        String::from_utf8_lossy(bytes.value(row)).into_owned()
    } else if let Some(bytes) = array.as_binary_opt::<i64>() {
        String::from_utf8_lossy(bytes.value(row)).into_owned()
    } else {
        "?".to_owned()
    };
    match text.char_indices().nth(VALUE_SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
