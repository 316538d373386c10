//! The catalog's compare-and-swap, and what a commit may be.

use std::collections::BTreeSet;

use aperio::offsets::{Offset, OffsetRanges};
use aperio::run::Swapped;
use aperio::table::Tally;
use aperio::table::admit::CommitPlan;

use crate::columns;
use crate::fates::Fate;
use crate::world::{At, Base, Compares, Entry, World};

impl World {
    /// Says whether the catalog refuses a plan that was staged on `base`.
    pub(super) fn moved(&self, plan: &CommitPlan, base: Base) -> bool {
        let current = self.metadata.current_snapshot_id();
        base.snapshot != plan.base_snapshot
            || match self.compares {
                Compares::Location => base.version != self.version,
                // A snapshot whose sequence number isn't the next is refused, which is a conflict too.
                Compares::Snapshot => {
                    plan.base_snapshot != current
                        || base.schema != self.metadata.current_schema_id()
                        || base.sequence != self.metadata.last_sequence_number()
                }
            }
    }

    /// Whether a proxy between the program and the catalog may send a commit a second time.
    pub fn repeats_requests(&self) -> bool {
        self.compares == Compares::Snapshot
    }

    /// What the program makes of a refusal of the commit that would have made the snapshot `attempt`: see
    /// `Catalog::left_behind`.
    pub fn refused(&self, base: Base, attempt: Option<i64>) -> Swapped {
        let listed = attempt.is_some_and(|id| self.metadata.snapshot_by_id(id).is_some());
        let mut numbers = self.metadata.snapshots().map(|snapshot| snapshot.sequence_number());
        if self.current() != base.snapshot && !listed && numbers.any(|number| number == base.sequence + 1) {
            return Swapped::Conflict;
        }
        Swapped::Unknown("it may be the echo of this very commit".into())
    }

    /// The catalog's compare-and-swap.
    pub fn swap(&mut self, plan: &CommitPlan, base: Base) -> (Swapped, Option<Base>) {
        if self.moved(plan, base) {
            return (Swapped::Conflict, None);
        }
        let mut truth = self.truth().clone();
        assert!(!truth.spoiled, "a commit of ours onto a cherry-pick");
        if plan.windows.is_empty() {
            for (partition, offset) in plan.ledger.offsets.iter() {
                if truth.offsets.get(partition).is_none() {
                    assert_eq!(offset, Offset::ZERO, "{partition} starts at its beginning");
                    truth.offsets.set(partition, offset);
                }
            }
        }
        let mut wanted = BTreeSet::new();
        for id in &plan.windows {
            let (ranges, tally, file) = &self.windows[id];
            if let Err(found) = truth.offsets.advance(ranges) {
                panic!("window {id} is added where the table isn't: {found:?}");
            }
            for (partition, range) in ranges.iter() {
                let epoch = range.leader_epoch().expect("every record of a log has one");
                truth.lineage.insert(partition, epoch);
                truth.leader_epochs.insert(partition, epoch);
            }
            let mut count = Tally::default();
            let letters = self.letters.borrow();
            let held = letters.of(&self.whose);
            let entries: Vec<_> = self.entries(ranges).collect();
            for (at, entry) in entries {
                let made = file.makes(entry);
                if made == Entry::Hole {
                    continue;
                }
                count.records += 1;
                count.rows += u64::from(made == Entry::Row);
                count.rejected += u64::from(made == Entry::Reject);
                count.filtered += u64::from(made == Entry::Filtered);
                let no_row = truth.fates.get(&at).map_or(0, |fate| fate.no_row) + u32::from(made != Entry::Row);
                truth.fates.insert(at, Fate { no_row, last: made });
                if made == Entry::Row {
                    wanted.insert(at);
                }
                let named = plan.ledger.stale_letters.contains(&(at.0, at.1));
                self.excused.committed(*id, at, made, named, held);
            }
            assert_eq!(*tally, count, "the tally of window {id}");
        }
        assert_eq!(
            truth.offsets, plan.ledger.offsets,
            "the ledger is the sum of the ranges"
        );
        assert_eq!(
            truth.leader_epochs, plan.ledger.leader_epochs,
            "the ledger holds the epochs of the last records"
        );
        let mut added = BTreeSet::new();
        for file in &plan.files {
            let path = file.file.file_path();
            let store = self.store.borrow();
            let written = store.get(path);
            let written = written.unwrap_or_else(|| panic!("the commit names {path}, which does not exist"));
            assert_eq!(written.topic, self.topic, "{path} holds another topic's records");
            columns::assert_nothing_lost(path, &written.form, &self.metadata);
            for row in &written.records {
                assert!(added.insert(*row), "record {row:?} is in two files of one commit");
                *truth.visible.entry(*row).or_default() += 1;
            }
            truth.files.insert(path.to_owned(), written.bytes);
        }
        assert_eq!(added, wanted, "the files hold the rows of the ranges");
        truth.stale.clone_from(&plan.ledger.stale_letters);
        self.add_ours(plan, truth);
        self.commits += 1;
        let (view, base) = self.load().expect("the newest snapshot is ours");
        (Swapped::Committed(view), Some(base))
    }

    fn entries<'a>(&'a self, ranges: &'a OffsetRanges) -> impl Iterator<Item = (At, Entry)> + 'a {
        ranges.iter().flat_map(move |(partition, range)| {
            let log = &self.log[&partition];
            let last = range.leader_epoch().expect("every record of a log has one");
            (range.start().get()..range.end().get()).map(move |offset| {
                let offset = Offset::new(offset);
                let at = (partition, offset, log.lineage(offset, last));
                (at, self.ever[&at])
            })
        })
    }
}
