//! Plays a case through the coordinator under a virtual clock.
//!
//! Owns the tasks (which acknowledge or decline when the case says so), a store whose commits take
//! no time, and the time. At one millisecond the order is: attempts that end, by id; expiries;
//! requests that waited; requests of users; the timer. Never decides what the coordinator decides,
//! and reads no clock. What the coordinator must never do is `Internal`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::case::{PolicyAttempt, PolicyCase, PolicyRequest};
use super::report::{PolicyEvent, PolicyEventKind, PolicySummary, SimulatedPolicy};
use crate::coordinator::{Acknowledged, Commit, Coordinator, CoordinatorHandle, Event};
use crate::error::{Error, Result};
use crate::ids::CheckpointId;
use crate::limits::SIMULATED_FIRINGS_MAX;
use crate::message::CheckpointFailureReason;

/// More than one acknowledgement word's worth.
const TASKS: u32 = 35;
/// The task that declines, and those that acknowledge before and after it.
const DECLINING: u32 = 3;
const BEFORE: u32 = 7;
const AFTER: u32 = 5;

/// Times at which something happens for each planned firing or request: that one, a firing that was
/// moved forward, and the end of a checkpoint for each. A play that takes more is given up.
const TURNS_PER_FIRING: u64 = 4;

/// What the coordinator does with a checkpoint policy: plays `case` to its end.
///
/// The same case gives the same result. Commits take no time, and nothing is deleted.
///
/// ```
/// use tidegate::inspect::{PolicyAttempt, PolicyCase, PolicyConfig, simulate};
///
/// let mut config = PolicyConfig::new(1_000);
/// config.min_pause_ms = 800;
/// let case = PolicyCase::new("slow disk", config, vec![PolicyAttempt::Complete(900)]);
/// let simulated = simulate(case)?;
/// assert_eq!(simulated.summary.longest_gap_ms, Some(1_700));
/// println!("{simulated}");
/// # Ok::<_, tidegate::Error>(())
/// ```
///
/// # Errors
/// `Invalid`, with the key, for a case without attempts, times of zero or a number of concurrent
/// checkpoints out of bounds, for more than 4096 requests at one time, and for a case in which the
/// timer would fire more than a million times. `Internal` when the coordinator breaks a promise.
pub fn simulate(case: PolicyCase) -> Result<SimulatedPolicy> {
    case.check()?;
    let events = Replay::new(&case)?.run()?;
    let summary = PolicySummary::of(&events);
    Ok(SimulatedPolicy { case, events, summary })
}

/// How a checkpoint that does not hang ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Complete,
    Decline,
}

/// The tasks, the store and the clock around one coordinator.
struct Replay<'a> {
    case: &'a PolicyCase,
    coordinator: Coordinator<u64>,
    handle: CoordinatorHandle<u64>,
    now_ms: u64,
    /// When which checkpoint ends, and how.
    ends: BTreeMap<(u64, CheckpointId), End>,
    /// Commits that the store has done and not reported.
    committed: Vec<CheckpointId>,
    events: Vec<PolicyEvent>,
    /// States that went in and have not come out.
    states: u64,
    job_failed: bool,
}

impl<'a> Replay<'a> {
    fn new(case: &'a PolicyCase) -> Result<Self> {
        let settings = case.config.settings();
        let mut coordinator =
            Coordinator::new(settings, TASKS, CheckpointId(1), None, Arc::new(|| {}))?;
        coordinator.start_periodic(Duration::ZERO, Duration::from_millis(case.first_trigger_ms));
        let handle = coordinator.handle();
        Ok(Self {
            case,
            coordinator,
            handle,
            now_ms: 0,
            ends: BTreeMap::new(),
            committed: Vec::new(),
            events: Vec::new(),
            states: 0,
            job_failed: false,
        })
    }

    fn run(mut self) -> Result<Vec<PolicyEvent>> {
        let mut requests: Vec<PolicyRequest> = self.case.requests.clone();
        // Stable: at one time in the order of the case.
        requests.sort_by_key(|request| request.at_ms);
        let asked = u64::try_from(requests.len()).unwrap_or(u64::MAX);
        let most_turns =
            SIMULATED_FIRINGS_MAX.saturating_add(asked).saturating_mul(TURNS_PER_FIRING);
        let mut requests = requests.into_iter().peekable();
        let mut turns = 0;
        while !self.job_failed {
            let request = requests.peek().map(|request| request.at_ms);
            let Some(next_ms) = self.next_ms(request) else { break };
            turns += 1;
            if turns > most_turns {
                return Err(Error::invalid(format!("until_ms: it takes more than {turns} steps")));
            }
            self.promise(next_ms >= self.now_ms, "time goes back")?;
            self.now_ms = next_ms;
            self.end_attempts()?;
            if self.job_failed {
                break;
            }
            while let Some(request) = requests.next_if(|request| request.at_ms == next_ms) {
                let _outcome = self.handle.submit(request.kind.checkpoint_type());
            }
            self.coordinator.step(Duration::from_millis(next_ms), next_ms);
            self.drain()?;
        }
        self.check_statistics()?;
        Ok(self.events)
    }

    /// When something happens next, if anything does within the case.
    fn next_ms(&self, request: Option<u64>) -> Option<u64> {
        // What lies beyond the range of milliseconds lies beyond the case.
        let deadline = self.coordinator.next_deadline();
        let deadline = deadline.and_then(|at| u64::try_from(at.as_millis()).ok());
        let end = self.ends.keys().next().map(|&(at_ms, _)| at_ms);
        let next_ms = [deadline, end, request].into_iter().flatten().min()?;
        (next_ms <= self.case.until_ms).then_some(next_ms)
    }

