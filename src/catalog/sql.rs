//! The catalog in a SQLite file, in the layout of Java's JDBC catalog.
//!
//! A row of `iceberg_tables` names a table's metadata file; a commit is a compare-and-swap of that name. Everything a
//! lost answer leaves behind is found again by re-reading the row.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use iceberg::compression::CompressionCodec;
use iceberg::spec::{MetadataLog, TableMetadata};
use iceberg::{MetadataLocation, TableIdent, TableRequirement, TableUpdate};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};

use super::asked::Asked;
use super::expired::may_be_deleted;
use super::lists::Lists;
use super::part;
use super::{CatalogError, DELETE_AFTER_COMMIT, LoadedTable, NewTable, SwapAnswer, rebuilt};
use crate::kill_points::{self, KillPoint, Place};
use crate::store::{Access, Store};

/// How long a statement waits for another process' write lock; writes of a row take milliseconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(20);
/// Connections, each with a thread, for all tables of the process: two commits that wait for SQLite's lock, while loads pass
/// them. More would wait for that lock too.
const CONNECTIONS_MAX: u32 = 4;
/// How metadata files are written. Packed here unless the pipeline file says otherwise: with each commit another one is
/// written that lists all snapshots. Source: Iceberg 1.12 `TableProperties.java`, `METADATA_COMPRESSION`, "none" by default.
pub(super) const METADATA_CODEC: &str = "write.metadata.compression-codec";
/// Largest metadata file whose text is kept for the next one: some 10,000 snapshots.
const KEPT_BYTES_MAX: usize = 16 << 20;

/// Source: Iceberg 1.12 `JdbcUtil.java`, `V0_CREATE_CATALOG_SQL` with the column that `V1_UPDATE_CATALOG_SQL` adds to it.
const CREATE_TABLES: &str = "CREATE TABLE IF NOT EXISTS iceberg_tables (\
    catalog_name VARCHAR(255) NOT NULL, \
    table_namespace VARCHAR(255) NOT NULL, \
    table_name VARCHAR(255) NOT NULL, \
    metadata_location VARCHAR(1000), \
    previous_metadata_location VARCHAR(1000), \
    iceberg_type VARCHAR(5), \
    PRIMARY KEY (catalog_name, table_namespace, table_name))";
/// Source: Iceberg 1.12 `JdbcUtil.java`, `CREATE_NAMESPACE_PROPERTIES_TABLE_SQL`.
const CREATE_NAMESPACES: &str = "CREATE TABLE IF NOT EXISTS iceberg_namespace_properties (\
    catalog_name VARCHAR(255) NOT NULL, \
    namespace VARCHAR(255) NOT NULL, \
    property_key VARCHAR(255), \
    property_value VARCHAR(1000), \
    PRIMARY KEY (catalog_name, namespace, property_key))";

/// Whether rows say if they are a table or a view: Java's layout V1 does, V0 doesn't.
#[derive(Debug, Clone, Copy)]
enum Layout {
    V0,
    V1,
}

impl Layout {
    /// The rest of a condition that takes tables only, never views.
    fn tables_only(self) -> &'static str {
        match self {
            Layout::V0 => "",
            Layout::V1 => " AND (iceberg_type = 'TABLE' OR iceberg_type IS NULL)",
        }
    }
}

/// A catalog in a SQLite file.
#[derive(Debug)]
pub struct SqlCatalog {
    /// The `catalog_name` column; Spark's and Trino's catalog must have this very name.
    name: String,
    file: PathBuf,
    pool: SqlitePool,
    store: Store,
    layout: Asked<Layout>,
    /// The metadata files written last, until somebody else's follows.
    written: Mutex<HashMap<TableIdent, Written>>,
}

/// A metadata file of ours that a table is at.
#[derive(Debug)]
struct Written {
    location: String,
    text: Text,
}

/// What a metadata file says: taken apart only when another follows it.
#[derive(Debug)]
enum Text {
    Whole(Bytes),
    Parts(Box<Lists>),
}

impl SqlCatalog {
    /// Opens the catalog; the file, its directory and its tables are created at the first call that needs them.
    ///
    /// - `uri`: `sqlite:///abs/path.db`, `sqlite://rel/path.db`, with or without a leading `jdbc:`;
    /// - `warehouse`, `access`: see [`Store::open`]; tables are put at `{warehouse}/{namespace}/{name}`.
    ///
    /// # Errors
    /// [`CatalogError::Unsupported`] for another database, [`CatalogError::Storage`] for another kind of store.
    pub fn open(name: &str, uri: &str, warehouse: &str, access: impl Into<Access>) -> Result<SqlCatalog, CatalogError> {
        let plain = uri.strip_prefix("jdbc:").unwrap_or(uri);
        let path = plain
            .strip_prefix("sqlite://")
            .or_else(|| plain.strip_prefix("sqlite:"))
            .map(|path| path.split_once('?').map_or(path, |(path, _)| path))
            .filter(|path| !path.is_empty() && *path != ":memory:")
            .ok_or_else(|| {
                CatalogError::Unsupported(format!(
                    "catalog uri `{}`: only `sqlite:///path/to/file.db` is",
                    without_password(uri)
                ))
            })?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(BUSY_TIMEOUT)
            .connect_lazy_with(options);
        Ok(SqlCatalog {
            name: name.to_string(),
            file: PathBuf::from(path),
            pool,
            store: Store::open(warehouse, access)?,
            layout: Asked::new(),
            written: Mutex::default(),
        })
    }

