//! The world outside the processes: a log, a bucket, a catalog, side tables and published copies; what others do to it;
//! and what must hold in it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aperio::offsets::{LeaderEpoch, Offset, OffsetRanges, Offsets, Partition, Position};
use aperio::run::Swapped;
use aperio::table::admit::reset::{self, Move, Wish};
use aperio::table::admit::{self, CommitPlan, Source};
use aperio::table::ledger::{self, History, LEDGER_KEY, Ledger, LedgerProblem, stored};
use aperio::table::{TableView, Tally, WindowId};
use aperio::units::Millis;
use iceberg::TableCreation;
use iceberg::spec::{
    FormatVersion, MAIN_BRANCH, Operation, SnapshotReference, SnapshotRetention, Summary, TableMetadata,
    TableMetadataBuilder,
};
use uuid::Uuid;

use crate::columns::{self, Change, Form};

/// What stands at one offset of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    Row,
    Reject,
    Filtered,
    /// A transaction marker or an aborted record: uses up an offset, is never delivered.
    Hole,
}

/// A record, or what stands in its place: where it is, and the leader epoch that it was written under. A log that is cut and
/// grows again has others at the same offsets.
pub type At = (Partition, Offset, LeaderEpoch);

/// A partition: what stands at each offset, and where each of its leaders began.
#[derive(Debug, Clone)]
pub struct Log {
    entries: Vec<(Entry, LeaderEpoch)>,
    leaders: Vec<Offset>,
}

impl Log {
    fn new(entries: Vec<Entry>) -> Self {
        let first = |entry| (entry, LeaderEpoch(0));
        Log {
            entries: entries.into_iter().map(first).collect(),
            leaders: vec![Offset::ZERO],
        }
    }

    pub fn end(&self) -> Offset {
        Offset::new(self.entries.len() as i64)
    }

    fn leader(&self) -> LeaderEpoch {
        LeaderEpoch(self.leaders.len() as i32 - 1)
    }

    pub fn entry(&self, offset: i64) -> (Entry, LeaderEpoch) {
        self.entries[offset as usize]
    }

    /// Where a read that goes on at this offset would be: with the epoch of what comes right before it.
    pub fn position(&self, offset: Offset) -> Position {
        let before = offset.get().checked_sub(1).and_then(|at| self.entries.get(at as usize));
        Position {
            offset,
            leader_epoch: before.map(|(_, epoch)| *epoch),
        }
    }

    /// Up to where the log is what it was when it was read up to `position`, if that isn't all: what OffsetsForLeaderEpoch
    /// tells.
    pub fn diverged(&self, position: Position) -> Option<Offset> {
        let held = position.leader_epoch?;
        let end = self.entries.iter().take_while(|(_, epoch)| *epoch <= held).count();
        let end = Offset::new(end as i64);
        (end < position.offset).then_some(end)
    }

    /// The epoch under which the record at `offset` was written, for whoever read on to a record of `last`.
    fn lineage(&self, offset: Offset, last: LeaderEpoch) -> LeaderEpoch {
        let upto = &self.leaders[..=last.0 as usize];
        let found = upto.iter().rposition(|begin| *begin <= offset);
        LeaderEpoch(found.expect("the first leader began at the beginning") as i32)
    }
}

/// When everything begins.
const START: Millis = Millis(1_700_000_000_000);

/// What a catalog compares in a swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compares {
    /// The metadata file: any change of the table is in the way. A SQL catalog does.
    Location,
    /// The snapshot of `main` and the schema: other changes and expiry are looked past. A REST catalog does.
    Snapshot,
}

/// A table as a process loaded it: what its swaps are staged on.
#[derive(Debug, Clone, Copy)]
pub struct Base {
    version: u64,
    snapshot: Option<i64>,
    sequence: i64,
    schema: i32,
}

/// A request that left a process and hasn't arrived yet.
pub enum Request {
    Swap(Box<CommitPlan>, Base),
    /// Replaces sync points if they still are at this version.
    Points(u64, Offsets),
    Letters(Vec<At>),
    Delete(Vec<String>),
    /// A person was shown what a reset does, and says yes.
    Reset(Box<CommitPlan>, Base, BTreeMap<Partition, Move>, u32),
}

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

