//! Requests that wait for their turn, best first.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::coordinator::event::RequestKind;
use crate::coordinator::trigger::Promise;
use crate::limits::QUEUED_REQUESTS_MAX;

/// A wish for a checkpoint.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) kind: RequestKind,
    /// Where a savepoint goes; only its host knows what that means.
    pub(super) target: Option<Arc<str>>,
    /// Where the outcome goes; the timer wants none.
    pub(super) promise: Option<Promise>,
}

/// The order of requests: savepoints first, forced before not forced, a user's before the
/// timer's, then by arrival. The fields are in this order and the smallest is first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    checkpoint: bool,
    unforced: bool,
    pub(super) periodic: bool,
    arrival: u64,
}

impl Rank {
    pub(super) fn is_forced(&self) -> bool {
        !self.unforced
    }
}

/// At most [`QUEUED_REQUESTS_MAX`] requests, of which at most one is periodic.
#[derive(Debug, Default)]
pub(super) struct RequestQueue {
    waiting: BTreeMap<Rank, Request>,
    arrivals: u64,
}

impl RequestQueue {
    /// Adds a request, or gives back the one that has no place: this one when only users wait,
    /// else the periodic one.
    pub(super) fn push(&mut self, request: Request, forced: bool) -> Option<Request> {
        let is_full = self.waiting.len() >= QUEUED_REQUESTS_MAX;
        if is_full && self.waiting.last_key_value().is_some_and(|(last, _)| !last.periodic) {
            return Some(request);
        }
        let rank = Rank {
            checkpoint: !request.kind.is_savepoint(),
            unforced: !forced,
            periodic: request.kind == RequestKind::Periodic,
            arrival: self.arrivals,
        };
        self.arrivals = self.arrivals.wrapping_add(1);
        self.waiting.insert(rank, request);
        if self.waiting.len() > QUEUED_REQUESTS_MAX { self.pop_last() } else { None }
    }

    /// The rank of the request whose turn it is.
    pub(super) fn head(&self) -> Option<Rank> {
        self.waiting.first_key_value().map(|(rank, _)| *rank)
    }

    pub(super) fn pop(&mut self) -> Option<Request> {
        self.waiting.pop_first().map(|(_, request)| request)
    }

    /// True when the timer's request waits; a second one would add nothing.
    pub(super) fn has_periodic(&self) -> bool {
        // Only the timer ranks behind users' checkpoints, and it makes checkpoints only.
        self.waiting.last_key_value().is_some_and(|(last, _)| last.periodic)
    }

    /// Takes the timer's request out.
    pub(super) fn pop_periodic(&mut self) -> Option<Request> {
        if self.has_periodic() { self.pop_last() } else { None }
    }

    fn pop_last(&mut self) -> Option<Request> {
        self.waiting.pop_last().map(|(_, request)| request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::CheckpointType;

    const SAVEPOINT: RequestKind = RequestKind::Manual(CheckpointType::Savepoint);
    const SYNC_SAVEPOINT: RequestKind = RequestKind::Manual(CheckpointType::SyncSavepoint);
    const CHECKPOINT: RequestKind = RequestKind::Manual(CheckpointType::Checkpoint);
    const FULL: RequestKind = RequestKind::Manual(CheckpointType::FullCheckpoint);

    fn request(kind: RequestKind) -> Request {
        Request { kind, target: None, promise: None }
    }

    fn refused(queue: &mut RequestQueue, kind: RequestKind) -> Option<RequestKind> {
        queue.push(request(kind), false).map(|refused| refused.kind)
    }

    #[test]
    fn savepoints_then_forced_then_users_then_the_order_of_arrival() {
        let mut queue = RequestQueue::default();
        for (kind, forced) in [
            (RequestKind::Periodic, false),
            (CHECKPOINT, false),
            (FULL, false),
            (SAVEPOINT, false),
            (SYNC_SAVEPOINT, true),
        ] {
            assert!(queue.push(request(kind), forced).is_none());
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|r| r.kind).collect();
        let expected = [SYNC_SAVEPOINT, SAVEPOINT, CHECKPOINT, FULL, RequestKind::Periodic];
        assert_eq!(order, expected);
    }

    #[test]
    fn a_full_queue_gives_up_the_periodic_request_and_never_a_users() {
        let mut queue = RequestQueue::default();
        for _ in 1..QUEUED_REQUESTS_MAX {
            assert_eq!(refused(&mut queue, CHECKPOINT), None);
        }
        assert_eq!(refused(&mut queue, RequestKind::Periodic), None);
        assert!(queue.has_periodic());
        assert_eq!(refused(&mut queue, SAVEPOINT), Some(RequestKind::Periodic));
        assert!(!queue.has_periodic());
        assert_eq!(refused(&mut queue, SAVEPOINT), Some(SAVEPOINT));
        assert_eq!(refused(&mut queue, RequestKind::Periodic), Some(RequestKind::Periodic));
    }

    #[test]
    fn the_periodic_request_can_be_taken_from_behind_the_others() {
        let mut queue = RequestQueue::default();
        assert!(queue.pop_periodic().is_none());
        for kind in [RequestKind::Periodic, CHECKPOINT] {
            assert_eq!(refused(&mut queue, kind), None);
        }
        let taken = queue.pop_periodic().map(|request| request.kind);
        assert_eq!(taken, Some(RequestKind::Periodic));
        assert!(queue.pop_periodic().is_none());
    }
}
