//! The effects: what [`Action`](crate::run::Action)s do to foreign systems. No decision is taken here and nothing is
//! retried: what can't be known goes back to the run as such.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::Mutex;
use tracing::warn;

use crate::catalog::stage::{Change, fresh_snapshot_id, stage};
use crate::catalog::{CatalogError, Committed, HiveCatalog, LoadedTable, PublishError, SwapAnswer, ViewError};
use crate::config::OnDecodeError;
use crate::dead_letters::{DeadLetterTable, Origin};
use crate::decode::{DeadLetter, Letters, steps};
use crate::error::{Exit, Failure, chain};
use crate::kafka::producer::{DeadLetterRecord, DeadLetterTopic};
use crate::kill_points::{self, KillPoint, Place};
use crate::offsets::{Offset, OffsetRanges, Offsets, Partition, RecordAt};
use crate::run::Swapped;
use crate::shell::open::{World, ledger_failure};
use crate::shell::wall_clock;
use crate::sync_points::{SyncPoint, SyncPoints};
use crate::table::admit::CommitPlan;
use crate::table::ledger::{self, History, Ledger};

/// How often one publication starts over because other instances published meanwhile; each time means that one of them
/// made progress.
const PUBLISH_ATTEMPTS_MAX: u32 = 10;

/// Letters sent to a topic before their answers are awaited, and their bytes: they are copied for it.
const SEND_MAX: (usize, usize) = (1_000, 8 << 20);
/// Loads the table again. What others committed to one of plain Parquet and didn't publish is published first.
pub(super) async fn load(world: &World, known: &LoadedTable) -> Result<Option<LoadedTable>, CatalogError> {
    if let Some(hive) = world.catalog.hive() {
        match hive.publish().await {
            Err(PublishError::Store(error)) => return Err(error),
            // Whoever publishes next says so, and gives up.
            Err(error @ PublishError::Lost { .. }) => return Err(CatalogError::Broken(error.to_string())),
            Ok(()) => {}
        }
    }
    world.catalog.reload(known).await
}

/// Writes the manifests of a plan on exactly the base it was made for, and swaps once.
pub(super) async fn swap(world: &World, base: LoadedTable, plan: CommitPlan) -> (Swapped, Option<LoadedTable>) {
    if let Some(hive) = world.catalog.hive() {
        return match hive.commit(&base, &plan).await {
            Committed::Yes(table) => committed(table).await,
            Committed::Conflict => (Swapped::Conflict, None),
            Committed::Failed(error) if error.retryable() => (Swapped::Failed(chain(&error)), None),
            Committed::Failed(error) => (Swapped::Rejected(chain(&error)), None),
            Committed::Unknown(why) => (Swapped::Unknown(why), None),
        };
    }
    if base.metadata.uuid() != plan.base_uuid || base.metadata.current_snapshot_id() != plan.base_snapshot {
        return (Swapped::Conflict, None);
    }
    let snapshot_id = fresh_snapshot_id(&base.metadata);
    let change = Change::of(plan, &base.metadata, snapshot_id, wall_clock().0);
    let staged = match stage(&base, change).await {
        Ok(staged) => staged,
        // Nothing was sent to the catalog.
        Err(error) if error.retryable() => return (Swapped::Failed(chain(&error)), None),
        Err(error) => return (Swapped::Rejected(chain(&error)), None),
    };
    kill_points::pass(KillPoint::Inside(Place::ManifestsStaged));
    match world.catalog.swap(&base, staged.requirements, staged.updates).await {
        // No older metadata is asked: the current snapshot is ours and carries the ledger.
        SwapAnswer::Committed(table) => match ledger::view(&table.metadata, &History::default()) {
            Ok(view) => (Swapped::Committed(view), Some(table)),
            Err(problem) => (Swapped::Rejected(problem.to_string()), None),
        },
        SwapAnswer::Conflict => {
            if world.catalog.refusals_are_final() || world.catalog.left_behind(&base, snapshot_id).await {
                base.store.delete_unused(&staged.files).await;
                return (Swapped::Conflict, None);
            }
            // It may be the echo of this very commit, and then the table names the windows' files.
            let why = "it tells of a conflict, and the table doesn't show yet that the commit is not in it";
            (Swapped::Unknown(why.to_owned()), None)
        }
        SwapAnswer::Unknown(error) => (Swapped::Unknown(chain(&error)), None),
        // Sent, and possibly sent once more by a proxy: not as certain as a failure before that.
        SwapAnswer::Rejected(error) if error.retryable() => (Swapped::Unknown(chain(&error)), None),
        SwapAnswer::Rejected(error) => (Swapped::Rejected(chain(&error)), None),
    }
}

