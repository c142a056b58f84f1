//! A store that is open to be looked after: nobody else has it, and no job of it is started. Must
//! never take an attempt number, nor any number of a checkpoint.

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, JobId};
use crate::storage::access::StoredCheckpoint;
use crate::storage::disk::RealDisk;
use crate::storage::sled::backend::{Actor, Backend, Change};
use crate::storage::sled::directory::StoreDir;
use crate::storage::sled::owner::OpenStore;

/// The open store; dropping it closes it in order.
#[derive(Debug)]
pub(crate) struct Maintenance {
    store: OpenStore,
}

impl Maintenance {
    /// # Errors
    /// `NotFound` when there is no store; `Conflict` when it is in use; what the disk answers.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        StoreDir::new(directory, Arc::new(RealDisk)).require_format()?;
        let store = OpenStore::open(directory, None, Arc::new(RealDisk));
        let in_use = |error: Error| match error.kind() {
            ErrorKind::Conflict => error.context("the store is changed only while it is free"),
            _ => error,
        };
        Ok(Self { store: store.map_err(in_use)? })
    }

    fn backend(&self) -> &Arc<dyn Backend> {
        self.store.backend()
    }

    /// By name.
    pub(crate) fn jobs(&self) -> Vec<String> {
        self.backend().jobs()
    }

    /// The completed checkpoint of a job with this id.
    pub(crate) fn find(&self, job: &str, id: CheckpointId) -> Option<StoredCheckpoint> {
        let stored = self.backend().job(job).stored;
        stored.into_iter().find(|stored| stored.id == id)
    }

    /// Forgets a checkpoint, durably, and frees what only it used.
    ///
    /// # Errors
    /// `Conflict` when it is pinned; what the disk answers.
    pub(crate) fn delete(&self, job: &str, id: CheckpointId) -> Result<()> {
        self.change(job, Change::Drop(&[id]))
    }

    /// Pins a checkpoint, or takes the pin back, durably.
    ///
    /// # Errors
    /// `NotFound` when there is no such checkpoint; what the disk answers.
    pub(crate) fn pin(&self, job: &str, id: CheckpointId, pinned: bool) -> Result<()> {
        self.change(job, Change::Pin(id, pinned))
    }

    /// Gives back all space that can be given back, and says how many bytes.
    ///
    /// # Errors
    /// What the disk answers.
    pub(crate) fn reclaim(&self) -> Result<u64> {
        self.backend().reclaim()
    }

    /// As the newest start of the job, whose number stays.
    fn change(&self, job: &str, change: Change<'_>) -> Result<()> {
        let attempt = self.backend().job(job).attempt_max;
        let job = JobId::new(job)?;
        self.backend().change(&Actor { job, attempt }, change)
    }
}
