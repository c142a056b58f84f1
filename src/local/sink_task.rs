//! The task of a sink: seals at each cut, persists before the acknowledgement, commits after the
//! completion.
//!
//! INVARIANT: every checkpoint carries all tokens whose commit has not returned. A checkpoint that
//! fails aborts no transaction: its records lie before the next cut, and its token travels on.

#[cfg(test)]
mod tests;

use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam::channel::Sender;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ids::{CheckpointId, TaskId};
use crate::local::background::{Work, guard};
use crate::local::exchange::{Edge, ExchangeOptions};
use crate::local::in_flight::Restored;
use crate::local::input_loop::{InputLoop, Timely, Worker};
use crate::local::node::{Node, NodeSpec, Recovery, TaskEnv, TaskEvent, homeless};
use crate::local::participant::{Part, Snapshotter};
use crate::local::push::Downstream;
use crate::local::sink::{Committer, Sink, SinkContext, Token};
use crate::local::source::Exchange;
use crate::message::{Barrier, CheckpointFailureReason};
use crate::state::{
    SectionKey, SectionKind, SnapshotSink, SnapshotSource, codec, read_entries, write_entry,
};

/// The state name of a sink's tokens.
const TOKENS: &str = "tokens";

pub(super) struct SinkNode<T, S: Sink<T>, O> {
    spec: NodeSpec,
    edge: Arc<Edge<T>>,
    open: O,
    /// Made by `recover` for the tasks of the attempt.
    ready: Mutex<Vec<Option<Ready<T, S>>>>,
}

/// Both halves of one subtask.
struct Ready<T, S: Sink<T>> {
    sink: S,
    committer: S::Committer,
}

impl<T, S, O> SinkNode<T, S, O>
where
    S: Sink<T>,
    O: Fn(&SinkContext) -> Result<S>,
{
    pub(super) fn new(spec: NodeSpec, edge: Arc<Edge<T>>, open: O) -> Self {
        Self { spec, edge, open, ready: Mutex::default() }
    }

    fn open_all(&self, engine: &Engine) -> Result<Vec<(TaskId, Ready<T, S>)>> {
        let mut all = Vec::new();
        for task in self.spec.tasks() {
            let context = SinkContext {
                task: task.clone(),
                parallelism: self.spec.parallelism,
                attempt: engine.attempt(),
                owner: engine.owner(),
            };
            let ready = guard(&task, || {
                let sink = (self.open)(&context)?;
                let committer = sink.committer()?;
                Ok(Ready { sink, committer })
            })?;
            all.push((task, ready));
        }
        Ok(all)
    }
}

