//! The record of a table of plain Parquet files (`materialize.format: parquet`): rows of sync_points, since the files
//! have no metadata of their own. Pure: what the rows say, and what they are after a commit.
//!
//! ```text
//!   partition:0   8812              the offsets of record
//!   ledger        {"commit":7,…}    whose offsets they are, the window that last moved each, the greatest event times,
//!                                   the leader epochs that the offsets are checked with, dead letters to take back
//!   table         {"schemas":…}     columns with their ids, partition spec, properties: Iceberg's JSON without snapshots
//!   manifest:W    4                 the windows W are committed, and not all of their 4 files are published yet
//! ```
//!
//! **How a record gets in exactly once.** The core is the one of Iceberg tables ([`super::admit`], [`crate::run`]); only
//! what is loaded and swapped differs.
//!
//! 1. *Stage*: lines write a window's files under `stateDir`, where no reader looks, with the names they will be published
//!    under: `date=2024-01-15/hour=10/{run}-{window}-00000.parquet`. Names are never used twice.
//! 2. *Commit*: a manifest that lists the staged files is written. Then one replace-if-unchanged of the source's rows moves
//!    the offsets and adds the row `manifest:…`. It is made only onto the `ledger` and `partition:…` rows that admission
//!    saw ([`committed`]), so of two instances, or of a run and its own lost request, one comes first and the other is
//!    refused. From here on the records are in the table, though readers may not see all of them.
//! 3. *Publish*: each staged file is moved to the same path under the table's location; then the row `manifest:…` goes, then
//!    the manifest. A move that was made before is passed over, so whoever finds such a row may finish the work: each run
//!    at its start, and before each of its commits, and several at once.
//!
//! A crash before 2 leaves files that nothing names; between 2 and 3, rows that the next run publishes. A zombie that wakes
//! between 1 and 2 is refused at 2; in 3 it finds its files moved already. A file that is neither staged nor published
//! while the row `manifest:…` is still there is a loss, and stops the run: exit code 3.
//!
//! A replacement whose answer is lost, or that is refused after it was sent, is judged by the windows that last moved each
//! partition ([`fate`]). Staged files are deleted only where it certainly didn't happen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use iceberg::spec::TableMetadata;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::offsets::{LeaderEpoch, Offset, Offsets, Partition, RecordAt};
use crate::table::admit::CommitPlan;
use crate::table::ledger::{LEDGER_VERSION, Ledger, LedgerProblem, by_runs, by_value, layout, readable};
use crate::table::{TableView, WindowId};
use crate::units::Millis;

const TABLE: &str = "table";
const LEDGER: &str = "ledger";
const PARTITION: &str = "partition:";
const MANIFEST: &str = "manifest:";

/// The value of one row and when it was written, in microseconds since 1970, UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// `sync_value`.
    pub value: String,
    /// `committed_at`.
    pub at_us: i64,
}

/// All rows of one source, by `sync_key`.
pub type Rows = BTreeMap<String, Row>;

/// The row `ledger`: what of a [`Ledger`] isn't in the rows of the partitions.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Facts {
    version: u32,
    /// Counts commits, so that no two states of a table are alike.
    commit: i64,
    table_uuid: Uuid,
    topic: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topic_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cluster_id: Option<String>,
    /// Which partitions have a row of their own: one that somebody deleted must not start anew.
    partitions: BTreeSet<Partition>,
    windows: BTreeMap<Partition, WindowId>,
    event_times: BTreeMap<Partition, i64>,
    #[serde(default, with = "by_value", skip_serializing_if = "BTreeMap::is_empty")]
    leader_epochs: BTreeMap<Partition, LeaderEpoch>,
    #[serde(default, with = "by_runs", skip_serializing_if = "BTreeSet::is_empty")]
    stale_letters: BTreeSet<RecordAt>,
}

/// Reads the table that the rows describe; `None` if they describe none.
///
/// # Errors
/// [`LedgerProblem::Unreadable`].
pub fn table(rows: &Rows) -> Result<Option<TableMetadata>, LedgerProblem> {
    rows.get(TABLE).map(|row| parsed(TABLE, &row.value)).transpose()
}

