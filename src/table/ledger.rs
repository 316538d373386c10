//! The ledger: the offsets that the Iceberg table itself carries, and the only truth about them.
//!
//! It is written twice in one swap: in the snapshot's summary, so that a rollback rewinds data and offsets together, and in
//! a table property, which survives the expiry of snapshots. Reading walks the parents of the current snapshot to the first
//! summary of ours. The property counts only where its snapshot is a proven ancestor, because properties don't follow a
//! rollback.

use std::collections::BTreeMap;

use iceberg::spec::TableMetadata;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::offsets::{Offsets, Partition};
use crate::table::{TableView, WindowId};

/// The key of the ledger in snapshot summaries and table properties.
pub const LEDGER_KEY: &str = "aperio.ledger";

/// The version of the stored form that this program writes. Readers refuse a greater one.
pub const LEDGER_VERSION: u32 = 1;

/// Iceberg's summary key on a cherry-picked snapshot.
///
/// Source: Apache Iceberg, `SnapshotSummary.SOURCE_SNAPSHOT_ID_PROP`.
const SOURCE_SNAPSHOT_ID_KEY: &str = "source-snapshot-id";

/// The offsets of one table, always for all partitions of its topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    /// The stored form's version.
    pub version: u32,
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
    /// For each partition the last window that moved it; absent while it is where the first run put it.
    #[serde(default)]
    pub windows: BTreeMap<Partition, WindowId>,
    /// For each partition the greatest event time so far, in microseconds UTC.
    #[serde(default)]
    pub event_times: BTreeMap<Partition, i64>,
}

/// The ledger as the table property stores it: bound to a snapshot and a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerProperty {
    /// The snapshot whose summary holds the same ledger.
    pub snapshot_id: i64,
    /// The table that the property was written for.
    pub table_uuid: Uuid,
    /// The ledger.
    pub ledger: Ledger,
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
    /// No snapshot of ours is left in the ancestry, and the property isn't proven to belong to it.
    #[error(
        "the table's history was cut: no ancestor of snapshot {current:?} carries the offsets, and the property `aperio.ledger` belongs to snapshot {property:?}, which is not a proven ancestor"
    )]
    Cut {
        /// The current snapshot, if there is one.
        current: Option<i64>,
        /// The snapshot that the property names, if there is a property.
        property: Option<i64>,
    },
    /// Somebody cherry-picked one of our snapshots: its rows are in the table without its offsets.
    #[error(
        "snapshot {snapshot} is a cherry-pick of {source_snapshot}, a commit of aperio: its rows are in the table a second time or without their offsets"
    )]
    CherryPicked {
        /// The foreign snapshot.
        snapshot: i64,
        /// The snapshot of ours that it copies.
        source_snapshot: i64,
    },
}

/// Reads the ledger that the table's current state carries.
///
/// Returns `None` where no commit of ours was ever in the table.
///
/// # Errors
/// [`LedgerProblem`] where the offsets can't be known for certain.
pub fn read(metadata: &TableMetadata) -> Result<Option<Ledger>, LedgerProblem> {
    let property = match metadata.properties().get(LEDGER_KEY) {
        None => None,
        Some(text) => Some(parse::<LedgerProperty>(text, || {
            format!("the table property `{LEDGER_KEY}`")
        })?),
    };
    let current = metadata.current_snapshot_id();
    let cut = |property: Option<&LedgerProperty>| LedgerProblem::Cut {
        current,
        property: property.map(|p| p.snapshot_id),
    };
    let mut next = current;
    // Bounded: parents are followed at most as many times as the metadata lists snapshots.
    for _ in 0..=metadata.snapshots().len() {
        let Some(id) = next else {
            // The root was reached without a commit of ours.
            return match &property {
                None => Ok(None),
                Some(found) => Err(cut(Some(found))),
            };
        };
        let Some(snapshot) = metadata.snapshot_by_id(id) else {
            // `id` is named as parent by a snapshot that we walked: an ancestor for certain, though expired.
            return match property {
                Some(found) if found.snapshot_id == id && found.table_uuid == metadata.uuid() => Ok(Some(found.ledger)),
                found => Err(cut(found.as_ref())),
            };
        };
        let summary = &snapshot.summary().additional_properties;
        if let Some(source) = summary
            .get(SOURCE_SNAPSHOT_ID_KEY)
            .and_then(|text| text.parse::<i64>().ok())
        {
            let ours = metadata
                .snapshot_by_id(source)
                .is_some_and(|picked| picked.summary().additional_properties.contains_key(LEDGER_KEY));
            if ours || summary.contains_key(LEDGER_KEY) {
                return Err(LedgerProblem::CherryPicked {
                    snapshot: id,
                    source_snapshot: source,
                });
            }
        }
        if let Some(text) = summary.get(LEDGER_KEY) {
            return parse::<Ledger>(text, || format!("the summary of snapshot {id}")).map(Some);
        }
        next = snapshot.parent_snapshot_id();
    }
    Err(cut(property.as_ref()))
}

