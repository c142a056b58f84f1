//! The driver's side: what to do next, given the time and what the handles left.
//!
//! The work of one step, in an order that the recorded runs of Flink fix: checkpoints that ended, by
//! id; expiries, by id; requests that waited for a place; new requests, in order; the timer.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use crate::coordinator::decider::{Decision, Facts, RequestDecider};
use crate::coordinator::event::{Event, RequestKind};
use crate::coordinator::failure::{Failure, FailurePolicy, Verdict};
use crate::coordinator::handle::CoordinatorHandle;
use crate::coordinator::lease::Leases;
use crate::coordinator::pending::{Pending, Phase};
use crate::coordinator::queue::{Request, RequestQueue};
use crate::coordinator::settings::CoordinatorSettings;
use crate::coordinator::shared::{CommitResult, Shared, WakeHook};
use crate::coordinator::slots::{self, Cause, Status};
use crate::coordinator::timer::PeriodicTimer;
use crate::coordinator::trigger::CheckpointOutcome;
use crate::error::{Error, Result};
use crate::ids::CheckpointId;
use crate::limits::{COORDINATED_TASKS_MAX, FORCED_SAVEPOINT_SLOTS};
use crate::message::{Barrier, CheckpointFailureReason, CheckpointType, Notification};
use crate::sync::Arc;

/// Whether checkpoints may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// The job runs.
    Running,
    /// The job is beyond its tolerance and the host has not reacted yet: requests wait.
    Failing,
    /// The job does not run: requests are refused.
    Suspended,
    /// The coordinator was shut down: requests are refused for good.
    ShutDown,
}

/// Decides when checkpoints start and how they end (Flink: `CheckpointCoordinator`).
///
/// Owned by one thread. The host calls [`step`](Self::step) when the wake hook was called or
/// [`next_deadline`](Self::next_deadline) has come, then takes every [`Event`].
pub struct Coordinator<S> {
    shared: Arc<Shared<S>>,
    settings: CoordinatorSettings,
    mode: Mode,
    timer: PeriodicTimer,
    queue: RequestQueue,
    failures: FailurePolicy,
    pending: BTreeMap<CheckpointId, Pending<S>>,
    leases: Leases,
    events: VecDeque<Event<S>>,
    next_id: CheckpointId,
    /// The newest completed checkpoint that a job restarts from; plain savepoints are not.
    latest_completed: Option<CheckpointId>,
    /// When anything completed last, savepoints included.
    last_completion: Option<Duration>,
    cleaning: u32,
    wall_ms: u64,
}

impl<S: Send> Coordinator<S> {
    /// A coordinator for tasks numbered `0..tasks`, all of which acknowledge each checkpoint. The
    /// first checkpoint has the id `next_id`, or 1 if that is zero. Periodic checkpoints start with
    /// [`start_periodic`](Self::start_periodic).
    ///
    /// # Errors
    /// `Invalid` for no task, for more than [`COORDINATED_TASKS_MAX`], for a period or timeout of
    /// zero, and for a number of concurrent checkpoints that is zero or too large.
    pub fn new(
        settings: CoordinatorSettings,
        tasks: u32,
        next_id: CheckpointId,
        latest_completed: Option<CheckpointId>,
        wake: WakeHook,
    ) -> Result<Self> {
        settings.check()?;
        let slots = settings
            .max_concurrent
            .saturating_add(FORCED_SAVEPOINT_SLOTS);
        Self::with_slots(slots, settings, tasks, next_id, latest_completed, wake)
    }

    pub(super) fn with_slots(
        slots: u32,
        settings: CoordinatorSettings,
        tasks: u32,
        next_id: CheckpointId,
        latest_completed: Option<CheckpointId>,
        wake: WakeHook,
    ) -> Result<Self> {
        if tasks == 0 || tasks > COORDINATED_TASKS_MAX {
            return Err(Error::invalid(format!(
                "{tasks} tasks, allowed are 1 to {COORDINATED_TASKS_MAX}"
            )));
        }
        let slots = usize::try_from(slots).unwrap_or(usize::MAX);
        Ok(Self {
            shared: Arc::new(Shared::new(slots, tasks, wake)),
            mode: Mode::Running,
            timer: PeriodicTimer::new(settings.effective_period()),
            queue: RequestQueue::default(),
            failures: FailurePolicy::new(settings.tolerable_failures),
            pending: BTreeMap::new(),
            leases: Leases::new(slots),
            events: VecDeque::new(),
            next_id,
            latest_completed,
            last_completion: None,
            cleaning: 0,
            wall_ms: 0,
            settings,
        })
    }

    /// A handle for other threads.
    pub fn handle(&self) -> CoordinatorHandle<S> {
        CoordinatorHandle::new(Arc::clone(&self.shared))
    }

