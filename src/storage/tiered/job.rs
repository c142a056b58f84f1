//! One job on two tiers, as one storage: what is new goes to the fast tier, what is there is read from
//! either.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::ids::{Attempt, CheckpointId};
use crate::message::CheckpointType;
use crate::record::{Node, RecordRef};
use crate::storage::access::{
    ChunkStream, Hold, JobAccess, PendingRecords, RecordSource, StoredCheckpoint, nothing_to_pin,
    pinned_is_kept,
};
use crate::storage::stream::StreamStore;
use crate::storage::tiered::pending::TieredPending;
use crate::storage::tiered::tiers::Tiers;
use crate::storage::tiered::twin::{inside, is_durable, is_lost, node_outside, outside};

/// How many chunks the durable tier is told of ahead.
const UPCOMING_MAX: usize = 64;

pub(super) struct TieredJob {
    tiers: Arc<Tiers>,
}

impl TieredJob {
    pub(super) fn new(tiers: Tiers) -> Self {
        Self { tiers: Arc::new(tiers) }
    }

    fn fast(&self) -> &dyn JobAccess {
        &*self.tiers.fast
    }

    fn durable(&self) -> &dyn JobAccess {
        &*self.tiers.durable.access
    }

    /// The copy of a chunk whose record in the fast tier is lost.
    fn twin(&self, record: &RecordRef, lost: Error) -> Result<RecordRef> {
        match self.tiers.twin_chunk(record)? {
            Some(twin) => {
                warn(record, &lost);
                Ok(twin)
            }
            None => Err(lost),
        }
    }
}

fn warn(record: &RecordRef, error: &Error) {
    tracing::warn!(
        target: super::TARGET, checkpoint = record.checkpoint.0, %error,
        "a record of the fast tier is lost; its copy is read"
    );
}

impl RecordSource for TieredJob {
    fn node(&self, record: &RecordRef) -> Result<Node> {
        if is_durable(record) {
            return self.durable().node(&inside(record)).map(node_outside);
        }
        match self.fast().node(record) {
            Err(lost) if is_lost(&lost) => match self.tiers.twin_node(record)? {
                Some(node) => {
                    warn(record, &lost);
                    Ok(node)
                }
                None => Err(lost),
            },
            found => found,
        }
    }

    fn chunk(&self, record: &RecordRef, buffer: &mut Vec<u8>) -> Result<usize> {
        if is_durable(record) {
            return self.durable().chunk(&inside(record), buffer);
        }
        match self.fast().chunk(record, buffer) {
            Err(lost) if is_lost(&lost) => self.durable().chunk(&self.twin(record, lost)?, buffer),
            found => found,
        }
    }

    fn hold(&self, commit: &RecordRef) -> Option<Hold> {
        if is_durable(commit) {
            self.durable().hold(&inside(commit))
        } else {
            self.fast().hold(commit)
        }
    }

    fn next_chunk(
        &self,
        upcoming: &[RecordRef],
        out: &mut [u8],
        stream: &mut ChunkStream,
    ) -> Result<usize> {
        let Some(first) = upcoming.first() else {
            return self.fast().next_chunk(upcoming, out, stream);
        };
        if is_durable(first) {
            // All references of one node are into one tier.
            let there: Vec<_> = upcoming.iter().take(UPCOMING_MAX).map(inside).collect();
            return self.durable().next_chunk(&there, out, stream);
        }
        match self.fast().next_chunk(upcoming, out, stream) {
            Err(lost) if is_lost(&lost) => {
                let twin = self.twin(first, lost)?;
                let read =
                    |record: &RecordRef, buffer: &mut Vec<u8>| self.durable().chunk(record, buffer);
                stream.buffered(&[twin], read)
            }
            found => found,
        }
    }

    fn put_in_order(&self, chunks: &mut [RecordRef]) -> Result<()> {
        chunks.sort_by_key(is_durable);
        let (here, there) = chunks.split_at_mut(chunks.partition_point(|chunk| !is_durable(chunk)));
        self.fast().put_in_order(here)?;
        for chunk in &mut *there {
            *chunk = inside(chunk);
        }
        let ordered = self.durable().put_in_order(there);
        for chunk in there {
            *chunk = outside(chunk);
        }
        ordered
    }
}

impl JobAccess for TieredJob {
    fn owner(&self) -> String {
        self.tiers.owner.clone()
    }

    fn attempt(&self) -> Attempt {
        self.tiers.attempt
    }

    fn next_checkpoint_id(&self) -> CheckpointId {
        let next = self.fast().next_checkpoint_id().max(self.durable().next_checkpoint_id());
        next.max(self.tiers.floor)
    }

    fn stored(&self) -> Vec<StoredCheckpoint> {
        let mut stored = self.fast().stored();
        for copy in self.durable().stored() {
            let there = StoredCheckpoint { record: outside(&copy.record), ..copy };
            match stored.binary_search_by_key(&copy.id, |stored| stored.id) {
                Ok(at) => {
                    let here = stored.get_mut(at).filter(|here| here.record.is_unreadable());
                    if let Some(here) = here {
                        here.record = there.record;
                    }
                }
                Err(at) => stored.insert(at, there),
            }
        }
        stored
    }

    fn retained(&self) -> Vec<StoredCheckpoint> {
        self.fast().stored()
    }

    fn retire(&self, ids: &[CheckpointId]) -> Result<()> {
        self.fast().drop_checkpoints(ids)
    }

    fn lost_after(&self) -> Option<CheckpointId> {
        self.tiers.lost_after
    }

    fn tiers(&self) -> Option<Arc<Tiers>> {
        Some(Arc::clone(&self.tiers))
    }

    fn begin(&self, id: CheckpointId, kind: CheckpointType) -> Result<Arc<dyn PendingRecords>> {
        self.tiers.begin()?;
        let inner = self.fast().begin(id, kind)?;
        Ok(Arc::new(TieredPending::new(inner, id, &self.tiers.durable)))
    }

    fn drop_checkpoints(&self, ids: &[CheckpointId]) -> Result<()> {
        let stored = self.stored();
        if let Some(kept) = stored.iter().find(|kept| kept.pinned && ids.contains(&kept.id)) {
            return Err(pinned_is_kept(kept.id));
        }
        self.tiers.drop_everywhere(ids)
    }

    fn pin(&self, id: CheckpointId, pinned: bool) -> Result<()> {
        let has = |access: &dyn JobAccess| access.stored().iter().any(|stored| stored.id == id);
        if has(self.fast()) {
            self.fast().pin(id, pinned)?;
            self.tiers.durable.bell.ring();
            return Ok(());
        }
        if has(self.durable()) { self.durable().pin(id, pinned) } else { Err(nothing_to_pin(id)) }
    }

    fn record_finish(&self, body: &[u8]) -> Result<()> {
        self.tiers.write_notes(Some(body))
    }

    fn clear_finish(&self) -> Result<()> {
        self.tiers.write_notes(None)
    }

    fn finish(&self) -> Option<Vec<u8>> {
        self.fast().finish()
    }

    fn streams(&self) -> Arc<dyn StreamStore> {
        self.fast().streams()
    }
}
