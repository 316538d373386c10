//! One store of objects, on a local disk or on S3: data files, Iceberg metadata and sync points all go through it.
//!
//! Locations are what Iceberg metadata holds: an absolute path, `file:///path`, or `s3://bucket/key` (`s3a`, `s3n`
//! are read as `s3`). They are taken literally, never percent-decoded, as Java's and Python's Iceberg do.

mod access;
mod create;
mod iceberg_io;
mod relocate;
mod s3;
mod upload;

use std::fmt;
use std::fs::File;
use std::path::{Component, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use iceberg::io::{FileIO, FileIOBuilder};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion};
use tracing::debug;

use crate::error::chain;
use crate::kill_points::{self, KillPoint, Place};

pub use access::{Access, Connections, Lent, Renew, Vended};
pub use upload::{BlockingUpload, PART_BYTES, UploadSinks};

/// Why the store could not do what it was asked; the variants are what a caller can act on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The location's scheme isn't one this store serves.
    #[error("no store for `{location}`: {reason}")]
    Unsupported {
        /// The location as given.
        location: String,
        /// What would be right instead.
        reason: String,
    },
    /// The location lies in another bucket than this store was opened for.
    #[error("`{location}` is outside of the store `{root}`")]
    Elsewhere {
        /// The location as given.
        location: String,
        /// The bucket or disk that this store serves.
        root: String,
    },
    /// There is nothing at the location.
    #[error("`{location}` doesn't exist")]
    NotFound {
        /// The location as given.
        location: String,
    },
    /// The object was created or replaced by another writer since it was read.
    #[error("`{location}` was changed by another writer")]
    Changed {
        /// The location as given.
        location: String,
    },
    /// Something else is where an object was to be created. It was left as it is.
    #[error("`{location}` exists already and holds other bytes; it was not replaced")]
    Exists {
        /// The location as given.
        location: String,
    },
    /// The store refuses these credentials.
    #[error("access to `{location}` is refused: {message}")]
    Unauthorized {
        /// The location as given.
        location: String,
        /// The store's own words.
        message: String,
    },
    /// The store can't be reached or failed; trying again may help.
    #[error("store failed at `{location}`: {source}")]
    Unreachable {
        /// The location as given.
        location: String,
        /// What `object_store` saw.
        source: object_store::Error,
    },
    /// The local disk failed.
    #[error("disk failed at `{location}`: {source}")]
    Disk {
        /// The location as given.
        location: String,
        /// What the operating system said.
        source: std::io::Error,
    },
}

impl StoreError {
    /// Returns whether the same call may succeed later without anyone changing the configuration. That goes for refused
    /// credentials too: new ones take a while to reach all servers, and a policy is mended where it was broken.
    pub fn retryable(&self) -> bool {
        matches!(
            self,
            StoreError::Unreachable { .. } | StoreError::Changed { .. } | StoreError::Unauthorized { .. }
        )
    }

    fn of(location: &str, error: object_store::Error) -> StoreError {
        use object_store::Error as E;
        let location = location.to_string();
        match error {
            E::NotFound { .. } => StoreError::NotFound { location },
            E::Precondition { .. } | E::AlreadyExists { .. } => StoreError::Changed { location },
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => StoreError::Unauthorized {
                location,
                message: error.to_string(),
            },
            E::NotSupported { .. }
            | E::InvalidPath { .. }
            | E::UnknownConfigurationKey { .. }
            | E::NotImplemented { .. } => StoreError::Unsupported {
                location,
                reason: error.to_string(),
            },
            source => StoreError::Unreachable { location, source },
        }
    }

    pub(crate) fn disk(location: impl fmt::Display, source: std::io::Error) -> StoreError {
        StoreError::Disk {
            location: location.to_string(),
            source,
        }
    }
}

/// What an object looked like when it was read; handing it back makes a write conditional on that.
#[derive(Debug, Clone)]
pub struct Version(UpdateVersion);

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Where it is, in the form of the warehouse.
    pub location: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was last written, in milliseconds since 1970, UTC.
    pub modified_ms: i64,
}

/// Where a store's locations live.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Root {
    Disk,
    Bucket(String),
}