    /// The attempts that end now, by id, each with its consequences.
    fn end_attempts(&mut self) -> Result<()> {
        while let Some(entry) = self.ends.first_entry()
            && entry.key().0 == self.now_ms
            && !self.job_failed
        {
            let ((_, id), end) = entry.remove_entry();
            match end {
                End::Complete => {
                    (0..TASKS).rev().try_for_each(|task| self.acknowledge(id, task))?;
                }
                End::Decline => {
                    self.acknowledge(id, BEFORE)?;
                    let reason = CheckpointFailureReason::CheckpointDeclined;
                    self.handle.decline(id, DECLINING, reason);
                    let again = self.handle.decline(id, DECLINING + 1, reason);
                    self.promise(!again, "a second decline decided")?;
                    self.acknowledge(id, AFTER)?;
                }
            }
            self.settle()?;
        }
        Ok(())
    }

    fn acknowledge(&mut self, id: CheckpointId, task: u32) -> Result<()> {
        match self.handle.acknowledge(id, task, id.0) {
            Acknowledged::Accepted => {
                self.states = self.states.saturating_add(1);
                Ok(())
            }
            Acknowledged::Late(state) => self.promise(state == id.0, "a state was exchanged"),
            Acknowledged::Duplicate(_) | Acknowledged::Unknown(_) => {
                self.promise(false, "a first acknowledgement was taken for another")
            }
        }
    }

    fn settle(&mut self) -> Result<()> {
        let now = Duration::from_millis(self.now_ms);
        self.coordinator.settle(now);
        self.drain()?;
        for id in std::mem::take(&mut self.committed) {
            self.handle.commit_finished(id, Ok(()));
            self.coordinator.settle(now);
            self.drain()?;
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<()> {
        while let Some(event) = self.coordinator.next_event() {
            self.promise(!self.job_failed, "something happened after the job failed")?;
            self.take(event)?;
        }
        Ok(())
    }

    fn take(&mut self, event: Event<u64>) -> Result<()> {
        match event {
            Event::Trigger { barrier, kind, .. } => {
                let id = barrier.id;
                self.promise(barrier.timestamp_ms == self.now_ms, "a barrier has another time")?;
                self.plan_end(id);
                self.record(PolicyEventKind::Triggered { id, kind });
            }
            Event::Commit(commit) => self.commit(&commit)?,
            Event::Completed { id, .. } => self.record(PolicyEventKind::Completed { id }),
            Event::Aborted { id, reason, declined_by, .. } => {
                let is_declined = reason == CheckpointFailureReason::CheckpointDeclined;
                let by = is_declined.then_some(DECLINING);
                self.promise(declined_by == by, "another task declined")?;
                self.record(match reason {
                    CheckpointFailureReason::CheckpointDeclined => PolicyEventKind::Declined { id },
                    CheckpointFailureReason::CheckpointExpired => PolicyEventKind::Expired { id },
                    CheckpointFailureReason::CheckpointSubsumed => PolicyEventKind::Subsumed { id },
                    other => return self.promise(false, &format!("{id} was aborted by {other}")),
                });
            }
            Event::Rejected { kind, reason } => {
                self.record(PolicyEventKind::Rejected { kind, reason });
            }
            Event::Discard { id, state, .. } => {
                self.promise(state == id.0 && self.states > 0, "a state was exchanged")?;
                self.states = self.states.saturating_sub(1);
            }
            Event::JobFailed { .. } => {
                self.record(PolicyEventKind::JobFailed);
                self.job_failed = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn plan_end(&mut self, id: CheckpointId) {
        let (after_ms, end) = match self.case.attempt(id.0.saturating_sub(1)) {
            Some(PolicyAttempt::Complete(ms)) => (ms, End::Complete),
            Some(PolicyAttempt::Decline(ms)) => (ms, End::Decline),
            Some(PolicyAttempt::Hang) | None => return,
        };
        if let Some(at_ms) = self.now_ms.checked_add(after_ms) {
            self.ends.insert((at_ms, id), end);
        }
    }

    fn commit(&mut self, commit: &Commit<u64>) -> Result<()> {
        let every_task = (0..TASKS).map(|task| (task, commit.id.0));
        let all = commit.acknowledged.iter().copied().eq(every_task);
        self.promise(all && self.states >= u64::from(TASKS), "a commit lacks a state")?;
        self.states = self.states.saturating_sub(u64::from(TASKS));
        self.committed.push(commit.id);
        Ok(())
    }

    fn record(&mut self, what: PolicyEventKind) {
        self.events.push(PolicyEvent { at_ms: self.now_ms, what });
    }

    /// The counts say what the events said, and no state is lost.
    fn check_statistics(&self) -> Result<()> {
        let seen = PolicySummary::of(&self.events).checkpoints;
        let failed = seen.declined + seen.expired + seen.subsumed;
        let counts = self.handle.counts();
        let told = (counts.total, counts.completed, counts.failed);
        self.promise(told == (seen.triggered, seen.completed, failed), "the counts are wrong")?;
        let open = counts.total.checked_sub(counts.completed.saturating_add(counts.failed));
        self.promise(open == Some(counts.in_progress), "the counts do not add up")?;
        self.promise(self.states == 0, "states were neither committed nor discarded")
    }

    fn promise(&self, holds: bool, broken: &str) -> Result<()> {
        if holds {
            return Ok(());
        }
        let (case, now_ms) = (&self.case.case, self.now_ms);
        Err(Error::internal(format!("case {case:?} at {now_ms} ms: {broken}")))
    }
}
