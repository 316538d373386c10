//! Writing: the rows of a window become Parquet files, each described as Iceberg's manifests want it.
//!
//! No store, no clock, no randomness here: bytes go to [`FileSinks`], names come from the caller.

mod bounds;
mod data_file;
mod dictionary;
mod encoder;
mod error;
mod loose;
mod open_file;
mod settings;
mod sink;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use arrow::array::RecordBatch;
use iceberg::spec::{DataFile, PartitionSpecRef, SortOrderRef, Struct};
use parquet::schema::types::ColumnPath;

use self::data_file::{NanCounts, Written, data_file};
use self::dictionary::plain_columns;
use self::encoder::{Encoder, RowBuffer, RowOrder, STEP_ROWS_MAX, encode, encoder, finish, slice_bytes};
pub use self::error::WriteError;
use self::loose::Loose;
use self::open_file::{FileBytes, FileState, OpenFile};
pub use self::settings::{MetricsMode, ParquetSettings};
pub use self::sink::{FileSink, FileSinks, Finishing, MemorySinks, Passing};
use crate::place::{Part, Scattered, leaves};
use crate::schema::{RowPlan, RowPlanRef};

/// Rows of one partition value in a chunk, from which on they go to an encoder of their own at once.
const RUN_ROWS_MIN: usize = 256;

/// The same, in bytes: a few large rows fill pages of an encoder, and would wait for nothing.
const RUN_BYTES_MIN: usize = 1 << 20;

/// Rows of a row group in progress, from which on it stays open for more: ended earlier it would be small, kept open it costs
/// an encoder for each value.
const GROUP_ROWS_MIN: usize = 16_384;

/// Files that are being completed in the store at once: one put takes longer than to encode a small file.
const FINISHING_MAX: usize = 16;

/// What those may hold in memory before the oldest is waited for.
const FINISHING_BYTES_MAX: usize = 64 << 20;

/// What loose rows may hold, however much memory there is: a column of text counts its bytes in 31 bits.
const LOOSE_BYTES_MAX: usize = 1 << 30;

/// Writes the files of one window of one line.
///
/// One file is open for each partition value. A file is closed at its target size, at `rows_per_file_max`, when the plan
/// changes, and when the window is sealed. Dropped before that, the files are given up by their sinks.
///
/// Memory is what decides how rows become row groups: rows wait, as loose rows or in encoders, until [`WindowWriter::relieve`]
/// is told to make room. It ends the largest row group, which costs little in the file; files are closed before their time
/// only where their encoded bytes alone are too many.
pub struct WindowWriter {
    plan: RowPlanRef,
    spec: PartitionSpecRef,
    settings: ParquetSettings,
    sort_order: Option<SortOrderRef>,
    row_order: Option<RowOrder>,
    /// Of the plan, those that Parquet writes: the leaves.
    columns: usize,
    /// The columns that are written without a dictionary; judged once, by the first rows under the plan.
    plain: Option<Vec<ColumnPath>>,
    data_location: String,
    file_name_stem: String,
    rows_per_file_max: u64,
    sinks: Box<dyn FileSinks>,
    files_started: u32,
    loose: Loose,
    open: HashMap<Struct, OpenFile>,
    /// What all open files hold.
    open_bytes: usize,
    /// Encoded to the end, and on their way to the store.
    finishing: VecDeque<FinishingFile>,
    closed: Vec<DataFile>,
}

