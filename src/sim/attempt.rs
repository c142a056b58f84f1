//! One start of the job: restored from storage, run by chance, gone with a kill.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::{Checkpoints, OperatorSpec, TaskSnapshot};
use crate::clock::Clock;
use crate::coordinator::{
    Commit, Coordinator, CoordinatorHandle, ReportLane, Signal, TriggerHandle,
};
use crate::ids::{CheckpointId, JobId, TaskId};
use crate::message::{Barrier, CheckpointType};
use crate::restore::{StoredOperator, StoredOperators, check_fit};
use crate::sim::actor::{Actor, Ends};
use crate::sim::exchange::Exchange;
use crate::sim::harness::{Harness, Step, Stop, broken};
use crate::sim::inputs::Inputs;
use crate::sim::operator::Operator;
use crate::sim::options::Breakage;
use crate::sim::plan::{Plan, Record};
use crate::sim::rescale::{self, Restored};
use crate::sim::role::Role;
use crate::sim::sink::{self, Sink};
use crate::sim::snapshot::{Content, Part, SumState, read_part};
use crate::sim::source::Source;
use crate::sim::summing::Summing;
use crate::sim::wire::{Outbox, Wire};
use crate::state::SnapshotSource;
use crate::storage::CheckpointStorage;
use crate::sync::{AtomicBool, Ordering};
use crate::task::{ActiveCheckpoints, Meter, TaskHandle};

pub(super) struct Attempt {
    pub(super) checkpoints: Checkpoints,
    stored: StoredOperators,
    pub(super) coordinator: Coordinator<TaskSnapshot>,
    pub(super) handle: CoordinatorHandle<TaskSnapshot>,
    pub(super) active: Arc<ActiveCheckpoints>,
    pub(super) tasks: Vec<TaskId>,
    meter: Meter,
    pub(super) actors: Vec<Actor>,
    pub(super) barriers: BTreeMap<CheckpointId, Barrier>,
    /// What is to be made durable, in order, and when the disk would be so far.
    pub(super) commits: VecDeque<(Duration, Commit<TaskSnapshot>)>,
    /// The job is beyond its tolerance: only what is being committed still moves.
    pub(super) failing: bool,
    /// The first completed checkpoint that the sources cut after their last record and that holds no
    /// records on their way.
    pub(super) holds_all: Option<CheckpointId>,
    wires: Vec<Wire>,
    requests: Vec<TriggerHandle>,
    wake: Arc<AtomicBool>,
}

/// Something that can happen next.
#[derive(Debug, Clone, Copy)]
enum Move {
    Schedule,
    Commit,
    Act(usize),
    Work(usize),
}

/// The job in its storage.
pub(super) fn open(h: &Harness) -> Step<Checkpoints> {
    Ok(Checkpoints::new(h.storage.open(&JobId::new("simulated")?)?))
}

impl Attempt {
    /// Opens the storage and restores the newest checkpoint, in the order of `local`.
    pub(super) fn start(h: &mut Harness) -> Step<Self> {
        let checkpoints = open(h)?;
        let restored = checkpoints.newest()?;
        h.trace.note(format!("attempt {} restores {restored:?}", checkpoints.attempt()));
        h.judge.started(restored)?;
        if let Some(plan) = restored.and_then(|_| h.plan.rescaled(&mut h.random)) {
            h.trace.note(format!("with another parallelism: {:?}", plan.stages));
            h.plan = Rc::new(plan);
        }
        let plan = Rc::clone(&h.plan);
        let mut then = None;
        if let Some(id) = restored {
            let operators = checkpoints.info(id)?.operators;
            let stored = operators.iter().cloned();
            let stored: Vec<_> = stored.map(|spec| StoredOperator { spec, bytes: 1 }).collect();
            check_fit(id, &stored, &plan.stages, false)?;
            h.counts.restores += 1;
            h.counts.rescales += u64::from(operators != plan.stages);
            then = Some(Restored::read(id, &checkpoints, h)?);
        }
        let tasks = plan.tasks();
        recover_sinks(&checkpoints, then.as_ref(), h)?;

        let count = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
        let wake = Arc::new(AtomicBool::new(true));
        let woken = Arc::clone(&wake);
        let mut settings = plan.settings.clone();
        settings.max_concurrent += u32::from(h.is_broken(Breakage::OneMoreInFlight));
        let forgets_ids = h.is_broken(Breakage::ReuseIds);
        let next_id = if forgets_ids { CheckpointId(1) } else { checkpoints.next_id() };
        let mut coordinator = Coordinator::new(
            settings,
            count,
            next_id,
            restored,
            // ORDERING: one thread; the flag alone is passed.
            Arc::new(move || woken.store(true, Ordering::Relaxed)),
        )?;
        if let Some(id) = restored {
            coordinator.restored(id);
        }
        let operators = plan.stages.clone();
        let active = ActiveCheckpoints::new(checkpoints.clone(), operators, BTreeMap::new());
        let reports = Arc::new(ReportLane::new(0, Signal::new()));
        let meter = Meter { clock: Arc::clone(&h.clock) as Arc<dyn Clock>, reports };
        let mut this = Self {
            handle: coordinator.handle(),
            checkpoints,
            stored: StoredOperators::default(),
            coordinator,
            active: Arc::new(active),
            tasks,
            meter,
            actors: Vec::new(),
            barriers: BTreeMap::new(),
            commits: VecDeque::new(),
            failing: false,
            holds_all: None,
            wires: Vec::new(),
            requests: Vec::new(),
            wake,
        };
        this.connect(&mut then, h)?;
        then.map_or(Ok(()), |then| then.judge())?;
        let delay = this.coordinator.settings().initial_delay(h.random.next());
        this.coordinator.start_periodic(h.now(), delay);
        Ok(this)
    }