    /// The settings in force.
    pub fn settings(&self) -> &CoordinatorSettings {
        &self.settings
    }

    /// The job runs: periodic checkpoints start, the first after `initial_delay`.
    pub fn start_periodic(&mut self, now: Duration, initial_delay: Duration) {
        self.resume();
        if self.mode == Mode::Running {
            self.timer.start(now.saturating_add(initial_delay));
        }
    }

    /// Periodic checkpoints stop; a periodic request that waits is refused.
    pub fn stop_periodic(&mut self) {
        self.timer.stop();
        if let Some(request) = self.queue.pop_periodic() {
            self.reject(request, CheckpointFailureReason::PeriodicSchedulerShutdown);
        }
    }

    /// The job runs: requests are taken again after a suspension or after the job failed.
    pub fn resume(&mut self) {
        if self.mode != Mode::ShutDown {
            self.mode = Mode::Running;
        }
    }

    /// The job does not run: periodic checkpoints stop, queued requests and pending checkpoints fail
    /// by `reason`, and requests are refused until the job runs again. Commits under way go on.
    pub fn suspend(&mut self, reason: CheckpointFailureReason) {
        if self.mode == Mode::ShutDown {
            return;
        }
        self.mode = Mode::Suspended;
        self.timer.stop();
        while let Some(request) = self.shared.requests.pop() {
            self.reject(request, reason);
        }
        while let Some(request) = self.queue.pop() {
            self.reject(request, reason);
        }
        self.abort_pending(reason);
    }

    /// Fails every checkpoint that has not been acknowledged by all tasks.
    pub fn abort_pending(&mut self, reason: CheckpointFailureReason) {
        self.end_collecting(|_, _| true, reason);
    }

    /// Changes the settings: the timer and the limits at once, the rest for checkpoints to come.
    /// There are places for 32 more than the first `max_concurrent`; requests beyond them wait.
    ///
    /// # Errors
    /// `Invalid` as for [`new`](Self::new); nothing has changed then.
    pub fn update_settings(&mut self, settings: CoordinatorSettings, now: Duration) -> Result<()> {
        settings.check()?;
        self.timer.set_period(settings.effective_period(), now);
        self.failures.set_tolerable(settings.tolerable_failures);
        self.settings = settings;
        self.shared.notify();
        Ok(())
    }

    /// How many checkpoints are being deleted. While there are more than may be in flight, nothing
    /// starts, not even a forced savepoint.
    pub fn set_cleaning(&mut self, running: u32) {
        self.cleaning = running;
        self.shared.notify();
    }

    /// The job was restored from a completed checkpoint.
    pub fn restored(&mut self, id: CheckpointId) {
        self.shared.statistics.restored();
        self.latest_completed = self.latest_completed.max(Some(id));
    }

    /// How many commits were handed out whose result has not been taken in.
    pub fn committing(&self) -> usize {
        self.pending
            .values()
            .filter(|pending| !pending.is_collecting())
            .count()
    }

    /// When [`step`](Self::step) has something to do even if nobody calls the wake hook.
    pub fn next_deadline(&self) -> Option<Duration> {
        let collecting = self
            .pending
            .values()
            .filter(|pending| pending.is_collecting());
        collecting
            .map(|pending| pending.deadline)
            .chain(self.timer.next())
            .min()
    }

    /// The oldest event that was not taken yet.
    pub fn next_event(&mut self) -> Option<Event<S>> {
        self.events.pop_front()
    }

    /// Does everything that is due at `now`; `wall_ms` becomes the timestamp of barriers.
    pub fn step(&mut self, now: Duration, wall_ms: u64) {
        self.wall_ms = wall_ms;
        self.settle(now);
        if self.mode != Mode::ShutDown && self.shared.is_closed() {
            self.suspend(CheckpointFailureReason::CheckpointCoordinatorShutdown);
            self.mode = Mode::ShutDown;
        }
        if self.mode == Mode::Running {
            self.expire(now);
        }
        self.start_queued(now);
        self.take_requests(now);
        self.fire_timer(now);
    }

