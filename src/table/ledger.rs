//! The ledger: the offsets that the Iceberg table itself carries, and the only truth about them.
//!
//! It is written twice in one swap: in the snapshot's summary, so that a rollback rewinds data and offsets together, and in
//! a table property, which survives the expiry of snapshots. Reading walks the parents of the current snapshot to the first
//! summary of ours. Where parents have expired the walk goes on through what older metadata files say of them, and the
//! property counts only if its snapshot is met there: properties don't follow a rollback, so one can be ahead of the data.
//!
//! The summary of a large topic may tell only what differs from the commit before; see [`stored`].

mod packed;
pub mod stored;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use iceberg::spec::{FormatVersion, SnapshotRef, TableMetadata};
use serde::{Deserialize, Serialize};

use crate::offsets::{LeaderEpoch, Offsets, Partition, Position, RecordAt};
use crate::table::ledger::stored::{LedgerProperty, Stored};
use crate::table::{Layout, TableView, WindowId};
use crate::units::Millis;

/// The key of the ledger in snapshot summaries and table properties.
pub const LEDGER_KEY: &str = "aperio.ledger";

/// The version of the stored form that this program writes. It reads this one and those before; a greater one is refused.
///
/// Version 1 has no leader epochs.
pub const LEDGER_VERSION: u32 = 2;

/// Iceberg's summary key on a cherry-picked snapshot.
///
/// Source: Iceberg 1.12 `SnapshotSummary.java`, `SOURCE_SNAPSHOT_ID_PROP`; set by `CherryPickOperation.java`, which copies
/// the files and none of the picked snapshot's summary, unless it fast-forwards to that snapshot itself.
const SOURCE_SNAPSHOT_ID_KEY: &str = "source-snapshot-id";

/// The offsets of one table, always for all partitions of its topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    /// The Kafka topic.
    pub topic: String,
    /// The topic's id: a re-created topic has another. Absent where the broker is too old to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
    /// The Kafka cluster's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// For each partition the offset to read next.
    pub offsets: Offsets,
    /// For each partition the last window that moved it; absent while it is where the first run put it. Stored by window,
    /// with the list of its partitions: each snapshot keeps its ledger, and one window moves most partitions at once.
    #[serde(default, with = "by_value")]
    pub windows: BTreeMap<Partition, WindowId>,
    /// For each partition the greatest event time so far, in microseconds UTC.
    #[serde(default)]
    pub event_times: BTreeMap<Partition, i64>,
    /// For each partition the leader epoch of what comes right before its offset; absent where that isn't known. Stored by
    /// epoch: most partitions of a topic have one of a few.
    #[serde(default, with = "by_value", skip_serializing_if = "BTreeMap::is_empty")]
    pub leader_epochs: BTreeMap<Partition, LeaderEpoch>,
    /// The records that the newest commits have made rows of, or filtered, while an attempt that was never committed has left dead
    /// letters of them. Known here from the commit on until somebody has taken these letters back and commits next. Stored by
    /// partition, as first offset and count of each run; the first [`STALE_RUNS_MAX`] of them.
    #[serde(default, with = "by_runs", skip_serializing_if = "BTreeSet::is_empty")]
    pub stale_letters: BTreeSet<RecordAt>,
}

/// How many runs of stale letters are stored: 10 to 20 bytes each in every snapshot until they are taken back.
const STALE_RUNS_MAX: usize = 500;

/// How many letters these are at most.
const STALE_MAX: u64 = 1_000_000;

pub(super) mod by_runs {
    //! `{partition: [[first offset, count]]}` in the stored form for the places of the program.

    use std::collections::{BTreeMap, BTreeSet};

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{STALE_MAX, STALE_RUNS_MAX};
    use crate::offsets::{Offset, Partition, RecordAt};

    pub(in crate::table) fn serialize<S: Serializer>(
        places: &BTreeSet<RecordAt>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut stored: BTreeMap<i32, Vec<(i64, u64)>> = BTreeMap::new();
        let mut left = STALE_RUNS_MAX;
        for (partition, offset) in places.iter().take(STALE_MAX as usize) {
            let runs = stored.entry(partition.0).or_default();
            match runs.last_mut() {
                Some((first, count)) if offset.since(Offset::new(*first)) == *count => *count += 1,
                _ if left == 0 => break,
                _ => {
                    runs.push((offset.get(), 1));
                    left -= 1;
                }
            }
        }
        stored.retain(|_, runs| !runs.is_empty());
        stored.serialize(serializer)
    }

