//! What a job may start from, as its user says.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
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
    /// of this job or another. It is only read, and stays whoever's it is, so that several jobs may start
    /// from it: Flink's `NO_CLAIM`. Until a checkpoint of this job completes, each is a full one. What
    /// the storage has of this job is given up as for [`Fresh`](Self::Fresh).
    Savepoint(String),
    /// The same, but it becomes the job's own (Flink: `CLAIM`): it is copied into the job's storage as
    /// its newest checkpoint, read back, and removed where it lay. From then on it is gone on from,
    /// retained and given up like every checkpoint of the job. No two jobs can claim the same.
    ///
    /// A later start with the same pointer goes on from where the job stands.
    Claim(String),
}

/// Whose a checkpoint or savepoint is from which a job starts (Flink: `RecoveryClaimMode`, before 2.0
/// `RestoreMode`).
///
/// ```
/// use tidegate::restore::{ClaimMode, RestorePolicy};
///
/// assert_eq!("NO_CLAIM".parse::<ClaimMode>()?, ClaimMode::default());
/// let policy = RestorePolicy::from_snapshot("file:///saved/savepoint-1", "claim".parse()?);
/// assert_eq!(policy, RestorePolicy::Claim("file:///saved/savepoint-1".to_owned()));
/// assert!("LEGACY".parse::<ClaimMode>().is_err());
/// # Ok::<_, tidegate::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ClaimMode {
    /// It stays the user's, and is only read.
    #[default]
    NoClaim,
    /// It becomes the job's, which removes it.
    Claim,
}

impl FromStr for ClaimMode {
    type Err = Error;

    /// Flink's names, in any case.
    fn from_str(text: &str) -> Result<Self> {
        match text.trim().to_ascii_uppercase().as_str() {
            "NO_CLAIM" => Ok(Self::NoClaim),
            "CLAIM" => Ok(Self::Claim),
            "LEGACY" => Err(Error::invalid(
                "the claim mode LEGACY leaves nobody in charge of the files, and Flink 2.0 removed it; \
                 say NO_CLAIM or CLAIM",
            )),
            _ => Err(Error::invalid(format!("{text:?} is no claim mode; say NO_CLAIM or CLAIM"))),
        }
    }
}

impl fmt::Display for ClaimMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoClaim => "NO_CLAIM",
            Self::Claim => "CLAIM",
        })
    }
}

impl Default for RestorePolicy {
    fn default() -> Self {
        Self::Fallback { max: FALLBACK_MAX }
    }
}

impl RestorePolicy {
    /// From a checkpoint or savepoint in a file system (Flink: `SavepointRestoreSettings.forPath`).
    pub fn from_snapshot(pointer: impl Into<String>, mode: ClaimMode) -> Self {
        match mode {
            ClaimMode::NoClaim => Self::Savepoint(pointer.into()),
            ClaimMode::Claim => Self::Claim(pointer.into()),
        }
    }

    /// True when the job goes on from where it stands.
    pub(crate) fn goes_on(&self) -> bool {
        matches!(self, Self::Latest | Self::Fallback { .. })
    }
}
