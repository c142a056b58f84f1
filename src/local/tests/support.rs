//! Sources, sinks and flows that the tests share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::catalog::Checkpoints;
use crate::config::{CheckpointConfig, EffectiveConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::ids::JobId;
use crate::local::{
    Committer, ExchangeOptions, Flow, Job, JobBuilder, JobEnd, Next, Output, RestartPolicy, Scope,
    Sink, SinkContext, Source, Stream, Token,
};
use crate::storage::{CheckpointStorage, JobStorage, SledCheckpointStorage};

/// A sled store in a directory that goes with it.
#[derive(Debug)]
struct TemporaryStorage {
    inner: SledCheckpointStorage,
    _directory: tempfile::TempDir,
}

impl CheckpointStorage for TemporaryStorage {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn open(&self, job: &JobId) -> Result<JobStorage> {
        self.inner.open(job)
    }
}

pub(super) fn storage() -> Arc<dyn CheckpointStorage> {
    let directory = tempfile::tempdir().unwrap();
    let inner = SledCheckpointStorage::new(directory.path());
    Arc::new(TemporaryStorage { inner, _directory: directory })
}

pub(super) fn config(interval_ms: i64, concurrent: i32) -> EffectiveConfig {
    let mut config = CheckpointConfig::new();
    config.set_checkpoint_interval(interval_ms.max(10)).unwrap();
    config.set_max_concurrent_checkpoints(concurrent).unwrap();
    config.build().unwrap()
}

pub(super) fn tiny() -> ExchangeOptions {
    ExchangeOptions::default().batch_records(1).queued_batches(1)
}

/// A small random generator, so that a test's run is named by its seed.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// How many more failures a job will see, and when: after so many records over all sources.
#[derive(Debug, Default)]
pub(super) struct Failures {
    left: Mutex<Vec<u64>>,
    yielded: AtomicU64,
}

impl Failures {
    /// The points, each counted from the failure before it.
    pub(super) fn after(mut points: Vec<u64>) -> Arc<Self> {
        points.reverse();
        Arc::new(Self { left: Mutex::new(points), yielded: AtomicU64::new(0) })
    }

    fn strike(&self) -> bool {
        let yielded = self.yielded.fetch_add(1, Ordering::SeqCst);
        let mut left = self.left.lock().unwrap();
        let strikes = left.last().is_some_and(|point| yielded >= *point);
        if strikes {
            left.pop();
            self.yielded.store(0, Ordering::SeqCst);
        }
        strikes
    }
}

/// A record: which source made it, and its number there.
pub(super) type Record = (u32, u64);

/// Yields `(id, 0)` to `(id, end - 1)`, pausing after every `pause_every` records.
#[derive(Debug)]
pub(super) struct Numbers {
    pub(super) id: u32,
    pub(super) next: u64,
    pub(super) end: u64,
    pub(super) pause_every: u64,
    pub(super) failures: Arc<Failures>,
}

impl Source for Numbers {
    type Item = Record;
    type Position = u64;

    fn position(&self) -> u64 {
        self.next
    }

    fn seek(&mut self, position: u64) -> Result<()> {
        self.next = position;
        Ok(())
    }

    fn next(&mut self) -> Result<Next<Record>> {
        if self.next == self.end {
            return Ok(Next::End);
        }
        if self.failures.strike() {
            // One in two failures is a panic, after the state has changed.
            self.next += 1;
            assert!(self.next.is_multiple_of(2), "a planned panic");
            return Err(Error::new(ErrorKind::Unavailable, "a planned failure"));
        }
        let item = (self.id, self.next);
        self.next += 1;
        if self.next.is_multiple_of(self.pause_every) && self.next.is_multiple_of(2) {
            // Every other pause yields no record, to go on after a wait.
            self.next -= 1;
            self.pause_every = self.pause_every.wrapping_mul(2).max(7);
            return Ok(Next::Wait(Duration::from_micros(300)));
        }
        Ok(Next::Item(item))
    }
}

pub(super) fn numbers(ends: &[u64], failures: &Arc<Failures>) -> Vec<Numbers> {
    (0..)
        .zip(ends)
        .map(|(id, end)| Numbers {
            id,
            next: 0,
            end: *end,
            pause_every: 50,
            failures: Arc::clone(failures),
        })
        .collect()
}

/// What a transactional database would hold: open transactions and committed ones.
#[derive(Debug)]
pub(super) struct Database<T> {
    tables: Mutex<Tables<T>>,
    /// Makes the commit with this number, counted over all, fail once.
    pub(super) fail_commit: AtomicU64,
    pub(super) fail_persist: AtomicU64,
}

#[derive(Debug)]
struct Tables<T> {
    pending: BTreeMap<String, Vec<T>>,
    committed: BTreeMap<String, (CheckpointId, Vec<T>)>,
}

impl<T: Clone + Ord> Database<T> {
    pub(super) fn new() -> Arc<Self> {
        let tables = Tables { pending: BTreeMap::new(), committed: BTreeMap::new() };
        Arc::new(Self {
            tables: Mutex::new(tables),
            fail_commit: AtomicU64::new(u64::MAX),
            fail_persist: AtomicU64::new(u64::MAX),
        })
    }

    /// All committed records, sorted.
    pub(super) fn committed(&self) -> Vec<T> {
        let tables = self.tables.lock().unwrap();
        let mut all: Vec<T> =
            tables.committed.values().flat_map(|(_, rows)| rows.clone()).collect();
        all.sort();
        all
    }

    pub(super) fn pending(&self) -> usize {
        self.tables.lock().unwrap().pending.len()
    }
}

fn countdown(counter: &AtomicU64) -> Result<()> {
    if counter.load(Ordering::SeqCst) != u64::MAX && counter.fetch_sub(1, Ordering::SeqCst) == 0 {
        return Err(Error::new(ErrorKind::Unavailable, "the database is planned to be away"));
    }
    Ok(())
}

/// A sink into a [`Database`].
#[derive(Debug)]
pub(super) struct Insert<T> {
    database: Arc<Database<T>>,
    prefix: String,
    context: SinkContext,
    rows: Vec<T>,
}

#[derive(Debug)]
pub(super) struct InsertCommitter<T>(Arc<Database<T>>);

impl<T> Insert<T> {
    pub(super) fn new(database: &Arc<Database<T>>, context: &SinkContext) -> Self {
        Self {
            database: Arc::clone(database),
            prefix: format!("{}-{}", context.task, context.attempt),
            context: context.clone(),
            rows: Vec::new(),
        }
    }

    /// Of the transaction that this checkpoint seals.
    pub(super) fn token(&self, id: CheckpointId) -> Token {
        let bytes = format!("{}-{id}", self.prefix).into_bytes();
        Token { checkpoint: id, attempt: self.context.attempt, bytes }
    }
}

impl<T> InsertCommitter<T> {
    /// True when something was committed that was sealed after this checkpoint.
    pub(super) fn is_behind(&self, to: Option<CheckpointId>) -> bool {
        let tables = self.0.tables.lock().unwrap();
        tables.committed.values().any(|(id, _)| to.is_none_or(|to| *id > to))
    }
}

impl<T: Clone + Ord + Send + 'static> Sink<T> for Insert<T> {
    type Sealed = (Token, Vec<T>);
    type Committer = InsertCommitter<T>;

    fn committer(&self) -> Result<InsertCommitter<T>> {
        Ok(InsertCommitter(Arc::clone(&self.database)))
    }

    fn write(&mut self, item: T) -> Result<()> {
        self.rows.push(item);
        Ok(())
    }

    fn seal(&mut self, id: CheckpointId) -> Result<Option<(Token, Vec<T>)>> {
        if self.rows.is_empty() {
            return Ok(None);
        }
        Ok(Some((self.token(id), std::mem::take(&mut self.rows))))
    }
}

