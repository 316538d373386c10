//! Admission and the plan of a commit: may these windows be added to this view of the table, and if so, how exactly.

pub mod reset;

use uuid::Uuid;

use crate::offsets::{Offset, Offsets, Partition};
use crate::table::ledger::Ledger;
use crate::table::{SealedWindow, TableView, WindowFile, WindowId, fits};
use crate::units::Millis;

/// How old the newest snapshot that carries the ledger may become: younger than what others' expiry removes by default,
/// which is 5 days. Source: Iceberg 1.12 `TableProperties.java`, `history.expire.max-snapshot-age-ms`.
const LEDGER_AGE_MAX: Millis = Millis(24 * 60 * 60 * 1000);

/// What identifies the topic that a run reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The topic's name.
    pub topic: String,
    /// The topic's id, if the broker tells.
    pub topic_id: Option<String>,
    /// The cluster's id, if the broker tells.
    pub cluster_id: Option<String>,
}

/// Why windows may not be added to the table as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// They are in it already: the answer to our swap was lost. A success.
    AlreadyCommitted(WindowId),
    /// Another run has committed these offsets.
    Overtaken {
        /// Where.
        partition: Partition,
        /// What the table holds.
        ledger: Offset,
        /// Where the window starts.
        start: Offset,
    },
    /// The table is behind the window: rolled back, or never told of this partition.
    Gap {
        /// Where.
        partition: Partition,
        /// What the table holds.
        ledger: Option<Offset>,
        /// Where the window starts.
        start: Offset,
    },
    /// The table's columns or partitions aren't those any more that the window's files were written for.
    SchemaMoved {
        /// The window.
        window: WindowId,
        /// What was changed, for a person.
        change: String,
    },
    /// The table carries no offsets any more, or those of another topic.
    OtherSource {
        /// What the table's ledger names; `None` if it has none.
        ledger: Option<Source>,
    },
}

/// Permission to commit to exactly one view of the table. Only [`admit`], [`admit_start`],
/// [`admit_renewal`] and [`reset::admit_reset`] make one.
#[derive(Debug)]
pub struct Admitted {
    base: TableView,
    windows: Vec<SealedWindow>,
    ledger: Ledger,
}

/// A commit with no choices left: what to write, and the snapshot that it is pinned to.
#[derive(Debug, Clone)]
pub struct CommitPlan {
    /// The table that the plan was made for.
    pub base_uuid: Uuid,
    /// The snapshot that `main` must still point at.
    pub base_snapshot: Option<i64>,
    /// The files to add.
    pub files: Vec<WindowFile>,
    /// The ledger as it is after the commit.
    pub ledger: Ledger,
    /// The windows that it adds, in order; empty when it only moves the ledger.
    pub windows: Vec<WindowId>,
}

/// May these windows, in this order, be added to this view of the table?
///
/// # Errors
/// [`Refusal`], for the first partition that doesn't fit. Nothing is decided about the others.
///
/// # Panics
/// If a window's files don't hold the rows that its tally counts.
pub fn admit(base: TableView, source: &Source, windows: Vec<SealedWindow>) -> Result<Admitted, Refusal> {
    let last = windows.last().expect("a commit of windows has at least one").id;
    let mut ledger = match &base.ledger {
        Some(ledger) if same_source(ledger, source) => ledger.clone(),
        found => {
            return Err(Refusal::OtherSource {
                ledger: found.as_ref().map(source_of),
            });
        }
    };
    if windows.iter().all(|window| holds(&ledger, window)) {
        return Err(Refusal::AlreadyCommitted(last));
    }
    for window in &windows {
        window.tally.assert_complete();
        let rows: u64 = window.files.iter().map(|file| file.file.record_count()).sum();
        assert_eq!(
            rows, window.tally.rows,
            "the files of window {} hold the rows that it counted",
            window.id
        );
        ledger
            .offsets
            .advance(&window.ranges)
            .map_err(|found| match found.held {
                Some(held) if held > found.start => Refusal::Overtaken {
                    partition: found.partition,
                    ledger: held,
                    start: found.start,
                },
                held => Refusal::Gap {
                    partition: found.partition,
                    ledger: held,
                    start: found.start,
                },
            })?;
        for (partition, range) in window.ranges.iter() {
            ledger.windows.insert(partition, window.id);
            match range.leader_epoch() {
                Some(epoch) => ledger.leader_epochs.insert(partition, epoch),
                // That of an earlier offset would refuse a log that is whole.
                None => ledger.leader_epochs.remove(&partition),
            };
        }
        for (partition, time) in &window.event_times {
            let greatest = ledger.event_times.entry(*partition).or_insert(*time);
            *greatest = (*greatest).max(*time);
        }
    }
    // Last: what was overtaken is read again anyway.
    match windows.iter().find_map(|window| moved(&base, window)) {
        Some(refusal) => Err(refusal),
        None => Ok(Admitted { base, windows, ledger }),
    }
}

