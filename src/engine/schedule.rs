//! The scheduler thread: a loop around the coordinator that parks until the next deadline.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use crossbeam::queue::ArrayQueue;

use crate::catalog::{Checkpoints, Retention, TaskSnapshot};
use crate::clock::Clock;
use crate::coordinator::{Coordinator, CoordinatorSettings, Event, Signal, TaskState};
use crate::engine::Host;
use crate::engine::commit::{CommitOrder, Committer};
use crate::engine::statistics::{Desk, Writing};
use crate::engine::trace;
use crate::engine::trial::Trial;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, TaskId};
use crate::message::{Barrier, CheckpointFailureReason, Notification};
use crate::task::ActiveCheckpoints;

/// What the host changes while the engine runs; applied by the scheduler thread, in order.
#[derive(Debug)]
pub(super) enum Command {
    Update(CoordinatorSettings),
    StartPeriodic,
    StopPeriodic,
    Backlog { source: u32, has_backlog: bool },
    TaskState { task: u32, state: TaskState },
}

/// Commands on their way to the scheduler thread; more than a host gives between two looks.
pub(super) type Commands = Arc<ArrayQueue<Command>>;

/// The most commands that wait.
pub(super) const COMMANDS_MAX: usize = 64 * 1024;

/// Everything that the threads need, before they run.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) coordinator: Coordinator<TaskSnapshot>,
    pub(super) tasks: Vec<TaskId>,
    pub(super) checkpoints: Checkpoints,
    pub(super) restored: Option<CheckpointId>,
    pub(super) retention: Retention,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) commands: Commands,
    pub(super) trial: Arc<Trial>,
    pub(super) writing: Writing,
}

/// The running threads; the scheduler ends after a shutdown, the committer after the scheduler.
pub(super) struct Threads {
    scheduler: thread::JoinHandle<()>,
    committer: thread::JoinHandle<()>,
    /// Closed when both have ended.
    ended: Receiver<()>,
}

impl Threads {
    /// Waits until both ended, but no longer than `patience`; they end by themselves then. True when
    /// they have.
    pub(super) fn join(self, patience: Option<Duration>) -> bool {
        if let Some(patience) = patience
            && self.ended.recv_timeout(patience).is_err_and(|error| error.is_timeout())
        {
            return false;
        }
        let _panicked = self.scheduler.join();
        let _panicked = self.committer.join();
        true
    }
}

impl Prepared {
    pub(super) fn start(
        mut self,
        host: Arc<dyn Host>,
        signal: Signal,
        active: Arc<ActiveCheckpoints>,
    ) -> Result<Threads> {
        // At most `max_concurrent` checkpoints and the forced savepoints are ever handed out.
        let most = self.coordinator.settings().max_concurrent;
        let most = usize::try_from(most + crate::limits::FORCED_SAVEPOINT_SLOTS);
        let (orders, ordered) = bounded(most.unwrap_or(usize::MAX));
        // Ids only, at most as many as were completed.
        let (subsumed, subsumed_ids) = unbounded();
        let (ends, ended) = bounded::<()>(0);
        let (opened_at, attempt) = (self.writing.opened_at, self.writing.attempt);
        let desk = self.writing.begin(self.tasks.as_slice().into(), self.clock.wall_ms())?;
        let handle = self.coordinator.handle();
        if let Some(id) = self.restored {
            self.coordinator.restored(id);
        }
        let clock = Arc::clone(&self.clock);
        let committer = Committer {
            tasks: self.tasks,
            checkpoints: self.checkpoints,
            retention: self.retention,
            clock: Arc::clone(&clock),
            active: Arc::clone(&active),
            handle,
            trial: self.trial,
            subsumed,
            signal: signal.clone(),
        };
        let commit_ends = ends.clone();
        let committer = spawn("tidegate-commit", move || {
            committer.run(&ordered);
            drop(commit_ends);
        })?;
        let scheduler = Scheduler {
            coordinator: self.coordinator,
            clock: self.clock,
            host,
            signal,
            active,
            commands: self.commands,
            orders,
            subsumed: subsumed_ids,
            barriers: BTreeMap::new(),
            desk,
            events: Vec::new(),
        };
        let scheduler = spawn("tidegate-scheduler", move || {
            scheduler.run();
            drop(ends);
        })?;
        trace::initialized(attempt, self.restored, clock.now().saturating_sub(opened_at));
        Ok(Threads { scheduler, committer, ended })
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<thread::JoinHandle<()>> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|error| Error::io(format!("start the thread {name}"), error))
}

