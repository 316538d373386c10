//! The dead-letter table that pipelines share: rows as the program writes them and finds its keys in, swapped from exactly
//! the snapshot that they were compared with.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::LazyLock;

use aperio::dead_letters::keys::{Key, KnownKeys, keys_of};
use aperio::dead_letters::{Origin, columns, taken_back};
use aperio::decode::DeadLetter;
use aperio::offsets::{LeaderEpoch, Offset, Offsets, Partition};
use aperio::schema::RowPlanRef;
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use uuid::Uuid;

use crate::world::At;

static PLAN: LazyLock<RowPlanRef> = LazyLock::new(|| {
    let schema = columns::schema().expect("the program's columns");
    columns::plan(&schema.into()).expect("a table that can hold letters")
});

/// The table as somebody loaded it. Later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LetterBase {
    pub table: Uuid,
    pub snapshot: Option<i64>,
}

/// What one swap does to the table.
#[derive(Debug, Clone)]
pub struct LetterChange {
    pub stored: Vec<DeadLetter>,
    pub taken_back: HashSet<Key>,
    /// How often others had moved the main table when its ledger told what is to be taken back.
    pub moves: u32,
}

/// The letter of a reject. What a letter doesn't tell, under which leader its record was written, it has in the place of the
/// schema's id. What is written under another leader has another time.
pub fn letter(topic: &str, (partition, offset, epoch): At) -> DeadLetter {
    DeadLetter {
        topic: topic.to_owned(),
        partition,
        offset,
        timestamp_ms: (epoch.0 > 0).then(|| i64::from(epoch.0)),
        key: None,
        value: None,
        headers: Vec::new(),
        stage: "decode",
        error: String::new(),
        schema_id: Some(epoch.0),
    }
}

/// The record that a letter is of.
pub fn record(letter: &DeadLetter) -> At {
    let epoch = letter.schema_id.expect("every letter has one here");
    (letter.partition, letter.offset, LeaderEpoch(epoch))
}

/// The records of letters, and how many letters each has.
pub type Records = BTreeMap<At, u32>;

pub struct LetterTable {
    base: LetterBase,
    /// By name. A file never changes.
    files: BTreeMap<String, RecordBatch>,
    made: u32,
    /// What a reader finds, by pipeline.
    shown: BTreeMap<String, Records>,
    /// What is in tables that were renamed, by pipeline.
    renamed: BTreeMap<String, Records>,
    none: Records,
}

impl LetterTable {
    pub fn new() -> Self {
        LetterTable {
            base: LetterBase {
                table: Uuid::from_u128(500),
                snapshot: None,
            },
            files: BTreeMap::new(),
            made: 0,
            shown: BTreeMap::new(),
            renamed: BTreeMap::new(),
            none: Records::new(),
        }
    }

    pub fn load(&self) -> LetterBase {
        self.base
    }

    /// Reads the keys of `origin` from these offsets on, from files that aren't known yet.
    pub fn read(&self, origin: &Origin, from: &Offsets, before: Option<KnownKeys>) -> KnownKeys {
        let before = before.map(|before| before.by_file(self.base.table, origin, from));
        let mut before: HashMap<_, _> = before.unwrap_or_default();
        let mut known = KnownKeys::new(self.base.table, self.base.snapshot, origin, from);
        for (name, rows) in &self.files {
            let read = || keys_of(rows, origin).expect("the program's columns");
            let keys = before.remove(name);
            let keys = keys.unwrap_or_else(|| read().into_iter().flatten().collect());
            known.take(Some(name.clone()), keys);
        }
        known
    }

    /// Changes the letters of exactly `base`; returns the table as it is then, or nothing where it has moved.
    pub fn swap(&mut self, base: LetterBase, origin: &Origin, change: &LetterChange) -> Option<LetterBase> {
        if base != self.base {
            return None;
        }
        if !change.taken_back.is_empty() {
            for (name, rows) in std::mem::take(&mut self.files) {
                let stay = taken_back::without(&rows, origin, &change.taken_back).expect("the program's columns");
                if stay.num_rows() == rows.num_rows() {
                    self.files.insert(name, rows);
                } else if stay.num_rows() > 0 {
                    self.add(stay);
                }
            }
            self.shown.clear();
            for rows in self.files.values() {
                show(&mut self.shown, rows);
            }
        }
        if !change.stored.is_empty() {
            let stored: Vec<&DeadLetter> = change.stored.iter().collect();
            let rows = columns::rows(&PLAN, origin, &stored).expect("rows of the table");
            show(&mut self.shown, &rows);
            self.add(rows);
        }
        let next = self.base.snapshot.unwrap_or_default() + 1;
        self.base.snapshot = Some(next);
        Some(self.base)
    }

    fn add(&mut self, rows: RecordBatch) {
        self.made += 1;
        self.files.insert(format!("{}.parquet", self.made), rows);
    }

    /// A person renames the table; the next letter makes another.
    pub fn rename(&mut self) {
        for (pipeline, records) in std::mem::take(&mut self.shown) {
            let renamed = self.renamed.entry(pipeline).or_default();
            for (at, letters) in records {
                *renamed.entry(at).or_default() += letters;
            }
        }
        self.files.clear();
        self.base = LetterBase {
            table: Uuid::from_u128(self.base.table.as_u128() + 1),
            snapshot: None,
        };
    }

    /// The letters of a pipeline.
    ///
    /// - `whose`: see [`whose`].
    pub fn of(&self, whose: &str) -> &Records {
        self.shown.get(whose).unwrap_or(&self.none)
    }

    /// Whether a table that was renamed holds a letter of this record.
    pub fn was_renamed(&self, whose: &str, at: At) -> bool {
        self.renamed.get(whose).is_some_and(|held| held.contains_key(&at))
    }
}

/// As a reader sees whose a letter is.
pub fn whose(origin: &Origin) -> String {
    let source = &origin.source;
    let ids = (source.cluster_id.as_deref(), source.topic_id.as_deref());
    format!("{} {} {} {ids:?}", origin.pipeline, origin.table, source.topic)
}

fn show(shown: &mut BTreeMap<String, Records>, rows: &RecordBatch) {
    let text = |name: &str| rows[name].as_string::<i32>();
    let number = |name: &str| rows[name].as_primitive::<Int32Type>();
    let [pipelines, tables, topics] = ["pipeline", "table_uuid", "topic"].map(text);
    let [clusters, topic_ids] = ["cluster_id", "topic_id"].map(text);
    let [partitions, epochs] = ["partition", "schema_id"].map(number);
    let offsets = rows["offset"].as_primitive::<Int64Type>();
    for row in 0..rows.num_rows() {
        let ids = (Some(clusters.value(row)), Some(topic_ids.value(row)));
        let (pipeline, table, topic) = (pipelines.value(row), tables.value(row), topics.value(row));
        let at = (
            Partition(partitions.value(row)),
            Offset::new(offsets.value(row)),
            LeaderEpoch(epochs.value(row)),
        );
        let of = shown.entry(format!("{pipeline} {table} {topic} {ids:?}")).or_default();
        *of.entry(at).or_default() += 1;
    }
}
