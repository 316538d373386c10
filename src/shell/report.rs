//! What a run tells about itself: counts while it goes on, one report when it ends.
//!
//! The report's JSON is a contract with users' scripts: keys are added, never renamed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde::Serialize;

use crate::error::Exit;
use crate::memory::Memory;
use crate::observe::Table;

/// Live counts of one pipeline, shared with the progress bar.
///
/// Each is written by one place and read without order: a bar that is one window behind misleads nobody.
#[derive(Debug, Default)]
pub struct Counters {
    /// Records taken from Kafka; those of a window that was dropped count again when they are read again.
    pub records_read: AtomicU64,
    /// Rows that commits added.
    pub rows_written: AtomicU64,
    /// Records of committed windows that couldn't become rows.
    pub rejected: AtomicU64,
    /// Commits that are in the table.
    pub commits: AtomicU64,
    /// Offsets that are behind this run, of `position_total`.
    pub position_done: AtomicU64,
    /// Offsets between where this run started and the ends it goes to; 0 in a service, and before they are known.
    pub position_total: AtomicU64,
    /// What others see of it over HTTP.
    pub table: Arc<Table>,
}

impl Counters {
    /// Starts at zero for a pipeline that is observed as `table`.
    pub fn of(table: Arc<Table>) -> Self {
        Counters {
            table,
            ..Counters::default()
        }
    }
}

/// How a pipeline's part of a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum TableOutcome {
    /// The table holds everything up to the ends.
    Done,
    /// It was told to stop before that.
    Stopped,
    /// It can't go on.
    Failed,
}

/// The offsets that a run moved a partition over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct OffsetSpan {
    /// Where the partition was when the run began.
    pub start: i64,
    /// The offset to read next; equal to `start` where nothing was new.
    pub end: i64,
}

/// A sync point that named a later offset than the table holds: the table was rolled back, or somebody wrote to the
/// sync points. It is overwritten from the table, never obeyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncPointAhead {
    /// The offset in the sync point.
    pub sync_point: i64,
    /// The offset in the table; `None` if it doesn't know the partition.
    pub table: Option<i64>,
}

/// One window that a run committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WindowReport {
    /// Its name, `run/sequence`.
    pub id: String,
    /// What closed it: size, age, memory, end, revoke or stop.
    pub reason: String,
    /// Records taken from Kafka.
    pub records: u64,
    /// Records that became rows.
    pub rows: u64,
    /// Records that couldn't.
    pub rejected: u64,
}

/// What one pipeline of a run did.
///
/// Counts are of the windows that were committed: what was dropped and read again is counted once, what was refused not at
/// all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TableReport {
    /// The table, `schema.name`.
    pub table: String,
    /// How it ended.
    pub outcome: TableOutcome,
    /// The exit code that this table alone would give.
    pub exit_code: u8,
    /// Why it failed, as the user meets it: what, detail, hint.
    pub error: Option<String>,
    /// Records taken from Kafka.
    pub records_read: u64,
    /// Rows added.
    pub rows_written: u64,
    /// Rows deleted; 0 as long as tables only append.
    pub rows_deleted: u64,
    /// Records that couldn't become rows.
    pub rejected: u64,
    /// Rows that came too late; 0 as long as lateness isn't supported.
    pub late: u64,
    /// Records that make no row by definition.
    pub filtered: u64,
    /// Of the filtered: events that were sent again, with `envelope.idempotent`.
    pub resent: u64,
    /// Values of fields that no column takes: those that `schemaEvolution: ignore` leaves out, and those whose name can't be
    /// a column beside the ones that are there. With declared columns, other fields aren't counted.
    pub fields_dropped: u64,
    /// By Kafka partition.
    pub offsets: BTreeMap<String, OffsetSpan>,
    /// By Kafka partition, the sync points that were found ahead of the table.
    pub sync_points_ahead: BTreeMap<String, SyncPointAhead>,
    /// The committed windows, in order.
    pub windows: Vec<WindowReport>,
    /// The snapshots that this run made, in order; of a table of plain Parquet the numbers of its commits.
    pub snapshots: Vec<i64>,
    /// Data files added.
    pub files_written: u64,
    /// Their bytes.
    pub bytes_written: u64,
    /// How long it took, in milliseconds.
    pub millis: u64,
    /// Offsets between the table and the topic's ends when it was last looked at; `None` if that is unknown.
    pub lag: Option<u64>,
}

impl TableReport {
    /// Starts the report of a table of which nothing is known yet.
    pub fn new(table: String) -> Self {
        TableReport {
            table,
            outcome: TableOutcome::Done,
            exit_code: Exit::Done as u8,
            error: None,
            records_read: 0,
            rows_written: 0,
            rows_deleted: 0,
            rejected: 0,
            late: 0,
            filtered: 0,
            resent: 0,
            fields_dropped: 0,
            offsets: BTreeMap::new(),
            sync_points_ahead: BTreeMap::new(),
            windows: Vec::new(),
            snapshots: Vec::new(),
            files_written: 0,
            bytes_written: 0,
            millis: 0,
            lag: None,
        }
    }
}

/// The memory that a run used, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemoryReport {
    /// The limit, `--memory`.
    pub limit: u64,
    /// The most that was resident at once, as the operating system counts; `None` where it doesn't say.
    pub peak_resident: Option<u64>,
    /// The most that was counted at once of what grows with the data: queues, chunks, files, letters.
    pub peak_counted: u64,
    /// What `peak_resident` left of `limit`; less than 0 where it went beyond.
    pub headroom: Option<i64>,
}

impl MemoryReport {
    /// Tells what there is to tell at the end of a run.
    pub fn new(memory: &Memory, peak_resident: Option<u64>) -> Self {
        MemoryReport {
            limit: memory.limit(),
            peak_resident,
            peak_counted: memory.held_peak(),
            headroom: peak_resident.map(|peak| memory.limit().cast_signed().saturating_sub_unsigned(peak)),
        }
    }
}

/// What `aperio run --output json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunReport {
    /// The run's id, the first part of its windows' names.
    pub run: String,
    /// The version of aperio.
    pub version: String,
    /// The exit code of the process.
    pub exit_code: u8,
    /// How long it took, in milliseconds.
    pub millis: u64,
    /// What it needed.
    pub memory: MemoryReport,
    /// One for each pipeline, in the order of the files.
    pub tables: Vec<TableReport>,
}