    pub(in crate::table) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeSet<RecordAt>, D::Error> {
        let stored = BTreeMap::<i32, Vec<(i64, u64)>>::deserialize(deserializer)?;
        let runs = || {
            stored
                .iter()
                .flat_map(|(partition, runs)| runs.iter().map(|run| (*partition, *run)))
        };
        let fits = |(_, (first, count)): (i32, (i64, u64))| first >= 0 && first.checked_add_unsigned(count).is_some();
        let count = runs().fold(0_u64, |sum, (_, (_, count))| sum.saturating_add(count));
        if count > STALE_MAX || !runs().all(fits) {
            return Err(D::Error::custom("stale letters at offsets that no partition has"));
        }
        let places = runs().flat_map(|(partition, (first, count))| {
            (0..count).map(move |more| (Partition(partition), Offset::new(first.saturating_add_unsigned(more))))
        });
        Ok(places.collect())
    }
}

pub(super) mod by_value {
    //! `{value: [partitions]}` in the stored form for the `{partition: value}` of the program.

    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::offsets::Partition;

    pub(in crate::table) fn serialize<T: Copy + Ord + Serialize, S: Serializer>(
        values: &BTreeMap<Partition, T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut stored: BTreeMap<T, Vec<i32>> = BTreeMap::new();
        for (partition, value) in values {
            stored.entry(*value).or_default().push(partition.0);
        }
        stored.serialize(serializer)
    }

    pub(in crate::table) fn deserialize<'de, T: Copy + Ord + Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<Partition, T>, D::Error> {
        let stored = BTreeMap::<T, Vec<i32>>::deserialize(deserializer)?;
        let pairs = stored.into_iter().flat_map(|(value, partitions)| {
            partitions
                .into_iter()
                .map(move |partition| (Partition(partition), value))
        });
        Ok(pairs.collect())
    }
}

/// Why a table's ledger can't be trusted. All of them are for a person to decide, exit code 3.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerProblem {
    /// The text isn't a ledger that this version can read.
    #[error("the ledger in {place} is not one that this version reads: {reason}")]
    Unreadable {
        /// Where it was found.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The walk ends at a snapshot that nothing describes any more, and the property isn't proven to belong to it.
    #[error(
        "the table's history is cut: snapshot {missing}, an ancestor of the current one, has expired and no older metadata file describes it, and the property `aperio.ledger` is of {}, which is not a proven ancestor",
        snapshot(*property)
    )]
    Cut {
        /// The ancestor that nothing describes.
        missing: i64,
        /// The snapshot that the property names, if there is a property.
        property: Option<i64>,
        /// The newest commit of ours that the table still lists, though it isn't in the history of the current snapshot.
        aside: Option<i64>,
    },
    /// The history is known, and the property isn't of the newest commit of ours in it.
    #[error(
        "the table was rolled back before its snapshots expired: the newest commit of aperio in its history is snapshot {proven} with offsets {offsets:?}, but the property `aperio.ledger` is of snapshot {property}, whose rows are not in the table"
    )]
    Contradicted {
        /// The newest commit of ours that older metadata files prove to be an ancestor.
        proven: i64,
        /// Its offsets.
        offsets: Offsets,
        /// The snapshot that the property names.
        property: i64,
    },
    /// The whole history is known and holds no commit of ours, but the property says that there were some.
    #[error(
        "the table was replaced, or rolled back to before its first commit of aperio: the history of {} holds none, but the property `aperio.ledger` is of snapshot {property}",
        snapshot(*current)
    )]
    Replaced {
        /// The current snapshot, if there is one.
        current: Option<i64>,
        /// The snapshot that the property names.
        property: i64,
        /// The newest commit of ours that the table still lists.
        aside: Option<i64>,
    },
    /// Somebody cherry-picked one of our snapshots: its rows are in the table without its offsets.
    #[error(
        "snapshot {snapshot} is a cherry-pick of snapshot {source_snapshot}, a commit of aperio: its rows are in the table a second time or without their offsets"
    )]
    CherryPicked {
        /// The foreign snapshot.
        snapshot: i64,
        /// The snapshot of ours that it copies.
        source_snapshot: i64,
        /// The foreign snapshot's parent.
        parent: Option<i64>,
    },
    /// Somebody cherry-picked a snapshot that nothing describes any more: it may have been one of ours.
    #[error(
        "snapshot {snapshot} is a cherry-pick of snapshot {source_snapshot}, which has expired and which no older metadata file describes: if that was a commit of aperio, its rows are in the table without their offsets"
    )]
    CherryPickedUnknown {
        /// The foreign snapshot.
        snapshot: i64,
        /// The snapshot that it copies.
        source_snapshot: i64,
        /// The foreign snapshot's parent.
        parent: Option<i64>,
    },
}

