//! How a stream's records are dealt out among the subtasks of the next operator.
//!
//! Owns the kinds of exchange: what each does with a record, whether barriers may overtake on it, and
//! who gets its records on their way when the parallelism has changed.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::local::exchange::{Edge, Home, KeyOf, Owner};
use crate::local::flow::{EncodeKey, Stream};
use crate::local::max_parallelism::MaxParallelism;
use crate::local::node::NodeSpec;
use crate::local::process::Scope;
use crate::local::push::{Output, Push};
use crate::local::router::{ByFunction, ByKey, ByTurns, ToAll};
use crate::local::sink::{Sink, SinkContext};
use crate::local::source::Exchange;
use crate::local::wiring::TaskWiring;
use crate::local::writer::ExchangeWriter;
use crate::message::EdgeKind;
use crate::state::encoded_key_owner;

type MakeWriter<T> =
    Arc<dyn Fn(&Edge<T>, usize, u32, &TaskWiring) -> Result<Box<dyn Push<T>>> + Send + Sync>;

type MakeHome<T> = Arc<dyn Fn(MaxParallelism) -> Home<T> + Send + Sync>;

/// One kind of exchange.
pub(super) struct Dealing<T> {
    pub(super) kind: EdgeKind,
    /// The records go where a function of the user's says.
    pub(super) is_custom: bool,
    /// Sender and receiver with the same number belong together.
    is_forward: bool,
    key: Option<KeyOf<T>>,
    make_home: MakeHome<T>,
    make_writer: MakeWriter<T>,
}

impl<T> Clone for Dealing<T> {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone(),
            make_home: Arc::clone(&self.make_home),
            make_writer: Arc::clone(&self.make_writer),
            ..*self
        }
    }
}

impl<T: Exchange> Dealing<T> {
    pub(super) fn by_key(encode_key: Arc<impl EncodeKey<T>>) -> Self {
        let of_home = Arc::clone(&encode_key);
        let of_record = Arc::clone(&encode_key);
        Self {
            kind: EdgeKind::AllToAll,
            is_custom: false,
            is_forward: false,
            key: Some(Arc::new(move |item, key| of_record(item, key))),
            make_home: Arc::new(move |max_parallelism: MaxParallelism| {
                let encode_key = Arc::clone(&of_home);
                Home::OfRecord(Arc::new(move |item: &T, parallelism| {
                    let mut key = Vec::new();
                    encode_key(item, &mut key)?;
                    Ok(encoded_key_owner(&key, max_parallelism.get(), parallelism))
                }))
            }),
            make_writer: Arc::new(move |edge, receiver, max_parallelism, task| {
                let encode_key = Arc::clone(&encode_key);
                let encode = move |item: &T, key: &mut Vec<u8>| encode_key(item, key);
                let router = ByKey::new(encode, max_parallelism);
                Ok(Box::new(ExchangeWriter::new(edge, receiver, router, task)?))
            }),
        }
    }

    fn by_turns(kind: EdgeKind, is_forward: bool) -> Self {
        Self {
            kind,
            is_custom: false,
            is_forward,
            key: None,
            make_home: Arc::new(|_| Home::ByTurns),
            make_writer: Arc::new(|edge, receiver, _, task| {
                Ok(Box::new(ExchangeWriter::new(edge, receiver, ByTurns::default(), task)?))
            }),
        }
    }

    fn to_all() -> Self {
        Self {
            kind: EdgeKind::Broadcast,
            is_custom: false,
            is_forward: false,
            key: None,
            make_home: Arc::new(|_| Home::ByTurns),
            make_writer: Arc::new(|edge, receiver, _, task| {
                Ok(Box::new(ExchangeWriter::new(edge, receiver, ToAll, task)?))
            }),
        }
    }

    fn by_function(owner: Owner<T>) -> Self {
        let of_home = Arc::clone(&owner);
        Self {
            kind: EdgeKind::AllToAll,
            is_custom: true,
            is_forward: false,
            key: None,
            make_home: Arc::new(move |_| Home::OfRecord(Arc::clone(&of_home))),
            make_writer: Arc::new(move |edge, receiver, _, task| {
                let owner = Arc::clone(&owner);
                let router = ByFunction::new(move |item: &T, lanes| owner(item, lanes));
                Ok(Box::new(ExchangeWriter::new(edge, receiver, router, task)?))
            }),
        }
    }

