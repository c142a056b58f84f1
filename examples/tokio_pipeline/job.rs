//! The job from its arguments to its end: what is restored, how tasks are connected, how it ends.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tidegate::config::EffectiveConfig;
use tidegate::engine::{CheckpointOutcome, Engine, JobStatus, OperatorSpec};
use tidegate::inspect::finish_word;
use tidegate::message::CheckpointRequest;
use tidegate::state::{SectionKind, Stateful};
use tidegate::storage::SledCheckpointStorage;
use tidegate::{CheckpointId, Error, ErrorKind, JobId, OperatorUid, Result, TaskId};
use tokio::runtime::Builder;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::{sleep, timeout};

use crate::arguments::Arguments;
use crate::counter::{Counter, Counts};
use crate::files::{Files, KnownFiles, WORK_MAX, write_counts};
use crate::host::{Control, Event, TokioHost};
use crate::input::InputLoop;
use crate::record::{CHANNEL_MESSAGES, KEY_GROUPS, Outputs, Record, closed};
use crate::signals::StopSignal;
use crate::sink::Sink;
use crate::source::{AsyncSource, Numbers, SourceTask, restored_position};
use crate::{Failure, say};

/// The fixed name of the job in its storage.
const JOB: &str = "tokio_pipeline";

/// The property under which checkpoints carry `--records`.
const RECORDS: &str = "records";

pub(crate) const SOURCES: u32 = 2;
const COUNTERS: u32 = 2;

/// How often the last checkpoint is asked for, and how long after it failed.
const LAST_TRIES: u32 = 20;
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// How often a stop is looked for.
const TICK: Duration = Duration::from_millis(20);

/// How long the end waits for what still runs.
const PATIENCE: Duration = Duration::from_secs(1);

/// How a run ended.
pub(crate) enum Ended {
    /// The outputs are complete.
    Finished,
    /// By a signal; the exit code.
    Stopped(u8),
}

/// Does what the arguments ask for.
pub(crate) fn run(arguments: &Arguments) -> Result<Ended, Failure> {
    let config = arguments.config().map_err(Failure::Usage)?;
    let (state, output) = (arguments.state_dir(), arguments.output_dir());
    let job = JobId::new(JOB)?;
    if let Some(records) = finish_word(&state, &job)? {
        check_records(&records, arguments)?;
        say(&format!("the run in {} has finished already: {}", state.display(), output.display()));
        return Ok(Ended::Finished);
    }
    let mut builder = Engine::builder(job, config, Arc::new(SledCheckpointStorage::new(state)));
    for operator in operators()? {
        builder = builder.operator(operator);
    }
    let engine = Arc::new(builder.property(RECORDS, arguments.records.to_string()).open()?);
    if let Some(records) = engine.property(RECORDS) {
        check_records(records, arguments)?;
    }
    say(&engine.report().to_string());
    let restored = Restored::read(&engine)?;
    let files = Files::recover(&output, engine.restored().map(|_| &restored.files))?;

    let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build();
    let runtime = runtime.map_err(|error| Error::io("start the runtime", error))?;
    let stop = StopSignal::listen()?;
    let end = runtime.block_on(execute(arguments, &engine, restored, files, stop));
    runtime.shutdown_timeout(PATIENCE);
    engine.stop();
    match end.inspect_err(|error| tell_of(&engine, engine.attempt_failed(error)))? {
        End::Finished(last, totals) => {
            // CRASH: between any two of these steps the next start repeats the rest.
            write_counts(&output, &totals)?;
            engine.record_finish(&arguments.records.to_string())?;
            engine.end(JobStatus::Finished)?;
            let records: u64 = totals.values().sum();
            say(&format!("finished with checkpoint {last}: {records} in {}", output.display()));
            Ok(Ended::Finished)
        }
        End::Stopped(code, last) => {
            match last {
                Some(id) => say(&format!("stopped; checkpoint {id} is kept")),
                None => say("stopped; the last checkpoint failed"),
            }
            Ok(Ended::Stopped(code))
        }
    }
}

