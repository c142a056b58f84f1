//! What a job may start from, as its user says.

use crate::ids::CheckpointId;
use crate::limits::FALLBACK_MAX;

/// What a job starts from.
///
/// ```
/// use tidegate::restore::RestorePolicy;
/// assert_eq!(RestorePolicy::default(), RestorePolicy::Fallback { max: 3 });
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RestorePolicy {
    /// The newest completed checkpoint; nothing when there is none. When it cannot be read the
    /// start fails and names it. Nothing is set aside.
    Latest,
    /// As [`Latest`](Self::Latest), but past a checkpoint that is damaged or missing, or that was set
    /// aside before, to the next older completed one, a savepoint in the job's storage included. A
    /// storage that does not answer, or a checkpoint that does not fit the job, fails the start, and so
    /// do checkpoints of which none can be restored: a job never falls back to nothing.
    ///
    /// What is passed over stays where it is, marked as suspect, and is not restored again.
    Fallback {
        /// The most completed checkpoints that may be passed over.
        max: u32,
    },
    /// This checkpoint or savepoint and no other. Newer checkpoints belong to a course of events that
    /// is given up: they are discarded, a savepoint that the job was stopped with included, and sinks
    /// undo what they committed after it. Other savepoints are kept; the record of an end is discarded.
    Exact(CheckpointId),
    /// Nothing: completed checkpoints and the record of an end are discarded. New ids are above
    /// any present. Savepoints are kept, but not one that the job was stopped with.
    Fresh,
    /// The checkpoint or savepoint that this pointer names in a file system (Flink: `fromSavepoint`),
    /// of this job or another. It is only read, and stays whoever's it is. What the storage has of
    /// this job is given up as for [`Fresh`](Self::Fresh).
    Savepoint(String),
}

impl Default for RestorePolicy {
    fn default() -> Self {
        Self::Fallback { max: FALLBACK_MAX }
    }
}

impl RestorePolicy {
    /// True when the job goes on from where it stands.
    pub(crate) fn goes_on(&self) -> bool {
        matches!(self, Self::Latest | Self::Fallback { .. })
    }
}
