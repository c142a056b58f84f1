//! The sled store: checkpoint metadata and state chunks as checksummed records in one directory.
//!
//! Owns the directory, its two placements and their commit, open and recovery. Several jobs may
//! live in one store; within a process all opens of one directory share it, another process is
//! `Conflict`.

mod backend;
mod directory;
mod gaps;
mod image;
mod index;
mod kv;
mod ledger;
mod log;
mod maintain;
mod owner;
mod placed;
#[cfg(any(test, fuzzing, feature = "test-util"))]
pub(in crate::storage) mod probe;
mod records;
mod repair;
mod share;
mod split;
mod streams;
mod view;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::JobId;
use crate::storage::access::{CheckpointStorage, JobStorage};
use crate::storage::{StorageCapabilities, StorageUri};

pub(crate) use maintain::Maintenance;
pub(crate) use owner::new_store_id;
pub(crate) use repair::{Broken, repair};
pub(super) use split::Trail;
pub(crate) use view::{StoreView, read_finish};

/// Where chunk bodies lie; chosen when a store is made and recorded in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Placement {
    /// In the store's own log, their records in sled. Near the disk's speed.
    #[default]
    Split,
    /// In sled, like everything else. Slower, larger on disk, and in memory that grows with what is
    /// written: see the README's table.
    Sled,
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Split => "split",
            Self::Sled => "sled",
        })
    }
}

impl FromStr for Placement {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "split" => Ok(Self::Split),
            "sled" => Ok(Self::Sled),
            _ => Err(Error::invalid(format!("{text:?} is no placement; there are split and sled"))),
        }
    }
}

/// Checkpoints in an embedded sled store.
///
/// ```
/// use tidegate::storage::{Placement, SledCheckpointStorage};
///
/// let storage = SledCheckpointStorage::new("state").with_placement(Placement::Sled);
/// assert_eq!(storage.directory().to_str(), Some("state"));
/// assert_eq!(storage.to_uri().to_string(), "sled://./state?placement=sled");
/// ```
///
/// Serialised, it is the text of its [`StorageUri`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StorageUri", into = "StorageUri")]
pub struct SledCheckpointStorage {
    directory: PathBuf,
    placement: Option<Placement>,
}

impl SledCheckpointStorage {
    /// A store in this directory, which is made when it is first opened.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), placement: None }
    }

    /// Where chunk bodies lie in a store that is made; [`Placement::Split`] when nothing is said.
    /// An existing store keeps its placement, and another wish is refused.
    #[must_use]
    pub fn with_placement(mut self, placement: Placement) -> Self {
        self.placement = Some(placement);
        self
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The description as text.
    pub fn to_uri(&self) -> StorageUri {
        StorageUri::Sled { directory: self.directory.clone(), placement: self.placement }
    }
}

impl From<SledCheckpointStorage> for StorageUri {
    fn from(storage: SledCheckpointStorage) -> Self {
        storage.to_uri()
    }
}

impl TryFrom<StorageUri> for SledCheckpointStorage {
    type Error = Error;

    fn try_from(uri: StorageUri) -> Result<Self> {
        match uri {
            StorageUri::Sled { directory, placement } => Ok(Self { directory, placement }),
            other => Err(Error::invalid(format!("{other} is no sled store"))),
        }
    }
}

impl CheckpointStorage for SledCheckpointStorage {
    fn location(&self) -> String {
        format!("sled store in {}", self.directory.display())
    }

    fn open(&self, job: &JobId) -> Result<JobStorage> {
        owner::open_job(&self.directory, self.placement, job)
    }

    fn to_uri(&self) -> Option<StorageUri> {
        Some(Self::to_uri(self))
    }

    /// A store of which the description does not say the placement is taken for `Split`.
    fn capabilities(&self) -> StorageCapabilities {
        let capabilities = StorageCapabilities::new();
        match self.placement {
            // sled keeps what it was given beyond the bound of its cache.
            Some(Placement::Sled) => capabilities.without_bounded_memory(),
            _ => capabilities,
        }
    }
}

#[cfg(test)]
mod tests;
