//! Writes what a commit needs, against exactly one base: manifests, the manifest list, and the updates that name them.
//!
//! Nothing here decides whether the commit may happen, and nothing is visible before the catalog's swap.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures::{StreamExt, TryStreamExt};
use iceberg::spec::{
    DataFile, DataFileBuilder, FormatVersion, MAIN_BRANCH, Manifest, ManifestContentType, ManifestEntry, ManifestFile,
    ManifestList, ManifestListWriter, ManifestStatus, ManifestWriter, ManifestWriterBuilder, Operation, Schema,
    SchemaRef, Snapshot, Summary, TableMetadata, TableMetadataBuilder,
};
use iceberg::{TableRequirement, TableUpdate};
use uuid::Uuid;

use super::LoadedTable;
use super::error::store_error;
use super::summary::{Tally, is_vector};
use crate::table::admit::CommitPlan;
use crate::table::ledger::LEDGER_KEY;
use crate::table::ledger::stored::{self, Form};

/// Manifests read at once; each is some megabytes at most.
const READS_AT_ONCE: usize = 8;
/// Source: Iceberg 1.12 `TableProperties.java`, `MANIFEST_TARGET_SIZE_BYTES_DEFAULT`.
const MANIFEST_TARGET_BYTES: i64 = 8 * 1024 * 1024;
/// Source: Iceberg 1.12 `TableProperties.java`, `MANIFEST_MIN_MERGE_COUNT_DEFAULT`.
const MANIFESTS_TO_MERGE_MIN: usize = 100;

/// The summary's entry that names the last window of a commit.
pub const WINDOW_KEY: &str = "aperio.window";

/// What one commit does to the table's files, all of it in one snapshot.
#[derive(Debug, Clone)]
pub struct Change {
    /// New data files, each with the id of the partition spec it was written under (`DataFile` doesn't tell it).
    pub added_data: Vec<(i32, DataFile)>,
    /// New delete files, likewise with their spec ids.
    pub added_deletes: Vec<(i32, DataFile)>,
    /// Paths of data files that end here; on a v3 table their deletion vectors end with them.
    pub removed_data: BTreeSet<String>,
    /// Delete files that end here: path, and for deletion vectors the offset inside it.
    pub removed_deletes: BTreeSet<(String, Option<i64>)>,
    /// Own entries of the snapshot's summary. `operation`, if given, names it (`replace` for a compaction); else it
    /// follows from the files.
    pub summary: BTreeMap<String, String>,
    /// Table properties set in the same swap.
    pub properties: HashMap<String, String>,
    /// The new snapshot's id, not in the table yet; see [`fresh_snapshot_id`].
    pub snapshot_id: i64,
    /// Now, in milliseconds since 1970, UTC; held back to what the table has already seen.
    pub now_ms: i64,
}

impl Change {
    /// What a plan does to the table: its files are added, and the ledger is written into the snapshot's summary and into
    /// the table property that names the snapshot.
    ///
    /// - `base`: the table that it will be staged on.
    /// - `snapshot_id`, `now_ms`: as the fields of these names.
    pub fn of(plan: CommitPlan, base: &TableMetadata, snapshot_id: i64, now_ms: i64) -> Self {
        let adds_rows = !plan.windows.is_empty();
        let texts = stored::texts(&plan.ledger, base, adds_rows, snapshot_id, Form::default());
        let mut summary = BTreeMap::from([(LEDGER_KEY.to_owned(), texts.summary)]);
        if let Some(last) = plan.windows.last() {
            summary.insert(WINDOW_KEY.to_owned(), last.to_string());
        }
        Change {
            added_data: plan.files.into_iter().map(|file| (file.spec_id, file.file)).collect(),
            added_deletes: Vec::new(),
            removed_data: BTreeSet::new(),
            removed_deletes: BTreeSet::new(),
            summary,
            properties: HashMap::from([(LEDGER_KEY.to_owned(), texts.property)]),
            snapshot_id,
            now_ms,
        }
    }
}

