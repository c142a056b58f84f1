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
            let earliest = facts.last_completion.map(|last| last.saturating_add(facts.min_pause));
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

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Facts = Facts {
        forced: false,
        periodic: false,
        pending: 0,
        max_concurrent: 1,
        cleaning: 0,
        slot_free: true,
        min_pause: Duration::from_millis(10),
        last_completion: Some(Duration::from_millis(100)),
        now: Duration::from_millis(100),
    };

    #[test]
    fn what_the_user_asks_for_does_not_wait_for_the_pause() {
        assert_eq!(RequestDecider::decide(&IDLE), Decision::Start);
    }

    #[test]
    fn a_periodic_request_within_the_pause_is_dropped_for_the_rest_of_it() {
        let now = Duration::from_millis(104);
        let facts = Facts { periodic: true, now, ..IDLE };
        let reason = CheckpointFailureReason::MinimumTimeBetweenCheckpoints;
        let retry_in = Duration::from_millis(6);
        assert_eq!(RequestDecider::decide(&facts), Decision::Drop { reason, retry_in });
        let facts = Facts { now: Duration::from_millis(110), ..facts };
        assert_eq!(RequestDecider::decide(&facts), Decision::Start);
        let facts = Facts { forced: true, now, ..facts };
        assert_eq!(RequestDecider::decide(&facts), Decision::Start);
    }

    #[test]
    fn before_the_first_completion_there_is_no_pause() {
        let facts = Facts { periodic: true, last_completion: None, now: Duration::ZERO, ..IDLE };
        assert_eq!(RequestDecider::decide(&facts), Decision::Start);
    }

    #[test]
    fn a_pause_does_not_limit_how_many_are_in_flight() {
        let now = Duration::from_secs(10);
        let facts = Facts { periodic: true, pending: 1, max_concurrent: 2, now, ..IDLE };
        assert_eq!(RequestDecider::decide(&facts), Decision::Start);
    }

    #[test]
    fn only_a_forced_request_exceeds_the_number_in_flight() {
        let facts = Facts { pending: 1, ..IDLE };
        assert_eq!(RequestDecider::decide(&facts), Decision::Queue);
        assert_eq!(RequestDecider::decide(&Facts { forced: true, ..facts }), Decision::Start);
    }

    #[test]
    fn slow_deletions_hold_even_forced_requests_back() {
        let facts = Facts { forced: true, cleaning: 1, ..IDLE };
        assert_eq!(RequestDecider::decide(&facts), Decision::Start);
        assert_eq!(RequestDecider::decide(&Facts { cleaning: 2, ..facts }), Decision::Queue);
    }

    #[test]
    fn a_forced_request_waits_for_a_slot() {
        let facts = Facts { forced: true, slot_free: false, ..IDLE };
        assert_eq!(RequestDecider::decide(&facts), Decision::Queue);
    }
}
