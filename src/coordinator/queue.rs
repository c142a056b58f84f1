//! Requests that wait for their turn, best first.

use std::collections::BTreeMap;

use crate::coordinator::event::RequestKind;
use crate::coordinator::trigger::Promise;
use crate::limits::QUEUED_REQUESTS_MAX;

/// A wish for a checkpoint.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) kind: RequestKind,
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
        if is_full
            && self
                .waiting
                .last_key_value()
                .is_some_and(|(last, _)| !last.periodic)
        {
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
        if self.waiting.len() > QUEUED_REQUESTS_MAX {
            self.pop_last()
        } else {
            None
        }
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
        self.waiting
            .last_key_value()
            .is_some_and(|(last, _)| last.periodic)
    }

    /// Takes the timer's request out.
    pub(super) fn pop_periodic(&mut self) -> Option<Request> {
        if self.has_periodic() {
            self.pop_last()
        } else {
            None
        }
    }

    fn pop_last(&mut self) -> Option<Request> {
        self.waiting.pop_last().map(|(_, request)| request)
    }
}
