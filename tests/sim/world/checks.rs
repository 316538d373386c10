//! What must hold at every moment, and at the end.

use std::collections::BTreeSet;

use aperio::offsets::{Offset, Offsets, RecordAt};

use crate::world::truth::Truth;
use crate::world::{Entry, World};

impl World {
    /// Whether somebody did something after which the table's history needn't tell its offsets.
    pub fn act_of_others(&self) -> bool {
        self.cut_allowed || self.truncations > 0
    }

    /// Panics unless every invariant of the exactly-once contract holds right now.
    pub fn check(&mut self) {
        let others = (self.letters.borrow().load(), self.store.borrow().deleted);
        if !std::mem::take(&mut self.dirty) && others == self.looked_at {
            return;
        }
        self.looked_at = others;
        let truth = self.truth();
        match &self.view {
            Ok(view) => {
                let read = view.ledger.as_ref();
                let read = read.map(|ledger| (ledger.offsets.clone(), ledger.stale_letters.clone()));
                assert_eq!(
                    read.unwrap_or_default(),
                    (truth.offsets.clone(), truth.stale.clone()),
                    "the ledger as read is the truth"
                );
                assert!(!truth.spoiled, "a cherry-pick is noticed");
            }
            Err(problem) => assert!(self.cut_allowed, "the ledger can't be read: {problem}"),
        }
        for (partition, before) in self.last_ledger.iter() {
            let now = truth
                .offsets
                .get(partition)
                .expect("a partition never leaves the ledger");
            assert!(
                before <= now,
                "the ledger of {partition} moved back from {before} to {now}"
            );
        }
        self.check_copies(&truth.offsets);
        if !truth.spoiled {
            self.check_records(truth);
        }
        for snapshot in self.metadata.snapshots() {
            let store = self.store.borrow();
            for (path, bytes) in &self.truths[&snapshot.snapshot_id()].files {
                let there = store.get(path).map(|file| file.bytes);
                assert_eq!(
                    there,
                    Some(*bytes),
                    "{path} is referenced by snapshot {}, and gone or another's",
                    snapshot.snapshot_id()
                );
            }
        }
        self.last_ledger = truth.offsets.clone();
    }

    fn check_copies(&self, ledger: &Offsets) {
        let behind = |copy: &Offsets| {
            copy.iter()
                .all(|(partition, offset)| ledger.get(partition).is_some_and(|at| offset <= at))
        };
        let fine = behind(&self.sync_points) && behind(&self.group);
        assert!(
            fine || self.copies_ahead,
            "sync points {:?} or group offsets {:?} are ahead of the table, {ledger:?}",
            self.sync_points,
            self.group
        );
    }

    fn check_records(&self, truth: &Truth) {
        for (at, entry) in &self.ever {
            let (partition, offset, epoch) = *at;
            let end = truth.offsets.get(partition).unwrap_or(Offset::ZERO);
            let visible = truth.visible.get(at).copied().unwrap_or_default();
            let no_row = truth.fates.get(at).map_or(0, |fate| fate.no_row);
            let owed = truth.owed.get(at).copied().unwrap_or_default();
            // The ledger went past this record, and not past another one at its offset.
            let last = truth.lineage.get(&partition);
            let read = offset < end && last.is_some_and(|last| self.log[&partition].lineage(offset, *last) == epoch);
            // So often the record was read into the table, by the ledger and by what persons announced.
            let times = i32::from(read) + owed;
            let times = u32::try_from(times).expect("nothing is skipped that wasn't there");
            let times = if *entry == Entry::Hole { 0 } else { times };
            assert_eq!(
                visible + no_row,
                times,
                "record {at:?}, {entry:?}, owed {owed}, the ledger at {end} of {last:?}: {visible} rows, {no_row} times none"
            );
            let fits = match entry {
                Entry::Row => no_row == 0,
                Entry::Reject | Entry::Filtered | Entry::FilteredOnceMended => visible == 0,
                Entry::RowOnceMended | Entry::Hole => true,
            };
            assert!(fits, "record {at:?}, {entry:?}: {visible} rows, {no_row} times none");
        }
        let letters = self.letters.borrow();
        let renamed = |at| letters.was_renamed(&self.whose, at);
        self.excused
            .check(&truth.fates, &truth.stale, letters.of(&self.whose), renamed);
    }

    /// Panics unless everything is in the table and its copies agree.
    pub fn check_complete(&mut self) {
        self.dirty = true;
        self.copies_ahead = self.group != Offsets::default() && self.copies_ahead;
        self.check();
        assert!(
            self.ledger().reaches(&self.ends()),
            "the table is at {:?}, the ends are {:?}",
            self.ledger(),
            self.ends()
        );
        assert_eq!(self.sync_points, self.ledger(), "sync points after a clean finish");
        self.assert_taken_back(&self.truth().stale, self.excused.moves);
    }

    /// Panics if letters are left that a publication should have taken back: the table named them and names them.
    ///
    /// - `named`: by the ledger that was published.
    /// - `moves`: how often others had moved the table by then.
    pub fn assert_taken_back(&self, named: &BTreeSet<RecordAt>, moves: u32) {
        if moves == self.excused.moves {
            let stale = self.truth().stale.intersection(named).copied().collect();
            let letters = self.letters.borrow();
            self.excused.assert_taken_back(&stale, letters.of(&self.whose));
        }
    }
}
