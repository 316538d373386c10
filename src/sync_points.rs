//! `sync_points.parquet`: where every source was left off, as a file that anyone can query.
//!
//! Of an Iceberg table it is a published copy of the ledger and never obeyed; of a table of plain Parquet it is the record
//! itself, see [`crate::table::hive`]. Nothing in it is about Kafka: any source with a "since" mark
//! keeps rows `(source_name, sync_key, sync_value)` here.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit, TimestampMicrosecondType};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::kill_points::{self, KillPoint, Place};
use crate::store::{Access, Store, StoreError};

/// How often a replacement starts over when other writers keep coming first; with waits of 20 to 400 ms, some 6 s.
const ATTEMPTS_MAX: u32 = 30;
/// How long to wait for the lock on a local disk; it is held for milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(20);
/// How often the lock is tried.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// How far one part of one source was read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SyncPoint {
    /// The pipeline, as the table's name.
    pub source_name: String,
    /// The part of the source, such as `partition:0`.
    pub sync_key: String,
    /// Where to resume; for Kafka the next offset to read.
    pub sync_value: String,
    /// When that was committed, in microseconds since 1970, UTC.
    pub committed_at_us: i64,
}

/// Why the sync points couldn't be read or replaced; the table itself isn't concerned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncPointsError {
    /// The store failed; after a failed replacement the file may be the old or the new one.
    #[error("sync points: {0}")]
    Store(#[from] StoreError),
    /// The file isn't one of sync points. Where all tables of the schema are Iceberg tables it can be deleted: it is written
    /// anew from them.
    #[error("`{location}` can't be read as sync points: {message}")]
    Broken {
        /// Where the file is.
        location: String,
        /// What is wrong with it.
        message: String,
    },
    /// Other writers came first every time, or hold the lock.
    #[error("`{location}` is kept busy by other writers")]
    Busy {
        /// Where the file is.
        location: String,
    },
}

impl SyncPointsError {
    /// Returns whether the same call may succeed later.
    pub fn retryable(&self) -> bool {
        match self {
            SyncPointsError::Store(error) => error.retryable(),
            SyncPointsError::Busy { .. } => true,
            SyncPointsError::Broken { .. } => false,
        }
    }
}

/// The sync points of one schema.
#[derive(Debug, Clone)]
pub struct SyncPoints {
    store: Store,
    location: String,
}

impl SyncPoints {
    /// Names the file `{state_dir}/{schema}/sync_points.parquet`. Nothing is contacted or created yet.
    ///
    /// # Errors
    /// [`SyncPointsError::Store`] if there is no store for `state_dir`.
    pub fn open(state_dir: &str, schema: &str, access: impl Into<Access>) -> Result<SyncPoints, SyncPointsError> {
        Ok(SyncPoints::within(Store::open(state_dir, access)?, schema))
    }

    /// The same in a store that is open already, whose warehouse is the state directory.
    pub fn within(store: Store, schema: &str) -> SyncPoints {
        let location = format!("{}/{schema}/sync_points.parquet", store.warehouse());
        SyncPoints { store, location }
    }

    /// Returns where the file is.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// Reads all rows, ascending by source and key; none where there is no file yet.
    ///
    /// # Errors
    /// Any [`SyncPointsError`] but `Busy`.
    pub async fn read(&self) -> Result<Vec<SyncPoint>, SyncPointsError> {
        match self.store.get(&self.location).await? {
            Some((bytes, _)) => self.decode(bytes),
            None => Ok(Vec::new()),
        }
    }

