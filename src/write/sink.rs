//! Where the bytes of files go.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Makes files.
pub trait FileSinks: Send {
    /// Starts a file at `path`, a full location.
    ///
    /// # Errors
    /// Whatever the store says; nothing exists then.
    fn open(&mut self, path: &str) -> io::Result<Box<dyn FileSink>>;
}

/// One file being written; dropped before [`FileSink::finish`], it is given up and must not appear whole to a reader.
///
/// `flush` is called before `finish` and needs to do nothing.
pub trait FileSink: io::Write + Send {
    /// Begins to complete the object; [`Finishing::wait`] tells when it is.
    fn finish(self: Box<Self>) -> Finishing;

    /// Returns how many bytes it holds in memory.
    fn held_bytes(&self) -> usize {
        0
    }
}

/// What a sink says, inside of its [`io::Error`], when the same bytes may well be taken later, by another sink: the store was
/// away, or refused credentials that are renewed meanwhile.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Passing(pub Box<dyn Error + Send + Sync>);

/// A file on its way to be complete.
pub struct Finishing(Box<dyn FnOnce() -> io::Result<u64> + Send>);

impl Finishing {
    /// Makes one of what waits for the end and returns the object's size in bytes.
    pub fn new(wait: impl FnOnce() -> io::Result<u64> + Send + 'static) -> Finishing {
        Finishing(Box::new(wait))
    }

    /// Blocks until the object is complete and durable, and returns its size in bytes.
    ///
    /// # Errors
    /// Whatever the store says; the file may or may not exist then.
    pub fn wait(self) -> io::Result<u64> {
        (self.0)()
    }
}

/// Files in memory, for tests and benches; clones share their files.
#[derive(Debug, Clone, Default)]
pub struct MemorySinks {
    // A mutex, since sinks are owned by their encoders and have no one to send a finished file to.
    files: Arc<Mutex<BTreeMap<String, Bytes>>>,
}

impl MemorySinks {
    /// Returns the finished files by path.
    pub fn files(&self) -> BTreeMap<String, Bytes> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl FileSinks for MemorySinks {
    fn open(&mut self, path: &str) -> io::Result<Box<dyn FileSink>> {
        let files = Arc::clone(&self.files);
        Ok(Box::new(MemorySink {
            path: path.to_owned(),
            bytes: Vec::new(),
            files,
        }))
    }
}

struct MemorySink {
    path: String,
    bytes: Vec<u8>,
    files: Arc<Mutex<BTreeMap<String, Bytes>>>,
}

impl io::Write for MemorySink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl FileSink for MemorySink {
    fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    fn finish(self: Box<Self>) -> Finishing {
        let stored = self.store();
        Finishing::new(move || stored)
    }
}

impl MemorySink {
    fn store(self) -> io::Result<u64> {
        let MemorySink { path, bytes, files } = self;
        let size = bytes.len() as u64;
        let previous = files
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(path.clone(), bytes.into());
        match previous {
            None => Ok(size),
            Some(_) => Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("`{path}` was written twice"),
            )),
        }
    }
}
