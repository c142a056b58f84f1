//! The sled store: checkpoint metadata and state chunks as checksummed records in one directory.
//!
//! Owns the directory, its two placements and their commit, open and recovery. Several jobs may
//! live in one store; within a process all opens of one directory share it, another process is
//! `Conflict`.

mod backend;
mod directory;
mod image;
mod index;
mod kv;
mod ledger;
mod log;
mod owner;
mod placed;
mod split;
mod view;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::JobId;
use crate::storage::access::{CheckpointStorage, JobStorage};

pub(crate) use view::{JobListing, StoreView, read_finish};

/// Where chunk bodies lie; chosen when a store is made and recorded in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Placement {
    /// In the store's own log, their records in sled. Near the disk's speed.
    #[default]
    Split,
    /// In sled, like everything else. Slower, and larger on disk: see the README's table.
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
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
}

impl CheckpointStorage for SledCheckpointStorage {
    fn location(&self) -> String {
        format!("sled store in {}", self.directory.display())
    }

    fn open(&self, job: &JobId) -> Result<JobStorage> {
        owner::open_job(&self.directory, self.placement, job)
    }
}

#[cfg(test)]
mod tests;
