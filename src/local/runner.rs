//! One attempt of a job: starts its threads, watches them, takes them down.
//!
//! A job finishes when a checkpoint that every task cut after its last record is completed and
//! every sink has committed it.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded, select, unbounded};

use crate::engine::{CheckpointOutcome, Engine, TriggerHandle};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, TaskId};
use crate::local::background::{Background, guard};
use crate::local::control::{CONTROL_CAPACITY, Control, Inbox};
use crate::local::end::End;
use crate::local::host::LocalHost;
use crate::local::job::JobInner;
use crate::local::node::{AttemptShared, Node, Role, TaskEnv, TaskEvent};
use crate::local::wiring::Wiring;
use crate::message::CheckpointRequest;
use crate::restore::RestorePolicy;
use crate::sync::{AtomicU64, Ordering};

/// How often a requested checkpoint is looked at.
const POLL: Duration = Duration::from_millis(20);

/// The pause before the last checkpoint is asked for again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// How often the runner looks round when nothing happens.
const IDLE: Duration = Duration::from_secs(60);

pub(super) enum AttemptEnd {
    Finished(CheckpointId),
    AlreadyFinished(String),
    Suspended(Option<CheckpointId>),
    /// With the savepoint that it was stopped with.
    Stopped(CheckpointId),
    /// With the savepoint that it was cancelled with.
    Canceled(Option<CheckpointId>),
}

/// Why an attempt failed.
pub(super) struct Failure {
    pub(super) error: Error,
    /// What decides about a restart.
    pub(super) kind: ErrorKind,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { kind: error.kind(), error }
    }
}

/// Runs the job once, from the checkpoint that the policy says to its end or first failure.
pub(super) fn run_attempt(
    job: &JobInner,
    policy: &mut RestorePolicy,
) -> Result<AttemptEnd, Failure> {
    let engine = job.open_engine(policy.clone()).map_err(|error| refusal(error, policy))?;
    let engine = Arc::new(engine);
    if engine.goes_on()
        && let Some(word) = engine.checkpoints().finish()
    {
        return Ok(AttemptEnd::AlreadyFinished(word));
    }
    job.shared.update(|progress| {
        progress.last_completed = progress.last_completed.max(engine.restored());
    });
    job.listener.restored(engine.report());
    // What fails outside before the first record says nothing about the state of the job.
    prepare(job, &engine).map_err(|error| failure(error, engine.record_lost()))?;
    run_on(job, &engine, policy).map_err(|error| {
        let recorded = engine.record_end(&error);
        failure(error, recorded)
    })
}

/// A checkpoint that is asked for by its name and is not there does not come by itself.
fn refusal(error: Error, policy: &RestorePolicy) -> Failure {
    let is_missing = error.kind() == ErrorKind::NotFound && !policy.goes_on();
    Failure { kind: if is_missing { ErrorKind::Invalid } else { error.kind() }, error }
}

fn failure(error: Error, recorded: Result<bool>) -> Failure {
    let falls_back = recorded.unwrap_or_else(|failed| {
        tracing::warn!(error = %failed, "how the attempt ended is not recorded");
        false
    });
    // With another checkpoint there is hope.
    Failure { kind: if falls_back { ErrorKind::Unavailable } else { error.kind() }, error }
}

/// Settles what an earlier attempt left outside, and makes the channels.
fn prepare(job: &JobInner, engine: &Engine) -> Result<()> {
    for node in &job.nodes {
        let spec = node.spec();
        if let Some(max) = engine.max_parallelism(&spec.uid) {
            spec.max_parallelism.adopt(max);
        }
        node.recover(engine, job.recovery)?;
        node.connect(job.exchange);
    }
    Ok(())
}

fn run_on(job: &JobInner, engine: &Arc<Engine>, policy: &mut RestorePolicy) -> Result<AttemptEnd> {
    let mut attempt = Attempt::new(job, Arc::clone(engine))?;
    attempt.start()?;
    let end = attempt.supervise();
    attempt.halt();
    // ORDERING: pairs with the store of the host, whose thread has ended.
    if attempt.shared.completed.load(Ordering::Acquire) > 0 && !policy.goes_on() {
        // What this run has completed is never passed over unread. Before that the policy stands: a
        // fresh start that fails must not come back with a checkpoint from before it.
        *policy = RestorePolicy::default();
    }
    end
}

