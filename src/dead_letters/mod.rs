//! Dead letters: the records that could become no row, kept in an Iceberg table beside the main one.
//!
//! The two tables can't be swapped together, so letters are stored *before* the window that rejected them is committed,
//! and a window that is read again brings them again. What keeps them single is their key: whose they are (the pipeline's
//! table, the cluster, the topic, by ids that a new one doesn't share) and (partition, offset). A log that has lost its end gives
//! offsets out again: a letter takes the place of one of its key whose record has another time. Every attempt is pinned to the
//! snapshot whose keys it knows, so of two runs with the same letters one loses, reloads and finds them there. A lost answer
//! is settled in the same way. So several pipelines may share one table.
//!
//! Letters are of the window that is committed: those of an attempt that never was, within the offsets of a window that
//! made rows of their records, are taken back *after* its commit. Not before: until then another run may commit what the
//! letters are of, and they would be lost. So a run that is killed in between leaves a letter beside its row, and so does one
//! that stores its letters late, for a window that another run has committed.

pub mod columns;
pub mod keys;
pub mod taken_back;
#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use backon::{BackoffBuilder, ExponentialBuilder};
use chrono::Utc;
use futures::TryStreamExt;
use iceberg::spec::{DataFile, FormatVersion, Schema, Struct, TableMetadata, UnboundPartitionSpec};
use iceberg::{ErrorKind, TableIdent};
use tokio::runtime::Handle;
use tracing::info;
use uuid::Uuid;

use self::keys::{Key, KnownKeys};
use self::taken_back::TakenBack;
use crate::catalog::stage::{Change, StageError, fresh_snapshot_id, schema_change, stage};
use crate::catalog::{Catalog, CatalogError, LoadedTable, NewTable, SwapAnswer, creation_properties};
use crate::decode::{DeadLetter, steps};
use crate::offsets::{OffsetRanges, Offsets, RecordAt};
use crate::place::Part;
use crate::store::UploadSinks;
use crate::table::admit::Source;
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

/// A table of letters has few manifests: all of them are read to see what another writer has stored, which every attempt
/// does where many write to one table. Iceberg's default of 100 makes the attempts long enough to lose to each other.
const MERGE_MANIFESTS: [&str; 2] = ["commit.manifest.min-count-to-merge", "20"];

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
            // What is written in the table itself is the same the next time.
            DeadLetterError::Keys { source, .. } => {
                !matches!(source.kind(), ErrorKind::DataInvalid | ErrorKind::FeatureUnsupported)
            }
            DeadLetterError::Write { source, .. } => source.retryable(),
            DeadLetterError::Contended { .. } | DeadLetterError::Unknown { .. } => true,
            DeadLetterError::Unsuitable { .. } => false,
        }
    }
}

/// Whose letters they are; with partition and offset the key of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The pipeline, as its table is called: `{schema}.{name}`.
    pub pipeline: String,
    /// The pipeline's table.
    pub table: Uuid,
    /// The topic.
    pub source: Source,
}

/// The letters of one pipeline in a dead-letter table, which others may share.
///
/// Columns `topic`, `partition`, `offset`, `timestamp`, `key`, `value`, `headers`, `stage`, `error`, `schema_id`, `pipeline`,
/// `table_uuid`, `cluster_id`, `topic_id`; not partitioned: letters are few, and looked for by any of these. Of a table that an
/// earlier version made, the letters that it holds have nulls in the last four.
#[derive(Debug)]
pub struct DeadLetterTable {
    catalog: Arc<Catalog>,
    ident: TableIdent,
    origin: Origin,
    /// The table, as it was last loaded.
    seen: Option<LoadedTable>,
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

/// What became of letters that were to be stored.
#[derive(Debug, Default)]
pub struct Stored {
    /// How many are in the table now that weren't before, an earlier attempt whose answer was lost included.
    pub new: u64,
    /// The records whose letters an attempt has left that was never committed: this time they are rows, or filtered. The letters
    /// are to be taken back once the windows are committed.
    pub stale: BTreeSet<RecordAt>,
}

/// What is to be in the table, and what isn't.
struct Wish<'a> {
    /// The keys from here on are looked at.
    from: Offsets,
    stored: &'a [&'a DeadLetter],
    taken_back: &'a BTreeSet<RecordAt>,
}

/// What one attempt does.
struct Letters<'a> {
    origin: &'a Origin,
    stored: &'a [&'a DeadLetter],
    taken_back: &'a HashSet<Key>,
}

/// What became of one attempt; an `Err` beside it means that nothing was stored.
#[derive(Debug)]
enum Attempt {
    /// The letters are in the table as it is now, by this snapshot.
    Stored(Box<LoadedTable>, i64),
    /// The table had moved.
    Conflict,
    /// This snapshot may be in the table, or still come.
    Unknown(i64, CatalogError),
}

