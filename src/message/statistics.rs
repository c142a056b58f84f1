//! What one subtask measured of its part in one checkpoint.

use std::time::Duration;

/// The measurements of one subtask (Flink: `SubtaskStateStats`, `CheckpointMetrics`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TaskStatistics {
    /// Wall time of the acknowledgement in milliseconds since 1970; 0 when it never came.
    pub ack_timestamp_ms: u64,
    /// Bytes of the whole state.
    pub state_bytes: u64,
    /// Bytes that were written for this checkpoint.
    pub checkpointed_bytes: u64,
    /// How long the records of this subtask were held up by the snapshot.
    pub sync_duration: Duration,
    /// From the end of the hot half to the acknowledgement.
    pub async_duration: Duration,
    /// From the trigger to the first barrier at this subtask, by wall clock.
    pub start_delay: Duration,
    /// From the first to the last barrier at this subtask.
    pub alignment_duration: Duration,
    /// Bytes processed between the first and the last barrier; 0 when the host does not measure.
    pub processed_bytes: u64,
    /// Bytes of records on their way that the snapshot contains.
    pub persisted_bytes: u64,
    /// The cut was taken before all barriers had come.
    pub unaligned: bool,
}
