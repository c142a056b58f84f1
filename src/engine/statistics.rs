//! Carries statistics from the scheduler's thread to their readers, and from one engine to the next.
//!
//! Owns the desk at which the scheduler writes. Readers never touch it: they are handed values.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::catalog::TaskSnapshot;
use crate::coordinator::{
    CheckpointStatistics, Event, Latest, Publisher, ReportLane, StatisticsTracker,
};
use crate::engine::trace;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Attempt, CheckpointId, TaskId};

/// The statistics of a job's checkpoints over all its engines in this process. Clones are the same
/// statistics.
///
/// ```
/// let statistics = tidegate::engine::Statistics::with_history(20);
/// assert_eq!(statistics.read().counts.total, 0);
/// ```
#[derive(Clone)]
pub struct Statistics {
    latest: Latest<CheckpointStatistics>,
    /// Locked when an engine starts and ends, and by nobody else; empty while one runs.
    idle: Arc<Mutex<Option<Tools>>>,
}

/// What writing takes, of which there is one.
#[derive(Debug)]
struct Tools {
    tracker: StatisticsTracker,
    publisher: Publisher<CheckpointStatistics>,
}

impl Default for Statistics {
    /// Statistics with a history of ten attempts.
    fn default() -> Self {
        Self::of(StatisticsTracker::default())
    }
}

impl Statistics {
    /// Statistics that list the newest `history` attempts (Flink: `web.checkpoints.history`).
    #[must_use]
    pub fn with_history(history: usize) -> Self {
        Self::of(StatisticsTracker::new(history))
    }

    fn of(mut tracker: StatisticsTracker) -> Self {
        let (publisher, latest) = Latest::new(tracker.snapshot());
        Self { latest, idle: Arc::new(Mutex::new(Some(Tools { tracker, publisher }))) }
    }

    /// The statistics now; takes no lock.
    pub fn read(&self) -> Arc<CheckpointStatistics> {
        self.latest.read()
    }
}

impl fmt::Debug for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statistics").field("counts", &self.read().counts).finish_non_exhaustive()
    }
}

/// What an engine knows of itself before it starts to write.
#[derive(Debug)]
pub(super) struct Writing {
    pub(super) statistics: Statistics,
    pub(super) attempt: Attempt,
    pub(super) location: String,
    /// What is restored, and whether it is a savepoint.
    pub(super) restored: Option<(CheckpointId, bool)>,
    pub(super) reports: Arc<ReportLane>,
    /// When the engine began to open.
    pub(super) opened_at: Duration,
}

impl Writing {
    /// Takes the place of the one that writes.
    ///
    /// # Errors
    /// `Unavailable` while another engine has it.
    pub(super) fn begin(self, tasks: Arc<[TaskId]>, wall_ms: u64) -> Result<Desk> {
        let tools = self.statistics.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut tools = tools.ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "another engine still writes these statistics")
        })?;
        tools.tracker.begin_attempt(tasks, Some(self.location), wall_ms);
        if let Some((id, is_savepoint)) = self.restored {
            tools.tracker.restored(id, is_savepoint, wall_ms);
        }
        let home = Arc::clone(&self.statistics.idle);
        let mut desk = Desk { tools: Some(tools), home, reports: self.reports };
        desk.publish();
        Ok(desk)
    }
}

/// Where the scheduler writes. Dropped, also by a panic, it leaves everything to the next engine.
#[derive(Debug)]
pub(super) struct Desk {
    /// There until the desk is dropped.
    tools: Option<Tools>,
    home: Arc<Mutex<Option<Tools>>>,
    reports: Arc<ReportLane>,
}

impl Desk {
    pub(super) fn observe(&mut self, event: &Event<TaskSnapshot>, wall_ms: u64) {
        trace::event(event);
        let Some(tools) = &mut self.tools else { return };
        if let Some(ended) = tools.tracker.observe(event, wall_ms) {
            trace::checkpoint(&ended, wall_ms);
        }
    }

    pub(super) fn take_reports(&mut self, wall_ms: u64) {
        let Some(tools) = &mut self.tools else { return };
        while let Some(report) = self.reports.take() {
            tools.tracker.reported(&report, wall_ms);
        }
    }

    pub(super) fn located(&mut self, id: CheckpointId, pointer: String) {
        if let Some(tools) = &mut self.tools {
            tools.tracker.located(id, pointer);
        }
    }

    pub(super) fn discarded(&mut self, id: CheckpointId) {
        if let Some(tools) = &mut self.tools {
            tools.tracker.discarded(id);
        }
    }

    /// Shows readers what has changed.
    pub(super) fn publish(&mut self) {
        if let Some(Tools { tracker, publisher }) = &mut self.tools
            && tracker.has_changed()
        {
            publisher.publish(tracker.snapshot());
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.publish();
        *self.home.lock().unwrap_or_else(PoisonError::into_inner) = self.tools.take();
    }
}
