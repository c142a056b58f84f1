//! The driver's side: what to do next, given the time and what the handles left.
//!
//! The work of one step, in an order that the recorded runs of Flink fix: checkpoints that ended, by
//! id; expiries, by id (both in `outcomes`); requests that waited for a place; new requests, in order;
//! the timer (in `starts`).

mod outcomes;
mod starts;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use crate::coordinator::event::Event;
use crate::coordinator::failure::FailurePolicy;
use crate::coordinator::handle::CoordinatorHandle;
use crate::coordinator::lease::Leases;
use crate::coordinator::pending::Pending;
use crate::coordinator::plan::{TaskState, TaskStates};
use crate::coordinator::queue::RequestQueue;
use crate::coordinator::settings::CoordinatorSettings;
use crate::coordinator::shared::{Shared, WakeHook};
use crate::coordinator::timer::PeriodicTimer;
use crate::coordinator::trigger::Answers;
use crate::error::{Error, Result};
use crate::ids::CheckpointId;
use crate::limits::{COORDINATED_TASKS_MAX, FORCED_SAVEPOINT_SLOTS};
use crate::message::CheckpointFailureReason;
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
    tasks: TaskStates,
    /// Sources that work off a backlog.
    backlogged: BTreeSet<u32>,
    /// Nothing may be reused before a checkpoint has completed.
    full_until_completed: bool,
    answers: Answers,
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
        if tasks == 0 || tasks > COORDINATED_TASKS_MAX {
            return Err(Error::invalid(format!(
                "{tasks} tasks, allowed are 1 to {COORDINATED_TASKS_MAX}"
            )));
        }
        let slots = settings.max_concurrent.saturating_add(FORCED_SAVEPOINT_SLOTS);
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
            tasks: TaskStates::new(tasks),
            backlogged: BTreeSet::new(),
            full_until_completed: false,
            answers: Answers::default(),
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
            self.shared.notify();
        }
    }

    /// The job does not run: periodic checkpoints stop, queued requests and pending checkpoints fail
    /// by `reason`, and requests are refused until the job runs again. Commits under way go on: who
    /// restores afterwards steps until nothing is [in flight](Self::in_flight).
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
        self.settings = settings;
        self.timer.set_period(self.period(), now);
        self.failures.set_tolerable(self.settings.tolerable_failures);
        self.shared.notify();
        Ok(())
    }

    /// A task has started, finished or not yet started. Until a first report all tasks run. Checkpoints
    /// in flight are not touched: who cannot take part in them declines.
    ///
    /// While a task that must take part is not running, requests are refused by
    /// [`NotAllRequiredTasksRunning`](CheckpointFailureReason::NotAllRequiredTasksRunning).
    ///
    /// # Errors
    /// `NotFound` when there is no such task.
    pub fn set_task_state(&mut self, task: u32, state: TaskState) -> Result<()> {
        self.tasks.set(task, state)
    }

    /// A source reports that it works off a backlog, or that it does so no longer (Flink:
    /// `setIsProcessingBacklog`). While one does, periodic checkpoints follow
    /// [`period_during_backlog`](CoordinatorSettings::period_during_backlog): the next one comes
    /// no later for it, and without a period it is the last one.
    pub fn set_backlog(&mut self, source: u32, has_backlog: bool, now: Duration) {
        if has_backlog {
            self.backlogged.insert(source);
        } else {
            self.backlogged.remove(&source);
        }
        self.timer.set_pace(self.period(), now);
        self.shared.notify();
    }

    /// Until the next checkpoint has completed every checkpoint is a full one: it may not refer to
    /// what the restored one wrote (Flink: the flag that `NO_CLAIM` sets).
    pub fn require_full_checkpoint(&mut self) {
        self.full_until_completed = true;
    }

    fn period(&self) -> Option<Duration> {
        if self.backlogged.is_empty() {
            self.settings.effective_period()
        } else {
            self.settings.period_during_backlog
        }
    }

    /// How many checkpoints are being deleted. While there are more than may be in flight, nothing
    /// starts, not even a forced savepoint.
    pub fn set_cleaning(&mut self, running: u32) {
        self.cleaning = running;
        self.shared.notify();
    }

    /// The job was restored from this completed checkpoint, the newest that it goes by from now on.
    pub fn restored(&mut self, id: CheckpointId) {
        self.shared.statistics.restored();
        self.latest_completed = Some(id);
    }

    /// How many checkpoints and savepoints have no outcome yet, commits under way included.
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// When [`step`](Self::step) has something to do even if nobody calls the wake hook.
    pub fn next_deadline(&self) -> Option<Duration> {
        if self.mode != Mode::Running {
            return None;
        }
        let collecting = self.pending.values().filter(|pending| pending.is_collecting());
        let expiries = collecting.map(|pending| pending.deadline);
        expiries.chain(self.timer.next()).min()
    }

    /// From here on nobody who waits for a request is told how it ended before
    /// [`answer`](Self::answer): a host that writes statistics shows them first.
    pub fn hold_answers(&mut self) {
        self.answers.hold();
    }

    /// Tells all who wait for requests that have ended.
    pub fn answer(&mut self) {
        self.answers.give();
    }

    /// The oldest event that was not taken yet.
    pub fn next_event(&mut self) -> Option<Event<S>> {
        self.events.pop_front()
    }

    /// True after a step that saw the shutdown.
    pub fn is_shut_down(&self) -> bool {
        self.mode == Mode::ShutDown
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
}

impl<S> Drop for Coordinator<S> {
    /// Nobody is left waiting: late acknowledgements are given back, promises say "shut down".
    fn drop(&mut self) {
        self.answers.give();
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