    /// The channels from a stream with so many subtasks into an operator.
    pub(super) fn edge(&self, senders: u32, receivers: &NodeSpec) -> Result<Edge<T>> {
        let max = receivers.max_parallelism.clone();
        let receivers = receivers.parallelism;
        if self.is_forward && senders != receivers {
            return Err(Error::invalid(format!(
                "a stream of {senders} subtasks is forwarded to {receivers}; they must be as many, \
                 or `rescale` be used"
            )));
        }
        let edge = Edge::new(senders, receivers, self.kind, (self.make_home)(max));
        Ok(edge.with_key(self.key.clone()))
    }

    /// Builds the sending half for one task.
    pub(super) fn writer(
        &self,
        edge: &Edge<T>,
        receiver: usize,
        max_parallelism: u32,
        task: &TaskWiring,
    ) -> Result<Box<dyn Push<T>>> {
        (self.make_writer)(edge, receiver, max_parallelism, task)
    }
}

/// A stream whose records are dealt out otherwise than by key.
///
/// Operators on it have no [`KeyedMap`](crate::state::KeyedMap): a key may turn up in any subtask.
pub struct DealtStream<T> {
    stream: Stream<T>,
    dealing: Dealing<T>,
}

impl<T> fmt::Debug for DealtStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DealtStream")
            .field("stream", &self.stream)
            .field("kind", &self.dealing.kind)
            .finish_non_exhaustive()
    }
}

impl<T: Exchange> Stream<T> {
    /// Sends each sender's records to one receiver after the other (Flink: `rebalance`).
    pub fn rebalance(&self) -> DealtStream<T> {
        self.dealt(Dealing::by_turns(EdgeKind::AllToAll, false))
    }

    /// Sends the records of each subtask to the one with the same number; there must be as many
    /// (Flink: `forward`). Checkpoints stay aligned here, however they are configured.
    pub fn forward(&self) -> DealtStream<T> {
        self.dealt(Dealing::by_turns(EdgeKind::Pointwise, true))
    }

    /// Sends the records of each subtask to a few receivers of its own, one after the other (Flink:
    /// `rescale`). Checkpoints stay aligned here, however they are configured.
    pub fn rescale(&self) -> DealtStream<T> {
        self.dealt(Dealing::by_turns(EdgeKind::Pointwise, false))
    }

    /// Sends each record to every receiver (Flink: `broadcast`). Checkpoints stay aligned here, however
    /// they are configured.
    pub fn broadcast(&self) -> DealtStream<T> {
        self.dealt(Dealing::to_all())
    }

    /// Sends each record to the receiver that `choose` says, of so many, counted from 0 (Flink:
    /// `partitionCustom`). A job with it is refused with unaligned checkpoints, as in Flink, unless
    /// these are [forced](crate::config::CheckpointConfigBuilder::force_unaligned): after a restart
    /// with another parallelism, a record on its way goes where `choose` says then.
    pub fn partition<F>(&self, choose: F) -> DealtStream<T>
    where
        F: Fn(&T, u32) -> u32 + Send + Sync + 'static,
    {
        self.dealt(Dealing::by_function(Arc::new(move |item: &T, of| Ok(choose(item, of)))))
    }

    fn dealt(&self, dealing: Dealing<T>) -> DealtStream<T> {
        DealtStream { stream: self.clone(), dealing }
    }
}

impl<T: Exchange> DealtStream<T> {
    /// Adds an operator, as [`KeyedStream::process`](crate::local::KeyedStream::process) does.
    ///
    /// # Errors
    /// `Invalid` when the uid is no name or used twice, or the parallelism is 0 or above 32 768, or
    /// another than that of a stream that is forwarded.
    pub fn process<U, O, P>(&self, uid: &str, parallelism: u32, open: O) -> Result<Stream<U>>
    where
        U: Clone + Send + 'static,
        O: Fn(&mut Scope) -> Result<P> + Send + Sync + 'static,
        P: FnMut(T, &mut Output<U>) -> Result<()> + 'static,
    {
        self.stream.process(&self.dealing, uid, parallelism, open)
    }

    /// Adds a transactional sink, as [`KeyedStream::sink`](crate::local::KeyedStream::sink) does.
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
