//! Storages of the user's own: named blobs below, checkpoints above.
//!
//! Owns the public traits of the blobs, the names under which storages are registered, and the
//! checkpoints over the blobs. Frames, checksums, attempts and the commit are the crate's; where
//! bytes lie is the user's. Must never trust what a blob gives back.

mod blobs;
mod directory;
mod job;
mod names;
mod pending;
mod registry;
mod roots;
mod streams;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::JobId;
use crate::storage::filesystem::Savepoints;
use crate::storage::{CheckpointStorage, JobStorage, StorageCapabilities, StorageUri};

pub use blobs::{BlobReader, BlobWriter, CustomAccess};
pub use directory::DirectoryBlobs;
pub use registry::{CustomStorageFactory, StorageParameters, register_storage};

/// Checkpoints in a storage of the user's own, which was registered by name with
/// [`register_storage`] (Flink: `CustomCheckpointStorage`).
///
/// The description is a name and parameters. It travels as the text `custom:NAME?key=value`; the
/// process that opens it must have registered the name itself.
///
/// Within a process a job runs once. When another process starts the same job, the earlier start
/// can complete no more checkpoints: its commits are `Conflict`.
///
/// ```
/// use tidegate::storage::CustomCheckpointStorage;
///
/// let storage = CustomCheckpointStorage::new("cold", [("region", "north")]);
/// assert_eq!(storage.to_uri().to_string(), "custom:cold?region=north");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StorageUri", into = "StorageUri")]
pub struct CustomCheckpointStorage {
    name: String,
    parameters: StorageParameters,
}

impl CustomCheckpointStorage {
    /// The storage registered as `name`, with what its factory is told.
    pub fn new<K: Into<String>, V: Into<String>>(
        name: impl Into<String>,
        parameters: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let parameters = parameters.into_iter().map(|(key, value)| (key.into(), value.into()));
        Self { name: name.into(), parameters: parameters.collect() }
    }

    /// The registered name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the factory is told.
    pub fn parameters(&self) -> &StorageParameters {
        &self.parameters
    }

    /// The description as text.
    pub fn to_uri(&self) -> StorageUri {
        let (name, parameters) = (self.name.clone(), self.parameters.clone());
        StorageUri::Custom { name, parameters }
    }
}

impl From<CustomCheckpointStorage> for StorageUri {
    fn from(storage: CustomCheckpointStorage) -> Self {
        storage.to_uri()
    }
}

impl TryFrom<StorageUri> for CustomCheckpointStorage {
    type Error = Error;

    fn try_from(uri: StorageUri) -> Result<Self> {
        match uri {
            StorageUri::Custom { name, parameters } => Ok(Self { name, parameters }),
            other => Err(Error::invalid(format!("{other} is no custom storage"))),
        }
    }
}

impl fmt::Display for CustomCheckpointStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_uri().fmt(f)
    }
}

impl CheckpointStorage for CustomCheckpointStorage {
    fn location(&self) -> String {
        self.to_string()
    }

    /// As every storage opens; `NotFound` when nobody registered the name in this process.
    fn open(&self, job: &JobId) -> Result<JobStorage> {
        let factory = registry::factory(&self.name)?;
        let most = factory.capabilities(&self.parameters).max_state_size();
        let open = || factory.open(&self.parameters);
        let access = job::CustomJob::claim(&self.to_string(), &open, job, most)?;
        Ok(JobStorage::new(access, Savepoints::within(job)))
    }

    fn to_uri(&self) -> Option<StorageUri> {
        Some(Self::to_uri(self))
    }

    /// What the registered factory says; the default when the name is unknown.
    fn capabilities(&self) -> StorageCapabilities {
        let factory = registry::factory(&self.name);
        factory.map(|factory| factory.capabilities(&self.parameters)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
