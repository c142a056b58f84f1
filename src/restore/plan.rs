//! Facts in, decision out: what to restore, and whether it can be.

use crate::catalog::OperatorSpec;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::restore::OperatorRestore;

/// What a job starts from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum RestorePolicy {
    /// The newest completed checkpoint; nothing when there is none. When it cannot be read the
    /// start fails and names it.
    #[default]
    Latest,
    /// This checkpoint or savepoint and no other. Newer checkpoints belong to a course of events that
    /// is given up: they are discarded, a savepoint that the job was stopped with included, and sinks
    /// undo what they committed after it. Other savepoints are kept; the record of an end is discarded.
    Exact(CheckpointId),
    /// Nothing: completed checkpoints and the record of an end are discarded. New ids are above
    /// any present. Savepoints are kept, but not one that the job was stopped with.
    Fresh,
    /// The checkpoint or savepoint that this pointer names in a file system (Flink: `fromSavepoint`),
    /// of this job or another. It is only read, and stays whoever's it is. What the storage has of
    /// this job is given up as for [`Fresh`](Self::Fresh).
    Savepoint(String),
}

/// The checkpoint to restore of those completed; `newest` is the one that a job goes on from, which
/// for a savepoint elsewhere is that savepoint.
///
/// # Errors
/// `NotFound` when it is asked for by number and is not there.
pub(crate) fn choose_checkpoint(
    policy: &RestorePolicy,
    newest: Option<CheckpointId>,
    completed: &[CheckpointId],
) -> Result<Option<CheckpointId>> {
    match policy {
        RestorePolicy::Latest | RestorePolicy::Savepoint(_) => Ok(newest),
        RestorePolicy::Fresh => Ok(None),
        RestorePolicy::Exact(id) if completed.contains(id) => Ok(Some(*id)),
        RestorePolicy::Exact(id) => {
            let message = format!("there is no completed checkpoint {id} to restore");
            Err(Error::new(ErrorKind::NotFound, message))
        }
    }
}

/// Matches the operators of a checkpoint with those of the job.
///
/// # Errors
/// `Incompatible` when an operator has other key groups or has left the job.
pub(crate) fn check_fit(
    id: CheckpointId,
    stored: &[OperatorSpec],
    job: &[OperatorSpec],
) -> Result<Vec<(OperatorSpec, OperatorRestore)>> {
    let refuse = |message: String| Err(Error::new(ErrorKind::Incompatible, message));
    for old in stored {
        let Some(new) = job.iter().find(|new| new.uid == old.uid) else {
            let uid = &old.uid;
            return refuse(format!("checkpoint {id} has state of {uid}, which the job lacks"));
        };
        if new.max_parallelism != old.max_parallelism {
            return refuse(format!(
                "checkpoint {id} has {} with a max parallelism of {}, the job has {}",
                old.uid, old.max_parallelism, new.max_parallelism
            ));
        }
    }
    let restored = |new: &OperatorSpec| {
        let known = stored.iter().any(|old| old.uid == new.uid);
        let how = if known { OperatorRestore::Restored } else { OperatorRestore::New };
        (new.clone(), how)
    };
    Ok(job.iter().map(restored).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::OperatorUid;

    fn spec(uid: &str, parallelism: u32) -> OperatorSpec {
        OperatorSpec::new(OperatorUid::new(uid).unwrap(), parallelism)
    }

    #[test]
    fn the_newest_checkpoint_is_chosen_unless_another_is_named() {
        let completed = [3, 5, 7].map(CheckpointId);
        let newest = Some(CheckpointId(5));
        let choose = |policy| choose_checkpoint(&policy, newest, &completed);
        assert_eq!(choose(RestorePolicy::Latest).unwrap(), newest);
        assert_eq!(choose(RestorePolicy::Fresh).unwrap(), None);
        let named = |id| choose(RestorePolicy::Exact(CheckpointId(id)));
        assert_eq!(named(7).unwrap(), Some(CheckpointId(7)));
        assert_eq!(named(4).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn state_without_a_home_and_other_key_groups_are_refused() {
        let fit = |job: &[OperatorSpec]| check_fit(CheckpointId(1), &[spec("a", 2)], job);
        assert!(fit(&[spec("b", 2)]).unwrap_err().to_string().contains("which the job lacks"));
        assert!(fit(&[spec("a", 90)]).unwrap_err().to_string().contains("max parallelism of 128"));
        assert!(fit(&[spec("a", 3)]).is_ok());
        let fits = fit(&[spec("a", 2), spec("b", 1)]).unwrap();
        assert_eq!(fits[0].1, OperatorRestore::Restored);
        assert_eq!(fits[1].1, OperatorRestore::New);
    }
}
