//! What tasks are told about checkpoints that they took part in.

use crate::ids::CheckpointId;
use crate::message::CheckpointFailureReason;

/// News of a checkpoint for its tasks, in order, each at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Notification {
    /// The checkpoint is durable: everything up to it may be committed.
    Completed {
        /// The checkpoint.
        id: CheckpointId,
    },
    /// The checkpoint will never complete. What completed last is repeated, so that a lost
    /// completion is repaired.
    Aborted {
        /// The checkpoint.
        id: CheckpointId,
        /// Why.
        reason: CheckpointFailureReason,
        /// The newest completed checkpoint, if there is one.
        latest_completed: Option<CheckpointId>,
    },
    /// The checkpoint was completed and is not retained any longer.
    Subsumed {
        /// The checkpoint.
        id: CheckpointId,
    },
}