/// A commit whose files are written and which waits for its swap.
#[derive(Debug)]
pub struct Staged {
    /// Pins the swap to the base's table and to its current snapshot.
    pub requirements: Vec<TableRequirement>,
    /// Adds the snapshot, moves `main`, sets the properties.
    pub updates: Vec<TableUpdate>,
    /// Locations of manifests and manifest list written here: rubbish if the swap provably never happens.
    pub files: Vec<String>,
}

/// Why a change can't be staged on this base. Files written until then are deleted again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StageError {
    /// Files that the change removes aren't in the base any more: find out what became of their rows.
    #[error("{} file(s) to remove are no longer in the table, such as `{}`", files.len(), files.first().map_or("", String::as_str))]
    TargetsGone {
        /// Their paths, ascending.
        files: Vec<String>,
    },
    /// The table has no partition spec of that id, or the file's partition value doesn't fit it.
    #[error("`{file}` doesn't fit partition spec {spec_id} of the table")]
    SpecMismatch {
        /// The file's path.
        file: String,
        /// The spec id given with it.
        spec_id: i32,
    },
    /// The table can't take this change at all.
    #[error("table can't take this change: {0}")]
    Unsupported(String),
    /// Reading the base or writing the new files failed.
    #[error("{doing}: {source}")]
    Failed {
        /// What was being done.
        doing: &'static str,
        /// What went wrong; boxed, since it is large.
        source: Box<iceberg::Error>,
    },
}

impl StageError {
    /// Returns whether staging the same change on the same base may succeed later.
    pub fn retryable(&self) -> bool {
        match self {
            StageError::Failed { source, .. } => store_error(source).is_some_and(crate::store::StoreError::retryable),
            _ => false,
        }
    }
}

/// Returns a random snapshot id that the table doesn't have yet.
///
/// Source: Iceberg 1.12 `SnapshotIdGeneratorUtil.java`, `generateSnapshotID`: both halves of a UUID, xored, without the sign.
pub fn fresh_snapshot_id(metadata: &TableMetadata) -> i64 {
    loop {
        let (high, low) = Uuid::new_v4().as_u64_pair();
        let id = i64::try_from((high ^ low) & (u64::MAX >> 1)).unwrap_or_default();
        // Ends: a table doesn't hold 2^63 snapshots.
        if id != 0 && metadata.snapshot_by_id(id).is_none() {
            return id;
        }
    }
}

/// Returns the swap that gives the table this schema, provided that nobody changed its columns since `base`.
///
/// - `schema`: the whole new schema; new fields carry ids above the base's last column id.
pub fn schema_change(base: &LoadedTable, schema: Schema) -> (Vec<TableRequirement>, Vec<TableUpdate>) {
    let metadata = &base.metadata;
    let requirements = vec![
        TableRequirement::UuidMatch { uuid: metadata.uuid() },
        TableRequirement::CurrentSchemaIdMatch {
            current_schema_id: metadata.current_schema_id(),
        },
        TableRequirement::LastAssignedFieldIdMatch {
            last_assigned_field_id: metadata.last_column_id(),
        },
    ];
    let updates = vec![
        TableUpdate::AddSchema { schema },
        // -1: the one that was just added.
        TableUpdate::SetCurrentSchema { schema_id: -1 },
    ];
    (requirements, updates)
}

/// Writes manifests and manifest list of a change on top of `base`.
///
/// A change without files makes a snapshot that only carries its summary, and writes a manifest list only.
///
/// # Errors
/// Any [`StageError`]; nothing is left behind then.
pub async fn stage(base: &LoadedTable, change: Change) -> Result<Staged, StageError> {
    let mut stage = Stage::new(base, &change);
    match stage.run(change).await {
        Ok((requirements, updates)) => Ok(Staged {
            requirements,
            updates,
            files: stage.files,
        }),
        Err(error) => {
            base.store.delete_unused(&stage.files).await;
            Err(error)
        }
    }
}

/// One change on its way onto one base.
struct Stage<'a> {
    base: &'a LoadedTable,
    metadata: &'a TableMetadata,
    snapshot_id: i64,
    sequence_number: i64,
    /// Names this attempt's files, and never another's: the same windows are staged again, on the same base too, after an
    /// attempt whose files may be part of the table.
    stem: String,
    manifests_written: usize,
    files: Vec<String>,
    tally: Tally,
}

