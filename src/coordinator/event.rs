//! What a step asks of the host and tells it, in order.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::ids::CheckpointId;
use crate::message::{Barrier, CheckpointFailureReason, CheckpointType, Notification};

/// Who asked for a checkpoint, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RequestKind {
    /// The timer asked for a checkpoint.
    Periodic,
    /// Somebody submitted a request.
    Manual(CheckpointType),
}

impl RequestKind {
    /// What kind of snapshot is asked for.
    pub fn checkpoint_type(self) -> CheckpointType {
        match self {
            Self::Periodic => CheckpointType::Checkpoint,
            Self::Manual(kind) => kind,
        }
    }

    /// True for both kinds of savepoint.
    pub fn is_savepoint(self) -> bool {
        self.checkpoint_type().is_savepoint()
    }
}

impl fmt::Display for RequestKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Periodic => "periodic",
            Self::Manual(CheckpointType::Checkpoint) => "checkpoint",
            Self::Manual(CheckpointType::FullCheckpoint) => "full checkpoint",
            Self::Manual(CheckpointType::Savepoint) => "savepoint",
            Self::Manual(CheckpointType::SyncSavepoint) => "synchronous savepoint",
        })
    }
}

/// A checkpoint that all tasks acknowledged, to be made durable.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Commit<S> {
    /// The checkpoint.
    pub id: CheckpointId,
    /// What kind of snapshot it is.
    pub kind: CheckpointType,
    /// Wall time of the trigger in milliseconds since 1970.
    pub timestamp_ms: u64,
    /// What each task acknowledged, by task, every task once.
    pub acknowledged: Vec<(u32, S)>,
}

/// One thing for the host to do or to know.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<S> {
    /// Send this barrier to the sources.
    Trigger {
        /// What to send.
        barrier: Barrier,
        /// Who asked.
        kind: RequestKind,
        /// Where a savepoint goes that names its place, as it was asked for.
        target: Option<Arc<str>>,
    },
    /// Make this durable, then report it through `commit_finished`. Commits run in the order in
    /// which they are handed out.
    Commit(Commit<S>),
    /// A checkpoint is durable.
    Completed {
        /// The checkpoint.
        id: CheckpointId,
        /// Who asked.
        kind: RequestKind,
        /// Time from the trigger to the last acknowledgement.
        duration: Duration,
    },
    /// A checkpoint that was triggered will never complete.
    Aborted {
        /// The checkpoint.
        id: CheckpointId,
        /// Who asked.
        kind: RequestKind,
        /// Why.
        reason: CheckpointFailureReason,
        /// The task that declined it.
        declined_by: Option<u32>,
    },
    /// Tell this to every task. A completed savepoint is announced only when it is synchronous.
    Notify(Notification),
    /// A request did not become a checkpoint.
    Rejected {
        /// Who asked.
        kind: RequestKind,
        /// Why not.
        reason: CheckpointFailureReason,
    },
    /// State that belongs to no checkpoint any more; each is handed out exactly once.
    Discard {
        /// The checkpoint that ended without it.
        id: CheckpointId,
        /// The task that acknowledged it.
        task: u32,
        /// What it acknowledged.
        state: S,
    },
    /// The job is beyond its tolerable failures. Nothing starts until the host resumes.
    JobFailed {
        /// The failure that was one too many.
        reason: CheckpointFailureReason,
    },
}