/// A saved run goes on over the same input.
fn check_records(saved: &str, arguments: &Arguments) -> Result<()> {
    if saved == arguments.records.to_string() {
        return Ok(());
    }
    let message = format!("the saved run has --records {saved}: name that, or another --state");
    Err(Error::new(ErrorKind::Incompatible, message))
}

fn operators() -> Result<[OperatorSpec; 3]> {
    let operator = |name, parallelism| {
        let uid = OperatorUid::new(name)?;
        Ok::<_, Error>(OperatorSpec::new(uid, parallelism).with_max_parallelism(KEY_GROUPS))
    };
    Ok([operator("numbers", SOURCES)?, operator("count", COUNTERS)?, operator("lines", 1)?])
}

fn tasks() -> Result<[Vec<TaskId>; 3]> {
    Ok(operators()?.map(|operator| operator.tasks().collect()))
}

/// What a start goes on from; empty without a checkpoint.
#[derive(Default)]
struct Restored {
    /// By source.
    positions: Vec<u64>,
    /// By counter.
    counts: Vec<Counts>,
    /// What was on its way, by counter and then to the sink.
    in_flight: Vec<Vec<Record>>,
    /// What the checkpoint knows of the sink's.
    files: KnownFiles,
}

impl Restored {
    fn read(engine: &Engine) -> Result<Self> {
        let mut restored = Self::default();
        let [sources, counters, sinks] = tasks()?;
        for task in &sources {
            let position = engine.task_state(task).and_then(restored_position);
            restored.positions.push(unless_unreadable(engine, task, position)?);
        }
        for task in counters.iter().chain(&sinks) {
            unless_unreadable(engine, task, restored.read_task(engine, task))?;
        }
        let in_flight: usize = restored.in_flight.iter().map(Vec::len).sum();
        if in_flight > 0 {
            say(&format!("{in_flight} records were in flight"));
        }
        Ok(restored)
    }

    fn read_task(&mut self, engine: &Engine, task: &TaskId) -> Result<()> {
        let mut state = engine.task_state(task)?;
        let (mut counts, mut in_flight) = (Counts::default(), Vec::new());
        while let Some(key) = state.next_section()? {
            if key.kind == SectionKind::Keyed {
                counts.restore(&key, state.body())?;
                continue;
            }
            let mut bytes = Vec::new();
            state.body().read_to_end(&mut bytes)?;
            match key.kind {
                SectionKind::Channel => in_flight.extend(Record::decode_all(&bytes)?),
                SectionKind::Tokens => {
                    self.files = KnownFiles::decode(&String::from_utf8_lossy(&bytes));
                }
                kind => {
                    let message = format!("{task} cannot restore {kind:?}");
                    return Err(Error::new(ErrorKind::Incompatible, message));
                }
            }
        }
        self.counts.push(counts);
        self.in_flight.push(in_flight);
        Ok(())
    }
}

/// Lets the engine know when a task cannot restore its state: where that is damaged, the next start goes on
/// from an older checkpoint.
fn unless_unreadable<T>(engine: &Engine, task: &TaskId, read: Result<T>) -> Result<T> {
    read.map_err(|error| {
        tell_of(engine, engine.restore_failed(task, &error));
        error.context(format!("task {task}"))
    })
}

/// Says whether the restored checkpoint was set aside.
fn tell_of(engine: &Engine, recorded: Result<bool>) {
    match (recorded, engine.restored()) {
        (Ok(true), Some(id)) => {
            say(&format!("checkpoint {id} is set aside: the next start goes on from an older one"));
        }
        (Ok(_), _) => {}
        (Err(error), _) => say(&format!("warning: how the run ended is not recorded: {error}")),
    }
}

/// How the tasks ended.
enum End {
    Finished(CheckpointId, BTreeMap<u64, u64>),
    Stopped(u8, Option<CheckpointId>),
}

