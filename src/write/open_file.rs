//! One file that is being written, and the memory it holds.

use parquet::basic::Compression;

use super::data_file::NanCounts;
use super::encoder::{Encoder, RowBuffer};
use super::settings::ParquetSettings;

/// Counted for an open file without rows in memory: its schema, properties, and the buffer before its sink.
const FILE_BYTES: usize = 20 << 10;

/// Counted for each column of an open file, and again for each row group that is written: what the footer says of it.
const FOOTER_BYTES: usize = 600;

/// Counted for each column of a row group in progress beside what its encoder tells: its dictionary's table, its levels and
/// the compressor's own.
const COLUMN_BYTES: usize = 24 << 10;

/// Counted on top once the column has compressed a page: the compressor keeps its tables until the row group ends.
///
/// Source: zstd 1.5.7, `ZSTD_estimateCCtxSize(1)` for blocks of 128 KiB, rounded up; more at higher levels.
const COMPRESSOR_BYTES: usize = 640 << 10;

pub(super) struct OpenFile {
    pub number: u32,
    pub path: String,
    pub rows: u64,
    pub nans: NanCounts,
    pub state: FileState,
    pub held: FileBytes,
}

pub(super) enum FileState {
    /// Rows are encoded as they come. Boxed, since an encoder is ten times the size of a buffer's head.
    Encoding(Box<Encoder>),
    /// Rows wait to be sorted; the file is made when it is closed.
    Collecting(RowBuffer),
}

/// What a file holds in memory, in bytes, as it was last looked at.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FileBytes {
    /// What ending the row group frees, or closing the file where rows are sorted.
    pub rows: usize,
    /// Encoded bytes that aren't in the store: freed when the file is closed.
    pub encoded: usize,
    /// What goes with the file only.
    pub fixed: usize,
}

impl FileBytes {
    pub(super) fn all(self) -> usize {
        self.rows + self.encoded + self.fixed
    }
}

impl OpenFile {
    /// Looks at what the file holds now.
    pub(super) fn measure(&mut self, settings: &ParquetSettings, columns: usize) {
        self.held = match &self.state {
            FileState::Collecting(buffer) => FileBytes {
                rows: buffer.bytes,
                encoded: 0,
                fixed: FOOTER_BYTES,
            },
            FileState::Encoding(encoder) => {
                let in_progress = encoder.in_progress_rows();
                let compressing = match settings.compression {
                    Compression::ZSTD(_) if in_progress >= settings.page_rows_max => COMPRESSOR_BYTES,
                    _ => 0,
                };
                let open = match in_progress {
                    0 => 0,
                    _ => encoder.memory_size() + columns * (COLUMN_BYTES + compressing),
                };
                FileBytes {
                    rows: open,
                    encoded: encoder.inner().held_bytes(),
                    fixed: FILE_BYTES + columns * FOOTER_BYTES * (1 + encoder.flushed_row_groups().len()),
                }
            }
        };
    }

    pub(super) fn is_full(&self, settings: &ParquetSettings, rows_max: u64) -> bool {
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

    /// Says whether rows that come now go to the encoder at once, however few: a row group is in progress already.
    pub(super) fn takes_few(&self) -> bool {
        match &self.state {
            FileState::Encoding(encoder) => encoder.in_progress_rows() > 0,
            FileState::Collecting(_) => false,
        }
    }
}
