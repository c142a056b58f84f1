//! May the request at the head of the queue start now? (Flink: `CheckpointRequestDecider`)

use std::time::Duration;

use crate::message::CheckpointFailureReason;

/// What the decision depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The request ignores the most checkpoints in flight.
    pub forced: bool,
    /// The timer made the request.
    pub periodic: bool,
    /// Checkpoints and savepoints in flight.
    pub pending: u32,
    /// The most in flight.
    pub max_concurrent: u32,
    /// Checkpoints that are being deleted.
    pub cleaning: u32,
    /// A place for one more is free.
    pub slot_free: bool,
    /// The least time from the last completion to a periodic start.
    pub min_pause: Duration,
    /// When a checkpoint or savepoint completed last, if ever.
    pub last_completion: Option<Duration>,
    /// The time, on the same clock.
    pub now: Duration,
}

/// What happens to the request at the head of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It starts.
    Start,
    /// It waits.
    Queue,
    /// It is refused, and the timer fires again after `retry_in`.
    Drop {
        /// Why.
        reason: CheckpointFailureReason,
        /// From now.
        retry_in: Duration,
    },
}

/// The rules by which a request starts, waits or is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestDecider;

impl RequestDecider {
    /// Applies the rules in Flink's order.
    ///
    /// A pause counts only from a real completion: before the first one no request is refused.
    pub fn decide(facts: &Facts) -> Decision {
        if facts.cleaning > facts.max_concurrent || !facts.slot_free {
            return Decision::Queue;
        }
        if facts.pending >= facts.max_concurrent && !facts.forced {
            return Decision::Queue;
        }
        if facts.periodic && !facts.forced {
            let earliest = facts
                .last_completion
                .map(|last| last.saturating_add(facts.min_pause));
            if let Some(retry_in) = earliest.and_then(|earliest| earliest.checked_sub(facts.now))
                && !retry_in.is_zero()
            {
                let reason = CheckpointFailureReason::MinimumTimeBetweenCheckpoints;
                return Decision::Drop { reason, retry_in };
            }
        }
        Decision::Start
    }
}
