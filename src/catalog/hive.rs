//! The record of one table of plain Parquet: rows of sync_points in the place of a catalog. What the rows mean, and the
//! whole protocol, is in [`crate::table::hive`].

use std::sync::Arc;

use iceberg::spec::TableMetadata;
use iceberg::{TableIdent, TableRequirement, TableUpdate};
use serde::{Deserialize, Serialize};

use super::{CatalogError, LoadedTable, NewTable, SwapAnswer, rebuilt};
use crate::kill_points::{self, KillPoint, Place};
use crate::store::Store;
use crate::sync_points::{SyncPoint, SyncPoints, SyncPointsError};
use crate::table::admit::CommitPlan;
use crate::table::hive::{self, Fate, Row, Rows};

/// How often an operation starts over since other instances changed rows that don't matter to it; each time means that
/// one of them made progress.
const ATTEMPTS_MAX: u32 = 20;

/// The version of manifests that this program writes and reads.
const MANIFEST_VERSION: u32 = 1;

/// The table of one pipeline with `materialize.format: parquet`.
#[derive(Debug)]
pub struct HiveCatalog {
    ident: TableIdent,
    /// The table's directory, where readers look.
    location: String,
    /// Its files on their way, and their manifests.
    state: String,
    /// Serves `state`.
    store: Store,
    /// Serves `location`, and `state` too: both are on disks, or in one bucket.
    shown: Store,
    points: SyncPoints,
}

/// What became of one attempt to commit.
#[must_use]
#[derive(Debug)]
pub enum Committed {
    /// The table now is like this, and holds the plan's windows.
    Yes(LoadedTable),
    /// Nothing happened and nothing will: the offsets had moved.
    Conflict,
    /// Nothing happened and nothing will: it failed before the rows were touched.
    Failed(CatalogError),
    /// Nobody knows.
    Unknown(String),
}

/// The staged files of one commit, by their paths below the staging directory, which are those below the table's too.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    version: u32,
    files: Vec<String>,
}

impl HiveCatalog {
    /// Names the table's places. Nothing is contacted or created yet.
    ///
    /// - `warehouse`: a store whose warehouse holds the table's directory, `{warehouse}/{namespace}/{name}`;
    /// - `state`: one whose warehouse is the state directory, in the same bucket or on a disk too;
    /// - `points`: the sync points of the namespace.
    pub fn new(ident: TableIdent, warehouse: Store, state: Store, points: SyncPoints) -> HiveCatalog {
        let (namespace, name) = (ident.namespace(), ident.name());
        let location = format!("{}/{}/{name}", warehouse.warehouse(), namespace.join("/"));
        HiveCatalog {
            location,
            state: format!("{}/{}/{name}", state.warehouse(), namespace.join(".")),
            store: state,
            shown: warehouse,
            points,
            ident,
        }
    }

    /// Where files are written before their commit.
    pub fn staging(&self) -> String {
        format!("{}/staged", self.state)
    }

    pub(super) async fn reach(&self) -> Result<(), CatalogError> {
        self.rows().await.map(drop)
    }

    pub(super) async fn load(&self, ident: &TableIdent) -> Result<Option<LoadedTable>, CatalogError> {
        if *ident != self.ident {
            return Ok(None);
        }
        let rows = self.rows().await?;
        let table = hive::table(&rows).map_err(|problem| CatalogError::Broken(problem.to_string()))?;
        Ok(table.map(|metadata| self.loaded(metadata, rows)))
    }

    pub(super) async fn create(&self, ident: &TableIdent, creation: NewTable) -> Result<LoadedTable, CatalogError> {
        let broken = |error: iceberg::Error| CatalogError::Broken(format!("new table `{ident}`: {error}"));
        let metadata = creation.metadata(ident, self.location.clone()).map_err(broken)?;
        let rows = hive::with_table(&Rows::new(), &metadata, now_us());
        // Not sooner than there is something to say: whoever comes first makes the table, all others find it.
        if self.replace(&Rows::new(), &rows).await? {
            return Ok(self.loaded(metadata, rows));
        }
        self.load(ident).await?.ok_or_else(|| {
            let location = self.points.location();
            CatalogError::Broken(format!(
                "`{location}` has rows of `{}` that are of no Parquet table",
                ident.name()
            ))
        })
    }

