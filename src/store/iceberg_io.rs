//! The store as `iceberg` 0.10.1 wants it: its `Storage` and `StorageFactory` traits.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use iceberg::io::{FileMetadata, FileRead, FileWrite, InputFile, OutputFile, Storage, StorageConfig, StorageFactory};
use iceberg::{Error, ErrorKind, Result};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::upload::Upload;
use super::{Store, StoreError};

/// Hands out the one store that it holds, whatever the configuration says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct StoreFactory(pub(super) Store);

/// Why there is no serialised store: the traits ask for serde, but nothing here ever sends a `FileIO` elsewhere.
const NOT_SERIALISED: &str = "a store isn't serialised: it holds credentials and connections";

impl Serialize for Store {
    fn serialize<S: Serializer>(&self, _: S) -> std::result::Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom(NOT_SERIALISED))
    }
}

impl<'de> Deserialize<'de> for Store {
    fn deserialize<D: Deserializer<'de>>(_: D) -> std::result::Result<Store, D::Error> {
        Err(serde::de::Error::custom(NOT_SERIALISED))
    }
}

#[typetag::serde(name = "AperioStoreFactory")]
impl StorageFactory for StoreFactory {
    fn build(&self, _: &StorageConfig) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(self.0.clone()))
    }
}

impl From<StoreError> for Error {
    /// Keeps the [`StoreError`] as the source, so that the catalog can tell what may be tried again.
    fn from(error: StoreError) -> Error {
        let kind = match error {
            StoreError::NotFound { .. } | StoreError::Elsewhere { .. } => ErrorKind::DataInvalid,
            StoreError::Unsupported { .. } => ErrorKind::FeatureUnsupported,
            _ => ErrorKind::Unexpected,
        };
        Error::new(kind, error.to_string()).with_source(error)
    }
}

#[async_trait]
#[typetag::serde(name = "AperioStore")]
impl Storage for Store {
    async fn exists(&self, location: &str) -> Result<bool> {
        Ok(self.is_there(location).await?)
    }

    async fn metadata(&self, location: &str) -> Result<FileMetadata> {
        let meta = self
            .objects
            .head(&self.path(location)?)
            .await
            .map_err(|error| StoreError::of(location, error))?;
        Ok(FileMetadata { size: meta.size })
    }

    async fn read(&self, location: &str) -> Result<Bytes> {
        match self.get(location).await? {
            Some((bytes, _)) => Ok(bytes),
            None => Err(StoreError::NotFound {
                location: location.to_string(),
            }
            .into()),
        }
    }

    async fn reader(&self, location: &str) -> Result<Box<dyn FileRead>> {
        Ok(Box::new(Ranges {
            store: self.clone(),
            path: self.path(location)?,
            location: location.to_string(),
        }))
    }

    async fn write(&self, location: &str, bytes: Bytes) -> Result<()> {
        Ok(self.create(location, bytes).await?)
    }

    async fn writer(&self, location: &str) -> Result<Box<dyn FileWrite>> {
        self.path(location)?;
        Ok(Box::new(Pieces(Some(Upload::new(self.clone(), location)))))
    }

    async fn delete(&self, location: &str) -> Result<()> {
        Ok(Store::delete(self, location).await?)
    }

    async fn delete_prefix(&self, location: &str) -> Result<()> {
        let found: Vec<String> = self
            .list(location)?
            .map_ok(|listed| listed.location)
            .try_collect()
            .await?;
        for location in found {
            Store::delete(self, &location).await?;
        }
        Ok(())
    }

    async fn delete_stream(&self, mut locations: BoxStream<'static, String>) -> Result<()> {
        while let Some(location) = locations.next().await {
            Store::delete(self, &location).await?;
        }
        Ok(())
    }

    fn new_input(&self, location: &str) -> Result<InputFile> {
        Ok(InputFile::new(Arc::new(self.clone()), location.to_string()))
    }

    fn new_output(&self, location: &str) -> Result<OutputFile> {
        Ok(OutputFile::new(Arc::new(self.clone()), location.to_string()))
    }
}

/// An object read range by range.
#[derive(Debug)]
struct Ranges {
    store: Store,
    path: Path,
    location: String,
}

#[async_trait]
impl FileRead for Ranges {
    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        Ok(self
            .store
            .objects
            .get_range(&self.path, range)
            .await
            .map_err(|error| StoreError::of(&self.location, error))?)
    }
}

/// An object written piece by piece; `None` once it is closed.
#[derive(Debug)]
struct Pieces(Option<Upload>);

#[async_trait]
impl FileWrite for Pieces {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let upload = self.0.as_mut().ok_or_else(closed)?;
        Ok(upload.write(&bytes).await?)
    }

    async fn close(&mut self) -> Result<()> {
        let upload = self.0.take().ok_or_else(closed)?;
        upload.finish().await?;
        Ok(())
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Unexpected, "the file was closed already")
}