fn snapshot(id: Option<i64>) -> String {
    id.map_or("no snapshot".to_owned(), |id| format!("snapshot {id}"))
}

impl LedgerProblem {
    /// Says whether an older metadata file could show that there is no problem.
    pub fn open_to_history(&self) -> bool {
        matches!(
            self,
            LedgerProblem::Cut { .. } | LedgerProblem::CherryPickedUnknown { .. } | LedgerProblem::Replaced { .. }
        )
    }

    /// Says what a person can run, in Spark's words.
    pub fn hint(&self, table: &str) -> String {
        const SAFE: &str = "nothing was written";
        const RESET: &str = "`aperio sync-points reset`";
        let unset = format!("`ALTER TABLE {table} UNSET TBLPROPERTIES ('{LEDGER_KEY}')`");
        match self {
            LedgerProblem::Unreadable { .. } => {
                format!("{SAFE}; run the version of aperio that wrote it, or a newer one")
            }
            LedgerProblem::Contradicted { .. } => format!(
                "{SAFE}. To go on from the offsets of that history, run {unset} in Spark, then run again: the records above them are read again. To go on from others, run {RESET}"
            ),
            LedgerProblem::Cut { aside, .. } | LedgerProblem::Replaced { aside, .. } => {
                let back = aside.map(|id| {
                    format!("To go back to the newest commit of aperio, run `CALL system.set_current_snapshot('{table}', {id})` in Spark. ")
                });
                format!(
                    "{SAFE}. {}To keep the rows of now and choose the offsets to go on from, run {RESET}. To start over at `startOffset`, run {unset} in Spark, delete this source's rows from sync_points.parquet, then run again",
                    back.unwrap_or_default()
                )
            }
            LedgerProblem::CherryPicked { parent, .. } | LedgerProblem::CherryPickedUnknown { parent, .. } => {
                match parent {
                    Some(parent) => format!(
                        "{SAFE}. To undo the cherry-pick and what came after it, run `CALL system.rollback_to_snapshot('{table}', {parent})` in Spark, then run again: the offsets go back with it. To keep its rows, choose the offsets to go on from with {RESET}"
                    ),
                    None => format!(
                        "{SAFE}. Undo the cherry-pick, then run again; or choose the offsets to go on from with {RESET}"
                    ),
                }
            }
        }
    }
}

/// Snapshots that older metadata files of a table describe. What they say of one stays true: only that its parent is left out
/// once that has expired, as PyIceberg does.
#[derive(Debug, Default)]
pub struct History {
    snapshots: HashMap<i64, SnapshotRef>,
    complete: bool,
}

impl History {
    /// Takes in what one more metadata file of the same table lists.
    pub fn add(&mut self, older: &TableMetadata) {
        for snapshot in older.snapshots() {
            let known = self.snapshots.entry(snapshot.snapshot_id()).or_insert(snapshot.clone());
            if known.parent_snapshot_id().is_none() {
                known.clone_from(snapshot);
            }
        }
    }

    /// Notes that all metadata files that are left have been taken in.
    pub fn complete(&mut self) {
        self.complete = true;
    }
}

