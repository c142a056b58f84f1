//! The flow of a job: sources, stages and operators, put together before anything runs.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::ids::OperatorUid;
use crate::limits::MAX_PARALLELISM;
use crate::local::dealt::Dealing;
use crate::local::exchange::Edge;
use crate::local::max_parallelism::MaxParallelism;
use crate::local::node::{Node, NodeSpec, Role};
use crate::local::process::{Closure, Operator, ProcessNode, Scope};
use crate::local::push::{FlatMap, Outlets, Output, Push};
use crate::local::sink::{Sink, SinkContext};
use crate::local::sink_task::SinkNode;
use crate::local::source::{Exchange, Source};
use crate::local::source_task::SourceNode;
use crate::state::codec;

type Graph = Rc<RefCell<Vec<Arc<dyn Node>>>>;

/// A job's operators and the streams between them (Flink: `StreamGraph`).
pub struct Flow {
    graph: Graph,
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let graph = self.graph.borrow();
        f.debug_list().entries(graph.iter().map(|node| node.spec())).finish()
    }
}

impl Default for Flow {
    fn default() -> Self {
        Self::new()
    }
}

impl Flow {
    /// A flow without operators.
    pub fn new() -> Self {
        Self { graph: Graph::default() }
    }

    /// Adds a source with one subtask for each object.
    ///
    /// # Errors
    /// `Invalid` when the uid is no name or used twice, when there is no subtask or too many, or
    /// when a position cannot be encoded.
    pub fn source<S: Source>(&self, uid: &str, subtasks: Vec<S>) -> Result<Stream<S::Item>> {
        let parallelism = u32::try_from(subtasks.len()).unwrap_or(u32::MAX);
        let spec = NodeSpec::new(uid, parallelism, Role::Source)?;
        let outlets = Outlets::new();
        let node = SourceNode::new(spec, subtasks, outlets.clone())?;
        add(&self.graph, Arc::new(node))?;
        Ok(Stream { graph: Rc::clone(&self.graph), outlets, parallelism })
    }

    pub(super) fn into_nodes(self) -> Vec<Arc<dyn Node>> {
        self.graph.borrow().clone()
    }
}

fn add(graph: &Graph, node: Arc<dyn Node>) -> Result<usize> {
    let mut graph = graph.borrow_mut();
    let uid = &node.spec().uid;
    if graph.iter().any(|other| other.spec().uid == *uid) {
        return Err(Error::invalid(format!("the operator uid {uid} is used twice")));
    }
    graph.push(node);
    Ok(graph.len().saturating_sub(1))
}

impl NodeSpec {
    fn new(uid: &str, parallelism: u32, role: Role) -> Result<Self> {
        if parallelism == 0 || parallelism > MAX_PARALLELISM {
            return Err(Error::invalid(format!(
                "operator {uid} has {parallelism} subtasks; it may have 1 to {MAX_PARALLELISM}"
            )));
        }
        Ok(Self {
            uid: OperatorUid::new(uid)?,
            parallelism,
            max_parallelism: MaxParallelism::of(parallelism),
            role,
            has_custom_partitioner: false,
        })
    }
}

/// Records of one type on their way from an operator (Flink: `DataStream`).
///
/// Used several times, each consumer gets all records.
pub struct Stream<T> {
    graph: Graph,
    outlets: Outlets<T>,
    /// Subtasks of the operator that sends.
    parallelism: u32,
}

impl<T> fmt::Debug for Stream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("parallelism", &self.parallelism).finish_non_exhaustive()
    }
}

impl<T> Clone for Stream<T> {
    fn clone(&self) -> Self {
        Self {
            graph: Rc::clone(&self.graph),
            outlets: self.outlets.clone(),
            parallelism: self.parallelism,
        }
    }
}

impl<T: Clone + Send + 'static> Stream<T> {
    /// Makes any number of records of each, on the sender's thread and without state. An error of
    /// `map` fails the attempt.
    pub fn flat_map<U, F>(&self, map: F) -> Stream<U>
    where
        U: Clone + Send + 'static,
        F: Fn(T, &mut Output<U>) -> Result<()> + Send + Sync + 'static,
    {
        let outlets = Outlets::<U>::new();
        let next = outlets.clone();
        let map = Arc::new(map);
        self.outlets.add(move |task| {
            let stage = FlatMap::new(Arc::clone(&map), next.output(task)?);
            Ok(Box::new(stage) as Box<dyn Push<T>>)
        });
        Stream { graph: Rc::clone(&self.graph), outlets, parallelism: self.parallelism }
    }

    /// Makes one record of each, on the sender's thread.
    pub fn map<U, F>(&self, map: F) -> Stream<U>
    where
        U: Clone + Send + 'static,
        F: Fn(T) -> U + Send + Sync + 'static,
    {
        self.flat_map(move |item, output: &mut Output<U>| output.emit(map(item)))
    }

    /// Keeps the records for which `keep` is true, on the sender's thread.
    pub fn filter<F>(&self, keep: F) -> Stream<T>
    where
        F: Fn(&T) -> bool + Send + Sync + 'static,
    {
        self.flat_map(
            move |item, output: &mut Output<T>| {
                if keep(&item) { output.emit(item) } else { Ok(()) }
            },
        )
    }
}

impl<T: Exchange> Stream<T> {
    /// Sends records of equal keys to the same subtask, in order per sender.
    pub fn key_by<K, F>(&self, key: F) -> KeyedStream<T, impl EncodeKey<T>>
    where
        K: Serialize,
        F: Fn(&T) -> K + Send + Sync + 'static,
    {
        self.keyed(move |item: &T, encoded: &mut Vec<u8>| codec::encode_into(&key(item), encoded))
    }

