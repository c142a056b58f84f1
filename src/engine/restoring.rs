//! Carries out what `restore` decides at an open: reads what there is, marks or gives up what is not
//! taken.

use crate::catalog::{CheckpointInfo, Checkpoints, ClaimStage, ExternalCheckpoint, SnapshotClaim};
use crate::error::{Error, Result};
use crate::ids::{CheckpointId, JobId};
use crate::message::CheckpointType;
use crate::restore::{
    Candidate, RestorePolicy, SkippedCheckpoint, StoredOperator, check_exact, fall_back,
};
use crate::state::SectionKind;
use crate::storage::CheckpointStorage;

/// What a start found, before it changed anything.
pub(super) struct Found {
    pub(super) checkpoints: Checkpoints,
    /// The same without what lies elsewhere, whose number may be one of these.
    job: Checkpoints,
    pub(super) restored: Option<Loaded>,
    /// Newer completed ones that a fallback passed over, newest first.
    pub(super) skipped: Vec<SkippedCheckpoint>,
    /// How many checkpoints there were.
    pub(super) completed: usize,
    /// What is restored lies elsewhere, and how it was asked for.
    adopted: Option<(ExternalCheckpoint, String)>,
    /// The policy in force: what was asked for, unless a claim says otherwise.
    pub(super) policy: RestorePolicy,
    /// A claim whose end the settling brings.
    unfinished: Option<SnapshotClaim>,
    /// The name under which the job claims.
    claimant: String,
}

/// A checkpoint whose records can be read; chunks are checked as they are streamed back.
pub(super) struct Loaded {
    pub(super) info: CheckpointInfo,
    pub(super) operators: Vec<StoredOperator>,
}

/// Opens the job and looks for what it goes on from.
pub(super) fn find(
    storage: &dyn CheckpointStorage,
    name: &JobId,
    policy: &RestorePolicy,
) -> Result<Found> {
    let mut checkpoints = Checkpoints::new(storage.open(name)?);
    let claimant = checkpoints.claimant(name.as_str());
    let (policy, unfinished) = policy_in_force(&checkpoints, policy)?;
    let adopted = match &policy {
        RestorePolicy::Savepoint(pointer) | RestorePolicy::Claim(pointer) => {
            let location = storage.resolve_checkpoint(pointer)?;
            if let Some(dir) = location.dir() {
                dir.check_free(&claimant)?;
            }
            Some((ExternalCheckpoint::new(location), pointer.clone()))
        }
        _ => None,
    };
    if matches!(policy, RestorePolicy::Claim(_)) && !storage.capabilities().is_durable() {
        let message = "a job whose checkpoints end with the process cannot claim one that does not";
        return Err(Error::invalid(message));
    }
    let candidates = candidates(&checkpoints)?;
    let completed = candidates.len();
    let job = checkpoints.clone();
    let mut skipped = Vec::new();
    let exact = |checkpoints: &Checkpoints, id| {
        check_exact(id, &candidates)?;
        load(checkpoints, id).map_err(|error| unreadable(id, error))
    };
    let restored = match (&policy, &adopted) {
        (_, Some((external, _))) => {
            let id = external.id();
            checkpoints = checkpoints.adopting(external.clone());
            Some(load(&checkpoints, id).map_err(|error| unreadable(id, error))?)
        }
        (RestorePolicy::Fallback { max }, None) => {
            let choice = fall_back(&candidates, *max, |id| {
                let loaded = load(&checkpoints, id)?;
                Ok((loaded.info.kind, loaded))
            })?;
            skipped = choice.skipped;
            choice.restored.map(|(_, loaded)| loaded)
        }
        (RestorePolicy::Exact(id), None) => Some(exact(&checkpoints, *id)?),
        (RestorePolicy::Latest, None) => {
            checkpoints.newest()?.map(|id| exact(&checkpoints, id)).transpose()?
        }
        (RestorePolicy::Fresh | RestorePolicy::Savepoint(_) | RestorePolicy::Claim(_), None) => {
            None
        }
    };
    Ok(Found {
        checkpoints,
        job,
        restored,
        skipped,
        completed,
        adopted,
        policy,
        unfinished,
        claimant,
    })
}

/// What was asked for, unless the job is in the middle of a claim, or has made the one that is asked for;
/// and the claim that has still to be ended.
fn policy_in_force(
    checkpoints: &Checkpoints,
    asked: &RestorePolicy,
) -> Result<(RestorePolicy, Option<SnapshotClaim>)> {
    let Some(claim) = checkpoints.claim_note()? else { return Ok((asked.clone(), None)) };
    let is_asked_again = matches!(asked, RestorePolicy::Claim(pointer) if *pointer == claim.asked);
    if !is_asked_again && !asked.goes_on() {
        return Ok((asked.clone(), None));
    }
    if claim.stage == ClaimStage::Begun {
        // It is whole where it lies. A copy of it may be here, which nobody has read back: it is made again.
        return Ok((RestorePolicy::Claim(claim.asked), None));
    }
    let has_any = !checkpoints.ids().is_empty() || checkpoints.finish().is_some();
    if is_asked_again && !has_any {
        return Ok((asked.clone(), None));
    }
    let policy = if is_asked_again { RestorePolicy::default() } else { asked.clone() };
    let unfinished = Some(claim).filter(|claim| claim.stage != ClaimStage::Done);
    Ok((policy, unfinished))
}

