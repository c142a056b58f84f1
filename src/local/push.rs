//! The push side of a task: stages chained on one thread, ending in exchanges.
//!
//! One dynamic call per record and stage; no allocation. Signals take the same way as records: within
//! the task they cannot overtake them.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam::channel::Select;

use crate::error::Result;
use crate::local::control::{ChannelEvent, Inbox};
use crate::local::wiring::TaskWiring;

/// The way out of a task, without the type of its records.
pub(super) trait Downstream {
    /// Takes a signal, behind all records so far.
    fn signal(&mut self, signal: Signal) -> Result<()>;

    /// Tries again to send what found a channel full.
    fn retry(&mut self) -> Result<()>;

    /// Adds the channels that have to get room first.
    fn wait_for<'a>(&'a self, select: &mut Select<'a>);
}

/// Takes records and signals, in order.
pub(super) trait Push<T>: Downstream {
    fn push(&mut self, item: T) -> Result<()>;
}

/// What passes through stages beside records.
#[derive(Debug, Clone, Copy)]
pub(super) enum Signal {
    /// Nothing may stay behind in a buffer.
    Flush,
    /// No record with this event time, in milliseconds, or an earlier one comes any more. It travels with
    /// the records and waits in their buffers.
    Watermark(u64),
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
    /// Sends one record downstream. Waits when receivers are far behind and this record makes more
    /// than fits between the tasks; else the task waits before its next record.
    ///
    /// # Errors
    /// Whatever failed downstream on this thread, or `Closed` when the job is stopping. The
    /// operator returns it as its own error.
    pub fn emit(&mut self, item: T) -> Result<()> {
        self.0.push(item)
    }
}

impl<T> Downstream for Output<T> {
    fn signal(&mut self, signal: Signal) -> Result<()> {
        self.0.signal(signal)
    }

    fn retry(&mut self) -> Result<()> {
        self.0.retry()
    }

    fn wait_for<'a>(&'a self, select: &mut Select<'a>) {
        self.0.wait_for(select);
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
}

impl Downstream for Discard {
    fn signal(&mut self, _: Signal) -> Result<()> {
        Ok(())
    }

    fn retry(&mut self) -> Result<()> {
        Ok(())
    }

    fn wait_for<'a>(&'a self, _: &mut Select<'a>) {}
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
}

impl<T> Downstream for FanOut<T> {
    fn signal(&mut self, signal: Signal) -> Result<()> {
        for other in &mut self.others {
            other.signal(signal)?;
        }
        self.last.signal(signal)
    }

    fn retry(&mut self) -> Result<()> {
        for other in &mut self.others {
            other.retry()?;
        }
        self.last.retry()
    }

    fn wait_for<'a>(&'a self, select: &mut Select<'a>) {
        for other in &self.others {
            other.wait_for(select);
        }
        self.last.wait_for(select);
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
}

impl<F, U> Downstream for FlatMap<F, U> {
    fn signal(&mut self, signal: Signal) -> Result<()> {
        self.output.signal(signal)
    }

    fn retry(&mut self) -> Result<()> {
        self.output.retry()
    }

    fn wait_for<'a>(&'a self, select: &mut Select<'a>) {
        self.output.wait_for(select);
    }
}

/// Waits until a full channel may have room, or for a control message.
pub(super) fn wait_for_room(
    inbox: &Inbox,
    downstream: Option<&mut (dyn Downstream + '_)>,
) -> Result<()> {
    let Some(downstream) = downstream else { return Ok(()) };
    downstream.retry()?;
    if inbox.is_stuck() {
        let downstream = &*downstream;
        inbox.wait(|select| downstream.wait_for(select), None)?;
    }
    Ok(())
}