    /// As [`key_by`](Self::key_by), for a key that lies in the record.
    pub fn key_by_ref<K, F>(&self, key: F) -> KeyedStream<T, impl EncodeKey<T>>
    where
        K: Serialize + ?Sized,
        F: for<'a> Fn(&'a T) -> &'a K + Send + Sync + 'static,
    {
        self.keyed(move |item: &T, encoded: &mut Vec<u8>| codec::encode_into(key(item), encoded))
    }

    fn keyed<E: EncodeKey<T>>(&self, encode_key: E) -> KeyedStream<T, E> {
        let dealing = Dealing::by_key(Arc::new(encode_key));
        KeyedStream { stream: self.clone(), dealing, encode_key: PhantomData }
    }

    pub(super) fn process<U, O, P>(
        &self,
        dealing: &Dealing<T>,
        uid: &str,
        parallelism: u32,
        open: O,
    ) -> Result<Stream<U>>
    where
        U: Clone + Send + 'static,
        O: Fn(&mut Scope) -> Result<P> + Send + Sync + 'static,
        P: FnMut(T, &mut Output<U>) -> Result<()> + 'static,
    {
        self.operator(dealing, uid, parallelism, Closure::open(open))
    }

    fn operator<U, O, P>(
        &self,
        dealing: &Dealing<T>,
        uid: &str,
        parallelism: u32,
        open: O,
    ) -> Result<Stream<U>>
    where
        U: Clone + Send + 'static,
        O: Fn(&mut Scope) -> Result<P> + Send + Sync + 'static,
        P: Operator<T, U>,
    {
        let outlets = Outlets::new();
        self.connect(dealing, NodeSpec::new(uid, parallelism, Role::Process)?, |spec, edge| {
            Arc::new(ProcessNode::new(spec, edge, open, outlets.clone()))
        })?;
        Ok(Stream { graph: Rc::clone(&self.graph), outlets, parallelism })
    }

    pub(super) fn sink<S, O>(
        &self,
        dealing: &Dealing<T>,
        uid: &str,
        parallelism: u32,
        open: O,
    ) -> Result<()>
    where
        S: Sink<T>,
        O: Fn(&SinkContext) -> Result<S> + Send + Sync + 'static,
    {
        self.connect(dealing, NodeSpec::new(uid, parallelism, Role::Sink)?, |spec, edge| {
            Arc::new(SinkNode::new(spec, edge, open))
        })
    }

    /// Adds a node that takes this stream.
    fn connect(
        &self,
        dealing: &Dealing<T>,
        mut spec: NodeSpec,
        node: impl FnOnce(NodeSpec, Arc<Edge<T>>) -> Arc<dyn Node>,
    ) -> Result<()> {
        spec.has_custom_partitioner = dealing.is_custom;
        let max_parallelism = spec.max_parallelism.clone();
        let edge = Arc::new(dealing.edge(self.parallelism, &spec)?);
        let receiver = add(&self.graph, node(spec, Arc::clone(&edge)))?;
        let dealing = dealing.clone();
        self.outlets.add(move |task| dealing.writer(&edge, receiver, max_parallelism.get(), task));
        Ok(())
    }
}

/// Appends the encoding of a record's key; made by [`Stream::key_by`].
pub trait EncodeKey<T>: Fn(&T, &mut Vec<u8>) -> Result<()> + Send + Sync + 'static {}
impl<T, F: Fn(&T, &mut Vec<u8>) -> Result<()> + Send + Sync + 'static> EncodeKey<T> for F {}

/// A stream whose records are dealt out by key (Flink: `KeyedStream`).
pub struct KeyedStream<T, E> {
    stream: Stream<T>,
    dealing: Dealing<T>,
    encode_key: PhantomData<fn(&E)>,
}

impl<T, E> fmt::Debug for KeyedStream<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedStream").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl<T: Exchange, E: EncodeKey<T>> KeyedStream<T, E> {
    /// Adds an operator with state that is a closure (Flink: `KeyedProcessFunction` without timers).
    ///
    /// `open` runs on each subtask's own thread at the start of every attempt; it registers states
    /// and returns what is called with each record. States are filled after it returned.
    ///
    /// # Errors
    /// `Invalid` when the uid is no name or used twice, or the parallelism is 0 or above 32 768.
    pub fn process<U, O, P>(&self, uid: &str, parallelism: u32, open: O) -> Result<Stream<U>>
    where
        U: Clone + Send + 'static,
        O: Fn(&mut Scope) -> Result<P> + Send + Sync + 'static,
        P: FnMut(T, &mut Output<U>) -> Result<()> + 'static,
    {
        self.stream.process(&self.dealing, uid, parallelism, open)
    }

    /// Adds an operator with state and timers (Flink: `KeyedProcessFunction`); see [`Operator`].
    ///
    /// `open` runs as that of [`process`](Self::process) does, and returns the operator.
    ///
    /// # Errors
    /// As [`process`](Self::process).
    pub fn operator<U, O, P>(&self, uid: &str, parallelism: u32, open: O) -> Result<Stream<U>>
    where
        U: Clone + Send + 'static,
        O: Fn(&mut Scope) -> Result<P> + Send + Sync + 'static,
        P: Operator<T, U>,
    {
        self.stream.operator(&self.dealing, uid, parallelism, open)
    }

    /// Adds a transactional sink; `open` makes one subtask of it at the start of every attempt.
    ///
    /// # Errors
    /// As [`process`](Self::process).
    pub fn sink<S, O>(&self, uid: &str, parallelism: u32, open: O) -> Result<()>
    where
        S: Sink<T>,
        O: Fn(&SinkContext) -> Result<S> + Send + Sync + 'static,
    {
        self.stream.sink(&self.dealing, uid, parallelism, open)
    }
}