/// Puts the description of a table among its rows. Only its current schema is kept: files carry their own.
pub fn with_table(rows: &Rows, metadata: &TableMetadata, now_us: i64) -> Rows {
    let mut value = serde_json::to_value(metadata).expect("table metadata serialise");
    let current = value["current-schema-id"].clone();
    if let Some(schemas) = value["schemas"].as_array_mut() {
        schemas.retain(|schema| schema["schema-id"] == current);
    }
    value["metadata-log"] = serde_json::Value::Array(Vec::new());
    let mut rows = rows.clone();
    set(&mut rows, TABLE, value.to_string(), now_us);
    rows
}

/// Takes the facts that commit decisions are made on; see [`TableView`]. The number of the last commit stands for the
/// snapshot.
///
/// # Errors
/// [`LedgerProblem::Unreadable`] where rows don't belong together or can't be read.
pub fn view(metadata: &TableMetadata, rows: &Rows) -> Result<TableView, LedgerProblem> {
    let offsets = offsets(rows)?;
    let facts = facts(rows)?;
    let (ledger, sequence, ledger_at) = match facts {
        Some((facts, at)) if facts.table_uuid == metadata.uuid() => {
            if let Some(gone) = facts
                .partitions
                .iter()
                .find(|partition| offsets.get(**partition).is_none())
            {
                let key = format!("{PARTITION}{gone}");
                return Err(unreadable(
                    &key,
                    "it is missing, and the table holds records of that partition".to_owned(),
                ));
            }
            let ledger = Ledger {
                topic: facts.topic,
                topic_id: facts.topic_id,
                cluster_id: facts.cluster_id,
                offsets,
                windows: facts.windows,
                event_times: facts.event_times,
                leader_epochs: facts.leader_epochs,
                stale_letters: facts.stale_letters,
            };
            (Some(ledger), facts.commit, Some(at))
        }
        Some((facts, _)) => {
            let (held, here) = (facts.table_uuid, metadata.uuid());
            return Err(unreadable(
                LEDGER,
                format!("it belongs to table {held}, this is {here}"),
            ));
        }
        None if offsets.is_empty() => (None, 0, None),
        None => return Err(unreadable(LEDGER, "it is missing, and there are offsets".to_owned())),
    };
    Ok(TableView {
        uuid: metadata.uuid(),
        // What a plan is pinned to.
        snapshot: ledger.is_some().then_some(sequence),
        sequence,
        ledger,
        ledger_at,
        layout: Arc::new(layout(metadata)),
    })
}

/// Names the manifest of a plan's windows: always the same for the same windows.
pub fn manifest_name(windows: &[WindowId]) -> Option<String> {
    let (first, last) = (windows.first()?, windows.last()?);
    Some(format!(
        "{}-{:05}-{:05}",
        first.run.simple(),
        first.sequence,
        last.sequence
    ))
}

/// Returns the rows after a commit, or `None` if offsets have moved since `base`.
///
/// - `now`: the rows as they are, `base`: as admission saw them. What was published or evolved meanwhile is no matter.
/// - `manifest`: see [`manifest_name`], of a plan that has files.
pub fn committed(now: &Rows, base: &Rows, plan: &CommitPlan, manifest: Option<&str>, now_us: i64) -> Option<Rows> {
    let ours = |rows: &Rows| -> Vec<(String, Row)> {
        let kept = rows
            .iter()
            .filter(|(key, _)| *key == LEDGER || key.starts_with(PARTITION));
        kept.map(|(key, row)| (key.clone(), row.clone())).collect()
    };
    let uuid = table(now).ok().flatten()?.uuid();
    let commit = facts(now).ok()?.map(|(facts, _)| facts.commit);
    if ours(now) != ours(base) || uuid != plan.base_uuid || commit != plan.base_snapshot {
        return None;
    }
    let commit = commit.unwrap_or_default() + 1;
    let ledger = &plan.ledger;
    let facts = Facts {
        version: LEDGER_VERSION,
        commit,
        table_uuid: uuid,
        topic: ledger.topic.clone(),
        topic_id: ledger.topic_id.clone(),
        cluster_id: ledger.cluster_id.clone(),
        partitions: ledger.offsets.partitions().collect(),
        windows: ledger.windows.clone(),
        event_times: ledger.event_times.clone(),
        leader_epochs: ledger.leader_epochs.clone(),
        stale_letters: ledger.stale_letters.clone(),
    };
    let mut rows = now.clone();
    let text = serde_json::to_string(&facts).expect("maps of numbers and strings serialise");
    set(&mut rows, LEDGER, text, now_us);
    rows.retain(|key, _| !key.starts_with(PARTITION));
    for (partition, offset) in ledger.offsets.iter() {
        set(
            &mut rows,
            &format!("{PARTITION}{partition}"),
            offset.to_string(),
            now_us,
        );
    }
    if let Some(name) = manifest {
        set(
            &mut rows,
            &format!("{MANIFEST}{name}"),
            plan.files.len().to_string(),
            now_us,
        );
    }
    Some(rows)
}