    pub(super) async fn reach(&self) -> Result<(), CatalogError> {
        // As in `load`: looking makes no file. Where there is none yet, the first table makes it.
        if self.layout.known(|_| true).is_none() && !tokio::fs::try_exists(&self.file).await.unwrap_or(true) {
            return Ok(());
        }
        self.layout().await?;
        sqlx::query("SELECT 1")
            .execute(&self.pool)
            .await
            .map_err(|error| self.error(&error))?;
        Ok(())
    }

    pub(super) async fn load(&self, ident: &TableIdent) -> Result<Option<LoadedTable>, CatalogError> {
        // Looking makes no file: `aperio status` before the first run must leave nothing behind.
        if self.layout.known(|_| true).is_none() && !tokio::fs::try_exists(&self.file).await.unwrap_or(true) {
            return Ok(None);
        }
        match self.current(ident).await? {
            None => Ok(None),
            Some(location) => self.read(ident, location).await.map(Some),
        }
    }

    pub(super) async fn reload(&self, known: &LoadedTable) -> Result<Option<LoadedTable>, CatalogError> {
        match self.current(&known.ident).await? {
            None => Ok(None),
            Some(location) if location == known.metadata_location => Ok(Some(known.clone())),
            Some(location) => self.read(&known.ident, location).await.map(Some),
        }
    }

    /// Reads the metadata file that the table's row names.
    async fn read(&self, ident: &TableIdent, location: String) -> Result<LoadedTable, CatalogError> {
        let store = self.store.serving(&location)?;
        let file_io = store.file_io();
        let metadata = TableMetadata::read_from(&file_io, &location)
            .await
            .map_err(|error| CatalogError::of_iceberg(&format!("metadata of `{ident}` at {location}"), &error))?;
        let store = store.serving(metadata.location())?;
        Ok(LoadedTable {
            ident: ident.clone(),
            metadata: Arc::new(metadata),
            metadata_location: location,
            file_io: store.file_io(),
            store,
            etag: None,
            rows: None,
        })
    }

