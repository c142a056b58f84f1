//! Everything that the statistics know at one moment; never changes once it is made.

use std::sync::Arc;

use crate::coordinator::statistics::counts::Counts;
use crate::coordinator::statistics::entry::CheckpointEntry;
use crate::coordinator::statistics::summary::CheckpointSummary;
use crate::ids::CheckpointId;

/// The statistics at one moment (Flink: `CheckpointStatsSnapshot`). Cheap to clone.
///
/// Serialises as Flink's answer to `/jobs/:jobid/checkpoints`: times in milliseconds, sizes in
/// bytes, -1 for a time that is not known yet.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CheckpointStatistics {
    /// How many.
    pub counts: Counts,
    /// Over those that completed.
    pub summary: CheckpointSummary,
    /// The newest of each kind.
    pub latest: LatestCheckpoints,
    /// Those that were started last, newest first.
    pub history: Vec<Arc<CheckpointEntry>>,
}

/// The newest of each kind; kept when the history has forgotten them.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LatestCheckpoints {
    /// The newest completed checkpoint.
    pub completed: Option<Arc<CheckpointEntry>>,
    /// The newest completed savepoint.
    pub savepoint: Option<Arc<CheckpointEntry>>,
    /// The newest failed checkpoint or savepoint.
    pub failed: Option<Arc<CheckpointEntry>>,
    /// What was restored last.
    pub restored: Option<RestoredEntry>,
}

/// A restore (Flink: `RestoredCheckpointStats`).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestoredEntry {
    /// What was restored.
    pub id: CheckpointId,
    /// Wall time of the restore in milliseconds since 1970.
    pub restore_timestamp_ms: u64,
    /// It was a savepoint.
    pub is_savepoint: bool,
    /// Where it was found.
    pub external_path: Option<String>,
}

impl CheckpointStatistics {
    /// A checkpoint of the history, or one of the latest.
    pub fn checkpoint(&self, id: CheckpointId) -> Option<&Arc<CheckpointEntry>> {
        let LatestCheckpoints { completed, savepoint, failed, .. } = &self.latest;
        let latest = [completed, savepoint, failed].into_iter().flatten();
        self.history.iter().chain(latest).find(|entry| entry.id == id)
    }
}