impl<T: Clone + Ord + Send + 'static> Committer for InsertCommitter<T> {
    type Sealed = (Token, Vec<T>);

    fn persist(&mut self, (token, rows): (Token, Vec<T>)) -> Result<Token> {
        countdown(&self.0.fail_persist)?;
        let name = String::from_utf8(token.bytes.clone()).unwrap();
        self.0.tables.lock().unwrap().pending.insert(name, rows);
        Ok(token)
    }

    fn commit(&mut self, token: &Token) -> Result<()> {
        countdown(&self.0.fail_commit)?;
        let name = String::from_utf8(token.bytes.clone()).unwrap();
        let mut tables = self.0.tables.lock().unwrap();
        match tables.pending.remove(&name) {
            Some(rows) => {
                tables.committed.insert(name, (token.checkpoint, rows));
                Ok(())
            }
            None if tables.committed.contains_key(&name) => Ok(()),
            None => Err(Error::new(ErrorKind::Corrupt, format!("transaction {name} is gone"))),
        }
    }

    fn abort(&mut self, held: &[Token]) -> Result<()> {
        let mut tables = self.0.tables.lock().unwrap();
        tables.pending.retain(|name, _| held.iter().any(|token| token.bytes == name.as_bytes()));
        Ok(())
    }

    fn rewind(&mut self, to: Option<CheckpointId>) -> Result<()> {
        let mut tables = self.0.tables.lock().unwrap();
        tables.committed.retain(|_, (id, _)| to.is_some_and(|to| *id <= to));
        Ok(())
    }
}

/// How many keys the records have.
pub(super) const KEYS: u64 = 97;

pub(super) fn key_of(record: &Record) -> u64 {
    record.1 % KEYS
}

/// The shape of one test job.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) ends: Vec<u64>,
    pub(super) counters: u32,
    pub(super) sinks: u32,
    pub(super) interval_ms: i64,
    pub(super) concurrent: i32,
    pub(super) exchange: ExchangeOptions,
}

/// Three sources of which one ends at once and one early, with a checkpoint every 10 ms.
pub(super) fn shape() -> Shape {
    Shape {
        ends: vec![400, 6_000, 0],
        counters: 2,
        sinks: 2,
        interval_ms: 10,
        concurrent: 1,
        exchange: ExchangeOptions::default(),
    }
}

