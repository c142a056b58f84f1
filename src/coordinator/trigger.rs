//! The outcome of a request, given once and waited for by threads and futures alike.
//!
//! The coordinator holds the [`Promise`], everybody else a [`TriggerHandle`]. A promise that is
//! dropped gives the outcome "shut down", so nobody waits for ever.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::ids::CheckpointId;
use crate::message::CheckpointFailureReason;
use crate::sync::{Arc, AtomicU32, AtomicU64, Ordering, Queue};

/// How many waiters of one request are woken; the others look again by themselves.
const WAKERS: usize = 16;

/// How often a waiter looks again when it is not among those that are woken.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CheckpointOutcome {
    /// The checkpoint is durable.
    Completed(CheckpointId),
    /// There is no such checkpoint.
    Failed {
        /// The checkpoint that failed; `None` when the request never became one.
        id: Option<CheckpointId>,
        /// Why.
        reason: CheckpointFailureReason,
    },
}

/// State word: still open.
const OPEN: u32 = 0;
/// State word: completed.
const COMPLETED: u32 = 1;
/// State word: failed, plus the place of the reason in `CheckpointFailureReason::ALL`.
const FAILED: u32 = 2;

#[derive(Debug)]
struct Shared {
    /// The checkpoint's id, zero for none; set before the state.
    id: AtomicU64,
    state: AtomicU32,
    waiting: Queue<Waker>,
}

impl Shared {
    fn outcome(&self) -> Option<CheckpointOutcome> {
        // ORDERING: pairs with the release in `Promise::set`; the id was stored before it.
        decode(self.state.load(Ordering::Acquire), self.id.load(Ordering::Relaxed))
    }

    /// Registers a waker. False when it will not be woken and must look again by itself.
    fn register(&self, waker: Waker) -> bool {
        if self.waiting.push(waker).is_err() {
            return false;
        }
        // ORDERING: a read-modify-write, so that it and the one in `Promise::set` have an order:
        // either that one sees the waker pushed above, or the caller's next look sees the outcome.
        self.state.fetch_or(0, Ordering::AcqRel);
        true
    }
}

fn encode(outcome: CheckpointOutcome) -> (u32, u64) {
    match outcome {
        CheckpointOutcome::Completed(id) => (COMPLETED, id.0),
        CheckpointOutcome::Failed { id, reason } => {
            let reasons = CheckpointFailureReason::ALL;
            let code = reasons.iter().position(|&other| other == reason).unwrap_or_default();
            let code = u32::try_from(code).unwrap_or_default();
            (FAILED.saturating_add(code), id.map_or(0, |id| id.0))
        }
    }
}

fn decode(state: u32, id: u64) -> Option<CheckpointOutcome> {
    match state {
        OPEN => None,
        COMPLETED => Some(CheckpointOutcome::Completed(CheckpointId(id))),
        failed => {
            let code = usize::try_from(failed.saturating_sub(FAILED)).unwrap_or_default();
            let reason = *CheckpointFailureReason::ALL.get(code)?;
            let id = Some(CheckpointId(id)).filter(|id| id.0 != 0);
            Some(CheckpointOutcome::Failed { id, reason })
        }
    }
}

/// The side that gives the outcome.
#[derive(Debug)]
pub(super) struct Promise(Arc<Shared>);

impl Promise {
    /// A promise and the handle that waits for it.
    pub(super) fn new() -> (Self, TriggerHandle) {
        let shared = Arc::new(Shared {
            id: AtomicU64::new(0),
            state: AtomicU32::new(OPEN),
            waiting: Queue::new(WAKERS),
        });
        (Self(Arc::clone(&shared)), TriggerHandle { shared, registered: None })
    }

    pub(super) fn complete(self, outcome: CheckpointOutcome) {
        self.set(outcome);
    }

    fn set(&self, outcome: CheckpointOutcome) {
        let (state, id) = encode(outcome);
        // There is one promise and it is used up: nobody else writes between the two.
        if self.0.state.load(Ordering::Relaxed) != OPEN {
            return;
        }
        self.0.id.store(id, Ordering::Relaxed);
        // ORDERING: see `Shared::register`.
        self.0.state.swap(state, Ordering::AcqRel);
        while let Some(waker) = self.0.waiting.pop() {
            waker.wake();
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        let reason = CheckpointFailureReason::CheckpointCoordinatorShutdown;
        self.set(CheckpointOutcome::Failed { id: None, reason });
    }
}

/// Outcomes that are told at once, or held until it is time.
#[derive(Debug, Default)]
pub(super) struct Answers {
    is_holding: bool,
    held: Vec<(Promise, CheckpointOutcome)>,
}

impl Answers {
    pub(super) fn hold(&mut self) {
        self.is_holding = true;
    }

    pub(super) fn end(&mut self, promise: Promise, outcome: CheckpointOutcome) {
        if self.is_holding {
            self.held.push((promise, outcome));
        } else {
            promise.complete(outcome);
        }
    }

    pub(super) fn give(&mut self) {
        self.held.drain(..).for_each(|(promise, outcome)| promise.complete(outcome));
    }
}

/// Waits for the outcome of a request, as a thread or as a future. Clones wait for the same one.
#[derive(Debug)]
pub struct TriggerHandle {
    shared: Arc<Shared>,
    /// The waker that this future has registered already.
    registered: Option<Waker>,
}

impl Clone for TriggerHandle {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), registered: None }
    }
}

impl TriggerHandle {
    /// The outcome, if there is one already.
    pub fn try_outcome(&self) -> Option<CheckpointOutcome> {
        self.shared.outcome()
    }

    /// Blocks until there is an outcome, at most for `timeout`; `None` when it passed.
    ///
    /// No mutex: the thread parks. More than 16 waiters of one request look again every 10 ms.
    pub fn wait(&self, timeout: Duration) -> Option<CheckpointOutcome> {
        if let Some(outcome) = self.try_outcome() {
            return Some(outcome);
        }
        let clock = SystemClock::new();
        let waker = Waker::from(std::sync::Arc::new(ThreadWaker(std::thread::current())));
        let longest = if self.shared.register(waker) { Duration::MAX } else { LOOK_AGAIN };
        loop {
            if let Some(outcome) = self.try_outcome() {
                return Some(outcome);
            }
            let left = timeout.checked_sub(clock.now()).filter(|left| !left.is_zero())?;
            std::thread::park_timeout(left.min(longest));
        }
    }
}

impl Future for TriggerHandle {
    type Output = CheckpointOutcome;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<CheckpointOutcome> {
        let this = self.get_mut();
        if let Some(outcome) = this.shared.outcome() {
            return Poll::Ready(outcome);
        }
        if !this.registered.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            if this.shared.register(context.waker().clone()) {
                this.registered = Some(context.waker().clone());
            } else {
                context.waker().wake_by_ref();
            }
        }
        this.shared.outcome().map_or(Poll::Pending, Poll::Ready)
    }
}

/// Wakes a parked thread.
struct ThreadWaker(std::thread::Thread);

impl Wake for ThreadWaker {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.unpark();
    }
}
