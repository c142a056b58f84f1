//! Goal: a sink is led through its verbs as it was promised: one test for each sentence.
//!
//! Method: a sink that writes down every call and can be stopped in the middle of one; a source that
//! yields a record when it is told to; an operator whose snapshot waits or fails when it is told to.
//! Tests wait for calls, never for time. A sink's transaction is named by its checkpoint.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::Read;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::config::{CheckpointConfig, PolicyUpdate};
use crate::engine::{CheckpointOutcome, TriggerHandle};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::local::tests::support::{fast_restarts, storage};
use crate::local::{
    Committer, Flow, Job, JobEnd, JobHandle, Next, Output, Scope, Sink, SinkContext, Source, Token,
};
use crate::message::{CheckpointFailureReason as Reason, CheckpointRequest};
use crate::restore::RestorePolicy;
use crate::state::{SectionKey, SnapshotSink, Stateful};
use crate::storage::CheckpointStorage;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A call of the sink that has returned, but for `PersistBegun`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Call {
    Seal(u64),
    PersistBegun(u64),
    Persist(u64),
    Commit(u64),
    /// With the checkpoints of the tokens that are held.
    Abort(Vec<u64>),
    Rewind(Option<u64>),
}

/// What a test decides, and what it finds.
#[derive(Debug, Default)]
struct Stage {
    calls: Mutex<Vec<Call>>,
    /// Records that the source may yield, and those that the sinks have seen.
    released: AtomicU64,
    written: AtomicU64,
    /// A persist does not return.
    persist_waits: AtomicBool,
    /// The next commit takes effect and fails.
    commit_fails: AtomicBool,
    rewind_fails: AtomicBool,
    /// Checkpoints whose snapshot of the operator does not return, or fails.
    waiting: Mutex<BTreeSet<u64>>,
    failing: Mutex<BTreeSet<u64>>,
}

impl Stage {
    fn call(&self, call: Call) {
        self.calls.lock().unwrap().push(call);
    }

    fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    fn await_call(&self, call: &Call) {
        until(|| self.calls().contains(call));
    }

    fn commits(&self) -> Vec<u64> {
        let commit = |call| if let Call::Commit(id) = call { Some(id) } else { None };
        self.calls().into_iter().filter_map(commit).collect()
    }

    fn persisted(&self) -> Vec<u64> {
        let persist = |call| if let Call::Persist(id) = call { Some(id) } else { None };
        self.calls().into_iter().filter_map(persist).collect()
    }

    /// The calls since the last start of the job, of which each begins with an abort.
    fn since_the_start(&self) -> Vec<Call> {
        let calls = self.calls();
        let start = calls.iter().rposition(|call| matches!(call, Call::Abort(_))).unwrap();
        calls[start..].to_vec()
    }
}

/// Looks again and again, without keeping a core busy.
fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Yields numbers from 0 as far as they are released.
struct Numbers(u64, Arc<Stage>);

impl Source for Numbers {
    type Item = u64;
    type Position = u64;

    fn position(&self) -> u64 {
        self.0
    }

    fn seek(&mut self, position: u64) -> Result<()> {
        self.0 = position;
        Ok(())
    }

    fn next(&mut self) -> Result<Next<u64>> {
        if self.0 >= self.1.released.load(Ordering::SeqCst) {
            return Ok(Next::Wait(Duration::from_micros(200)));
        }
        self.0 += 1;
        Ok(Next::Item(self.0 - 1))
    }
}

/// The operator's snapshot: nothing, in a way that the test decides.
struct Snapshot(Arc<Stage>);

impl Stateful for Snapshot {
    type Frozen = (Arc<Stage>, u64);

    fn freeze(&mut self, id: CheckpointId) -> Self::Frozen {
        (Arc::clone(&self.0), id.0)
    }

    fn write((stage, id): Self::Frozen, _: &mut dyn SnapshotSink) -> Result<()> {
        until(|| !stage.waiting.lock().unwrap().contains(&id));
        if stage.failing.lock().unwrap().contains(&id) {
            return Err(Error::new(ErrorKind::Unavailable, "a planned failure to write"));
        }
        Ok(())
    }

    fn restore(&mut self, _: &SectionKey, _: &mut dyn Read) -> Result<()> {
        Ok(())
    }
}

struct Recorder {
    stage: Arc<Stage>,
    context: SinkContext,
    is_empty: bool,
}

struct RecorderCommitter(Arc<Stage>);

impl Sink<u64> for Recorder {
    type Sealed = Token;
    type Committer = RecorderCommitter;

    fn committer(&self) -> Result<RecorderCommitter> {
        Ok(RecorderCommitter(Arc::clone(&self.stage)))
    }

