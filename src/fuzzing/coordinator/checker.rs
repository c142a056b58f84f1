//! What must be true of every run of a coordinator, whatever its policy decides.
//!
//! Owns an account of one coordinator: what went in by its handles and what came out as events. A
//! broken promise is an error that says which. Never decides when a checkpoint starts, and never
//! touches a coordinator.

use std::collections::{BTreeMap, BTreeSet};

use crate::coordinator::{Acknowledged, CheckpointOutcome, Counts, Event, RequestKind};
use crate::ids::CheckpointId;
use crate::message::{CheckpointFailureReason, CheckpointType, Notification};

/// A broken promise, in words.
pub(super) type Broken = String;

/// A state of its own for every acknowledgement.
pub(super) type State = u64;

/// What was settled with the coordinator before an event came out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) max_concurrent: u32,
    pub(super) cleaning: u32,
    /// The most in flight at all, forced savepoints included.
    pub(super) slots: usize,
    /// False when no savepoint can have been submitted as a forced one.
    pub(super) may_force: bool,
}

/// Where a checkpoint in flight stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Collecting,
    Committing,
    /// The commit was reported, with this result.
    Reported(Result<(), CheckpointFailureReason>),
}

/// The account.
#[derive(Debug, Default)]
pub(super) struct Checker {
    tasks: u32,
    newest: Option<CheckpointId>,
    in_flight: BTreeMap<CheckpointId, (RequestKind, Phase)>,
    /// Commits that were handed out and not reported, the oldest first.
    commits: Vec<CheckpointId>,
    /// Accepted states that have not come out.
    inside: BTreeMap<State, (CheckpointId, u32)>,
    /// Everything that was ever accepted.
    accepted: BTreeSet<(CheckpointId, u32)>,
    outcomes: BTreeMap<CheckpointId, CheckpointOutcome>,
    /// Triggered and refused requests of users.
    manual: u64,
    /// The completion that has to be announced next.
    to_announce: Option<CheckpointId>,
    announced: Option<CheckpointId>,
    /// The abortion that has to be announced next.
    to_notify: Option<(CheckpointId, CheckpointFailureReason)>,
    /// True between a failure of the job or a suspension and the next start.
    halted: bool,
    restored: u64,
    completed: u64,
    failed: u64,
}

fn ensure(holds: bool, broken: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(broken()) }
}

impl Checker {
    /// The account of a coordinator of so many tasks.
    pub(super) fn new(tasks: u32) -> Self {
        Self { tasks, ..Self::default() }
    }

    /// The newest checkpoint that was triggered.
    pub(super) fn newest(&self) -> Option<CheckpointId> {
        self.newest
    }

    /// The newest completed checkpoint, once nothing is in flight any more.
    pub(super) fn restorable(&self) -> Option<CheckpointId> {
        self.announced.filter(|_| self.in_flight.is_empty())
    }

    /// How every checkpoint ended, by id.
    #[cfg(test)]
    pub(super) fn outcomes(&self) -> Vec<CheckpointOutcome> {
        self.outcomes.values().copied().collect()
    }

    /// How many are in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The host suspended the coordinator or shut it down.
    pub(super) fn halt(&mut self) {
        self.halted = true;
    }

    /// The host lets checkpoints start again.
    pub(super) fn resume(&mut self) {
        self.halted = false;
    }

    /// The host restored the job from this checkpoint.
    pub(super) fn restore(&mut self, id: CheckpointId) {
        self.announced = Some(id);
        self.restored += 1;
    }

    /// The oldest commit that the host has not reported is reported now.
    pub(super) fn report(
        &mut self,
        result: Result<(), CheckpointFailureReason>,
    ) -> Option<CheckpointId> {
        let id = (!self.commits.is_empty()).then(|| self.commits.remove(0))?;
        if let Some((_, phase)) = self.in_flight.get_mut(&id) {
            *phase = Phase::Reported(result);
        }
        Some(id)
    }

