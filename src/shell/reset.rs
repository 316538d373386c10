//! `sync-points reset`: works out what moving a table's offsets does, and does it in one commit that adds no rows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::{LoadedTable, ViewError};
use crate::config::{OnDecodeError, Pipeline};
use crate::error::{Exit, Failure, chain};
use crate::offsets::{Offset, Offsets, Partition};
use crate::run::Swapped;
use crate::shell::open::{Clients, World, catalog_failure, ledger_failure};
use crate::shell::perform;
use crate::table::admit::reset::{Reset, ResetRefusal, Wish, admit_reset, reset};
use crate::table::admit::{self, Source};
use crate::table::ledger::{self, Ledger, LedgerProblem};
use crate::table::{TableView, admit::source_of};
use crate::units::Millis;

/// The wait before the table is asked what became of a commit without an answer.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Where partitions are moved to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The first record that the topic still holds.
    Earliest,
    /// The topic's end.
    Latest,
    /// The first record at or after this time.
    Timestamp(Millis),
    /// This offset, of one partition.
    Offset(Offset),
    /// What this consumer group has committed.
    Group(String),
}

/// A reset that was worked out and not done.
pub struct Preview {
    world: World,
    base: LoadedTable,
    view: TableView,
    /// What it does.
    pub reset: Reset,
    /// The topic that the table's offsets are of, where that isn't the one that is there.
    pub other_source: Option<Source>,
    /// The topic that is there.
    pub source: Source,
    /// Why the table's offsets aren't known, if that is so.
    pub problem: Option<LedgerProblem>,
    /// Members that the pipeline's group has now; `None` if nobody could tell.
    pub members: Option<usize>,
}

impl Preview {
    /// Works out what moving `partitions` (all, if there are none) to `target` does. Nothing is changed.
    ///
    /// # Errors
    /// What can't be reached: exit code 4. What the wish doesn't fit: 2. A ledger of a newer program: 3.
    pub async fn make(
        pipeline: Pipeline,
        target: &Target,
        partitions: &[Partition],
        retry_for: Millis,
    ) -> Result<Preview, Failure> {
        let world = World::new(pipeline, retry_for, &Clients::default())?;
        let Some(base) = world.load().await? else {
            return Err(
                Failure::new(Exit::Config, format!("table `{}` doesn't exist", world.ident))
                    .detail("there are no offsets to move before the first run")
                    .hint("`source.startOffset` says where the first run starts"),
            );
        };
        let (view, problem) = known(&world, &base).await?;
        let topic = world.topic().await?;
        let ends = world.high_watermarks().await?;
        let to = chosen(&world, target, partitions, &topic.beginnings, &ends).await?;
        let held = view.ledger.as_ref();
        let other_source = held
            .filter(|ledger| !admit::same_source(ledger, &topic.source))
            .map(source_of);
        let diverged = match held.filter(|_| other_source.is_none()) {
            Some(ledger) => world.diverged(ledger, &topic).await?,
            None => BTreeMap::new(),
        };
        let diverged = diverged.into_iter().map(|(partition, same)| {
            let same = same.or(topic.beginnings.get(partition));
            (partition, same.unwrap_or(Offset::ZERO))
        });
        let wish = Wish {
            diverged: diverged.collect(),
            source: topic.source.clone(),
            beginnings: topic.beginnings,
            ends,
            to,
        };
        let reset = reset(held, &wish).map_err(|refusal| refused(&world, &refusal, problem.is_some()))?;
        letters_stay_unambiguous(&world, &base, &wish, held, &reset.ledger).await?;
        let members = world.group_members().await;
        Ok(Preview {
            world,
            base,
            view,
            reset,
            other_source,
            source: topic.source,
            problem,
            members,
        })
    }