/// Reads the offsets that a commit left in a table of plain Parquet.
async fn committed(table: LoadedTable) -> (Swapped, Option<LoadedTable>) {
    match table.view().await {
        Ok(view) => (Swapped::Committed(view), Some(table)),
        Err(problem) => (Swapped::Rejected(problem.to_string()), None),
    }
}

/// Why a publication didn't come to its end.
pub(super) enum Unpublished {
    /// It can be tried again.
    Yet(String),
    /// It never will.
    ForEver(Failure),
}

impl From<Unpublished> for String {
    fn from(why: Unpublished) -> Self {
        match why {
            Unpublished::Yet(why) => why,
            Unpublished::ForEver(failure) => failure.to_string(),
        }
    }
}

impl From<String> for Unpublished {
    fn from(why: String) -> Self {
        Unpublished::Yet(why)
    }
}

/// Shows readers what was committed to a table of plain Parquet.
async fn publish_files(world: &World, hive: &HiveCatalog) -> Result<(), Unpublished> {
    match hive.publish().await {
        Ok(()) => Ok(()),
        Err(PublishError::Store(error)) => Err(Unpublished::Yet(chain(&error))),
        Err(PublishError::Lost { gone, row }) => Err(Unpublished::ForEver(
            Failure::new(Exit::Data, format!("committed rows of table `{}` are gone", world.ident))
                .detail(format!("`{gone}` was committed, and is gone before it was published"))
                .hint(format!(
                    "restore the file; or, to go on without its rows, delete the row `{row}` of this source from sync_points.parquet"
                )),
        )),
    }
}

/// Brings the sync points of one source to the ledger; writes nothing where they agree.
///
/// - returns the sync points that were ahead of the table as it is now: they are overwritten all the same.
///
/// A sync point that is ahead of `ledger` may be that of another instance whose commit is newer than `ledger`. So before
/// any is taken back the table is asked once more, and then nothing is written if the sync points have changed meanwhile.
pub(super) async fn publish(world: &World, points: &SyncPoints, ledger: &Ledger) -> Result<Vec<Ahead>, Unpublished> {
    if let Some(hive) = world.catalog.hive() {
        // The sync points are the record itself.
        return publish_files(world, hive).await.map(|()| Vec::new());
    }
    let source_name = &world.pipeline.name;
    for _ in 0..PUBLISH_ATTEMPTS_MAX {
        let mut held = points.read().await.map_err(|error| chain(&error))?;
        held.retain(|row| row.source_name == *source_name);
        let mut offsets = ledger.offsets.clone();
        let mut ahead = ahead_of(&offsets, &held);
        if !ahead.is_empty() {
            offsets = fresh_ledger(world)
                .await?
                .ok_or_else(|| "the table carries no offsets any more".to_owned())?
                .offsets;
            ahead = ahead_of(&offsets, &held);
        }
        let committed_at_us = wall_clock().0 * 1_000;
        let rows: Vec<_> = offsets
            .iter()
            .map(|(partition, offset)| SyncPoint {
                source_name: source_name.clone(),
                sync_key: sync_key(partition),
                sync_value: offset.to_string(),
                committed_at_us,
            })
            .collect();
        let agree = rows.len() == held.len()
            && rows.iter().all(|row| {
                held.iter()
                    .any(|other| (&other.sync_key, &other.sync_value) == (&row.sync_key, &row.sync_value))
            });
        if agree
            || points
                .replace(source_name, &held, rows)
                .await
                .map_err(|error| chain(&error))?
        {
            return Ok(ahead);
        }
    }
    Err(Unpublished::Yet(
        "other instances keep changing this table's sync points".to_owned(),
    ))
}

