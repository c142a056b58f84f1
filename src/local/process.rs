//! Operators with keyed state.

use std::marker::PhantomData;
use std::sync::Arc;

use crossbeam::channel::Sender;

use crate::clock::Clock;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ids::{Attempt, CheckpointId, TaskId};
use crate::local::background::Work;
use crate::local::exchange::{Edge, ExchangeOptions, KeyOf};
use crate::local::in_flight::Restored;
use crate::local::input_loop::{InputLoop, Timely, Worker};
use crate::local::node::{Node, NodeSpec, Recovery, TaskEnv, TaskEvent};
use crate::local::participant::{Part, Snapshotter};
use crate::local::push::{Downstream, Outlets, Output};
use crate::local::source::Exchange;
use crate::local::watermark::{Passed, RestoredWatermark, write_watermark};
use crate::message::Barrier;
use crate::state::{
    BroadcastState, Expiring, ExpiringMap, Fired, FrozenScope, IntoState, KeyedMap, ListState,
    SectionKind, StateKey, StateScope, StateValue, TimeToLive, TimerSet, Timers, ValueState,
};

/// What an operator's `open` is given: who it is, and its states (Flink: `RuntimeContext`).
#[derive(Debug)]
pub struct Scope {
    task: TaskId,
    parallelism: u32,
    attempt: Attempt,
    states: StateScope,
    clock: Arc<dyn Clock>,
    timers: TimerSet,
    /// The operator is called when a timer fires.
    takes_timers: bool,
}

impl Scope {
    /// Registers a map of keyed state; it is filled after `open` returned.
    ///
    /// # Errors
    /// `Invalid` when the name is taken, empty or longer than 255 bytes.
    pub fn keyed_map<K: StateKey, V: StateValue>(
        &mut self,
        state: impl IntoState<K, V>,
    ) -> Result<KeyedMap<K, V>> {
        self.states.keyed_map(state)
    }

    /// Registers a map whose entries live for a time by the job's clock (Flink: `StateTtlConfig`).
    ///
    /// # Errors
    /// As [`keyed_map`](Self::keyed_map).
    pub fn expiring_map<K: StateKey, V: StateValue>(
        &mut self,
        state: impl IntoState<K, Expiring<V>>,
        time_to_live: TimeToLive,
    ) -> Result<ExpiringMap<K, V>> {
        self.states.expiring_map(state, time_to_live, Arc::clone(&self.clock))
    }

    /// Registers one value for each key of type `K`, of which the one of the record at hand is looked at;
    /// for operators on a stream that is keyed by a `K`.
    ///
    /// # Errors
    /// As [`keyed_map`](Self::keyed_map).
    pub fn value_state<K: StateKey, T: StateValue>(
        &mut self,
        state: impl IntoState<K, T>,
    ) -> Result<ValueState<T>> {
        self.states.value_state(state)
    }

    /// Registers a list whose items are dealt out when the parallelism changes (Flink:
    /// `getListState`); it is filled after `open` returned.
    ///
    /// # Errors
    /// As [`keyed_map`](Self::keyed_map).
    pub fn list_state<T: StateValue>(
        &mut self,
        state: impl IntoState<(), T>,
    ) -> Result<ListState<T>> {
        self.states.list_state(state)
    }

    /// Registers a list of which every subtask is given all items at every restore (Flink:
    /// `getUnionListState`); it is filled after `open` returned.
    ///
    /// # Errors
    /// As [`keyed_map`](Self::keyed_map).
    pub fn union_list_state<T: StateValue>(
        &mut self,
        state: impl IntoState<(), T>,
    ) -> Result<ListState<T>> {
        self.states.union_list_state(state)
    }

    /// Registers a map that is the same in every subtask (Flink: `getBroadcastState`); it is filled
    /// after `open` returned.
    ///
    /// # Errors
    /// As [`keyed_map`](Self::keyed_map).
    pub fn broadcast_state<K: StateKey, V: StateValue>(
        &mut self,
        state: impl IntoState<K, V>,
    ) -> Result<BroadcastState<K, V>> {
        self.states.broadcast_state(state)
    }

    /// Registers timers, whose keys are those of the stream (Flink: `TimerService`); the pending ones of
    /// a checkpoint are found after `open` returned. They are stored as the states `NAME.event` and
    /// `NAME.processing`.
    ///
    /// # Errors
    /// `Invalid` when the name is taken, empty or too long for these states, or when the operator is a
    /// closure, which could not be called: see [`Operator`].
    pub fn timers<K: StateKey>(&mut self, name: &str) -> Result<Timers<K>> {
        if !self.takes_timers {
            return Err(Error::invalid(format!(
                "timers {name:?} are of no use to a closure: use `operator` instead of `process`"
            )));
        }
        if name.is_empty() {
            return Err(Error::invalid("timers need a name"));
        }
        let event = self.states.keyed_map(format!("{name}.event").as_str())?;
        let processing = self.states.keyed_map(format!("{name}.processing").as_str())?;
        Ok(self.timers.add(name, event, processing))
    }