    /// A task acknowledged. True when all tasks have.
    pub(super) fn acknowledged(
        &mut self,
        id: CheckpointId,
        task: u32,
        state: State,
        answer: &Acknowledged<State>,
    ) -> Result<bool, Broken> {
        let what = || format!("{id} by {task}: {answer:?}");
        // No checkpoint has the id zero: it is unknown, or older than all.
        let may_be_old = task < self.tasks && (id.0 == 0 || Some(id) <= self.newest);
        let may_be_unknown = task >= self.tasks || id.0 == 0 || Some(id) > self.newest;
        match *answer {
            Acknowledged::Accepted => {
                ensure(task < self.tasks && self.in_flight.contains_key(&id), what)?;
                ensure(self.accepted.insert((id, task)), || format!("{} twice", what()))?;
                self.inside.insert(state, (id, task));
                Ok((0..self.tasks).all(|task| self.accepted.contains(&(id, task))))
            }
            Acknowledged::Duplicate(back) => {
                ensure(back == state && self.accepted.contains(&(id, task)), what)?;
                Ok(false)
            }
            Acknowledged::Late(back) => {
                ensure(back == state && may_be_old, what)?;
                Ok(false)
            }
            Acknowledged::Unknown(back) => {
                ensure(back == state && may_be_unknown, what)?;
                Ok(false)
            }
        }
    }