/// Reads the ledger that the table's current state carries, and the time of its snapshot as in [`TableView::ledger_at`].
///
/// Returns `None` where no commit of ours was ever in the table.
///
/// - `history`: nothing at first; where the problem is [open to it](LedgerProblem::open_to_history), more and more of
///   the table's older metadata files.
///
/// # Errors
/// [`LedgerProblem`] where the offsets can't be known for certain.
pub fn read(metadata: &TableMetadata, history: &History) -> Result<Option<(Ledger, Option<Millis>)>, LedgerProblem> {
    let known = |id: i64| metadata.snapshot_by_id(id).or_else(|| history.snapshots.get(&id));
    let mut next = metadata.current_snapshot_id();
    // Bounded: a chain of parents meets every known snapshot at most once.
    for _ in 0..=metadata.snapshots().len() + history.snapshots.len() {
        let Some(id) = next else {
            // The root was reached without a commit of ours.
            return match property(metadata)? {
                None => Ok(None),
                Some(found) => Err(LedgerProblem::Replaced {
                    current: metadata.current_snapshot_id(),
                    property: found.snapshot_id,
                    aside: newest_of_ours(metadata),
                }),
            };
        };
        let Some(snapshot) = known(id) else {
            return at_the_cut(metadata, history, id);
        };
        let summary = &snapshot.summary().additional_properties;
        let earlier = history.snapshots.get(&id);
        let parent = snapshot
            .parent_snapshot_id()
            .or_else(|| earlier.and_then(|snapshot| snapshot.parent_snapshot_id()));
        if let Some(source) = summary
            .get(SOURCE_SNAPSHOT_ID_KEY)
            .and_then(|text| text.parse::<i64>().ok())
        {
            let (snapshot, source_snapshot) = (id, source);
            match known(source).map(|picked| picked.summary().additional_properties.contains_key(LEDGER_KEY)) {
                Some(false) if !summary.contains_key(LEDGER_KEY) => {}
                None if !summary.contains_key(LEDGER_KEY) => {
                    return Err(LedgerProblem::CherryPickedUnknown {
                        snapshot,
                        source_snapshot,
                        parent,
                    });
                }
                _ => {
                    return Err(LedgerProblem::CherryPicked {
                        snapshot,
                        source_snapshot,
                        parent,
                    });
                }
            }
        }
        if let Some(text) = summary.get(LEDGER_KEY) {
            let ledger = told_by(metadata, history, id, text)?;
            if metadata.snapshot_by_id(id).is_some() {
                return Ok(Some((ledger, Some(Millis(snapshot.timestamp_ms())))));
            }
            // Expired. A property of another snapshot tells of commits that this history doesn't hold.
            return match property(metadata)? {
                Some(found) if found.snapshot_id != id => Err(LedgerProblem::Contradicted {
                    proven: id,
                    offsets: ledger.offsets,
                    property: found.snapshot_id,
                }),
                _ => Ok(Some((ledger, None))),
            };
        }
        next = parent;
    }
    Err(LedgerProblem::Unreadable {
        place: "the table's history".to_owned(),
        reason: "the parents of its snapshots lead in a circle".to_owned(),
    })
}

/// Reads the ledger that the summary of snapshot `id` tells: as a whole, or as what differs from an earlier one.
fn told_by(metadata: &TableMetadata, history: &History, id: i64, text: &str) -> Result<Ledger, LedgerProblem> {
    let known = |id: i64| metadata.snapshot_by_id(id).or_else(|| history.snapshots.get(&id));
    let summary_of = |id: i64| format!("the summary of snapshot {id}");
    let mut steps = Vec::new();
    let (mut at, mut text) = (id, text);
    // Ends: each round comes to another snapshot; more rounds than there are snapshots are a circle, which is refused.
    let whole = loop {
        let differences = match stored::read(text, || summary_of(at))? {
            Stored::Whole(ledger) => break ledger,
            Stored::Differences(differences) => differences,
        };
        let property = property(metadata)?.filter(|found| found.table_uuid == metadata.uuid());
        if let Some(found) = property.as_ref().filter(|found| found.snapshot_id == at) {
            differences
                .agrees(&found.ledger)
                .map_err(|reason| LedgerProblem::Unreadable {
                    place: format!("the table property `{LEDGER_KEY}`"),
                    reason,
                })?;
            break found.ledger.clone();
        }
        let base = differences.base;
        steps.push((at, differences));
        if let Some(found) = property.filter(|found| found.snapshot_id == base) {
            break found.ledger;
        }
        let Some(snapshot) = known(base) else {
            return Err(LedgerProblem::Cut {
                missing: base,
                property: self::property(metadata)?.map(|found| found.snapshot_id),
                aside: newest_of_ours(metadata).filter(|newest| *newest != id),
            });
        };
        let next = snapshot.summary().additional_properties.get(LEDGER_KEY);
        let circle = steps.len() > metadata.snapshots().len() + history.snapshots.len();
        text = next.filter(|_| !circle).ok_or_else(|| LedgerProblem::Unreadable {
            place: summary_of(at),
            reason: format!("it is told from snapshot {base}, which leads to no ledger"),
        })?;
        at = base;
    };
    steps.iter().rev().try_fold(whole, |ledger, (at, differences)| {
        differences.onto(&ledger).map_err(|reason| LedgerProblem::Unreadable {
            place: summary_of(*at),
            reason,
        })
    })
}