/// Says what others changed of the table so that the files of `window` can't be added as they are.
fn moved(base: &TableView, window: &SealedWindow) -> Option<Refusal> {
    let spec = window
        .files
        .iter()
        .map(|file| file.spec_id)
        .find(|id| !base.layout.specs.contains(id));
    let change = match spec {
        Some(spec) => Some(format!("partition spec {spec} is gone, or a column that it is made of")),
        None => window
            .schemas
            .iter()
            .find_map(|schema| fits::hindrance(schema, &base.layout.schema)),
    };
    change.map(|change| Refusal::SchemaMoved {
        window: window.id,
        change,
    })
}

/// May these partitions start where the first look at the topic put them? Those that the table knows already stay
/// where they are.
///
/// # Errors
/// [`Refusal::OtherSource`] if the table holds the offsets of another topic; `Ok(None)` if there is nothing to add.
pub fn admit_start(base: TableView, source: &Source, starts: &Offsets) -> Result<Option<Admitted>, Refusal> {
    let mut ledger = match &base.ledger {
        Some(ledger) if same_source(ledger, source) => ledger.clone(),
        Some(ledger) => {
            return Err(Refusal::OtherSource {
                ledger: Some(source_of(ledger)),
            });
        }
        None => Ledger::new(source.topic.clone(), source.topic_id.clone(), source.cluster_id.clone()),
    };
    let missing: Vec<_> = starts
        .iter()
        .filter(|(partition, _)| ledger.offsets.get(*partition).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(None);
    }
    for (partition, offset) in missing {
        ledger.offsets.set(partition, offset);
    }
    Ok(Some(Admitted {
        base,
        windows: Vec::new(),
        ledger,
    }))
}

/// May the ledger be written once more as it is? `Ok(None)` if a snapshot that carries it is [young enough](renewal_due).
///
/// # Errors
/// [`Refusal::OtherSource`] if the table holds the offsets of another topic, or none.
pub fn admit_renewal(base: TableView, source: &Source, now: Millis) -> Result<Option<Admitted>, Refusal> {
    match &base.ledger {
        Some(ledger) if same_source(ledger, source) => {
            let ledger = ledger.clone();
            Ok(renewal_due(base.ledger_at, now).then_some(Admitted {
                base,
                windows: Vec::new(),
                ledger,
            }))
        }
        found => Err(Refusal::OtherSource {
            ledger: found.as_ref().map(source_of),
        }),
    }
}

/// Says whether the newest snapshot that carries the ledger is older than a day, or has expired, so that an empty one
/// should follow: a table whose quiet pipeline it outlives would be left with an unproven property.
///
/// - `ledger_at`: see [`TableView::ledger_at`], of a table that has a ledger.
pub fn renewal_due(ledger_at: Option<Millis>, now: Millis) -> bool {
    ledger_at.is_none_or(|at| now.since(at) > LEDGER_AGE_MAX)
}

