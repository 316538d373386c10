//! Pure decisions over what an Iceberg table says of itself: the ledger, admission, the plan of a commit.

pub mod admit;
pub mod fits;
pub mod hive;
pub mod ledger;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use iceberg::spec::{DataFile, SchemaRef};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::offsets::{OffsetRanges, Partition};
use crate::table::ledger::Ledger;
use crate::units::Millis;

/// Names one window among all windows of all runs, for ever. Sequences grow within a run and are never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowId {
    /// The process that filled the window.
    pub run: Uuid,
    /// Its place among that process's windows.
    pub sequence: u64,
}

impl fmt::Display for WindowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.run.simple(), self.sequence)
    }
}

impl fmt::Debug for WindowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for WindowId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WindowId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (run, sequence) = text
            .split_once('/')
            .ok_or_else(|| serde::de::Error::custom("a window id is `run/sequence`"))?;
        Ok(WindowId {
            run: run.parse().map_err(serde::de::Error::custom)?,
            sequence: sequence.parse().map_err(serde::de::Error::custom)?,
        })
    }
}

/// Where every record of a window went. Each record is counted in exactly one of `rows`, `rejected`, `filtered`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Records taken from Kafka.
    pub records: u64,
    /// Records that became rows of the table.
    pub rows: u64,
    /// Records that couldn't be decoded or placed.
    pub rejected: u64,
    /// Records that make no row by definition.
    pub filtered: u64,
}

impl Tally {
    /// Adds what another chunk or window counted.
    pub fn add(&mut self, other: Tally) {
        self.records += other.records;
        self.rows += other.rows;
        self.rejected += other.rejected;
        self.filtered += other.filtered;
    }

    /// Panics if a record vanished or was counted twice: crashing is safe, a wrong commit is not.
    pub fn assert_complete(&self) {
        assert_eq!(
            self.records,
            self.rows + self.rejected + self.filtered,
            "every record is accounted for once: {self:?}"
        );
    }
}

/// A file of a window, with the partition spec it was written for.
#[derive(Debug, Clone)]
pub struct WindowFile {
    /// The partition spec's id in the table.
    pub spec_id: i32,
    /// The file as a manifest will list it.
    pub file: DataFile,
}

/// A window whose files are written and whose ranges are final; readers can't see it yet.
#[derive(Debug, Clone)]
pub struct SealedWindow {
    /// Its name.
    pub id: WindowId,
    /// The offsets it covers; never empty.
    pub ranges: OffsetRanges,
    /// Its data files; their record counts sum to `tally.rows`.
    pub files: Vec<WindowFile>,
    /// The account of its records.
    pub tally: Tally,
    /// The greatest event time per partition, in microseconds UTC.
    pub event_times: BTreeMap<Partition, i64>,
    /// The schemas of the table that its files were written under: one, or more where it was changed meanwhile.
    pub schemas: Vec<SchemaRef>,
}

/// What a commit decision needs to know about a table, as one load of it showed.
#[derive(Debug, Clone, PartialEq)]
pub struct TableView {
    /// The table's UUID; another one is another table, whatever its name.
    pub uuid: Uuid,
    /// The snapshot that `main` points at.
    pub snapshot: Option<i64>,
    /// The greatest sequence number of any snapshot that the table ever had; it never goes back. In format version 1, which
    /// numbers none, when the table was last changed, in ms.
    pub sequence: i64,
    /// The offsets that the table holds; `None` if no commit of ours is in it.
    pub ledger: Option<Ledger>,
    /// When the snapshot was made whose summary holds that ledger; `None` if that has expired, or there is no ledger.
    pub ledger_at: Option<Millis>,
    /// What its files must be like.
    pub layout: Arc<Layout>,
}

/// What files must be like to be added to a table.
#[derive(Debug, PartialEq)]
pub struct Layout {
    /// The table's columns.
    pub schema: SchemaRef,
    /// The partition specs that they can be of: those whose source columns are all there.
    pub specs: BTreeSet<i32>,
}