/// Decides where the walk has come to `missing`, which a snapshot of the walk names as its parent, so it is an ancestor
/// for certain, and which nothing describes.
fn at_the_cut(
    metadata: &TableMetadata,
    history: &History,
    missing: i64,
) -> Result<Option<(Ledger, Option<Millis>)>, LedgerProblem> {
    let property = property(metadata)?;
    let ours = |snapshot: &SnapshotRef| snapshot.summary().additional_properties.contains_key(LEDGER_KEY);
    match property {
        Some(found) if found.snapshot_id == missing && found.table_uuid == metadata.uuid() => {
            Ok(Some((found.ledger, None)))
        }
        // A table with a past of its own that was never ours: every commit of ours sets the property.
        None if history.complete && !metadata.snapshots().chain(history.snapshots.values()).any(ours) => Ok(None),
        found => Err(LedgerProblem::Cut {
            missing,
            property: found.map(|found| found.snapshot_id),
            aside: newest_of_ours(metadata),
        }),
    }
}

fn property(metadata: &TableMetadata) -> Result<Option<LedgerProperty>, LedgerProblem> {
    let text = metadata.properties().get(LEDGER_KEY);
    text.map(|text| stored::read_property(text)).transpose()
}

/// Finds the newest commit of ours in the history of the current snapshot, as far as the metadata lists it, and what its summary
/// says.
fn newest_in_history(metadata: &TableMetadata) -> Option<(i64, &str)> {
    let mut next = metadata.current_snapshot();
    // Bounded: a chain of parents meets every listed snapshot at most once.
    for _ in 0..metadata.snapshots().len() {
        let snapshot = next?;
        if let Some(text) = snapshot.summary().additional_properties.get(LEDGER_KEY) {
            return Some((snapshot.snapshot_id(), text));
        }
        next = metadata.snapshot_by_id(snapshot.parent_snapshot_id()?);
    }
    None
}

/// Returns the newest commit of ours that the metadata lists, whether or not it is in the current history.
fn newest_of_ours(metadata: &TableMetadata) -> Option<i64> {
    metadata
        .snapshots()
        .filter(|snapshot| snapshot.summary().additional_properties.contains_key(LEDGER_KEY))
        // In format version 1 none has a sequence number.
        .max_by_key(|snapshot| (snapshot.sequence_number(), snapshot.timestamp_ms()))
        .map(|snapshot| snapshot.snapshot_id())
}

/// Takes the facts of one load of a table; see [`read`].
///
/// # Errors
/// See [`read`].
pub fn view(metadata: &TableMetadata, history: &History) -> Result<TableView, LedgerProblem> {
    let (ledger, ledger_at) = read(metadata, history)?.unzip();
    Ok(TableView {
        uuid: metadata.uuid(),
        snapshot: metadata.current_snapshot_id(),
        sequence: match metadata.format_version() {
            FormatVersion::V1 => metadata.last_updated_ms(),
            _ => metadata.last_sequence_number(),
        },
        ledger,
        ledger_at: ledger_at.flatten(),
        layout: Arc::new(layout(metadata)),
    })
}

/// Says what files must be like to be added to the table.
pub fn layout(metadata: &TableMetadata) -> Layout {
    let schema = metadata.current_schema();
    let whole = metadata
        .partition_specs_iter()
        .filter(|spec| spec.partition_type(schema).is_ok());
    Layout {
        specs: whole.map(|spec| spec.spec_id()).collect(),
        schema: schema.clone(),
    }
}