/// Takes the facts of one load of a table.
///
/// # Errors
/// See [`read`].
pub fn view(metadata: &TableMetadata) -> Result<TableView, LedgerProblem> {
    Ok(TableView {
        uuid: metadata.uuid(),
        snapshot: metadata.current_snapshot_id(),
        ledger: read(metadata)?,
    })
}

fn parse<T: for<'de> Deserialize<'de>>(text: &str, place: impl Fn() -> String) -> Result<T, LedgerProblem> {
    let unreadable = |reason: String| LedgerProblem::Unreadable { place: place(), reason };
    let value: serde_json::Value = serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))?;
    let version = value
        .get("version")
        .or_else(|| value.pointer("/ledger/version"))
        .and_then(|v| v.as_u64());
    if version != Some(u64::from(LEDGER_VERSION)) {
        let found = version.map_or("none".to_owned(), |v| v.to_string());
        return Err(unreadable(format!(
            "its version is {found}, this program reads {LEDGER_VERSION}; install a newer aperio"
        )));
    }
    serde_json::from_value(value).map_err(|error| unreadable(error.to_string()))
}

impl Ledger {
    /// Returns the stored text, the same for the same ledger.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("a ledger is maps of numbers and strings, which always serialise")
    }

    /// Returns the text of the table property, bound to the snapshot that holds the same ledger.
    pub fn to_property_text(&self, snapshot_id: i64, table_uuid: Uuid) -> String {
        let property = LedgerProperty {
            snapshot_id,
            table_uuid,
            ledger: self.clone(),
        };
        serde_json::to_string(&property).expect("a ledger is maps of numbers and strings, which always serialise")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offsets::Offset;

    #[test]
    fn the_stored_text_is_what_the_contract_names() {
        let run = Uuid::from_u128(7);
        let ledger = Ledger {
            version: 1,
            topic: "user-events".into(),
            topic_id: Some("abc".into()),
            cluster_id: Some("c1".into()),
            offsets: [(Partition(0), Offset::new(8812)), (Partition(1), Offset::ZERO)]
                .into_iter()
                .collect(),
            windows: [(Partition(0), WindowId { run, sequence: 3 })].into(),
            event_times: BTreeMap::new(),
        };
        let text = ledger.to_text();
        insta::assert_snapshot!(text, @r#"{"version":1,"topic":"user-events","topicId":"abc","clusterId":"c1","offsets":{"0":8812,"1":0},"windows":{"0":"00000000000000000000000000000007/3"},"eventTimes":{}}"#);
        assert_eq!(serde_json::from_str::<Ledger>(&text).expect("reads back"), ledger);
    }

    #[test]
    fn a_ledger_of_a_later_version_is_refused_by_its_number() {
        let problem = parse::<Ledger>(r#"{"version":2}"#, || "x".into()).expect_err("version 2 is unknown");
        assert!(problem.to_string().contains("version is 2"), "{problem}");
    }
}
