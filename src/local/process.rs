//! Operators with keyed state.

use std::sync::Arc;

use crate::engine::Engine;
use crate::error::Result;
use crate::ids::{Attempt, CheckpointId, TaskId};
use crate::local::background::Work;
use crate::local::exchange::{Edge, ExchangeOptions};
use crate::local::in_flight::Restored;
use crate::local::input_loop::{InputLoop, Worker};
use crate::local::node::{Node, NodeSpec, Recovery, TaskEnv};
use crate::local::participant::{Part, Snapshotter};
use crate::local::push::{Downstream, Outlets, Output};
use crate::local::source::Exchange;
use crate::state::{KeyedMap, SectionKind, StateKey, StateScope, StateValue};

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
    pub fn keyed_map<K: StateKey, V: StateValue>(&mut self, name: &str) -> Result<KeyedMap<K, V>> {
        self.states.keyed_map(name)
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

    fn freeze(&mut self, id: CheckpointId) -> Result<Part> {
        let mut frozen = Some(self.states.freeze(id));
        Ok(Box::new(move |cut| {
            cut.snapshot(&mut |sink| frozen.take().map_or(Ok(()), |states| states.write(sink)));
            Ok(())
        }))
    }

    fn completed(&mut self, _: CheckpointId) -> Option<Work> {
        None
    }
}