/// A place that holds objects under Iceberg locations. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    root: Root,
    /// The warehouse, absolute, without a trailing slash, in the form in which locations are made from it.
    warehouse: Arc<str>,
    access: Arc<Access>,
}

impl fmt::Debug for Store {
    /// Shows the warehouse and no property: those hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("warehouse", &self.warehouse)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store that holds `warehouse`. Nothing is contacted or created yet.
    ///
    /// - `warehouse`: a path (made absolute against the current directory), `file://` or `s3://bucket/prefix`;
    /// - `access`: properties under Iceberg's file-io names: `s3.endpoint`, `s3.access-key-id`,
    ///   `s3.secret-access-key`, `s3.session-token`, `s3.region` (or `client.region`), `s3.path-style-access`. What isn't
    ///   given is taken from the `AWS_…` environment. A custom endpoint is addressed path-style unless
    ///   `s3.path-style-access` is `false`.
    ///
    /// # Errors
    /// [`StoreError::Unsupported`] for another scheme, or properties that contradict each other.
    pub fn open(warehouse: &str, access: impl Into<Access>) -> Result<Store, StoreError> {
        let access = access.into();
        let unsupported = |reason: String| StoreError::Unsupported {
            location: warehouse.to_string(),
            reason,
        };
        if let Some((bucket, prefix)) = bucket_and_key(warehouse) {
            if bucket.is_empty() {
                return Err(unsupported("a bucket is missing, as in `s3://bucket/prefix`".into()));
            }
            let objects = s3::client(bucket, &access).map_err(|error| StoreError::of(warehouse, error))?;
            let warehouse = format!("s3://{bucket}/{prefix}");
            return Ok(Store::over(
                Arc::new(objects),
                Root::Bucket(bucket.to_string()),
                &warehouse,
                access,
            ));
        }
        let (scheme, path) = match warehouse
            .strip_prefix("file://")
            .or_else(|| warehouse.strip_prefix("file:"))
        {
            Some(path) => ("file://", path),
            None if warehouse.contains("://") => {
                return Err(unsupported(
                    "only local paths, file:// and s3:// are supported yet".into(),
                ));
            }
            None => ("", warehouse),
        };
        let absolute = absolute(path).map_err(|error| StoreError::disk(warehouse, error))?;
        let warehouse = format!("{scheme}{absolute}");
        Ok(Store::over(
            Arc::new(LocalFileSystem::new()),
            Root::Disk,
            &warehouse,
            access,
        ))
    }

    fn over(objects: Arc<dyn ObjectStore>, root: Root, warehouse: &str, access: Access) -> Store {
        Store {
            objects,
            root,
            warehouse: warehouse.trim_end_matches('/').into(),
            access: Arc::new(access),
        }
    }

    /// Opens a bucket that lives in this process' memory, for tests of what only S3 does: parts and conditional puts.
    #[cfg(test)]
    pub(crate) fn in_memory(warehouse: &str) -> Store {
        Store::over_bucket(Arc::new(object_store::memory::InMemory::new()), warehouse)
    }

    /// Opens a bucket whose objects a test holds.
    #[cfg(test)]
    pub(crate) fn over_bucket(objects: Arc<dyn ObjectStore>, warehouse: &str) -> Store {
        let (bucket, _) = bucket_and_key(warehouse).expect("tests name an s3 location");
        Store::over(objects, Root::Bucket(bucket.to_string()), warehouse, Access::default())
    }

    /// Returns the warehouse as an absolute location without a trailing slash; table locations start with it.
    pub fn warehouse(&self) -> &str {
        &self.warehouse
    }

    /// Returns this very store with another warehouse: a directory in the same bucket or on the same disk.
    ///
    /// # Errors
    /// [`StoreError::Elsewhere`] for another bucket.
    pub fn rooted(&self, warehouse: &str) -> Result<Store, StoreError> {
        self.path(warehouse)?;
        Ok(Store {
            warehouse: warehouse.trim_end_matches('/').into(),
            ..self.clone()
        })
    }

    /// Returns a store that serves `location`: this one, or one for another bucket with the same access.
    ///
    /// # Errors
    /// Those of [`Store::open`].
    pub fn serving(&self, location: &str) -> Result<Store, StoreError> {
        match self.path(location) {
            Ok(_) => Ok(self.clone()),
            Err(_) => Store::open(location, (*self.access).clone()),
        }
    }