struct FinishingFile {
    path: String,
    written: u64,
    /// What it holds in memory.
    held: usize,
    finishing: Finishing,
    file: DataFile,
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
            columns: leaf_count(&plan),
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
            loose: Loose::default(),
            open: HashMap::new(),
            open_bytes: 0,
            finishing: VecDeque::new(),
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
            self.assert_planned(&part.rows);
            let many = part.rows.num_rows() >= RUN_ROWS_MIN || slice_bytes(&part.rows) >= RUN_BYTES_MIN;
            let run = many && !self.loose.holds(&part.value);
            if run || self.open.get(&part.value).is_some_and(OpenFile::takes_few) {
                self.write_part(part)?;
            } else {
                self.loose.add_part(part).map_err(WriteError::Gather)?;
            }
        }
        Ok(())
    }

    /// Takes rows of many partition values, few of each.
    ///
    /// # Errors
    /// [`WriteError`]; the writer is of no more use then.
    ///
    /// # Panics
    /// If the rows don't have the plan's schema.
    pub fn scatter(&mut self, scattered: Scattered) -> Result<(), WriteError> {
        self.assert_planned(&scattered.rows);
        self.loose.add(scattered).map_err(WriteError::Gather)
    }

    fn assert_planned(&self, rows: &RecordBatch) {
        assert!(
            Arc::ptr_eq(rows.schema_ref(), &self.plan.arrow) || rows.schema_ref() == &self.plan.arrow,
            "rows are placed under the plan they are written under"
        );
    }

    fn write_part(&mut self, part: Part) -> Result<(), WriteError> {
        let mut start = 0;
        while start < part.rows.num_rows() {
            let mut file = match self.take_open(&part.value) {
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
                self.put_open(part.value.clone(), file);
            }
        }
        Ok(())
    }

    fn take_open(&mut self, value: &Struct) -> Option<OpenFile> {
        let file = self.open.remove(value)?;
        self.open_bytes -= file.held.all();
        Some(file)
    }

    fn put_open(&mut self, value: Struct, mut file: OpenFile) {
        file.measure(&self.settings, self.columns);
        self.open_bytes += file.held.all();
        self.open.insert(value, file);
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
        self.columns = leaf_count(&plan);
        self.plan = plan;
        Ok(())
    }

    /// Returns the memory that rows and files hold, in bytes.
    pub fn held_bytes(&self) -> usize {
        let finishing: usize = self.finishing.iter().map(|file| file.held).sum();
        self.loose.bytes() + self.open_bytes + finishing
    }

    /// Makes room until no more than `bytes_max` are held, as far as that goes.
    ///
    /// # Errors
    /// [`WriteError`]; the writer is of no more use then.
    pub fn relieve(&mut self, bytes_max: usize) -> Result<(), WriteError> {
        if self.loose.bytes() > LOOSE_BYTES_MAX {
            self.write_loose(0, Then::FlushSmall)?;
        }
        // Ends: each round takes something out of memory, down to nothing.
        while self.held_bytes() > bytes_max {
            if let Some(oldest) = self.finishing.pop_front() {
                self.finished(oldest)?;
                continue;
            }
            let encoded: usize = self.open.values().map(|file| file.held.encoded + file.held.fixed).sum();
            let rows_max = self.open.values().map(|file| file.held.rows).max().unwrap_or(0);
            let loose = self.loose.bytes();
            if encoded > bytes_max / 3 * 2 || (rows_max == 0 && self.loose.first().is_none()) {
                // Rows need the rest, else row groups get smaller and smaller.
                if !self.close_largest()? {
                    return Ok(());
                }
            } else if loose >= rows_max {
                // A quarter waits on: what is left is copied, and must be worth it.
                self.write_loose(self.loose.rows() / 4, Then::FlushSmall)?;
            } else {
                self.flush_largest()?;
            }
        }
        Ok(())
    }

    /// Ends row groups until rows alone hold no more than `bytes_max`; files stay open.
    ///
    /// # Errors
    /// [`WriteError`]; the writer is of no more use then.
    pub fn flush_rows(&mut self, bytes_max: usize) -> Result<(), WriteError> {
        let rows = |writer: &WindowWriter| writer.open.values().map(|file| file.held.rows).sum::<usize>();
        if self.loose.bytes() > bytes_max {
            self.write_loose(0, Then::FlushSmall)?;
        }
        // Ends: each round frees rows of one file.
        while rows(self) > bytes_max {
            self.flush_largest()?;
        }
        Ok(())
    }

    /// Writes loose rows to the files of their values; `rows_left` of them wait on, at most.
    fn write_loose(&mut self, rows_left: usize, then: Then) -> Result<(), WriteError> {
        if self.plain.is_none()
            && let Some(rows) = self.loose.first()
        {
            // Of all values: the first one's rows may be few.
            let plain = plain_columns(rows, &self.plan.schema, self.settings.dictionary_bytes_max);
            self.plain = Some(plain);
        }
        let taken = self.loose.take(rows_left).map_err(WriteError::Gather)?;
        for gathered in &taken.parts {
            for rows in taken.batches(gathered) {
                let rows = rows.map_err(WriteError::Gather)?;
                let (value, path) = (gathered.value.clone(), gathered.path.clone());
                self.write_part(Part { value, path, rows })?;
            }
            let Some(mut file) = self.take_open(&gathered.value) else {
                continue; // It was full.
            };
            match (&then, &mut file.state) {
                (Then::Close, _) => {
                    self.close_file(gathered.value.clone(), file)?;
                    continue;
                }
                (Then::FlushSmall, FileState::Encoding(encoder)) if encoder.in_progress_rows() < GROUP_ROWS_MIN => {
                    flush(encoder, &file.path)?;
                }
                (Then::FlushSmall, _) => {}
            }
            self.put_open(gathered.value.clone(), file);
        }
        Ok(())
    }

    /// Frees the rows of the open file that holds the most: it ends its row group, or, where rows are sorted, is closed.
    fn flush_largest(&mut self) -> Result<(), WriteError> {
        let Some(value) = self.largest(|held| held.rows) else {
            return Ok(());
        };
        let Some(mut file) = self.take_open(&value) else {
            return Ok(());
        };
        match &mut file.state {
            FileState::Encoding(encoder) => {
                flush(encoder, &file.path)?;
                self.put_open(value, file);
                Ok(())
            }
            FileState::Collecting(_) => self.close_file(value, file),
        }
    }

    /// Closes the file with the most encoded bytes; false if there is none.
    fn close_largest(&mut self) -> Result<bool, WriteError> {
        let value = self.largest(|held| held.encoded + held.fixed);
        let file = value.and_then(|value| Some((self.take_open(&value)?, value)));
        let Some((file, value)) = file else {
            return Ok(false);
        };
        self.close_file(value, file).map(|()| true)
    }

    fn largest(&self, bytes: impl Fn(FileBytes) -> usize) -> Option<Struct> {
        // The number breaks ties, so that the same rows always make the same files.
        let largest = self.open.iter().max_by_key(|(_, file)| (bytes(file.held), file.number));
        largest.map(|(value, _)| value.clone())
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
            held: FileBytes::default(),
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

    /// Closes all files and waits until the store has them.
    fn close_all(&mut self) -> Result<(), WriteError> {
        self.write_loose(0, Then::Close)?;
        self.open_bytes = 0;
        let mut open: Vec<(Struct, OpenFile)> = self.open.drain().collect();
        open.sort_by_key(|(_, file)| file.number);
        open.into_iter()
            .try_for_each(|(value, file)| self.close_file(value, file))?;
        while let Some(oldest) = self.finishing.pop_front() {
            self.finished(oldest)?;
        }
        Ok(())
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
        let file = Written {
            path: &path,
            bytes: written,
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
        let held = |finishing: &VecDeque<FinishingFile>| finishing.iter().map(|file| file.held).sum::<usize>();
        // Ends: each round takes one away.
        while (self.finishing.len() >= FINISHING_MAX || held(&self.finishing) > FINISHING_BYTES_MAX)
            && let Some(oldest) = self.finishing.pop_front()
        {
            self.finished(oldest)?;
        }
        self.finishing.push_back(FinishingFile {
            path,
            written,
            held: sink.held_bytes(),
            finishing: sink.finish(),
            file,
        });
        Ok(())
    }

    /// Waits until the store has a file.
    fn finished(&mut self, file: FinishingFile) -> Result<(), WriteError> {
        let FinishingFile {
            path,
            written,
            finishing,
            file,
            ..
        } = file;
        let stored = finishing.wait().map_err(|source| WriteError::Finish {
            path: path.clone(),
            source,
        })?;
        if stored != written {
            return Err(WriteError::Size { path, written, stored });
        }
        self.closed.push(file);
        Ok(())
    }

    fn encode_sorted(&mut self, path: &str, buffer: &RowBuffer) -> Result<Encoder, WriteError> {
        let order = self.row_order.as_ref().expect("rows are collected for an order only");
        let places = order.sorted(&buffer.batches).map_err(|source| WriteError::Sort {
            path: path.to_owned(),
            source,
        })?;
        let mut encoder = self.start_encoder(path, &buffer.batches[0])?;
        encode(&mut encoder, buffer, &places).map_err(|source| WriteError::Encode {
            path: path.to_owned(),
            source,
        })?;
        Ok(encoder)
    }
}

/// What is done with a file whose loose rows are written.
enum Then {
    /// Its row group is ended, unless it is large.
    FlushSmall,
    /// It is closed: no rows are to come.
    Close,
}

fn flush(encoder: &mut Encoder, path: &str) -> Result<(), WriteError> {
    encoder.flush().map_err(|source| WriteError::Encode {
        path: path.to_owned(),
        source,
    })
}

fn leaf_count(plan: &RowPlan) -> usize {
    leaves(&plan.schema).len().max(1)
}

fn file_name(file: &DataFile) -> &str {
    file.file_path().rsplit('/').next().unwrap_or_default()
}
