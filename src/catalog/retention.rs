//! Which completed checkpoints are given up: subsumed by newer ones (Flink:
//! `CheckpointSubsumeHelper`), or discarded at the end of the job (`CheckpointProperties`).
//!
//! Owns both rules as functions of facts. Savepoints and what is pinned belong to the user: neither
//! rule ever gives one up.

use crate::config::ExternalizedCheckpointCleanup;
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

/// What retention must know of one completed checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retained {
    pub(crate) id: CheckpointId,
    pub(crate) kind: CheckpointType,
    pub(crate) pinned: bool,
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

/// The checkpoints that retention gives up, oldest first: those that Flink's store would subsume,
/// without the savepoints. Plain savepoints are not in that store at all.
pub(crate) fn plan_retention(stored: &[Retained], most: usize) -> Vec<CheckpointId> {
    let is_in_store = |kept: &&Retained| kept.kind != CheckpointType::Savepoint;
    let in_store: Vec<_> = stored.iter().filter(is_in_store).copied().collect();
    let mut subsumed = plan_subsumption(&in_store, most);
    let is_savepoint = |id| in_store.iter().any(|kept| kept.id == id && kept.kind.is_savepoint());
    subsumed.retain(|&id| !is_savepoint(id));
    subsumed
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
mod tests {
    use super::*;

    /// `c` checkpoint, `s` savepoint, `y` synchronous savepoint; added one by one.
    fn kept(most: usize, added: &str) -> Vec<u64> {
        let mut stored = Vec::new();
        for (id, kind) in (1..).zip(added.chars()) {
            let kind = match kind {
                's' => CheckpointType::Savepoint,
                'y' => CheckpointType::SyncSavepoint,
                _ => CheckpointType::Checkpoint,
            };
            stored.push(Retained { id: CheckpointId(id), kind, pinned: false });
            let subsumed = plan_subsumption(&stored, most);
            stored.retain(|checkpoint| !subsumed.contains(&checkpoint.id));
        }
        stored.iter().map(|checkpoint| checkpoint.id.0).collect()
    }

    #[test]
    fn what_is_kept_is_what_flink_keeps() {
        assert_eq!(kept(1, "ccc"), [3]);
        assert_eq!(kept(1, "cs"), [1, 2]);
        assert_eq!(kept(1, "ccsss"), [2, 5]);
        assert_eq!(kept(1, "csc"), [3]);
        assert_eq!(kept(1, "sss"), [3]);
        assert_eq!(kept(2, "ccsss"), [2, 5]);
        assert_eq!(kept(2, "csc"), [2, 3]);
        assert_eq!(kept(1, "csy"), [3]);
    }

    fn stored(kinds: &str) -> Vec<Retained> {
        let kind = |letter| match letter {
            's' => CheckpointType::Savepoint,
            'y' => CheckpointType::SyncSavepoint,
            _ => CheckpointType::Checkpoint,
        };
        let all = (1..).zip(kinds.chars());
        all.map(|(id, letter)| Retained { id: CheckpointId(id), kind: kind(letter), pinned: false })
            .collect()
    }

    fn numbers(ids: &[CheckpointId]) -> Vec<u64> {
        ids.iter().map(|id| id.0).collect()
    }

    #[test]
    fn a_savepoint_is_never_given_up_and_takes_no_checkpoints_place() {
        assert_eq!(numbers(&plan_retention(&stored("ccscsc"), 1)), [1, 2, 4]);
        assert_eq!(numbers(&plan_retention(&stored("csss"), 1)), [0; 0]);
        assert_eq!(numbers(&plan_retention(&stored("ccy"), 1)), [1, 2]);
        assert_eq!(numbers(&plan_retention(&stored("ycc"), 1)), [2]);
    }

    /// Flink: `CheckpointPropertiesTest`, `CompletedCheckpointTest.testCleanUpOnShutdown`.
    #[test]
    fn the_end_of_a_job_discards_by_status_and_policy() {
        use ExternalizedCheckpointCleanup as Cleanup;
        use JobStatus::{Canceled, Failed, Finished, Suspended};
        const ALL: &[u64] = &[1, 3];
        type Row = [(JobStatus, &'static [u64]); 4];
        let rows: [(Cleanup, Row); 3] = [
            (
                Cleanup::NoExternalizedCheckpoints,
                [(Finished, ALL), (Canceled, ALL), (Failed, &[1]), (Suspended, &[])],
            ),
            (
                Cleanup::DeleteOnCancellation,
                [(Finished, ALL), (Canceled, ALL), (Failed, &[]), (Suspended, &[])],
            ),
            (
                Cleanup::RetainOnCancellation,
                [(Finished, ALL), (Canceled, &[]), (Failed, &[]), (Suspended, &[])],
            ),
        ];
        for (cleanup, row) in rows {
            for (status, discarded) in row {
                let planned = plan_end(&stored("cscy"), cleanup, status);
                assert_eq!(numbers(&planned), discarded, "{cleanup:?} {status:?}");
            }
        }
    }
}