    /// Says whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.reset.moves.is_empty() && !self.reset.starts_over && self.view.ledger.as_ref() == Some(&self.reset.ledger)
    }

    /// Does it, if the table still is what the preview was made of; returns the snapshot that it made.
    ///
    /// # Errors
    /// Exit code 4: the table moved meanwhile or the catalog failed, and nothing was changed, or nobody knows; also where the
    /// offsets were moved and their copies weren't, which the next run mends.
    pub async fn commit(self) -> Result<Option<i64>, Failure> {
        let world = &self.world;
        let Some(fresh) = world.load().await? else {
            return Err(moved(world, "it is gone"));
        };
        let (ledger, before) = (self.reset.ledger.clone(), self.base.metadata.current_snapshot_id());
        let plan = admit::plan(admit_reset(self.view, self.reset));
        let snapshot = match perform::swap(world, fresh, plan).await {
            (Swapped::Committed(view), _) => view.snapshot,
            (Swapped::Conflict, _) => return Err(moved(world, "another commit came first")),
            (Swapped::Failed(error) | Swapped::Rejected(error), _) => {
                let what = format!("the offsets of table `{}` can't be moved", world.ident);
                return Err(Failure::new(Exit::Remote, what)
                    .detail(error)
                    .hint("nothing was changed; run it again when the catalog is well"));
            }
            (Swapped::Unknown(error), _) => {
                tokio::time::sleep(ASK_AGAIN).await;
                let now = match world.load().await? {
                    Some(table) => known(world, &table).await?.0,
                    None => return Err(moved(world, "it is gone")),
                };
                if now.snapshot == before || now.ledger.as_ref() != Some(&ledger) {
                    let what = format!(
                        "it isn't known whether the offsets of table `{}` were moved",
                        world.ident
                    );
                    return Err(Failure::new(Exit::Remote, what)
                        .detail(error)
                        .hint("`aperio status` shows what the table holds; if it wasn't done, run it again"));
                }
                now.snapshot
            }
        };
        let points = world
            .sync_points(Some(&self.base))?
            .expect("the table's location is known");
        match perform::publish(world, &points, &ledger).await {
            Ok(_) => Ok(snapshot),
            Err(error) => {
                let what = format!(
                    "the offsets of table `{}` were moved, but sync_points wasn't brought to them",
                    world.ident
                );
                Err(Failure::new(Exit::Remote, what)
                    .detail(error)
                    .hint("nothing is wrong with the table; the next run brings sync_points to it"))
            }
        }
    }
}

/// The view of a table whose offsets may be unknown, and why they are.
async fn known(world: &World, table: &LoadedTable) -> Result<(TableView, Option<LedgerProblem>), Failure> {
    match table.view().await {
        Ok(view) => Ok((view, None)),
        // What a newer program wrote isn't ours to write over.
        Err(ViewError::Ledger(problem @ LedgerProblem::Unreadable { .. })) => {
            Err(ledger_failure(&world.ident, &problem))
        }
        Err(ViewError::Ledger(problem)) => {
            let view = TableView {
                uuid: table.metadata.uuid(),
                snapshot: table.metadata.current_snapshot_id(),
                sequence: table.metadata.last_sequence_number(),
                ledger: None,
                ledger_at: None,
                layout: Arc::new(ledger::layout(&table.metadata)),
            };
            Ok((view, Some(problem)))
        }
        Err(ViewError::Catalog(error)) => Err(catalog_failure(&world.pipeline.catalog, &error)),
    }
}

/// Finds the offset of each partition that is to be moved.
async fn chosen(
    world: &World,
    target: &Target,
    partitions: &[Partition],
    beginnings: &Offsets,
    ends: &Offsets,
) -> Result<Offsets, Failure> {
    let topic = &world.pipeline.source.topic;
    let found = match target {
        Target::Earliest => beginnings.clone(),
        Target::Latest => world.ends().await?,
        Target::Timestamp(time) => world.offsets_at(*time).await?,
        Target::Offset(offset) => ends.partitions().map(|partition| (partition, *offset)).collect(),
        Target::Group(group) => world.group_offsets(group.clone()).await?,
    };
    if matches!(target, Target::Offset(_)) && partitions.is_empty() && ends.len() > 1 {
        let what = format!("an offset means one partition, and topic `{topic}` has {}", ends.len());
        return Err(Failure::new(Exit::Config, what).hint("say which with `--partition`"));
    }
    let wanted: Vec<_> = match partitions {
        [] => ends.partitions().collect(),
        some => some.to_vec(),
    };
    let place = |partition: Partition| {
        let offset = found.get(partition);
        // That the topic has no such partition is told by what knows all of them.
        offset
            .or_else(|| ends.get(partition).is_none().then_some(Offset::ZERO))
            .ok_or_else(|| {
                let Target::Group(group) = target else {
                    return Failure::new(
                        Exit::Remote,
                        format!("nobody says where partition {partition} of `{topic}` is"),
                    );
                };
                Failure::new(
                    Exit::Config,
                    format!("group `{group}` holds no offset of {topic}/{partition}"),
                )
                .hint("name the partitions that it holds with `--partition`, or another group")
            })
    };
    wanted
        .into_iter()
        .map(|partition| Ok((partition, place(partition)?)))
        .collect()
}