    /// Makes the tasks and the channels between them.
    fn connect(&mut self, restored: &mut Option<Restored>, h: &mut Harness) -> Step {
        let plan = Rc::clone(&h.plan);
        // By receiving subtask, then by sending one: the channels into the stage that is made.
        let mut into: Vec<Vec<usize>> = Vec::new();
        for (stage, spec) in plan.stages.iter().enumerate() {
            let receivers = plan.stages.get(stage + 1).map_or(0, |next| next.parallelism);
            let exchange = plan.exchange_to(stage + 1).unwrap_or(Exchange::Keyed);
            let mut into_next: Vec<Vec<usize>> = (0..receivers).map(|_| Vec::new()).collect();
            let mut inputs = into.into_iter();
            for subtask in 0..spec.parallelism {
                h.crash_point("between two restored tasks")?;
                let reached = exchange.receivers(subtask, spec.parallelism, receivers);
                let mut outputs = Vec::new();
                for (_, receiver) in
                    (0..).zip(&mut into_next).filter(|(number, _)| reached.contains(number))
                {
                    outputs.push(self.wires.len());
                    receiver.push(self.wires.len());
                    self.wires.push(Wire::new(plan.capacity));
                }
                let mut outbox = Outbox::new(exchange, reached.start, outputs);
                outbox.overtakes_always = h.is_broken(Breakage::OvertakeEverywhere);
                self.add_task(
                    restored.as_mut(),
                    stage,
                    subtask,
                    inputs.next().unwrap_or_default(),
                    outbox,
                    h,
                )?;
            }
            into = into_next;
        }
        Ok(())
    }

    fn add_task(
        &mut self,
        restored: Option<&mut Restored>,
        stage: usize,
        subtask: u32,
        inputs: Vec<usize>,
        outbox: Outbox,
        h: &mut Harness,
    ) -> Step {
        let index = self.actors.len();
        let (role, in_flight) = self.restore(restored, stage, subtask, h)?;
        h.counts.records_replayed += u64::try_from(in_flight.len()).unwrap_or(u64::MAX);
        let mut inputs = Inputs::new(inputs, h.plan.mode, in_flight);
        inputs.pulls = h.plan.announces;
        inputs.logs_too_little = h.is_broken(Breakage::LogTooLittle);
        let may_log = h.plan.exchange_to(stage).is_none_or(Exchange::supports_unaligned);
        let ends = Ends { inputs, may_log, outbox };
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        let speed = h.random.between(1, 8);
        self.actors.push(Actor::new(self.task_handle(index)?, number, role, ends, speed));
        Ok(())
    }

    fn task_handle(&self, index: usize) -> Step<TaskHandle> {
        let Some(task) = self.tasks.get(index) else {
            return broken("every task has a name", format!("{index}"));
        };
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        let (handle, active) = (self.handle.clone(), Arc::clone(&self.active));
        let attempt = self.checkpoints.attempt();
        Ok(TaskHandle::new(task.clone(), number, attempt, handle, active, self.meter.clone()))
    }