    /// All states of this subtask, for what has no method here.
    pub fn states(&mut self) -> &mut StateScope {
        &mut self.states
    }

    /// The subtask.
    pub fn task(&self) -> &TaskId {
        &self.task
    }

    /// How many subtasks the operator has.
    pub fn parallelism(&self) -> u32 {
        self.parallelism
    }

    /// The number of this start of the job.
    pub fn attempt(&self) -> Attempt {
        self.attempt
    }
}

/// An operator that is called with each record and when its timers fire (Flink:
/// `KeyedProcessFunction`).
///
/// Counts the records of each key, and tells the count of a minute when no record of it can come any
/// more:
///
/// ```
/// use tidegate::Result;
/// use tidegate::local::{Flow, Next, Operator, Output, Scope, Source};
/// use tidegate::state::{Fired, KeyedMap, Timers};
///
/// /// A word and its event time in milliseconds.
/// type Word = (String, u64);
///
/// struct PerMinute {
///     counts: KeyedMap<String, u64>,
///     ends: Timers<String>,
/// }
///
/// impl Operator<Word, (String, u64, u64)> for PerMinute {
///     fn record(&mut self, (word, ms): Word, _: &mut Output<(String, u64, u64)>) -> Result<()> {
///         let end = ms - ms % 60_000 + 59_999;
///         // A real one keeps a count for each minute that is open.
///         self.counts.update(&word, |count| *count += 1)?;
///         self.ends.register_event_time(&word, end)
///     }
///
///     fn timer(&mut self, timer: &Fired, output: &mut Output<(String, u64, u64)>) -> Result<()> {
///         let word: String = timer.key()?;
///         let count = self.counts.remove(&word)?.unwrap_or_default();
///         output.emit((word, timer.at_ms, count))
///     }
/// }
///
/// fn count<S: Source<Item = Word>>(flow: &Flow, words: Vec<S>) -> Result<()> {
///     let counts = flow.source("words", words)?.key_by_ref(|(word, _): &Word| word).operator(
///         "per-minute",
///         2,
///         |scope: &mut Scope| {
///             Ok(PerMinute { counts: scope.keyed_map("counts")?, ends: scope.timers("ends")? })
///         },
///     )?;
///     # let _ = counts;
///     Ok(())
/// }
/// ```
pub trait Operator<T, U>: 'static {
    /// Takes a record.
    ///
    /// # Errors
    /// Any error fails the attempt; the job restarts under its policy.
    fn record(&mut self, item: T, output: &mut Output<U>) -> Result<()>;

    /// Takes a timer that has fired (Flink: `onTimer`). It may register others: one that is due already
    /// fires in its turn, before the next record. So an operator that always registers another one at
    /// event time does not get through the end of the data.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    fn timer(&mut self, timer: &Fired, output: &mut Output<U>) -> Result<()>;
}

/// A closure as an operator; it cannot register timers.
pub(super) struct Closure<P>(P);

impl<P> Closure<P> {
    /// Opens an operator that is a closure.
    pub(super) fn open(
        open: impl Fn(&mut Scope) -> Result<P>,
    ) -> impl Fn(&mut Scope) -> Result<Self> {
        move |scope| {
            scope.takes_timers = false;
            open(scope).map(Self)
        }
    }
}

impl<T, U, P: FnMut(T, &mut Output<U>) -> Result<()> + 'static> Operator<T, U> for Closure<P> {
    fn record(&mut self, item: T, output: &mut Output<U>) -> Result<()> {
        (self.0)(item, output)
    }

    fn timer(&mut self, timer: &Fired, _: &mut Output<U>) -> Result<()> {
        Err(Error::internal(format!("a timer of {:?} fired for a closure", timer.name)))
    }
}

pub(super) struct ProcessNode<T, U, O> {
    spec: NodeSpec,
    edge: Arc<Edge<T>>,
    open: O,
    outlets: Outlets<U>,
}

impl<T, U, O> ProcessNode<T, U, O> {
    pub(super) fn new(spec: NodeSpec, edge: Arc<Edge<T>>, open: O, outlets: Outlets<U>) -> Self {
        Self { spec, edge, open, outlets }
    }
}

