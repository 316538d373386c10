//! The keys of the letters that a dead-letter table holds: what keeps a replay from doubling them.
//!
//! All but the scan is pure, and public for the simulation, which has a table of its own.

use std::collections::{BTreeSet, HashMap, HashSet};

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use iceberg::expr::{Predicate, Reference};
use iceberg::scan::{ArrowRecordBatchStream, FileScanTask};
use iceberg::spec::Datum;
use iceberg::table::Table;
use uuid::Uuid;

use super::Origin;
use super::columns::{CLUSTER_ID, OFFSET, PARTITION, PIPELINE, TABLE_UUID, TIMESTAMP, TOPIC, TOPIC_ID, stored_time};
use crate::catalog::LoadedTable;
use crate::catalog::scan::planned;
use crate::decode::DeadLetter;
use crate::offsets::{Offset, OffsetRanges, Offsets, Partition, RecordAt};

/// Partitions up to which the scan's filter names each one's offset. Beyond, evaluating the filter costs more than the
/// rows it spares, and the lowest offset of all stands for each.
const PARTITIONS_FILTERED_MAX: usize = 64;

/// Files whose keys are read at a time.
const FILES_AT_ONCE: usize = 4;

/// Where in its topic a letter's record is; with the letter's [`Origin`] its key.
pub type Key = RecordAt;

/// A letter that the table holds: its key, and its record's time as it is stored, in microseconds.
///
/// A log that has lost its end gives offsets out again, and what was read of it before may have left letters. The time tells
/// the records of one key apart.
pub type Held = (Key, Option<i64>);

/// The keys that exactly one snapshot of the table holds, from given offsets on.
#[derive(Debug)]
pub struct KnownKeys {
    /// Of the letters that were looked at.
    origin: Origin,
    table: Uuid,
    snapshot: Option<i64>,
    /// For each partition the offset from which on all keys are known.
    from: Offsets,
    held: HashMap<Key, Option<i64>>,
    /// The same by file, as far as they were read from one that nothing is deleted from. A file never changes, so the next
    /// snapshot's keys are read from those files only that aren't here. Else an attempt would take the longer the more letters
    /// there are, and where many write to one table the slowest would lose to the others again and again.
    files: HashMap<String, Vec<Held>>,
}

/// Returns for each partition the offset from which on keys must be known to store letters: the ledger's, or that at which a
/// letter is, or windows begin. They begin below it where another run has overtaken them; and may be committed all the
/// same, once its commit is undone.
pub fn floor_of(ledger: &Offsets, ranges: &OffsetRanges, letters: &[&DeadLetter]) -> Offsets {
    let begins = ranges.iter().map(|(partition, range)| (partition, range.start()));
    floor(ledger, begins.chain(letters.iter().map(|letter| key(letter))))
}

/// Returns for each partition the offset from which on keys must be known: the ledger's, or the lowest of `keys`.
pub fn floor(ledger: &Offsets, keys: impl Iterator<Item = Key>) -> Offsets {
    let mut floor = ledger.clone();
    for (partition, at) in keys {
        if floor.get(partition).is_none_or(|offset| offset > at) {
            floor.set(partition, at);
        }
    }
    floor
}

impl KnownKeys {
    /// Knows nothing yet of what a snapshot of the table `table` holds; [`KnownKeys::take`] takes in what is read of it.
    pub fn new(table: Uuid, snapshot: Option<i64>, origin: &Origin, from: &Offsets) -> KnownKeys {
        KnownKeys {
            origin: origin.clone(),
            table,
            snapshot,
            from: from.clone(),
            held: HashMap::new(),
            files: HashMap::new(),
        }
    }

    /// Returns the keys of each file that needn't be read again for another snapshot of the table; none where they are others'.
    pub fn by_file(self, table: Uuid, origin: &Origin, from: &Offsets) -> HashMap<String, Vec<Held>> {
        match self.are_of(table, origin, from) {
            true => self.files,
            false => HashMap::new(),
        }
    }

