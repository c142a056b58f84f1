//! The checkpoint coordinator: decides when a checkpoint starts, counts who has acknowledged, and
//! gives each checkpoint exactly one outcome (Flink: `CheckpointCoordinator`).
//!
//! Owns: the policy (which request may start now, when the timer fires, which failures the job
//! survives), the slots of the checkpoints in flight, and the statistics. It never sees storage,
//! never sends anything, never reads a clock and has no thread: [`Coordinator::step`] is told the
//! time and leaves [`Event`]s for its host, which triggers, commits and notifies.
//!
//! # Who may do what
//!
//! One thread, the driver, owns the [`Coordinator`]. Any thread may hold a [`CoordinatorHandle`]
//! and submit, acknowledge, decline or report a commit: no mutex, no I/O, and no allocation on the
//! way of an acknowledgement. What handles do lies in atomic words (`slots`) and bounded queues
//! (`shared`); the driver alone reads it back and assembles.
//!
//! # One outcome
//!
//! ```text
//!             last acknowledgement              commit succeeded
//!   pending ------------------------> committing ----------------> completed
//!      |                                  |
//!      | declined, expired, subsumed,     | commit failed
//!      | suspended, shut down             |
//!      +----------------> aborted <-------+
//! ```
//!
//! The first arrow out of `pending` is one compare-exchange on the checkpoint's outcome word:
//! whoever wins it has decided. Timeout and subsumption no longer apply to `committing`.
//!
//! # Where it differs from Flink
//!
//! - At most one periodic request waits; Flink queues up to a thousand and runs them in a burst.
//! - Equal requests run in order of arrival; Flink compares identity hashes.
//! - A pause counts only from a real completion; Flink's first request can be refused without one.
//! - No lock is held while a checkpoint is made durable; until its commit has succeeded nothing is
//!   subsumed, and what all tasks have acknowledged is not subsumed at all.

mod core;
mod decider;
mod event;
mod failure;
mod handle;
mod lease;
mod pending;
mod plan;
mod queue;
mod settings;
mod shared;
mod signal;
mod slots;
mod statistics;
mod timer;
mod trigger;

#[cfg(test)]
mod tests;

pub use self::core::Coordinator;
pub use decider::{Decision, Facts, RequestDecider};
pub use event::{Commit, Event, RequestKind};
pub use failure::{Failure, FailurePolicy, Verdict};
pub use handle::{Acknowledged, CoordinatorHandle};
pub use plan::{PlanEdge, PlanVertex, TaskState, TriggerPlan, plan_trigger};
pub use settings::CoordinatorSettings;
pub use shared::WakeHook;
pub use signal::Signal;
pub use statistics::{
    CheckpointDetails, CheckpointEntry, CheckpointFailure, CheckpointStatistics, CheckpointStatus,
    CheckpointSummary, Counts, Distribution, HotPause, LastCompleted, Latest, LatestCheckpoints,
    Measured, OperatorStatistics, Percentiles, Publisher, RestoredEntry, StatisticsTracker,
    TaskStatistics,
};
pub(crate) use statistics::{ReportLane, TaskReport};
pub use trigger::{CheckpointOutcome, TriggerHandle};
