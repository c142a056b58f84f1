//! Which completed checkpoints are given up: subsumed by newer ones (Flink:
//! `CheckpointSubsumeHelper`), or discarded at the end of the job (`CheckpointProperties`).
//!
//! Owns both rules as functions of facts. Savepoints and what is pinned belong to the user: neither
//! rule ever gives one up.

use std::time::Duration;

use crate::config::{EffectiveConfig, ExternalizedCheckpointCleanup};
use crate::ids::CheckpointId;
use crate::message::CheckpointType;

/// How a job ended, or that it only pauses (Flink: `JobStatus`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JobStatus {
    /// All input is processed and all output committed.
    Finished,
    /// Somebody cancelled it.
    Canceled,
    /// It failed more often than its restart policy allows.
    Failed,
    /// It will go on: shut down, interrupted by a signal or a panic, killed, or without power.
    Suspended,
}

/// Which completed checkpoints are kept: the newest `num_retained`; of these, where there are limits,
/// none that is too old, and no more than fit into the bytes. The newest checkpoint stays whatever
/// its age and size.
///
/// Savepoints and pinned checkpoints stay. They take no other checkpoint's place, and their bytes do
/// not count. A checkpoint counts with all its state, as if it stood alone: what several of them share
/// on disk is counted once for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    num_retained: usize,
    max_age_ms: Option<u64>,
    max_bytes: Option<u64>,
}

impl Retention {
    /// The newest `num_retained` are kept, at least one.
    pub fn new(num_retained: usize) -> Self {
        Self { num_retained, max_age_ms: None, max_bytes: None }
    }

    /// The same, without those whose trigger is longer ago.
    #[must_use]
    pub fn with_max_age(self, age: Duration) -> Self {
        Self { max_age_ms: Some(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)), ..self }
    }

    /// The same, without the oldest until the others have at most so many bytes of state together.
    #[must_use]
    pub fn with_max_bytes(self, bytes: u64) -> Self {
        Self { max_bytes: Some(bytes), ..self }
    }

    /// What a configuration asks for.
    pub fn of(config: &EffectiveConfig) -> Self {
        let most = usize::try_from(config.num_retained()).unwrap_or(usize::MAX);
        let aged = config.retained_max_age().map(|age| Self::new(most).with_max_age(age));
        Self { max_bytes: config.retained_max_bytes(), ..aged.unwrap_or(Self::new(most)) }
    }
}

/// What retention must know of one completed checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retained {
    pub(crate) id: CheckpointId,
    pub(crate) kind: CheckpointType,
    pub(crate) pinned: bool,
    /// When it was triggered.
    pub(crate) timestamp_ms: u64,
    /// Of all its sections.
    pub(crate) state_bytes: u64,
}

impl Retained {
    /// Nobody but retention decides about it.
    fn is_ours(&self) -> bool {
        !self.kind.is_savepoint() && !self.pinned
    }
}

/// What the end of a job discards, oldest first.
///
/// Exactly Flink's table, with two differences: a suspended job keeps everything whatever its storage
/// is, and a failed one always keeps its newest checkpoint, which is all there is to go on from.
pub(crate) fn plan_end(
    stored: &[Retained],
    cleanup: ExternalizedCheckpointCleanup,
    status: JobStatus,
) -> Vec<CheckpointId> {
    use ExternalizedCheckpointCleanup as Cleanup;
    let mut checkpoints: Vec<_> =
        stored.iter().filter(|kept| kept.is_ours()).map(|kept| kept.id).collect();
    match (status, cleanup) {
        (JobStatus::Suspended, _)
        | (JobStatus::Canceled, Cleanup::RetainOnCancellation)
        | (JobStatus::Failed, Cleanup::RetainOnCancellation | Cleanup::DeleteOnCancellation) => {
            checkpoints.clear();
        }
        (JobStatus::Failed, Cleanup::NoExternalizedCheckpoints) => _ = checkpoints.pop(),
        (JobStatus::Finished | JobStatus::Canceled, _) => {}
    }
    checkpoints
}

/// The checkpoints that retention gives up at `now_ms`, oldest first.
///
/// First those that Flink's store would subsume, without the savepoints and what is pinned; then what
/// is older than the greatest age; then the oldest of the rest until they fit.
pub(crate) fn plan_retention(
    stored: &[Retained],
    retention: &Retention,
    now_ms: u64,
) -> Vec<CheckpointId> {
    let is_in_store = |kept: &&Retained| kept.kind != CheckpointType::Savepoint && !kept.pinned;
    let in_store: Vec<_> = stored.iter().filter(is_in_store).copied().collect();
    let subsumed = plan_subsumption(&in_store, retention.num_retained);
    let newest = stored.iter().rfind(|kept| !kept.kind.is_savepoint()).map(|kept| kept.id);
    let is_too_old = |kept: &Retained| {
        let age = now_ms.saturating_sub(kept.timestamp_ms);
        retention.max_age_ms.is_some_and(|most| age > most) && Some(kept.id) != newest
    };
    let (mut given_up, kept): (Vec<Retained>, Vec<Retained>) = in_store
        .into_iter()
        .filter(Retained::is_ours)
        .partition(|kept| subsumed.contains(&kept.id) || is_too_old(kept));
    let mut total: u128 = kept.iter().map(|kept| u128::from(kept.state_bytes)).sum();
    for oldest in kept {
        if retention.max_bytes.is_none_or(|most| total <= most.into()) || Some(oldest.id) == newest
        {
            break;
        }
        total -= u128::from(oldest.state_bytes);
        given_up.push(oldest);
    }
    let mut ids: Vec<_> = given_up.iter().map(|given_up| given_up.id).collect();
    ids.sort_unstable();
    ids
}

/// The entries of Flink's store to subsume so that `most` remain, oldest first.
///
/// The newest one always stays, and so does the newest that is no savepoint, because later
/// checkpoints may build on it; so `most + 1` may remain. When the newest is a synchronous savepoint
/// the job ends with it, and nothing needs to be built on.
fn plan_subsumption(stored: &[Retained], most: usize) -> Vec<CheckpointId> {
    let Some(newest) = stored.last() else {
        return Vec::new();
    };
    let base = stored
        .iter()
        .rev()
        .find(|checkpoint| !checkpoint.kind.is_savepoint())
        .filter(|_| newest.kind != CheckpointType::SyncSavepoint);
    let mut surplus = stored.len().saturating_sub(most.max(1));
    let mut subsumed = Vec::new();
    for checkpoint in stored {
        let stays = checkpoint.id == newest.id || base.is_some_and(|base| base.id == checkpoint.id);
        if surplus > 0 && !stays {
            subsumed.push(checkpoint.id);
            surplus -= 1;
        }
    }
    subsumed
}

#[cfg(test)]
mod tests;