    fn write(&mut self, number: u64) -> Result<()> {
        self.is_empty = false;
        self.stage.written.fetch_max(number + 1, Ordering::SeqCst);
        Ok(())
    }

    fn seal(&mut self, id: CheckpointId) -> Result<Option<Token>> {
        if std::mem::replace(&mut self.is_empty, true) {
            return Ok(None);
        }
        self.stage.call(Call::Seal(id.0));
        let attempt = self.context.attempt;
        Ok(Some(Token { checkpoint: id, attempt, bytes: id.0.to_le_bytes().to_vec() }))
    }
}

impl Committer for RecorderCommitter {
    type Sealed = Token;

    fn persist(&mut self, token: Token) -> Result<Token> {
        let Self(stage) = self;
        stage.call(Call::PersistBegun(token.checkpoint.0));
        until(|| !stage.persist_waits.load(Ordering::SeqCst));
        stage.call(Call::Persist(token.checkpoint.0));
        Ok(token)
    }

    fn commit(&mut self, token: &Token) -> Result<()> {
        assert_eq!(token.bytes, token.checkpoint.0.to_le_bytes());
        self.0.call(Call::Commit(token.checkpoint.0));
        if self.0.commit_fails.swap(false, Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "a planned failure after the commit"));
        }
        Ok(())
    }

    fn abort(&mut self, held: &[Token]) -> Result<()> {
        self.0.call(Call::Abort(held.iter().map(|token| token.checkpoint.0).collect()));
        Ok(())
    }

    fn rewind(&mut self, to: Option<CheckpointId>) -> Result<()> {
        self.0.call(Call::Rewind(to.map(|id| id.0)));
        if self.0.rewind_fails.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Conflict, "what was committed cannot be undone"));
        }
        Ok(())
    }
}

/// A job with one source, one operator and a sink, and the storage that outlives it.
struct Setting {
    stage: Arc<Stage>,
    storage: Arc<dyn CheckpointStorage>,
    sinks: u32,
}

impl Setting {
    fn new() -> Self {
        Self { stage: Arc::default(), storage: storage(), sinks: 1 }
    }

    fn job(&self, policy: RestorePolicy) -> Job {
        let flow = Flow::new();
        let stage = Arc::clone(&self.stage);
        let sink_stage = Arc::clone(&self.stage);
        flow.source("numbers", vec![Numbers(0, Arc::clone(&self.stage))])
            .unwrap()
            .key_by(|number| *number)
            .process("pass", 1, move |scope: &mut Scope| {
                let snapshot = Rc::new(RefCell::new(Snapshot(Arc::clone(&stage))));
                scope.states().raw("snapshot", snapshot)?;
                Ok(|number: u64, out: &mut Output<u64>| out.emit(number))
            })
            .unwrap()
            .key_by(|number: &u64| *number)
            .sink("sink", self.sinks, move |context| {
                let stage = Arc::clone(&sink_stage);
                Ok(Recorder { stage, context: context.clone(), is_empty: true })
            })
            .unwrap();
        // Checkpoints happen when a test asks for them.
        let config = CheckpointConfig::builder()
            .timeout(PATIENCE * 10)
            .max_concurrent(2)
            .unlimited_failures()
            .num_retained(10)
            .build()
            .unwrap();
        Job::builder("protocol", flow, config, Arc::clone(&self.storage))
            .restart_policy(fast_restarts())
            .restore_policy(policy)
            .build()
            .unwrap()
    }

    fn start(&self) -> Running {
        self.start_from(RestorePolicy::Latest)
    }

    fn start_from(&self, policy: RestorePolicy) -> Running {
        let job = self.job(policy);
        let handle = job.handle();
        let thread = std::thread::spawn(move || job.run().unwrap());
        Running { stage: Arc::clone(&self.stage), handle, thread }
    }
}

/// A job on a thread of its own.
struct Running {
    stage: Arc<Stage>,
    handle: JobHandle,
    thread: JoinHandle<JobEnd>,
}

impl Running {
    /// One more record goes into the open transaction of a sink.
    fn feed(&self) {
        let released = self.stage.released.fetch_add(1, Ordering::SeqCst) + 1;
        until(|| self.stage.written.load(Ordering::SeqCst) == released);
    }

    fn trigger(&self) -> TriggerHandle {
        let mut asked = None;
        until(|| {
            asked = self.handle.trigger_checkpoint(CheckpointRequest::Configured).ok();
            asked.is_some()
        });
        asked.unwrap()
    }

    /// A checkpoint behind a record, complete and committed.
    fn complete(&self) -> u64 {
        self.feed();
        let id = completed(&self.trigger());
        self.stage.await_call(&Call::Commit(id));
        id
    }

