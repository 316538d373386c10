//! Looking at a pipeline's table from outside. No commit is made here.

use crate::catalog::{Catalog, LoadedTable};
use crate::config::Pipeline;
use crate::error::Failure;
use crate::shell::open::{catalog_failure, ident, ledger_failure};
use crate::table::ledger::{self, LEDGER_KEY, Ledger};

/// Loads the table `name` of the pipeline's schema, if there is one.
pub(super) async fn table(pipeline: &Pipeline, catalog: &Catalog, name: &str) -> Result<Option<LoadedTable>, Failure> {
    let loaded = catalog.load(&ident(pipeline, name)?).await;
    loaded.map_err(|error| catalog_failure(&pipeline.catalog, &error))
}

/// Reads the offsets that the table holds.
pub(super) fn ledger(table: &LoadedTable) -> Result<Option<Ledger>, Failure> {
    ledger::read(&table.metadata).map_err(|problem| ledger_failure(table, &problem))
}

/// Returns when the newest commit of ours in the table's history was made, in milliseconds since 1970.
pub(super) fn last_commit_ms(table: &LoadedTable) -> Option<i64> {
    let mut next = table.metadata.current_snapshot();
    // Bounded: a parent is followed at most as many times as there are snapshots.
    for _ in 0..table.metadata.snapshots().len() {
        let snapshot = next?;
        if snapshot.summary().additional_properties.contains_key(LEDGER_KEY) {
            return Some(snapshot.timestamp_ms());
        }
        next = snapshot
            .parent_snapshot_id()
            .and_then(|id| table.metadata.snapshot_by_id(id));
    }
    None
}
