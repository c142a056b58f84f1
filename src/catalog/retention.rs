//! Which completed checkpoints are subsumed by newer ones (Flink: `CheckpointSubsumeHelper`).

use crate::ids::CheckpointId;
use crate::message::CheckpointType;

/// What retention must know of one completed checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retained {
    pub(crate) id: CheckpointId,
    pub(crate) kind: CheckpointType,
}

/// The checkpoints to give up so that `most` remain, oldest first.
///
/// The newest one always stays, and so does the newest that is no savepoint, because later
/// checkpoints may build on it; so `most + 1` may remain. When the newest is a synchronous savepoint
/// the job ends with it, and nothing needs to be built on.
pub(crate) fn plan_subsumption(stored: &[Retained], most: usize) -> Vec<CheckpointId> {
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
            stored.push(Retained { id: CheckpointId(id), kind });
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
}
