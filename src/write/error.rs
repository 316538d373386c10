//! Why files can't be written.

use std::io;

use arrow::error::ArrowError;
use parquet::errors::ParquetError;

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
    /// Rows that waited couldn't be brought together by their partition values.
    #[error("could not split rows by their partition values")]
    Gather(#[source] ArrowError),
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
