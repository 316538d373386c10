//! Dead letters: the records that could become no row, kept in an Iceberg table beside the main one.
//!
//! The two tables can't be swapped together, so letters are stored *before* the window that rejected them is committed,
//! and a window that is read again brings them again. What keeps them single is their key, (topic, partition, offset):
//! every attempt is pinned to the snapshot whose keys it knows, so of two runs with the same letters one loses, reloads and
//! finds them there. A lost answer is settled in the same way.

mod columns;
mod keys;
#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use chrono::Utc;
use iceberg::TableIdent;
use iceberg::spec::{DataFile, FormatVersion, Struct, TableMetadata, UnboundPartitionSpec};
use tokio::runtime::Handle;
use uuid::Uuid;

use self::keys::KnownKeys;
use crate::catalog::stage::{Change, StageError, fresh_snapshot_id, stage};
use crate::catalog::{Catalog, CatalogError, LoadedTable, NewTable, SwapAnswer, creation_properties};
use crate::decode::{DeadLetter, steps};
use crate::offsets::Offsets;
use crate::place::Part;
use crate::store::UploadSinks;
use crate::write::{ParquetSettings, WindowWriter, WriteError};

/// Attempts of one call: with the delays below about 15 s. Beyond, the run's own retry asks again, knowing how long it may.
const ATTEMPTS_MAX: usize = 8;
/// The delay before the second attempt; doubles from there, with jitter, so that two runs don't meet again and again.
const DELAY_MIN: Duration = Duration::from_millis(50);
/// The longest delay.
const DELAY_MAX: Duration = Duration::from_secs(5);
/// Letters encoded at once, and their bytes: a step is held twice while it is encoded.
const STEP_MAX: (usize, usize) = (2_048, 8 << 20);
/// What the file of letters may hold in memory beside its upload.
const FILE_BYTES_MAX: usize = 16 << 20;

/// Why letters weren't stored. Letters that were stored nonetheless are found by the next call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeadLetterError {
    /// The catalog couldn't load, create or swap the table.
    #[error("the catalog failed for dead-letter table `{table}`")]
    Catalog {
        /// The table.
        table: TableIdent,
        /// What the catalog said.
        source: CatalogError,
    },
    /// The table can't hold letters as it is; a person must alter it, or name another.
    #[error("`{table}` can't hold dead letters: {reason}")]
    Unsuitable {
        /// The table.
        table: TableIdent,
        /// What is in the way.
        reason: String,
    },
    /// The keys of the letters in the table couldn't be read.
    #[error("the keys of dead-letter table `{table}` can't be read")]
    Keys {
        /// The table.
        table: TableIdent,
        /// What went wrong.
        source: iceberg::Error,
    },
    /// The letters couldn't be written to a file.
    #[error("dead letters for `{table}` can't be written")]
    Write {
        /// The table.
        table: TableIdent,
        /// What went wrong.
        source: WriteError,
    },
    /// The commit couldn't be prepared.
    #[error("a commit to dead-letter table `{table}` can't be prepared")]
    Stage {
        /// The table.
        table: TableIdent,
        /// What went wrong.
        source: StageError,
    },
    /// Other writers moved the table at every attempt.
    #[error("dead-letter table `{table}` was moved by other writers at each of {attempts} attempts")]
    Contended {
        /// The table.
        table: TableIdent,
        /// How often it was tried.
        attempts: usize,
    },
    /// The last attempt got no answer, and no further ones are made: the letters may be stored. Storing them again is safe.
    #[error("it isn't known whether dead letters were stored in `{table}`")]
    Unknown {
        /// The table.
        table: TableIdent,
        /// Why there was no answer.
        source: CatalogError,
    },
}

impl DeadLetterError {
    /// Says whether the same call may succeed later without anyone changing anything.
    pub fn retryable(&self) -> bool {
        match self {
            DeadLetterError::Catalog { source, .. } => source.retryable(),
            DeadLetterError::Stage { source, .. } => source.retryable(),
            DeadLetterError::Keys { .. } | DeadLetterError::Write { .. } => true,
            DeadLetterError::Contended { .. } | DeadLetterError::Unknown { .. } => true,
            DeadLetterError::Unsuitable { .. } => false,
        }
    }
}

/// The dead-letter table of one pipeline.
///
/// Columns `topic`, `partition`, `offset`, `timestamp`, `key`, `value`, `headers`, `stage`, `error`, `schema_id`; not
/// partitioned: letters are few, and looked for by any of these.
#[derive(Debug)]
pub struct DeadLetterTable {
    catalog: Arc<Catalog>,
    ident: TableIdent,
    /// What the table held when it was last looked at; trusted for that snapshot only.
    known: Option<KnownKeys>,
    unsure: Vec<Unsure>,
}

/// An attempt whose answer was lost.
#[derive(Debug)]
struct Unsure {
    base: Option<i64>,
    snapshot: i64,
    letters: u64,
}

