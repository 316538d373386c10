//! The world outside the processes: a log, a bucket, a catalog, side tables and published copies; what others do to it;
//! and what must hold in it.

mod acts;
mod checks;
mod commits;
mod log;
mod table;
mod truth;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use aperio::dead_letters::{Origin, keys};
use aperio::decode::DeadLetter;
use aperio::offsets::{LeaderEpoch, Offset, OffsetRanges, Offsets, Partition};
use aperio::table::admit::reset::Move;
use aperio::table::admit::{CommitPlan, Source};
use aperio::table::ledger::{self, History, Ledger, LedgerProblem, stored};
use aperio::table::{TableView, Tally, WindowId};
use aperio::units::Millis;
use iceberg::spec::TableMetadata;
use uuid::Uuid;

pub use self::acts::Act;
use self::log::entry;
pub use self::log::{At, Entry, Log, PipelineFile};
use self::table::{at_time, empty_table};
use self::truth::Truth;
use crate::columns::Form;
use crate::fates::Excused;
use crate::letters::{self, LetterBase, LetterChange, LetterTable};
use crate::store::Store;

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
    /// Changes the letters if their table still is this one.
    Letters(LetterBase, LetterChange),
    Delete(Vec<String>),
    /// A person was shown what a reset does, and says yes.
    Reset(Box<CommitPlan>, Base, BTreeMap<Partition, Move>, u32),
}

pub struct World {
    pub log: BTreeMap<Partition, Log>,
    /// Everything that ever stood in a log.
    ever: BTreeMap<At, Entry>,
    /// Whose letters are whose: pipeline, table and topic.
    pub origin: Origin,
    whose: String,
    /// The topic, as what is stored tells it.
    topic: &'static str,
    /// Other tables' files are in it, too.
    store: Rc<RefCell<Store>>,
    /// Other pipelines' letters are in it, too.
    pub letters: Rc<RefCell<LetterTable>>,
    /// The letters that needn't fit what their records became.
    pub excused: Excused,
    /// Requests that left a process and haven't arrived yet.
    pub in_transit: Vec<Request>,
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
    /// What is true without a snapshot.
    nothing: Truth,
    next_snapshot: i64,
    /// How the ledger is told: of these few partitions only if it is made to, as differences.
    pub form_of_ledger: stored::Form,
    windows: BTreeMap<WindowId, (OffsetRanges, Tally, PipelineFile)>,
    last_ledger: Offsets,
    /// A rollback left the published copies ahead; the next publication mends that.
    copies_ahead: bool,
    /// Something was done after which the table's history needn't tell its offsets.
    cut_allowed: bool,
    dirty: bool,
    /// What others can change of what is shared, as it was checked last.
    looked_at: (LetterBase, u32),
    pub commits: u32,
    /// How often somebody moved the offsets.
    pub resets: u32,
    /// How often a log was cut.
    pub truncations: u32,
    /// How often a publication found that nobody knows the table's offsets.
    pub unknown_offsets: u32,
    /// The latest time that any process has seen.
    pub now: Millis,
}

/// The topics, each with a table of its name.
const TOPICS: [&str; 2] = ["orders", "returns"];

fn origin(topic: usize) -> Origin {
    let name = TOPICS[topic];
    Origin {
        pipeline: format!("lake.{name}"),
        table: Uuid::from_u128(77 + topic as u128),
        source: Source {
            topic: name.to_owned(),
            topic_id: Some(format!("t{topic}")),
            cluster_id: Some("c1".into()),
        },
    }
}

impl World {
    pub fn new(partitions: i32, length: i64, compares: Compares) -> Self {
        let (store, letters) = (Store::new(), LetterTable::new());
        let (store, letters) = (Rc::new(RefCell::new(store)), Rc::new(RefCell::new(letters)));
        World::of(0, partitions, length, compares, store, letters)
    }

    /// Another topic, and another table in the same store and under the same path; with the same dead-letter table.
    pub fn beside(&self, partitions: i32, length: i64, compares: Compares) -> Self {
        let (store, letters) = (Rc::clone(&self.store), Rc::clone(&self.letters));
        World::of(1, partitions, length, compares, store, letters)
    }

