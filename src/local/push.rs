//! The push side of a task: stages chained on one thread, ending in exchanges.
//!
//! One dynamic call per record and stage; no allocation. Signals take the same way as records, so
//! they cannot overtake them.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Result;
use crate::local::control::ChannelEvent;
use crate::local::wiring::TaskWiring;

/// Takes records and signals, in order.
pub(super) trait Push<T> {
    fn push(&mut self, item: T) -> Result<()>;
    fn signal(&mut self, signal: Signal) -> Result<()>;
}

/// What passes through stages beside records.
#[derive(Debug, Clone, Copy)]
pub(super) enum Signal {
    /// Nothing may stay behind in a buffer.
    Flush,
    /// For every receiving task, after all records pushed so far.
    Event(ChannelEvent),
}

/// Where an operator's closure puts its results (Flink: `Collector`).
pub struct Output<T>(Box<dyn Push<T>>);

impl<T> fmt::Debug for Output<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").finish_non_exhaustive()
    }
}

impl<T> Output<T> {
    /// Sends one record downstream. Waits when receivers are behind.
    ///
    /// # Errors
    /// Whatever failed downstream on this thread, or `Closed` when the job is stopping. The
    /// operator returns it as its own error.
    pub fn emit(&mut self, item: T) -> Result<()> {
        self.0.push(item)
    }

    pub(super) fn signal(&mut self, signal: Signal) -> Result<()> {
        self.0.signal(signal)
    }
}

/// Builds one consumer of a stream for one task, on that task's thread.
pub(super) type MakePush<T> = Arc<dyn Fn(&TaskWiring) -> Result<Box<dyn Push<T>>> + Send + Sync>;

/// The consumers of a stream, as the flow grows.
pub(super) struct Outlets<T>(Arc<Mutex<Vec<MakePush<T>>>>);

impl<T> Clone for Outlets<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Clone + 'static> Outlets<T> {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    pub(super) fn add(
        &self,
        make: impl Fn(&TaskWiring) -> Result<Box<dyn Push<T>>> + Send + Sync + 'static,
    ) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(make));
    }

    pub(super) fn output(&self, wiring: &TaskWiring) -> Result<Output<T>> {
        let makers = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut all = makers.iter().map(|make| make(wiring)).collect::<Result<Vec<_>>>()?;
        let Some(last) = all.pop() else {
            return Ok(Output(Box::new(Discard)));
        };
        if all.is_empty() {
            return Ok(Output(last));
        }
        Ok(Output(Box::new(FanOut { others: all, last })))
    }
}

struct Discard;

impl<T> Push<T> for Discard {
    fn push(&mut self, _: T) -> Result<()> {
        Ok(())
    }

    fn signal(&mut self, _: Signal) -> Result<()> {
        Ok(())
    }
}

/// Gives each consumer a copy, and the last one the record itself.
struct FanOut<T> {
    others: Vec<Box<dyn Push<T>>>,
    last: Box<dyn Push<T>>,
}

impl<T: Clone> Push<T> for FanOut<T> {
    fn push(&mut self, item: T) -> Result<()> {
        for other in &mut self.others {
            other.push(item.clone())?;
        }
        self.last.push(item)
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        for other in &mut self.others {
            other.signal(signal)?;
        }
        self.last.signal(signal)
    }
}

/// A stateless stage on its sender's thread.
pub(super) struct FlatMap<F, U> {
    map: Arc<F>,
    output: Output<U>,
}

impl<F, U> FlatMap<F, U> {
    pub(super) fn new(map: Arc<F>, output: Output<U>) -> Self {
        Self { map, output }
    }
}

impl<T, U, F: Fn(T, &mut Output<U>) -> Result<()>> Push<T> for FlatMap<F, U> {
    fn push(&mut self, item: T) -> Result<()> {
        (self.map)(item, &mut self.output)
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        self.output.signal(signal)
    }
}