/// Turns permission into a plan, pinned to the snapshot that admission saw.
pub fn plan(admitted: Admitted) -> CommitPlan {
    let Admitted { base, windows, ledger } = admitted;
    let ids = windows.iter().map(|window| window.id).collect();
    CommitPlan {
        base_uuid: base.uuid,
        base_snapshot: base.snapshot,
        files: windows.into_iter().flat_map(|window| window.files).collect(),
        ledger,
        windows: ids,
    }
}

/// Says whether the ledger shows that `window` was committed: each of its partitions was last moved by it, or by a later
/// window of the same run. Windows of a run commit in order and a dropped one is never tried again, so a later one in
/// the table proves this one.
fn holds(ledger: &Ledger, window: &SealedWindow) -> bool {
    window.ranges.iter().all(|(partition, range)| {
        let moved_by = ledger.windows.get(&partition);
        moved_by.is_some_and(|last| last.run == window.id.run && last.sequence >= window.id.sequence)
            && ledger
                .offsets
                .get(partition)
                .is_some_and(|offset| offset >= range.end())
    })
}

/// Says whether the ledger is that of this topic. An id that one side doesn't know can't tell two topics apart; names
/// always can.
pub fn same_source(ledger: &Ledger, source: &Source) -> bool {
    let agree = |a: &Option<String>, b: &Option<String>| a.is_none() || b.is_none() || a == b;
    ledger.topic == source.topic
        && agree(&ledger.topic_id, &source.topic_id)
        && agree(&ledger.cluster_id, &source.cluster_id)
}

impl Source {
    /// Takes over the ids that the broker doesn't tell today: what goes by them stays what it was.
    ///
    /// - `before`: the same topic, see [`same_source`].
    pub fn know(&mut self, before: &Source) {
        let Source {
            topic_id, cluster_id, ..
        } = before;
        self.topic_id = self.topic_id.take().or_else(|| topic_id.clone());
        self.cluster_id = self.cluster_id.take().or_else(|| cluster_id.clone());
    }
}