/// Files that still have to be found in the base to be removed from it.
struct Targets {
    data: BTreeSet<String>,
    deletes: BTreeSet<(String, Option<i64>)>,
    /// All data files the change removes, found or not: their deletion vectors go too.
    vectors_of: BTreeSet<String>,
}

impl Targets {
    fn concern(&self, content: ManifestContentType) -> bool {
        match content {
            ManifestContentType::Data => !self.data.is_empty(),
            ManifestContentType::Deletes => !self.deletes.is_empty() || !self.vectors_of.is_empty(),
        }
    }

    fn hit(&self, content: ManifestContentType, file: &DataFile) -> bool {
        match content {
            ManifestContentType::Data => self.data.contains(file.file_path()),
            ManifestContentType::Deletes => {
                let key = (file.file_path().to_string(), file.content_offset());
                let orphaned = is_vector(file)
                    && file
                        .referenced_data_file()
                        .is_some_and(|data| self.vectors_of.contains(&data));
                orphaned || self.deletes.contains(&key)
            }
        }
    }

    fn found(&mut self, content: ManifestContentType, file: &DataFile) {
        match content {
            ManifestContentType::Data => {
                self.data.remove(file.file_path());
            }
            ManifestContentType::Deletes => {
                let key = (file.file_path().to_string(), file.content_offset());
                self.deletes.remove(&key);
            }
        }
    }

    fn missing(self) -> Vec<String> {
        let deletes = self.deletes.into_iter().map(|(path, _)| path);
        let all: BTreeSet<String> = self.data.into_iter().chain(deletes).collect();
        all.into_iter().collect()
    }
}

fn failed(doing: &'static str) -> impl Fn(iceberg::Error) -> StageError {
    move |error| StageError::Failed {
        doing,
        source: Box::new(error),
    }
}