/// Starts the tasks and the periodic checkpoints, and leads the job to its end.
async fn execute(
    arguments: &Arguments,
    engine: &Arc<Engine>,
    restored: Restored,
    files: Files,
    stop: StopSignal,
) -> Result<End> {
    let (events, happened) = mpsc::unbounded_channel();
    let mut tasks = Tasks { events: events.clone(), running: 0, others: Vec::new() };
    let sources = tasks.start(arguments, engine, restored, files)?;
    tokio::spawn(look_for_stop(stop, events.clone()));
    let finish = sources.iter().map(|(control, _)| control.clone()).collect();
    engine.start(Arc::new(TokioHost::new(sources, tasks.others, events.clone())))?;
    let job = Job {
        engine: Arc::clone(engine),
        running: tasks.running,
        sources: finish,
        events,
        happened,
        totals: BTreeMap::new(),
        tries: 0,
        stopping: None,
        last: None,
    };
    job.lead().await
}

async fn look_for_stop(stop: StopSignal, events: UnboundedSender<Event>) {
    loop {
        if let Some(code) = stop.code() {
            let _ = events.send(Event::Signal(code));
            return;
        }
        sleep(TICK).await;
    }
}

/// The tasks while they are being started.
struct Tasks {
    events: UnboundedSender<Event>,
    running: usize,
    others: Vec<UnboundedSender<Control>>,
}

type Sources = Vec<(UnboundedSender<Control>, tidegate::task::TaskHandle)>;

impl Tasks {
    fn start(
        &mut self,
        arguments: &Arguments,
        engine: &Engine,
        restored: Restored,
        files: Files,
    ) -> Result<Sources> {
        let config = engine.config();
        let [source_tasks, counter_tasks, sink_tasks] = tasks()?;
        let (mut to_counters, from_sources) = exchange(source_tasks.len(), counter_tasks.len());
        let (mut to_sink, from_counters) = exchange(counter_tasks.len(), sink_tasks.len());
        let mut in_flight = restored.in_flight.into_iter();
        let counters = counter_tasks.iter().zip(from_sources).zip(restored.counts);
        for ((task, inputs), counts) in counters {
            let outputs = to_sink.pop().ok_or_else(closed)?;
            let counter = Counter::new(counts, outputs, self.events.clone());
            let input = self.input(engine, &config, task, inputs, counter)?;
            self.spawn(input.run(in_flight.next().unwrap_or_default()));
        }
        // One sink; more would have directories of their own.
        if let Some((task, inputs)) = sink_tasks.iter().zip(from_counters).next() {
            let (work, to_do) = mpsc::channel(WORK_MAX);
            let sink = Sink::new(engine.attempt(), work, self.events.clone());
            let input = self.input(engine, &config, task, inputs, sink)?;
            self.spawn(input.run(in_flight.next().unwrap_or_default()));
            self.spawn(files.run(to_do));
        }
        let mut sources = Sources::new();
        for ((index, task), position) in (0..).zip(&source_tasks).zip(restored.positions) {
            let rate = arguments.rate.map(|rate| rate.div_euclid(u64::from(SOURCES)).max(1));
            let source = AsyncSource::spawn(Numbers::new(index, arguments.records, rate));
            let (control, told) = mpsc::unbounded_channel();
            let outputs = to_counters.pop().ok_or_else(closed)?;
            let handle = engine.task(task)?;
            self.spawn(SourceTask::new(handle.clone(), source, told, outputs).run(position));
            sources.push((control, handle));
        }
        Ok(sources)
    }

    fn input<O: crate::input::Operator>(
        &mut self,
        engine: &Engine,
        config: &EffectiveConfig,
        task: &TaskId,
        inputs: Vec<mpsc::Receiver<crate::record::Message>>,
        operator: O,
    ) -> Result<InputLoop<O>> {
        let (control, told) = mpsc::unbounded_channel();
        self.others.push(control);
        Ok(InputLoop::new(engine.task(task)?, config, inputs, told, operator))
    }

    /// A task whose end, also by a panic, the job is told of.
    fn spawn(&mut self, task: impl Future<Output = Result<()>> + Send + 'static) {
        self.running += 1;
        let events = self.events.clone();
        tokio::spawn(async move {
            let ended = tokio::spawn(task).await.unwrap_or_else(|error| {
                Err(Error::new(ErrorKind::Internal, "a task panicked").with_source(error))
            });
            let _ = events.send(Event::Ended(ended));
        });
    }
}