    /// What a task does, and the records on their way to it.
    fn restore(
        &self,
        restored: Option<&mut Restored>,
        stage: usize,
        subtask: u32,
        h: &mut Harness,
    ) -> Step<(Box<dyn Role>, Vec<Record>)> {
        let plan = Rc::clone(&h.plan);
        let index = u32::try_from(self.actors.len()).unwrap_or(u32::MAX);
        let Some(restored) = restored else {
            return Ok((self.role(plan, stage, subtask, None)?.0, Vec::new()));
        };
        let Some(task) = self.tasks.get(self.actors.len()) else {
            return broken("every task has a name", format!("{index}"));
        };
        let parallelism = plan.stages.get(stage).map_or(0, |spec| spec.parallelism);
        let old = (restored.id, restored.spec(stage)?);
        let mut sections = self.stored.sections(&self.checkpoints, old, task, parallelism)?;
        let (mut role, part) =
            self.role(Rc::clone(&plan), stage, subtask, Some((task, &mut *sections)))?;
        let may_refer = !restored.is_savepoint && !restored.is_changed(stage);
        role.restored(may_refer.then_some(restored.id));
        let Some(part) = part else { return Ok((role, Vec::new())) };
        let mut records = rescale::records(&part);
        if restored.is_changed(stage) {
            if !h.is_broken(Breakage::ReplayEverywhere) {
                records = rescale::at_home(&plan, stage, subtask, records)?;
            }
            restored.given(stage, &part.content, &records)?;
        } else {
            h.judge.read(restored.id, restored.number_then(stage, subtask), &part)?;
        }
        Ok((role, replayed(records, h)))
    }

    /// A task with what `source` gives back, if there is one; and what that gave back.
    fn role(
        &self,
        plan: Rc<Plan>,
        stage: usize,
        subtask: u32,
        source: Option<(&TaskId, &mut dyn SnapshotSource)>,
    ) -> Step<(Box<dyn Role>, Option<Part>)> {
        let is_operator = stage != 0 && stage != plan.last_stage();
        let is_restored = source.is_some();
        if is_operator && plan.is_by_key(stage) {
            let source = source.map(|(_, source)| source);
            let (operator, part) = Operator::new(plan, stage, subtask, source)?;
            return Ok((Box::new(operator), Some(part).filter(|_| is_restored)));
        }
        if is_operator {
            let sums = SumState::new(subtask)?;
            let in_flight = source.map(|(_, source)| sums.restore(source)).transpose()?;
            let content = Content::Sum(sums.sum());
            let part = in_flight.map(|in_flight| Part { content, in_flight });
            return Ok((Box::new(Summing::new(plan, stage, sums)), part));
        }
        let part = source.map(|(task, source)| read_part(&plan, task, source)).transpose()?;
        let role: Box<dyn Role> = match part.as_ref().map(|part| &part.content) {
            Some(Content::Position(position)) => Box::new(Source::new(plan, subtask, *position)),
            None if stage == 0 => Box::new(Source::new(plan, subtask, 0)),
            _ => Box::new(Sink::new(plan, subtask, self.checkpoints.attempt())),
        };
        Ok((role, part))
    }

    /// Runs until the job has ended.
    pub(super) fn run(&mut self, h: &mut Harness) -> Step {
        while !self.has_ended() {
            h.next_step()?;
            h.crash_point("between two steps")?;
            if self.failing && self.coordinator.in_flight() == 0 {
                self.judge_rest(h)?;
                return Err(Stop::Restart);
            }
            if !self.failing && h.disturb(h.plan.faults.request) {
                self.request(h);
            }
            self.one_move(h)?;
            h.pass_a_moment();
        }
        self.shut_down(h)
    }

    fn one_move(&mut self, h: &mut Harness) -> Step {
        let moves = self.moves(h.now());
        let total = moves.iter().map(|(weight, _)| weight).sum();
        let mut drawn = h.random.below(total);
        let chosen = moves.iter().find(|(weight, _)| {
            let is_it = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            is_it
        });
        match chosen.map(|(_, chosen)| *chosen) {
            Some(Move::Schedule) => self.schedule(h),
            Some(Move::Commit) => self.commit(h),
            Some(Move::Act(index)) => match self.actors.get_mut(index) {
                Some(actor) => actor.act(&mut self.wires, h),
                None => Ok(()),
            },
            Some(Move::Work(index)) => match self.actors.get_mut(index) {
                Some(actor) => actor.work(h),
                None => Ok(()),
            },
            None => self.wait(h),
        }
    }

