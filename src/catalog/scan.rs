//! Reading a table's rows with the crate.

use futures::TryStreamExt;
use iceberg::scan::{FileScanTask, TableScan};
use iceberg::table::Table;
use iceberg::{Error, ErrorKind, Runtime};

use super::LoadedTable;

impl LoadedTable {
    /// Makes of it one that the crate scans.
    ///
    /// # Errors
    /// None in practice: all that it needs is here.
    pub fn scannable(&self) -> iceberg::Result<Table> {
        Table::builder()
            .identifier(self.ident.clone())
            .metadata(self.metadata.clone())
            .metadata_location(&self.metadata_location)
            .file_io(self.file_io.clone())
            .runtime(Runtime::try_current()?)
            .readonly(true)
            .build()
    }
}

/// Finds the files that a scan reads.
///
/// # Errors
/// What the crate says; `FeatureUnsupported` if a file has a deletion vector, which it takes for a file of deletes and can't
/// read (iceberg 0.10.1).
pub async fn planned(scan: TableScan) -> iceberg::Result<Vec<FileScanTask>> {
    let tasks: Vec<FileScanTask> = scan.plan_files().await?.try_collect().await?;
    let vector = |task: &&FileScanTask| task.deletes.iter().any(|file| file.file_path.ends_with(".puffin"));
    match tasks.iter().find(vector) {
        None => Ok(tasks),
        Some(task) => Err(Error::new(
            ErrorKind::FeatureUnsupported,
            format!(
                "rows of `{}` are deleted by a deletion vector, which can't be read yet",
                task.data_file_path
            ),
        )),
    }
}
