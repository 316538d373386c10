//! Writing: the rows of a window become Parquet files, each described as Iceberg's manifests want it.
//!
//! No store, no clock, no randomness here: bytes go to [`FileSinks`], names come from the caller.

mod bounds;
mod data_file;
mod dictionary;
mod encoder;
mod settings;
mod sink;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use iceberg::spec::{DataFile, PartitionSpecRef, SortOrderRef, Struct};
use parquet::errors::ParquetError;
use parquet::schema::types::ColumnPath;

use self::data_file::{NanCounts, Written, data_file};
use self::dictionary::plain_columns;
use self::encoder::{Encoder, RowBuffer, RowOrder, STEP_ROWS_MAX, encode, encoder, finish};
pub use self::settings::{MetricsMode, ParquetSettings};
pub use self::sink::{FileSink, FileSinks, MemorySinks};
use crate::place::Part;
use crate::schema::RowPlanRef;

/// Why a window's files can't be written. Its other files may exist; the window is dropped and re-read.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The store didn't take a new file.
    #[error("could not start `{path}`")]
    Open {
        /// The file's location.
        path: String,
        /// What the store said.
        source: io::Error,
    },
    /// Rows couldn't be encoded, or their bytes couldn't be sent.
    #[error("could not write `{path}`")]
    Encode {
        /// The file's location.
        path: String,
        /// What the encoder or, below it, the store said.
        source: ParquetError,
    },
    /// Rows couldn't be sorted.
    #[error("could not sort the rows of `{path}`")]
    Sort {
        /// The file's location.
        path: String,
        /// Why.
        source: ArrowError,
    },
    /// The file couldn't be completed.
    #[error("could not complete `{path}`")]
    Finish {
        /// The file's location.
        path: String,
        /// What the store said.
        source: io::Error,
    },
    /// The store holds another number of bytes than were written.
    #[error("`{path}` has {stored} bytes in the store, but {written} were written")]
    Size {
        /// The file's location.
        path: String,
        /// Bytes handed to the sink.
        written: u64,
        /// Bytes that the sink reports.
        stored: u64,
    },
}

/// Writes the files of one window of one line.
///
/// Holds one open file per partition value. A file is closed at its target size, at `rows_per_file_max`, when the plan
/// changes, and when the window is sealed. Dropped before that, the files are given up by their sinks.
pub struct WindowWriter {
    plan: RowPlanRef,
    spec: PartitionSpecRef,
    settings: ParquetSettings,
    sort_order: Option<SortOrderRef>,
    row_order: Option<RowOrder>,
    /// The columns that are written without a dictionary; judged once, by the first rows under the plan.
    plain: Option<Vec<ColumnPath>>,
    data_location: String,
    file_name_stem: String,
    rows_per_file_max: u64,
    sinks: Box<dyn FileSinks>,
    files_started: u32,
    open: HashMap<Struct, OpenFile>,
    closed: Vec<DataFile>,
}

struct OpenFile {
    number: u32,
    path: String,
    rows: u64,
    nans: NanCounts,
    state: FileState,
}

enum FileState {
    /// Rows are encoded as they come. Boxed, since an encoder is ten times the size of a buffer's head.
    Encoding(Box<Encoder>),
    /// Rows wait to be sorted; the file is made when it is closed.
    Collecting(RowBuffer),
}

impl OpenFile {
    fn memory_bytes(&self) -> usize {
        match &self.state {
            FileState::Encoding(encoder) => encoder.memory_size(),
            FileState::Collecting(buffer) => buffer.bytes,
        }
    }

    fn is_full(&self, settings: &ParquetSettings, rows_max: u64) -> bool {
        let large = match &self.state {
            FileState::Encoding(encoder) => {
                (encoder.bytes_written() + encoder.in_progress_size()) as u64 >= settings.file_bytes_target
            }
            FileState::Collecting(buffer) => {
                buffer.bytes >= settings.sort_bytes_max || buffer.bytes as u64 >= settings.file_bytes_target
            }
        };
        large || self.rows >= rows_max
    }
}

