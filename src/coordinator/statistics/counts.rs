//! Counts of what happened to checkpoints, written by the driver and read by anyone at any time.
//!
//! Rules of Flink's tracker: every trigger that got an id is counted, one that failed before it had
//! one counts as failed at once; total = in progress + completed + failed in every reading; the
//! last completed one includes savepoints.

use std::time::Duration;

use crate::ids::CheckpointId;
use crate::sync::{AtomicU64, Ordering};

/// The counts at one moment (Flink: `CheckpointStatsCounts`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counts {
    /// Restores.
    pub restored: u64,
    /// Checkpoints and savepoints that were ever started, or failed before they had an id.
    pub total: u64,
    /// Started and without an outcome.
    pub in_progress: u64,
    /// Durable.
    pub completed: u64,
    /// Failed for any reason, subsumption included.
    pub failed: u64,
    /// The newest to complete, savepoints included.
    pub last_completed: Option<LastCompleted>,
}

/// What completed last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastCompleted {
    /// The checkpoint or savepoint.
    pub id: CheckpointId,
    /// Time from the trigger to the last acknowledgement, to the millisecond.
    pub duration: Duration,
}

#[derive(Debug)]
struct Cell {
    id: AtomicU64,
    duration_ms: AtomicU64,
}

/// One writer, any number of readers.
///
/// ORDERING: all sequentially consistent; readings are compared with each other, and neither side
/// is hot.
#[derive(Debug)]
pub(in crate::coordinator) struct Statistics {
    restored: AtomicU64,
    total: AtomicU64,
    completed: AtomicU64,
    failed: AtomicU64,
    /// The n-th completion is written into cell n mod 2 before `completed` becomes n, so the cell
    /// of the current count does not change while that count stands.
    last: [Cell; 2],
}

impl Statistics {
    pub(in crate::coordinator) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        let cell = || Cell { id: zero(), duration_ms: zero() };
        Self {
            restored: zero(),
            total: zero(),
            completed: zero(),
            failed: zero(),
            last: [cell(), cell()],
        }
    }

    pub(in crate::coordinator) fn restored(&self) {
        self.restored.fetch_add(1, Ordering::SeqCst);
    }

    pub(in crate::coordinator) fn started(&self) {
        self.total.fetch_add(1, Ordering::SeqCst);
    }

    pub(in crate::coordinator) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::SeqCst);
    }

    pub(in crate::coordinator) fn completed(&self, id: CheckpointId, duration: Duration) {
        let count = self.completed.load(Ordering::SeqCst).wrapping_add(1);
        let cell = self.cell(count);
        cell.id.store(id.0, Ordering::SeqCst);
        let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        cell.duration_ms.store(duration_ms, Ordering::SeqCst);
        self.completed.store(count, Ordering::SeqCst);
    }

    /// The counts now. Starts over only when a completion came in between.
    pub(in crate::coordinator) fn read(&self) -> Counts {
        loop {
            let completed = self.completed.load(Ordering::SeqCst);
            let cell = self.cell(completed);
            let last = LastCompleted {
                id: CheckpointId(cell.id.load(Ordering::SeqCst)),
                duration: Duration::from_millis(cell.duration_ms.load(Ordering::SeqCst)),
            };
            // Outcomes are read before the total, which was counted before them.
            let failed = self.failed.load(Ordering::SeqCst);
            let total = self.total.load(Ordering::SeqCst);
            if self.completed.load(Ordering::SeqCst) != completed {
                continue;
            }
            return Counts {
                restored: self.restored.load(Ordering::SeqCst),
                total,
                in_progress: total.saturating_sub(completed).saturating_sub(failed),
                completed,
                failed,
                last_completed: (completed > 0).then_some(last),
            };
        }
    }

    fn cell(&self, count: u64) -> &Cell {
        let [even, odd] = &self.last;
        if count.is_multiple_of(2) { even } else { odd }
    }
}
