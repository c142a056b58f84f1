//! Operators with keyed state.

use std::sync::Arc;

use crate::engine::Engine;
use crate::error::Result;
use crate::ids::{Attempt, CheckpointId, TaskId};
use crate::local::background::Work;
use crate::local::exchange::{Edge, ExchangeOptions};
use crate::local::in_flight::Restored;
use crate::local::input_loop::{InputLoop, Worker};
use crate::local::node::{Node, NodeSpec, TaskEnv};
use crate::local::participant::{Part, Snapshotter};
use crate::local::push::{Downstream, Outlets, Output};
use crate::local::source::Exchange;
use crate::message::Barrier;
use crate::state::{
    BroadcastState, IntoState, KeyedMap, ListState, SectionKind, StateKey, StateScope, StateValue,
    ValueState,
};

/// What an operator's `open` is given: who it is, and its states (Flink: `RuntimeContext`).
#[derive(Debug)]
pub struct Scope {
    task: TaskId,
    parallelism: u32,
    attempt: Attempt,
    states: StateScope,
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
    P: FnMut(T, &mut Output<U>) -> Result<()>,
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

    fn recover(&self, _: &Engine) -> Result<()> {
        Ok(())
    }

    fn run(&self, env: &mut TaskEnv) -> Result<()> {
        let receivers = self.edge.receivers_of(env.subtask)?;
        let NodeSpec { parallelism, max_parallelism, .. } = self.spec;
        let mut scope = Scope {
            task: env.handle.id().clone(),
            parallelism,
            attempt: env.handle.attempt(),
            states: StateScope::new(env.subtask, parallelism, max_parallelism),
        };
        let process = (self.open)(&mut scope)?;
        let states = scope.states;
        let mut restored = Restored::new();
        while let Some(key) = env.state.next_section()? {
            if key.kind == SectionKind::Channel {
                restored.take(&self.edge, env)?;
            } else {
                states.restore(&key, env.state.body())?;
            }
        }
        states.restored(env.base);
        let output = self.outlets.output(&env.wiring())?;
        let worker = ProcessWorker { process, output, states };
        InputLoop::new(env, receivers, restored.into_records(), worker).run()
    }
}

struct ProcessWorker<U, P> {
    process: P,
    output: Output<U>,
    states: StateScope,
}

impl<T, U, P: FnMut(T, &mut Output<U>) -> Result<()>> Worker<T> for ProcessWorker<U, P> {
    fn record(&mut self, item: T) -> Result<()> {
        (self.process)(item, &mut self.output)
    }
}

impl<U, P> Snapshotter for ProcessWorker<U, P> {
    fn downstream(&mut self) -> Option<&mut dyn Downstream> {
        Some(&mut self.output)
    }

    fn freeze(&mut self, barrier: Barrier) -> Result<Part> {
        let mut frozen = Some(if barrier.options.kind.is_savepoint() {
            self.states.freeze_savepoint(barrier.id)
        } else {
            self.states.freeze(barrier.id)
        });
        Ok(Box::new(move |cut| {
            cut.snapshot(&mut |sink| frozen.take().map_or(Ok(()), |states| states.write(sink)));
            Ok(())
        }))
    }

    fn completed(&mut self, id: CheckpointId) -> Option<Work> {
        self.states.completed(id);
        None
    }
}