struct Attempt<'j> {
    job: &'j JobInner,
    engine: Arc<Engine>,
    shared: Arc<AttemptShared>,
    events: Receiver<TaskEvent>,
    /// Dropping it halts every task.
    halt: Option<Sender<()>>,
    halted: Receiver<()>,
    wiring: Arc<Wiring>,
    inboxes: Vec<Receiver<Control>>,
    threads: Vec<JoinHandle<()>>,
    background: Background,
    watch: Watch,
    /// The listener knows how long the reading of state took.
    is_restore_told: bool,
}

/// What the runner has learned of the attempt.
#[derive(Default)]
struct Watch {
    tasks: usize,
    /// Tasks that have processed their last record.
    ended: usize,
    /// Tasks that were cut after that.
    ended_and_cut: usize,
    /// The first checkpoint that lies after the last record of every task seen so far.
    final_floor: CheckpointId,
    completed: Option<CheckpointId>,
    sinks: usize,
    committed: BTreeMap<TaskId, CheckpointId>,
    triggered_at: BTreeMap<CheckpointId, Duration>,
    hot_pauses: BTreeMap<CheckpointId, Duration>,
}

impl Watch {
    /// The completed checkpoint after the last record, once it is committed.
    fn finished(&self) -> Option<CheckpointId> {
        let id = self
            .completed
            .filter(|id| self.ended_and_cut == self.tasks && *id >= self.final_floor)?;
        self.is_committed(id).then_some(id)
    }

    fn is_committed(&self, id: CheckpointId) -> bool {
        self.committed.len() == self.sinks && self.committed.values().all(|done| *done >= id)
    }
}

impl<'j> Attempt<'j> {
    fn new(job: &'j JobInner, engine: Arc<Engine>) -> Result<Self> {
        let (tell, events) = unbounded();
        let (halt, halted) = bounded(1);
        let mut wiring = Wiring { lanes: Vec::new(), options: job.exchange };
        let mut inboxes = Vec::new();
        let mut watch = Watch::default();
        for node in &job.nodes {
            let spec = node.spec();
            let (lanes, ends): (Vec<_>, Vec<_>) =
                (0..spec.parallelism).map(|_| bounded(CONTROL_CAPACITY)).unzip();
            watch.tasks += lanes.len();
            if spec.role == Role::Sink {
                watch.sinks += lanes.len();
            }
            wiring.lanes.push(lanes);
            inboxes.extend(ends);
        }
        let background = Background::start(inboxes.len(), &tell)?;
        let shared = AttemptShared {
            clock: Arc::clone(&job.clock),
            config: job.shared.config(),
            completed: AtomicU64::new(0),
            events: tell,
        };
        Ok(Self {
            job,
            engine,
            shared: Arc::new(shared),
            events,
            halt: Some(halt),
            halted,
            wiring: Arc::new(wiring),
            inboxes,
            threads: Vec::new(),
            background,
            watch,
            is_restore_told: false,
        })
    }

    fn start(&mut self) -> Result<()> {
        let mut inboxes = std::mem::take(&mut self.inboxes).into_iter();
        let mut sources = Vec::new();
        for (node, lanes) in self.job.nodes.iter().zip(&self.wiring.lanes) {
            for (task, lane) in node.spec().tasks().zip(lanes) {
                let handle = self.engine.task(&task)?;
                if node.spec().role == Role::Source {
                    sources.push((lane.clone(), handle.clone()));
                }
                let inbox = inboxes.next().ok_or_else(|| Error::internal("a task has no inbox"))?;
                let seed = TaskSeed {
                    state: self.engine.task_state(&task)?,
                    parallelism: node.spec().parallelism,
                    rescaled: self.engine.is_rescaled(&task.operator),
                    base: self.engine.base_of(&task.operator),
                    handle,
                    inbox,
                    halted: self.halted.clone(),
                    wiring: Arc::clone(&self.wiring),
                    shared: Arc::clone(&self.shared),
                    background: self.background.lane(self.threads.len())?,
                };
                self.threads.push(spawn(Arc::clone(node), task, seed)?);
            }
        }
        let lanes = self.wiring.lanes.iter().flatten().cloned().collect();
        let drain = self.job.shared.end.drain().clone();
        let host = LocalHost::new(sources, lanes, Arc::clone(&self.shared), drain);
        self.engine.start(Arc::new(host))?;
        self.job.shared.set_engine(Arc::clone(&self.engine))
    }