impl<T, U, O, P> Node for ProcessNode<T, U, O>
where
    T: Exchange,
    U: Clone + Send + 'static,
    O: Fn(&mut Scope) -> Result<P> + Send + Sync,
    P: Operator<T, U>,
{
    fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    fn connect(&self, options: ExchangeOptions) {
        self.edge.connect(options);
    }

    fn disconnect(&self) {
        self.edge.disconnect();
    }

    fn recover(&self, _: &Engine, _: Recovery) -> Result<()> {
        Ok(())
    }

    fn run(&self, env: &mut TaskEnv) -> Result<()> {
        let receivers = self.edge.receivers_of(env.subtask)?;
        let (parallelism, max) = (self.spec.parallelism, self.spec.max_parallelism.get());
        let mut scope = Scope {
            task: env.handle.id().clone(),
            parallelism,
            attempt: env.handle.attempt(),
            states: StateScope::new(env.subtask, parallelism, max),
            clock: Arc::clone(&env.shared.clock),
            timers: TimerSet::new(Arc::clone(&env.shared.clock)),
            takes_timers: true,
        };
        let operator = (self.open)(&mut scope)?;
        let Scope { states, timers, .. } = scope;
        let (mut restored, mut watermark) = (Restored::new(), RestoredWatermark::default());
        while let Some(key) = env.state.next_section()? {
            match key.kind {
                SectionKind::Channel => restored.take(&self.edge, env)?,
                SectionKind::Watermark => watermark.take(env)?,
                _ => states.restore(&key, env.state.body())?,
            }
        }
        states.restored(env.base);
        let watermark = watermark.into_least(env.rescaled);
        timers.rebuild()?;
        timers.set_watermark(watermark);
        let output = self.outlets.output(&env.wiring())?;
        let passed = Passed::new(watermark);
        let item = PhantomData;
        let key = self.edge.key.clone().filter(|_| states.uses_key());
        if key.is_none() && states.uses_key() {
            return Err(Error::invalid("a value state needs a stream that is keyed"));
        }
        let (task, events) = (env.handle.id().clone(), env.shared.events.clone());
        let worker = ProcessWorker {
            operator,
            output,
            states,
            key,
            timers,
            passed,
            parallelism,
            task,
            events,
            item,
        };
        InputLoop::new(env, receivers, restored.into_records(), watermark, worker).run()
    }
}

struct ProcessWorker<T, U, P> {
    operator: P,
    output: Output<U>,
    states: StateScope,
    /// When a state looks at the key of the record at hand.
    key: Option<KeyOf<T>>,
    timers: TimerSet,
    passed: Passed,
    parallelism: u32,
    task: TaskId,
    events: Sender<TaskEvent>,
    item: PhantomData<fn(T)>,
}

impl<T, U, P: Operator<T, U>> Worker<T> for ProcessWorker<T, U, P> {
    fn record(&mut self, item: T) -> Result<()> {
        if let Some(key) = &self.key {
            self.states.set_encoded_key(|encoded| key(&item, encoded))?;
        }
        self.operator.record(item, &mut self.output)
    }

    fn timely(&mut self) -> Option<&mut dyn Timely> {
        Some(self)
    }
}

impl<T, U, P: Operator<T, U>> Timely for ProcessWorker<T, U, P> {
    fn reach(&mut self, watermark: u64) {
        self.timers.set_watermark(Some(watermark));
        self.passed.set(watermark);
    }

    fn passed(&mut self) -> &mut Passed {
        &mut self.passed
    }

    fn is_due(&self) -> bool {
        self.timers.is_due()
    }

    fn fire(&mut self) -> Result<()> {
        match self.timers.take_due()? {
            Some(fired) => {
                if self.key.is_some() {
                    self.states.set_encoded_key(|encoded| {
                        encoded.extend_from_slice(fired.encoded_key());
                        Ok(())
                    })?;
                }
                self.operator.timer(&fired, &mut self.output)
            }
            None => Ok(()),
        }
    }

    fn wake_ms(&self) -> Option<u64> {
        self.timers.next_processing_ms()
    }
}

impl<T, U, P> Snapshotter for ProcessWorker<T, U, P> {
    fn downstream(&mut self) -> Option<&mut dyn Downstream> {
        Some(&mut self.output)
    }

    fn freeze(&mut self, barrier: Barrier) -> Result<Part> {
        let mut frozen = Some(if barrier.options.kind.is_savepoint() {
            self.states.freeze_savepoint(barrier.id)
        } else {
            self.states.freeze(barrier.id)
        });
        let (watermark, parallelism) = (self.passed.stored(), self.parallelism);
        let (task, events) = (self.task.clone(), self.events.clone());
        Ok(Box::new(move |cut| {
            let sizes = frozen.iter().flat_map(FrozenScope::sizes).cloned().collect();
            let _ = events.send(TaskEvent::Sizes { task, sizes });
            cut.snapshot(&mut |sink| {
                frozen.take().map_or(Ok(()), |states| states.write(sink))?;
                write_watermark(watermark, parallelism, sink)
            });
            Ok(())
        }))
    }

    fn completed(&mut self, id: CheckpointId) -> Option<Work> {
        self.states.completed(id);
        None
    }
}
