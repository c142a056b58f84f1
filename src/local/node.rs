//! One operator of a flow as the runner sees it, and what a task of it is given.

use std::rc::Rc;
use std::sync::Arc;

use crossbeam::channel::Sender;

use crate::clock::Clock;
use crate::config::EffectiveConfig;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, OperatorUid, TaskId};
use crate::local::background::Job;
use crate::local::control::Inbox;
use crate::local::exchange::ExchangeOptions;
use crate::local::max_parallelism::MaxParallelism;
use crate::local::wiring::{TaskWiring, Wiring};
use crate::message::CheckpointFailureReason;
use crate::state::{SnapshotSource, StateSize};
use crate::sync::AtomicU64;
use crate::task::TaskHandle;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Source,
    Process,
    Sink,
}

#[derive(Debug, Clone)]
pub(super) struct NodeSpec {
    pub(super) uid: OperatorUid,
    pub(super) parallelism: u32,
    pub(super) max_parallelism: MaxParallelism,
    pub(super) role: Role,
    /// Its input is dealt out by a function of the user's.
    pub(super) has_custom_partitioner: bool,
}

impl NodeSpec {
    pub(super) fn tasks(&self) -> impl Iterator<Item = TaskId> {
        TaskId::all(&self.uid, self.parallelism)
    }
}

/// How an operator settles what was left outside.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recovery {
    /// What a sink cannot undo may be there twice.
    pub(super) allow_duplicates: bool,
}

/// An operator without its types.
pub(super) trait Node: Send + Sync {
    fn spec(&self) -> &NodeSpec;

    /// Makes the channels of its inputs anew.
    fn connect(&self, options: ExchangeOptions);

    /// Drops the channel ends that no task took.
    fn disconnect(&self);

    /// Settles what an earlier attempt left outside, before any record.
    fn recover(&self, engine: &Engine, how: Recovery) -> Result<()>;

    /// Runs one subtask on the calling thread until its input ends or the job halts.
    fn run(&self, task: &mut TaskEnv) -> Result<()>;
}

/// What the tasks of one attempt share.
pub(super) struct AttemptShared {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) config: EffectiveConfig,
    /// The newest checkpoint known to be completed; 0 when there is none.
    pub(super) completed: AtomicU64,
    pub(super) events: Sender<TaskEvent>,
}

/// What tasks tell the runner.
#[derive(Debug)]
pub(super) enum TaskEvent {
    /// A task has processed its last record.
    EndOfData,
    /// The first cut of a task after its last record.
    CutAfterEnd(CheckpointId),
    /// A task took its snapshot, holding its records up for this long.
    Cut {
        id: CheckpointId,
        hot_pause: std::time::Duration,
    },
    /// How large the states of a task were at its newest cut.
    Sizes {
        task: TaskId,
        sizes: Vec<StateSize>,
    },
    /// A sink's subtask has committed everything up to this checkpoint.
    Committed {
        task: TaskId,
        id: CheckpointId,
    },
    /// The coordinator's news.
    Triggered {
        id: CheckpointId,
    },
    Completed {
        id: CheckpointId,
    },
    Aborted {
        id: CheckpointId,
        reason: CheckpointFailureReason,
    },
    /// A task, or its background work, failed.
    Failed {
        error: Error,
        collateral: bool,
    },
}

/// One task's surroundings, on its own thread.
pub(super) struct TaskEnv {
    pub(super) subtask: u32,
    pub(super) parallelism: u32,
    /// The restored checkpoint was taken with another parallelism of this operator.
    pub(super) rescaled: bool,
    /// The restored checkpoint, when later ones may refer to what it has of this task.
    pub(super) base: Option<CheckpointId>,
    pub(super) handle: TaskHandle,
    pub(super) state: Box<dyn SnapshotSource + Send>,
    pub(super) inbox: Rc<Inbox>,
    pub(super) wiring: Arc<Wiring>,
    pub(super) shared: Arc<AttemptShared>,
    pub(super) background: Sender<Job>,
}

impl TaskEnv {
    pub(super) fn wiring(&self) -> TaskWiring {
        TaskWiring {
            subtask: self.subtask,
            inbox: Rc::clone(&self.inbox),
            wiring: Arc::clone(&self.wiring),
        }
    }
}

pub(super) fn homeless(key: &crate::state::SectionKey, task: &TaskId) -> Error {
    Error::new(
        ErrorKind::Incompatible,
        format!("the checkpoint holds {:?} {:?} for {task}, which has none", key.kind, key.state),
    )
}
