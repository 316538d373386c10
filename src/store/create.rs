//! Creating objects. Nothing that a table names is ever replaced: where two names meet, by whatever mistake, the second
//! write fails and the first one's rows stay.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use bytes::Bytes;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::{Store, StoreError};
use crate::error::cause;

/// The wait before a request without an answer is sent again, doubled each time up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Whether an object was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    /// It was.
    New,
    /// There was one already; nothing was changed.
    Existing,
}

impl Store {
    /// Creates a whole object durably.
    ///
    /// An object that is there already and holds the same bytes is as good as written: it is what an attempt whose answer
    /// was lost has left.
    ///
    /// # Errors
    /// [`StoreError::Exists`] where something else is there, which stays as it is; and any other [`StoreError`] but `NotFound`
    /// and `Changed`: whether the object was written is then unknown.
    ///
    /// Source: S3 conditional writes, `If-None-Match: *`; `object_store` 0.13.2 `PutMode::Create`, which sends a request once
    /// more after a 5xx and not after a lost answer: only who knows the bytes can tell whose object it finds then.
    pub async fn create(&self, location: &str, bytes: Bytes) -> Result<(), StoreError> {
        let since = Instant::now();
        let (mut pause, pause_max) = PAUSE;
        // Ends: by an answer, or when the store's patience is over.
        loop {
            match self.create_once(location, bytes.clone()).await {
                Ok(Made::New) => break,
                Ok(Made::Existing) => match self.get(location).await? {
                    Some((there, _)) if there == bytes => break,
                    Some(_) => return Err(self.exists(location)),
                    // Another's write that is still under way (S3 answers 409), or that was taken back.
                    None if self.waits(since, pause) => {}
                    None => return Err(self.exists(location)),
                },
                Err(error) if unanswered(&error) && self.waits(since, pause) => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(pause_max);
        }
        self.make_durable(location).await
    }

    /// A disk that failed once isn't asked again: there is no answer that could have been lost.
    fn waits(&self, since: Instant, pause: Duration) -> bool {
        !self.is_local() && since.elapsed() + pause <= self.access.retry_for
    }

    async fn create_once(&self, location: &str, bytes: Bytes) -> Result<Made, StoreError> {
        use object_store::Error as E;
        let path = self.path(location)?;
        let payload = PutPayload::from_bytes(bytes);
        let options = PutOptions::from(PutMode::Create);
        match self.objects.put_opts(&path, payload.clone(), options).await {
            Ok(_) => Ok(Made::New),
            Err(E::AlreadyExists { .. } | E::Precondition { .. }) => Ok(Made::Existing),
            // A disk creates by a hard link, which not every file system has.
            Err(error) if self.is_local() && links_missing(&error) => {
                if self.is_there(location).await? {
                    return Ok(Made::Existing);
                }
                let written = self.objects.put(&path, payload).await;
                written
                    .map(|_| Made::New)
                    .map_err(|error| StoreError::of(location, error))
            }
            Err(error) => Err(StoreError::of(location, error)),
        }
    }

    /// Says whether there is an object.
    pub(super) async fn is_there(&self, location: &str) -> Result<bool, StoreError> {
        match self.objects.head(&self.path(location)?).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(StoreError::of(location, error)),
        }
    }

    pub(super) fn exists(&self, location: &str) -> StoreError {
        StoreError::Exists {
            location: location.to_owned(),
        }
    }
}

/// Says whether a request may have been carried out without an answer; after any other failure `object_store` has asked
/// again itself for as long as that helps.
fn unanswered(error: &StoreError) -> bool {
    cause::<HttpError>(error)
        .is_some_and(|http| matches!(http.kind(), HttpErrorKind::Timeout | HttpErrorKind::Interrupted))
}

/// Gives a file of a local disk another name if nothing has that name yet.
///
/// By a hard link, which is refused where there is something. A file system without hard links is asked first and then
/// renames: the moment in between is left to chance there.
pub(super) fn rename_new(from: &std::path::Path, to: &std::path::Path) -> std::io::Result<Made> {
    match std::fs::hard_link(from, to) {
        Ok(()) => std::fs::remove_file(from).map(|()| Made::New),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Made::Existing),
        Err(error) if has_no_links(error.kind()) => {
            if to.try_exists()? {
                return Ok(Made::Existing);
            }
            std::fs::rename(from, to).map(|()| Made::New)
        }
        Err(error) => Err(error),
    }
}

/// What file systems without hard links say: FAT and some that live in user space `EPERM`, others `EOPNOTSUPP` or `ENOSYS`.
fn has_no_links(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::PermissionDenied | ErrorKind::Unsupported)
}

fn links_missing(error: &object_store::Error) -> bool {
    cause::<std::io::Error>(error).is_some_and(|disk| has_no_links(disk.kind()))
}

/// Says whether two stored objects hold the same bytes; `false` where one isn't there.
pub(super) async fn same_bytes(
    objects: &dyn ObjectStore,
    one: &super::Path,
    other: &super::Path,
) -> object_store::Result<bool> {
    /// Read at once of each.
    const STEP_BYTES: u64 = 8 << 20;
    let found = |result: object_store::Result<object_store::ObjectMeta>| match result {
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        result => result.map(Some),
    };
    let (one_is, other_is) = (found(objects.head(one).await)?, found(objects.head(other).await)?);
    let (Some(one_is), Some(other_is)) = (one_is, other_is) else {
        return Ok(false);
    };
    if one_is.size != other_is.size {
        return Ok(false);
    }
    let mut start = 0;
    while start < one_is.size {
        let end = one_is.size.min(start + STEP_BYTES);
        if objects.get_range(one, start..end).await? != objects.get_range(other, start..end).await? {
            return Ok(false);
        }
        start = end;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    async fn is_created_once(store: Store) {
        let at = format!("{}/d/x", store.warehouse());
        store.create(&at, "1".into()).await.expect("nothing was there");
        store.create(&at, "1".into()).await.expect("as good as written");
        for other in ["2", ""] {
            let refused = store.create(&at, other.into()).await;
            assert!(matches!(refused, Err(StoreError::Exists { .. })), "{refused:?}");
        }
        assert_eq!(store.get(&at).await.expect("get").expect("there").0, "1");
    }

    #[tokio::test]
    async fn nothing_is_ever_replaced() {
        let directory = tempfile::tempdir().expect("tempdir");
        let top = directory.path().to_str().expect("utf-8");
        is_created_once(Store::open(top, &BTreeMap::new()).expect("open")).await;
        is_created_once(Store::in_memory("s3://b/w")).await;
    }

    #[tokio::test]
    async fn of_many_that_create_one_object_one_does() {
        let directory = tempfile::tempdir().expect("tempdir");
        let local = Store::open(directory.path().to_str().expect("utf-8"), &BTreeMap::new()).expect("open");
        for store in [local, Store::in_memory("s3://b/w")] {
            let at = format!("{}/x", store.warehouse());
            let tries = (0..16).map(|i| store.create(&at, format!("{i}").into()));
            let made = futures::future::join_all(tries).await;
            assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 1);
        }
    }
}