    /// An event came out.
    pub(super) fn follow(&mut self, event: Event<State>, limits: Limits) -> Result<(), Broken> {
        match event {
            Event::Trigger { barrier, kind, .. } => self.trigger(barrier.id, kind, limits),
            Event::Commit(commit) => self.commit(commit.id, commit.kind, &commit.acknowledged),
            Event::Discard { id, task, state } => self.out(id, task, state),
            Event::Completed { id, kind, .. } => self.complete(id, kind),
            Event::Aborted { id, kind, reason, .. } => self.abort(id, kind, reason),
            Event::Notify(Notification::Completed { id }) => {
                ensure(self.to_announce.take() == Some(id), || format!("{id} announced"))?;
                ensure(self.announced < Some(id), || format!("{id} announced out of order"))?;
                self.announced = Some(id);
                Ok(())
            }
            Event::Notify(Notification::Aborted { id, reason, latest_completed }) => {
                let expected = self.to_notify.take();
                ensure(expected == Some((id, reason)), || format!("{id} announced as aborted"))?;
                ensure(latest_completed == self.announced, || {
                    format!("{id} names {latest_completed:?}, announced was {:?}", self.announced)
                })
            }
            Event::Rejected { kind, reason } => {
                if reason == CheckpointFailureReason::NotAllRequiredTasksRunning {
                    self.failed += 1;
                }
                self.manual += u64::from(kind != RequestKind::Periodic);
                Ok(())
            }
            Event::JobFailed { .. } => {
                ensure(!self.halted, || "the job failed while it did not run".to_owned())?;
                self.halted = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn trigger(
        &mut self,
        id: CheckpointId,
        kind: RequestKind,
        limits: Limits,
    ) -> Result<(), Broken> {
        ensure(!self.halted, || format!("{id} started while the job does not run"))?;
        ensure(self.newest < Some(id) && id.0 > 0, || format!("{id} after {:?}", self.newest))?;
        let pending = self.in_flight.len();
        let most = usize::try_from(limits.max_concurrent).unwrap_or(usize::MAX);
        let may_exceed = kind.is_savepoint() && limits.may_force;
        ensure(pending < most || may_exceed, || format!("{id} beside {pending} of {most}"))?;
        ensure(pending < limits.slots, || format!("{id} without a slot"))?;
        ensure(limits.cleaning <= limits.max_concurrent, || format!("{id} during cleaning"))?;
        self.newest = Some(id);
        self.in_flight.insert(id, (kind, Phase::Collecting));
        self.manual += u64::from(kind != RequestKind::Periodic);
        Ok(())
    }

    fn commit(
        &mut self,
        id: CheckpointId,
        kind: CheckpointType,
        acknowledged: &[(u32, State)],
    ) -> Result<(), Broken> {
        let Some((asked, phase)) = self.in_flight.get_mut(&id) else {
            return Err(format!("{id} is handed out and not in flight"));
        };
        ensure(*phase == Phase::Collecting, || format!("{id} is handed out in {phase:?}"))?;
        ensure(asked.checkpoint_type() == kind, || format!("{id} became a {kind:?}"))?;
        *phase = Phase::Committing;
        let tasks = acknowledged.iter().map(|(task, _)| *task);
        ensure(tasks.eq(0..self.tasks), || format!("{id} lacks a task: {acknowledged:?}"))?;
        self.commits.push(id);
        acknowledged.iter().try_for_each(|(task, state)| self.out(id, *task, *state))
    }

    /// A state came out.
    fn out(&mut self, id: CheckpointId, task: u32, state: State) -> Result<(), Broken> {
        let owner = self.inside.remove(&state);
        ensure(owner == Some((id, task)), || format!("state {state} of {id}, {task}: {owner:?}"))
    }

    fn complete(&mut self, id: CheckpointId, kind: RequestKind) -> Result<(), Broken> {
        let ended = self.in_flight.remove(&id);
        ensure(ended == Some((kind, Phase::Reported(Ok(())))), || {
            format!("{id} completed from {ended:?}")
        })?;
        self.completed += 1;
        self.end(id, CheckpointOutcome::Completed(id))?;
        let is_announced = kind.checkpoint_type() != CheckpointType::Savepoint;
        if is_announced && self.announced < Some(id) {
            self.to_announce = Some(id);
        }
        Ok(())
    }

    fn abort(
        &mut self,
        id: CheckpointId,
        kind: RequestKind,
        reason: CheckpointFailureReason,
    ) -> Result<(), Broken> {
        let Some((asked, phase)) = self.in_flight.remove(&id) else {
            return Err(format!("{id} aborted and not in flight"));
        };
        let is_right = match phase {
            Phase::Collecting => true,
            Phase::Committing => false,
            Phase::Reported(result) => result == Err(reason),
        };
        ensure(is_right && asked == kind, || format!("{id} aborted by {reason} in {phase:?}"))?;
        let is_subsumed = reason == CheckpointFailureReason::CheckpointSubsumed;
        ensure(!(is_subsumed && kind.is_savepoint()), || format!("savepoint {id} subsumed"))?;
        self.failed += 1;
        self.to_notify = Some((id, reason));
        self.end(id, CheckpointOutcome::Failed { id: Some(id), reason })
    }

    fn end(&mut self, id: CheckpointId, outcome: CheckpointOutcome) -> Result<(), Broken> {
        let before = self.outcomes.insert(id, outcome);
        ensure(before.is_none(), || format!("{id} ended twice: {before:?}, {outcome:?}"))
    }

    /// Every event was taken: nothing is left to be announced, and the counts add up.
    pub(super) fn settled(&self, counts: &Counts) -> Result<(), Broken> {
        ensure(self.to_announce.is_none() && self.to_notify.is_none(), || {
            format!("not announced: {:?}, {:?}", self.to_announce, self.to_notify)
        })?;
        let in_progress = u64::try_from(self.in_flight.len()).unwrap_or(u64::MAX);
        let found = (counts.completed, counts.failed, counts.in_progress, counts.restored);
        let expected = (self.completed, self.failed, in_progress, self.restored);
        ensure(found == expected, || format!("counts are {counts:?}, seen was {expected:?}"))?;
        let total = counts.in_progress + counts.completed + counts.failed;
        ensure(counts.total == total, || format!("{counts:?} do not add up"))
    }

    /// After the shutdown and the last commit: nobody and nothing is left, and every promise holds
    /// the truth. `refused` requests of users never reached the coordinator.
    pub(super) fn ended(
        &self,
        answers: &[Option<CheckpointOutcome>],
        refused: u64,
    ) -> Result<(), Broken> {
        let left = (&self.in_flight, &self.commits, &self.inside);
        ensure(self.in_flight.is_empty() && self.commits.is_empty(), || format!("{left:?}"))?;
        ensure(self.inside.is_empty(), || format!("states are left: {:?}", self.inside))?;
        let mut told = BTreeSet::new();
        for answer in answers {
            let outcome = answer.ok_or("a request was never answered")?;
            let id = match outcome {
                CheckpointOutcome::Completed(id) => Some(id),
                CheckpointOutcome::Failed { id, .. } => id,
            };
            let Some(id) = id else { continue };
            let truth = self.outcomes.get(&id);
            ensure(truth == Some(&outcome), || format!("told {outcome:?}, true is {truth:?}"))?;
            ensure(told.insert(id), || format!("{id} answers two requests"))?;
        }
        let asked = u64::try_from(answers.len()).unwrap_or(u64::MAX);
        let seen = self.manual.saturating_add(refused);
        ensure(asked == seen, || format!("{asked} requests were made, {seen} were seen"))
    }
}