    fn of(
        topic: usize,
        partitions: i32,
        length: i64,
        compares: Compares,
        store: Rc<RefCell<Store>>,
        letters: Rc<RefCell<LetterTable>>,
    ) -> Self {
        let origin = origin(topic);
        let looked_at = (letters.borrow().load(), store.borrow().deleted);
        let log = (0..partitions).map(|p| {
            // A topic's tail is often a marker: the ends must be reached all the same.
            let mut entries: Vec<_> = (0..length).map(|o| entry(p, o, LeaderEpoch(0))).collect();
            *entries.last_mut().expect("a log isn't empty") = Entry::Hole;
            (Partition(p), Log::new(entries))
        });
        let metadata = at_time(empty_table(&origin), START);
        let mut world = World {
            log: log.collect(),
            ever: BTreeMap::new(),
            whose: letters::whose(&origin),
            topic: TOPICS[topic],
            origin,
            store,
            letters,
            excused: Excused::default(),
            in_transit: Vec::new(),
            sync_points: Offsets::default(),
            points_version: 0,
            group: Offsets::default(),
            compares,
            view: ledger::view(&metadata, &History::default()),
            past: Vec::new(),
            metadata,
            version: 0,
            truths: BTreeMap::new(),
            nothing: Truth::default(),
            next_snapshot: 1,
            form_of_ledger: stored::Form::default(),
            windows: BTreeMap::new(),
            last_ledger: Offsets::default(),
            copies_ahead: false,
            cut_allowed: false,
            dirty: true,
            looked_at,
            commits: 0,
            resets: 0,
            truncations: 0,
            unknown_offsets: 0,
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

    /// The partitions whose log isn't any more what the table holds of it, and up to where it still is.
    pub fn diverged(&self, ledger: &Ledger) -> Offsets {
        let found = self.log.iter().filter_map(|(partition, log)| {
            let same = log.diverged(ledger.position(*partition)?)?;
            Some((*partition, same))
        });
        found.collect()
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

    /// Writes a file of a window; returns its path.
    pub fn write(&mut self, window: WindowId, form: Form, records: Vec<At>) -> String {
        let mut store = self.store.borrow_mut();
        store.write(self.data_path(), window, self.topic, form, records)
    }

    fn data_path(&self) -> &str {
        &self.metadata.properties()["write.data.path"]
    }

    /// A window's files are complete: what it claims to hold.
    pub fn sealed(&mut self, id: WindowId, ranges: &OffsetRanges, tally: Tally, file: PipelineFile) {
        self.windows.insert(id, (ranges.clone(), tally, file));
    }

    /// What a plan of the table as it is now writes files for.
    pub fn form(&self) -> Form {
        Form::of(&self.metadata)
    }

    /// The snapshot that `main` points at.
    pub fn current(&self) -> Option<i64> {
        self.metadata.current_snapshot_id()
    }

    /// The dead letter of a reject.
    pub fn letter(&self, at: At) -> DeadLetter {
        letters::letter(self.topic, at)
    }

    /// Changes the letters of exactly `base`; returns the new snapshot, or nothing where the table has moved.
    pub fn change_letters(&mut self, base: LetterBase, change: &LetterChange) -> Option<LetterBase> {
        let mut letters = self.letters.borrow_mut();
        let taken_back = |at: &&At| change.taken_back.contains(&(at.0, at.1));
        let taken_back: Vec<_> = letters.of(&self.whose).keys().filter(taken_back).copied().collect();
        let now = letters.swap(base, &self.origin, change)?;
        let current = self.metadata.current_snapshot_id();
        let truth = current.map_or(&self.nothing, |id| &self.truths[&id]);
        let fates = &truth.fates;
        for at in taken_back {
            let place = (at.0, at.1);
            if change.stored.iter().any(|letter| keys::key(letter) == place) {
                self.excused.replaced(at, fates, now);
            } else {
                let named = truth.stale.contains(&place);
                self.excused.taken_back(at, fates, named, change.moves, now);
            }
        }
        for letter in &change.stored {
            self.excused.stored(letters::record(letter), fates, now);
        }
        self.dirty = true;
        Some(now)
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
        let mut store = self.store.borrow_mut();
        files.iter().for_each(|file| store.delete(file));
        self.dirty = true;
    }

    /// A request arrives after all.
    pub fn arrive(&mut self, index: usize) {
        match self.in_transit.remove(index) {
            Request::Swap(plan, base) => drop(self.swap(&plan, base)),
            Request::Points(version, offsets) => self.publish(version, &offsets),
            Request::Letters(base, change) => drop(self.change_letters(base, &change)),
            Request::Delete(files) => self.delete(&files),
            Request::Reset(plan, base, moves, cut) if cut == self.truncations => self.reset(&plan, base, &moves),
            Request::Reset(..) => {}
        }
    }

    /// What is true of the snapshot that `main` points at.
    fn truth(&self) -> &Truth {
        let current = self.metadata.current_snapshot_id();
        current.map_or(&self.nothing, |id| &self.truths[&id])
    }

    /// Why the table's offsets can't be known, if so.
    pub fn problem(&self) -> Option<&LedgerProblem> {
        self.view.as_ref().err()
    }

    pub fn ledger(&self) -> Offsets {
        self.truth().offsets.clone()
    }
}