/// What is true of one snapshot, whatever its metadata say.
#[derive(Clone, Default)]
struct Truth {
    /// The sum of the ranges that are in it.
    offsets: Offsets,
    /// The leader epochs of the last records of these.
    lineage: BTreeMap<Partition, LeaderEpoch>,
    /// Those of them that the ledger holds: not where a person put it.
    leader_epochs: BTreeMap<Partition, LeaderEpoch>,
    /// Its data files.
    files: BTreeSet<String>,
    /// The records in them, and how often.
    visible: BTreeMap<At, u32>,
    /// What persons announced when they moved offsets: how much more or less often than once a record is there.
    owed: BTreeMap<At, i32>,
    /// Rows are in it twice or without their offsets, by somebody's cherry-pick.
    spoiled: bool,
}

impl Truth {
    /// Where a log still is what was read of it, at most where the table is. Rows of records that it lost stay, and are read
    /// no more.
    fn go_back(&mut self, partition: Partition, log: &Log) -> Offset {
        let held = Position {
            offset: self.offsets.get(partition).unwrap_or(Offset::ZERO),
            leader_epoch: self.lineage.get(&partition).copied(),
        };
        let same = log.diverged(held).unwrap_or(held.offset);
        for offset in same.get()..held.offset.get() {
            let (at, last) = (Offset::new(offset), held.leader_epoch.expect("it diverged"));
            *self.owed.entry((partition, at, log.lineage(at, last))).or_default() += 1;
        }
        same
    }

    /// A person puts a partition to this offset of the log as it is.
    fn place(&mut self, partition: Partition, at: Offset, log: &Log) {
        self.offsets.set(partition, at);
        self.leader_epochs.remove(&partition);
        match log.position(at).leader_epoch {
            Some(epoch) => self.lineage.insert(partition, epoch),
            None => self.lineage.remove(&partition),
        };
    }
}

pub struct World {
    pub log: BTreeMap<Partition, Log>,
    /// Everything that ever stood in a log.
    ever: BTreeMap<At, Entry>,
    /// File path to the records in it.
    pub bucket: BTreeMap<String, Vec<At>>,
    /// What the files that windows were written to are written for.
    pub forms: BTreeMap<String, Form>,
    /// Requests that left a process and haven't arrived yet.
    pub in_transit: Vec<Request>,
    pub dead_letters: BTreeSet<At>,
    pub sync_points: Offsets,
    points_version: u64,
    pub group: Offsets,
    compares: Compares,
    metadata: TableMetadata,
    /// Older metadata files that are still there, oldest first.
    past: Vec<TableMetadata>,
    version: u64,
    view: Result<TableView, LedgerProblem>,
    truths: BTreeMap<i64, Truth>,
    next_snapshot: i64,
    next_foreign_file: u32,
    /// How the ledger is told: of these few partitions only if it is made to, as differences.
    pub form_of_ledger: stored::Form,
    windows: BTreeMap<WindowId, (OffsetRanges, Tally)>,
    last_ledger: Offsets,
    /// A rollback left the published copies ahead; the next publication mends that.
    copies_ahead: bool,
    /// Something was done after which the table's history needn't tell its offsets.
    cut_allowed: bool,
    dirty: bool,
    pub commits: u32,
    /// How often somebody moved the offsets.
    pub resets: u32,
    /// How often a log was cut.
    pub truncations: u32,
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

fn entry(partition: i32, offset: i64, epoch: LeaderEpoch) -> Entry {
    match (offset * 7 + i64::from(partition) * 3 + i64::from(epoch.0) * 5) % 11 {
        3 => Entry::Reject,
        5 => Entry::Filtered,
        8 | 9 => Entry::Hole,
        _ => Entry::Row,
    }
}

fn empty_table() -> TableMetadata {
    let creation = TableCreation::builder()
        .name("orders".into())
        .location("s3://b/orders".into())
        .schema(columns::first_schema())
        .format_version(FormatVersion::V2)
        .build();
    TableMetadataBuilder::from_table_creation(creation)
        .expect("a table")
        .assign_uuid(Uuid::from_u128(77))
        .build()
        .expect("a table")
        .metadata
}

/// The same metadata as of `now`: the crate stamps some changes with the time of the machine.
fn at_time(metadata: TableMetadata, now: Millis) -> TableMetadata {
    if metadata.last_updated_ms() <= now.0 {
        return metadata;
    }
    let mut value = serde_json::to_value(&metadata).expect("metadata are JSON");
    value["last-updated-ms"] = now.0.into();
    if let Some(log) = value["snapshot-log"].as_array_mut() {
        for entry in log {
            let at = entry["timestamp-ms"].as_i64().unwrap_or_default();
            entry["timestamp-ms"] = at.min(now.0).into();
        }
    }
    serde_json::from_value(value).expect("metadata are JSON")
}

impl World {
    pub fn new(partitions: i32, length: i64, compares: Compares) -> Self {
        let log = (0..partitions).map(|p| {
            // A topic's tail is often a marker: the ends must be reached all the same.
            let mut entries: Vec<_> = (0..length).map(|o| entry(p, o, LeaderEpoch(0))).collect();
            *entries.last_mut().expect("a log isn't empty") = Entry::Hole;
            (Partition(p), Log::new(entries))
        });
        let metadata = at_time(empty_table(), START);
        let mut world = World {
            log: log.collect(),
            ever: BTreeMap::new(),
            bucket: BTreeMap::new(),
            forms: BTreeMap::new(),
            in_transit: Vec::new(),
            dead_letters: BTreeSet::new(),
            sync_points: Offsets::default(),
            points_version: 0,
            group: Offsets::default(),
            compares,
            view: ledger::view(&metadata, &History::default()),
            past: Vec::new(),
            metadata,
            version: 0,
            truths: BTreeMap::new(),
            next_snapshot: 1,
            next_foreign_file: 0,
            form_of_ledger: stored::Form::default(),
            windows: BTreeMap::new(),
            last_ledger: Offsets::default(),
            copies_ahead: false,
            cut_allowed: false,
            dirty: true,
            commits: 0,
            resets: 0,
            truncations: 0,
            now: START,
        };
        world.note_log();
        world
    }

