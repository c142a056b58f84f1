//! What only the host of a task can measure of a snapshot.

use std::time::Duration;

use crate::message::TaskStatistics;

/// The host's measurements of one snapshot; what it does not measure stays zero.
///
/// ```
/// let mut timing = tidegate::task::SnapshotTiming::default();
/// timing.hot_pause = std::time::Duration::from_micros(80);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SnapshotTiming {
    /// From the trigger to the first barrier at this subtask, by wall clock.
    pub start_delay: Duration,
    /// From the first to the last barrier at this subtask.
    pub alignment: Duration,
    /// How long the subtask's records were held up to freeze its state.
    pub hot_pause: Duration,
    /// From the end of that pause until the snapshot began to be written.
    pub queued: Duration,
    /// Bytes processed between the first and the last barrier.
    pub processed_bytes: u64,
    /// Bytes of records on their way that the snapshot contains.
    pub persisted_bytes: u64,
    /// The cut was taken before all barriers had come.
    pub unaligned: bool,
}

impl SnapshotTiming {
    /// Fills in the rest of what the snapshot says of itself.
    pub(super) fn measured(&self, own: TaskStatistics, writing: Duration) -> TaskStatistics {
        TaskStatistics {
            sync_duration: self.hot_pause,
            async_duration: self.queued.saturating_add(writing),
            start_delay: self.start_delay,
            alignment_duration: self.alignment,
            processed_bytes: self.processed_bytes,
            persisted_bytes: self.persisted_bytes,
            unaligned: self.unaligned,
            ..own
        }
    }
}
