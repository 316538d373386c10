//! The catalogs that say which metadata file a table is at, and swap it: SQL on SQLite, and REST. A table of plain
//! Parquet has no metadata; its record is in sync_points, see [`HiveCatalog`].
//!
//! A swap is one attempt against one base: it never reloads, re-applies or retries, since only the ledger's admission
//! may decide that. (`iceberg` 0.10.1's own `Transaction::commit` reloads on every attempt, so two writers from one
//! base both succeed; hence this module.)

mod asked;
mod error;
mod expired;
mod history;
mod hive;
mod lists;
mod part;
mod proof;
mod rest;
pub mod scan;
mod sql;
pub mod stage;
mod summary;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use iceberg::TableIdent;
use iceberg::io::FileIO;
use iceberg::spec::{
    FormatVersion, Schema, TableMetadata, TableMetadataBuildResult, TableMetadataBuilder, TableMetadataRef,
    UnboundPartitionSpec,
};
use iceberg::{ErrorKind, TableCreation, TableRequirement, TableUpdate};

use crate::kill_points::{self, KillPoint, Place};
use crate::store::{Access, Store};
use crate::table::hive::Rows;

pub use error::CatalogError;
pub use history::ViewError;
pub use hive::{Committed, HiveCatalog, PublishError};
pub use rest::RestCatalog;
pub use sql::SqlCatalog;

/// The catalog of a pipeline. Cheap to share behind an `Arc`; all calls may run at once.
#[derive(Debug)]
pub enum Catalog {
    /// A SQLite file in the layout of Java's JDBC catalog, which Spark, Trino and PyIceberg read too.
    Sql(SqlCatalog),
    /// A server that speaks the Iceberg REST protocol.
    Rest(RestCatalog),
    /// The sync points of one table of plain Parquet.
    Hive(HiveCatalog),
}

/// A table as the catalog held it at one moment.
#[derive(Debug, Clone)]
pub struct LoadedTable {
    /// The table's name in the catalog.
    pub ident: TableIdent,
    /// The metadata at [`LoadedTable::metadata_location`].
    pub metadata: TableMetadataRef,
    /// The metadata file that the catalog pointed at.
    pub metadata_location: String,
    /// Reads and writes the table's files, with the credentials the catalog gave for them.
    pub file_io: FileIO,
    /// The store behind `file_io`; data files are uploaded through it.
    pub store: Store,
    /// Of a REST catalog: what its server calls this state of the table, where it does.
    pub etag: Option<String>,
    /// Of a table of plain Parquet: its record, as it was read.
    pub rows: Option<Arc<Rows>>,
}

/// What a table is created with.
#[derive(Debug, Clone)]
pub struct NewTable {
    /// Columns; their ids are assigned anew, so use those of the answer.
    pub schema: Schema,
    /// Partition fields, whose source ids are those of `schema`.
    pub spec: UnboundPartitionSpec,
    /// Iceberg table properties.
    pub properties: HashMap<String, String>,
    /// Wanted version; a REST catalog may silently make an older one (Nessie 0.99 does), so look at the answer.
    pub format_version: FormatVersion,
}

/// Completes the properties of a table that is about to be created with what suits one that is committed to for ever:
/// metadata files that the table's log lets go of are deleted, else each commit leaves one behind.
///
/// - `given`: by the pipeline file; they win.
///
/// Source: Iceberg 1.12 `TableProperties.java`, `METADATA_DELETE_AFTER_COMMIT_ENABLED`, false by default; the log holds
/// `write.metadata.previous-versions-max` files, 100 by default.
pub fn creation_properties(given: BTreeMap<String, String>) -> HashMap<String, String> {
    let mut properties = HashMap::from([(DELETE_AFTER_COMMIT.to_owned(), "true".to_owned())]);
    properties.extend(given);
    properties
}

/// Whether a commit deletes the metadata file that drops out of the table's log.
const DELETE_AFTER_COMMIT: &str = "write.metadata.delete-after-commit.enabled";

