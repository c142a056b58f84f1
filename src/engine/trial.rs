//! How the start from a checkpoint turns out: proven by a newer one, or counted against it.
//!
//! INVARIANT: only an end that the process itself saw is counted. Nothing is written when an attempt
//! begins, so a kill leaves no trace.

use std::sync::{Mutex, PoisonError};

use crate::catalog::Checkpoints;
use crate::engine::restoring::{candidates, kind_of};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::limits::FAILURES_BEFORE_SET_ASIDE;
use crate::message::CheckpointType;
use crate::restore::{RestorePolicy, can_spare};
use crate::sync::{AtomicBool, Ordering};

#[derive(Debug)]
pub(super) struct Trial {
    /// What was restored out of the job's own storage.
    restored: Option<CheckpointId>,
    /// How many may be passed over; nothing is counted under a policy that passes over none.
    max: Option<u32>,
    /// A newer checkpoint has completed.
    proven: AtomicBool,
    /// Held while an end is recorded.
    verdict: Mutex<Verdict>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Open,
    Counted,
    SetAside,
}

impl Trial {
    pub(super) fn new(restored: Option<CheckpointId>, policy: &RestorePolicy) -> Self {
        let max = match policy {
            RestorePolicy::Fallback { max } => Some(*max),
            _ => None,
        };
        Self { restored, max, proven: AtomicBool::new(false), verdict: Mutex::new(Verdict::Open) }
    }

    /// A checkpoint has completed after the restore: what was counted before is cleared.
    pub(super) fn completed(&self, checkpoints: &Checkpoints, kind: CheckpointType) {
        // ORDERING: the flag alone is passed; an end is recorded by who has seen the completion.
        if kind == CheckpointType::Savepoint || self.proven.swap(true, Ordering::AcqRel) {
            return;
        }
        let Some(id) = self.restored else { return };
        if let Err(error) = checkpoints.change_marks(|marks| drop(marks.remove(&id))) {
            tracing::warn!(id = id.0, %error, "what is counted against a checkpoint stays");
        }
    }

    /// The attempt ended with an error of this kind. True when the checkpoint is set aside by it.
    pub(super) fn failed(&self, checkpoints: &Checkpoints, error: &Error) -> Result<bool> {
        // What lies outside of the job, or is in somebody else's hands, says nothing about the state.
        let elsewhere = matches!(
            error.kind(),
            ErrorKind::Unavailable
                | ErrorKind::Full
                | ErrorKind::Conflict
                | ErrorKind::Poisoned
                | ErrorKind::Closed
        );
        if elsewhere { Ok(false) } else { self.record(checkpoints, error, false) }
    }

    /// The state cannot be read. True when the checkpoint is set aside.
    pub(super) fn lost(&self, checkpoints: &Checkpoints, error: &Error) -> Result<bool> {
        self.record(checkpoints, error, true)
    }

    fn record(&self, checkpoints: &Checkpoints, error: &Error, at_once: bool) -> Result<bool> {
        let (Some(id), Some(max)) = (self.restored, self.max) else { return Ok(false) };
        let mut verdict = self.verdict.lock().unwrap_or_else(PoisonError::into_inner);
        if self.proven.load(Ordering::Acquire) || *verdict == Verdict::SetAside {
            return Ok(*verdict == Verdict::SetAside);
        }
        if *verdict == Verdict::Counted && !at_once {
            return Ok(false);
        }
        let candidates = candidates(checkpoints)?;
        let known = candidates.iter().find(|candidate| candidate.id == id);
        let before = known.map_or(0, |candidate| candidate.mark.failures);
        let failures = before.saturating_add(u32::from(*verdict == Verdict::Open));
        let is_due = at_once || failures >= FAILURES_BEFORE_SET_ASIDE;
        let is_set_aside =
            is_due && can_spare(id, &candidates, max, |id| kind_of(checkpoints, id))?;
        let reason = if at_once {
            error.to_string()
        } else {
            format!(
                "{failures} starts in a row failed before a newer checkpoint completed, the last \
                 with: {error}"
            )
        };
        checkpoints.change_marks(|marks| {
            let mark = marks.entry(id).or_default();
            mark.failures = failures;
            if is_set_aside {
                mark.suspect = Some(reason.clone());
            }
        })?;
        *verdict = if is_set_aside { Verdict::SetAside } else { Verdict::Counted };
        if is_set_aside {
            tracing::warn!(id = id.0, reason, "a checkpoint is set aside");
        }
        Ok(is_set_aside)
    }
}