impl<T, S, O> Node for SinkNode<T, S, O>
where
    T: Exchange,
    S: Sink<T>,
    O: Fn(&SinkContext) -> Result<S> + Send + Sync,
{
    fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    fn connect(&self, options: ExchangeOptions) {
        self.edge.connect(options);
    }

    fn disconnect(&self) {
        self.edge.disconnect();
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn recover(&self, engine: &Engine, how: Recovery) -> Result<()> {
        let mut all = self.open_all(engine)?;
        let mut held = Vec::new();
        for (task, mut state) in engine.states_of(&self.spec.uid)? {
            held.extend(restored_tokens(&mut *state, &task)?);
        }
        held.sort_by_key(|token| token.checkpoint);
        // CRASH: between any two of these steps: the next start repeats them all.
        if let Some((task, first)) = all.first_mut() {
            guard(task, || {
                first.committer.abort(&held)?;
                if let Err(error) = first.committer.rewind(engine.restored()) {
                    not_undone(error, engine, how)?;
                }
                held.iter().try_for_each(|token| first.committer.commit(token))
            })?;
        }
        *self.ready.lock().unwrap_or_else(PoisonError::into_inner) =
            all.into_iter().map(|(_, ready)| Some(ready)).collect();
        Ok(())
    }

    fn run(&self, env: &mut TaskEnv) -> Result<()> {
        let receivers = self.edge.receivers_of(env.subtask)?;
        let ready = {
            let mut all = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
            let index = usize::try_from(env.subtask).unwrap_or(usize::MAX);
            all.get_mut(index).and_then(Option::take)
        };
        let Ready { sink, committer } =
            ready.ok_or_else(|| Error::internal("a sink has no such subtask"))?;
        let pending = Pending {
            committer,
            tokens: Vec::new(),
            task: env.handle.id().clone(),
            events: env.shared.events.clone(),
        };
        let worker = SinkWorker { sink, pending: Arc::new(Mutex::new(pending)), item: PhantomData };
        let mut restored = Restored::new();
        while let Some(key) = env.state.next_section()? {
            // Tokens were committed before any task began.
            if key.kind == SectionKind::Channel {
                restored.take(&self.edge, env)?;
            }
        }
        InputLoop::new(env, receivers, restored.into_records(), None, worker).run()
    }
}

/// What a sink committed after the restored checkpoint stays. Going on nevertheless means that its
/// records come twice.
fn not_undone(error: Error, engine: &Engine, how: Recovery) -> Result<()> {
    let restored = engine.restored();
    // Another attempt may have more luck.
    if how.allow_duplicates && !error.is_retryable() {
        let restored = restored.map_or(0, |id| id.0);
        tracing::warn!(restored, %error, "a sink undoes nothing: its records may come twice");
        return Ok(());
    }
    let Some(newest) = engine.newest_given_up() else { return Err(error) };
    let to = restored.map_or_else(|| "the beginning".to_owned(), |id| format!("checkpoint {id}"));
    Err(error.context(format!(
        "going back from checkpoint {newest}, which had completed, to {to} needs a sink that can undo          what it committed since, or allow_duplicates"
    )))
}

fn restored_tokens(state: &mut dyn SnapshotSource, task: &TaskId) -> Result<Vec<Token>> {
    let mut tokens = Vec::new();
    while let Some(key) = state.next_section()? {
        match key.kind {
            SectionKind::Tokens => {}
            SectionKind::Channel => continue,
            _ => return Err(homeless(&key, task)),
        }
        read_entries(state.body(), |_, token| {
            tokens.push(codec::decode(token)?);
            Ok(())
        })?;
    }
    Ok(tokens)
}

/// The background half of one subtask. Its lock is never contended: the work of a task is done in
/// order on one thread.
struct Pending<C> {
    committer: C,
    /// Not committed yet, by checkpoint.
    tokens: Vec<Token>,
    task: TaskId,
    events: Sender<TaskEvent>,
}

impl<C: Committer> Pending<C> {
    fn persist(&mut self, id: CheckpointId, sealed: C::Sealed) -> Result<()> {
        let token = self.committer.persist(sealed)?;
        if token.checkpoint != id {
            return Err(Error::invalid(format!(
                "the sink made a token of checkpoint {} for checkpoint {id}",
                token.checkpoint
            )));
        }
        self.tokens.push(token);
        Ok(())
    }

    fn commit_up_to(&mut self, id: CheckpointId) -> Result<()> {
        let due = self.tokens.partition_point(|token| token.checkpoint <= id);
        for token in self.tokens.get(..due).unwrap_or_default() {
            self.committer.commit(token)?;
        }
        self.tokens.drain(..due);
        let _ = self.events.send(TaskEvent::Committed { task: self.task.clone(), id });
        Ok(())
    }
}

struct SinkWorker<T, S: Sink<T>> {
    sink: S,
    pending: Arc<Mutex<Pending<S::Committer>>>,
    item: PhantomData<fn(T)>,
}

impl<T, S: Sink<T>> Worker<T> for SinkWorker<T, S> {
    fn record(&mut self, item: T) -> Result<()> {
        self.sink.write(item)
    }

    fn timely(&mut self) -> Option<&mut dyn Timely> {
        None
    }
}

impl<T, S: Sink<T>> Snapshotter for SinkWorker<T, S> {
    fn downstream(&mut self) -> Option<&mut dyn Downstream> {
        None
    }

    fn freeze(&mut self, barrier: Barrier) -> Result<Part> {
        let id = barrier.id;
        let sealed = self.sink.seal(id)?;
        let pending = Arc::clone(&self.pending);
        Ok(Box::new(move |cut| {
            let mut pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
            let persisted = sealed.map_or(Ok(()), |sealed| pending.persist(id, sealed));
            if let Err(error) = persisted {
                cut.handle.decline(id, CheckpointFailureReason::CheckpointAsyncException);
                return Err(error);
            }
            // The tokens of one that is declined travel on.
            cut.snapshot(&mut |sink| write_tokens(&pending.tokens, sink));
            Ok(())
        }))
    }

    fn completed(&mut self, id: CheckpointId) -> Option<Work> {
        let pending = Arc::clone(&self.pending);
        Some(Box::new(move || {
            pending.lock().unwrap_or_else(PoisonError::into_inner).commit_up_to(id)
        }))
    }
}

fn write_tokens(tokens: &[Token], sink: &mut dyn SnapshotSink) -> Result<()> {
    if tokens.is_empty() {
        return Ok(());
    }
    let mut entry = Vec::new();
    sink.section(&SectionKey::new(SectionKind::Tokens, TOKENS), &mut |out| {
        tokens.iter().try_for_each(|token| write_entry(&mut entry, &[], token, out))
    })
}