/// Loads the ledger that the table carries now, if it carries one.
async fn fresh_ledger(world: &World) -> Result<Option<Ledger>, Unpublished> {
    let table = world.catalog.load(&world.ident).await.map_err(|error| chain(&error))?;
    let table = table.ok_or_else(|| format!("table `{}` is gone", world.ident))?;
    match table.view().await {
        Ok(view) => Ok(view.ledger),
        Err(ViewError::Catalog(error)) => Err(chain(&error).into()),
        // Nor does a load get on with this.
        Err(ViewError::Ledger(problem)) => Err(Unpublished::ForEver(ledger_failure(&world.ident, &problem))),
    }
}

/// The key of a partition's sync point.
fn sync_key(partition: Partition) -> String {
    format!("partition:{partition}")
}

/// A sync point that names a later offset than the table holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ahead {
    pub partition: String,
    pub sync_point: i64,
    /// What the table holds; `None` if it doesn't know the partition.
    pub table: Option<i64>,
}

/// Finds the sync points that are ahead of the table. What isn't an offset of a partition can't be compared.
fn ahead_of(offsets: &Offsets, held: &[SyncPoint]) -> Vec<Ahead> {
    let compare = |row: &SyncPoint| {
        let partition = row.sync_key.strip_prefix("partition:")?.parse().ok()?;
        let sync_point = row.sync_value.parse().ok()?;
        let table = offsets.get(Partition(partition)).map(Offset::get);
        table.is_none_or(|table| table < sync_point).then(|| Ahead {
            partition: partition.to_string(),
            sync_point,
            table,
        })
    };
    held.iter().filter_map(compare).collect()
}

/// Why a window isn't ready for its commit.
pub(super) enum Unprepared {
    /// It can be tried again.
    Yet(String),
    /// A person must act.
    ForEver(Failure),
}

/// Where rejects go, by `errors.onDecodeError`.
pub(super) struct Aside {
    topic: Option<DeadLetterTopic>,
    // A mutex, since the table's known keys are shared by preparations, which follow one another.
    table: Option<Mutex<DeadLetterTable>>,
}

impl Aside {
    pub fn open(world: &World, origin: Origin) -> Result<Aside, Failure> {
        let OnDecodeError::DeadLetter { topic, table } = &world.pipeline.errors.on_decode_error else {
            return Ok(Aside {
                topic: None,
                table: None,
            });
        };
        let source = &world.pipeline.source;
        let topic = match topic {
            None => None,
            Some(topic) => Some(
                DeadLetterTopic::new(&source.brokers, topic, &source.client)
                    .map_err(|error| error.failure(&source.brokers, topic))?,
            ),
        };
        let table = table.as_ref().map(|name| Mutex::new(world.dead_letters(name, origin)));
        Ok(Aside { topic, table })
    }