impl Shape {
    pub(super) fn records(&self) -> Vec<Record> {
        (0..).zip(&self.ends).flat_map(|(id, end)| (0..*end).map(move |n| (id, n))).collect()
    }
}

/// What a run leaves outside of the job.
#[derive(Debug)]
pub(super) struct Outside {
    pub(super) storage: Arc<dyn CheckpointStorage>,
    /// Every record, by a sink behind an exchange of its own.
    pub(super) records: Arc<Database<Record>>,
    /// The running count of each key, by a sink behind the counting operator.
    pub(super) counts: Arc<Database<(u64, u64)>>,
}

impl Outside {
    pub(super) fn new() -> Self {
        Self { storage: storage(), records: Database::new(), counts: Database::new() }
    }
}

/// The name of the counting job.
pub(super) const JOB: &str = "counting";

/// Sources, a keyed count, a sink of its results, and a sink of all records.
pub(super) fn counting<S: Source<Item = Record>>(
    shape: &Shape,
    sources: Vec<S>,
    outside: &Outside,
) -> JobBuilder {
    let flow = Flow::new();
    let records = flow.source("read", sources).unwrap();
    let counts: Stream<(u64, u64)> = records
        .key_by(key_of)
        .process("count", shape.counters, |scope: &mut Scope| {
            let counts = scope.keyed_map::<u64, u64>("counts")?;
            Ok(move |record: Record, out: &mut Output<(u64, u64)>| {
                let key = key_of(&record);
                let count = counts.update(&key, |count| {
                    *count += 1;
                    *count
                })?;
                out.emit((key, count))
            })
        })
        .unwrap();
    let database = Arc::clone(&outside.counts);
    counts
        .key_by_ref(|(key, _): &(u64, u64)| key)
        .sink("counts", shape.sinks, move |context| Ok(Insert::new(&database, context)))
        .unwrap();
    let database = Arc::clone(&outside.records);
    records
        .key_by(|record: &Record| record.1)
        .sink("records", shape.sinks, move |context| Ok(Insert::new(&database, context)))
        .unwrap();
    let config = config(shape.interval_ms, shape.concurrent);
    Job::builder(JOB, flow, config, Arc::clone(&outside.storage))
        .exchange(shape.exchange)
        .restart_policy(fast_restarts())
}

pub(super) fn fast_restarts() -> RestartPolicy {
    RestartPolicy::exponential(Duration::from_millis(1), Duration::from_millis(2))
}

/// The expected end of a counting job, in its state and both sinks.
pub(super) fn assert_exactly_once(shape: &Shape, end: &JobEnd, outside: &Outside) {
    let mut expected = shape.records();
    let mut totals = BTreeMap::new();
    let mut running: Vec<(u64, u64)> = expected
        .iter()
        .map(|record| {
            let total = totals.entry(key_of(record)).or_insert(0);
            *total += 1;
            (key_of(record), *total)
        })
        .collect();
    running.sort_unstable();
    expected.sort_unstable();
    let (records, counts) = (outside.records.committed(), outside.counts.committed());
    let lengths = (records.len(), expected.len(), counts.len(), running.len());
    assert!(records == expected, "the records: {lengths:?}");
    assert!(counts == running, "the running counts: {lengths:?}");
    assert_eq!(outside.records.pending() + outside.counts.pending(), 0, "open transactions");

    let JobEnd::Finished(finished) = end else { panic!("the job ended as {end:?}") };
    let mut state = BTreeMap::new();
    finished
        .keyed_state::<u64, u64>("count", "counts", |key, count| {
            assert_eq!(state.insert(key, count), None, "key {key} is there twice");
            Ok(())
        })
        .unwrap();
    assert_eq!(state, totals, "the state");
}

/// Yields what is left of a file's worth of numbers, but stands still while the gate is shut.
pub(super) struct Gated {
    numbers: Numbers,
    gate: Arc<Mutex<u64>>,
}

impl Source for Gated {
    type Item = Record;
    type Position = u64;

    fn position(&self) -> u64 {
        self.numbers.position()
    }

    fn seek(&mut self, position: u64) -> Result<()> {
        self.numbers.seek(position)
    }

    fn next(&mut self) -> Result<Next<Record>> {
        if self.numbers.next >= *self.gate.lock().unwrap() {
            return Ok(Next::Wait(Duration::from_micros(200)));
        }
        self.numbers.next()
    }
}

pub(super) fn gated(shape: &Shape, gate: &Arc<Mutex<u64>>) -> Vec<Gated> {
    numbers(&shape.ends, &Failures::after(vec![]))
        .into_iter()
        .map(|numbers| Gated { numbers, gate: Arc::clone(gate) })
        .collect()
}

/// The checkpoints and savepoints that the job left.
pub(super) fn stored(outside: &Outside) -> Vec<u64> {
    let storage = outside.storage.open(&JobId::new(JOB).unwrap()).unwrap();
    Checkpoints::new(storage).ids().iter().map(|id| id.0).collect()
}