impl DeadLetterTable {
    /// Names the table; nothing is contacted or created before the first letter.
    pub fn new(catalog: Arc<Catalog>, ident: TableIdent, origin: Origin) -> Self {
        DeadLetterTable {
            catalog,
            ident,
            origin,
            seen: None,
            known: None,
            unsure: Vec::new(),
        }
    }

    /// Stores those of the letters that the table doesn't hold yet, in one commit, and creates the table at the first. Finds
    /// those that it holds beside them of the same records.
    ///
    /// - `ledger`: the main table's offsets. Keys are read from there on, once per run while nobody else writes; from where the
    ///   windows begin, if that is below.
    /// - `ranges`: what the windows have read that bring the letters.
    /// - `letters`: all of this origin's topic, any order; a key that comes twice is stored once.
    ///
    /// # Errors
    /// [`DeadLetterError`]; calling again with the same letters is always safe.
    ///
    /// # Panics
    /// If the letters are of another topic.
    pub async fn store<L: Borrow<DeadLetter>>(
        &mut self,
        ledger: &Offsets,
        ranges: &OffsetRanges,
        letters: &[L],
    ) -> Result<Stored, DeadLetterError> {
        let letters: Vec<&DeadLetter> = letters.iter().map(Borrow::borrow).collect();
        assert!(
            letters.iter().all(|letter| letter.topic == self.origin.source.topic),
            "a pipeline reads one topic"
        );
        let wish = Wish {
            from: keys::floor_of(ledger, ranges, &letters),
            stored: &letters,
            taken_back: &BTreeSet::new(),
        };
        let new = self.change(&wish).await?;
        let known = self.known.as_ref();
        let stale = known.map(|known| known.stale(ranges, &letters)).unwrap_or_default();
        Ok(Stored { new, stale })
    }

    /// Takes back the letters of these records, as far as the table holds them.
    ///
    /// - `stale`: as [`DeadLetterTable::store`] has found them, of windows that *are* committed: of what isn't yet, letters may be
    ///   another run's.
    ///
    /// # Errors
    /// [`DeadLetterError`]; calling again is always safe.
    pub async fn take_back(&mut self, stale: &BTreeSet<RecordAt>) -> Result<(), DeadLetterError> {
        let wish = Wish {
            from: keys::floor(&Offsets::default(), stale.iter().copied()),
            stored: &[],
            taken_back: stale,
        };
        self.change(&wish).await.map(drop)
    }

