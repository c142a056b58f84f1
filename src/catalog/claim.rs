//! A checkpoint or savepoint from elsewhere that becomes the job's own (Flink: `CLAIM`): copied into the
//! job's storage, read back, and then removed where it lay.
//!
//! INVARIANT: at every moment it is whole in one of the two places, and the job's notes or the
//! directory's marker say who looks after it.

use serde::{Deserialize, Serialize};

use crate::catalog::{Checkpoints, ExternalCheckpoint};
use crate::error::{Error, Result};
use crate::ids::CheckpointId;
use crate::storage::SnapshotDir;

/// What the job notes of a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotClaim {
    /// The pointer as the user wrote it.
    pub(crate) asked: String,
    /// What is claimed.
    pub(crate) dir: SnapshotDir,
    /// Its number among the job's own checkpoints.
    pub(crate) id: u64,
    pub(crate) stage: ClaimStage,
}

/// How far a claim has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ClaimStage {
    /// Until the copy is complete and read back, the job goes on from where it lies.
    Begun,
    /// The job goes on from its copy; the directory is still to be removed.
    Taken,
    /// Nothing is left to do.
    Done,
}

impl Checkpoints {
    /// The name under which directories are claimed.
    pub(crate) fn claimant(&self, job: &str) -> String {
        format!("{}/{job}", self.owner())
    }

    /// Makes the snapshot the job's own, newer than all that it has; the rest of the job's course is
    /// given up, as for a fresh start. Returns its number and what was given up.
    ///
    /// CRASH: before the first note the job knows of nothing, and may claim the directory again. From there
    /// its next start claims anew, and a copy that nobody has read back is given up; from the second note
    /// on it goes on from the copy, and removes the directory.
    pub(crate) fn claim(
        &self,
        from: &ExternalCheckpoint,
        (asked, owner): (&str, &str),
    ) -> Result<(CheckpointId, Vec<CheckpointId>)> {
        let dir = from.location().dir().cloned().ok_or_else(|| {
            let pointer = from.pointer();
            Error::invalid(format!("{pointer} is no directory of a checkpoint that can be claimed"))
        })?;
        let given_up = self.course_after(None)?;
        dir.claim(owner)?;
        let id = from.id().max(self.next_id());
        let mut claim =
            SnapshotClaim { asked: asked.to_owned(), dir, id: id.0, stage: ClaimStage::Begun };
        self.note_claim(Some(&claim))?;
        if let Err(error) = self.take_over(from, id) {
            // Whatever is there of the copy is not gone on from.
            self.discard(&[id])?;
            return Err(error);
        }
        if self.finish().is_some() {
            self.clear_finish()?;
        }
        self.discard(&given_up)?;
        claim.stage = ClaimStage::Taken;
        self.note_claim(Some(&claim))?;
        self.remove_claimed(claim, owner)?;
        Ok((id, given_up))
    }

    /// Removes what the job has a copy of. When that fails, the next start tries again.
    pub(crate) fn remove_claimed(&self, mut claim: SnapshotClaim, owner: &str) -> Result<()> {
        if let Err(error) = claim.dir.remove(owner) {
            tracing::warn!(%error, "a claimed directory stays until the next start");
            return Ok(());
        }
        claim.stage = ClaimStage::Done;
        self.note_claim(Some(&claim))
    }

    /// The job does not go on from what it has claimed: a directory that is not copied is given back.
    pub(crate) fn abandon_claim(&self, owner: &str) -> Result<()> {
        let Some(claim) = self.claim_note()? else { return Ok(()) };
        let done = match claim.stage {
            ClaimStage::Begun => claim.dir.release(owner),
            ClaimStage::Taken => claim.dir.remove(owner),
            ClaimStage::Done => Ok(()),
        };
        if let Err(error) = done {
            tracing::warn!(%error, "a directory stays claimed");
        }
        self.note_claim(None)
    }
}
