//! Moving an object to another place in the same store: how files that were staged become visible.

use std::io::ErrorKind;
use std::path::Path as DiskPath;

use object_store::ObjectStoreExt;
use uuid::Uuid;

use super::create::{Made, rename_new, same_bytes};
use super::{Root, Store, StoreError};

impl Store {
    /// Moves an object; whoever looks sees it whole, or not at all. Several may move the same one at once.
    ///
    /// - returns whether it is at `to` now, by this call or by one before; `false` if it is in neither place.
    ///
    /// On a disk it is a link, or a synced copy and a link where the two are on different disks. In a bucket it is a
    /// copy and a deletion; S3 copies objects of up to 5 GB in one request.
    ///
    /// # Errors
    /// [`StoreError::Exists`] where another object is at `to`: both stay where they are. (A bucket is asked before it copies:
    /// not every server copies on condition.) Any other [`StoreError`] but `NotFound`; the object is then in one of the two
    /// places, or in both. Do it again.
    pub async fn relocate(&self, from: &str, to: &str) -> Result<bool, StoreError> {
        let moved = match self.root {
            Root::Disk => self.rename(from, to).await?,
            Root::Bucket(_) => self.copy(from, to).await?,
        };
        if moved {
            self.make_durable(to).await?;
            // Of two disks the one may keep, through a loss of power, that it is gone, and the other not that it has come.
            self.delete(from).await?;
            return Ok(true);
        }
        match self.objects.head(&self.path(to)?).await {
            // Another's rename may not be durable yet, and what follows takes it for that.
            Ok(_) => self.make_durable(to).await.map(|()| true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(StoreError::of(to, error)),
        }
    }

    /// Removes directories that are empty, from the one that holds `location` up to below `top`. A bucket has none.
    pub async fn remove_empty_directories(&self, location: &str, top: &str) {
        let (Some(path), Some(top)) = (self.local_path(location), self.local_path(top)) else {
            return;
        };
        // Not waited for an error: a directory that isn't empty stays, as it should.
        let remove = move || {
            let below = path
                .ancestors()
                .skip(1)
                .take_while(|at| at.starts_with(&top) && **at != top);
            below.map(std::fs::remove_dir).take_while(Result::is_ok).count()
        };
        let _ = tokio::task::spawn_blocking(remove).await;
    }

    async fn rename(&self, from: &str, to: &str) -> Result<bool, StoreError> {
        let elsewhere = |location: &str| StoreError::Elsewhere {
            location: location.to_owned(),
            root: "local disk".to_owned(),
        };
        let source = self.local_path(from).ok_or_else(|| elsewhere(from))?;
        let target = self.local_path(to).ok_or_else(|| elsewhere(to))?;
        let rename = move || match rename(&source, &target) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            renamed => renamed.map(Some),
        };
        let renamed = tokio::task::spawn_blocking(rename)
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
            .map_err(|error| StoreError::disk(to, error))?;
        match renamed {
            None => Ok(false),
            Some(Made::New) => Ok(true),
            Some(Made::Existing) => self.was_moved(from, to).await,
        }
    }

    async fn copy(&self, from: &str, to: &str) -> Result<bool, StoreError> {
        // Who may not list a bucket is told 403 of what isn't there.
        if matches!(self.is_there(to).await, Ok(true)) {
            return self.was_moved(from, to).await;
        }
        match self.objects.copy(&self.path(from)?, &self.path(to)?).await {
            Ok(()) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(StoreError::of(to, error)),
        }
    }

    /// Says whether a move has come to `to` before; `false` if there is nothing to finish, since `from` is gone.
    async fn was_moved(&self, from: &str, to: &str) -> Result<bool, StoreError> {
        let same = same_bytes(&self.objects, &self.path(from)?, &self.path(to)?).await;
        match same {
            Ok(true) => Ok(true),
            Ok(false) if self.is_there(from).await? => Err(self.exists(to)),
            Ok(false) | Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(StoreError::of(to, error)),
        }
    }
}

/// `NotFound` means that there is no `source`; one on another disk stays.
fn rename(source: &DiskPath, target: &DiskPath) -> std::io::Result<Made> {
    let directory = target.parent().unwrap_or(DiskPath::new("/"));
    if !source.try_exists()? {
        return Err(ErrorKind::NotFound.into());
    }
    std::fs::create_dir_all(directory)?;
    let renamed = match rename_new(source, target) {
        // Somebody who clears out empty directories was in between.
        Err(error) if error.kind() == ErrorKind::NotFound && source.try_exists()? => {
            std::fs::create_dir_all(directory)?;
            rename_new(source, target)
        }
        renamed => renamed,
    };
    match renamed {
        Err(error) if error.kind() == ErrorKind::CrossesDevices => {
            // Of its own name, since others may copy the same file; readers pass over what begins with a dot.
            let copy = directory.join(format!(".{}.copying", Uuid::new_v4().simple()));
            let copied = std::fs::copy(source, &copy)
                .and_then(|_| std::fs::File::open(&copy)?.sync_all())
                .and_then(|()| rename_new(&copy, target));
            if !matches!(copied, Ok(Made::New)) {
                let _ = std::fs::remove_file(&copy);
            }
            copied
        }
        renamed => renamed,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    async fn an_object_is_moved_once(store: Store) {
        let top = store.warehouse().to_owned();
        let (from, to) = (format!("{top}/staged/a=1/x"), format!("{top}/t/a=1/x"));
        assert!(!store.relocate(&from, &to).await.expect("neither is there"));
        store.create(&from, "1".into()).await.expect("put");
        assert!(store.relocate(&from, &to).await.expect("moved"));
        assert!(store.relocate(&from, &to).await.expect("was moved"));
        assert!(store.get(&from).await.expect("get").is_none());
        // One that was copied and not deleted.
        store.create(&from, "1".into()).await.expect("put");
        assert!(store.relocate(&from, &to).await.expect("moved again"));
        assert_eq!(store.get(&to).await.expect("get").expect("there").0, "1");
        // Another object, of the same name.
        store.create(&from, "2".into()).await.expect("put");
        let refused = store.relocate(&from, &to).await;
        assert!(matches!(refused, Err(StoreError::Exists { .. })), "{refused:?}");
        assert_eq!(store.get(&to).await.expect("get").expect("there").0, "1");
        assert_eq!(store.get(&from).await.expect("get").expect("there").0, "2");
        store.delete(&from).await.expect("deleted");
        store.remove_empty_directories(&from, &format!("{top}/staged")).await;
        store.remove_empty_directories(&to, &format!("{top}/t")).await;
        assert!(
            store.get(&to).await.expect("get").is_some(),
            "its directory isn't empty"
        );
    }

    #[tokio::test]
    async fn on_a_disk_and_in_a_bucket() {
        let directory = tempfile::tempdir().expect("tempdir");
        let top = directory.path().to_str().expect("utf-8");
        an_object_is_moved_once(Store::open(top, &BTreeMap::new()).expect("open")).await;
        assert!(directory.path().join("staged").exists() && !directory.path().join("staged/a=1").exists());
        an_object_is_moved_once(Store::in_memory("s3://b/w")).await;
    }
}