    /// Changes columns or properties. What commits and publications change meanwhile is no matter.
    pub(super) async fn swap(
        &self,
        base: &LoadedTable,
        requirements: Vec<TableRequirement>,
        updates: Vec<TableUpdate>,
    ) -> SwapAnswer {
        let metadata = match changed(&base.metadata, requirements, updates) {
            Ok(Some(metadata)) => metadata,
            Ok(None) => return SwapAnswer::Conflict,
            Err(error) => return SwapAnswer::Rejected(error),
        };
        let known = base.rows.as_deref().and_then(|rows| rows.get("table"));
        for _ in 0..ATTEMPTS_MAX {
            let rows = match self.rows().await {
                Ok(rows) => rows,
                Err(error) => return SwapAnswer::Rejected(error),
            };
            if rows.get("table") != known {
                return SwapAnswer::Conflict;
            }
            let after = hive::with_table(&rows, &metadata, now_us());
            match self.replace(&rows, &after).await {
                Ok(true) => return SwapAnswer::Committed(self.loaded(metadata, after)),
                Ok(false) => {}
                Err(error) => return SwapAnswer::Unknown(error),
            }
        }
        SwapAnswer::Conflict
    }

    /// Commits a plan's windows: from then on their records are in the table, and [`HiveCatalog::publish`] shows them.
    pub async fn commit(&self, base: &LoadedTable, plan: &CommitPlan) -> Committed {
        let base_rows = base.rows.as_deref().cloned().unwrap_or_default();
        let name = hive::manifest_name(&plan.windows).filter(|_| !plan.files.is_empty());
        if let Some(name) = &name
            && let Err(error) = self.write_manifest(name, plan).await
        {
            return Committed::Failed(error);
        }
        kill_points::pass(KillPoint::Inside(Place::ManifestsStaged));
        let mut sent = false;
        for _ in 0..ATTEMPTS_MAX {
            let rows = match self.rows().await {
                Ok(rows) => rows,
                Err(error) if sent => return Committed::Unknown(error.to_string()),
                Err(error) => return Committed::Failed(error),
            };
            let Some(after) = hive::committed(&rows, &base_rows, plan, name.as_deref(), now_us()) else {
                return self.judged(rows, &base_rows, plan, name, sent).await;
            };
            sent = true;
            match self.replace(&rows, &after).await {
                Ok(true) => {
                    kill_points::pass(KillPoint::Inside(Place::Swapped));
                    return Committed::Yes(self.loaded(TableMetadata::clone(&base.metadata), after));
                }
                // Others published or evolved, or it was ours whose answer was lost on the way.
                Ok(false) => {}
                Err(error) => return Committed::Unknown(error.to_string()),
            }
        }
        Committed::Unknown("other instances keep changing the sync points".to_owned())
    }

    /// Says what became of a commit for which the offsets aren't, or aren't any more, where it starts.
    async fn judged(&self, rows: Rows, base: &Rows, plan: &CommitPlan, name: Option<String>, sent: bool) -> Committed {
        match hive::fate(&rows, base, plan) {
            Fate::Landed => match hive::table(&rows) {
                Ok(Some(metadata)) => Committed::Yes(self.loaded(metadata, rows)),
                _ => Committed::Unknown("the table's description can't be read".to_owned()),
            },
            Fate::Unclear if sent => {
                Committed::Unknown("other instances have moved the same partitions since".to_owned())
            }
            // An earlier attempt may have landed, and then its manifest is this one: it stays.
            Fate::Unclear => Committed::Conflict,
            Fate::Refused => {
                let manifest = name.map(|name| self.manifest(&name));
                self.store.delete_unused(&Vec::from_iter(manifest)).await;
                Committed::Conflict
            }
        }
    }

    /// Moves the files of all commits whose manifests are named to where readers look.
    ///
    /// Each step may have been made before, by this process or another, or be made by several at once.
    ///
    /// # Errors
    /// [`PublishError::Lost`] where a committed file is gone, and what the store says.
    pub async fn publish(&self) -> Result<(), PublishError> {
        for _ in 0..ATTEMPTS_MAX {
            let rows = self.rows().await?;
            let manifests = hive::unpublished(&rows);
            if manifests.is_empty() {
                return Ok(());
            }
            for name in &manifests {
                self.publish_one(name).await?;
            }
            kill_points::pass(KillPoint::Inside(Place::FilesPublished));
            let mut rows = rows;
            // Ends: each further round means that another instance's change came first.
            while let Some(after) = hive::published(&rows, &manifests) {
                if self.replace(&rows, &after).await? {
                    break;
                }
                rows = self.rows().await?;
            }
            let files: Vec<_> = manifests.iter().map(|name| self.manifest(name)).collect();
            self.store.delete_unused(&files).await;
        }
        Err(PublishError::Store(CatalogError::Unreachable(
            "other instances keep committing to this table".to_owned(),
        )))
    }