impl<'a> Stage<'a> {
    fn new(base: &'a LoadedTable, change: &Change) -> Stage<'a> {
        let metadata = &base.metadata;
        let directory = match metadata.properties().get("write.metadata.path") {
            Some(path) => path.trim_end_matches('/').to_string(),
            None => format!("{}/metadata", metadata.location()),
        };
        Stage {
            base,
            metadata,
            snapshot_id: change.snapshot_id,
            sequence_number: metadata.next_sequence_number(),
            stem: format!("{directory}/{}", Uuid::new_v4()),
            manifests_written: 0,
            files: Vec::new(),
            tally: Tally::default(),
        }
    }

    async fn run(&mut self, change: Change) -> Result<(Vec<TableRequirement>, Vec<TableUpdate>), StageError> {
        let changes_files = !(change.added_data.is_empty()
            && change.added_deletes.is_empty()
            && change.removed_data.is_empty()
            && change.removed_deletes.is_empty());
        let mut added_data = self.by_spec(change.added_data)?;
        let added_deletes = self.by_spec(change.added_deletes)?;
        let mut targets = Targets {
            vectors_of: if self.metadata.format_version() == FormatVersion::V3 {
                change.removed_data.clone()
            } else {
                BTreeSet::new()
            },
            data: change.removed_data,
            deletes: change.removed_deletes,
        };

        let (carried, rewritten) = self.carry_over(&mut targets).await?;
        let missing = targets.missing();
        if !missing.is_empty() {
            return Err(StageError::TargetsGone { files: missing });
        }
        let (merged, carried) = if changes_files && self.merging() {
            self.merge(carried, &mut added_data).await?
        } else {
            (Vec::new(), carried)
        };

        // New manifests come first, as in Java: readers plan the newest files first.
        let mut manifests = Vec::new();
        for (spec_id, files) in added_data {
            manifests.push(self.write_added(ManifestContentType::Data, spec_id, files).await?);
        }
        for (spec_id, files) in added_deletes {
            manifests.push(self.write_added(ManifestContentType::Deletes, spec_id, files).await?);
        }
        manifests.extend(merged);
        manifests.extend(rewritten);
        manifests.extend(carried);

        let (list, next_row_id) = self.write_list(manifests).await?;
        let mut summary: HashMap<String, String> = change.summary.into_iter().collect();
        let operation = match summary.remove("operation").as_deref() {
            None => self.tally.operation(),
            Some("append") => Operation::Append,
            Some("overwrite") => Operation::Overwrite,
            Some("delete") => Operation::Delete,
            Some("replace") => Operation::Replace,
            Some(other) => {
                let what = format!("`{other}` is no operation of a snapshot");
                return Err(StageError::Unsupported(what));
            }
        };
        let parent = self.metadata.current_snapshot();
        self.tally.complete(&mut summary, parent.map(|parent| parent.summary()));
        summary.insert("engine-name".to_string(), "aperio".to_string());
        let version = env!("CARGO_PKG_VERSION").to_string();
        summary.insert("engine-version".to_string(), version);

        // Time never goes back in a table, whatever this machine's clock says: catalogs refuse that.
        let timestamp_ms = change
            .now_ms
            .max(self.metadata.last_updated_ms())
            .max(parent.map_or(i64::MIN, |parent| parent.timestamp_ms()));
        let snapshot = Snapshot::builder()
            .with_snapshot_id(self.snapshot_id)
            .with_parent_snapshot_id(self.metadata.current_snapshot_id())
            .with_sequence_number(self.sequence_number)
            .with_timestamp_ms(timestamp_ms)
            .with_manifest_list(list)
            .with_summary(Summary {
                operation,
                additional_properties: summary,
            })
            .with_schema_id(self.metadata.current_schema_id());
        let snapshot = match next_row_id {
            Some(next) => {
                let first = self.metadata.next_row_id();
                snapshot.with_row_range(first, next - first).build()
            }
            None => snapshot.build(),
        };
        self.swap_of(snapshot, change.properties)
    }

    fn swap_of(
        &self,
        snapshot: Snapshot,
        properties: HashMap<String, String>,
    ) -> Result<(Vec<TableRequirement>, Vec<TableUpdate>), StageError> {
        // Built the way a catalog will: it keeps the retention of `main`, which the crate doesn't show otherwise, and
        // a snapshot that the table would refuse is noticed here.
        let doing = "the table would refuse the snapshot";
        let mut updates = TableMetadata::clone(self.metadata)
            .into_builder(None)
            .set_branch_snapshot(snapshot, MAIN_BRANCH)
            .and_then(TableMetadataBuilder::build)
            .map_err(failed(doing))?
            .changes;
        if !properties.is_empty() {
            updates.push(TableUpdate::SetProperties { updates: properties });
        }
        let requirements = vec![
            TableRequirement::UuidMatch {
                uuid: self.metadata.uuid(),
            },
            // Files are admitted by the columns that the base has.
            TableRequirement::CurrentSchemaIdMatch {
                current_schema_id: self.metadata.current_schema_id(),
            },
            TableRequirement::RefSnapshotIdMatch {
                r#ref: MAIN_BRANCH.to_string(),
                snapshot_id: self.metadata.current_snapshot_id(),
            },
        ];
        Ok((requirements, updates))
    }

    /// Groups new files by their spec, counts them, and refuses those that don't fit.
    fn by_spec(&mut self, files: Vec<(i32, DataFile)>) -> Result<BTreeMap<i32, Vec<DataFile>>, StageError> {
        let mut groups: BTreeMap<i32, Vec<DataFile>> = BTreeMap::new();
        for (spec_id, file) in files {
            let spec = self.metadata.partition_spec_by_id(spec_id);
            let values = file.partition().fields().len();
            if spec.is_none_or(|spec| spec.fields().len() != values) {
                let file = file.file_path().to_string();
                return Err(StageError::SpecMismatch { file, spec_id });
            }
            self.tally.add(spec_id, &file);
            groups.entry(spec_id).or_default().push(file);
        }
        Ok(groups)
    }

    /// Splits the base's manifests: those carried over as they are, and new ones in which target files are ended.
    async fn carry_over(
        &mut self,
        targets: &mut Targets,
    ) -> Result<(Vec<ManifestFile>, Vec<ManifestFile>), StageError> {
        let Some(parent) = self.metadata.current_snapshot() else {
            return Ok((Vec::new(), Vec::new()));
        };
        if parent.encryption_key_id().is_some() {
            let what = "its manifests are encrypted".to_string();
            return Err(StageError::Unsupported(what));
        }
        let doing = "can't read the manifest list";
        let io = &self.base.file_io;
        let input = io.new_input(parent.manifest_list()).map_err(failed(doing))?;
        let bytes = input.read().await.map_err(failed(doing))?;
        let manifests = match self.parsed(&bytes) {
            Ok(manifests) => manifests,
            Err(error) => self.counted(&bytes, error).await?,
        };

        let (mut carried, mut suspects) = (Vec::new(), Vec::new());
        for manifest in manifests {
            if !(manifest.has_added_files() || manifest.has_existing_files()) {
                // Only tombstones of an older snapshot. Source: Iceberg 1.12 `MergingSnapshotProducer.java`, `shouldKeep`.
                continue;
            }
            if targets.concern(manifest.content) {
                suspects.push(manifest);
            } else {
                carried.push(manifest);
            }
        }
        let mut rewritten = Vec::new();
        for (manifest, content) in self.read(suspects).await? {
            let hit = content
                .entries()
                .iter()
                .any(|entry| entry.is_alive() && targets.hit(manifest.content, entry.data_file()));
            if hit {
                rewritten.push(self.rewrite(&manifest, &content, targets).await?);
            } else {
                carried.push(manifest);
            }
        }
        Ok((carried, rewritten))
    }

    /// Reads a manifest list. One of version 1 is read as of version 2, whose reader of the crate knows the names that Java
    /// gives the counts: carried over without them, no later reader could do without reading each manifest.
    fn parsed(&self, list: &[u8]) -> iceberg::Result<Vec<ManifestFile>> {
        let version = match self.metadata.format_version() {
            FormatVersion::V1 => FormatVersion::V2,
            version => version,
        };
        let list = ManifestList::parse_with_version(list, version)?;
        Ok(list.consume_entries().into_iter().collect())
    }

    /// Reads a manifest list of version 1 that lacks counts, which are optional there, and counts.
    ///
    /// # Errors
    /// `unread`, why it can't be read otherwise, if it isn't one of that version: its delete files would be taken for data.
    async fn counted(&self, list: &[u8], unread: iceberg::Error) -> Result<Vec<ManifestFile>, StageError> {
        let doing = "can't read the manifest list";
        let Ok(list) = ManifestList::parse_with_version(list, FormatVersion::V1) else {
            return Err(failed(doing)(unread));
        };
        let mut counted = Vec::new();
        for (mut manifest, content) in self.read(list.consume_entries().into_iter().collect()).await? {
            if content.metadata().format_version() != &FormatVersion::V1 {
                return Err(failed(doing)(unread));
            }
            let count = |status: ManifestStatus| {
                let of = content.entries().iter().filter(|entry| entry.status() == status);
                let (files, rows) = of.fold((0, 0), |(files, rows), entry| {
                    (files + 1, rows + entry.data_file().record_count())
                });
                (Some(files), Some(rows))
            };
            (manifest.added_files_count, manifest.added_rows_count) = count(ManifestStatus::Added);
            (manifest.existing_files_count, manifest.existing_rows_count) = count(ManifestStatus::Existing);
            (manifest.deleted_files_count, manifest.deleted_rows_count) = count(ManifestStatus::Deleted);
            counted.push(manifest);
        }
        Ok(counted)
    }

    /// Writes a manifest anew in which the target files are ended and the others go on.
    async fn rewrite(
        &mut self,
        manifest: &ManifestFile,
        content: &Manifest,
        targets: &mut Targets,
    ) -> Result<ManifestFile, StageError> {
        let doing = "can't rewrite a manifest";
        let spec_id = manifest.partition_spec_id;
        // The schema it was written with: the current one may lack a column that the spec partitions by.
        let schema = content.metadata().schema().clone();
        let mut writer = self.writer(manifest.content, spec_id, Some(schema))?;
        for (entry, file) in self.alive(manifest, content)? {
            let (sequence_number, file_sequence_number) = numbers(&entry);
            if targets.hit(manifest.content, &file) {
                targets.found(manifest.content, &file);
                self.tally.remove(spec_id, &file);
                writer.add_delete_file(file, sequence_number, file_sequence_number)
            } else {
                let added_by = entry.snapshot_id().unwrap_or(manifest.added_snapshot_id);
                writer.add_existing_file(file, added_by, sequence_number, file_sequence_number)
            }
            .map_err(failed(doing))?;
        }
        writer.write_manifest_file().await.map_err(failed(doing))
    }

    /// Whether the table wants small manifests merged.
    fn merging(&self) -> bool {
        self.metadata
            .properties()
            .get("commit.manifest-merge.enabled")
            .is_none_or(|v| !v.eq_ignore_ascii_case("false"))
    }

    fn setting<T: std::str::FromStr>(&self, name: &str, default: T) -> T {
        let value = self.metadata.properties().get(name);
        value.and_then(|v| v.parse().ok()).unwrap_or(default)
    }

    /// Merges data manifests of one spec up to the target size: returns the merged, and those carried over after all.
    ///
    /// The newest of a spec wait until there are enough of them, together with the new files' own; those files are
    /// then written into the merged manifest and taken out of `added`.
    ///
    /// Source: Iceberg 1.12 `ManifestMergeManager.java`, `mergeGroup`. There only the bin with the commit's own new files
    /// waits to be full; here the newest bin of every spec does, so that a small one isn't written anew with each commit.
    async fn merge(
        &mut self,
        carried: Vec<ManifestFile>,
        added: &mut BTreeMap<i32, Vec<DataFile>>,
    ) -> Result<(Vec<ManifestFile>, Vec<ManifestFile>), StageError> {
        let enough = self.setting("commit.manifest.min-count-to-merge", MANIFESTS_TO_MERGE_MIN);
        let target_bytes = self.setting("commit.manifest.target-size-bytes", MANIFEST_TARGET_BYTES);
        let (mut kept, mut by_spec) = (Vec::new(), BTreeMap::<i32, Vec<ManifestFile>>::new());
        for manifest in carried {
            let spec_id = manifest.partition_spec_id;
            if manifest.content == ManifestContentType::Data && self.writable(spec_id) {
                by_spec.entry(spec_id).or_default().push(manifest);
            } else {
                kept.push(manifest);
            }
        }
        let (mut merged, mut carried) = (Vec::new(), Vec::new());
        for (spec_id, manifests) in by_spec {
            let mut bins = packed_from_oldest(manifests, target_bytes);
            let newest = bins.pop().unwrap_or_default();
            let count = newest.len() + usize::from(added.contains_key(&spec_id));
            if count >= enough.max(2) {
                let files = added.remove(&spec_id).unwrap_or_default();
                merged.push(self.write_merged(spec_id, newest, files).await?);
            } else {
                carried.extend(newest);
            }
            for bin in bins.into_iter().rev() {
                if bin.len() > 1 {
                    merged.push(self.write_merged(spec_id, bin, Vec::new()).await?);
                } else {
                    carried.extend(bin);
                }
            }
        }
        carried.extend(kept);
        Ok((merged, carried))
    }

    /// Whether a manifest of that spec can be written with the current schema: its source columns may be gone.
    fn writable(&self, spec_id: i32) -> bool {
        self.metadata
            .partition_spec_by_id(spec_id)
            .is_some_and(|spec| spec.partition_type(self.metadata.current_schema()).is_ok())
    }

    async fn write_merged(
        &mut self,
        spec_id: i32,
        manifests: Vec<ManifestFile>,
        added: Vec<DataFile>,
    ) -> Result<ManifestFile, StageError> {
        let doing = "can't merge manifests";
        let mut writer = self.writer(ManifestContentType::Data, spec_id, None)?;
        for file in added {
            writer.add_file(file, INHERIT).map_err(failed(doing))?;
        }
        for (manifest, content) in self.read(manifests).await? {
            for (entry, file) in self.alive(&manifest, &content)? {
                let (sequence_number, file_sequence_number) = numbers(&entry);
                let added_by = entry.snapshot_id().unwrap_or(manifest.added_snapshot_id);
                writer
                    .add_existing_file(file, added_by, sequence_number, file_sequence_number)
                    .map_err(failed(doing))?;
            }
        }
        writer.write_manifest_file().await.map_err(failed(doing))
    }

    async fn write_added(
        &mut self,
        content: ManifestContentType,
        spec_id: i32,
        files: Vec<DataFile>,
    ) -> Result<ManifestFile, StageError> {
        let doing = "can't write a manifest";
        let mut writer = self.writer(content, spec_id, None)?;
        for file in files {
            writer.add_file(file, INHERIT).map_err(failed(doing))?;
        }
        writer.write_manifest_file().await.map_err(failed(doing))
    }

    async fn write_list(&mut self, manifests: Vec<ManifestFile>) -> Result<(String, Option<u64>), StageError> {
        let doing = "can't write the manifest list";
        let (directory, uuid) = self.stem.rsplit_once('/').unwrap_or(("", &self.stem));
        let path = format!(
            "{directory}/snap-{}-{}-{uuid}.avro",
            self.snapshot_id, self.sequence_number
        );
        self.files.push(path.clone());
        let output = self.base.file_io.new_output(&path).map_err(failed(doing))?;
        let output = output.writer().await.map_err(failed(doing))?;
        let (id, parent) = (self.snapshot_id, self.metadata.current_snapshot_id());
        let number = self.sequence_number;
        let mut list = match self.metadata.format_version() {
            FormatVersion::V1 => ManifestListWriter::v1(output, id, parent),
            FormatVersion::V2 => ManifestListWriter::v2(output, id, parent, number),
            FormatVersion::V3 => {
                let first_row_id = Some(self.metadata.next_row_id());
                ManifestListWriter::v3(output, id, parent, number, first_row_id)
            }
        };
        list.add_manifests(manifests.into_iter()).map_err(failed(doing))?;
        let next_row_id = list.next_row_id();
        list.close().await.map_err(failed(doing))?;
        Ok((path, next_row_id))
    }

    fn writer(
        &mut self,
        content: ManifestContentType,
        spec_id: i32,
        schema: Option<SchemaRef>,
    ) -> Result<ManifestWriter, StageError> {
        let path = format!(
            "{}-{}-m{}.avro",
            self.stem, self.sequence_number, self.manifests_written
        );
        self.manifests_written += 1;
        self.files.push(path.clone());
        let output = self
            .base
            .file_io
            .new_output(&path)
            .map_err(failed("can't write a manifest"))?;
        let spec = self
            .metadata
            .partition_spec_by_id(spec_id)
            .ok_or(StageError::SpecMismatch { file: path, spec_id })?;
        let schema = schema.unwrap_or_else(|| self.metadata.current_schema().clone());
        let builder = ManifestWriterBuilder::new(output, Some(self.snapshot_id), schema, spec.as_ref().clone());
        use {FormatVersion as V, ManifestContentType as C};
        Ok(match (self.metadata.format_version(), content) {
            (V::V1, C::Data) => builder.build_v1(),
            (V::V1, C::Deletes) => {
                let what = "format version 1 has no delete files".to_string();
                return Err(StageError::Unsupported(what));
            }
            (V::V2, C::Data) => builder.build_v2_data(),
            (V::V2, C::Deletes) => builder.build_v2_deletes(),
            (V::V3, C::Data) => builder.build_v3_data(),
            (V::V3, C::Deletes) => builder.build_v3_deletes(),
        })
    }

    async fn read(&self, manifests: Vec<ManifestFile>) -> Result<Vec<(ManifestFile, Manifest)>, StageError> {
        let io = &self.base.file_io;
        futures::stream::iter(manifests)
            .map(|manifest| async move {
                let content = manifest.load_manifest(io).await?;
                Ok((manifest, content))
            })
            .buffered(READS_AT_ONCE)
            .try_collect()
            .await
            .map_err(failed("can't read a manifest"))
    }

    /// Returns the live entries of a manifest with their files, row ids written out (v3).
    ///
    /// A file's row id may be implied by its place in its manifest; it must be spelled out before the file moves.
    /// Source: Iceberg table spec, "First Row ID Inheritance"; Iceberg 1.12 `ManifestReader.java`, `idAssigner`.
    fn alive(&self, manifest: &ManifestFile, content: &Manifest) -> Result<Vec<(ManifestEntry, DataFile)>, StageError> {
        let lineage =
            self.metadata.format_version() == FormatVersion::V3 && manifest.content == ManifestContentType::Data;
        let mut row_id = manifest.first_row_id.filter(|_| lineage);
        let mut alive = Vec::new();
        for entry in content.entries() {
            if entry.status() == ManifestStatus::Deleted {
                continue;
            }
            let mut file = entry.data_file().clone();
            if let Some(first) = row_id
                && file.first_row_id().is_none()
            {
                row_id = Some(first + file.record_count());
                file = with_first_row_id(&file, manifest.partition_spec_id, first)?;
            }
            alive.push((entry.as_ref().clone(), file));
        }
        Ok(alive)
    }
}

/// A data sequence number that says "the one of the commit", for `ManifestWriter::add_file`.
const INHERIT: i64 = -1;

/// The data and file sequence numbers of an entry; format version 1 has neither, which counts as 0.
fn numbers(entry: &ManifestEntry) -> (i64, Option<i64>) {
    let sequence_number = entry.sequence_number().unwrap_or(0);
    (
        sequence_number,
        Some(entry.file_sequence_number.unwrap_or(sequence_number)),
    )
}

/// Packs manifests, newest first as a list has them, into bins of up to `bytes`, oldest bin first.
///
/// Filled from the oldest on, so that full bins stay as they are from commit to commit. Within a bin and all along,
/// the newest comes first.
fn packed_from_oldest(manifests: Vec<ManifestFile>, bytes: i64) -> Vec<Vec<ManifestFile>> {
    let mut bins: Vec<Vec<ManifestFile>> = Vec::new();
    let mut filled = 0;
    for manifest in manifests.into_iter().rev() {
        filled += manifest.manifest_length;
        match bins.last_mut() {
            Some(bin) if filled <= bytes => bin.push(manifest),
            _ => {
                filled = manifest.manifest_length;
                bins.push(vec![manifest]);
            }
        }
    }
    for bin in &mut bins {
        bin.reverse();
    }
    bins
}

/// Rebuilds a file with its first row id; the crate has no setter for it.
fn with_first_row_id(file: &DataFile, spec_id: i32, first_row_id: u64) -> Result<DataFile, StageError> {
    let unsupported = |what: String| StageError::Unsupported(what);
    let row_id =
        i64::try_from(first_row_id).map_err(|_| unsupported(format!("row id {first_row_id} is beyond 63 bits")))?;
    let mut builder = DataFileBuilder::default();
    builder
        .content(file.content_type())
        .file_path(file.file_path().to_string())
        .file_format(file.file_format())
        .partition(file.partition().clone())
        .partition_spec_id(spec_id)
        .record_count(file.record_count())
        .file_size_in_bytes(file.file_size_in_bytes())
        .column_sizes(file.column_sizes().clone())
        .value_counts(file.value_counts().clone())
        .null_value_counts(file.null_value_counts().clone())
        .nan_value_counts(file.nan_value_counts().clone())
        .lower_bounds(file.lower_bounds().clone())
        .upper_bounds(file.upper_bounds().clone())
        .key_metadata(file.key_metadata().map(<[u8]>::to_vec))
        .split_offsets(file.split_offsets().map(<[i64]>::to_vec))
        .equality_ids(file.equality_ids())
        .first_row_id(Some(row_id))
        .referenced_data_file(file.referenced_data_file())
        .content_offset(file.content_offset())
        .content_size_in_bytes(file.content_size_in_bytes());
    if let Some(order) = file.sort_order_id() {
        builder.sort_order_id(order);
    }
    builder
        .build()
        .map_err(|error| unsupported(format!("`{}`: {error}", file.file_path())))
}
