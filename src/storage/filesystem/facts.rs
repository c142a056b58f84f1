//! What an open job knows of its files: plain values, no file is touched here.
//!
//! The highest id ever seen must survive the removal of every directory. It does because the
//! directory of the highest id is durable and stays, or because the job's claim says as much.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::record::RecordRef;
use crate::storage::access::{StoredCheckpoint, pinned_is_kept};
use crate::storage::filesystem::layout::ChunkFile;
use crate::storage::filesystem::sharing::Sharing;
use crate::storage::filesystem::table::{Entry, Table};

/// A completed checkpoint.
#[derive(Debug, Clone)]
pub(super) struct Live {
    pub(super) record: RecordRef,
    /// `None` when `_metadata` could not be read.
    pub(super) content: Option<Arc<Content>>,
    pub(super) pinned: bool,
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
    pub(super) sharing: Sharing,
}

impl Facts {
    /// Completed checkpoints, oldest first.
    pub(super) fn stored(&self) -> Vec<StoredCheckpoint> {
        let stored = |(id, live): (&CheckpointId, &Live)| StoredCheckpoint {
            id: *id,
            record: live.record,
            pinned: live.pinned,
        };
        self.live.iter().map(stored).collect()
    }

    /// # Errors
    /// `Conflict` when one of `ids` is pinned.
    pub(super) fn check_droppable(&self, ids: &[CheckpointId]) -> Result<()> {
        let is_pinned = |id: &&CheckpointId| self.live.get(*id).is_some_and(|live| live.pinned);
        ids.iter().find(is_pinned).map_or(Ok(()), |id| Err(pinned_is_kept(*id)))
    }

    /// Where a record lies: in the checkpoint that wrote it, or in one that shares it. With the
    /// checkpoint whose table says so.
    pub(super) fn find(&self, record: &RecordRef) -> Option<(CheckpointId, Arc<Content>, Entry)> {
        let own = self.live.get_key_value(&record.checkpoint);
        let all = own.into_iter().chain(self.live.iter().rev());
        all.filter_map(|(id, live)| Some((id, live.content.as_ref()?))).find_map(|(id, content)| {
            let entry = content.table.find(record.id)?;
            let is_shared = || matches!(content.table.file(&entry), Some(ChunkFile::Shared(..)));
            let is_reachable = *id == record.checkpoint || is_shared();
            is_reachable.then(|| (*id, Arc::clone(content), entry))
        })
    }

    /// Those of `files` that no completed checkpoint refers to and none in progress may. None while
    /// there is a checkpoint of which nobody can tell what it refers to.
    pub(super) fn unused(&self, files: impl IntoIterator<Item = ChunkFile>) -> Vec<ChunkFile> {
        if self.live.values().any(|live| live.content.is_none()) {
            return Vec::new();
        }
        let tables = || self.live.values().filter_map(|live| live.content.as_ref());
        let is_used = |file: &ChunkFile| tables().any(|content| content.table.files.contains(file));
        let may_go = |file: &ChunkFile| self.sharing.may_go(file) && !is_used(file);
        files.into_iter().filter(may_go).collect()
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