/// Returns the topic that the ledger's offsets are offsets of.
pub fn source_of(ledger: &Ledger) -> Source {
    Source {
        topic: ledger.topic.clone(),
        topic_id: ledger.topic_id.clone(),
        cluster_id: ledger.cluster_id.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use iceberg::spec::{
        DataContentType, DataFileBuilder, DataFileFormat, NestedField, PrimitiveType, Schema, SchemaRef, Struct, Type,
    };

    use super::*;
    use crate::offsets::{LeaderEpoch, OffsetRange, Position};
    use crate::table::{Layout, Tally};

    const RUN: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);

    fn source() -> Source {
        Source {
            topic: "t".into(),
            topic_id: Some("id".into()),
            cluster_id: None,
        }
    }

    fn table(offset: i64, moved_by: Option<WindowId>) -> TableView {
        let ledger = Ledger {
            topic: "t".into(),
            topic_id: Some("id".into()),
            cluster_id: None,
            offsets: [(Partition(0), Offset::new(offset))].into_iter().collect(),
            windows: moved_by.map(|id| (Partition(0), id)).into_iter().collect(),
            event_times: BTreeMap::new(),
            leader_epochs: BTreeMap::new(),
            stale_letters: BTreeSet::new(),
        };
        TableView {
            uuid: Uuid::from_u128(9),
            snapshot: Some(4),
            sequence: 4,
            ledger: Some(ledger),
            ledger_at: Some(Millis(1_000)),
            layout: layout("a"),
        }
    }

    fn window(sequence: u64, start: i64, end: i64) -> SealedWindow {
        let range = OffsetRange::new(Offset::new(start), Offset::new(end));
        SealedWindow {
            id: WindowId { run: RUN, sequence },
            ranges: [(Partition(0), range)].into_iter().collect(),
            files: Vec::new(),
            tally: Tally::default(),
            event_times: BTreeMap::new(),
            schemas: vec![schema("a")],
        }
    }

    fn layout(column: &str) -> Arc<Layout> {
        Arc::new(Layout {
            schema: schema(column),
            specs: [0].into(),
        })
    }

    fn schema(column: &str) -> SchemaRef {
        let field = NestedField::optional(1, column, Type::Primitive(PrimitiveType::Long));
        Arc::new(
            Schema::builder()
                .with_fields([Arc::new(field)])
                .build()
                .expect("a schema"),
        )
    }

    fn check(base: TableView, windows: Vec<SealedWindow>, expect: Result<i64, Refusal>) {
        let answer = admit(base, &source(), windows).map(|admitted| {
            plan(admitted)
                .ledger
                .offsets
                .get(Partition(0))
                .expect("partition 0 is known")
                .get()
        });
        assert_eq!(answer, expect);
    }

    #[test]
    fn a_window_is_admitted_only_where_the_table_stands() {
        check(table(10, None), vec![window(0, 10, 15)], Ok(15));
        let overtaken = Refusal::Overtaken {
            partition: Partition(0),
            ledger: Offset::new(11),
            start: Offset::new(10),
        };
        check(
            table(
                11,
                Some(WindowId {
                    run: OTHER,
                    sequence: 0,
                }),
            ),
            vec![window(0, 10, 15)],
            Err(overtaken),
        );
        let gap = Refusal::Gap {
            partition: Partition(0),
            ledger: Some(Offset::new(9)),
            start: Offset::new(10),
        };
        check(table(9, None), vec![window(0, 10, 15)], Err(gap));
    }

    #[test]
    fn a_lost_answer_is_recognised_for_one_window_and_for_several() {
        let committed = table(20, Some(WindowId { run: RUN, sequence: 1 }));
        let id = WindowId { run: RUN, sequence: 1 };
        check(
            committed.clone(),
            vec![window(1, 15, 20)],
            Err(Refusal::AlreadyCommitted(id)),
        );
        check(
            committed,
            vec![window(0, 10, 15), window(1, 15, 20)],
            Err(Refusal::AlreadyCommitted(id)),
        );
    }

    #[test]
    fn neither_a_namesake_of_another_run_nor_a_ledger_short_of_its_end_proves_a_window() {
        let check = |held: i64, run: Uuid| {
            let overtaken = Refusal::Overtaken {
                partition: Partition(0),
                ledger: Offset::new(held),
                start: Offset::new(15),
            };
            let moved_by = WindowId { run, sequence: 1 };
            check(table(held, Some(moved_by)), vec![window(1, 15, 20)], Err(overtaken));
        };
        check(20, OTHER);
        check(19, RUN);
    }

    #[test]
    fn windows_sealed_together_are_admitted_in_order() {
        check(table(10, None), vec![window(0, 10, 15), window(1, 15, 20)], Ok(20));
        let gap = Refusal::Gap {
            partition: Partition(0),
            ledger: Some(Offset::new(15)),
            start: Offset::new(16),
        };
        check(table(10, None), vec![window(0, 10, 15), window(1, 16, 20)], Err(gap));
    }

    #[test]
    fn a_window_of_other_columns_or_of_a_lost_spec_is_refused_unless_it_is_late_anyway() {
        let moved = |change: &str| Refusal::SchemaMoved {
            window: WindowId { run: RUN, sequence: 0 },
            change: change.to_owned(),
        };
        let renamed = TableView {
            layout: layout("b"),
            ..table(10, None)
        };
        let change = moved("column `a` was renamed to `b`");
        check(renamed.clone(), vec![window(0, 10, 15)], Err(change.clone()));
        // The second of two schemas is the one that fits.
        let mut changed = window(0, 10, 15);
        changed.schemas.push(schema("b"));
        check(renamed.clone(), vec![changed], Err(change));
        let mut unknown = window(0, 10, 15);
        unknown.schemas.clear();
        check(renamed.clone(), vec![unknown], Ok(15));
        let gap = Refusal::Gap {
            partition: Partition(0),
            ledger: Some(Offset::new(10)),
            start: Offset::new(11),
        };
        check(renamed, vec![window(0, 11, 15)], Err(gap));

        let of_spec = |spec_id: i32| {
            let file = DataFileBuilder::default()
                .content(DataContentType::Data)
                .file_path("f".to_owned())
                .file_format(DataFileFormat::Parquet)
                .partition(Struct::empty())
                .partition_spec_id(spec_id)
                .record_count(0)
                .file_size_in_bytes(1)
                .build()
                .expect("a file");
            let mut window = window(0, 10, 15);
            window.files.push(WindowFile { spec_id, file });
            window
        };
        check(table(10, None), vec![of_spec(0)], Ok(15));
        let change = moved("partition spec 1 is gone, or a column that it is made of");
        check(table(10, None), vec![of_spec(1)], Err(change));
    }

    #[test]
    fn the_ledger_holds_the_leader_epoch_of_the_last_record_and_none_where_that_is_unknown() {
        let read = |epochs: [Option<i32>; 2]| {
            let range = |start: i64, epoch: Option<i32>| {
                let range = OffsetRange::new(Offset::new(start), Offset::new(start + 5));
                range.under(epoch.map(LeaderEpoch))
            };
            let mut window = window(0, 10, 15);
            window.ranges = [(Partition(0), range(10, epochs[0]))].into_iter().collect();
            window
                .ranges
                .extend(Partition(0), range(15, epochs[1]))
                .expect("it follows");
            let plan = plan(admit(table(10, None), &source(), vec![window]).expect("admitted"));
            plan.ledger.position(Partition(0)).expect("it was moved")
        };
        let at = |leader_epoch: Option<i32>| Position {
            offset: Offset::new(20),
            leader_epoch: leader_epoch.map(LeaderEpoch),
        };
        assert_eq!(read([Some(3), Some(4)]), at(Some(4)));
        assert_eq!(read([Some(3), None]), at(None));
    }

    #[test]
    fn a_re_created_topic_is_another_source() {
        let other = Source {
            topic_id: Some("new".into()),
            ..source()
        };
        let refusal = admit(table(10, None), &other, vec![window(0, 10, 15)]).expect_err("another topic id");
        assert_eq!(refusal, Refusal::OtherSource { ledger: Some(source()) });
    }

    #[test]
    fn the_ledger_is_written_again_only_after_a_day_or_where_its_snapshot_has_expired() {
        let check = |ledger_at: Option<i64>, now: i64, expect: bool| {
            let view = TableView {
                ledger_at: ledger_at.map(Millis),
                ..table(10, None)
            };
            let renewed = admit_renewal(view, &source(), Millis(now))
                .expect("same source")
                .map(plan);
            assert_eq!(renewed.is_some(), expect, "{ledger_at:?} at {now}");
            if let Some(plan) = renewed {
                let unchanged = table(10, None).ledger.expect("a ledger");
                assert_eq!((plan.ledger, plan.files.len(), plan.windows.len()), (unchanged, 0, 0));
            }
        };
        check(Some(1_000), 1_000 + LEDGER_AGE_MAX.0, false);
        check(Some(1_000), 1_001 + LEDGER_AGE_MAX.0, true);
        check(Some(5_000), 1_000, false);
        check(None, 1_000, true);
        let empty = TableView {
            ledger: None,
            ledger_at: None,
            ..table(10, None)
        };
        let refusal = admit_renewal(empty, &source(), Millis(1)).expect_err("no offsets");
        assert_eq!(refusal, Refusal::OtherSource { ledger: None });
    }

    #[test]
    fn a_start_never_moves_a_partition_that_the_table_knows() {
        let starts = [(Partition(0), Offset::new(99)), (Partition(1), Offset::new(7))]
            .into_iter()
            .collect();
        let admitted = admit_start(table(10, None), &source(), &starts)
            .expect("same source")
            .expect("partition 1 is new");
        let offsets = plan(admitted).ledger.offsets;
        assert_eq!(offsets.get(Partition(0)), Some(Offset::new(10)));
        assert_eq!(offsets.get(Partition(1)), Some(Offset::new(7)));
    }
}
