//! Writes of objects that arrive piece by piece: in parts once they are large, in one put while they are small.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Attribute, Attributes, GetOptions, ObjectStore, PutMultipartOptions, WriteMultipart};
use tokio::runtime::Handle;
use uuid::Uuid;

use super::create::{Made, rename_new};
use super::{Store, StoreError};
use crate::kill_points::{self, KillPoint, Place};
use crate::write::{FileSink, FileSinks, Finishing, Passing};

/// Size of a part; S3 takes at least 5 MiB and at most 10,000 parts, so a file may reach 80 GB.
pub const PART_BYTES: usize = 8 * 1024 * 1024;
/// Parts of one file in flight at once: with the open one it bounds a file's memory to 24 MiB.
const PARTS_IN_FLIGHT_MAX: usize = 2;

/// The user metadata of an object that was uploaded in parts: which upload made it.
const MARK: &str = "aperio-upload";

/// An object that is being written. It can be read by nobody until it is finished, and never takes the place of another.
#[derive(Debug)]
pub(super) struct Upload {
    store: Store,
    location: String,
    /// Tells this upload from all others.
    mark: Uuid,
    /// Bytes not handed on yet; empty once `parts` exists.
    start: Vec<u8>,
    parts: Option<WriteMultipart>,
    written: u64,
}

impl Upload {
    pub(super) fn new(store: Store, location: &str) -> Upload {
        Upload {
            store,
            location: location.to_string(),
            mark: Uuid::new_v4(),
            start: Vec::new(),
            parts: None,
            written: 0,
        }
    }

    /// Takes bytes in when they needn't wait for the network, and returns whether it did.
    fn take(&mut self, bytes: &[u8]) -> bool {
        if self.parts.is_some() || self.start.len() + bytes.len() >= PART_BYTES {
            return false;
        }
        if self.start.capacity() - self.start.len() < bytes.len() {
            // Not twice as much, as a vector would: thousands of files may be open.
            self.start.reserve_exact(bytes.len().max(self.start.len() / 4));
        }
        self.start.extend_from_slice(bytes);
        self.written += bytes.len() as u64;
        true
    }

    /// Returns how many bytes it holds in memory, at most.
    fn held_bytes(&self) -> usize {
        let written = usize::try_from(self.written).unwrap_or(usize::MAX);
        match &self.parts {
            Some(_) => written.min((1 + PARTS_IN_FLIGHT_MAX) * PART_BYTES),
            None => self.start.capacity(),
        }
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let written = self.write_parts(bytes).await;
        written.inspect_err(|error| doubt_credentials(&self.store, error))
    }

    async fn write_parts(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if self.take(bytes) {
            return Ok(());
        }
        let parts = match &mut self.parts {
            Some(parts) => parts,
            none => {
                let mut options = PutMultipartOptions::default();
                if !self.store.is_local() {
                    let mark = Attribute::Metadata(MARK.into());
                    options.attributes = Attributes::from_iter([(mark, self.mark.to_string())]);
                }
                let path = parts_path(&self.store, &self.location, self.mark)?;
                let upload = self
                    .store
                    .objects
                    .put_multipart_opts(&path, options)
                    .await
                    .map_err(|error| StoreError::of(&self.location, error))?;
                let parts = none.insert(WriteMultipart::new_with_chunk_size(upload, PART_BYTES));
                parts.write(&std::mem::take(&mut self.start));
                parts
            }
        };
        parts
            .wait_for_capacity(PARTS_IN_FLIGHT_MAX)
            .await
            .map_err(|error| StoreError::of(&self.location, error))?;
        parts.write(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Makes the object visible and durable; returns its size in bytes.
    pub(super) async fn finish(self) -> Result<u64, StoreError> {
        let store = self.store.clone();
        let finished = self.complete().await;
        finished.inspect_err(|error| doubt_credentials(&store, error))
    }

    async fn complete(self) -> Result<u64, StoreError> {
        let Upload {
            store,
            location,
            mark,
            start,
            parts,
            written,
        } = self;
        let Some(parts) = parts else {
            store.create(&location, Bytes::from(start)).await?;
            return Ok(written);
        };
        // Not every server heeds the condition that the completion carries, see `s3.rs`. Who may not list a bucket is told 403
        // of what isn't there: that says nothing.
        if !store.is_local() && matches!(store.is_there(&location).await, Ok(true)) {
            let _ = parts.abort().await;
            return Err(store.exists(&location));
        }
        let done = parts.finish().await;
        if store.is_local() {
            done.map_err(|error| StoreError::of(&location, error))?;
            name(&store, &location, mark).await?;
        } else if let Err(error) = done {
            use object_store::Error as E;
            let gone = matches!(error, E::NotFound { .. });
            if !gone && !matches!(error, E::Precondition { .. } | E::AlreadyExists { .. }) {
                return Err(StoreError::of(&location, error));
            }
            // A completion that is sent again, since its answer was lost, meets the object that it made.
            match maker(&store, &location).await? {
                Some(maker) if maker == mark.to_string() => {}
                Some(_) => return Err(store.exists(&location)),
                None => return Err(StoreError::of(&location, error)),
            }
        }
        store.make_durable(&location).await?;
        Ok(written)
    }

    async fn abort(mut self) {
        if let Some(parts) = self.parts.take()
            && let Err(error) = parts.abort().await
        {
            // The bucket's own lifecycle rule for incomplete uploads is the backstop.
            tracing::debug!(location = %self.location, %error, "an unfinished upload was left behind");
        }
    }
}

/// Whatever was wrong with an upload may have been its credentials: 403, or the 400 that S3 answers to a token that has ended.
fn doubt_credentials(store: &Store, error: &StoreError) {
    if let Some(lent) = store.access.lent.as_ref().filter(|_| error.retryable()) {
        lent.doubt();
    }
}

/// Gives the finished file of a local disk its name.
async fn name(store: &Store, location: &str, mark: Uuid) -> Result<(), StoreError> {
    let disk_path = |path: Path| PathBuf::from(format!("/{path}"));
    let from = disk_path(parts_path(store, location, mark)?);
    let to = disk_path(store.path(location)?);
    let named = move || match rename_new(&from, &to) {
        Ok(Made::New) => Ok(Made::New),
        other => {
            // It has no name, and nobody will look for it.
            let _ = std::fs::remove_file(&from);
            other
        }
    };
    let named = tokio::task::spawn_blocking(named)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)));
    match named.map_err(|error| StoreError::disk(location, error))? {
        Made::New => Ok(()),
        Made::Existing => Err(store.exists(location)),
    }
}

