//! What other engines and people do to the table or the topic.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aperio::offsets::{LeaderEpoch, Offset, Offsets, Partition};
use aperio::table::TableView;
use aperio::table::admit::reset::{self, Move, Wish};
use aperio::table::admit::{self, CommitPlan};
use aperio::table::ledger::{LEDGER_KEY, Ledger};
use iceberg::spec::{MAIN_BRANCH, Operation, SnapshotReference, SnapshotRetention};

use crate::columns::{self, Change, Form};
use crate::world::log::entry;
use crate::world::truth::Truth;
use crate::world::{Base, Log, Request, World};

/// What other engines and people do to the table or the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// `main` goes back by this many snapshots of its ancestry.
    Rollback(usize),
    /// A snapshot of rows that aren't ours.
    Insert,
    /// All files become one.
    Compact,
    /// All snapshots but the last so many of the ancestry go, with their files.
    Expire(usize),
    /// `main` goes back by one, and the snapshot it left goes with its files.
    Undo,
    /// All older metadata files are deleted, as Iceberg's `delete-after-commit` does.
    Forget,
    /// The columns or partitions become others.
    Change(Change),
    /// A snapshot of ours that isn't in the ancestry is picked onto it.
    CherryPick,
    /// The topic gets another partition.
    Partition,
    /// Every partition gets a few more records.
    Produce,
    /// A partition keeps so many sixths of its records, goes on under another leader, and grows to so many more than it had.
    Truncate { nth: usize, sixths: i64, grows: i64 },
    /// A person moves a partition's offset, to so many sixths of what it holds.
    Reset {
        nth: usize,
        sixths: i64,
        /// Says yes only later, to what was shown then.
        later: bool,
    },
}

impl World {
    /// Somebody else does something; `false` if there is nothing to do it to.
    pub fn act(&mut self, act: Act) -> bool {
        match act {
            Act::Rollback(by) => self.rollback(by),
            Act::Insert => {
                let truth = self.truth().clone();
                self.add_snapshot(Operation::Append, HashMap::new(), None, truth);
                true
            }
            Act::Compact => {
                let mut truth = self.truth().clone();
                if truth.files.is_empty() {
                    return false;
                }
                let rows = truth
                    .visible
                    .iter()
                    .flat_map(|(at, times)| (0..*times).map(move |_| *at));
                let mut store = self.store.borrow_mut();
                let path = store.write_foreign(self.data_path(), self.topic, self.form(), rows.collect());
                let bytes = store.get(&path).expect("it was just written").bytes;
                drop(store);
                truth.files = [(path, bytes)].into();
                self.add_snapshot(Operation::Replace, HashMap::new(), None, truth);
                true
            }
            Act::Expire(keep) => self.expire(keep),
            Act::Undo => {
                let undone = self.rollback(1);
                if undone {
                    self.expire(usize::MAX);
                }
                undone
            }
            Act::Forget => {
                self.past.clear();
                true
            }
            Act::Change(change) => self.change(change),
            Act::Reset { nth, sixths, later } => self.ask_reset(nth, sixths, later),
            Act::CherryPick => self.cherry_pick(),
            Act::Partition => {
                let next = self.log.len() as i32;
                if next < 4 {
                    let entries = (0..5).map(|o| entry(next, o, LeaderEpoch(0)));
                    self.log.insert(Partition(next), Log::new(entries.collect()));
                    self.note_log();
                    self.dirty = true;
                }
                next < 4
            }
            Act::Produce => {
                let all: Vec<_> = self.log.keys().copied().collect();
                all.into_iter().for_each(|partition| self.grow(partition, 4));
                true
            }
            Act::Truncate { nth, sixths, grows } => {
                let nth = nth % self.log.len();
                let (partition, log) = self.log.iter().nth(nth).expect("in range");
                let (partition, to) = (*partition, log.end().get() * sixths / 6);
                // Nobody can notice it where the table doesn't hold an epoch: not before its first commit after a reset.
                let blind = |truth: &Truth| {
                    let held = truth.offsets.get(partition).unwrap_or(Offset::ZERO);
                    held.get() > to && !truth.leader_epochs.contains_key(&partition)
                };
                let blind = self.truths.values().any(blind);
                if !blind {
                    self.truncate(partition, to, grows);
                }
                !blind
            }
        }
    }

    /// A partition grows by so many records, written by its leader of now.
    fn grow(&mut self, partition: Partition, by: i64) {
        let log = self.log.get_mut(&partition).expect("a partition of the topic");
        let (end, leader) = (log.end().get(), log.leader());
        log.entries
            .extend((end..end + by).map(|o| (entry(partition.0, o, leader), leader)));
        self.note_log();
    }