struct Scheduler {
    coordinator: Coordinator<TaskSnapshot>,
    clock: Arc<dyn Clock>,
    host: Arc<dyn Host>,
    signal: Signal,
    active: Arc<ActiveCheckpoints>,
    commands: Commands,
    orders: Sender<CommitOrder>,
    subsumed: Receiver<CheckpointId>,
    /// Barriers of checkpoints that have no outcome yet.
    barriers: BTreeMap<CheckpointId, Barrier>,
    desk: Desk,
    /// Events that were observed and are to be handled; empty between steps.
    events: Vec<Event<TaskSnapshot>>,
}

impl Scheduler {
    fn run(mut self) {
        self.signal.bind();
        self.start_periodic();
        loop {
            while let Some(command) = self.commands.pop() {
                self.apply(command);
            }
            self.desk.take_reports(self.clock.wall_ms());
            self.coordinator.step(self.clock.now(), self.clock.wall_ms());
            self.take_events();
            let given_up: Vec<_> = self.subsumed.try_iter().collect();
            for &id in &given_up {
                self.desk.discarded(id);
            }
            self.desk.publish();
            for id in given_up {
                self.host.notify(Notification::Subsumed { id });
            }
            if self.coordinator.is_shut_down() && self.coordinator.in_flight() == 0 {
                return;
            }
            let now = self.clock.now();
            let wait = self.coordinator.next_deadline().map(|at| at.saturating_sub(now));
            self.signal.wait(wait);
        }
    }

    fn start_periodic(&mut self) {
        // The standard library seeds each `RandomState` from the system.
        let random = RandomState::new().build_hasher().finish();
        let delay = self.coordinator.settings().initial_delay(random);
        self.coordinator.start_periodic(self.clock.now(), delay);
    }

    fn apply(&mut self, command: Command) {
        let now = self.clock.now();
        let applied = match command {
            Command::Update(settings) => self.coordinator.update_settings(settings, now),
            Command::TaskState { task, state } => self.coordinator.set_task_state(task, state),
            Command::StartPeriodic => {
                self.start_periodic();
                Ok(())
            }
            Command::StopPeriodic => {
                self.coordinator.stop_periodic();
                Ok(())
            }
            Command::Backlog { source, has_backlog } => {
                self.coordinator.set_backlog(source, has_backlog, now);
                Ok(())
            }
        };
        if let Err(error) = applied {
            tracing::error!(%error, "a command that was checked before was refused");
        }
    }

    /// What happened is in the statistics before the host, the commit thread or who waits for a request
    /// learn of it.
    fn take_events(&mut self) {
        loop {
            let wall_ms = self.clock.wall_ms();
            while let Some(event) = self.coordinator.next_event() {
                if let Event::Completed { id, .. } = &event
                    && let Some(pointer) = self.active.external_pointer(*id)
                {
                    self.desk.located(*id, pointer);
                }
                self.desk.observe(&event, wall_ms);
                self.events.push(event);
            }
            self.desk.publish();
            self.coordinator.answer();
            if self.events.is_empty() {
                return;
            }
            // Handling may bring new events, which belong behind these.
            let mut events = std::mem::take(&mut self.events);
            events.drain(..).for_each(|event| self.handle(event));
            self.events = events;
        }
    }

    fn handle(&mut self, event: Event<TaskSnapshot>) {
        match event {
            Event::Trigger { barrier, target, .. } => {
                self.barriers.insert(barrier.id, barrier);
                self.active.insert(barrier.id, target);
                self.host.trigger(barrier);
            }
            Event::Commit(commit) => {
                let id = commit.id;
                let Some(barrier) = self.barriers.get(&id).copied() else { return };
                let duration_ms = self.clock.wall_ms().saturating_sub(barrier.timestamp_ms);
                let order = CommitOrder { commit, barrier, duration_ms };
                if self.orders.send(order).is_err() {
                    let reason = CheckpointFailureReason::FinalizeCheckpointFailure;
                    self.coordinator.handle().commit_finished(id, Err(reason));
                }
            }
            Event::Completed { id, .. } | Event::Aborted { id, .. } => self.ended(id),
            Event::Notify(notification) => self.host.notify(notification),
            // What no commit record names is garbage in every storage.
            Event::Rejected { .. } | Event::Discard { .. } => {}
            Event::JobFailed { reason } => {
                self.coordinator.suspend(CheckpointFailureReason::JobFailoverRegion);
                let message =
                    format!("more checkpoints failed than the job tolerates, the last: {reason}");
                self.host.fail(Error::new(ErrorKind::Unavailable, message));
            }
        }
    }

    fn ended(&mut self, id: CheckpointId) {
        self.barriers.remove(&id);
        self.active.remove(id);
    }
}
