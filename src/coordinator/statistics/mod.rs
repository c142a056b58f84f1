//! What happened to checkpoints, for whoever looks (Flink: `CheckpointStatsTracker`).
//!
//! Two readings, neither of which holds the driver up: `counts` are atomic words that the
//! coordinator itself keeps; a [`StatisticsTracker`] is fed with the coordinator's events by its
//! owner and gives immutable [`CheckpointStatistics`], which a [`Latest`] hands to any thread.
//! Nothing here decides anything, takes a lock or reads a clock.

mod counts;
mod entry;
mod latest;
mod operator;
mod pause;
mod reports;
mod rest;
mod snapshot;
mod summary;
mod task;
mod tracker;

#[cfg(test)]
mod tests;

pub(super) use counts::Statistics;
pub use counts::{Counts, LastCompleted};
pub use entry::{CheckpointEntry, CheckpointFailure, CheckpointStatus};
pub use latest::{Latest, Publisher};
pub use operator::{CheckpointDetails, OperatorStatistics};
pub use pause::HotPause;
pub(crate) use reports::{ReportLane, TaskReport};
pub use snapshot::{CheckpointStatistics, LatestCheckpoints, RestoredEntry};
pub use summary::{CheckpointSummary, Distribution, Percentiles};
pub use task::{Measured, TaskStatistics};
pub use tracker::StatisticsTracker;