    /// Reads the keys of `origin` at or above `from` in the table's current snapshot.
    ///
    /// - `before`: what was known of an earlier one, if anything was: the files of that aren't read again.
    ///
    /// The origin isn't part of the filter: tables are seldom shared, and a filter over integers trusts no statistics of
    /// shortened text. A table of an earlier version lacks columns of it: letters without them are nobody's that is known,
    /// since whose they are can't be told.
    pub(super) async fn read(
        table: &LoadedTable,
        origin: &Origin,
        from: &Offsets,
        before: Option<KnownKeys>,
    ) -> iceberg::Result<KnownKeys> {
        let (uuid, snapshot) = (table.metadata.uuid(), table.metadata.current_snapshot_id());
        let mut before = before.map_or_else(HashMap::new, |before| before.by_file(uuid, origin, from));
        let mut known = KnownKeys::new(uuid, snapshot, origin, from);
        // A scan is of the snapshot's schema, and columns may have been added since.
        let complete = match table.metadata.current_snapshot() {
            Some(snapshot) => {
                let schema = snapshot.schema(&table.metadata)?;
                KEY.iter().all(|name| schema.field_by_name(name).is_some())
            }
            None => false,
        };
        if let (Some(snapshot), Some(filter), true) = (known.snapshot, filter(from), complete) {
            let table = table.scannable()?;
            let scan = table.scan().snapshot_id(snapshot).select(KEY).with_filter(filter);
            let mut unread = Vec::new();
            for task in planned(scan.build()?).await? {
                match before.remove(&task.data_file_path) {
                    Some(keys) if task.deletes.is_empty() => known.take(Some(task.data_file_path), keys),
                    _ => unread.push(task),
                }
            }
            let reads = unread.into_iter().map(|task| keys_in(&table, task, origin));
            let mut reads: BoxStream<'_, _> = futures::stream::iter(reads).buffer_unordered(FILES_AT_ONCE).boxed();
            while let Some((file, keys)) = reads.try_next().await? {
                known.take(file, keys);
            }
        }
        Ok(known)
    }

    /// Takes in those keys of a file of the snapshot that count.
    ///
    /// - `file`: its path, if nothing is deleted from it.
    pub fn take(&mut self, file: Option<String>, mut held: Vec<Held>) {
        held.retain(|(key, _)| self.from.get(key.0).is_some_and(|from| key.1 >= from));
        self.held.extend(held.iter().copied());
        if let Some(file) = file {
            self.files.insert(file, held);
        }
    }

    /// Counts the keys.
    pub fn count(&self) -> usize {
        self.held.len()
    }

    /// Says whether these are the keys of this snapshot of the table, of this origin, and from these offsets on.
    ///
    /// Only the same snapshot will do: any other may hold letters of another run, or have lost some to a rollback.
    pub fn cover(&self, table: Uuid, snapshot: Option<i64>, origin: &Origin, from: &Offsets) -> bool {
        self.snapshot == snapshot && self.are_of(table, origin, from)
    }

    /// The same, of whichever snapshot.
    fn are_of(&self, table: Uuid, origin: &Origin, from: &Offsets) -> bool {
        self.origin == *origin
            && self.table == table
            && from
                .iter()
                .all(|(partition, offset)| self.from.get(partition).is_some_and(|known| known <= offset))
    }

    /// Forgets the keys below `from`: the main table has passed them.
    pub fn forget_below(&mut self, from: &Offsets) {
        from.iter()
            .for_each(|(partition, offset)| self.from.set(partition, offset));
        let from = &self.from;
        let counts = |key: &Key| from.get(key.0).is_none_or(|known| key.1 >= known);
        self.held.retain(|key, _| counts(key));
        let of_files = self.files.values_mut();
        of_files.for_each(|held| held.retain(|(key, _)| counts(key)));
    }

    /// Returns the letters that the table doesn't hold, order kept, each key once.
    pub fn missing<'a>(&self, letters: &[&'a DeadLetter]) -> Vec<&'a DeadLetter> {
        let mut seen = HashSet::new();
        let held = |letter: &DeadLetter| self.held.get(&key(letter)) == Some(&stored_time(letter));
        let new = |letter: &&DeadLetter| !held(letter) && seen.insert(key(letter));
        letters.iter().copied().filter(new).collect()
    }

    /// Returns the keys of letters that must make room for `missing` ones: their records are others, which the log has lost.
    pub fn in_place_of(&self, missing: &[&DeadLetter]) -> HashSet<Key> {
        let keys = missing.iter().map(|letter| key(letter));
        keys.filter(|key| self.held.contains_key(key)).collect()
    }

    /// Returns the keys within `ranges` that aren't among the letters that these ranges bring now: what an attempt that was
    /// never committed has left, and what has become of its records since is a row, or filtered.
    pub fn stale(&self, ranges: &OffsetRanges, letters: &[&DeadLetter]) -> BTreeSet<Key> {
        if self.held.is_empty() {
            return BTreeSet::new();
        }
        let brought: HashSet<Key> = letters.iter().map(|letter| key(letter)).collect();
        let within = |(partition, offset): &Key| ranges.get(*partition).is_some_and(|range| range.contains(*offset));
        let stale = |key: &&Key| within(key) && !brought.contains(*key);
        self.held.keys().filter(stale).copied().collect()
    }

    /// Returns those of `keys` that the table holds.
    pub fn held(&self, keys: &BTreeSet<Key>) -> HashSet<Key> {
        keys.iter().filter(|key| self.held.contains_key(key)).copied().collect()
    }

    /// Moves to the snapshot that took back `gone` and added `letters`, and did nothing else.
    pub fn change(&mut self, snapshot: i64, letters: &[&DeadLetter], gone: &HashSet<Key>) {
        self.snapshot = Some(snapshot);
        self.held.retain(|key, _| !gone.contains(key));
        let added = letters.iter().map(|letter| (key(letter), stored_time(letter)));
        self.held.extend(added);
    }
}