/// Channels from each of `senders` tasks to each of `receivers`.
fn exchange(
    senders: usize,
    receivers: usize,
) -> (Vec<Outputs>, Vec<Vec<mpsc::Receiver<crate::record::Message>>>) {
    let mut inputs: Vec<Vec<_>> = (0..receivers).map(|_| Vec::new()).collect();
    let outputs = (0..senders).map(|_| {
        let channels = inputs.iter_mut().map(|inputs| {
            let (sender, receiver) = mpsc::channel(CHANNEL_MESSAGES);
            inputs.push(receiver);
            sender
        });
        Outputs::new(channels.collect())
    });
    (outputs.collect(), inputs)
}

/// The job while it runs.
struct Job {
    engine: Arc<Engine>,
    running: usize,
    sources: Vec<UnboundedSender<Control>>,
    events: UnboundedSender<Event>,
    happened: UnboundedReceiver<Event>,
    totals: BTreeMap<u64, u64>,
    /// How often the last checkpoint was asked for.
    tries: u32,
    /// The exit code of the signal that came first.
    stopping: Option<u8>,
    /// The checkpoint after the last record.
    last: Option<CheckpointId>,
}

impl Job {
    async fn lead(mut self) -> Result<End> {
        loop {
            match self.happened.recv().await.ok_or_else(closed)? {
                // Whichever end comes first.
                Event::EndOfData => self.ask_for_last(Duration::ZERO)?,
                Event::Signal(code) if self.tries == 0 => {
                    self.stopping = Some(code);
                    self.ask_for_last(Duration::ZERO)?;
                }
                Event::Signal(_) => {}
                Event::LastCheckpoint(outcome) => {
                    if let Some(end) = self.asked(outcome)? {
                        return Ok(end);
                    }
                }
                Event::Counted(counts) => counts.add_to(&mut self.totals),
                Event::Failed(error) => return Err(error),
                Event::Ended(Err(error)) => return Err(self.cause(error).await),
                Event::Ended(Ok(())) => {
                    self.running = self.running.saturating_sub(1);
                    if self.running == 0 {
                        return Ok(End::Finished(self.last.ok_or_else(closed)?, self.totals));
                    }
                }
            }
        }
    }

    /// Asks for a checkpoint and awaits it beside everything else.
    fn ask_for_last(&mut self, delay: Duration) -> Result<()> {
        if self.tries == 0 {
            self.engine.stop_periodic()?;
        } else if delay.is_zero() {
            return Ok(());
        }
        self.tries += 1;
        let (engine, events) = (Arc::clone(&self.engine), self.events.clone());
        tokio::spawn(async move {
            sleep(delay).await;
            let outcome = engine.trigger_checkpoint(CheckpointRequest::Configured).await;
            let _ = events.send(Event::LastCheckpoint(outcome));
        });
        Ok(())
    }

    fn asked(&mut self, outcome: CheckpointOutcome) -> Result<Option<End>> {
        let completed = match outcome {
            CheckpointOutcome::Completed(id) => Some(id),
            _ if self.tries < LAST_TRIES => {
                // Another one may have been on its way.
                self.ask_for_last(ASK_AGAIN_AFTER)?;
                return Ok(None);
            }
            _ => None,
        };
        if let Some(code) = self.stopping {
            return Ok(Some(End::Stopped(code, completed)));
        }
        let Some(id) = completed else {
            let message = format!("the last checkpoint failed {LAST_TRIES} times: {outcome:?}");
            return Err(Error::new(ErrorKind::Unavailable, message));
        };
        self.last = Some(id);
        for source in &self.sources {
            let _ = source.send(Control::Finish);
        }
        Ok(None)
    }

    /// The error that began it: a task that lost its neighbour only says so.
    async fn cause(&mut self, first: Error) -> Error {
        if first.kind() != ErrorKind::Closed {
            return first;
        }
        while let Ok(Some(event)) = timeout(PATIENCE, self.happened.recv()).await {
            match event {
                Event::Ended(Err(error)) if error.kind() != ErrorKind::Closed => return error,
                _ => {}
            }
        }
        first
    }
}