    /// Stores the letters of windows; in the table each once, in the topic at least once.
    ///
    /// - `ledger`: the main table's offsets; `ranges`: what the windows have read beyond.
    /// - returns the records whose letters are to be taken back once the windows are committed.
    pub async fn store(
        &self,
        ledger: &Offsets,
        ranges: &OffsetRanges,
        windows: &[Arc<Letters>],
    ) -> Result<BTreeSet<RecordAt>, Unprepared> {
        let letters: Vec<&DeadLetter> = windows.iter().flat_map(|letters| letters.all()).collect();
        let mut stale = BTreeSet::new();
        if let Some(table) = &self.table {
            let stored = table.lock().await.store(ledger, ranges, &letters).await;
            let stored = stored.map_err(|error| {
                if error.retryable() {
                    return Unprepared::Yet(chain(&error));
                }
                let failure = Failure::new(Exit::Config, "dead letters can't be stored").detail(chain(&error));
                Unprepared::ForEver(failure.hint(
                    "nothing of the window was stored. Name another table in `errors.deadLetter.table`, or alter this one, then run again",
                ))
            })?;
            stale = stored.stale;
        }
        if letters.is_empty() {
            return Ok(stale);
        }
        kill_points::pass(KillPoint::Inside(Place::LettersStored));
        if let Some(topic) = &self.topic {
            let (letters_max, bytes_max) = SEND_MAX;
            for step in steps(&letters, letters_max, bytes_max) {
                let records: Vec<_> = step.iter().copied().map(record).collect();
                topic
                    .send(&records)
                    .await
                    .map_err(|error| Unprepared::Yet(chain(&error)))?;
            }
        }
        Ok(stale)
    }

    /// Takes back the letters of records that a ledger names and the table has committed otherwise; returns those for which that
    /// was done. What can't be done is told: the commit stands all the same, and its ledger tells the next one.
    ///
    /// The table is asked once more: where others have undone the commit meanwhile, another run may commit what the letters are
    /// of.
    pub async fn take_back(&self, world: &World, mut stale: BTreeSet<RecordAt>) -> BTreeSet<RecordAt> {
        let Some(table) = self.table.as_ref().filter(|_| !stale.is_empty()) else {
            return BTreeSet::new();
        };
        let named = match fresh_ledger(world).await {
            Ok(ledger) => ledger.map(|ledger| ledger.stale_letters).unwrap_or_default(),
            Err(error) => {
                tell_left(&String::from(error), &stale);
                return BTreeSet::new();
            }
        };
        stale.retain(|at| named.contains(at));
        if stale.is_empty() {
            return stale;
        }
        match table.lock().await.take_back(&stale).await {
            Ok(()) => stale,
            Err(error) => {
                tell_left(&chain(&error), &stale);
                BTreeSet::new()
            }
        }
    }
}

fn tell_left(error: &str, stale: &BTreeSet<RecordAt>) {
    let letters = stale.len();
    warn!(
        error,
        letters, "dead letters of records that are rows now are left; the next commit or run takes them back"
    );
}

fn record(letter: &DeadLetter) -> DeadLetterRecord {
    let header = |name: &str, value: String| (format!("aperio.{name}"), value);
    DeadLetterRecord {
        key: letter.key.clone(),
        value: letter.value.clone(),
        headers: letter.headers.clone(),
        error_headers: vec![
            header("topic", letter.topic.clone()),
            header("partition", letter.partition.to_string()),
            header("offset", letter.offset.to_string()),
            header(
                "timestamp",
                letter.timestamp_ms.map(|ms| ms.to_string()).unwrap_or_default(),
            ),
            header("stage", letter.stage.to_owned()),
            header("error", letter.error.clone()),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(key: &str, value: &str, expect: Option<(i64, Option<i64>)>) {
        let offsets = [(Partition(0), Offset::new(10))].into_iter().collect();
        let held = [SyncPoint {
            source_name: "events".into(),
            sync_key: key.into(),
            sync_value: value.into(),
            committed_at_us: 0,
        }];
        let found: Vec<_> = ahead_of(&offsets, &held)
            .iter()
            .map(|ahead| (ahead.sync_point, ahead.table))
            .collect();
        assert_eq!(found, expect.into_iter().collect::<Vec<_>>(), "{key} = {value}");
    }

    #[test]
    fn a_sync_point_is_ahead_of_the_table_or_it_is_not() {
        check("partition:0", "9", None);
        check("partition:0", "10", None);
        check("partition:0", "11", Some((11, Some(10))));
        check("partition:7", "0", Some((0, None)));
        check("partition:0", "2024-01-01", None);
        check("since", "11", None);
    }
}