/// The columns of a letter's key, and its record's time.
const KEY: [&str; 8] = [
    TOPIC, PARTITION, OFFSET, TIMESTAMP, PIPELINE, TABLE_UUID, CLUSTER_ID, TOPIC_ID,
];

/// Finds for each row its place in the topic of `origin`, and its time; `None` for a letter of another one.
///
/// - `batch`: rows with the columns of [`KEY`], and any others.
///
/// # Errors
/// If a column is missing.
pub fn keys_of(batch: &RecordBatch, origin: &Origin) -> iceberg::Result<Vec<Option<Held>>> {
    let column = |name: &str| {
        batch.column_by_name(name).ok_or_else(|| {
            iceberg::Error::new(
                iceberg::ErrorKind::Unexpected,
                format!("a scan came without column `{name}`"),
            )
        })
    };
    let partitions = column(PARTITION)?.as_primitive::<Int32Type>();
    let offsets = column(OFFSET)?.as_primitive::<Int64Type>();
    let times = column(TIMESTAMP)?.as_primitive::<TimestampMicrosecondType>();
    let table = origin.table.to_string();
    let source = &origin.source;
    let expected = [
        (TOPIC, Some(source.topic.as_str())),
        (PIPELINE, Some(origin.pipeline.as_str())),
        (TABLE_UUID, Some(table.as_str())),
        (CLUSTER_ID, source.cluster_id.as_deref()),
        (TOPIC_ID, source.topic_id.as_deref()),
    ];
    let mut texts: Vec<(&StringArray, Option<&str>)> = Vec::with_capacity(expected.len());
    for (name, text) in expected {
        texts.push((column(name)?.as_string(), text));
    }
    let is = |(column, text): &(&StringArray, Option<&str>), row: usize| {
        let found = column.is_valid(row).then(|| column.value(row));
        found == *text
    };
    let key = |row: usize| {
        let ours = texts.iter().all(|text| is(text, row)) && partitions.is_valid(row) && offsets.is_valid(row);
        // Rows with a negative key are nobody's letters: somebody else wrote them.
        let offset = ours.then(|| offsets.value(row)).filter(|offset| *offset >= 0)?;
        let time = times.is_valid(row).then(|| times.value(row));
        Some(((Partition(partitions.value(row)), Offset::new(offset)), time))
    };
    Ok((0..batch.num_rows()).map(key).collect())
}

/// Reads the keys of `origin` in one file; names the file if nothing is deleted from it.
async fn keys_in(table: &Table, task: FileScanTask, origin: &Origin) -> iceberg::Result<(Option<String>, Vec<Held>)> {
    let file = task.deletes.is_empty().then(|| task.data_file_path.clone());
    let tasks = futures::stream::once(std::future::ready(Ok(task))).boxed();
    let mut batches: ArrowRecordBatchStream = table.reader_builder().build().read(tasks)?.stream();
    let mut keys = Vec::new();
    while let Some(batch) = batches.try_next().await? {
        keys.extend(keys_of(&batch, origin)?.into_iter().flatten());
    }
    Ok((file, keys))
}

/// Where the record of a letter is.
pub fn key(letter: &DeadLetter) -> Key {
    (letter.partition, letter.offset)
}

/// Returns a filter for these keys; more rows may pass it.
pub(super) fn filter_of(keys: &HashSet<Key>) -> Option<Predicate> {
    filter(&floor(&Offsets::default(), keys.iter().copied()))
}

/// Returns a filter that keeps at least all rows at or above `from`; `None` if that is no partition.
fn filter(from: &Offsets) -> Option<Predicate> {
    let at_or_above = |offset: Offset| Reference::new(OFFSET).greater_than_or_equal_to(Datum::long(offset.get()));
    if from.len() > PARTITIONS_FILTERED_MAX {
        return from.iter().map(|(_, offset)| offset).min().map(at_or_above);
    }
    let of_one = |(partition, offset): Key| {
        Reference::new(PARTITION)
            .equal_to(Datum::int(partition.0))
            .and(at_or_above(offset))
    };
    from.iter().map(of_one).reduce(Predicate::or)
}