    /// Returns whether the objects are files of the local disk.
    pub fn is_local(&self) -> bool {
        self.root == Root::Disk
    }

    /// Returns the path of a location on the local disk, or `None` where the store isn't local.
    pub fn local_path(&self, location: &str) -> Option<PathBuf> {
        let path = self.path(location).ok()?;
        self.is_local().then(|| PathBuf::from(format!("/{}", path.as_ref())))
    }

    /// Returns Iceberg's view of this store.
    pub fn file_io(&self) -> FileIO {
        FileIOBuilder::new(Arc::new(iceberg_io::StoreFactory(self.clone()))).build()
    }

    /// Reads a whole object, or `None` if there is none.
    ///
    /// # Errors
    /// Any [`StoreError`] but `NotFound`.
    pub async fn get(&self, location: &str) -> Result<Option<(Bytes, Version)>, StoreError> {
        let path = self.path(location)?;
        let result = match self.objects.get(&path).await {
            Ok(result) => result,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(StoreError::of(location, error)),
        };
        let version = Version(UpdateVersion {
            e_tag: result.meta.e_tag.clone(),
            version: result.meta.version.clone(),
        });
        let bytes = result.bytes().await.map_err(|error| StoreError::of(location, error))?;
        Ok(Some((bytes, version)))
    }

    /// Writes a whole object if it still is what it was: at `version`, or absent where that is `None`.
    ///
    /// Only for buckets: a local disk can't replace conditionally (take a lock there).
    ///
    /// # Errors
    /// [`StoreError::Changed`] if another writer came first, and the others.
    ///
    /// Source: S3 conditional writes, `If-Match` and `If-None-Match: *`; `object_store` 0.13 `PutMode`.
    pub async fn put_if(&self, location: &str, bytes: Bytes, version: Option<Version>) -> Result<(), StoreError> {
        let path = self.path(location)?;
        let options = PutOptions {
            mode: version.map_or(PutMode::Create, |v| PutMode::Update(v.0)),
            ..PutOptions::default()
        };
        match self
            .objects
            .put_opts(&path, PutPayload::from_bytes(bytes), options)
            .await
        {
            Ok(_) => Ok(()),
            // The object that was to be replaced is gone: as good as changed.
            Err(object_store::Error::NotFound { .. }) => Err(StoreError::Changed {
                location: location.to_string(),
            }),
            Err(error) => Err(StoreError::of(location, error)),
        }
    }

    /// Deletes an object; one that is already gone is fine.
    ///
    /// # Errors
    /// Any [`StoreError`] but `NotFound`.
    pub async fn delete(&self, location: &str) -> Result<(), StoreError> {
        match self.objects.delete(&self.path(location)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(StoreError::of(location, error)),
        }
    }

    /// Deletes objects that nothing names any more; what can't be deleted is left to orphan cleanup.
    pub async fn delete_unused(&self, locations: &[String]) {
        for location in locations {
            if let Err(error) = self.delete(location).await {
                debug!(%location, error = chain(&error), "an unused file was left behind");
            }
            kill_points::pass(KillPoint::Inside(Place::FileDeleted));
        }
    }