    /// Replaces the rows of one source if they are still the ones `seen`, and keeps those of all other sources, whoever
    /// writes at the same time.
    ///
    /// - `seen`: the rows of the source as they were read, ascending; none where it had none.
    /// - `rows`: all new rows of the source, any order; their `source_name` is taken to be `source_name`.
    /// - returns whether they were replaced; if not, another writer of this source came first and nothing was changed.
    ///
    /// # Errors
    /// Any [`SyncPointsError`].
    pub async fn replace(
        &self,
        source_name: &str,
        seen: &[SyncPoint],
        rows: Vec<SyncPoint>,
    ) -> Result<bool, SyncPointsError> {
        let rows: Vec<SyncPoint> = rows
            .into_iter()
            .map(|row| SyncPoint {
                source_name: source_name.to_string(),
                ..row
            })
            .collect();
        if self.store.is_local() {
            let (this, source_name, seen) = (self.clone(), source_name.to_string(), seen.to_vec());
            return tokio::task::spawn_blocking(move || this.replace_locked(&source_name, &seen, rows))
                .await
                .unwrap_or_else(|error| Err(self.broken(error)));
        }
        for attempt in 0..ATTEMPTS_MAX {
            let (before, version) = match self.store.get(&self.location).await? {
                Some((bytes, version)) => (self.decode(bytes)?, Some(version)),
                None => (Vec::new(), None),
            };
            let Some(after) = merged(before, source_name, seen, &rows) else {
                return Ok(false);
            };
            match self.store.put_if(&self.location, self.encode(after)?, version).await {
                Ok(()) => return Ok(true),
                // Ours may have been the write that came first, its answer lost: then the rows aren't those seen any more,
                // and the caller finds its own.
                Err(StoreError::Changed { .. }) => {
                    tokio::time::sleep(pause(attempt, source_name)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(SyncPointsError::Busy {
            location: self.location.clone(),
        })
    }

    /// Replaces on a local disk: under a lock file, by a synced temporary file and an atomic rename.
    fn replace_locked(
        &self,
        source_name: &str,
        seen: &[SyncPoint],
        rows: Vec<SyncPoint>,
    ) -> Result<bool, SyncPointsError> {
        let disk = |error| StoreError::disk(&self.location, error);
        let path = self
            .store
            .local_path(&self.location)
            .ok_or_else(|| self.broken("it isn't on a local disk"))?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(directory).map_err(disk)?;
        // Kept for good: deleting a lock file lets two writers lock two files of one name.
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.with_extension("parquet.lock"))
            .map_err(disk)?;
        self.take(&lock)?;

        let before = match std::fs::read(&path) {
            Ok(bytes) => self.decode(bytes.into())?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(disk(error).into()),
        };
        let Some(after) = merged(before, source_name, seen, &rows) else {
            return Ok(false);
        };
        let bytes = self.encode(after)?;
        let temporary = path.with_extension("parquet.new");
        let written = || -> std::io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            kill_points::pass(KillPoint::Inside(Place::PointsWritten));
            std::fs::rename(&temporary, &path)?;
            kill_points::pass(KillPoint::Inside(Place::PointsRenamed));
            File::open(directory)?.sync_all()
        };
        written().map_err(disk)?;
        // The lock ends when `lock` is closed here, or with the process.
        Ok(true)
    }

    fn take(&self, lock: &File) -> Result<(), SyncPointsError> {
        let start = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) if start.elapsed() < LOCK_TIMEOUT => {
                    std::thread::sleep(LOCK_PAUSE);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(SyncPointsError::Busy {
                        location: self.location.clone(),
                    });
                }
                Err(TryLockError::Error(error)) => {
                    return Err(StoreError::disk(&self.location, error).into());
                }
            }
        }
    }

    fn broken(&self, message: impl ToString) -> SyncPointsError {
        SyncPointsError::Broken {
            location: self.location.clone(),
            message: message.to_string(),
        }
    }

    fn decode(&self, bytes: Bytes) -> Result<Vec<SyncPoint>, SyncPointsError> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
            .and_then(ParquetRecordBatchReaderBuilder::build)
            .map_err(|error| self.broken(error))?;
        let mut rows = Vec::new();
        for batch in reader {
            let batch = batch.map_err(|error| self.broken(error))?;
            let column = |name: &str, kind: &DataType| -> Result<ArrayRef, SyncPointsError> {
                let column = batch
                    .column_by_name(name)
                    .ok_or_else(|| self.broken(format!("column `{name}` is missing")))?;
                // Others may have rewritten the file with large strings or another time unit.
                arrow::compute::cast(column, kind).map_err(|error| self.broken(error))
            };
            let names = column("source_name", &DataType::Utf8)?;
            let keys = column("sync_key", &DataType::Utf8)?;
            let values = column("sync_value", &DataType::Utf8)?;
            let times = column("committed_at", &time_type())?;
            let text = |column: &ArrayRef, row: usize| {
                let column = column.as_string::<i32>();
                column.is_valid(row).then(|| column.value(row).to_string())
            };
            for row in 0..batch.num_rows() {
                let (Some(source_name), Some(sync_key), Some(sync_value)) =
                    (text(&names, row), text(&keys, row), text(&values, row))
                else {
                    return Err(self.broken(format!("row {row} holds a null")));
                };
                rows.push(SyncPoint {
                    source_name,
                    sync_key,
                    sync_value,
                    committed_at_us: times.as_primitive::<TimestampMicrosecondType>().value(row),
                });
            }
        }
        rows.sort();
        Ok(rows)
    }

    fn encode(&self, rows: Vec<SyncPoint>) -> Result<Bytes, SyncPointsError> {
        let strings =
            |of: fn(&SyncPoint) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.iter().map(of))) };
        let times = rows.iter().map(|row| row.committed_at_us);
        let times = TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC");
        let schema = Arc::new(Schema::new(vec![
            Field::new("source_name", DataType::Utf8, false),
            Field::new("sync_key", DataType::Utf8, false),
            Field::new("sync_value", DataType::Utf8, false),
            Field::new("committed_at", time_type(), false),
        ]));
        let columns = vec![
            strings(|row| &row.source_name),
            strings(|row| &row.sync_key),
            strings(|row| &row.sync_value),
            Arc::new(times) as ArrayRef,
        ];
        let write = || -> Result<Vec<u8>, parquet::errors::ParquetError> {
            let batch = RecordBatch::try_new(schema.clone(), columns)?;
            let properties = WriterProperties::builder()
                .set_compression(Compression::ZSTD(ZstdLevel::default()))
                .build();
            let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties))?;
            writer.write(&batch)?;
            writer.into_inner()
        };
        write().map(Bytes::from).map_err(|error| self.broken(error))
    }
}

fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// Puts a source's new rows in the place of its old ones, sorted; `None` if the old ones aren't those that were seen.
fn merged(before: Vec<SyncPoint>, source_name: &str, seen: &[SyncPoint], rows: &[SyncPoint]) -> Option<Vec<SyncPoint>> {
    let (own, mut all): (Vec<_>, Vec<_>) = before.into_iter().partition(|row| row.source_name == source_name);
    if own != seen {
        return None;
    }
    all.extend(rows.iter().cloned());
    all.sort();
    Some(all)
}

/// How long to wait before the next attempt; sources wait differently, so that they don't meet again.
fn pause(attempt: u32, source_name: &str) -> Duration {
    let spread: u64 = source_name.bytes().map(u64::from).sum::<u64>() * 7 % 50;
    let grown = 20 * u64::from(attempt + 1).min(20);
    Duration::from_millis(grown + spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(source: &str, key: &str, value: &str) -> SyncPoint {
        SyncPoint {
            source_name: source.to_string(),
            sync_key: key.to_string(),
            sync_value: value.to_string(),
            committed_at_us: 1_700_000_000_123_456,
        }
    }

    async fn replacing_keeps_other_sources(points: SyncPoints) {
        assert_eq!(points.read().await.expect("no file yet"), []);
        let replace = async |name: &str, seen: &[SyncPoint], rows: &[SyncPoint]| {
            points.replace(name, seen, rows.to_vec()).await.expect("replace")
        };
        let first = [point("b", "partition:0", "5"), point("b", "partition:1", "7")];
        assert!(replace("b", &[], &[first[1].clone(), first[0].clone()]).await);
        assert!(replace("a", &[], &[point("a", "since", "2024-01-01")]).await);
        let second = [point("b", "partition:0", "6")];
        assert!(!replace("b", &first[..1], &second).await, "not what was seen");
        assert!(!replace("b", &[], &second).await, "not what was seen");
        assert!(replace("b", &first, &second).await);
        let expect = [point("a", "since", "2024-01-01"), point("b", "partition:0", "6")];
        assert_eq!(points.read().await.expect("read"), expect);
        assert!(replace("b", &second, &[]).await);
        assert_eq!(points.read().await.expect("read"), expect[..1]);
    }

    /// Two threads per source write at once; each source must end with its own last row.
    async fn writers_at_once_lose_nothing(points: SyncPoints) {
        let mut writers = Vec::new();
        for writer in 0..8 {
            let points = points.clone();
            writers.push(tokio::spawn(async move {
                let name = format!("source-{writer}");
                let mut seen = Vec::new();
                for value in 0..5 {
                    let rows = vec![point(&name, "partition:0", &value.to_string())];
                    let replaced = points.replace(&name, &seen, rows.clone()).await.expect("replace");
                    assert!(replaced, "nobody else writes {name}");
                    seen = rows;
                }
            }));
        }
        for writer in writers {
            writer.await.expect("join");
        }
        let rows = points.read().await.expect("read");
        assert_eq!(rows.len(), 8);
        assert!(rows.iter().all(|row| row.sync_value == "4"), "{rows:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn on_a_local_disk() {
        let directory = tempfile::tempdir().expect("tempdir");
        let open = |schema: &str| {
            let path = directory.path().join("a/.aperio");
            let path = path.to_str().expect("utf-8");
            SyncPoints::open(path, schema, Access::default()).expect("open")
        };
        replacing_keeps_other_sources(open("one")).await;
        writers_at_once_lose_nothing(open("two")).await;
        let file = directory.path().join("a/.aperio/two/sync_points.parquet");
        std::fs::write(file, "no parquet").expect("write");
        assert!(matches!(open("two").read().await, Err(SyncPointsError::Broken { .. })));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn in_a_bucket() {
        let open = || SyncPoints::within(Store::in_memory("s3://b/state"), "s");
        replacing_keeps_other_sources(open()).await;
        writers_at_once_lose_nothing(open()).await;
    }
}
