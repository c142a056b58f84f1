//! One job of a memory store: claimed by one start at a time.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Attempt, CheckpointId, JobId};
use crate::message::CheckpointType;
use crate::record::{Node, RecordRef};
use crate::storage::access::{JobAccess, PendingRecords, RecordSource, StoredCheckpoint};
use crate::storage::memory::pending::MemoryPending;
use crate::storage::memory::store::MemoryStore;
use crate::storage::memory::streams::MemoryStreams;
use crate::storage::stream::StreamStore;

/// Which start of which job acts on which store.
#[derive(Debug, Clone)]
pub(super) struct Actor {
    pub(super) store: Arc<MemoryStore>,
    pub(super) job: JobId,
    pub(super) attempt: Attempt,
    pub(super) max_state_size: u64,
}

/// The claim on a job; dropping it gives the job back.
#[derive(Debug)]
pub(super) struct MemoryJob {
    actor: Actor,
}

impl MemoryJob {
    /// Takes the job and a new attempt number.
    ///
    /// # Errors
    /// `Conflict` when the job is claimed.
    pub(super) fn claim(
        store: Arc<MemoryStore>,
        job: &JobId,
        max_state_size: u64,
    ) -> Result<Arc<dyn JobAccess>> {
        let attempt = store.with_job(job, |facts| {
            if facts.claimed {
                return None;
            }
            facts.claimed = true;
            facts.initialized.clear();
            facts.writing.clear();
            facts.attempt_max = Attempt(facts.attempt_max.0.saturating_add(1));
            Some(facts.attempt_max)
        });
        let attempt = attempt.ok_or_else(|| {
            Error::new(ErrorKind::Conflict, format!("job {job} runs already in this process"))
        })?;
        let actor = Actor { store, job: job.clone(), attempt, max_state_size };
        Ok(Arc::new(Self { actor }))
    }
}

impl Drop for MemoryJob {
    fn drop(&mut self) {
        self.actor.store.with_job(&self.actor.job, |facts| facts.claimed = false);
    }
}

impl RecordSource for MemoryJob {
    fn node(&self, record: &RecordRef) -> Result<Node> {
        self.actor.store.node(record)
    }

    fn chunk(&self, record: &RecordRef, buffer: &mut Vec<u8>) -> Result<usize> {
        let store = &self.actor.store;
        let bytes = store.bytes(record)?;
        let body_at = store.check(record, &bytes)?.header.header_len();
        buffer.clear();
        buffer.extend_from_slice(&bytes);
        Ok(body_at)
    }
}

impl JobAccess for MemoryJob {
    fn owner(&self) -> String {
        let name = format!("{}/{}", self.actor.store.id(), self.actor.job);
        format!("{:08x}", crc32fast::hash(name.as_bytes()))
    }

    fn attempt(&self) -> Attempt {
        self.actor.attempt
    }

    fn next_checkpoint_id(&self) -> CheckpointId {
        self.actor.store.with_job(&self.actor.job, |facts| facts.checkpoint_max.next())
    }

    fn stored(&self) -> Vec<StoredCheckpoint> {
        self.actor.store.with_job(&self.actor.job, |facts| facts.stored())
    }

    fn begin(&self, id: CheckpointId, kind: CheckpointType) -> Result<Arc<dyn PendingRecords>> {
        self.actor.store.with_job(&self.actor.job, |facts| {
            facts.checkpoint_max = facts.checkpoint_max.max(id);
        });
        Ok(Arc::new(MemoryPending::new(self.actor.clone(), id, kind)))
    }

    fn drop_checkpoints(&self, ids: &[CheckpointId]) -> Result<()> {
        self.actor.store.drop_checkpoints(&self.actor.job, ids)
    }

    fn pin(&self, id: CheckpointId, pinned: bool) -> Result<()> {
        self.actor.store.with_job(&self.actor.job, |facts| facts.pin(id, pinned))
    }

    fn record_finish(&self, body: &[u8]) -> Result<()> {
        let body = body.to_vec();
        self.actor.store.with_job(&self.actor.job, |facts| facts.finish = Some(body));
        Ok(())
    }

    fn clear_finish(&self) -> Result<()> {
        self.actor.store.with_job(&self.actor.job, |facts| facts.finish = None);
        Ok(())
    }

    fn finish(&self) -> Option<Vec<u8>> {
        self.actor.store.with_job(&self.actor.job, |facts| facts.finish.clone())
    }

    fn streams(&self) -> Arc<dyn StreamStore> {
        Arc::new(MemoryStreams::new(self.actor.clone()))
    }
}