fn refused(world: &World, refusal: &ResetRefusal, unknown: bool) -> Failure {
    let topic = &world.pipeline.source.topic;
    match refusal {
        ResetRefusal::NoPartition(partition) => {
            Failure::new(Exit::Config, format!("topic `{topic}` has no partition {partition}"))
                .hint("`aperio status` lists its partitions")
        }
        ResetRefusal::OutOfRange {
            partition,
            to,
            beginning,
            end,
        } => Failure::new(
            Exit::Config,
            format!("{topic}/{partition} can't be read from offset {to}"),
        )
        .detail(format!("the topic begins at {beginning} and ends at {end}"))
        .hint("choose an offset between them, or `--to earliest` or `latest`"),
        ResetRefusal::Partly(left) => {
            let left: Vec<_> = left.iter().map(ToString::to_string).collect();
            let why = if unknown {
                "aren't known"
            } else {
                "are those of another topic"
            };
            Failure::new(
                Exit::Config,
                format!(
                    "the offsets of table `{}` {why}: all partitions must be moved at once",
                    world.ident
                ),
            )
            .detail(format!("partition {} isn't", left.join(", ")))
            .hint("leave `--partition` out")
        }
    }
}

/// Where a topic gives offsets out again without becoming another one, its log was cut, a letter of the records that were
/// there would make room for one of those that are there now, and nothing would tell of its record: then nothing is moved.
///
/// A topic that was made anew has an id of its own, and so have its letters.
async fn letters_stay_unambiguous(
    world: &World,
    base: &LoadedTable,
    wish: &Wish,
    held: Option<&Ledger>,
    ledger: &Ledger,
) -> Result<(), Failure> {
    let cut = |partition: Partition| {
        let held = held.and_then(|ledger| ledger.offsets.get(partition));
        let beyond = held.is_some_and(|held| wish.ends.get(partition).is_none_or(|end| held > end));
        beyond || wish.diverged.get(partition).is_some()
    };
    let again: Offsets = ledger.offsets.iter().filter(|(partition, _)| cut(*partition)).collect();
    let OnDecodeError::DeadLetter { table: Some(name), .. } = &world.pipeline.errors.on_decode_error else {
        return Ok(());
    };
    if again.is_empty() {
        return Ok(());
    }
    let mut source = wish.source.clone();
    if let Some(held) = held.filter(|held| admit::same_source(held, &source)) {
        source.know(&source_of(held));
    }
    let mut letters = world.dead_letters(name, world.origin(base, &source));
    let count = letters.count_from(&again).await.map_err(|error| {
        Failure::new(Exit::Remote, format!("the dead letters in `{name}` can't be looked at"))
            .detail(chain(&error))
            .hint("nothing was changed; run it again")
    })?;
    if count == 0 {
        return Ok(());
    }
    let what = format!("`{name}` holds {count} dead letters of other records at offsets that would be read");
    Err(Failure::new(Exit::Config, what)
        .detail("the topic gives offsets out again: a new dead letter at such an offset would take the place of the one that is stored")
        .hint("nothing was changed; name another `errors.deadLetter.table`, or rename this one, then run it again"))
}

fn moved(world: &World, how: &str) -> Failure {
    Failure::new(
        Exit::Remote,
        format!("table `{}` has moved since the preview", world.ident),
    )
    .detail(format!("{how}; nothing was changed"))
    .hint("run it again, and look at the new preview")
}
