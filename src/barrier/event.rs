//! What an aligner is told and what it answers.

use std::time::Duration;

use crate::ids::CheckpointId;
use crate::message::{Barrier, CancelMarker, CheckpointFailureReason};

/// What happened on an input of the task; channels count from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BarrierEvent {
    /// Every record before the barrier on this channel was processed or, after a cut that asks for
    /// it, logged.
    Barrier {
        /// The input.
        channel: u32,
        /// The barrier.
        barrier: Barrier,
    },
    /// A barrier was put into this channel; records before it may still be on their way. A host
    /// that learns of barriers ahead of the records before them says so, and says
    /// [`Barrier`](Self::Barrier) when these have passed; others leave it out.
    Announcement {
        /// The input.
        channel: u32,
        /// The barrier that will come.
        barrier: Barrier,
    },
    /// A task upstream gave a checkpoint up.
    Cancel {
        /// The input.
        channel: u32,
        /// The checkpoint.
        marker: CancelMarker,
    },
    /// Nothing comes on this channel any more.
    EndOfInput {
        /// The input.
        channel: u32,
    },
    /// The time that the aligner asked to be woken at has come.
    Timer,
}

/// What the host does, in the order given.
///
/// A channel whose barrier brings no [`Hold`](Self::Hold) goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BarrierAction {
    /// Process nothing more of this channel until it is resumed.
    Hold {
        /// The input.
        channel: u32,
    },
    /// Go on with a channel that was held.
    Resume {
        /// The input.
        channel: u32,
    },
    /// Take the snapshot now: send the barrier downstream, then freeze the state.
    Cut {
        /// What to send downstream.
        barrier: Barrier,
        /// How the alignment went; so far, when `logs` is true.
        alignment: AlignmentReport,
        /// True when the snapshot also contains the records on their way: from here on
        /// [`BarrierAligner::record`](crate::barrier::BarrierAligner::record) says which these are,
        /// until [`Logged`](Self::Logged) or [`Abort`](Self::Abort) follows.
        logs: bool,
    },
    /// All barriers have come: the records logged so far are all that the snapshot contains.
    Logged {
        /// The checkpoint.
        id: CheckpointId,
        /// How the alignment went in the end.
        alignment: AlignmentReport,
    },
    /// Decline this checkpoint; what was logged for it is dropped.
    Abort {
        /// The checkpoint.
        id: CheckpointId,
        /// Why.
        reason: CheckpointFailureReason,
    },
    /// Tell the tasks downstream that the barrier will not come.
    ForwardCancel(CancelMarker),
    /// Send [`BarrierEvent::Timer`] at this time of [`Moment::now`], and no longer at an earlier one
    /// that was asked for.
    ArmTimer {
        /// When.
        at: Duration,
    },
    /// No timer is needed any more. One that comes all the same changes nothing.
    DisarmTimer,
}

/// What the host does with the next record of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordAction {
    /// Process it.
    Pass,
    /// Leave it in the channel, which is held.
    Hold,
    /// Make it a part of the snapshot, and process it.
    Log,
}

/// How long barriers took (Flink: `CheckpointMetrics`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct AlignmentReport {
    /// From the trigger to the first barrier here, by wall clock.
    pub start_delay: Duration,
    /// From the first to the last barrier here; zero with a single channel. Zero, too, for a
    /// checkpoint that the at-least-once tracker did not measure, because it measures one at a time.
    pub duration: Duration,
}

/// The time of an event, as a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moment {
    /// Time since some start; never goes back.
    pub now: Duration,
    /// Milliseconds since 1970.
    pub wall_ms: u64,
}

/// Gives a checkpoint up here and downstream.
pub(super) fn abort(
    id: CheckpointId,
    reason: CheckpointFailureReason,
    actions: &mut Vec<BarrierAction>,
) {
    actions.push(BarrierAction::Abort { id, reason });
    actions.push(BarrierAction::ForwardCancel(CancelMarker { id }));
}
