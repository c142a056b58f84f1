//! What a task measures with, and where its measurements go beside the acknowledgement.

use std::sync::Arc;

use crate::catalog::TaskSnapshot;
use crate::clock::Clock;
use crate::coordinator::{Measured, ReportLane, TaskStatistics};

/// Shared by all tasks of an engine.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) reports: Arc<ReportLane>,
}

impl Measured for TaskSnapshot {
    fn statistics(&self) -> TaskStatistics {
        *self.measurements()
    }
}