    /// Lists the objects under a location, at any depth, in any order.
    ///
    /// # Errors
    /// Any [`StoreError`] but `NotFound`, at once or in the stream.
    pub fn list(&self, location: &str) -> Result<BoxStream<'static, Result<Listed, StoreError>>, StoreError> {
        let path = self.path(location)?;
        let (store, whole) = (self.clone(), location.to_string());
        let listed = self.objects.list(Some(&path));
        Ok(Box::pin(
            listed
                .map_ok(move |meta| Listed {
                    location: store.location(&meta.location),
                    bytes: meta.size,
                    modified_ms: meta.last_modified.timestamp_millis(),
                })
                .map_err(move |error| StoreError::of(&whole, error)),
        ))
    }

    /// Turns a location into the object's path inside this store.
    fn path(&self, location: &str) -> Result<Path, StoreError> {
        let elsewhere = || StoreError::Elsewhere {
            location: location.to_string(),
            root: match &self.root {
                Root::Disk => "local disk".to_string(),
                Root::Bucket(bucket) => format!("s3://{bucket}"),
            },
        };
        let path = match (&self.root, bucket_and_key(location)) {
            (Root::Bucket(own), Some((bucket, key))) if own == bucket => key,
            (Root::Bucket(_), _) | (Root::Disk, Some(_)) => return Err(elsewhere()),
            (Root::Disk, None) => {
                let path = location
                    .strip_prefix("file://")
                    .or_else(|| location.strip_prefix("file:"))
                    .unwrap_or(location);
                if !path.starts_with('/') {
                    return Err(elsewhere());
                }
                path
            }
        };
        // An empty segment means nothing on a disk; in a bucket `object_store` refuses it.
        let path = if self.is_local() {
            collapse(path)
        } else {
            path.to_string()
        };
        Path::parse(&path).map_err(|error| StoreError::Unsupported {
            location: location.to_string(),
            reason: error.to_string(),
        })
    }

    /// Turns an object's path into a location in the form of the warehouse.
    fn location(&self, path: &Path) -> String {
        match &self.root {
            Root::Bucket(bucket) => format!("s3://{bucket}/{path}"),
            Root::Disk if self.warehouse.starts_with("file:") => format!("file:///{path}"),
            Root::Disk => format!("/{path}"),
        }
    }

    /// Makes a written object survive a power cut; S3 promises that with its answer, a disk only after fsync.
    ///
    /// `object_store` 0.13.2 never syncs (local.rs). The directories are synced up to the warehouse, since a new
    /// partition's directory entry is as easily lost as a file.
    async fn make_durable(&self, location: &str) -> Result<(), StoreError> {
        let Some(path) = self.local_path(location) else {
            return Ok(());
        };
        let top = self.local_path(&self.warehouse);
        let sync = move || -> std::io::Result<()> {
            File::open(&path)?.sync_all()?;
            for directory in path.ancestors().skip(1) {
                File::open(directory)?.sync_all()?;
                let outside = top.as_ref().is_none_or(|top| !directory.starts_with(top));
                if outside || top.as_deref() == Some(directory) {
                    break;
                }
            }
            Ok(())
        };
        tokio::task::spawn_blocking(sync)
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
            .map_err(|error| StoreError::disk(location, error))
    }
}

/// Splits an S3 location into bucket and key; `None` for anything else.
fn bucket_and_key(location: &str) -> Option<(&str, &str)> {
    let rest = ["s3://", "s3a://", "s3n://"]
        .iter()
        .find_map(|scheme| location.strip_prefix(scheme))?;
    Some(rest.split_once('/').unwrap_or((rest, "")))
}

/// Makes a path absolute and takes `.`, `..` and empty segments out, without asking the disk.
fn absolute(path: &str) -> std::io::Result<String> {
    let mut clean = PathBuf::new();
    for component in std::path::absolute(path)?.components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    clean
        .into_os_string()
        .into_string()
        .map_err(|path| std::io::Error::other(format!("{} is not UTF-8", path.to_string_lossy())))
}

