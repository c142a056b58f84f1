//! What both placements offer to the jobs of a store.

use std::fmt::Debug;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Attempt, CheckpointId, JobId, StoreId};
use crate::message::CheckpointType;
use crate::record::{Node, RecordRef};
use crate::storage::access::{ChunkStream, Hold, PendingRecords, StoredCheckpoint};
use crate::storage::sled::ledger::{JobFacts, Live};

/// What opening a store found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OpenReport {
    /// The index was made anew from the log.
    pub(crate) rebuilt: bool,
    /// What had to be done, in words.
    pub(crate) steps: Vec<String>,
    /// Places that should hold frames and do not.
    pub(crate) damage: Vec<String>,
    /// Live checkpoints that cannot be read: job, id, why.
    pub(crate) broken: Vec<(String, CheckpointId, String)>,
}

/// A change of what lives, other than a commit.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change<'a> {
    /// The job starts under this attempt.
    Attempt,
    /// These checkpoints are forgotten.
    Drop(&'a [CheckpointId]),
    /// This checkpoint is pinned, or no longer.
    Pin(CheckpointId, bool),
    /// The job ended, or did not after all.
    Finish(Option<&'a [u8]>),
}

/// Which start of which job acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Actor {
    pub(crate) job: JobId,
    pub(crate) attempt: Attempt,
}

/// What the store knows of a job at a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct JobView {
    pub(crate) attempt_max: Attempt,
    pub(crate) checkpoint_max: CheckpointId,
    pub(crate) finish: Option<Vec<u8>>,
    /// Oldest first.
    pub(crate) stored: Vec<StoredCheckpoint>,
}

impl From<&JobFacts> for JobView {
    fn from(facts: &JobFacts) -> Self {
        let stored = |(id, live): (&CheckpointId, &Live)| StoredCheckpoint {
            id: *id,
            record: live.record,
            pinned: live.pinned,
        };
        Self {
            attempt_max: facts.attempt_max,
            checkpoint_max: facts.checkpoint_max,
            finish: facts.finish.clone(),
            stored: facts.live.iter().map(stored).collect(),
        }
    }
}

/// Commits go up, and what an earlier start of the job left behind commits nothing.
///
/// # Errors
/// `Conflict` when the job has completed a checkpoint that is not older than `id`, or was started
/// again meanwhile.
pub(crate) fn check_commit(actor: &Actor, id: CheckpointId, job: Option<&JobFacts>) -> Result<()> {
    let conflict = |message: String| Err(Error::new(ErrorKind::Conflict, message));
    let now = job.map(|job| job.attempt_max).unwrap_or_default();
    if now != actor.attempt {
        let attempt = actor.attempt;
        return conflict(format!("checkpoint {id} is of attempt {attempt}, the job is at {now}"));
    }
    let newest = job.and_then(|job| job.live.last_key_value());
    match newest.filter(|(newest, _)| **newest >= id) {
        Some((newest, _)) => conflict(format!("checkpoint {id} commits after {newest}")),
        None => Ok(()),
    }
}

/// One open store under one placement.
pub(crate) trait Backend: Debug + Send + Sync {
    fn store(&self) -> StoreId;
    fn report(&self) -> &OpenReport;
    /// The jobs that the store knows.
    fn jobs(&self) -> Vec<String>;
    fn job(&self, job: &str) -> JobView;
    /// Makes a change durable. Attempt and checkpoint numbers only ever grow.
    fn change(&self, actor: &Actor, change: Change<'_>) -> Result<()>;
    /// Starts the records of a checkpoint; its kind says whether it may refer to older records.
    fn begin(
        self: Arc<Self>,
        actor: &Actor,
        id: CheckpointId,
        kind: CheckpointType,
    ) -> Result<Arc<dyn PendingRecords>>;
    fn node(&self, record: &RecordRef) -> Result<Node>;
    /// See [`RecordSource::chunk`](crate::storage::RecordSource::chunk).
    fn chunk(&self, record: &RecordRef, buffer: &mut Vec<u8>) -> Result<usize>;
    /// See [`RecordSource::next_chunk`](crate::storage::RecordSource::next_chunk).
    fn next_chunk(
        &self,
        upcoming: &[RecordRef],
        out: &mut [u8],
        stream: &mut ChunkStream,
    ) -> Result<usize> {
        let _ = out;
        stream.buffered(upcoming, |record, buffer| self.chunk(record, buffer))
    }
    /// See [`RecordSource::hold`](crate::storage::RecordSource::hold).
    fn hold(self: Arc<Self>, commit: &RecordRef) -> Option<Hold> {
        let _ = commit;
        None
    }
    /// Gives back now all the space that can be given back, and says how many bytes.
    fn reclaim(&self) -> Result<u64> {
        Ok(0)
    }
    /// See [`RecordSource::put_in_order`](crate::storage::RecordSource::put_in_order).
    fn put_in_order(&self, chunks: &mut [RecordRef]) -> Result<()> {
        let _ = chunks;
        Ok(())
    }
    /// Closes in order, so that the next open is quick. Nothing is lost without it.
    fn close(&self) -> Result<()>;
}