/// What became of one attempt; an `Err` beside it means that nothing was stored.
#[derive(Debug)]
enum Attempt {
    /// The letters are in the table, by this snapshot.
    Stored(i64),
    /// The table had moved.
    Conflict,
    /// This snapshot may be in the table, or still come.
    Unknown(i64, CatalogError),
}

impl DeadLetterTable {
    /// Names the table; nothing is contacted or created before the first letter.
    pub fn new(catalog: Arc<Catalog>, ident: TableIdent) -> Self {
        DeadLetterTable {
            catalog,
            ident,
            known: None,
            unsure: Vec::new(),
        }
    }

    /// Stores those of the letters that the table doesn't hold yet, in one commit, and creates the table at the first.
    ///
    /// - `ledger`: the main table's offsets. Keys are read from there on, once per run while nobody else writes.
    /// - `letters`: all of one topic, any order; a key that comes twice is stored once.
    /// - returns how many were stored now, an earlier attempt whose answer was lost included.
    ///
    /// # Errors
    /// [`DeadLetterError`]; calling again with the same letters is always safe.
    ///
    /// # Panics
    /// If the letters are of several topics.
    pub async fn store<L: Borrow<DeadLetter>>(
        &mut self,
        ledger: &Offsets,
        letters: &[L],
    ) -> Result<u64, DeadLetterError> {
        let letters: Vec<&DeadLetter> = letters.iter().map(Borrow::borrow).collect();
        let letters = &letters[..];
        let Some(topic) = letters.first().map(|letter| letter.topic.as_str()) else {
            return Ok(0);
        };
        assert!(
            letters.iter().all(|letter| letter.topic == topic),
            "a pipeline reads one topic"
        );
        let from = keys::floor(ledger, letters);
        let delays = ExponentialBuilder::default()
            .with_min_delay(DELAY_MIN)
            .with_max_delay(DELAY_MAX)
            .with_max_times(ATTEMPTS_MAX - 1)
            .with_jitter()
            .build();
        let mut stored = 0;
        let mut unanswered = None;
        for delay in std::iter::once(Duration::ZERO).chain(delays) {
            tokio::time::sleep(delay).await;
            let base = self.load_or_create().await?;
            stored += self.settle(&base.metadata);
            let mut known = match self.known.take() {
                Some(known) if known.cover(&base, topic, &from) => known,
                _ => {
                    let read = KnownKeys::read(&base, topic, &from).await;
                    read.map_err(|source| DeadLetterError::Keys {
                        table: self.ident.clone(),
                        source,
                    })?
                }
            };
            known.forget_below(&from);
            let missing = known.missing(letters);
            let known = self.known.insert(known);
            if missing.is_empty() {
                return Ok(stored);
            }
            let count = missing.len() as u64;
            match attempt(&self.catalog, &base, &missing).await? {
                Attempt::Stored(snapshot) => {
                    known.add(snapshot, &missing);
                    return Ok(stored + count);
                }
                Attempt::Conflict => unanswered = None,
                Attempt::Unknown(snapshot, error) => {
                    let base = base.metadata.current_snapshot_id();
                    self.unsure.push(Unsure {
                        base,
                        snapshot,
                        letters: count,
                    });
                    unanswered = Some(error);
                }
            }
        }
        let table = self.ident.clone();
        Err(match unanswered {
            Some(source) => DeadLetterError::Unknown { table, source },
            None => DeadLetterError::Contended {
                table,
                attempts: ATTEMPTS_MAX,
            },
        })
    }

    /// Counts the letters of `topic` that the table holds at or above `from`; none where there is no table.
    ///
    /// # Errors
    /// [`DeadLetterError::Catalog`] and [`DeadLetterError::Keys`].
    pub async fn count_from(&self, topic: &str, from: &Offsets) -> Result<usize, DeadLetterError> {
        let loaded = self.catalog.load(&self.ident).await;
        let loaded = loaded.map_err(|source| DeadLetterError::Catalog {
            table: self.ident.clone(),
            source,
        })?;
        let Some(table) = loaded else { return Ok(0) };
        let known = KnownKeys::read(&table, topic, from).await;
        let known = known.map_err(|source| DeadLetterError::Keys {
            table: self.ident.clone(),
            source,
        })?;
        Ok(known.len())
    }

    async fn load_or_create(&self) -> Result<LoadedTable, DeadLetterError> {
        let failed = |source| DeadLetterError::Catalog {
            table: self.ident.clone(),
            source,
        };
        if let Some(table) = self.catalog.load(&self.ident).await.map_err(failed)? {
            return Ok(table);
        }
        let schema = columns::schema().map_err(|error| failed(CatalogError::Broken(error.to_string())))?;
        let creation = NewTable {
            schema,
            spec: UnboundPartitionSpec::default(),
            properties: creation_properties(BTreeMap::new()),
            format_version: FormatVersion::V2,
        };
        self.catalog.create(&self.ident, creation).await.map_err(failed)
    }

