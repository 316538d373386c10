//! The offsets that a loaded table carries, read through its older metadata files where its own snapshots don't tell.

use iceberg::spec::TableMetadata;

use super::error::store_error;
use super::{CatalogError, LoadedTable};
use crate::table::TableView;
use crate::table::hive;
use crate::table::ledger::{self, History, LedgerProblem};

/// Why there is no view of a table.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The table's history doesn't tell the offsets: for a person to decide.
    #[error(transparent)]
    Ledger(#[from] LedgerProblem),
    /// An older metadata file couldn't be read now.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl LoadedTable {
    /// Takes the view that decisions are made on.
    ///
    /// Reads nothing where a listed snapshot carries the ledger, as after any commit of ours; else older metadata files,
    /// newest first, until one tells.
    ///
    /// # Errors
    /// [`ViewError::Ledger`] where the offsets can't be known, [`ViewError::Catalog`] where the store fails.
    pub async fn view(&self) -> Result<TableView, ViewError> {
        if let Some(rows) = &self.rows {
            return Ok(hive::view(&self.metadata, rows)?);
        }
        let mut history = History::default();
        for entry in self.metadata.metadata_log().iter().rev() {
            match ledger::view(&self.metadata, &history) {
                Err(problem) if problem.open_to_history() => {}
                answer => return Ok(answer?),
            }
            if let Some(older) = self.older(&entry.metadata_file).await? {
                history.add(&older);
            }
        }
        history.complete();
        Ok(ledger::view(&self.metadata, &history)?)
    }

    /// Loads a metadata file of the table's past; `None` where it proves nothing: gone, unreadable, or another table's.
    async fn older(&self, location: &str) -> Result<Option<TableMetadata>, CatalogError> {
        match TableMetadata::read_from(&self.file_io, location).await {
            Ok(older) if older.uuid() == self.metadata.uuid() => Ok(Some(older)),
            Ok(_) => Ok(None),
            Err(error) => match store_error(&error) {
                Some(cause) if cause.retryable() => {
                    let doing = format!("older metadata of `{}` at {location}", self.ident);
                    Err(CatalogError::of_iceberg(&doing, &error))
                }
                _ => {
                    tracing::debug!(location, %error, "an older metadata file tells nothing");
                    Ok(None)
                }
            },
        }
    }
}