/// What became of a commit that was refused after it may have been sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is in the table.
    Landed,
    /// It isn't, and never will be: a condition it was made on has passed for good.
    Refused,
    /// The rows don't tell.
    Unclear,
}

/// Judges by the windows that last moved each partition of the plan: a commit sets them all at once, and what has moved
/// never goes back.
///
/// - `now`: rows that were read after the refusal; they differ from those that the commit was made on.
pub fn fate(now: &Rows, base: &Rows, plan: &CommitPlan) -> Fate {
    let (Ok(now), Ok(base)) = (facts(now), facts(base)) else {
        return Fate::Unclear;
    };
    let windows = |facts: Option<(Facts, Millis)>| facts.map(|(facts, _)| facts.windows).unwrap_or_default();
    let (now, base) = (windows(now), windows(base));
    let ours: BTreeSet<_> = plan.windows.iter().collect();
    let moved = plan.ledger.windows.iter().filter(|(_, window)| ours.contains(window));
    let mut fate = match plan.windows.is_empty() {
        // It names no files, and the same again does no harm.
        true => Fate::Refused,
        false => Fate::Unclear,
    };
    for (partition, _) in moved {
        match now.get(partition) {
            Some(window) if ours.contains(window) => return Fate::Landed,
            window if window == base.get(partition) => fate = Fate::Refused,
            _ => {}
        }
    }
    fate
}

/// Lists the manifests whose files aren't all published yet.
pub fn unpublished(rows: &Rows) -> Vec<String> {
    rows.keys()
        .filter_map(|key| key.strip_prefix(MANIFEST))
        .map(str::to_owned)
        .collect()
}

/// Returns the rows once the files of these manifests are published; `None` if none of the manifests is among them.
pub fn published(rows: &Rows, manifests: &[String]) -> Option<Rows> {
    let mut after = rows.clone();
    after.retain(|key, _| {
        key.strip_prefix(MANIFEST)
            .is_none_or(|name| !manifests.iter().any(|done| done == name))
    });
    (after.len() < rows.len()).then_some(after)
}

fn set(rows: &mut Rows, key: &str, value: String, at_us: i64) {
    rows.insert(key.to_owned(), Row { value, at_us });
}

fn facts(rows: &Rows) -> Result<Option<(Facts, Millis)>, LedgerProblem> {
    let Some(row) = rows.get(LEDGER) else { return Ok(None) };
    let value: serde_json::Value = parsed(LEDGER, &row.value)?;
    readable(value["version"].as_u64()).map_err(|reason| unreadable(LEDGER, reason))?;
    let facts = serde_json::from_value(value).map_err(|error| unreadable(LEDGER, error.to_string()))?;
    Ok(Some((facts, Millis(row.at_us.div_euclid(1000)))))
}

fn offsets(rows: &Rows) -> Result<Offsets, LedgerProblem> {
    let of_partitions = rows
        .iter()
        .filter_map(|(key, row)| Some((key, key.strip_prefix(PARTITION)?, row)));
    of_partitions
        .map(|(key, partition, row)| {
            let (partition, offset) = (partition.parse(), row.value.parse::<i64>());
            match (partition, offset) {
                (Ok(partition), Ok(offset)) if offset >= 0 => Ok((Partition(partition), Offset::new(offset))),
                _ => Err(unreadable(key, format!("its value is `{}`, not an offset", row.value))),
            }
        })
        .collect()
}

fn parsed<T: for<'de> Deserialize<'de>>(key: &str, text: &str) -> Result<T, LedgerProblem> {
    serde_json::from_str(text).map_err(|error| unreadable(key, error.to_string()))
}

fn unreadable(key: &str, reason: String) -> LedgerProblem {
    LedgerProblem::Unreadable {
        place: format!("the row `{key}` of sync_points"),
        reason,
    }
}

#[cfg(test)]
mod tests;
