//! What a start restored, and why.

use std::fmt;
use std::time::Duration;

use crate::catalog::CheckpointInfo;
use crate::ids::{Attempt, OperatorUid};

/// What happened to one operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OperatorRestore {
    /// Its state came from the checkpoint.
    Restored,
    /// The checkpoint does not know it: it starts empty.
    New,
}

/// What a job started from. `Display` is a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestoreReport {
    /// This start of the job.
    pub attempt: Attempt,
    /// The checkpoint, or `None` when the job starts from the beginning.
    pub restored: Option<CheckpointInfo>,
    /// Time since the checkpoint was triggered.
    pub age: Option<Duration>,
    /// Why this and no other.
    pub reason: String,
    /// What happened to each operator of the job.
    pub operators: Vec<(OperatorUid, OperatorRestore)>,
}

impl fmt::Display for RestoreReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.restored, self.age) {
            (Some(info), Some(age)) => {
                let (id, bytes) = (info.id, info.state_bytes);
                write!(
                    f,
                    "restored checkpoint {id} ({bytes} bytes, {:.1} s old): {}",
                    age.as_secs_f64(),
                    self.reason
                )
            }
            _ => write!(f, "started from the beginning: {}", self.reason),
        }
    }
}
