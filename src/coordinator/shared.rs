//! What the driver and the handles share: slots, queues, statistics, and the wake-up.
//!
//! # Capacities
//!
//! - `reports`: one place for each slot and task, in up to 16 queues, so that tasks far apart do not
//!   meet at one tail. A task claims its bit at most once while a slot is open, and the slot is
//!   opened again only after all states claimed in it were taken out (`lease`), so a push never
//!   fails.
//! - `results`: one place for each slot, and a commit keeps its slot until its result was taken.
//!   Only a host that reports a commit twice finds it full, and its report is not missed.
//! - `requests`: a burst of four times what may wait; beyond it a request is refused at once.
//!
//! # Waking
//!
//! Who has put something there for the driver sets `dirty`, and calls the hook if it was not set.
//! The driver clears `dirty` before it looks. So either it sees what was put, or `dirty` is set after
//! it was cleared, and the hook is called: no wake-up is lost.

use std::fmt;

use crate::coordinator::queue::Request;
use crate::coordinator::slots::{Slots, TASKS_PER_GROUP, group_of};
use crate::coordinator::statistics::Statistics;
use crate::ids::CheckpointId;
use crate::limits::SUBMITTED_REQUESTS_MAX;
use crate::message::CheckpointFailureReason;
use crate::sync::{AtomicBool, AtomicU64, CachePadded, Ordering, Queue};

/// Called, from any thread, when there is something for `step`. Must not block.
pub type WakeHook = std::sync::Arc<dyn Fn() + Send + Sync>;

/// The state of one task on its way to the driver.
#[derive(Debug)]
pub(super) struct Report<S> {
    pub(super) id: CheckpointId,
    pub(super) task: u32,
    pub(super) slot: usize,
    pub(super) state: S,
}

/// How the commit of a checkpoint ended.
#[derive(Debug)]
pub(super) struct CommitResult {
    pub(super) id: CheckpointId,
    pub(super) result: Result<(), CheckpointFailureReason>,
}

/// The most queues that states travel through.
const REPORT_QUEUES_MAX: usize = 16;

/// The states on their way to the driver; neighbouring groups of tasks share a queue.
pub(super) struct Reports<S> {
    queues: Box<[CachePadded<Queue<Report<S>>>]>,
    /// So many groups share a queue, as a power of two: no division on the way of a state.
    shift: u32,
}

impl<S> Reports<S> {
    fn new(slots: usize, tasks: u32) -> Self {
        let groups = group_of(tasks.saturating_sub(1)).saturating_add(1);
        let groups_per_queue = groups.div_ceil(REPORT_QUEUES_MAX).next_power_of_two();
        let places = usize::try_from(TASKS_PER_GROUP).unwrap_or(usize::MAX);
        let places = places.min(usize::try_from(tasks).unwrap_or(usize::MAX));
        let capacity = places.saturating_mul(groups_per_queue).saturating_mul(slots);
        let queue = |_| CachePadded::new(Queue::new(capacity));
        let queues = (0..groups.div_ceil(groups_per_queue)).map(queue).collect();
        Self { queues, shift: groups_per_queue.trailing_zeros() }
    }

    /// Gives the report back when the queue is full.
    pub(super) fn push(&self, report: Report<S>) -> Result<(), Report<S>> {
        match self.queues.get(group_of(report.task) >> self.shift) {
            Some(queue) => queue.push(report),
            None => Err(report),
        }
    }

    /// Takes every report that is there, queue by queue.
    pub(super) fn drain(&self) -> impl Iterator<Item = Report<S>> {
        self.queues.iter().flat_map(|queue| std::iter::from_fn(|| queue.pop()))
    }
}

pub(super) struct Shared<S> {
    pub(super) slots: Slots,
    pub(super) reports: Reports<S>,
    pub(super) results: Queue<CommitResult>,
    pub(super) requests: Queue<Request>,
    pub(super) statistics: Statistics,
    /// The highest id that was ever triggered.
    started: AtomicU64,
    dirty: AtomicBool,
    closed: AtomicBool,
    wake: WakeHook,
}

impl<S> Shared<S> {
    pub(super) fn new(slots: usize, tasks: u32, wake: WakeHook) -> Self {
        Self {
            slots: Slots::new(slots, tasks),
            reports: Reports::new(slots, tasks),
            results: Queue::new(slots),
            requests: Queue::new(SUBMITTED_REQUESTS_MAX),
            statistics: Statistics::new(),
            started: AtomicU64::new(0),
            dirty: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            wake,
        }
    }

    /// There is something for the driver.
    pub(super) fn notify(&self) {
        // ORDERING: release hands on what was put; pairs with the acquire in `look`.
        if !self.dirty.swap(true, Ordering::AcqRel) {
            (self.wake)();
        }
    }

    /// The driver is about to look at everything.
    pub(super) fn look(&self) {
        self.dirty.swap(false, Ordering::AcqRel);
    }

    pub(super) fn started(&self, id: CheckpointId) {
        self.started.fetch_max(id.0, Ordering::AcqRel);
    }

    pub(super) fn was_started(&self, id: CheckpointId) -> bool {
        id.0 <= self.started.load(Ordering::Acquire)
    }

    /// No request is taken from now on.
    pub(super) fn close(&self) {
        self.closed.swap(true, Ordering::AcqRel);
    }

    /// To be asked after a request was put. A read-modify-write, so that it and `close` have an
    /// order: either who closed finds the request, or who put it learns that nobody will.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.fetch_or(false, Ordering::AcqRel)
    }

    /// Drops the requests that nobody will take; their promises say "shut down".
    pub(super) fn refuse_requests(&self) {
        while self.requests.pop().is_some() {}
    }
}

impl<S> fmt::Debug for Shared<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("slots", &self.slots.len()).finish_non_exhaustive()
    }
}
