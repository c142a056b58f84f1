//! What a start restored, and why.

use std::fmt;
use std::time::Duration;

use crate::catalog::CheckpointInfo;
use crate::ids::{Attempt, CheckpointId, OperatorUid};

/// What happened to one operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OperatorRestore {
    /// Its state came from the checkpoint.
    Restored,
    /// The checkpoint does not know it: it starts empty.
    New,
    /// The checkpoint knows it without any state: it starts empty.
    Empty,
    /// The checkpoint has it and the job has not: what state it had is left behind.
    Skipped,
}

impl fmt::Display for OperatorRestore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Restored => "restored",
            Self::New => "new",
            Self::Empty => "empty",
            Self::Skipped => "skipped",
        })
    }
}

/// One operator at a start. `Display` is a line for people.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OperatorReport {
    /// Its stable name.
    pub uid: OperatorUid,
    /// What happened to it.
    pub how: OperatorRestore,
    /// Bytes of its sections in the checkpoint, of all its subtasks then.
    pub bytes: u64,
    /// How long the slowest of its subtasks took to read its state, once all have; see
    /// [`Engine::final_report`](crate::engine::Engine::final_report).
    pub read_time: Option<Duration>,
}

impl OperatorReport {
    pub(crate) fn new(uid: OperatorUid, how: OperatorRestore, bytes: u64) -> Self {
        Self { uid, how, bytes, read_time: None }
    }
}

impl fmt::Display for OperatorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.uid, self.how)?;
        if matches!(self.how, OperatorRestore::Restored | OperatorRestore::Skipped) {
            write!(f, ", {} bytes", self.bytes)?;
        }
        match self.read_time {
            Some(time) => write!(f, " in {:.3} s", time.as_secs_f64()),
            None => Ok(()),
        }
    }
}

/// A completed checkpoint that was passed over. `Display` names it with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SkippedCheckpoint {
    /// Its number.
    pub id: CheckpointId,
    /// Why it was not restored.
    pub reason: String,
}

impl fmt::Display for SkippedCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "checkpoint {}: {}", self.id, self.reason)
    }
}

/// What a job started from. `Display` is for people: a sentence, then a line for each checkpoint that
/// was passed over and for each operator.
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
    /// Newer completed checkpoints that were passed over, newest first.
    pub skipped: Vec<SkippedCheckpoint>,
    /// What happened to each operator of the job, then to those that only the checkpoint has.
    pub operators: Vec<OperatorReport>,
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
                )?;
            }
            _ => return write!(f, "started from the beginning: {}", self.reason),
        }
        for skipped in &self.skipped {
            write!(f, "\n  passed over {skipped}")?;
        }
        self.operators.iter().try_for_each(|operator| write!(f, "\n  {operator}"))
    }
}

#[cfg(test)]
mod tests {
    //! Goal: people read what was restored, what was not, and why. Method: one report of each kind.

    use std::collections::BTreeMap;

    use super::*;
    use crate::message::CheckpointType;

    #[test]
    fn a_report_names_every_operator_and_every_checkpoint_that_was_passed_over() {
        let info = CheckpointInfo {
            id: CheckpointId(5),
            attempt: Attempt(1),
            kind: CheckpointType::Checkpoint,
            timestamp_ms: 0,
            duration_ms: 0,
            state_bytes: 30,
            operators: Vec::new(),
            properties: BTreeMap::new(),
            external_pointer: None,
            pinned: false,
        };
        let uid = |uid: &str| OperatorUid::new(uid).unwrap();
        let mut counted = OperatorReport::new(uid("count"), OperatorRestore::Restored, 20);
        counted.read_time = Some(Duration::from_millis(1500));
        let mut report = RestoreReport {
            attempt: Attempt(2),
            restored: Some(info),
            age: Some(Duration::from_millis(400)),
            reason: "the newest of 2 completed that can be restored".into(),
            skipped: vec![SkippedCheckpoint { id: CheckpointId(7), reason: "it is bad".into() }],
            operators: vec![
                counted,
                OperatorReport::new(uid("more"), OperatorRestore::New, 0),
                OperatorReport::new(uid("old"), OperatorRestore::Skipped, 10),
            ],
        };
        assert_eq!(
            report.to_string(),
            "restored checkpoint 5 (30 bytes, 0.4 s old): the newest of 2 completed that can be restored\n  \
             passed over checkpoint 7: it is bad\n  \
             count: restored, 20 bytes in 1.500 s\n  \
             more: new\n  \
             old: skipped, 10 bytes"
        );
        report.restored = None;
        assert_eq!(
            report.to_string(),
            "started from the beginning: the newest of 2 completed that can be restored"
        );
    }
}
