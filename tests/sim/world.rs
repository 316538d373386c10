//! The world outside the processes: a log, a bucket, a catalog, side tables and published copies; and what must hold in it.

use std::collections::{BTreeMap, BTreeSet};

use aperio::offsets::{Offset, Offsets, Partition};
use aperio::run::Swapped;
use aperio::table::TableView;
use aperio::table::admit::{CommitPlan, Source};
use aperio::table::ledger::Ledger;
use aperio::units::Millis;
use uuid::Uuid;

/// What stands at one offset of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    Row,
    Reject,
    Filtered,
    /// A transaction marker or an aborted record: uses up an offset, is never delivered.
    Hole,
}

type At = (Partition, Offset);

struct Snapshot {
    at: Millis,
    parent: Option<i64>,
    ledger: Ledger,
    files: Vec<String>,
}

pub struct World {
    pub log: BTreeMap<Partition, Vec<Entry>>,
    /// File path to the records in it.
    pub bucket: BTreeMap<String, Vec<At>>,
    snapshots: BTreeMap<i64, Snapshot>,
    main: Option<i64>,
    next_snapshot: i64,
    /// Requests that left a process and haven't reached the catalog yet.
    pub in_transit: Vec<CommitPlan>,
    pub dead_letters: BTreeSet<At>,
    pub sync_points: Offsets,
    pub group: Offsets,
    /// Visible rows, kept along the ancestry of `main`.
    visible: BTreeSet<At>,
    last_ledger: Offsets,
    /// The latest time that any process has seen.
    pub now: Millis,
}

pub fn source() -> Source {
    Source {
        topic: "orders".into(),
        topic_id: Some("t1".into()),
        cluster_id: Some("c1".into()),
    }
}

impl World {
    pub fn new(partitions: i32, length: i64) -> Self {
        let entry = |p: i32, o: i64| match (o * 7 + i64::from(p) * 3) % 11 {
            3 => Entry::Reject,
            5 => Entry::Filtered,
            8 | 9 => Entry::Hole,
            _ => Entry::Row,
        };
        let log = (0..partitions).map(|p| {
            // A topic's tail is often a marker: the ends must be reached all the same.
            let mut entries: Vec<_> = (0..length).map(|o| entry(p, o)).collect();
            *entries.last_mut().expect("a log isn't empty") = Entry::Hole;
            (Partition(p), entries)
        });
        World {
            log: log.collect(),
            bucket: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            main: None,
            next_snapshot: 1,
            in_transit: Vec::new(),
            dead_letters: BTreeSet::new(),
            sync_points: Offsets::default(),
            group: Offsets::default(),
            visible: BTreeSet::new(),
            last_ledger: Offsets::default(),
            now: Millis(1_000_000),
        }
    }

    pub fn ends(&self) -> Offsets {
        self.log
            .iter()
            .map(|(p, entries)| (*p, Offset::new(entries.len() as i64)))
            .collect()
    }

    pub fn view(&self) -> TableView {
        let ledger = self.main.map(|id| self.snapshots[&id].ledger.clone());
        TableView {
            uuid: Uuid::from_u128(77),
            snapshot: self.main,
            ledger,
            ledger_at: self.main.map(|id| self.snapshots[&id].at),
        }
    }

    /// How many commits the table has seen.
    pub fn commits(&self) -> usize {
        self.snapshots.len()
    }

    /// The catalog's compare-and-swap.
    pub fn swap(&mut self, plan: &CommitPlan) -> Swapped {
        if plan.base_snapshot != self.main {
            return Swapped::Conflict;
        }
        let id = self.next_snapshot;
        self.next_snapshot += 1;
        let files: Vec<_> = plan.files.iter().map(|file| file.file.file_path().to_owned()).collect();
        for path in &files {
            let rows = self
                .bucket
                .get(path)
                .unwrap_or_else(|| panic!("the commit names {path}, which does not exist"));
            for row in rows {
                assert!(self.visible.insert(*row), "record {row:?} is in the table twice");
            }
        }
        self.snapshots.insert(
            id,
            Snapshot {
                at: self.now,
                parent: self.main,
                ledger: plan.ledger.clone(),
                files,
            },
        );
        self.main = Some(id);
        Swapped::Committed(self.view())
    }

    pub fn ledger(&self) -> Offsets {
        self.view().ledger.map(|ledger| ledger.offsets).unwrap_or_default()
    }

    /// Panics unless every invariant of the exactly-once contract holds right now.
    pub fn check(&mut self) {
        let ledger = self.ledger();
        for (partition, before) in self.last_ledger.iter() {
            let now = ledger.get(partition).expect("a partition never leaves the ledger");
            assert!(
                before <= now,
                "the ledger of {partition} moved back from {before} to {now}"
            );
        }
        for (name, copy) in [("sync points", &self.sync_points), ("group offsets", &self.group)] {
            for (partition, offset) in copy.iter() {
                assert!(
                    ledger.get(partition).is_some_and(|at| offset <= at),
                    "{name} are ahead of the table at {partition}"
                );
            }
        }
        for (partition, entries) in &self.log {
            let end = ledger.get(*partition).unwrap_or(Offset::ZERO);
            for (offset, entry) in entries.iter().enumerate() {
                let at = (*partition, Offset::new(offset as i64));
                let (visible, dead) = (self.visible.contains(&at), self.dead_letters.contains(&at));
                if at.1 < end {
                    let expect = (*entry == Entry::Row, *entry == Entry::Reject);
                    assert_eq!(
                        (visible, dead),
                        expect,
                        "record {at:?}, {entry:?}, below the ledger: (visible, dead letter)"
                    );
                } else {
                    assert!(!visible, "record {at:?} is visible above the ledger {end}");
                }
            }
        }
        let mut next = self.main;
        while let Some(id) = next {
            let snapshot = &self.snapshots[&id];
            for path in &snapshot.files {
                assert!(
                    self.bucket.contains_key(path),
                    "{path} is referenced by snapshot {id} and gone"
                );
            }
            next = snapshot.parent;
        }
        self.last_ledger = ledger;
    }

    /// Panics unless everything is in the table and its copies agree.
    pub fn check_complete(&mut self) {
        self.check();
        assert!(
            self.ledger().reaches(&self.ends()),
            "the table is at {:?}, the ends are {:?}",
            self.ledger(),
            self.ends()
        );
        assert_eq!(self.sync_points, self.ledger(), "sync points after a clean finish");
    }
}