impl NewTable {
    /// Makes the first metadata of a table at `location`.
    fn metadata(self, ident: &TableIdent, location: String) -> iceberg::Result<TableMetadata> {
        let creation = TableCreation::builder()
            .name(ident.name().to_owned())
            .location(location)
            .schema(self.schema)
            .partition_spec(self.spec)
            .properties(self.properties)
            .format_version(self.format_version)
            .build();
        let built = TableMetadataBuilder::from_table_creation(creation)?.build()?;
        Ok(built.metadata)
    }
}

/// Applies updates to metadata, as a server would, or returns `None` if a requirement doesn't hold.
///
/// - `location`: of the base's metadata file, for the table's log; `None` where there is no such file.
///
/// # Errors
/// [`CatalogError::Refused`] for what the table can't become.
fn rebuilt(
    base: &TableMetadata,
    location: Option<String>,
    requirements: Vec<TableRequirement>,
    updates: Vec<TableUpdate>,
) -> Result<Option<TableMetadataBuildResult>, CatalogError> {
    let refused = |error: iceberg::Error| CatalogError::Refused {
        status: 400,
        message: error.to_string(),
    };
    for requirement in &requirements {
        match requirement.check(Some(base)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::CatalogCommitConflicts => return Ok(None),
            Err(error) => return Err(refused(error)),
        }
    }
    let mut builder = base.clone().into_builder(location);
    for update in updates {
        builder = update.apply(builder).map_err(refused)?;
    }
    builder.build().map(Some).map_err(refused)
}

/// What became of one attempt to swap a table's metadata.
#[must_use]
#[derive(Debug)]
pub enum SwapAnswer {
    /// The table now is at this metadata, and this attempt made it so.
    Committed(LoadedTable),
    /// The table had moved, and this request changed nothing; a proxy may have sent it before. Reload and admit again.
    Conflict,
    /// It can't be told whether the swap happened, or still will: everything that is no clear no, and no yes whose metadata
    /// shows this attempt's own snapshot, columns and properties. Reload and look for the snapshot; delete nothing.
    Unknown(CatalogError),
    /// Nothing was changed; trying again as it is helps only if the error is [`CatalogError::retryable`].
    Rejected(CatalogError),
}

impl Catalog {
    /// Opens the SQLite catalog; see [`SqlCatalog::open`].
    ///
    /// # Errors
    /// [`CatalogError::Unsupported`] and [`CatalogError::Storage`], both for what the configuration says.
    pub fn sql(name: &str, uri: &str, warehouse: &str, access: impl Into<Access>) -> Result<Catalog, CatalogError> {
        SqlCatalog::open(name, uri, warehouse, access).map(Catalog::Sql)
    }

    /// Opens a REST catalog; see [`RestCatalog::open`].
    ///
    /// # Errors
    /// [`CatalogError::Unsupported`] for what the configuration says.
    pub fn rest(uri: &str, warehouse: Option<&str>, access: impl Into<Access>) -> Result<Catalog, CatalogError> {
        RestCatalog::open(uri, warehouse, access).map(Catalog::Rest)
    }

    /// Asks the catalog for a sign of life, with our credentials.
    ///
    /// # Errors
    /// Any [`CatalogError`].
    pub async fn reach(&self) -> Result<(), CatalogError> {
        match self {
            Catalog::Sql(sql) => sql.reach().await,
            Catalog::Rest(rest) => rest.reach().await,
            Catalog::Hive(hive) => hive.reach().await,
        }
    }

    /// Loads a table as it is now, or `None` if the catalog has none of that name.
    ///
    /// # Errors
    /// Any [`CatalogError`].
    pub async fn load(&self, ident: &TableIdent) -> Result<Option<LoadedTable>, CatalogError> {
        match self {
            Catalog::Sql(sql) => sql.load(ident).await,
            Catalog::Rest(rest) => rest.load(ident).await,
            Catalog::Hive(hive) => hive.load(ident).await,
        }
    }

