//! Looking at a pipeline's table from outside. No commit is made here.

use crate::catalog::{Catalog, LoadedTable, ViewError};
use crate::config::Pipeline;
use crate::error::Failure;
use crate::shell::open::{catalog_failure, ident, ledger_failure};
use crate::table::TableView;

/// Loads the table `name` of the pipeline's schema, if there is one.
pub(super) async fn table(pipeline: &Pipeline, catalog: &Catalog, name: &str) -> Result<Option<LoadedTable>, Failure> {
    let loaded = catalog.load(&ident(pipeline, name)?).await;
    loaded.map_err(|error| catalog_failure(&pipeline.catalog, &error))
}

/// Reads the offsets that the table holds, and the time of the newest commit of ours.
pub(super) async fn view(pipeline: &Pipeline, table: &LoadedTable) -> Result<TableView, Failure> {
    table.view().await.map_err(|error| match error {
        ViewError::Ledger(problem) => ledger_failure(&table.ident, &problem),
        ViewError::Catalog(error) => catalog_failure(&pipeline.catalog, &error),
    })
}