    async fn publish_one(&self, name: &str) -> Result<(), PublishError> {
        let at = self.manifest(name);
        let found = self.store.get(&at).await.map_err(CatalogError::from)?;
        let Some((bytes, _)) = found else {
            return self.refuse_lost(name, at).await;
        };
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(|error| CatalogError::Broken(format!("manifest `{at}`: {error}")))?;
        if manifest.version != MANIFEST_VERSION {
            let found = manifest.version;
            let why = format!("manifest `{at}` has version {found}, this program reads {MANIFEST_VERSION}");
            return Err(CatalogError::Broken(why).into());
        }
        let staging = self.staging();
        for file in &manifest.files {
            let (from, to) = (format!("{staging}/{file}"), format!("{}/{file}", self.location));
            if !self.shown.relocate(&from, &to).await.map_err(CatalogError::from)? {
                self.refuse_lost(name, to).await?;
            }
            kill_points::pass(KillPoint::Inside(Place::FilePublished));
            self.store.remove_empty_directories(&from, &staging).await;
        }
        Ok(())
    }

    /// What isn't there is no loss once another has finished the publication: the manifest goes then, and a reader may
    /// delete files.
    async fn refuse_lost(&self, name: &str, gone: String) -> Result<(), PublishError> {
        let still_named = hive::unpublished(&self.rows().await?).iter().any(|named| named == name);
        match still_named {
            true => Err(PublishError::Lost {
                gone,
                row: format!("manifest:{name}"),
            }),
            false => Ok(()),
        }
    }

    async fn write_manifest(&self, name: &str, plan: &CommitPlan) -> Result<(), CatalogError> {
        let staging = format!("{}/", self.staging());
        let below = |path: &str| path.strip_prefix(&staging).map(str::to_owned);
        let files = plan.files.iter().map(|file| below(file.file.file_path()));
        let manifest = Manifest {
            version: MANIFEST_VERSION,
            files: files.collect::<Option<_>>().expect("every file of a window was staged"),
        };
        let text = serde_json::to_vec(&manifest).expect("a list of strings serialises");
        Ok(self.store.create(&self.manifest(name), text.into()).await?)
    }

    fn manifest(&self, name: &str) -> String {
        format!("{}/manifests/{name}.json", self.state)
    }

    async fn rows(&self) -> Result<Rows, CatalogError> {
        let mut points = self.points.read().await?;
        points.retain(|point| point.source_name == self.ident.name());
        let row = |point: SyncPoint| {
            let row = Row {
                value: point.sync_value,
                at_us: point.committed_at_us,
            };
            (point.sync_key, row)
        };
        Ok(points.into_iter().map(row).collect())
    }

    async fn replace(&self, seen: &Rows, rows: &Rows) -> Result<bool, CatalogError> {
        let point = |(key, row): (&String, &Row)| SyncPoint {
            source_name: self.ident.name().to_owned(),
            sync_key: key.clone(),
            sync_value: row.value.clone(),
            committed_at_us: row.at_us,
        };
        let seen: Vec<_> = seen.iter().map(point).collect();
        let rows = rows.iter().map(point).collect();
        Ok(self.points.replace(self.ident.name(), &seen, rows).await?)
    }

    fn loaded(&self, metadata: TableMetadata, rows: Rows) -> LoadedTable {
        LoadedTable {
            ident: self.ident.clone(),
            metadata: Arc::new(metadata),
            metadata_location: self.points.location().to_owned(),
            file_io: self.store.file_io(),
            store: self.store.clone(),
            etag: None,
            rows: Some(Arc::new(rows)),
        }
    }
}

/// Why committed files aren't all where readers look.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A file that sync_points still wait for is neither staged nor published.
    #[error("`{gone}` is gone before it was published")]
    Lost {
        /// Where it should be.
        gone: String,
        /// The row of sync_points that names its commit.
        row: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] CatalogError),
}

impl From<SyncPointsError> for CatalogError {
    fn from(error: SyncPointsError) -> CatalogError {
        match error {
            SyncPointsError::Store(error) => CatalogError::Storage(error),
            error if error.retryable() => CatalogError::Unreachable(error.to_string()),
            error => CatalogError::Broken(error.to_string()),
        }
    }
}

/// Applies updates to the base, or returns `None` if a requirement doesn't hold.
fn changed(
    base: &TableMetadata,
    requirements: Vec<TableRequirement>,
    updates: Vec<TableUpdate>,
) -> Result<Option<TableMetadata>, CatalogError> {
    let known = |update: &TableUpdate| {
        matches!(
            update,
            TableUpdate::AddSchema { .. }
                | TableUpdate::SetCurrentSchema { .. }
                | TableUpdate::SetProperties { .. }
                | TableUpdate::RemoveProperties { .. }
        )
    };
    if !updates.iter().all(known) {
        // Snapshots above all: they would say that something is committed, and the offsets wouldn't move.
        let what = "changes other than of columns and properties of a table of plain Parquet";
        return Err(CatalogError::Unsupported(what.to_owned()));
    }
    let built = rebuilt(base, None, requirements, updates)?;
    Ok(built.map(|built| built.metadata))
}

fn now_us() -> i64 {
    chrono::Utc::now().timestamp_micros()
}

#[cfg(test)]
mod tests;