    /// Remembers what stands in the logs.
    fn note_log(&mut self) {
        for (partition, log) in &self.log {
            for (offset, (entry, epoch)) in log.entries.iter().enumerate() {
                self.ever
                    .insert((*partition, Offset::new(offset as i64), *epoch), *entry);
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

    /// The partitions whose log isn't any more what the table holds of it, and up to where it still is.
    pub fn diverged(&self, ledger: &Ledger) -> Offsets {
        let found = self.log.iter().filter_map(|(partition, log)| {
            let same = log.diverged(ledger.position(*partition)?)?;
            Some((*partition, same))
        });
        found.collect()
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

    pub fn ends(&self) -> Offsets {
        self.log.iter().map(|(p, log)| (*p, log.end())).collect()
    }

    /// Loads the table, as the program does: its real metadata, read by the program's own functions.
    pub fn load(&self) -> Result<(TableView, Base), LedgerProblem> {
        let base = Base {
            version: self.version,
            snapshot: self.metadata.current_snapshot_id(),
            sequence: self.metadata.last_sequence_number(),
            schema: self.metadata.current_schema_id(),
        };
        self.view.clone().map(|view| (view, base))
    }

    /// A window's files are complete: what it claims to hold.
    pub fn sealed(&mut self, id: WindowId, ranges: &OffsetRanges, tally: Tally) {
        self.windows.insert(id, (ranges.clone(), tally));
    }

    /// What a plan of the table as it is now writes files for.
    pub fn form(&self) -> Form {
        Form::of(&self.metadata)
    }

    /// One of our lines meets a field without a column, and adds one; what it goes on to write is for the table as it is.
    pub fn evolve(&mut self) -> Form {
        self.change(Change::Add);
        self.form()
    }

    fn change(&mut self, change: Change) -> bool {
        let changed = columns::changed(&self.metadata, change);
        changed.map(|builder| self.install(builder)).is_some()
    }

    /// Says whether the catalog refuses a plan that was staged on `base`.
    fn moved(&self, plan: &CommitPlan, base: Base) -> bool {
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

    /// The snapshot that `main` points at.
    pub fn current(&self) -> Option<i64> {
        self.metadata.current_snapshot_id()
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
        let mut truth = self.truth();
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
            let (ranges, tally) = &self.windows[id];
            if let Err(found) = truth.offsets.advance(ranges) {
                panic!("window {id} is added where the table isn't: {found:?}");
            }
            for (partition, range) in ranges.iter() {
                let epoch = range.leader_epoch().expect("every record of a log has one");
                truth.lineage.insert(partition, epoch);
                truth.leader_epochs.insert(partition, epoch);
            }
            assert_eq!(*tally, self.count(ranges), "the tally of window {id}");
            wanted.extend(self.rows(ranges));
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
            let rows = self.bucket.get(path);
            let rows = rows.unwrap_or_else(|| panic!("the commit names {path}, which does not exist"));
            columns::assert_nothing_lost(path, &self.forms[path], &self.metadata);
            for row in rows {
                assert!(added.insert(*row), "record {row:?} is in two files of one commit");
                *truth.visible.entry(*row).or_default() += 1;
            }
            truth.files.insert(path.to_owned());
        }
        assert_eq!(added, wanted, "the files hold the rows of the ranges");
        self.add_ours(plan, truth);
        self.commits += 1;
        let (view, base) = self.load().expect("the newest snapshot is ours");
        (Swapped::Committed(view), Some(base))
    }

    /// Stores dead letters, each once by its key.
    pub fn store_letters(&mut self, letters: &[At]) {
        self.dead_letters.extend(letters);
        self.dirty = true;
    }

    /// The version of the sync points that a publication replaces.
    pub fn points_version(&self) -> u64 {
        self.points_version
    }

    /// What a publication of `offsets` writes: where that would take a sync point back, what the table holds now.
    pub fn to_publish(&self, offsets: &Offsets) -> Option<Offsets> {
        let behind = |(partition, point)| offsets.get(partition).is_some_and(|offset| point <= offset);
        if self.sync_points.iter().all(behind) {
            return Some(offsets.clone());
        }
        let fresh = self.view.as_ref().ok()?.ledger.as_ref()?;
        Some(fresh.offsets.clone())
    }

    /// Replaces the sync points, if nobody did since `version`.
    pub fn publish(&mut self, version: u64, offsets: &Offsets) {
        if version == self.points_version && *offsets != self.sync_points {
            self.points_version += 1;
            self.sync_points = offsets.clone();
            self.dirty = true;
        }
    }

    pub fn commit_group(&mut self, partition: Partition, offset: Offset) {
        self.group.set(partition, offset);
        self.dirty = true;
    }

    pub fn delete(&mut self, files: &[String]) {
        for file in files {
            self.bucket.remove(file);
        }
        self.dirty = true;
    }

    /// A request arrives after all.
    pub fn arrive(&mut self, index: usize) {
        match self.in_transit.remove(index) {
            Request::Swap(plan, base) => drop(self.swap(&plan, base)),
            Request::Points(version, offsets) => self.publish(version, &offsets),
            Request::Letters(letters) => self.store_letters(&letters),
            Request::Delete(files) => self.delete(&files),
            Request::Reset(plan, base, moves, cut) if cut == self.truncations => self.reset(&plan, base, &moves),
            Request::Reset(..) => {}
        }
    }

    /// Somebody else does something; `false` if there is nothing to do it to.
    pub fn act(&mut self, act: Act) -> bool {
        match act {
            Act::Rollback(by) => self.rollback(by),
            Act::Insert => {
                let truth = self.truth();
                self.add_snapshot(Operation::Append, HashMap::new(), None, truth);
                true
            }
            Act::Compact => {
                let mut truth = self.truth();
                if truth.files.is_empty() {
                    return false;
                }
                self.next_foreign_file += 1;
                let path = format!("compacted-{}.parquet", self.next_foreign_file);
                let rows = truth
                    .visible
                    .iter()
                    .flat_map(|(at, times)| (0..*times).map(move |_| *at));
                self.bucket.insert(path.clone(), rows.collect());
                truth.files = [path].into();
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
            source: source(),
            beginnings: self.log.keys().map(|partition| (*partition, Offset::ZERO)).collect(),
            ends: self.ends(),
            to,
            diverged: diverged.unwrap_or_default(),
        };
        let found = reset::reset(view.ledger.as_ref(), &wish).expect("a wish that fits");
        if found.moves.is_empty() {
            return false;
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

    /// The offsets are moved, if the table still is the one that the person was shown. What was announced is from now on
    /// what must be so.
    fn reset(&mut self, plan: &CommitPlan, base: Base, moves: &BTreeMap<Partition, Move>) {
        if self.moved(plan, base) {
            return;
        }
        let mut truth = self.truth();
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
        }
        assert_eq!(truth.offsets, plan.ledger.offsets, "nothing else is moved");
        self.last_ledger = truth.offsets.clone();
        self.copies_ahead = true;
        self.resets += 1;
        self.add_ours(plan, truth);
    }

    /// A snapshot with a ledger of ours.
    fn add_ours(&mut self, plan: &CommitPlan, truth: Truth) {
        self.add_ledger(&plan.ledger, !plan.windows.is_empty(), truth);
    }

    fn add_ledger(&mut self, ledger: &Ledger, adds_rows: bool, truth: Truth) {
        let texts = stored::texts(
            ledger,
            &self.metadata,
            adds_rows,
            self.next_snapshot,
            self.form_of_ledger,
        );
        let summary = [(LEDGER_KEY.to_owned(), texts.summary)].into();
        self.add_snapshot(Operation::Append, summary, Some(texts.property), truth);
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
        let mut truth = self.truth();
        // What a cherry-pick brought stays, by that person's will, and isn't counted.
        truth.spoiled = false;
        for (partition, log) in &self.log {
            if truth.offsets.get(*partition).is_some() {
                let same = truth.go_back(*partition, log);
                truth.place(*partition, same, log);
            }
        }
        self.last_ledger = truth.offsets.clone();
        self.copies_ahead = true;
        let ledger = Ledger {
            topic: source().topic,
            topic_id: source().topic_id,
            cluster_id: source().cluster_id,
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
        let builder = self.metadata.clone().into_builder(None);
        self.install(builder.set_ref(MAIN_BRANCH, main).expect("a snapshot of the table"));
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
            ids.flat_map(|id| self.truths[id].files.iter().cloned()).collect()
        };
        let (held, let_go) = (named(&mut kept.iter()), named(&mut gone.iter()));
        for file in let_go.difference(&held) {
            self.bucket.remove(file);
        }
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
        let mut truth = self.truth();
        truth.files.extend(self.truths[&pick].files.iter().cloned());
        truth.spoiled = true;
        self.cut_allowed = true;
        let summary = [("source-snapshot-id".to_owned(), pick.to_string())].into();
        self.add_snapshot(Operation::Append, summary, None, truth);
        true
    }

    fn add_snapshot(
        &mut self,
        operation: Operation,
        summary: HashMap<String, String>,
        property: Option<String>,
        truth: Truth,
    ) {
        let id = self.next_snapshot;
        self.next_snapshot += 1;
        let snapshot = iceberg::spec::Snapshot::builder()
            .with_snapshot_id(id)
            .with_parent_snapshot_id(self.metadata.current_snapshot_id())
            .with_sequence_number(self.metadata.next_sequence_number())
            .with_timestamp_ms(self.now.0)
            .with_manifest_list(String::new())
            .with_summary(Summary {
                operation,
                additional_properties: summary,
            })
            .with_schema_id(self.metadata.current_schema_id())
            .build();
        self.truths.insert(id, truth);
        let mut builder = self.metadata.clone().into_builder(None);
        builder = builder
            .set_branch_snapshot(snapshot, MAIN_BRANCH)
            .expect("a snapshot fits");
        if let Some(property) = property {
            let properties = [(LEDGER_KEY.to_owned(), property)].into();
            builder = builder.set_properties(properties).expect("a property fits");
        }
        self.install(builder);
    }

    fn install(&mut self, builder: TableMetadataBuilder) {
        let next = at_time(builder.build().expect("a table").metadata, self.now);
        self.past.push(std::mem::replace(&mut self.metadata, next));
        self.version += 1;
        self.view = self.read();
        self.dirty = true;
    }

    /// Reads the ledger as the program does: through older metadata files, newest first, where the snapshots don't tell.
    fn read(&self) -> Result<TableView, LedgerProblem> {
        let mut history = History::default();
        for older in self.past.iter().rev() {
            match ledger::view(&self.metadata, &history) {
                Err(problem) if problem.open_to_history() => history.add(older),
                answer => return answer,
            }
        }
        history.complete();
        ledger::view(&self.metadata, &history)
    }

    /// Snapshots from `main` back, as far as they are still there.
    fn ancestry(&self) -> Vec<i64> {
        let mut found = Vec::new();
        let mut next = self.metadata.current_snapshot();
        while let Some(snapshot) = next {
            found.push(snapshot.snapshot_id());
            next = snapshot
                .parent_snapshot_id()
                .and_then(|id| self.metadata.snapshot_by_id(id));
        }
        found
    }

    fn truth(&self) -> Truth {
        let current = self.metadata.current_snapshot_id();
        current.map_or_else(Truth::default, |id| self.truths[&id].clone())
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

    fn rows(&self, ranges: &OffsetRanges) -> Vec<At> {
        let rows = self.entries(ranges).filter(|(_, entry)| *entry == Entry::Row);
        rows.map(|(at, _)| at).collect()
    }

    fn count(&self, ranges: &OffsetRanges) -> Tally {
        let mut tally = Tally::default();
        for (_, entry) in self.entries(ranges) {
            tally.records += u64::from(entry != Entry::Hole);
            tally.rows += u64::from(entry == Entry::Row);
            tally.rejected += u64::from(entry == Entry::Reject);
            tally.filtered += u64::from(entry == Entry::Filtered);
        }
        tally
    }

    /// Whether somebody did something after which the table's history needn't tell its offsets.
    pub fn act_of_others(&self) -> bool {
        self.cut_allowed || self.truncations > 0
    }

    /// Why the table's offsets can't be known, if so.
    pub fn problem(&self) -> Option<&LedgerProblem> {
        self.view.as_ref().err()
    }

    pub fn ledger(&self) -> Offsets {
        self.truth().offsets
    }

    /// Panics unless every invariant of the exactly-once contract holds right now.
    pub fn check(&mut self) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        let truth = self.truth();
        match &self.view {
            Ok(view) => {
                let read = view.ledger.as_ref().map(|ledger| ledger.offsets.clone());
                assert_eq!(
                    read.unwrap_or_default(),
                    truth.offsets,
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
            self.check_records(&truth);
        }
        for snapshot in self.metadata.snapshots() {
            for path in &self.truths[&snapshot.snapshot_id()].files {
                assert!(
                    self.bucket.contains_key(path),
                    "{path} is referenced by snapshot {} and gone",
                    snapshot.snapshot_id()
                );
            }
        }
        self.last_ledger = truth.offsets;
    }

    fn check_copies(&mut self, ledger: &Offsets) {
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
            let (visible, dead) = (truth.visible.get(at).copied(), self.dead_letters.contains(at));
            let owed = truth.owed.get(at).copied().unwrap_or_default();
            // The ledger went past this record, and not past another one at its offset.
            let last = truth.lineage.get(&partition);
            let read = offset < end && last.is_some_and(|last| self.log[&partition].lineage(offset, *last) == epoch);
            // So often the record was read into the table, by the ledger and by what persons announced.
            let times = i32::from(read) + owed;
            let times = u32::try_from(times).expect("nothing is skipped that wasn't there");
            let rows = if *entry == Entry::Row { times } else { 0 };
            assert_eq!(
                visible.unwrap_or_default(),
                rows,
                "record {at:?}, {entry:?}, owed {owed}, the ledger at {end} of {last:?}: its rows"
            );
            if times > 0 {
                assert_eq!(dead, *entry == Entry::Reject, "record {at:?}, {entry:?}: dead letter");
            }
        }
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
    }
}
