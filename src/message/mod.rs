//! What travels between coordinator, tasks and host: barriers down the data, answers back up.
//!
//! Owns plain values only. Nothing here decides, stores or waits.

mod barrier;
mod notification;
mod reason;
mod statistics;

pub use barrier::{
    Alignment, Barrier, BarrierOptions, CancelMarker, CheckpointRequest, CheckpointType, EdgeKind,
};
pub use notification::Notification;
pub use reason::CheckpointFailureReason;
pub use statistics::TaskStatistics;