    /// Loads a table again. Where the catalog still names the metadata file of `known`, that is `known`: such a file is
    /// never changed, so on SQLite nothing but a row is read, however long the table's history is; of a REST server that
    /// knows ETags, nothing but the answer's head.
    ///
    /// # Errors
    /// Any [`CatalogError`].
    pub async fn reload(&self, known: &LoadedTable) -> Result<Option<LoadedTable>, CatalogError> {
        match self {
            Catalog::Sql(sql) => sql.reload(known).await,
            Catalog::Rest(rest) => rest.reload(known).await,
            Catalog::Hive(hive) => hive.load(&known.ident).await,
        }
    }

    /// Creates a table, and its namespace if that is missing. If another instance creates it first, returns theirs.
    ///
    /// # Errors
    /// Any [`CatalogError`]; after a retryable one the table may exist, so load before trying again.
    pub async fn create(&self, ident: &TableIdent, creation: NewTable) -> Result<LoadedTable, CatalogError> {
        let created = match self {
            Catalog::Sql(sql) => sql.create(ident, creation).await,
            Catalog::Rest(rest) => rest.create(ident, creation).await,
            Catalog::Hive(hive) => hive.create(ident, creation).await,
        };
        kill_points::pass(KillPoint::Inside(Place::TableCreated));
        created
    }

    /// Makes one attempt to move the table from `base` to `base` with `updates`, admitted only under `requirements`.
    ///
    /// No yes is taken at its word: it counts where the metadata that comes with it shows all of the updates.
    pub async fn swap(
        &self,
        base: &LoadedTable,
        requirements: Vec<TableRequirement>,
        updates: Vec<TableUpdate>,
    ) -> SwapAnswer {
        let asked = updates.clone();
        let answer = match self {
            Catalog::Sql(sql) => sql.swap(base, requirements, updates).await,
            Catalog::Rest(rest) => rest.swap(base, requirements, updates).await,
            Catalog::Hive(hive) => hive.swap(base, requirements, updates).await,
        };
        let answer = match answer {
            SwapAnswer::Committed(table) => match proof::shows(base.metadata.uuid(), &asked, &table.metadata) {
                Ok(()) => SwapAnswer::Committed(table),
                Err(missing) => SwapAnswer::Unknown(CatalogError::Broken(format!(
                    "the catalog says that the table was changed, and the metadata in its answer {missing}"
                ))),
            },
            answer => answer,
        };
        kill_points::pass(KillPoint::Inside(Place::Swapped));
        answer
    }

    /// The record of a table of plain Parquet, if it is one.
    pub fn hive(&self) -> Option<&HiveCatalog> {
        match self {
            Catalog::Hive(hive) => Some(hive),
            Catalog::Sql(_) | Catalog::Rest(_) => None,
        }
    }

    /// Says whether a conflict is the last word on its attempt: nothing stands between us and a SQLite file that could
    /// send a request twice.
    pub fn refusals_are_final(&self) -> bool {
        matches!(self, Catalog::Sql(_))
    }

    /// Says whether an attempt on `base` that was refused has left nothing in the table and never will, so that its files
    /// can be deleted: main has left the base that it was pinned to, and its snapshot isn't there, but another that has
    /// its sequence number.
    ///
    /// A refusal alone doesn't say so: a proxy that loses the answer to a commit and sends the request again gets a
    /// conflict for a commit that happened. Nor does a snapshot that isn't there: the commit may have happened, been
    /// rolled back and expired, its files with it. A number is given out once; format version 1 has none.
    pub async fn left_behind(&self, base: &LoadedTable, snapshot_id: i64) -> bool {
        let Ok(Some(now)) = self.load(&base.ident).await else {
            return false;
        };
        let (now, base) = (&now.metadata, &base.metadata);
        let number = base.next_sequence_number();
        let taken = now.snapshots().any(|snapshot| snapshot.sequence_number() == number);
        now.uuid() == base.uuid()
            && now.current_snapshot_id() != base.current_snapshot_id()
            && now.snapshot_by_id(snapshot_id).is_none()
            && (taken || base.format_version() == FormatVersion::V1)
    }
}

#[cfg(test)]
mod tests;