/// Returns the mark of the upload that made an object of a bucket, empty where it has none; `None` if there is no object.
async fn maker(store: &Store, location: &str) -> Result<Option<String>, StoreError> {
    let head = GetOptions {
        head: true,
        ..GetOptions::default()
    };
    match store.objects.get_opts(&store.path(location)?, head).await {
        Ok(found) => {
            let mark = found.attributes.get(&Attribute::Metadata(MARK.into()));
            Ok(Some(mark.map_or_else(String::new, |mark| mark.to_string())))
        }
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(StoreError::of(location, error)),
    }
}

/// Where the parts of an object come together: in a bucket under its own name, which it has once they are complete; on a
/// disk, where completing them would replace a file, beside it under a name that readers pass over.
fn parts_path(store: &Store, location: &str, mark: Uuid) -> Result<Path, StoreError> {
    if !store.is_local() {
        return store.path(location);
    }
    let (directory, name) = location.rsplit_once('/').unwrap_or(("", location));
    store.path(&format!("{directory}/.{name}.{}", mark.simple()))
}

/// An object written from an ordinary thread, such as a line's; it waits for the network there.
///
/// Nobody sees the object before [`BlockingUpload::finish`]; dropped before that, it never exists.
#[derive(Debug)]
pub struct BlockingUpload {
    runtime: Handle,
    upload: Option<Upload>,
}

impl Store {
    /// Starts an object that a thread outside of the runtime writes. Nothing is sent before the first 8 MiB are full.
    pub fn blocking_writer(&self, handle: Handle, path: &str) -> BlockingUpload {
        BlockingUpload {
            runtime: handle,
            upload: Some(Upload::new(self.clone(), path)),
        }
    }
}

impl BlockingUpload {
    /// Makes the object visible and durable (on a local disk: fsync of file and directories); returns its bytes.
    ///
    /// # Errors
    /// Holds a [`StoreError`]; the object may then exist and is referenced by nothing.
    ///
    /// # Panics
    /// If it is called on a thread of the runtime.
    pub fn finish(self) -> io::Result<u64> {
        self.begin_finish().wait()
    }

    /// The same without waiting: the runtime does it meanwhile.
    pub fn begin_finish(mut self) -> Finishing {
        let Some(upload) = self.upload.take() else {
            return Finishing::new(|| Err(closed()));
        };
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.runtime.spawn(async move {
            let bytes = upload.finish().await.map_err(told);
            kill_points::pass(KillPoint::Inside(Place::FileUploaded));
            // Whoever waits no longer has given up the file's window.
            let _ = sender.send(bytes);
        });
        Finishing::new(move || {
            let ended = |_| Err(io::Error::other("the runtime ended before the upload"));
            receiver.recv().unwrap_or_else(ended)
        })
    }

    /// Returns how many bytes it holds in memory, at most.
    pub fn held_bytes(&self) -> usize {
        self.upload.as_ref().map_or(0, Upload::held_bytes)
    }
}

impl io::Write for BlockingUpload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let upload = self.upload.as_mut().ok_or_else(closed)?;
        if !upload.take(bytes) {
            self.runtime.block_on(upload.write(bytes)).map_err(told)?;
        }
        Ok(bytes.len())
    }

    /// Does nothing: bytes become visible only by [`BlockingUpload::finish`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BlockingUpload {
    fn drop(&mut self) {
        if let Some(upload) = self.upload.take() {
            // Spawned, since a drop may happen on a thread of the runtime, where waiting panics.
            drop(self.runtime.spawn(upload.abort()));
        }
    }
}

/// As a sink tells it.
fn told(error: StoreError) -> io::Error {
    match error.retryable() {
        true => io::Error::other(Passing(error.into())),
        false => io::Error::other(error),
    }
}

fn closed() -> io::Error {
    io::Error::other("the upload was finished already")
}

/// Files that are uploaded to a store while they are written, from threads that may block.
#[derive(Debug)]
pub struct UploadSinks {
    /// Where the files go.
    pub store: Store,
    /// The runtime that uploads.
    pub handle: Handle,
}

impl FileSinks for UploadSinks {
    fn open(&mut self, path: &str) -> io::Result<Box<dyn FileSink>> {
        Ok(Box::new(UploadSink(
            self.store.blocking_writer(self.handle.clone(), path),
        )))
    }
}

struct UploadSink(BlockingUpload);

impl io::Write for UploadSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl FileSink for UploadSink {
    fn finish(self: Box<Self>) -> Finishing {
        self.0.begin_finish()
    }

    fn held_bytes(&self) -> usize {
        self.0.held_bytes()
    }
}