fn collapse(path: &str) -> String {
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    segments.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;
    use std::collections::BTreeMap;
    use std::io::Write;

    fn none() -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    #[test]
    fn a_warehouse_keeps_the_form_it_was_given_in() {
        let check = |given: &str, expect: &str| {
            let store = Store::open(given, &none()).expect(given);
            assert_eq!(store.warehouse(), expect);
        };
        check("/a/./b/../c/", "/a/c");
        check("file:///a/c", "file:///a/c");
        check("s3a://bucket/a/b/", "s3://bucket/a/b");
        check("s3://bucket", "s3://bucket");
    }

    #[test]
    fn other_schemes_and_other_buckets_are_refused() {
        assert!(matches!(
            Store::open("gs://b/x", &none()),
            Err(StoreError::Unsupported { .. })
        ));
        assert!(matches!(
            Store::open("s3:///x", &none()),
            Err(StoreError::Unsupported { .. })
        ));
        let store = Store::in_memory("s3://b/x");
        assert!(matches!(store.path("s3://c/x"), Err(StoreError::Elsewhere { .. })));
        assert!(matches!(store.path("/etc/x"), Err(StoreError::Elsewhere { .. })));
    }

    #[tokio::test]
    async fn iceberg_reads_back_what_it_wrote_under_awkward_names() {
        let directory = tempfile::tempdir().expect("tempdir");
        let root = directory.path().to_str().expect("utf-8").to_string();
        for warehouse in [root.clone(), format!("file://{root}")] {
            let store = Store::open(&warehouse, &none()).expect("open");
            let io = store.file_io();
            let location = format!("{warehouse}/n/c=a%2Fb c#d?é/x.bin");
            io.new_output(&location)
                .expect("output")
                .write("hello".into())
                .await
                .expect("write");
            assert!(
                directory.path().join("n/c=a%2Fb c#d?é/x.bin").exists(),
                "taken literally"
            );
            assert!(io.exists(&location).await.expect("exists"));
            let input = io.new_input(&location).expect("input");
            assert_eq!(input.metadata().await.expect("metadata").size, 5);
            assert_eq!(
                input.reader().await.expect("reader").read(1..3).await.expect("range"),
                "el"
            );
            let listed: Vec<_> = store
                .list(&warehouse)
                .expect("list")
                .map(|r| r.expect("row").location)
                .collect()
                .await;
            assert_eq!(listed, std::slice::from_ref(&location));
            io.delete(&location).await.expect("delete");
            io.delete(&location).await.expect("deleted is fine");
            assert!(!io.exists(&location).await.expect("exists"));
            io.delete_prefix(&warehouse).await.expect("nothing to do");
        }
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_deleted_does_not_keep_the_others() {
        let store = Store::in_memory("s3://b/w");
        let unused = ["s3://other/w/x", "s3://b/w/gone", "s3://b/w/x"].map(str::to_owned);
        store.create(&unused[2], "1".into()).await.expect("put");
        store.delete_unused(&unused).await;
        assert!(store.get(&unused[2]).await.expect("get").is_none());
    }

    #[tokio::test]
    async fn a_conditional_put_loses_to_whoever_came_first() {
        let store = Store::in_memory("s3://b/w");
        let at = "s3://b/w/x";
        store.put_if(at, "1".into(), None).await.expect("absent, as expected");
        assert!(matches!(
            store.put_if(at, "2".into(), None).await,
            Err(StoreError::Changed { .. })
        ));
        let (_, version) = store.get(at).await.expect("get").expect("there");
        store
            .put_if(at, "3".into(), Some(version.clone()))
            .await
            .expect("unchanged");
        assert!(matches!(
            store.put_if(at, "4".into(), Some(version)).await,
            Err(StoreError::Changed { .. })
        ));
    }

    #[test]
    fn a_thread_uploads_small_and_large_files_and_drops_leave_nothing() {
        let directory = tempfile::tempdir().expect("tempdir");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .expect("runtime");
        let local = Store::open(directory.path().to_str().expect("utf-8"), &none()).expect("open");
        for store in [local, Store::in_memory("s3://b/w")] {
            for size in [0, 10, PART_BYTES, 2 * PART_BYTES + 17] {
                let location = format!("{}/d/{size}", store.warehouse());
                let mut upload = store.blocking_writer(runtime.handle().clone(), &location);
                let block: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
                for piece in block.chunks(1_000_003) {
                    upload.write_all(piece).expect("write");
                }
                assert_eq!(upload.finish().expect("finish"), size as u64);
                let read = runtime.block_on(store.get(&location)).expect("get");
                assert_eq!(read.expect("there").0, block);
            }
            for size in [10, PART_BYTES + 1] {
                let location = format!("{}/d/{}", store.warehouse(), [10, PART_BYTES][usize::from(size > 10)]);
                let mut again = store.blocking_writer(runtime.handle().clone(), &location);
                again.write_all(&vec![7; size]).expect("write");
                let refused = again.finish().expect_err("it exists");
                assert!(refused.to_string().contains("exists already"), "{refused}");
            }
            let location = format!("{}/dropped", store.warehouse());
            let mut upload = store.blocking_writer(runtime.handle().clone(), &location);
            upload.write_all(&vec![1; 2 * PART_BYTES]).expect("write");
            drop(upload);
            assert!(runtime.block_on(store.get(&location)).expect("get").is_none());
        }
        let left: Vec<_> = std::fs::read_dir(directory.path().join("d"))
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name())
            .filter(|name| name.to_string_lossy().parse::<usize>().is_err())
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