    /// The next checkpoint, which has this number, fails by the operator's snapshot. The sink's part is
    /// done by then: a sink that learns of the failure before the barrier seals nothing.
    fn decline(&self, id: u64) {
        self.stage.waiting.lock().unwrap().insert(id);
        self.stage.failing.lock().unwrap().insert(id);
        self.feed();
        let asked = self.trigger();
        self.stage.await_call(&Call::Persist(id));
        self.stage.waiting.lock().unwrap().clear();
        assert_eq!(failed(&asked), (id, Reason::CheckpointAsyncException));
    }

    /// Ends the job as a kill would, but in an orderly way: without a last checkpoint.
    fn stop(self) {
        self.handle.shutdown(Duration::ZERO);
        assert!(matches!(self.thread.join().unwrap(), JobEnd::Suspended { .. }));
    }
}

fn completed(asked: &TriggerHandle) -> u64 {
    match asked.wait(PATIENCE) {
        Some(CheckpointOutcome::Completed(id)) => id.0,
        outcome => panic!("{outcome:?}"),
    }
}

fn failed(asked: &TriggerHandle) -> (u64, Reason) {
    match asked.wait(PATIENCE) {
        Some(CheckpointOutcome::Failed { id: Some(id), reason }) => (id.0, reason),
        outcome => panic!("{outcome:?}"),
    }
}

#[test]
fn the_acknowledgement_waits_for_persist_and_records_do_not() {
    let setting = Setting::new();
    let job = setting.start();
    let stage = &setting.stage;
    stage.persist_waits.store(true, Ordering::SeqCst);
    job.feed();
    let asked = job.trigger();
    stage.await_call(&Call::PersistBegun(1));
    let acknowledged = || {
        let statistics = job.handle.statistics();
        statistics.checkpoint(CheckpointId(1)).map_or(0, |entry| entry.acknowledged_subtasks)
    };
    until(|| acknowledged() == 2);
    (0..3).for_each(|_| job.feed());
    assert_eq!((acknowledged(), asked.try_outcome()), (2, None), "the sink's is missing");
    stage.persist_waits.store(false, Ordering::SeqCst);
    assert_eq!(completed(&asked), 1);
    job.stop();
}

#[test]
fn a_transaction_is_sealed_then_persisted_and_committed_when_its_checkpoint_is_complete() {
    let setting = Setting::new();
    let job = setting.start();
    let stage = &setting.stage;
    stage.waiting.lock().unwrap().insert(1);
    job.feed();
    let asked = job.trigger();
    stage.await_call(&Call::Persist(1));
    job.feed();
    assert_eq!(stage.commits(), [0; 0], "the checkpoint is not complete");
    stage.waiting.lock().unwrap().clear();
    assert_eq!(completed(&asked), 1);
    stage.await_call(&Call::Commit(1));
    let verbs = [Call::Seal(1), Call::PersistBegun(1), Call::Persist(1), Call::Commit(1)];
    assert_eq!(stage.since_the_start()[2..], verbs);
    job.stop();
}

#[test]
fn without_a_record_there_is_no_transaction() {
    let setting = Setting::new();
    let job = setting.start();
    let first = job.complete();
    let second = completed(&job.trigger());
    let third = job.complete();
    assert_eq!(setting.stage.commits(), [first, third]);
    assert_eq!((first, second, third), (1, 2, 3));
    job.stop();
}

#[test]
fn completion_commits_every_token_up_to_its_number_and_none_above() {
    let setting = Setting::new();
    let job = setting.start();
    let stage = &setting.stage;
    stage.waiting.lock().unwrap().extend([1, 2]);
    let asked = [1, 2].map(|id| {
        job.feed();
        let asked = job.trigger();
        stage.await_call(&Call::Persist(id));
        asked
    });
    stage.waiting.lock().unwrap().remove(&1);
    assert_eq!(completed(&asked[0]), 1);
    stage.await_call(&Call::Commit(1));
    job.feed();
    assert_eq!(stage.commits(), [1], "the second is not complete");
    stage.waiting.lock().unwrap().clear();
    assert_eq!(completed(&asked[1]), 2);
    stage.await_call(&Call::Commit(2));
    assert_eq!(stage.commits(), [1, 2]);
    job.stop();
}

#[test]
fn a_declined_checkpoint_aborts_nothing_and_its_token_travels_in_the_next() {
    let setting = Setting::new();
    let job = setting.start();
    let stage = &setting.stage;
    for id in [1, 2] {
        job.decline(id);
    }
    assert_eq!(stage.persisted(), [1, 2]);
    assert_travels_on(&setting, job);
}

