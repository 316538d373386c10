//! Looking at a pipeline from outside: its catalog, table, ledger and sync points. No commit is made here.

use std::error::Error;

use iceberg::{NamespaceIdent, TableIdent};

use crate::catalog::{Catalog, CatalogError, LoadedTable, ViewError};
use crate::config::{CatalogKind, Pipeline};
use crate::error::{Exit, Failure, chain};
use crate::shell::ledger_failure;
use crate::sync_points::SyncPoints;
use crate::table::TableView;

/// Returns the table's full name.
pub(super) fn full_name(pipeline: &Pipeline) -> String {
    format!("{}.{}", pipeline.schema, pipeline.name)
}

/// Opens the pipeline's catalog.
pub(super) fn catalog(pipeline: &Pipeline) -> Result<Catalog, Failure> {
    let config = &pipeline.catalog;
    let opened = match config.kind {
        CatalogKind::Sql => Catalog::sql(&config.name, &config.uri, &config.warehouse, &config.properties),
        CatalogKind::Rest => {
            let warehouse = Some(config.warehouse.as_str()).filter(|warehouse| !warehouse.is_empty());
            Catalog::rest(&config.uri, warehouse, &config.properties)
        }
    };
    opened.map_err(|error| catalog_failure(&error))
}

/// Loads the table `name` of the pipeline's schema, if there is one.
pub(super) async fn table(pipeline: &Pipeline, catalog: &Catalog, name: &str) -> Result<Option<LoadedTable>, Failure> {
    let levels = pipeline.schema.split('.').map(str::to_owned).collect();
    let namespace = NamespaceIdent::from_vec(levels).map_err(|error| {
        Failure::new(Exit::Config, format!("`{}` is no namespace", pipeline.schema)).detail(chain(&error))
    })?;
    catalog
        .load(&TableIdent::new(namespace, name.to_owned()))
        .await
        .map_err(|error| catalog_failure(&error))
}

/// Reads the offsets that the table holds, and the time of the newest commit of ours.
pub(super) async fn view(table: &LoadedTable) -> Result<TableView, Failure> {
    table.view().await.map_err(|error| match error {
        ViewError::Ledger(problem) => ledger_failure(&table.ident, &problem),
        ViewError::Catalog(error) => catalog_failure(&error),
    })
}

/// Opens the sync points of a pipeline; `None` where only the table's location would tell where they are, and there is
/// no table.
pub(super) fn sync_points(pipeline: &Pipeline, table: Option<&LoadedTable>) -> Result<Option<SyncPoints>, Failure> {
    let Some(directory) = state_dir(pipeline, table) else {
        return Ok(None);
    };
    SyncPoints::open(&directory, &pipeline.schema, &pipeline.catalog.properties)
        .map(Some)
        .map_err(|error| Failure::new(Exit::Config, "the sync points can't be opened").detail(chain(&error)))
}

/// Returns the directory that holds the sync points of all schemas.
pub(super) fn state_dir(pipeline: &Pipeline, table: Option<&LoadedTable>) -> Option<String> {
    let beside = || table.map(|table| format!("{}/.aperio", table.metadata.location()));
    pipeline.state_dir.clone().or_else(beside)
}

/// Tells that the sync points can't be read.
pub(super) fn sync_points_failure(error: &dyn Error) -> Failure {
    Failure::new(Exit::Remote, "the sync points can't be read")
        .detail(chain(error))
        .hint("look at `stateDir`; nothing depends on them, the next run writes them anew from the table")
}

/// Tells a catalog's error.
pub(super) fn catalog_failure(error: &CatalogError) -> Failure {
    let exit = match error {
        CatalogError::Unsupported { .. } => Exit::Config,
        _ => Exit::Remote,
    };
    Failure::new(exit, "the catalog can't be read")
        .detail(chain(error))
        .hint("look at `catalog` in the pipeline file, and whether the catalog is up; nothing was changed")
}
