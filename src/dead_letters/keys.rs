//! The keys of the letters that a dead-letter table holds: what keeps a replay from doubling them.

use std::collections::HashSet;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use futures::TryStreamExt;
use iceberg::expr::{Predicate, Reference};
use iceberg::spec::Datum;
use iceberg::table::Table;
use uuid::Uuid;

use super::columns::{OFFSET, PARTITION, TOPIC};
use crate::catalog::LoadedTable;
use crate::decode::DeadLetter;
use crate::offsets::{Offset, Offsets, Partition};

/// Partitions up to which the scan's filter names each one's offset. Beyond, evaluating the filter costs more than the
/// rows it spares, and the lowest offset of all stands for each.
const PARTITIONS_FILTERED_MAX: usize = 64;

/// A letter's place in its topic.
type Key = (Partition, Offset);

/// The keys that exactly one snapshot of the table holds, from given offsets on.
#[derive(Debug)]
pub(super) struct KnownKeys {
    topic: String,
    table: Uuid,
    snapshot: Option<i64>,
    /// For each partition the offset from which on all keys are known.
    from: Offsets,
    keys: HashSet<Key>,
}

/// Returns for each partition the offset from which on keys must be known: the ledger's, or that of a letter below it.
pub(super) fn floor(ledger: &Offsets, letters: &[&DeadLetter]) -> Offsets {
    let mut floor = ledger.clone();
    for letter in letters {
        if floor.get(letter.partition).is_none_or(|offset| offset > letter.offset) {
            floor.set(letter.partition, letter.offset);
        }
    }
    floor
}

impl KnownKeys {
    /// Reads the keys of `topic` at or above `from` in the table's current snapshot.
    ///
    /// The topic isn't part of the filter: tables are seldom shared, and a filter over integers trusts no statistics of
    /// shortened text.
    pub(super) async fn read(table: &LoadedTable, topic: &str, from: &Offsets) -> iceberg::Result<KnownKeys> {
        let mut known = KnownKeys {
            topic: topic.to_owned(),
            table: table.metadata.uuid(),
            snapshot: table.metadata.current_snapshot_id(),
            from: from.clone(),
            keys: HashSet::new(),
        };
        if let (Some(snapshot), Some(filter)) = (known.snapshot, filter(from)) {
            let table = Table::builder()
                .identifier(table.ident.clone())
                .metadata(table.metadata.clone())
                .metadata_location(&table.metadata_location)
                .file_io(table.file_io.clone())
                .runtime(iceberg::Runtime::try_current()?)
                .readonly(true)
                .build()?;
            let scan = table
                .scan()
                .snapshot_id(snapshot)
                .select([TOPIC, PARTITION, OFFSET])
                .with_filter(filter);
            let mut batches = scan.build()?.to_arrow().await?;
            while let Some(batch) = batches.try_next().await? {
                known.take(&batch)?;
            }
        }
        Ok(known)
    }

    /// Counts the keys.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Says whether these are the keys of the table as it was loaded, of this topic, and from these offsets on.
    ///
    /// Only the same snapshot will do: any other may hold letters of another run, or have lost some to a rollback.
    pub(super) fn cover(&self, table: &LoadedTable, topic: &str, from: &Offsets) -> bool {
        self.topic == topic
            && self.table == table.metadata.uuid()
            && self.snapshot == table.metadata.current_snapshot_id()
            && from
                .iter()
                .all(|(partition, offset)| self.from.get(partition).is_some_and(|known| known <= offset))
    }

    /// Forgets the keys below `from`: the main table has passed them.
    pub(super) fn forget_below(&mut self, from: &Offsets) {
        from.iter()
            .for_each(|(partition, offset)| self.from.set(partition, offset));
        let from = &self.from;
        self.keys
            .retain(|(partition, offset)| from.get(*partition).is_none_or(|known| *offset >= known));
    }

    /// Returns the letters that the table doesn't hold, order kept, each key once.
    pub(super) fn missing<'a>(&self, letters: &[&'a DeadLetter]) -> Vec<&'a DeadLetter> {
        let mut seen = HashSet::new();
        let new = |letter: &&DeadLetter| !self.keys.contains(&key(letter)) && seen.insert(key(letter));
        letters.iter().copied().filter(new).collect()
    }

    /// Moves to the snapshot that added `letters` and nothing else.
    pub(super) fn add(&mut self, snapshot: i64, letters: &[&DeadLetter]) {
        self.snapshot = Some(snapshot);
        self.keys.extend(letters.iter().map(|letter| key(letter)));
    }

    fn take(&mut self, batch: &RecordBatch) -> iceberg::Result<()> {
        let column = |name: &str| {
            batch.column_by_name(name).ok_or_else(|| {
                iceberg::Error::new(
                    iceberg::ErrorKind::Unexpected,
                    format!("a scan came without column `{name}`"),
                )
            })
        };
        let (topics, partitions, offsets) = (column(TOPIC)?, column(PARTITION)?, column(OFFSET)?);
        let topics = topics.as_string::<i32>().iter();
        let partitions = partitions.as_primitive::<Int32Type>().iter();
        let offsets = offsets.as_primitive::<Int64Type>().iter();
        for ((topic, partition), offset) in topics.zip(partitions).zip(offsets) {
            // Rows with a null or negative key are nobody's letters: somebody else wrote them.
            let (Some(topic), Some(partition), Some(offset @ 0..)) = (topic, partition, offset) else {
                continue;
            };
            let (partition, offset) = (Partition(partition), Offset::new(offset));
            if topic == self.topic && self.from.get(partition).is_some_and(|from| offset >= from) {
                self.keys.insert((partition, offset));
            }
        }
        Ok(())
    }
}

fn key(letter: &DeadLetter) -> Key {
    (letter.partition, letter.offset)
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
