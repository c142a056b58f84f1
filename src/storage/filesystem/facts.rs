//! What an open job knows of its files: plain values, no file is touched here.
//!
//! The highest id ever seen must survive the removal of every directory. It does because the
//! directory of the highest id is durable and stays, or because the job's claim says as much.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::record::RecordRef;
use crate::storage::access::StoredCheckpoint;
use crate::storage::filesystem::table::Table;

/// A completed checkpoint.
#[derive(Debug, Clone)]
pub(super) struct Live {
    pub(super) record: RecordRef,
    /// `None` when `_metadata` could not be read.
    pub(super) content: Option<Arc<Content>>,
}

/// Where the records of a completed checkpoint lie.
#[derive(Debug)]
pub(super) struct Content {
    /// What every frame in `_metadata` repeats.
    pub(super) incarnation: u64,
    pub(super) table: Table,
}

#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) live: BTreeMap<CheckpointId, Live>,
    /// Every id up to this was seen.
    pub(super) seen: CheckpointId,
    /// The highest id whose directory is durable.
    pub(super) anchor: CheckpointId,
    /// The claim says durably that every id up to this was seen.
    pub(super) floor: CheckpointId,
    /// Directories that were kept for their number alone.
    pub(super) kept: BTreeSet<CheckpointId>,
    pub(super) finish: Option<Vec<u8>>,
}

impl Facts {
    /// Completed checkpoints, oldest first.
    pub(super) fn stored(&self) -> Vec<StoredCheckpoint> {
        let stored =
            |(id, live): (&CheckpointId, &Live)| StoredCheckpoint { id: *id, record: live.record };
        self.live.iter().map(stored).collect()
    }

    /// True when the directory of `id` may go without its number being forgotten.
    pub(super) fn may_go(&self, id: CheckpointId) -> bool {
        id < self.anchor || id <= self.floor
    }

    /// The directories kept for their number that are not needed for it any more.
    pub(super) fn take_unneeded(&mut self) -> Vec<CheckpointId> {
        let unneeded: Vec<_> = self.kept.iter().copied().filter(|id| self.may_go(*id)).collect();
        self.kept.retain(|id| !unneeded.contains(id));
        unneeded
    }

    /// Commits go up.
    ///
    /// # Errors
    /// `Conflict` when the job has completed a checkpoint that is not older.
    pub(super) fn check_order(&self, id: CheckpointId) -> Result<()> {
        match self.live.last_key_value().filter(|(newest, _)| **newest >= id) {
            None => Ok(()),
            Some((newest, _)) => {
                let message = format!("checkpoint {id} commits after {newest}");
                Err(Error::new(ErrorKind::Conflict, message))
            }
        }
    }
}