    /// Makes the table as it is wished for; returns how many letters were stored now, an earlier attempt whose answer was lost
    /// included.
    async fn change(&mut self, wish: &Wish<'_>) -> Result<u64, DeadLetterError> {
        let (from, letters) = (&wish.from, wish.stored);
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
            let base = match self.load().await? {
                Some(table) => table,
                None if letters.is_empty() => return Ok(stored),
                None => self.create().await?,
            };
            stored += self.settle(&base.metadata);
            let (table, snapshot) = (base.metadata.uuid(), base.metadata.current_snapshot_id());
            let mut known = match self.known.take() {
                Some(known) if known.cover(table, snapshot, &self.origin, from) => known,
                before => {
                    let read = KnownKeys::read(&base, &self.origin, from, before).await;
                    read.map_err(|source| self.unread(source))?
                }
            };
            known.forget_below(from);
            let (missing, stale) = (known.missing(letters), known.held(wish.taken_back));
            let lost = known.in_place_of(&missing);
            if missing.is_empty() && stale.is_empty() {
                self.known = Some(known);
                return Ok(stored);
            }
            let base = match columns::evolved(&base.metadata) {
                None => base,
                Some(schema) => match self.evolve(&base, schema).await? {
                    Some(table) => table,
                    None => continue,
                },
            };
            let count = missing.len() as u64;
            let gone = stale.union(&lost).copied().collect();
            let change = Letters {
                origin: &self.origin,
                stored: &missing,
                taken_back: &gone,
            };
            let attempted = attempt(&self.catalog, &base, &change).await?;
            let known = self.known.insert(known);
            match attempted {
                Attempt::Stored(table, snapshot) => {
                    if !stale.is_empty() {
                        info!(table = %self.ident, letters = stale.len(), "dead letters taken back: their records were read again, and are none now");
                    }
                    if !lost.is_empty() {
                        info!(table = %self.ident, letters = lost.len(), "dead letters replaced: the topic has lost their records, and others have their offsets");
                    }
                    known.change(snapshot, &missing, &gone);
                    self.seen = Some(*table);
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

    /// Counts the letters of this origin that the table holds at or above `from`; none where there is no table.
    ///
    /// # Errors
    /// [`DeadLetterError::Catalog`] and [`DeadLetterError::Keys`].
    pub async fn count_from(&mut self, from: &Offsets) -> Result<usize, DeadLetterError> {
        let Some(table) = self.load().await? else {
            return Ok(0);
        };
        let known = KnownKeys::read(&table, &self.origin, from, None).await;
        Ok(known.map_err(|source| self.unread(source))?.count())
    }

    fn unread(&self, source: iceberg::Error) -> DeadLetterError {
        DeadLetterError::Keys {
            table: self.ident.clone(),
            source,
        }
    }

    fn failed(&self, source: CatalogError) -> DeadLetterError {
        DeadLetterError::Catalog {
            table: self.ident.clone(),
            source,
        }
    }

    /// Loads the table as it is now; little is read where it is as it was seen last.
    async fn load(&mut self) -> Result<Option<LoadedTable>, DeadLetterError> {
        let loaded = match &self.seen {
            Some(seen) => self.catalog.reload(seen).await,
            None => self.catalog.load(&self.ident).await,
        };
        self.seen = loaded.map_err(|source| self.failed(source))?;
        Ok(self.seen.clone())
    }

    async fn create(&self) -> Result<LoadedTable, DeadLetterError> {
        let schema = columns::schema().map_err(|error| self.failed(CatalogError::Broken(error.to_string())))?;
        let creation = NewTable {
            schema,
            spec: UnboundPartitionSpec::default(),
            properties: creation_properties(BTreeMap::from([MERGE_MANIFESTS.map(str::to_owned).into()])),
            format_version: FormatVersion::V2,
        };
        let created = self.catalog.create(&self.ident, creation).await;
        created.map_err(|source| self.failed(source))
    }

    /// Gives a table of an earlier version the columns that it lacks; `None` if somebody moved it, or nobody knows: look again.
    async fn evolve(
        &self,
        base: &LoadedTable,
        schema: iceberg::Result<Schema>,
    ) -> Result<Option<LoadedTable>, DeadLetterError> {
        let schema = schema.map_err(|error| self.failed(CatalogError::Broken(error.to_string())))?;
        let (requirements, updates) = schema_change(base, schema);
        match self.catalog.swap(base, requirements, updates).await {
            SwapAnswer::Committed(table) => Ok(Some(table)),
            SwapAnswer::Conflict | SwapAnswer::Unknown(_) => Ok(None),
            SwapAnswer::Rejected(source) => Err(self.failed(source)),
        }
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

/// Makes one attempt to change the letters of exactly `base`. Files of an attempt that provably didn't happen are deleted.
async fn attempt(catalog: &Catalog, base: &LoadedTable, letters: &Letters<'_>) -> Result<Attempt, DeadLetterError> {
    let taken_back = TakenBack::find(base, letters.origin, letters.taken_back).await;
    let taken_back = taken_back.map_err(|source| DeadLetterError::Keys {
        table: base.ident.clone(),
        source,
    })?;
    let removed_data = taken_back.paths();
    let added_data = write(base, letters, taken_back).await?;
    let mut files: Vec<String> = added_data.iter().map(|(_, file)| file.file_path().to_owned()).collect();
    let snapshot = fresh_snapshot_id(&base.metadata);
    let change = Change {
        added_data,
        added_deletes: Vec::new(),
        removed_data,
        removed_deletes: BTreeSet::new(),
        summary: BTreeMap::new(),
        properties: HashMap::new(),
        snapshot_id: snapshot,
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
        SwapAnswer::Committed(table) => Ok(Attempt::Stored(Box::new(table), snapshot)),
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
    letters: &Letters<'_>,
    taken_back: TakenBack,
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
    let stem = format!("dead-letters-{}", Uuid::new_v4());
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
    for step in steps(letters.stored, letters_max, bytes_max) {
        let rows = columns::rows(&plan, letters.origin, step).map_err(|error| unsuitable(error.to_string()))?;
        writer = written(writer, rows).await.map_err(failed)?;
    }
    let mut staying = taken_back.rows_that_stay(letters.origin, letters.taken_back);
    let unread = |source| DeadLetterError::Keys {
        table: base.ident.clone(),
        source,
    };
    while let Some(rows) = staying.try_next().await.map_err(unread)? {
        if rows.num_rows() > 0 {
            let rows = columns::planned(&plan, &rows).map_err(|error| unsuitable(error.to_string()))?;
            writer = written(writer, rows).await.map_err(failed)?;
        }
    }
    let files = blocking(move || writer.seal()).await.map_err(failed)?;
    Ok(files.into_iter().map(|file| (spec_id, file)).collect())
}

async fn written(mut writer: WindowWriter, rows: RecordBatch) -> Result<WindowWriter, WriteError> {
    let part = Part {
        value: Struct::empty(),
        path: String::new(),
        rows,
    };
    blocking(move || {
        writer.write(vec![part])?;
        writer.flush_rows(FILE_BYTES_MAX).map(|()| writer)
    })
    .await
}

/// Runs what encodes or waits on a thread that may; a panic there goes on here.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