/// Says whether a ledger of this version can be read.
///
/// # Errors
/// Why not.
pub(super) fn readable(version: Option<u64>) -> Result<(), String> {
    if version.is_some_and(|version| (1..=u64::from(LEDGER_VERSION)).contains(&version)) {
        return Ok(());
    }
    let found = version.map_or("none".to_owned(), |version| version.to_string());
    Err(format!(
        "its version is {found}, this program reads 1 to {LEDGER_VERSION}; install a newer aperio"
    ))
}

impl Ledger {
    /// Makes the ledger of a topic of which nothing was read yet.
    pub fn new(topic: String, topic_id: Option<String>, cluster_id: Option<String>) -> Self {
        Ledger {
            topic,
            topic_id,
            cluster_id,
            offsets: Offsets::default(),
            windows: BTreeMap::new(),
            event_times: BTreeMap::new(),
            leader_epochs: BTreeMap::new(),
            stale_letters: BTreeSet::new(),
        }
    }

    /// Returns where a partition is to be read next.
    pub fn position(&self, partition: Partition) -> Option<Position> {
        Some(Position {
            offset: self.offsets.get(partition)?,
            leader_epoch: self.leader_epochs.get(&partition).copied(),
        })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::stored::Form;
    use super::*;
    use crate::offsets::Offset;

    /// What a made-up snapshot is.
    #[derive(Clone, Copy)]
    enum Kind {
        /// A commit of ours that leaves partition 0 at this offset.
        Ours(i64),
        /// Another engine's.
        Foreign,
        /// Another engine's cherry-pick of this snapshot.
        Pick(i64),
    }
    use Kind::{Foreign, Ours, Pick};

    const TABLE: Uuid = Uuid::from_u128(5);

    fn readable(ledger: &Ledger) -> String {
        let whole = Form {
            spare_bytes: 10_000,
            steps_max: 0,
        };
        let nothing = metadata(&[], None);
        stored::texts(ledger, &nothing, true, 1, whole).summary
    }

    fn ledger_at(offset: i64) -> Ledger {
        Ledger {
            topic: "t".into(),
            topic_id: None,
            cluster_id: None,
            offsets: [(Partition(0), Offset::new(offset))].into_iter().collect(),
            windows: BTreeMap::new(),
            event_times: BTreeMap::new(),
            leader_epochs: BTreeMap::new(),
            stale_letters: BTreeSet::new(),
        }
    }

    /// A metadata file that lists `(id, parent, kind)`, is at the last of them, and has the property of that snapshot.
    fn metadata(snapshots: &[(i64, i64, Kind)], property: Option<(i64, Uuid)>) -> TableMetadata {
        let listed: Vec<_> = snapshots
            .iter()
            .map(|(id, parent, kind)| {
                let summary = match kind {
                    Ours(offset) => {
                        serde_json::json!({"operation": "append", LEDGER_KEY: readable(&ledger_at(*offset))})
                    }
                    Foreign => serde_json::json!({"operation": "append"}),
                    Pick(source) => {
                        serde_json::json!({"operation": "append", "source-snapshot-id": source.to_string()})
                    }
                };
                let mut snapshot = serde_json::json!({
                    "snapshot-id": id, "sequence-number": id, "timestamp-ms": id * 1000,
                    "manifest-list": "/t/l", "schema-id": 0, "summary": summary,
                });
                if *parent > 0 {
                    snapshot["parent-snapshot-id"] = (*parent).into();
                }
                snapshot
            })
            .collect();
        let properties = property.map_or(serde_json::json!({}), |(id, table)| {
            let ledger = readable(&ledger_at(99));
            let text = format!(r#"{{"snapshotId":{id},"tableUuid":"{table}","ledger":{ledger}}}"#);
            serde_json::json!({LEDGER_KEY: text})
        });
        let mut metadata = serde_json::json!({
            "format-version": 2, "table-uuid": TABLE, "location": "/t", "last-sequence-number": 100,
            "last-updated-ms": 100_000, "last-column-id": 1, "current-schema-id": 0,
            "schemas": [{"type": "struct", "schema-id": 0, "fields": [{"id": 1, "name": "a", "required": true, "type": "long"}]}],
            "partition-specs": [{"spec-id": 0, "fields": []}], "default-spec-id": 0, "last-partition-id": 999,
            "sort-orders": [{"order-id": 0, "fields": []}], "default-sort-order-id": 0,
            "properties": properties, "snapshots": listed,
        });
        if let Some((current, ..)) = snapshots.last() {
            metadata["current-snapshot-id"] = (*current).into();
            metadata["refs"] = serde_json::json!({"main": {"snapshot-id": current, "type": "branch"}});
        }
        serde_json::from_value(metadata).expect("metadata")
    }

    /// Reads with the older files known; `expect` is partition 0's offset and the ledger's time, or a part of the problem.
    fn check(now: &TableMetadata, older: &[&[(i64, i64, Kind)]], expect: Result<Option<(i64, Option<i64>)>, &str>) {
        let mut history = History::default();
        for older in older {
            history.add(&metadata(older, None));
        }
        history.complete();
        let found = read(now, &history).map_err(|problem| problem.to_string());
        match expect {
            Ok(expect) => {
                let found = found.expect("the offsets are known").map(|(ledger, at)| {
                    let offset = ledger.offsets.get(Partition(0)).expect("partition 0");
                    (offset.get(), at.map(|at| at.0))
                });
                assert_eq!(found, expect);
            }
            Err(part) => {
                let problem = found.expect_err("the offsets can't be known");
                assert!(problem.contains(part), "{problem}");
            }
        }
    }

    #[test]
    fn the_walk_goes_past_others_to_the_newest_commit_of_ours() {
        let listed = [(1, 0, Ours(5)), (2, 1, Ours(10)), (3, 2, Foreign), (4, 3, Foreign)];
        check(&metadata(&listed, Some((2, TABLE))), &[], Ok(Some((10, Some(2_000)))));
        // Rolled back: the property stays and isn't asked.
        check(
            &metadata(&listed[..1], Some((2, TABLE))),
            &[],
            Ok(Some((5, Some(1_000)))),
        );
        check(&metadata(&[(3, 0, Foreign)], None), &[], Ok(None));
        check(&metadata(&[], None), &[], Ok(None));
    }

    #[test]
    fn a_property_counts_where_its_snapshot_is_a_proven_ancestor() {
        let now = metadata(&[(4, 3, Foreign)], Some((3, TABLE)));
        check(&now, &[], Ok(Some((99, None))));
        let now = metadata(&[(6, 5, Foreign)], Some((3, TABLE)));
        check(
            &now,
            &[],
            Err("snapshot 5, an ancestor of the current one, has expired"),
        );
        check(&now, &[&[(5, 4, Foreign)]], Err("snapshot 4, an ancestor"));
        check(&now, &[&[(5, 4, Foreign)], &[(4, 3, Foreign)]], Ok(Some((99, None))));
        check(
            &now,
            &[&[(3, 0, Ours(10)), (4, 3, Foreign), (5, 4, Foreign)]],
            Ok(Some((10, None))),
        );
        let another = metadata(&[(4, 3, Foreign)], Some((3, Uuid::from_u128(6))));
        check(&another, &[], Err("not a proven ancestor"));
    }

    #[test]
    fn a_property_ahead_of_the_data_is_not_believed() {
        // 3 was rolled back, 4 is another engine's, then all but 4 expired.
        let now = [(4, 2, Foreign)];
        let older = [(1, 0, Ours(5)), (2, 1, Ours(10)), (3, 2, Ours(99))];
        check(&metadata(&now, Some((3, TABLE))), &[], Err("snapshot 2, an ancestor"));
        let contradicted = "snapshot 2 with offsets {p0: 10}, but the property `aperio.ledger` is of snapshot 3";
        check(&metadata(&now, Some((3, TABLE))), &[&older], Err(contradicted));
        // Without the property, as the hint says, the proven history counts.
        check(&metadata(&now, None), &[&older], Ok(Some((10, None))));
        check(&metadata(&now, None), &[&older[..1]], Err("snapshot 2, an ancestor"));
    }

    #[test]
    fn a_parent_that_an_expiry_left_out_is_the_one_that_older_files_tell() {
        // Ours expired, and then the compaction that came after it has no parent any more.
        let now = metadata(&[(3, 0, Foreign)], Some((2, TABLE)));
        let before = [(1, 0, Ours(5)), (2, 1, Ours(99)), (3, 2, Foreign)];
        check(&now, &[&before], Ok(Some((99, None))));
        // Whichever file tells first.
        check(&now, &[&[(3, 0, Foreign)], &before], Ok(Some((99, None))));
        check(&now, &[&before[..2]], Err("was replaced"));
        // Rolled back before that: the property is of another.
        let now = metadata(&[(4, 0, Foreign)], Some((2, TABLE)));
        let before = [(1, 0, Ours(5)), (2, 1, Ours(99)), (4, 1, Foreign)];
        check(&now, &[&before], Err("was rolled back"));
    }

    #[test]
    fn a_replaced_table_is_not_one_that_never_was_ours() {
        let replaced = "the history of no snapshot holds none, but the property `aperio.ledger` is of snapshot 2";
        check(&metadata(&[], Some((2, TABLE))), &[], Err(replaced));
        let now = metadata(&[(2, 1, Ours(5)), (3, 0, Foreign)], Some((2, TABLE)));
        check(&now, &[], Err("the history of snapshot 3 holds none"));
        // An existing table whose own past has expired can be adopted.
        check(&metadata(&[(3, 2, Foreign)], None), &[&[(2, 1, Foreign)]], Ok(None));
        let unread = read(&metadata(&[(3, 2, Foreign)], None), &History::default());
        assert!(
            unread.is_err_and(|problem| problem.open_to_history()),
            "older files may tell otherwise"
        );
    }

    #[test]
    fn a_cherry_pick_of_ours_or_of_something_unknown_is_refused() {
        let ours = [(1, 0, Ours(5)), (2, 1, Ours(10)), (3, 1, Foreign), (4, 3, Pick(2))];
        check(
            &metadata(&ours, Some((2, TABLE))),
            &[],
            Err("snapshot 4 is a cherry-pick of snapshot 2, a commit of aperio"),
        );
        let theirs = [(1, 0, Ours(5)), (2, 1, Foreign), (3, 1, Foreign), (4, 3, Pick(2))];
        check(&metadata(&theirs, Some((1, TABLE))), &[], Ok(Some((5, Some(1_000)))));
        let expired = metadata(&[ours[0], ours[2], ours[3]], Some((2, TABLE)));
        check(
            &expired,
            &[],
            Err("which has expired and which no older metadata file describes"),
        );
        check(&expired, &[&ours[1..2]], Err("a commit of aperio: its rows"));
        check(&expired, &[&theirs[1..2]], Ok(Some((5, Some(1_000)))));
        // Taken up by a later commit of ours before anybody noticed: not looked for any more.
        let later = [(2, 1, Ours(10)), (4, 3, Pick(2)), (5, 4, Ours(20))];
        check(&metadata(&later, Some((5, TABLE))), &[], Ok(Some((20, Some(5_000)))));
    }

    #[test]
    fn every_problem_says_what_to_run() {
        let problem = read(&metadata(&[], Some((2, TABLE))), &History::default()).expect_err("replaced");
        insta::assert_snapshot!(problem.hint("default.t"), @"nothing was written. To keep the rows of now and choose the offsets to go on from, run `aperio sync-points reset`. To start over at `startOffset`, run `ALTER TABLE default.t UNSET TBLPROPERTIES ('aperio.ledger')` in Spark, delete this source's rows from sync_points.parquet, then run again");
        let now = metadata(&[(2, 1, Ours(5)), (3, 0, Foreign)], Some((2, TABLE)));
        let problem = read(&now, &History::default()).expect_err("replaced");
        assert!(
            problem
                .hint("d.t")
                .contains("`CALL system.set_current_snapshot('d.t', 2)`"),
            "{}",
            problem.hint("d.t")
        );
        let now = metadata(&[(2, 1, Ours(5)), (4, 3, Pick(2))], None);
        let problem = read(&now, &History::default()).expect_err("cherry-picked");
        assert!(
            problem
                .hint("d.t")
                .contains("`CALL system.rollback_to_snapshot('d.t', 3)`"),
            "{}",
            problem.hint("d.t")
        );
    }
}
