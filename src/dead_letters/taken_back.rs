//! Letters that are taken back: the files that hold them, written anew without them.
//!
//! An attempt that was never committed leaves its letters, and what is read again may decide otherwise: the pipeline file was
//! mended, a schema has appeared. Such letters are few and their files small, so whole files are replaced, which every
//! engine reads, whatever the table's format version.

use std::collections::{BTreeSet, HashSet};

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use iceberg::scan::{ArrowRecordBatchStream, FileScanTask};
use iceberg::table::Table;

use super::Origin;
use super::keys::{Held, Key, filter_of, keys_of};
use crate::catalog::LoadedTable;
use crate::catalog::scan::planned;

/// Rows of a file that are read at once: a letter holds a whole record, which may be large.
const ROWS_AT_ONCE: usize = 64;

/// The files of a table that hold letters to be taken back.
pub(super) struct TakenBack {
    table: Table,
    files: Vec<FileScanTask>,
}

impl TakenBack {
    /// Finds the files that hold letters of `origin` at `keys`; none where there are no keys.
    ///
    /// # Errors
    /// What the crate says of a scan.
    pub(super) async fn find(base: &LoadedTable, origin: &Origin, keys: &HashSet<Key>) -> iceberg::Result<TakenBack> {
        let table = base.scannable()?;
        let mut files = Vec::new();
        if let (Some(filter), Some(snapshot)) = (filter_of(keys), base.metadata.current_snapshot_id()) {
            let scan = table
                .scan()
                .snapshot_id(snapshot)
                .select_all()
                .with_filter(filter)
                .build()?;
            for mut task in planned(scan).await? {
                // All of its rows: those that stay are written again.
                task.predicate = None;
                if holds(&table, &task, origin, keys).await? {
                    files.push(task);
                }
            }
        }
        Ok(TakenBack { table, files })
    }

    /// The paths of the files, which end.
    pub(super) fn paths(&self) -> BTreeSet<String> {
        self.files.iter().map(|task| task.data_file_path.clone()).collect()
    }

    /// The rows of these files that stay, some dozens at a time; in a stream an error means that the store failed.
    pub(super) fn rows_that_stay(
        self,
        origin: &Origin,
        keys: &HashSet<Key>,
    ) -> BoxStream<'static, iceberg::Result<RecordBatch>> {
        let (origin, keys) = (origin.clone(), keys.clone());
        let TakenBack { table, files } = self;
        let batches = futures::stream::iter(files).map(move |task| read(&table, &task));
        let stay = batches.try_flatten().map(move |batch| without(&batch?, &origin, &keys));
        stay.boxed()
    }
}

/// Leaves out the letters of `origin` at `keys`.
///
/// # Errors
/// If a column of the key is missing.
pub fn without(rows: &RecordBatch, origin: &Origin, keys: &HashSet<Key>) -> iceberg::Result<RecordBatch> {
    let found = keys_of(rows, origin)?;
    let stays = |held: &Option<Held>| Some(held.is_none_or(|(key, _)| !keys.contains(&key)));
    let stay: BooleanArray = found.iter().map(stays).collect();
    filter_record_batch(rows, &stay)
        .map_err(|error| iceberg::Error::new(iceberg::ErrorKind::Unexpected, error.to_string()))
}

async fn holds(table: &Table, task: &FileScanTask, origin: &Origin, keys: &HashSet<Key>) -> iceberg::Result<bool> {
    let mut batches = read(table, task)?;
    while let Some(batch) = batches.try_next().await? {
        if keys_of(&batch, origin)?
            .iter()
            .flatten()
            .any(|(key, _)| keys.contains(key))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn read(table: &Table, task: &FileScanTask) -> iceberg::Result<ArrowRecordBatchStream> {
    let tasks = futures::stream::once(std::future::ready(Ok(task.clone()))).boxed();
    let reader = table.reader_builder().with_batch_size(ROWS_AT_ONCE).build();
    Ok(reader.read(tasks)?.stream())
}
