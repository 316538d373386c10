//! The text of a metadata file that follows one of our own.
//!
//! A metadata file lists every snapshot of its table, so making it whole costs what all commits before it have left. A
//! commit only appends to those lists: their text is kept from one file to the next, and only the rest, which is small,
//! is made anew, by the same builder from the same updates.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use iceberg::TableUpdate;
use iceberg::spec::{SnapshotReference, TableMetadata};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::rebuilt;

/// The fields of a metadata file as they are written.
type Fields<'a> = BTreeMap<String, &'a RawValue>;

/// The lists that grow with every commit. Source: Iceberg's table spec, "Table Metadata Fields".
const SNAPSHOTS: &str = "snapshots";
const LOG: &str = "snapshot-log";

/// One metadata file, in the parts that the next is made of.
#[derive(Debug)]
pub(super) struct Lists {
    /// The elements of `snapshots`, as JSON without brackets.
    snapshots: Vec<u8>,
    /// The elements of `snapshot-log`, likewise.
    log: Vec<u8>,
    /// The table without the snapshots that no branch or tag is at, and with the end of its log.
    rest: TableMetadata,
}

#[derive(Deserialize)]
struct Id {
    #[serde(rename = "snapshot-id")]
    id: i64,
}

impl Lists {
    /// Takes a metadata file apart; `None` if it isn't one of a table with snapshots.
    pub(super) fn of(text: &[u8]) -> Option<Lists> {
        let fields: Fields<'_> = serde_json::from_slice(text).ok()?;
        Some(Lists {
            snapshots: elements(fields.get(SNAPSHOTS)?)?.to_vec(),
            log: elements(fields.get(LOG)?)?.to_vec(),
            rest: rest_of(&fields)?,
        })
    }

    /// Applies the updates of a commit and returns the text of its metadata file; `None` if they do anything else than
    /// append to the lists.
    ///
    /// - `base`: location of the file that these are the parts of, for the table's metadata log;
    /// - `next`: what the updates make of the whole table.
    pub(super) fn append(&mut self, base: &str, updates: Vec<TableUpdate>, next: &TableMetadata) -> Option<Bytes> {
        let appends = |update: &TableUpdate| {
            !matches!(
                update,
                TableUpdate::RemoveSnapshots { .. } | TableUpdate::RemoveSnapshotRef { .. }
            )
        };
        if !updates.iter().all(appends) {
            return None;
        }
        let known: BTreeSet<i64> = self.rest.snapshots().map(|snapshot| snapshot.snapshot_id()).collect();
        let logged = self.rest.history().len();
        let built = rebuilt(&self.rest, Some(base.to_owned()), Vec::new(), updates).ok()??;
        if built.metadata.last_updated_ms() != next.last_updated_ms() {
            return None; // Of a change without a snapshot, whose time is that of its making.
        }
        let text = serde_json::to_vec(&built.metadata).ok()?;
        let fields: Fields<'_> = serde_json::from_slice(&text).ok()?;
        for snapshot in array(fields.get(SNAPSHOTS)?)? {
            if !known.contains(&id(snapshot)?) {
                append(&mut self.snapshots, snapshot);
            }
        }
        for entry in array(fields.get(LOG)?)?.into_iter().skip(logged) {
            append(&mut self.log, entry);
        }
        let text = self.join(&fields);
        self.rest = rest_of(&fields)?;
        debug_assert_eq!(
            serde_json::from_slice::<TableMetadata>(&text).ok().as_ref(),
            Some(next),
            "the parts make the whole"
        );
        Some(text)
    }

    /// Writes the lists, and all other fields as they are.
    fn join(&self, fields: &Fields<'_>) -> Bytes {
        let others = || {
            fields
                .iter()
                .filter(|(name, _)| ![SNAPSHOTS, LOG].contains(&name.as_str()))
        };
        let small: usize = others().map(|(name, value)| name.len() + value.get().len() + 4).sum();
        let mut text = Vec::with_capacity(self.snapshots.len() + self.log.len() + small + 64);
        text.extend_from_slice(br#"{"snapshots":["#);
        text.extend_from_slice(&self.snapshots);
        text.extend_from_slice(br#"],"snapshot-log":["#);
        text.extend_from_slice(&self.log);
        text.push(b']');
        for (name, value) in others() {
            // Names of the spec: there is nothing to escape in them.
            for part in [r#",""#, name, r#"":"#, value.get()] {
                text.extend_from_slice(part.as_bytes());
            }
        }
        text.push(b'}');
        text.into()
    }
}

/// Reads the table that `fields` describe, with the snapshots that branches and tags are at and the last of its log.
fn rest_of(fields: &Fields<'_>) -> Option<TableMetadata> {
    let refs: HashMap<String, SnapshotReference> = match fields.get("refs") {
        Some(refs) => serde_json::from_str(refs.get()).ok()?,
        None => HashMap::new(),
    };
    let heads: BTreeSet<i64> = refs.values().map(|reference| reference.snapshot_id).collect();
    let mut snapshots = Vec::new();
    for snapshot in array(fields.get(SNAPSHOTS)?)? {
        if heads.contains(&id(snapshot)?) {
            snapshots.push(snapshot);
        }
    }
    let log: Vec<&RawValue> = array(fields.get(LOG)?)?.pop().into_iter().collect();
    let (snapshots, log) = (raw(&snapshots)?, raw(&log)?);
    let mut rest: BTreeMap<&str, &RawValue> = fields.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    rest.insert(SNAPSHOTS, &snapshots);
    rest.insert(LOG, &log);
    let text = serde_json::to_vec(&rest).ok()?;
    serde_json::from_slice(&text).ok()
}

fn raw(values: &[&RawValue]) -> Option<Box<RawValue>> {
    serde_json::value::to_raw_value(values).ok()
}

fn array(list: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(list.get()).ok()
}

fn elements(list: &RawValue) -> Option<&[u8]> {
    let inner = list.get().strip_prefix('[')?.strip_suffix(']')?.trim();
    Some(inner.as_bytes())
}

fn id(snapshot: &RawValue) -> Option<i64> {
    serde_json::from_str::<Id>(snapshot.get()).ok().map(|id| id.id)
}

fn append(list: &mut Vec<u8>, element: &RawValue) {
    if !list.is_empty() {
        list.push(b',');
    }
    list.extend_from_slice(element.get().as_bytes());
}