    fn supervise(&mut self) -> Result<AttemptEnd> {
        let mut last: Option<Asked> = None;
        let mut shutdown: Option<Asked> = None;
        loop {
            // A drained stream ends without its input being over: the wish says how the job ends.
            if !self.job.shared.end.drain().is_on()
                && let Some(id) = self.watch.finished()
            {
                self.end_streams();
                return Ok(AttemptEnd::Finished(id));
            }
            let wish = self.job.shared.end.current();
            let polls = last.is_some() || wish.is_some();
            match wish {
                Some(wish) => {
                    if let Some(end) = self.fulfil(&wish, &mut shutdown)? {
                        return Ok(end);
                    }
                }
                None => {
                    if self.watch.ended == self.watch.tasks
                        && last.as_ref().is_none_or(|asked| self.is_due_again(asked))
                    {
                        // A checkpoint asked for now lies after the last record of every task, with
                        // nothing on its way.
                        last = Some(self.ask());
                    }
                }
            }
            self.next_event(polls || last.is_some())?;
        }
    }

    /// The end that was wished for, when its time has come.
    fn fulfil(&mut self, wish: &End, shutdown: &mut Option<Asked>) -> Result<Option<AttemptEnd>> {
        let savepoint = match wish {
            End::Cancel => return Ok(Some(AttemptEnd::Canceled(None))),
            End::Shutdown { deadline } => {
                let suspended = deadline.is_zero() || {
                    let asked = shutdown.get_or_insert_with(|| self.ask());
                    self.is_over(asked, *deadline) && {
                        let waited = self.job.clock.now().saturating_sub(asked.at);
                        // What is not copied in time is copied by the next start.
                        self.engine.checkpoints().wait_copied(deadline.saturating_sub(waited));
                        true
                    }
                };
                return Ok(suspended.then(|| AttemptEnd::Suspended(self.newest_completed())));
            }
            End::StopWith(savepoint) | End::CancelWith(savepoint) => savepoint.try_outcome(),
        };
        match (wish, savepoint) {
            (End::StopWith(_), Some(CheckpointOutcome::Completed(id))) => {
                if !self.watch.is_committed(id) {
                    return Ok(None);
                }
                self.end_streams();
                Ok(Some(AttemptEnd::Stopped(id)))
            }
            (_, Some(CheckpointOutcome::Completed(id))) => Ok(Some(AttemptEnd::Canceled(Some(id)))),
            (End::StopWith(_), Some(CheckpointOutcome::Failed { reason, .. })) => {
                self.job.shared.end.withdraw();
                let message = format!("the savepoint to stop with failed: {reason}");
                // Sources may stand still behind its barrier: only a restart moves them.
                Err(Error::new(ErrorKind::Unavailable, message))
            }
            (_, Some(CheckpointOutcome::Failed { .. })) => {
                self.job.shared.end.withdraw();
                self.engine.start_periodic()?;
                Ok(None)
            }
            (_, None) => Ok(None),
        }
    }

    fn ask(&self) -> Asked {
        let handle = self.engine.trigger_checkpoint(CheckpointRequest::Configured);
        Asked { handle, at: self.job.clock.now() }
    }

    fn is_due_again(&self, asked: &Asked) -> bool {
        matches!(asked.handle.try_outcome(), Some(CheckpointOutcome::Failed { .. }))
            && self.job.clock.now() >= asked.at + ASK_AGAIN_AFTER
    }

    /// Waits for the next event and takes it.
    fn next_event(&mut self, polls: bool) -> Result<()> {
        let timeout = if polls { POLL } else { IDLE };
        select! {
            recv(self.events) -> event => match event {
                Ok(event) => self.take(event),
                Err(_) => Err(Error::internal("the tasks have no way to the runner")),
            },
            recv(self.job.shared.woken) -> _ => Ok(()),
            default(timeout) => Ok(()),
        }
    }

    fn take(&mut self, event: TaskEvent) -> Result<()> {
        if !self.is_restore_told
            && let Some(report) = self.engine.final_report()
        {
            self.is_restore_told = true;
            self.job.listener.state_restored(&report);
        }
        let now = self.job.clock.now();
        match event {
            TaskEvent::EndOfData => self.watch.ended += 1,
            TaskEvent::CutAfterEnd(id) => {
                self.watch.ended_and_cut += 1;
                self.watch.final_floor = self.watch.final_floor.max(id);
            }
            TaskEvent::Cut { id, hot_pause } => {
                let longest = self.watch.hot_pauses.entry(id).or_default();
                *longest = hot_pause.max(*longest);
            }
            TaskEvent::Sizes { task, sizes } => self.job.shared.set_sizes(task, sizes),
            TaskEvent::Committed { task, id } => {
                self.watch.committed.insert(task, id);
            }
            TaskEvent::Triggered { id } => {
                self.watch.triggered_at.insert(id, now);
            }
            TaskEvent::Completed { id } => self.completed(id, now),
            TaskEvent::Aborted { id, reason } => {
                self.job.shared.update(|progress| progress.failed += 1);
                self.job.listener.failed(id, reason);
            }
            TaskEvent::Failed { error, collateral } => return Err(self.failure(error, collateral)),
        }
        Ok(())
    }

