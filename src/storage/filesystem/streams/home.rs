//! What the owner of a job's directory says and does for the streams in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, MutexGuard};

use crate::error::Result;
use crate::ids::{Attempt, CheckpointId, JobId, StoreId};
use crate::storage::disk::Disk;
use crate::storage::filesystem::layout::{JobPaths, METADATA};
use crate::storage::filesystem::site::Sizes;
use crate::storage::stream::{Place, Realm, StreamStateHandle};

/// The checkpoints that the host manages.
#[derive(Debug, Default)]
pub(in crate::storage::filesystem) struct Hosted {
    /// By id; `None` when the metadata cannot be read.
    pub(in crate::storage::filesystem) completed: BTreeMap<CheckpointId, Option<StreamStateHandle>>,
    /// Metadata that are being written.
    pub(super) writing: BTreeSet<CheckpointId>,
}

/// A job's directory.
pub(in crate::storage::filesystem) trait StreamHome:
    fmt::Debug + Send + Sync
{
    fn disk(&self) -> &Arc<dyn Disk>;
    fn paths(&self) -> &JobPaths;
    fn job(&self) -> &JobId;
    fn store(&self) -> StoreId;
    fn attempt(&self) -> Attempt;
    fn sizes(&self) -> Sizes;
    fn hosted(&self) -> MutexGuard<'_, Hosted>;
    /// Changes of the directory one after the other.
    fn order(&self) -> MutexGuard<'_, ()>;
    /// `Conflict` once the job was started again.
    fn check_newest(&self) -> Result<()>;
    /// Makes the directory of a checkpoint, durably; one that this start made is no error.
    fn make_location(&self, id: CheckpointId) -> Result<()>;
    /// True for a completed checkpoint of the crate's.
    fn is_live(&self, id: CheckpointId) -> bool;
    /// Makes the number of a checkpoint outlive its directory. The caller holds the order.
    fn release_location(&self, id: CheckpointId) -> Result<()>;
    /// Removes the directory, unless something else is in it. The caller holds the order.
    fn remove_location(&self, id: CheckpointId) -> Result<()>;
}

impl dyn StreamHome {
    pub(super) fn realm(&self) -> Realm {
        Realm::new(self.store(), self.job())
    }

    /// The directory of a place.
    pub(super) fn dir(&self, place: Place) -> PathBuf {
        match place {
            Place::Exclusive(id) | Place::Metadata(id) => self.paths().checkpoint(id),
            Place::Shared => self.paths().shared(),
            Place::TaskOwned => self.paths().taskowned(),
        }
    }

    /// The file of a stream.
    pub(super) fn file(&self, place: Place, name: &crate::storage::stream::StreamName) -> PathBuf {
        match place {
            Place::Metadata(_) => self.dir(place).join(METADATA),
            _ => self.dir(place).join(name.file()),
        }
    }
}