    /// The first part of a step: takes in what tasks and commits have said, whatever the time. A
    /// host whose commits take no time calls it again after each of them.
    pub fn settle(&mut self, now: Duration) {
        self.shared.look();
        while let Some(CommitResult { id, result }) = self.shared.results.pop() {
            self.finish_commit(id, result, now);
        }
        let collecting = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.is_collecting());
        let statuses =
            collecting.map(|(&id, pending)| (id, self.shared.slots.status(pending.slot)));
        let statuses: Vec<_> = statuses.collect();
        // After the statuses: what a countdown of zero counted is in the queue by then.
        self.take_reports();
        for (id, status) in statuses {
            match status {
                Status::Pending => {}
                Status::Acknowledged => self.hand_out_commit(id, now),
                Status::Failed(cause) => self.abort(id, cause),
            }
        }
    }

    fn take_reports(&mut self) {
        while let Some(report) = self.shared.reports.pop() {
            self.leases.taken(report.slot);
            match self.pending.get_mut(&report.id) {
                Some(pending) if pending.is_collecting() => {
                    pending.states.push((report.task, report.state));
                }
                _ => self.events.push_back(Event::Discard {
                    id: report.id,
                    task: report.task,
                    state: report.state,
                }),
            }
        }
    }

    fn hand_out_commit(&mut self, id: CheckpointId, now: Duration) {
        if let Some(pending) = self.pending.get_mut(&id) {
            let commit = pending.commit(id, now);
            self.events.push_back(Event::Commit(commit));
        }
    }

    fn finish_commit(
        &mut self,
        id: CheckpointId,
        result: Result<(), CheckpointFailureReason>,
        now: Duration,
    ) {
        if self.pending.get(&id).is_none_or(Pending::is_collecting) {
            return;
        }
        match result {
            Ok(()) => self.complete(id, now),
            Err(reason) => self.abort(id, Cause { reason, task: None }),
        }
    }

    fn complete(&mut self, id: CheckpointId, now: Duration) {
        let Some(mut pending) = self.remove(id) else {
            return;
        };
        let duration = pending.duration();
        self.shared.statistics.completed(id, duration);
        self.failures.succeeded(id);
        self.last_completion = Some(now);
        self.events.push_back(Event::Completed {
            id,
            kind: pending.kind,
            duration,
        });
        // A plain savepoint is the user's: tasks commit nothing for it and it subsumes nothing.
        if pending.kind.checkpoint_type() != CheckpointType::Savepoint {
            // A commit that came after a newer one is no news.
            if self.latest_completed < Some(id) {
                self.latest_completed = Some(id);
                self.events
                    .push_back(Event::Notify(Notification::Completed { id }));
            }
            let is_older = |other: CheckpointId, pending: &Pending<S>| {
                other < id && !pending.kind.is_savepoint()
            };
            self.end_collecting(is_older, CheckpointFailureReason::CheckpointSubsumed);
        }
        if let Some(promise) = pending.promise.take() {
            promise.complete(CheckpointOutcome::Completed(id));
        }
    }

    fn expire(&mut self, now: Duration) {
        let is_due = |_, pending: &Pending<S>| pending.deadline <= now;
        self.end_collecting(is_due, CheckpointFailureReason::CheckpointExpired);
    }

    /// Fails the collecting checkpoints that `ends` selects, oldest first. One whose outcome was
    /// decided meanwhile is left to the next settling.
    fn end_collecting(
        &mut self,
        ends: impl Fn(CheckpointId, &Pending<S>) -> bool,
        reason: CheckpointFailureReason,
    ) {
        let ending = self
            .pending
            .iter()
            .filter(|(id, p)| p.is_collecting() && ends(**id, p));
        let ending: Vec<_> = ending.map(|(id, _)| *id).collect();
        let mode = self.mode;
        for id in ending {
            let cause = Cause { reason, task: None };
            // Once the job has failed, what else was due ends with the job.
            if self.mode == mode && self.shared.slots.fail(id, cause) {
                self.abort(id, cause);
            }
        }
    }

    /// The outcome is decided: this checkpoint failed.
    fn abort(&mut self, id: CheckpointId, cause: Cause) {
        let Some(mut pending) = self.remove(id) else {
            return;
        };
        let (kind, reason, declined_by) = (pending.kind, cause.reason, cause.task);
        self.shared.statistics.failed();
        self.events.push_back(Event::Aborted {
            id,
            kind,
            reason,
            declined_by,
        });
        for (task, state) in pending.states.drain(..) {
            self.events.push_back(Event::Discard { id, task, state });
        }
        let latest_completed = self.latest_completed;
        let aborted = Notification::Aborted {
            id,
            reason,
            latest_completed,
        };
        self.events.push_back(Event::Notify(aborted));
        self.judge(&Failure {
            id: Some(id),
            kind: kind.checkpoint_type(),
            reason,
            by_task: declined_by.is_some(),
        });
        if let Some(promise) = pending.promise.take() {
            promise.complete(CheckpointOutcome::Failed {
                id: Some(id),
                reason,
            });
        }
    }

    fn judge(&mut self, failure: &Failure) {
        if self.failures.failed(failure) == Verdict::FailJob && self.mode == Mode::Running {
            self.mode = Mode::Failing;
            self.events.push_back(Event::JobFailed {
                reason: failure.reason,
            });
        }
    }

    /// Takes a checkpoint out and closes its slot.
    fn remove(&mut self, id: CheckpointId) -> Option<Pending<S>> {
        let pending = self.pending.remove(&id)?;
        let claimed = self.shared.slots.close(pending.slot);
        self.leases.give_back(pending.slot, claimed);
        Some(pending)
    }

    fn take_requests(&mut self, now: Duration) {
        // While the job fails, requests stay where they are until the host has reacted.
        while self.mode != Mode::Failing
            && let Some(request) = self.shared.requests.pop()
        {
            match self.mode {
                Mode::Running | Mode::Failing => self.offer(request, now),
                Mode::Suspended => self.refuse(request),
                Mode::ShutDown => {
                    self.reject(
                        request,
                        CheckpointFailureReason::CheckpointCoordinatorShutdown,
                    );
                }
            }
        }
    }

    fn fire_timer(&mut self, now: Duration) {
        if self.mode == Mode::Running && self.timer.fire(now) && !self.queue.has_periodic() {
            self.offer(
                Request {
                    kind: RequestKind::Periodic,
                    promise: None,
                },
                now,
            );
        }
    }

    fn offer(&mut self, request: Request, now: Duration) {
        let forced = self.settings.is_forced(request.kind.checkpoint_type());
        match self.queue.push(request, forced) {
            Some(refused) => {
                self.reject(refused, CheckpointFailureReason::TooManyCheckpointRequests);
            }
            None => self.start_queued(now),
        }
    }

    /// Lets the decider see the head of the queue until it has to wait.
    fn start_queued(&mut self, now: Duration) {
        while self.mode == Mode::Running
            && let Some(head) = self.queue.head()
        {
            let facts = Facts {
                forced: head.is_forced(),
                periodic: head.periodic,
                pending: u32::try_from(self.pending.len()).unwrap_or(u32::MAX),
                max_concurrent: self.settings.max_concurrent,
                cleaning: self.cleaning,
                slot_free: self.leases.has_free(),
                min_pause: self.settings.min_pause,
                last_completion: self.last_completion,
                now,
            };
            let decision = RequestDecider::decide(&facts);
            if decision == Decision::Queue {
                return;
            }
            let Some(request) = self.queue.pop() else {
                return;
            };
            if let Decision::Drop { reason, retry_in } = decision {
                self.reject(request, reason);
                self.timer.rearm(now.saturating_add(retry_in));
            } else {
                self.start(request, now);
            }
        }
    }

    fn start(&mut self, request: Request, now: Duration) {
        let id = self.take_id();
        let slot = self.leases.take(self.shared.slots.home(id));
        let Some(slot) = slot.filter(|&slot| self.shared.slots.open(slot, id)) else {
            // The decider asked for a free slot and the driver alone opens them.
            self.reject(request, CheckpointFailureReason::TriggerCheckpointFailure);
            return;
        };
        self.shared.started(id);
        self.shared.statistics.started();
        let options = self
            .settings
            .barrier_options(request.kind.checkpoint_type());
        let barrier = Barrier {
            id,
            timestamp_ms: self.wall_ms,
            options,
        };
        self.events.push_back(Event::Trigger {
            barrier,
            kind: request.kind,
        });
        let pending = Pending {
            kind: request.kind,
            slot,
            phase: Phase::Collecting,
            triggered_at: now,
            timestamp_ms: self.wall_ms,
            deadline: now.saturating_add(self.settings.timeout),
            promise: request.promise,
            states: Vec::new(),
        };
        self.pending.insert(id, pending);
    }

    /// The next id. Those whose low half is zero stand for closed slots and are never used.
    fn take_id(&mut self) -> CheckpointId {
        if slots::tag(self.next_id).is_none() {
            self.next_id = self.next_id.next();
        }
        let id = self.next_id;
        self.next_id = id.next();
        id
    }

    /// A request that the policy refused: neither a failure nor counted.
    fn reject(&mut self, request: Request, reason: CheckpointFailureReason) {
        self.events.push_back(Event::Rejected {
            kind: request.kind,
            reason,
        });
        if let Some(promise) = request.promise {
            promise.complete(CheckpointOutcome::Failed { id: None, reason });
        }
    }

    /// A request that found no running tasks: a failure without an id.
    fn refuse(&mut self, request: Request) {
        let reason = CheckpointFailureReason::NotAllRequiredTasksRunning;
        self.shared.statistics.started();
        self.shared.statistics.failed();
        self.reject(request, reason);
    }
}

impl<S> Drop for Coordinator<S> {
    /// Nobody is left waiting: late acknowledgements are given back, promises say "shut down".
    fn drop(&mut self) {
        self.shared.close();
        self.shared.refuse_requests();
        for pending in self.pending.values() {
            self.shared.slots.close(pending.slot);
        }
    }
}

impl<S> fmt::Debug for Coordinator<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coordinator")
            .field("settings", &self.settings)
            .field("mode", &self.mode)
            .field("in_flight", &self.pending.keys())
            .field("next_id", &self.next_id)
            .finish_non_exhaustive()
    }
}