    /// What can happen now, with weights.
    fn moves(&self, now: Duration) -> Vec<(u64, Move)> {
        let mut moves = Vec::new();
        let is_due = |at: Duration| at <= now;
        if self.wake.load(Ordering::Relaxed) || self.coordinator.next_deadline().is_some_and(is_due)
        {
            moves.push((8, Move::Schedule));
        }
        if self.commits.front().is_some_and(|(at, _)| is_due(*at)) {
            moves.push((4, Move::Commit));
        }
        if self.failing {
            return moves;
        }
        for (index, actor) in self.actors.iter().enumerate() {
            if actor.can_move(&self.wires, now) {
                moves.push((actor.speed, Move::Act(index)));
            }
            if actor.work_at().is_some_and(is_due) {
                moves.push((4, Move::Work(index)));
            }
        }
        moves
    }

    /// Nobody can move: time passes until somebody can.
    fn wait(&mut self, h: &mut Harness) -> Step {
        let now = h.now();
        let wakes = |actor: &Actor| actor.work_at().into_iter().chain(actor.wakes_at(now)).min();
        let actors = self.actors.iter().filter(|_| !self.failing).filter_map(wakes);
        let commit = self.commits.front().map(|(at, _)| *at);
        let next = actors.chain(commit).chain(self.coordinator.next_deadline()).min();
        match next {
            Some(at) => h.pass_until(at),
            None if self.failing => {
                return broken("what is being committed ends", format!("{:?}", self.coordinator));
            }
            // Without periodic checkpoints the job ends with one that somebody asks for.
            None => self.request(h),
        }
        Ok(())
    }

    fn request(&mut self, h: &mut Harness) {
        let kind = match h.random.below(6) {
            0 => CheckpointType::Savepoint,
            1 => CheckpointType::FullCheckpoint,
            _ => CheckpointType::Checkpoint,
        };
        h.trace.note(format!("somebody asks for a {kind:?}"));
        self.requests.push(self.handle.submit(kind));
    }

    fn schedule(&mut self, h: &mut Harness) -> Step {
        self.wake.store(false, Ordering::Relaxed);
        self.step_coordinator(h)
    }

    /// True when a checkpoint that holds everything is complete, and every sink has committed it.
    fn has_ended(&self) -> bool {
        let mut sinks = self.actors.iter().filter_map(|actor| actor.role().committed());
        self.holds_all.is_some_and(|last| sinks.all(|committed| committed >= last))
    }

    /// Ends the coordinator in order: what is being committed is finished.
    fn shut_down(&mut self, h: &mut Harness) -> Step {
        self.handle.shutdown();
        self.failing = true;
        self.schedule(h)?;
        while self.coordinator.in_flight() > 0 {
            h.next_step()?;
            h.crash_point("while the job ends")?;
            self.one_move(h)?;
            h.pass_a_moment();
        }
        self.judge_rest(h)
    }

    fn judge_rest(&mut self, h: &mut Harness) -> Step {
        // Whoever asked after the job failed is answered by now, too.
        self.step_coordinator(h)?;
        h.judge.at_rest(&self.requests)
    }
}

/// What a restore brings of the records on their way.
fn replayed(mut records: Vec<Record>, h: &Harness) -> Vec<Record> {
    if h.is_broken(Breakage::DropInFlight) {
        records.clear();
    }
    if h.is_broken(Breakage::ReplayTwice) {
        records.extend_from_within(..);
    }
    records
}

/// Gives the tokens of the restored checkpoint to the outer world, before any task runs.
fn recover_sinks(checkpoints: &Checkpoints, restored: Option<&Restored>, h: &mut Harness) -> Step {
    let mut held = Vec::new();
    if let Some(restored) = restored {
        for task in restored.then.stages.last().into_iter().flat_map(OperatorSpec::tasks) {
            let mut reader = checkpoints.read_task(restored.id, &task)?;
            let part = read_part(&restored.then, &task, &mut reader)?;
            if let Content::Tokens(tokens) = part.content {
                held.extend(tokens);
            }
        }
    }
    sink::recover(&mut held, restored.map(|restored| restored.id), h)
}
