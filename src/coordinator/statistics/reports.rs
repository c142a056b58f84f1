//! The way of measurements to the driver beside the acknowledgements: of a checkpoint in progress,
//! so that it can be watched, and of one that ended without the task, whose state the coordinator
//! gives back.
//!
//! Nothing depends on a report: when there is no room it is dropped.

use crate::coordinator::signal::Signal;
use crate::ids::CheckpointId;
use crate::message::TaskStatistics;
use crate::sync::Queue;

/// What one task measured.
#[derive(Debug)]
pub(crate) struct TaskReport {
    pub(crate) id: CheckpointId,
    pub(crate) task: u32,
    /// The coordinator took the acknowledgement.
    pub(crate) accepted: bool,
    pub(crate) statistics: TaskStatistics,
}

/// Many tasks write, the driver reads; nobody waits.
#[derive(Debug)]
pub(crate) struct ReportLane {
    reports: Queue<TaskReport>,
    driver: Signal,
}

impl ReportLane {
    /// A lane for at most `capacity` reports that the driver has not looked at.
    pub(crate) fn new(capacity: usize, driver: Signal) -> Self {
        Self { reports: Queue::new(capacity.max(1)), driver }
    }

    pub(crate) fn report(&self, report: TaskReport) {
        // The acknowledgement itself has woken the driver if there is something to do. After the
        // end of a checkpoint nothing else would.
        let wakes = !report.accepted;
        let is_taken = self.reports.push(report).is_ok();
        if wakes && is_taken {
            self.driver.raise();
        }
    }

    pub(crate) fn take(&self) -> Option<TaskReport> {
        self.reports.pop()
    }
}