    pub(super) async fn create(&self, ident: &TableIdent, mut creation: NewTable) -> Result<LoadedTable, CatalogError> {
        self.create_namespace(ident).await?;
        let codec = creation.properties.entry(METADATA_CODEC.to_owned());
        codec.or_insert_with(|| "gzip".to_owned());
        let location = format!(
            "{}/{}/{}",
            self.store.warehouse(),
            ident.namespace().join("/"),
            ident.name()
        );
        let doing = format!("new table `{ident}`");
        let broken = |error: iceberg::Error| CatalogError::of_iceberg(&doing, &error);
        let metadata = creation.metadata(ident, location.clone()).map_err(broken)?;
        let file = MetadataLocation::new_with_metadata(location, &metadata);
        let file_io = self.store.file_io();
        metadata.write_to(&file_io, &file).await.map_err(broken)?;
        kill_points::pass(KillPoint::Inside(Place::TableWritten));
        let file = file.to_string();

        let statement = match self.layout().await? {
            Layout::V0 => {
                "INSERT INTO iceberg_tables (catalog_name, table_namespace, table_name, metadata_location) \
                 VALUES (?, ?, ?, ?)"
            }
            Layout::V1 => {
                "INSERT INTO iceberg_tables (catalog_name, table_namespace, table_name, metadata_location, \
                 iceberg_type) VALUES (?, ?, ?, ?, 'TABLE')"
            }
        };
        let inserted = sqlx::query(statement)
            .bind(&self.name)
            .bind(ident.namespace().join("."))
            .bind(ident.name())
            .bind(&file)
            .execute(&self.pool)
            .await;
        match inserted {
            Ok(_) => {}
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                discard(&self.store, &file).await;
                return self
                    .load(ident)
                    .await?
                    .ok_or_else(|| CatalogError::Broken(format!("`{ident}` exists but is no table")));
            }
            // As with a swap: an error says nothing about whether the row is there.
            Err(error) => match self.current(ident).await {
                Ok(Some(current)) if current == file => {}
                _ => return Err(self.error(&error)),
            },
        }
        Ok(LoadedTable {
            ident: ident.clone(),
            metadata: Arc::new(metadata),
            metadata_location: file,
            file_io,
            store: self.store.clone(),
            etag: None,
            rows: None,
        })
    }

    pub(super) async fn swap(
        &self,
        base: &LoadedTable,
        requirements: Vec<TableRequirement>,
        updates: Vec<TableUpdate>,
    ) -> SwapAnswer {
        let (next, file, expired) = match apply(base, requirements, updates.clone()) {
            Ok(Some(applied)) => applied,
            Ok(None) => return SwapAnswer::Conflict,
            Err(error) => return SwapAnswer::Rejected(error),
        };
        let layout = match self.layout().await {
            Ok(layout) => layout,
            Err(error) => return SwapAnswer::Rejected(error),
        };
        let kept = match self.write(base, updates, &next, &file).await {
            Ok(kept) => kept,
            Err(error) => {
                // The row was never touched, so this file can't be referenced.
                let doing = format!("new metadata of `{}`", base.ident);
                return SwapAnswer::Rejected(CatalogError::of_iceberg(&doing, &error));
            }
        };
        kill_points::pass(KillPoint::Inside(Place::MetadataWritten));
        let file = file.to_string();
        let statement = format!(
            "UPDATE iceberg_tables SET metadata_location = ?, previous_metadata_location = ? \
             WHERE catalog_name = ? AND table_namespace = ? AND table_name = ? AND metadata_location = ?{}",
            layout.tables_only()
        );
        let updated = sqlx::query(&statement)
            .bind(&file)
            .bind(&base.metadata_location)
            .bind(&self.name)
            .bind(base.ident.namespace().join("."))
            .bind(base.ident.name())
            .bind(&base.metadata_location)
            .execute(&self.pool)
            .await;
        match updated {
            Ok(done) if done.rows_affected() == 0 => {
                discard(&base.store, &file).await;
                return SwapAnswer::Conflict;
            }
            Ok(_) => {}
            Err(error) => match self.current(&base.ident).await {
                Ok(Some(current)) if current == file => {}
                _ => return SwapAnswer::Unknown(self.error(&error)),
            },
        }
        for gone in expired.iter().map(|gone| gone.metadata_file.as_str()) {
            if may_be_deleted(&next, &[&file, &base.metadata_location], gone) {
                // Through the table's own store, so that another bucket isn't reached.
                discard(&base.store, gone).await;
            } else {
                tracing::debug!(table = %base.ident, file = gone, "a file that the table's log let go of isn't its own to delete");
            }
        }
        if let Some(text) = kept {
            let written = Written {
                location: file.clone(),
                text,
            };
            self.written().insert(base.ident.clone(), written);
        }
        SwapAnswer::Committed(LoadedTable {
            metadata: Arc::new(next),
            metadata_location: file,
            ..base.clone()
        })
    }

    fn written(&self) -> MutexGuard<'_, HashMap<TableIdent, Written>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the metadata file that is to follow the base's, and returns its text for the one after it.
    async fn write(
        &self,
        base: &LoadedTable,
        updates: Vec<TableUpdate>,
        next: &TableMetadata,
        file: &MetadataLocation,
    ) -> iceberg::Result<Option<Text>> {
        let kept = self.written().remove(&base.ident);
        let gzip = file.compression_codec() != CompressionCodec::None;
        let parts = kept.filter(|kept| kept.location == base.metadata_location);
        let parts = parts.and_then(|kept| match kept.text {
            Text::Whole(text) => Lists::of(&text, &base.metadata, gzip).map(Box::new),
            Text::Parts(parts) => Some(parts).filter(|parts| parts.is_gzip() == gzip),
        });
        let joined = parts.and_then(|mut parts| {
            let bytes = parts.append(&base.metadata_location, updates, next)?;
            Some((bytes, Text::Parts(parts)))
        });
        let (bytes, kept) = match joined {
            Some(joined) => joined,
            None => {
                let text = Bytes::from(serde_json::to_vec(next)?);
                (part::encoded(&text, gzip), Text::Whole(text))
            }
        };
        let small = match &kept {
            Text::Whole(text) => text.len() <= KEPT_BYTES_MAX,
            Text::Parts(_) => bytes.len() <= KEPT_BYTES_MAX,
        };
        base.file_io.new_output(file.to_string())?.write(bytes).await?;
        Ok(small.then_some(kept))
    }

    /// Returns the metadata file that the table's row names now.
    async fn current(&self, ident: &TableIdent) -> Result<Option<String>, CatalogError> {
        let statement = format!(
            "SELECT metadata_location FROM iceberg_tables \
             WHERE catalog_name = ? AND table_namespace = ? AND table_name = ?{}",
            self.layout().await?.tables_only()
        );
        let row = sqlx::query(&statement)
            .bind(&self.name)
            .bind(ident.namespace().join("."))
            .bind(ident.name())
            .fetch_optional(&self.pool)
            .await
            .map_err(|error| self.error(&error))?;
        match row {
            None => Ok(None),
            Some(row) => match row.try_get::<Option<String>, _>(0) {
                Ok(Some(location)) => Ok(Some(location)),
                Ok(None) => Err(CatalogError::Broken(format!(
                    "the row of `{ident}` has no metadata_location"
                ))),
                Err(error) => Err(self.error(&error)),
            },
        }
    }

    async fn create_namespace(&self, ident: &TableIdent) -> Result<(), CatalogError> {
        self.layout().await?;
        // Source: Iceberg 1.12 `JdbcCatalog.java`, `NAMESPACE_EXISTS_PROPERTY`.
        sqlx::query(
            "INSERT OR IGNORE INTO iceberg_namespace_properties \
             (catalog_name, namespace, property_key, property_value) VALUES (?, ?, 'exists', 'true')",
        )
        .bind(&self.name)
        .bind(ident.namespace().join("."))
        .execute(&self.pool)
        .await
        .map_err(|error| self.error(&error))?;
        Ok(())
    }

    /// Makes sure that file and tables exist, once, and returns which layout they have.
    async fn layout(&self) -> Result<Layout, CatalogError> {
        let ask = async {
            let directory = self.file.parent().filter(|p| *p != Path::new(""));
            if let Some(directory) = directory {
                tokio::fs::create_dir_all(directory)
                    .await
                    .map_err(|error| CatalogError::Broken(format!("can't create {}: {error}", directory.display())))?;
            }
            for statement in [CREATE_TABLES, CREATE_NAMESPACES] {
                sqlx::query(statement)
                    .execute(&self.pool)
                    .await
                    .map_err(|error| self.error(&error))?;
            }
            let typed = sqlx::query("SELECT 1 FROM pragma_table_info('iceberg_tables') WHERE name = 'iceberg_type'")
                .fetch_optional(&self.pool)
                .await
                .map_err(|error| self.error(&error))?;
            Ok::<_, CatalogError>(typed.map_or(Layout::V0, |_| Layout::V1))
        };
        self.layout.get(|_| true, ask).await
    }

    fn error(&self, error: &sqlx::Error) -> CatalogError {
        let message = format!("{}: {error}", self.file.display());
        let code = match error {
            // The primary code is the low byte of the extended one. Source: sqlite.org/rescode.html.
            sqlx::Error::Database(error) => error
                .code()
                .and_then(|code| code.parse::<u32>().ok())
                .map(|code| code & 0xff),
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => {
                return CatalogError::Unreachable(message);
            }
            _ => None,
        };
        match code {
            Some(5 | 6 | 10) => CatalogError::Unreachable(message), // BUSY, LOCKED, IOERR
            Some(3 | 8 | 23) => CatalogError::Unauthorized(message), // PERM, READONLY, AUTH
            _ => CatalogError::Broken(message),
        }
    }
}