    fn completed(&mut self, id: CheckpointId, now: Duration) {
        self.watch.completed = self.watch.completed.max(Some(id));
        let hot_pause = self.watch.hot_pauses.get(&id).copied().unwrap_or_default();
        let triggered_at = self.watch.triggered_at.get(&id).copied().unwrap_or(now);
        self.watch.hot_pauses = self.watch.hot_pauses.split_off(&id.next());
        self.watch.triggered_at = self.watch.triggered_at.split_off(&id.next());
        let progress = self.job.shared.update(|progress| {
            progress.completed += 1;
            progress.last_completed = Some(id);
            progress.last_duration = now.saturating_sub(triggered_at);
            progress.last_hot_pause = hot_pause;
        });
        self.job.listener.completed(id, &progress);
    }

    /// The error that began it: a task that lost its neighbour only says that the job stops.
    fn failure(&mut self, error: Error, collateral: bool) -> Error {
        if !collateral {
            return error;
        }
        self.halt();
        self.events
            .try_iter()
            .find_map(|event| match event {
                TaskEvent::Failed { error, collateral: false } => Some(error),
                _ => None,
            })
            .unwrap_or(error)
    }

    /// True when the last checkpoint is committed, has failed, or comes too late.
    fn is_over(&self, asked: &Asked, deadline: Duration) -> bool {
        if self.job.clock.now().saturating_sub(asked.at) >= deadline {
            return true;
        }
        match asked.handle.try_outcome() {
            Some(CheckpointOutcome::Completed(id)) => self.watch.is_committed(id),
            Some(CheckpointOutcome::Failed { .. }) => true,
            None => false,
        }
    }

    fn newest_completed(&self) -> Option<CheckpointId> {
        self.watch.completed.or(self.engine.restored())
    }

    /// Lets the end of input pass through all tasks, so that they end by themselves.
    fn end_streams(&mut self) {
        for (node, lanes) in self.job.nodes.iter().zip(&self.wiring.lanes) {
            if node.spec().role == Role::Source {
                for lane in lanes {
                    // A task that is gone needs no message.
                    let _ = lane.send(Control::Finish);
                }
            }
        }
        self.join();
    }

    fn halt(&mut self) {
        self.job.shared.clear_engine();
        self.engine.stop();
        self.halt = None;
        for node in &self.job.nodes {
            node.disconnect();
        }
        self.join();
        self.background.stop();
    }

    fn join(&mut self) {
        for thread in self.threads.drain(..) {
            // A panic was turned into an event within the thread.
            let _ = thread.join();
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.halt();
    }
}

/// A checkpoint that the runner asked for.
struct Asked {
    handle: TriggerHandle,
    at: Duration,
}

/// What a task's thread takes with it; the rest of its surroundings never leaves that thread.
struct TaskSeed {
    parallelism: u32,
    rescaled: bool,
    base: Option<CheckpointId>,
    handle: crate::task::TaskHandle,
    state: Box<dyn crate::state::SnapshotSource + Send>,
    inbox: Receiver<Control>,
    halted: Receiver<()>,
    wiring: Arc<Wiring>,
    shared: Arc<AttemptShared>,
    background: Sender<crate::local::background::Job>,
}

fn spawn(node: Arc<dyn Node>, task: TaskId, seed: TaskSeed) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(format!("tidegate-{}-{}", task.operator, task.subtask))
        .spawn(move || {
            let inbox = Rc::new(Inbox::new(seed.inbox, seed.halted));
            let events = seed.shared.events.clone();
            let mut env = TaskEnv {
                subtask: task.subtask,
                parallelism: seed.parallelism,
                rescaled: seed.rescaled,
                base: seed.base,
                handle: seed.handle,
                state: seed.state,
                inbox: Rc::clone(&inbox),
                wiring: seed.wiring,
                shared: seed.shared,
                background: seed.background,
            };
            if let Err(error) = guard(&task, || node.run(&mut env)) {
                let collateral = inbox.is_collateral();
                let _ = events.send(TaskEvent::Failed { error, collateral });
            }
        })
        .map_err(|error| Error::io("start a task's thread", error))
}