    /// Counts the letters of attempts that turn out to have happened.
    fn settle(&mut self, metadata: &TableMetadata) -> u64 {
        let mut stored = 0;
        self.unsure.retain(|attempt| {
            if metadata.snapshot_by_id(attempt.snapshot).is_some() {
                stored += attempt.letters;
                return false;
            }
            // While the table stands where the attempt was pinned, it may still come; once it has moved on, never. Its files
            // stay: a rollback to its base would let it through after all.
            metadata.current_snapshot_id() == attempt.base
        });
        stored
    }
}

/// Makes one attempt to add letters to exactly `base`. Files of an attempt that provably didn't happen are deleted.
async fn attempt(catalog: &Catalog, base: &LoadedTable, letters: &[&DeadLetter]) -> Result<Attempt, DeadLetterError> {
    let commit_uuid = Uuid::new_v4();
    let added_data = write(base, commit_uuid, letters).await?;
    let mut files: Vec<String> = added_data.iter().map(|(_, file)| file.file_path().to_owned()).collect();
    let snapshot = fresh_snapshot_id(&base.metadata);
    let change = Change {
        added_data,
        added_deletes: Vec::new(),
        removed_data: BTreeSet::new(),
        removed_deletes: BTreeSet::new(),
        summary: BTreeMap::new(),
        properties: HashMap::new(),
        snapshot_id: snapshot,
        commit_uuid,
        now_ms: Utc::now().timestamp_millis(),
    };
    let staged = match stage(base, change).await {
        Ok(staged) => staged,
        Err(source) => {
            base.store.delete_unused(&files).await;
            return Err(DeadLetterError::Stage {
                table: base.ident.clone(),
                source,
            });
        }
    };
    files.extend(staged.files);
    match catalog.swap(base, staged.requirements, staged.updates).await {
        SwapAnswer::Committed(_) => Ok(Attempt::Stored(snapshot)),
        SwapAnswer::Conflict => {
            if catalog.left_behind(base, snapshot).await {
                base.store.delete_unused(&files).await;
            }
            Ok(Attempt::Conflict)
        }
        // The files may be part of the table: nothing is cleaned up.
        SwapAnswer::Unknown(error) => Ok(Attempt::Unknown(snapshot, error)),
        SwapAnswer::Rejected(source) => {
            if catalog.left_behind(base, snapshot).await {
                base.store.delete_unused(&files).await;
            }
            Err(DeadLetterError::Catalog {
                table: base.ident.clone(),
                source,
            })
        }
    }
}

/// Writes letters to Parquet files of the table, each with the id of its partition spec.
///
/// After an error a finished file may remain, referred to by nothing.
async fn write(
    base: &LoadedTable,
    commit_uuid: Uuid,
    letters: &[&DeadLetter],
) -> Result<Vec<(i32, DataFile)>, DeadLetterError> {
    let metadata = &base.metadata;
    let unsuitable = |reason: String| DeadLetterError::Unsuitable {
        table: base.ident.clone(),
        reason,
    };
    let failed = |source| DeadLetterError::Write {
        table: base.ident.clone(),
        source,
    };
    let plan = columns::plan(metadata.current_schema()).map_err(unsuitable)?;
    // Files may be of any spec that the table ever had; ours begins with none, whatever it is partitioned by later.
    let spec = metadata
        .partition_specs_iter()
        .find(|spec| spec.fields().is_empty())
        .cloned();
    let spec =
        spec.ok_or_else(|| unsuitable("it was never without partitions; name a table of your own".to_owned()))?;
    let spec_id = spec.spec_id();
    let settings = ParquetSettings::from_properties(metadata.properties()).map_err(unsuitable)?;
    let data_location = match metadata.properties().get("write.data.path") {
        Some(path) => path.clone(),
        None => format!("{}/data", metadata.location().trim_end_matches('/')),
    };
    let stem = format!("dead-letters-{commit_uuid}");
    let sinks = Box::new(UploadSinks {
        store: base.store.clone(),
        handle: Handle::current(),
    });
    let mut writer = WindowWriter::new(
        Arc::clone(&plan),
        spec,
        None,
        settings,
        data_location,
        stem,
        u64::MAX,
        sinks,
    );
    let (letters_max, bytes_max) = STEP_MAX;
    for step in steps(letters, letters_max, bytes_max) {
        let rows = columns::rows(&plan, step).map_err(|error| unsuitable(error.to_string()))?;
        let part = Part {
            value: Struct::empty(),
            path: String::new(),
            rows,
        };
        let write = move || {
            writer.write(vec![part])?;
            writer.flush_rows(FILE_BYTES_MAX).map(|()| writer)
        };
        writer = blocking(write).await.map_err(failed)?;
    }
    let files = blocking(move || writer.seal()).await.map_err(failed)?;
    Ok(files.into_iter().map(|file| (spec_id, file)).collect())
}

/// Runs what encodes or waits on a thread that may; a panic there goes on here.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