impl WindowWriter {
    /// Makes a writer without files.
    ///
    /// - `sort_order`: the table's default order; kept if it is of columns themselves (identity transforms), else files stay
    ///   unsorted and say so.
    /// - `data_location`: `write.data.path`, else `{table location}/data`.
    /// - `file_name_stem`: unique to this window and line; files are `{data_location}/{partition}/{stem}-00000.parquet`.
    /// - `rows_per_file_max`: no file ever holds more rows; at least 1.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a fact of its own that a window begins with"
    )]
    pub fn new(
        plan: RowPlanRef,
        spec: PartitionSpecRef,
        sort_order: Option<SortOrderRef>,
        settings: ParquetSettings,
        data_location: String,
        file_name_stem: String,
        rows_per_file_max: u64,
        sinks: Box<dyn FileSinks>,
    ) -> WindowWriter {
        assert!(rows_per_file_max > 0, "a file holds at least one row");
        let row_order = sort_order.as_ref().and_then(|order| RowOrder::new(order, &plan.schema));
        WindowWriter {
            plan,
            spec,
            settings,
            sort_order,
            row_order,
            plain: None,
            data_location: data_location.trim_end_matches('/').to_owned(),
            file_name_stem,
            rows_per_file_max,
            sinks,
            files_started: 0,
            open: HashMap::new(),
            closed: Vec::new(),
        }
    }

    /// Writes placed rows to the files of their partitions.
    ///
    /// # Errors
    /// [`WriteError`]; the writer is of no more use then.
    ///
    /// # Panics
    /// If a part's rows don't have the plan's schema.
    pub fn write(&mut self, parts: Vec<Part>) -> Result<(), WriteError> {
        for part in parts {
            assert!(
                Arc::ptr_eq(part.rows.schema_ref(), &self.plan.arrow) || part.rows.schema_ref() == &self.plan.arrow,
                "rows are placed under the plan they are written under"
            );
            self.write_part(part)?;
        }
        Ok(())
    }

    fn write_part(&mut self, part: Part) -> Result<(), WriteError> {
        let mut start = 0;
        while start < part.rows.num_rows() {
            let mut file = match self.open.remove(&part.value) {
                Some(file) => file,
                None => self.start_file(&part.path, &part.rows)?,
            };
            let room = usize::try_from(self.rows_per_file_max - file.rows).unwrap_or(usize::MAX);
            let length = room.min(STEP_ROWS_MAX).min(part.rows.num_rows() - start);
            let rows = part.rows.slice(start, length);
            start += length;
            file.rows += length as u64;
            file.nans.add(&rows);
            match &mut file.state {
                FileState::Encoding(encoder) => encoder.write(&rows).map_err(|source| WriteError::Encode {
                    path: file.path.clone(),
                    source,
                })?,
                FileState::Collecting(buffer) => buffer.push(rows),
            }
            if file.is_full(&self.settings, self.rows_per_file_max) {
                self.close_file(part.value.clone(), file)?;
            } else {
                self.open.insert(part.value.clone(), file);
            }
        }
        Ok(())
    }

    /// Closes the open files; what is written from here on has the schema of `plan`.
    ///
    /// # Errors
    /// [`WriteError`]; the writer is of no more use then.
    pub fn replan(&mut self, plan: RowPlanRef) -> Result<(), WriteError> {
        self.close_all()?;
        self.row_order = self
            .sort_order
            .as_ref()
            .and_then(|order| RowOrder::new(order, &plan.schema));
        self.plain = None;
        self.plan = plan;
        Ok(())
    }

    /// Returns the memory that open files hold, in bytes, sinks aside.
    pub fn open_bytes(&self) -> usize {
        self.open.values().map(OpenFile::memory_bytes).sum()
    }

    /// Frees the memory of the open file that holds the most: it ends its row group, or, where rows are sorted, is closed.
    ///
    /// Returns the bytes freed; 0 if there is nothing to free.
    ///
    /// # Errors
    /// [`WriteError`]; the writer is of no more use then.
    pub fn flush_largest(&mut self) -> Result<usize, WriteError> {
        // The number breaks ties, so that the same rows always make the same files.
        let largest = self
            .open
            .iter()
            .max_by_key(|(_, file)| (file.memory_bytes(), file.number));
        let Some(value) = largest.map(|(value, _)| value.clone()) else {
            return Ok(0);
        };
        let Some(mut file) = self.open.remove(&value) else {
            return Ok(0);
        };
        let before = file.memory_bytes();
        match &mut file.state {
            FileState::Encoding(encoder) => {
                encoder.flush().map_err(|source| WriteError::Encode {
                    path: file.path.clone(),
                    source,
                })?;
                let freed = before - file.memory_bytes();
                self.open.insert(value, file);
                Ok(freed)
            }
            FileState::Collecting(_) => self.close_file(value, file).map(|()| before),
        }
    }

    /// Completes all files and returns them, in the order they were started.
    ///
    /// # Errors
    /// [`WriteError`]; files that are complete by then stay where they are, referred to by nothing.
    pub fn seal(mut self) -> Result<Vec<DataFile>, WriteError> {
        self.close_all()?;
        // Numbers end the names, and are what differs between them besides directories.
        self.closed.sort_by(|a, b| file_name(a).cmp(file_name(b)));
        Ok(self.closed)
    }

    /// Starts the file of a partition whose first rows are among `rows`.
    fn start_file(&mut self, partition_path: &str, rows: &RecordBatch) -> Result<OpenFile, WriteError> {
        // One count for all partitions: two values may share a directory, so a name must not depend on it.
        let number = self.files_started;
        self.files_started += 1;
        let directory = if partition_path.is_empty() {
            String::new()
        } else {
            format!("/{partition_path}")
        };
        let path = format!(
            "{}{directory}/{}-{number:05}.parquet",
            self.data_location, self.file_name_stem
        );
        let state = match self.row_order {
            Some(_) => FileState::Collecting(RowBuffer::default()),
            None => FileState::Encoding(Box::new(self.start_encoder(&path, rows)?)),
        };
        Ok(OpenFile {
            number,
            path,
            rows: 0,
            nans: NanCounts::new(&self.plan.schema),
            state,
        })
    }

    fn start_encoder(&mut self, path: &str, rows: &RecordBatch) -> Result<Encoder, WriteError> {
        let (schema, dictionary_bytes_max) = (&self.plan.schema, self.settings.dictionary_bytes_max);
        let plain = self
            .plain
            .get_or_insert_with(|| plain_columns(rows, schema, dictionary_bytes_max));
        let sink = self.sinks.open(path).map_err(|source| WriteError::Open {
            path: path.to_owned(),
            source,
        })?;
        encoder(&self.plan, &self.settings, plain, sink).map_err(|source| WriteError::Encode {
            path: path.to_owned(),
            source,
        })
    }

    fn close_all(&mut self) -> Result<(), WriteError> {
        let mut open: Vec<(Struct, OpenFile)> = self.open.drain().collect();
        open.sort_by_key(|(_, file)| file.number);
        open.into_iter()
            .try_for_each(|(value, file)| self.close_file(value, file))
    }

    fn close_file(&mut self, partition: Struct, file: OpenFile) -> Result<(), WriteError> {
        let OpenFile {
            path,
            rows,
            nans,
            state,
            ..
        } = file;
        let encoder = match state {
            FileState::Encoding(encoder) => *encoder,
            FileState::Collecting(buffer) => self.encode_sorted(&path, &buffer)?,
        };
        let (metadata, written, sink) = finish(encoder).map_err(|source| WriteError::Encode {
            path: path.clone(),
            source,
        })?;
        let stored = sink.finish().map_err(|source| WriteError::Finish {
            path: path.clone(),
            source,
        })?;
        if stored != written {
            return Err(WriteError::Size { path, written, stored });
        }
        let file = Written {
            path: &path,
            bytes: stored,
            partition,
            spec_id: self.spec.spec_id(),
            sort_order_id: self.row_order.as_ref().map(|order| order.id),
        };
        let file = data_file(file, &metadata, &self.plan.schema, &self.settings, &nans);
        assert_eq!(
            file.record_count(),
            rows,
            "a file holds the rows that were written to it"
        );
        self.closed.push(file);
        Ok(())
    }

    fn encode_sorted(&mut self, path: &str, buffer: &RowBuffer) -> Result<Encoder, WriteError> {
        let order = self.row_order.as_ref().expect("rows are collected for an order only");
        let rows = order.sorted(&buffer.batches).map_err(|source| WriteError::Sort {
            path: path.to_owned(),
            source,
        })?;
        let mut encoder = self.start_encoder(path, &buffer.batches[0])?;
        encode(&mut encoder, &rows).map_err(|source| WriteError::Encode {
            path: path.to_owned(),
            source,
        })?;
        Ok(encoder)
    }
}

fn file_name(file: &DataFile) -> &str {
    file.file_path().rsplit('/').next().unwrap_or_default()
}