    /// An unclean election: the log ends before what was read of it, maybe, and goes on with other records. It grows at once, so
    /// that the ends that runs work towards are reached.
    fn truncate(&mut self, partition: Partition, to: i64, grows: i64) {
        let log = self.log.get_mut(&partition).expect("a partition of the topic");
        let lost = log.end().get() - to;
        log.entries.truncate(to as usize);
        log.leaders.push(log.end());
        self.truncations += 1;
        self.grow(partition, lost + grows);
        self.dirty = true;
    }

    fn change(&mut self, change: Change) -> bool {
        let changed = columns::changed(&self.metadata, change);
        changed.map(|builder| self.install(builder)).is_some()
    }

    /// One of our lines meets a field without a column, and adds one; what it goes on to write is for the table as it is.
    pub fn evolve(&mut self) -> Form {
        self.change(Change::Add);
        self.form()
    }

    /// A person reads of a log that was cut, and moves the offsets back to where it was, as the message says.
    pub fn go_back_to_the_log(&mut self) {
        let Ok((view, base)) = self.load() else { return };
        let Some(ledger) = &view.ledger else { return };
        let to = self.diverged(ledger);
        if !to.is_empty() {
            self.ask(view, base, to, false);
        }
    }

    /// A person asks what moving a partition does, and says yes at once or later; where the table holds no offsets yet, all
    /// are moved.
    fn ask_reset(&mut self, nth: usize, sixths: i64, later: bool) -> bool {
        let Ok((view, base)) = self.load() else { return false };
        let to = |(partition, end): (Partition, Offset)| (partition, Offset::new(end.get() * sixths / 6));
        let nth = nth % self.log.len();
        let picked = self
            .ends()
            .iter()
            .enumerate()
            .map(|(n, at)| (n, to(at)))
            .collect::<Vec<_>>();
        let picked = picked.into_iter().filter(|(n, _)| view.ledger.is_none() || *n == nth);
        let to = picked.map(|(_, to)| to).collect();
        self.ask(view, base, to, later)
    }

    fn ask(&mut self, view: TableView, base: Base, to: Offsets, later: bool) -> bool {
        let diverged = view.ledger.as_ref().map(|ledger| self.diverged(ledger));
        let wish = Wish {
            source: self.origin.source.clone(),
            beginnings: self.log.keys().map(|partition| (*partition, Offset::ZERO)).collect(),
            ends: self.ends(),
            to,
            diverged: diverged.unwrap_or_default(),
        };
        let found = reset::reset(view.ledger.as_ref(), &wish).expect("a wish that fits");
        if found.moves.is_empty() {
            return false;
        }
        if !wish.diverged.is_empty() {
            self.keep_letters_unambiguous(&found.ledger.offsets);
        }
        let moves = found.moves.clone();
        let plan = admit::plan(reset::admit_reset(view, found));
        if later {
            // What was announced is of the log as it was: one that was cut since is another.
            let cut = self.truncations;
            self.in_transit.push(Request::Reset(Box::new(plan), base, moves, cut));
        } else {
            self.reset(&plan, base, &moves);
        }
        true
    }

    /// A log was cut, and letters of what it lost would make room for those of what is there now: the reset refuses, and the
    /// person renames their table, as it says.
    fn keep_letters_unambiguous(&mut self, from: &Offsets) {
        let mut letters = self.letters.borrow_mut();
        if letters.read(&self.origin, from, None).count() > 0 {
            letters.rename();
            self.dirty = true;
        }
    }

    /// The offsets are moved, if the table still is the one that the person was shown. What was announced is from now on
    /// what must be so.
    pub(super) fn reset(&mut self, plan: &CommitPlan, base: Base, moves: &BTreeMap<Partition, Move>) {
        if self.moved(plan, base) {
            return;
        }
        let mut truth = self.truth().clone();
        for (partition, announced) in moves {
            let from = truth.offsets.get(*partition);
            assert_eq!(announced.from, from, "{partition} is moved from where it is");
            let log = &self.log[partition];
            let (from, to) = (truth.go_back(*partition, log).get(), announced.to.get());
            let expect = ((from - to).max(0).unsigned_abs(), (to - from).max(0).unsigned_abs());
            assert_eq!(
                (announced.doubled, announced.skipped),
                expect,
                "{partition}: {announced:?}"
            );
            for offset in from.min(to)..from.max(to) {
                let epoch = log.entry(offset).1;
                let owed = truth.owed.entry((*partition, Offset::new(offset), epoch)).or_default();
                *owed += if to < from { 1 } else { -1 };
            }
            truth.place(*partition, announced.to, log);
            truth
                .stale
                .retain(|(of, offset)| of != partition || *offset < announced.to);
        }
        assert_eq!(truth.offsets, plan.ledger.offsets, "nothing else is moved");
        assert_eq!(
            truth.stale, plan.ledger.stale_letters,
            "what is read again is judged again"
        );
        self.last_ledger = truth.offsets.clone();
        self.copies_ahead = true;
        self.resets += 1;
        self.note_move(&truth);
        self.add_ours(plan, truth);
    }