impl Found {
    /// The number of what is restored out of the job's own storage.
    pub(super) fn own(&self) -> Option<CheckpointId> {
        self.restored.as_ref().filter(|_| self.adopted.is_none()).map(|loaded| loaded.info.id)
    }

    /// True when what is restored stays somebody else's: nothing that is written may refer to it.
    pub(super) fn is_foreign(&self) -> bool {
        self.adopted.is_some()
    }

    /// Settles, and says what this start goes back behind. What is lost with a tier had completed, as what
    /// is passed over.
    pub(super) fn given_up(&mut self) -> Result<Option<CheckpointId>> {
        Ok(self.settle()?.max(self.checkpoints.lost_after()))
    }

    /// Makes the decision durable: what was passed over is marked, what lies on a course of events that
    /// is given up is discarded. Returns the newest completed checkpoint that is not gone on from, if it
    /// is newer than what is.
    ///
    /// CRASH: before anything is undone outside. The next start sees the marks, or what is left of the
    /// checkpoints, and comes to the same decision.
    fn settle(&mut self) -> Result<Option<CheckpointId>> {
        if matches!(self.policy, RestorePolicy::Claim(_)) {
            return self.claim();
        }
        if let Some(claim) = self.unfinished.take() {
            self.job.remove_claimed(claim, &self.claimant)?;
        }
        if !self.policy.goes_on() {
            self.job.abandon_claim(&self.claimant)?;
            return forget_what_came_after(&self.job, self.own());
        }
        let (Some(to), Some(newest)) = (self.own(), self.skipped.first()) else { return Ok(None) };
        self.checkpoints.change_marks(|marks| {
            for SkippedCheckpoint { id, reason } in &self.skipped {
                let mark = marks.entry(*id).or_default();
                mark.suspect.get_or_insert_with(|| reason.clone());
                mark.passed_for = Some(to);
            }
        })?;
        for skipped in &self.skipped {
            tracing::warn!(restored = to.0, "passed over {skipped}");
        }
        Ok(Some(newest.id))
    }

    /// Makes what is restored the job's own. Returns the newest completed checkpoint that is given up
    /// for it.
    fn claim(&mut self) -> Result<Option<CheckpointId>> {
        let Some((external, asked)) = self.adopted.take() else { return Ok(None) };
        let claimed = self.job.claim(&external, (&asked, &self.claimant));
        let (id, given_up) = claimed.map_err(|error| error.context(format!("claim {asked}")))?;
        self.restored = Some(load(&self.job, id).map_err(|error| unreadable(id, error))?);
        self.checkpoints = self.job.clone();
        Ok(given_up.last().copied())
    }
}

/// The completed checkpoints with their marks, oldest first.
pub(super) fn candidates(checkpoints: &Checkpoints) -> Result<Vec<Candidate>> {
    let mut marks = checkpoints.marks()?;
    let candidate = |id| Candidate { id, mark: marks.remove(&id).unwrap_or_default() };
    Ok(checkpoints.ids().into_iter().map(candidate).collect())
}

/// Reads the records of a checkpoint that a start must be able to read.
pub(super) fn load(checkpoints: &Checkpoints, id: CheckpointId) -> Result<Loaded> {
    let checkpoint = checkpoints.load(id)?;
    let info = CheckpointInfo::of(&checkpoint);
    let mut operators: Vec<StoredOperator> =
        info.operators.iter().map(|spec| StoredOperator { spec: spec.clone(), bytes: 0 }).collect();
    let records = checkpoints.source(id);
    let mut current = operators.iter_mut();
    let mut operator: Option<&mut StoredOperator> = None;
    for (task, _) in checkpoint.tasks() {
        let reader = checkpoint.open_task(&records, &task)?;
        // Tasks come in the order of their operators.
        while operator.as_ref().is_none_or(|operator| operator.spec.uid != task.operator) {
            let Some(next) = current.next() else { break };
            operator = Some(next);
        }
        let sections = reader.upcoming().iter();
        let state = sections.filter(|section| section.key.kind != SectionKind::Finished);
        let bytes = state.fold(0_u64, |sum, section| sum.saturating_add(section.len));
        if let Some(operator) = &mut operator {
            operator.bytes = operator.bytes.saturating_add(bytes);
        }
    }
    Ok(Loaded { info, operators })
}

/// Whether a checkpoint can be read, and what kind it is.
pub(super) fn kind_of(checkpoints: &Checkpoints, id: CheckpointId) -> Result<CheckpointType> {
    Ok(load(checkpoints, id)?.info.kind)
}

fn unreadable(id: CheckpointId, error: Error) -> Error {
    error.context(format!("checkpoint {id} cannot be restored"))
}

/// CRASH: the end is forgotten first, so that a half-discarded job is never taken for a finished
/// one; what is left of the checkpoints is discarded by the next start of this kind, or restored by
/// one of another kind.
fn forget_what_came_after(
    checkpoints: &Checkpoints,
    restored: Option<CheckpointId>,
) -> Result<Option<CheckpointId>> {
    let later = checkpoints.course_after(restored)?;
    if checkpoints.finish().is_some() {
        checkpoints.clear_finish()?;
    }
    checkpoints.discard(&later)?;
    Ok(later.last().copied())
}