/// Deletes a metadata file that no row can name; leaving it behind would do no harm.
async fn discard(store: &Store, file: &str) {
    if let Err(error) = store.delete(file).await {
        tracing::debug!(file, %error, "an unused metadata file was left behind");
    }
}

/// What a swap writes: the next metadata, where it goes, and the metadata files it lets go of.
type Applied = (TableMetadata, MetadataLocation, Vec<MetadataLog>);

/// Applies updates to the base, or returns `None` if a requirement doesn't hold.
fn apply(
    base: &LoadedTable,
    requirements: Vec<TableRequirement>,
    updates: Vec<TableUpdate>,
) -> Result<Option<Applied>, CatalogError> {
    let old = Some(base.metadata_location.clone());
    let Some(built) = rebuilt(&base.metadata, old, requirements, updates)? else {
        return Ok(None);
    };
    let next = built.metadata;
    let file = match MetadataLocation::from_str(&base.metadata_location) {
        Ok(previous) => previous.with_next_version().with_new_metadata(&next),
        // Registered from elsewhere under another naming, as Hadoop's `v3.metadata.json`: number afresh.
        Err(_) => MetadataLocation::new_with_metadata(next.location(), &next).with_next_version(),
    };
    let delete = next
        .properties()
        .get(DELETE_AFTER_COMMIT)
        .is_some_and(|v| v.eq_ignore_ascii_case("true"));
    let expired = if delete {
        built.expired_metadata_logs
    } else {
        Vec::new()
    };
    Ok(Some((next, file, expired)))
}

fn without_password(uri: &str) -> String {
    match (uri.split_once("://"), uri.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        _ => uri.to_string(),
    }
}
