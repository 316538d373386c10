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

use super::part::{Part, file};
use super::rebuilt;

/// The fields of a metadata file as they are written.
type Fields<'a> = BTreeMap<String, &'a RawValue>;

/// The lists that grow with every commit. Source: Iceberg's table spec, "Table Metadata Fields".
const SNAPSHOTS: &str = "snapshots";
const LOG: &str = "snapshot-log";

/// One metadata file, in the parts that the next is made of.
#[derive(Debug)]
pub(super) struct Lists {
    /// The file's beginning: up to the last element of `snapshots`, which comes first.
    snapshots: Part,
    /// What follows: up to the last element of `snapshot-log`.
    log: Part,
    /// How many elements they have.
    lengths: Lengths,
    /// The table without the snapshots that no branch or tag is at, and with the end of its log.
    rest: TableMetadata,
}

/// How many snapshots a table has, and how many entries their log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lengths {
    snapshots: usize,
    log: usize,
}

impl Lengths {
    fn of(table: &TableMetadata) -> Lengths {
        Lengths {
            snapshots: table.snapshots().len(),
            log: table.history().len(),
        }
    }
}

#[derive(Deserialize)]
struct Id {
    #[serde(rename = "snapshot-id")]
    id: i64,
}

impl Lists {
    /// Takes the text of a metadata file apart; `None` if it isn't one of a table with snapshots.
    ///
    /// - `table`: what it says;
    /// - `gzip`: of the files that follow it.
    pub(super) fn of(text: &[u8], table: &TableMetadata, gzip: bool) -> Option<Lists> {
        let fields: Fields<'_> = serde_json::from_slice(text).ok()?;
        let (mut snapshots, mut log) = (Part::new(gzip), Part::new(gzip));
        snapshots.push(br#"{"snapshots":["#);
        snapshots.push(elements(fields.get(SNAPSHOTS)?)?);
        log.push(br#"],"snapshot-log":["#);
        log.push(elements(fields.get(LOG)?)?);
        let rest = rest_of(&fields)?;
        let begun = rest.snapshots().len() > 0 && !rest.history().is_empty();
        begun.then_some(Lists {
            snapshots,
            log,
            lengths: Lengths::of(table),
            rest,
        })
    }

    pub(super) fn is_gzip(&self) -> bool {
        self.snapshots.is_gzip()
    }

    /// Applies the updates of a commit and returns the bytes of its metadata file; `None`, after which these parts are no
    /// good any more, if they do anything else than append to the lists.
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
        let text = serde_json::to_vec(&built.metadata).ok()?;
        let fields: Fields<'_> = serde_json::from_slice(&text).ok()?;
        for snapshot in array(fields.get(SNAPSHOTS)?)? {
            if !known.contains(&id(snapshot)?) {
                push(&mut self.snapshots, snapshot);
                self.lengths.snapshots += 1;
            }
        }
        for entry in array(fields.get(LOG)?)?.into_iter().skip(logged) {
            push(&mut self.log, entry);
            self.lengths.log += 1;
        }
        if self.lengths != Lengths::of(next) || !same_but_for_lists(&built.metadata, next) {
            return None;
        }
        self.rest = rest_of(&fields)?;
        let bytes = file(&[&self.snapshots, &self.log], &end(&fields));
        debug_assert!(
            self.is_gzip() || serde_json::from_slice::<TableMetadata>(&bytes).is_ok_and(|table| table == *next),
            "the parts make the whole"
        );
        Some(bytes.into())
    }
}

/// Says whether the parts came to what the whole did: they might not where only all snapshots tell. A change without a
/// snapshot never does, since its time is that of its making.
fn same_but_for_lists(parts: &TableMetadata, whole: &TableMetadata) -> bool {
    let numbers = |table: &TableMetadata| {
        (
            table.last_updated_ms(),
            table.last_sequence_number(),
            table.current_snapshot_id(),
            table.current_schema_id(),
            table.default_partition_spec_id(),
            table.default_sort_order_id(),
            table.next_row_id(),
        )
    };
    numbers(parts) == numbers(whole)
        && parts.properties() == whole.properties()
        && parts.metadata_log() == whole.metadata_log()
}

/// The end of a metadata file: all fields but the lists.
fn end(fields: &Fields<'_>) -> Vec<u8> {
    let mut text = vec![b']'];
    for (name, value) in fields
        .iter()
        .filter(|(name, _)| ![SNAPSHOTS, LOG].contains(&name.as_str()))
    {
        // Names of the spec: there is nothing to escape in them.
        for part in [r#",""#, name, r#"":"#, value.get()] {
            text.extend_from_slice(part.as_bytes());
        }
    }
    text.push(b'}');
    text
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

/// Appends an element to a list that has some.
fn push(list: &mut Part, element: &RawValue) {
    list.push(&[b",", element.get().as_bytes()].concat());
}
