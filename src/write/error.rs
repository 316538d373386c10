//! Why files can't be written.

use std::io;

use arrow::error::ArrowError;
use parquet::errors::ParquetError;

use super::Passing;
use crate::error::cause;

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

impl WriteError {
    /// Says whether the same rows may be written later, to files with other names, without anyone changing anything.
    pub fn retryable(&self) -> bool {
        cause::<Passing>(self).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_a_sink_may_take_later_is_told_from_others_wherever_it_failed() {
        let passing = || io::Error::other(Passing("503".into()));
        let lasting = || io::Error::other("no space");
        for (says, retryable) in [(passing as fn() -> io::Error, true), (lasting, false)] {
            let path = || "f".to_owned();
            let errors = [
                WriteError::Open {
                    path: path(),
                    source: says(),
                },
                WriteError::Encode {
                    path: path(),
                    source: says().into(),
                },
                WriteError::Finish {
                    path: path(),
                    source: says(),
                },
            ];
            for error in errors {
                assert_eq!(error.retryable(), retryable, "{error:?}");
            }
        }
    }
}