    fn rollback(&mut self, by: usize) -> bool {
        let ancestry = self.ancestry();
        let Some(to) = ancestry.get(by).copied().filter(|_| by > 0) else {
            return false;
        };
        self.set_main(to);
        true
    }

    /// A person mends a table whose history doesn't tell the offsets: `main` goes to the newest snapshot that does; where
    /// none is left, the offsets are set anew, to what the table holds.
    pub fn mend(&mut self) {
        let ours = |id: &i64| {
            let snapshot = self.metadata.snapshot_by_id(*id);
            snapshot.is_some_and(|snapshot| snapshot.summary().additional_properties.contains_key(LEDGER_KEY))
                && !self.truths[id].spoiled
        };
        if let Some(newest) = self.truths.keys().rev().copied().find(ours) {
            self.set_main(newest);
            return;
        }
        let mut truth = self.truth().clone();
        // What a cherry-pick brought stays, by that person's will, and isn't counted.
        truth.spoiled = false;
        truth.stale.clear();
        let before = truth.offsets.clone();
        for (partition, log) in &self.log {
            if truth.offsets.get(*partition).is_some() {
                let same = truth.go_back(*partition, log);
                truth.place(*partition, same, log);
            }
        }
        if truth.offsets != before {
            self.keep_letters_unambiguous(&truth.offsets);
        }
        self.note_move(&truth);
        self.last_ledger = truth.offsets.clone();
        self.copies_ahead = true;
        let source = self.origin.source.clone();
        let ledger = Ledger {
            topic: source.topic,
            topic_id: source.topic_id,
            cluster_id: source.cluster_id,
            offsets: truth.offsets.clone(),
            windows: BTreeMap::new(),
            event_times: BTreeMap::new(),
            leader_epochs: BTreeMap::new(),
            stale_letters: BTreeSet::new(),
        };
        self.add_ledger(&ledger, false, truth);
    }

    fn set_main(&mut self, id: i64) {
        let retention = SnapshotRetention::Branch {
            min_snapshots_to_keep: None,
            max_snapshot_age_ms: None,
            max_ref_age_ms: None,
        };
        let main = SnapshotReference::new(id, retention);
        // A snapshot from before our first commit carries no offsets, while the property remembers some.
        self.cut_allowed |= self.truths[&id].offsets.is_empty();
        self.copies_ahead = true;
        self.last_ledger = self.truths[&id].offsets.clone();
        self.note_move(&self.truths[&id].clone());
        let builder = self.metadata.clone().into_builder(None);
        self.install(builder.set_ref(MAIN_BRANCH, main).expect("a snapshot of the table"));
    }

    /// Others moved the table to where this is true, or the offsets of it.
    fn note_move(&mut self, truth: &Truth) {
        let letters = self.letters.borrow();
        self.excused.moved(&truth.fates, &truth.stale, letters.of(&self.whose));
    }

    fn expire(&mut self, keep: usize) -> bool {
        let kept: BTreeSet<_> = self.ancestry().into_iter().take(keep.max(1)).collect();
        let gone: Vec<_> = self
            .metadata
            .snapshots()
            .map(|snapshot| snapshot.snapshot_id())
            .collect();
        let gone: Vec<_> = gone.into_iter().filter(|id| !kept.contains(id)).collect();
        if gone.is_empty() {
            return false;
        }
        let builder = self.metadata.clone().into_builder(None);
        self.cut_allowed = true;
        self.install(builder.remove_snapshots(&gone));
        // Only what an expired snapshot refers to is looked at: a file that no snapshot ever named stays.
        let named = |ids: &mut dyn Iterator<Item = &i64>| -> BTreeSet<String> {
            ids.flat_map(|id| self.truths[id].files.keys().cloned()).collect()
        };
        let (held, let_go) = (named(&mut kept.iter()), named(&mut gone.iter()));
        let gone: Vec<_> = let_go.difference(&held).cloned().collect();
        self.delete(&gone);
        true
    }

    fn cherry_pick(&mut self) -> bool {
        let ancestry: BTreeSet<_> = self.ancestry().into_iter().collect();
        let pick = self
            .metadata
            .snapshots()
            .filter(|snapshot| !ancestry.contains(&snapshot.snapshot_id()))
            .find(|snapshot| snapshot.summary().additional_properties.contains_key(LEDGER_KEY))
            .map(|snapshot| snapshot.snapshot_id());
        let Some(pick) = pick else { return false };
        let mut truth = self.truth().clone();
        truth.files.extend(self.truths[&pick].files.clone());
        truth.spoiled = true;
        self.cut_allowed = true;
        let summary = [("source-snapshot-id".to_owned(), pick.to_string())].into();
        self.add_snapshot(Operation::Append, summary, None, truth);
        true
    }
}
