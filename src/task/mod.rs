//! One subtask's part in a checkpoint: write what was frozen, acknowledge, or decline.
//!
//! Owns the way from a barrier to an acknowledgement. A task never gets to delete anything, and
//! never decides about the checkpoint: it answers the coordinator, which does.

mod active;
mod handle;
mod meter;
mod timing;

pub(crate) use active::ActiveCheckpoints;
pub use handle::TaskHandle;
pub(crate) use meter::Meter;
pub use timing::SnapshotTiming;