#[test]
fn an_expired_checkpoint_aborts_nothing_and_its_token_travels_in_the_next() {
    let setting = Setting::new();
    let job = setting.start();
    let expire_after = |time| job.handle.update(&PolicyUpdate::new().timeout(time)).unwrap();
    expire_after(Duration::from_millis(200));
    let stage = &setting.stage;
    // On a slow machine one expires before it has come to the sink, which seals nothing then.
    for id in 1.. {
        stage.waiting.lock().unwrap().insert(id);
        job.feed();
        assert_eq!(failed(&job.trigger()), (id, Reason::CheckpointExpired));
        stage.waiting.lock().unwrap().clear();
        if stage.persisted().contains(&id) {
            break;
        }
    }
    expire_after(PATIENCE * 10);
    assert_travels_on(&setting, job);
}

/// At least one checkpoint has failed whose transaction is persisted. The next one carries its token
/// with its own, and commits it in its turn.
fn assert_travels_on(setting: &Setting, job: Running) {
    let stage = &setting.stage;
    assert_eq!(stage.commits(), [0; 0]);
    assert!(!stage.persisted().is_empty());
    let id = job.complete();
    let all = stage.persisted();
    assert!(all.len() >= 2 && all.last() == Some(&id), "{all:?}");
    assert_eq!(stage.commits(), all, "every token, by its number");
    let aborts = stage.calls().into_iter().filter(|call| matches!(call, Call::Abort(_)));
    assert_eq!(aborts.count(), 1, "when the job was started");
    job.stop();

    setting.start().stop_when_restored();
    assert_eq!(stage.since_the_start()[0], Call::Abort(all), "what the checkpoint holds");
}

impl Running {
    /// Waits until the start is over.
    fn stop_when_restored(self) {
        // A checkpoint can be asked for when every sink is recovered.
        completed(&self.trigger());
        self.stop();
    }
}

#[test]
fn a_token_whose_commit_has_returned_travels_no_further() {
    let setting = Setting::new();
    let job = setting.start();
    let ids = [job.complete(), job.complete(), job.complete()];
    job.stop();
    setting.start().stop_when_restored();
    assert_eq!(setting.stage.since_the_start()[0], Call::Abort(vec![ids[2]]));
}

#[test]
fn a_start_gives_up_what_is_not_held_then_rewinds_then_commits_again() {
    let setting = Setting::new();
    let stage = &setting.stage;
    let job = setting.start();
    assert_eq!(job.complete(), 1);
    // Persisted, and in no checkpoint that completes.
    job.decline(2);
    job.stop();

    setting.start().stop_when_restored();
    let verbs = [Call::Abort(vec![1]), Call::Rewind(Some(1)), Call::Commit(1)];
    assert_eq!(stage.since_the_start()[..3], verbs);
}

#[test]
fn a_commit_that_fails_after_its_effect_is_called_again_with_the_same_token() {
    let setting = Setting::new();
    let stage = &setting.stage;
    let job = setting.start();
    stage.commit_fails.store(true, Ordering::SeqCst);
    job.feed();
    assert_eq!(completed(&job.trigger()), 1);
    until(|| stage.commits() == [1, 1]);
    assert_eq!(job.complete(), 2);
    assert_eq!(stage.commits(), [1, 1, 2]);
    assert_eq!(job.handle.progress().restarts, 1);
    job.stop();
}

#[test]
fn abort_and_rewind_come_once_for_all_subtasks_and_first_of_all() {
    let setting = Setting { sinks: 3, ..Setting::new() };
    let stage = &setting.stage;
    let job = setting.start();
    // Records for each of the three.
    (0..30).for_each(|_| job.feed());
    assert_eq!(completed(&job.trigger()), 1);
    until(|| stage.commits().len() == 3);
    job.stop();
    assert_eq!(stage.calls()[..2], [Call::Abort(vec![]), Call::Rewind(None)]);

    setting.start().stop_when_restored();
    let verbs = [Call::Abort(vec![1; 3]), Call::Rewind(Some(1))];
    let start = stage.since_the_start();
    assert_eq!(start[..2], verbs);
    assert_eq!(start[2..], [Call::Commit(1), Call::Commit(1), Call::Commit(1)]);
}

#[test]
fn a_start_from_an_older_checkpoint_rewinds_and_fails_when_that_cannot_be() {
    let setting = Setting::new();
    let stage = &setting.stage;
    let job = setting.start();
    assert_eq!([job.complete(), job.complete()], [1, 2]);
    job.stop();

    let older = RestorePolicy::Exact(CheckpointId(1));
    stage.rewind_fails.store(true, Ordering::SeqCst);
    let error = setting.job(older.clone()).run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(stage.since_the_start(), [Call::Abort(vec![1]), Call::Rewind(Some(1))]);

    stage.rewind_fails.store(false, Ordering::SeqCst);
    setting.start_from(older).stop_when_restored();
    let verbs = [Call::Abort(vec![1]), Call::Rewind(Some(1)), Call::Commit(1)];
    assert_eq!(stage.since_the_start()[..3], verbs);
}
