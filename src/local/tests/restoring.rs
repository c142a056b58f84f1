//! Goal: a job goes on from the newest checkpoint that can be restored, with every record once, and no
//! further back; what it cannot do it says.
//!
//! Method: a job is brought to a few checkpoints and stopped; then reads of some fail as planned, or
//! its tasks do, and it is run again. In memory and in sled.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::catalog::Checkpoints;
use crate::config::{CheckpointConfig, ExternalizedCheckpointCleanup as Cleanup};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, JobId};
use crate::limits::FAILURES_BEFORE_SET_ASIDE;
use crate::local::tests::support::{
    Database, Insert, InsertCommitter, JOB, Outside, Record, Shape, assert_exactly_once, counting,
    fast_restarts, gated, shape, storage, stored,
};
use crate::local::{
    Committer, Flow, Job, JobBuilder, JobEnd, JobListener, Output, Progress, RestartPolicy, Scope,
    Sink, Token,
};
use crate::restore::{OperatorRestore, RestorePolicy, RestoreReport};
use crate::storage::faulty::{FaultyStorage, Part};
use crate::storage::{CheckpointStorage, JobManagerCheckpointStorage};

/// Longer than any of these jobs takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everything outside of a job, and the faults of its storage.
struct World {
    outside: Outside,
    faults: FaultyStorage,
    gate: Arc<Mutex<u64>>,
}

/// A world over each kind of storage.
fn worlds() -> [World; 2] {
    let memory: Arc<dyn CheckpointStorage> = Arc::new(JobManagerCheckpointStorage::new());
    [memory, storage()].map(|storage| {
        let faults = FaultyStorage::new(storage);
        let storage = Arc::new(faults.clone());
        let outside = Outside { storage, ..Outside::new() };
        World { outside, faults, gate: Arc::new(Mutex::new(1_000)) }
    })
}

impl World {
    fn job(&self) -> JobBuilder {
        let mut config = CheckpointConfig::new();
        let cleanup = Cleanup::NoExternalizedCheckpoints;
        config.set_checkpoint_interval(10).unwrap().set_externalized_checkpoint_cleanup(cleanup);
        counting(&shape(), gated(&shape(), &self.gate), &self.outside)
            .config(config.build().unwrap())
            .restart_policy(fast_restarts())
    }

    /// Runs a job until three checkpoints are there and its sources stand still; gives these, oldest
    /// first. Between the last two records are committed.
    fn stopped(&self, job: JobBuilder) -> Vec<CheckpointId> {
        let job = job.build().unwrap();
        let handle = job.handle();
        let thread = std::thread::spawn(move || job.run().unwrap());
        for completed in 1..=3 {
            while handle.progress().completed < completed && !thread.is_finished() {
                std::thread::yield_now();
            }
            *self.gate.lock().unwrap() += 500;
        }
        handle.shutdown(PATIENCE);
        assert!(matches!(thread.join().unwrap(), JobEnd::Suspended { .. }));
        let ids: Vec<_> = stored(&self.outside).into_iter().map(CheckpointId).collect();
        assert!(ids.len() > 2, "{ids:?}");
        ids
    }

    fn open(&self) {
        *self.gate.lock().unwrap() = u64::MAX;
    }

    fn marks(&self) -> usize {
        let storage = self.outside.storage.open(&JobId::new(JOB).unwrap()).unwrap();
        Checkpoints::new(storage).marks().unwrap().len()
    }
}

fn two_newest(ids: &[CheckpointId]) -> [CheckpointId; 2] {
    let [.., older, newest] = ids else { panic!("{ids:?}") };
    [*older, *newest]
}

/// Remembers the reports, and calls back before each restart.
struct Told<F> {
    reports: Mutex<Vec<RestoreReport>>,
    with_times: Mutex<Vec<RestoreReport>>,
    restarting: F,
}

impl<F: Fn(&Error) + Send + Sync> JobListener for Told<F> {
    fn restored(&self, report: &RestoreReport) {
        self.reports.lock().unwrap().push(report.clone());
    }

    fn state_restored(&self, report: &RestoreReport) {
        self.with_times.lock().unwrap().push(report.clone());
    }

    fn completed(&self, _: CheckpointId, _: &Progress) {
        let (told, starts) = (self.with_times.lock().unwrap(), self.reports.lock().unwrap());
        assert!(!told.is_empty() && told.len() <= starts.len(), "times come first");
    }

    fn restarting(&self, error: &Error, _: Duration) {
        (self.restarting)(error);
    }
}

impl<F> Told<F> {
    fn restored(&self) -> Vec<Option<CheckpointId>> {
        let reports = self.reports.lock().unwrap();
        reports.iter().map(|report| report.restored.as_ref().map(|info| info.id)).collect()
    }
}

fn told<F: Fn(&Error) + Send + Sync>(restarting: F) -> Arc<Told<F>> {
    Arc::new(Told { reports: Mutex::default(), with_times: Mutex::default(), restarting })
}

#[test]
fn a_damaged_newest_checkpoint_falls_back_and_every_record_counts_once() {
    for world in worlds() {
        let [older, newest] = two_newest(&world.stopped(world.job()));
        world.faults.fail(newest, Part::Commit, ErrorKind::Corrupt);
        world.open();
        let told = told(|error| panic!("{error}"));
        let job = world.job().listener(Arc::clone(&told) as Arc<dyn JobListener>).build().unwrap();
        assert_exactly_once(&shape(), &job.run().unwrap(), &world.outside);
        assert_eq!(told.restored(), [Some(older)]);
        let report = told.with_times.lock().unwrap().first().cloned().unwrap();
        assert_eq!(report.skipped.first().map(|skipped| skipped.id), Some(newest));
        let count = report.operators.iter().find(|operator| operator.uid.as_str() == "count");
        let count = count.unwrap();
        assert!(count.how == OperatorRestore::Restored && count.bytes > 0, "{report}");
        assert!(report.operators.iter().all(|operator| operator.read_time.is_some()), "{report}");
    }
}

#[test]
fn a_store_that_does_not_answer_is_waited_for_and_nothing_older_is_restored() {
    for world in worlds() {
        let [_, newest] = two_newest(&world.stopped(world.job()));
        world.faults.fail(newest, Part::Commit, ErrorKind::Unavailable);
        world.open();
        let (faults, restarts) = (world.faults.clone(), AtomicU64::new(0));
        let told = told(move |error| {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            if restarts.fetch_add(1, Ordering::SeqCst) == 10 {
                faults.heal();
            }
        });
        let job = world.job().listener(Arc::clone(&told) as Arc<dyn JobListener>).build().unwrap();
        assert_exactly_once(&shape(), &job.run().unwrap(), &world.outside);
        assert_eq!(told.restored(), [Some(newest)]);
    }
}

/// A job whose state is in chunks, for which it needs larger values. A task panics at its start while
/// `bad` is what was restored.
fn bulky(world: &World, bad: &Arc<AtomicU64>, restored: &Arc<AtomicU64>) -> JobBuilder {
    let shape = Shape { ends: vec![3_000], ..shape() };
    let flow = Flow::new();
    let (bad, restored) = (Arc::clone(bad), Arc::clone(restored));
    let numbers = flow.source("read", gated(&shape, &world.gate)).unwrap();
    let out = numbers.key_by(|record: &Record| record.1 % 20);
    let out = out.process("bulk", 2, move |scope: &mut Scope| {
        let id = restored.load(Ordering::SeqCst);
        assert!(id == 0 || id != bad.load(Ordering::SeqCst), "a planned panic");
        let bulk = scope.keyed_map::<u64, Vec<u64>>("bulk")?;
        Ok(move |record: Record, out: &mut Output<Record>| {
            bulk.insert(&(record.1 % 20), vec![record.1; 1_000])?;
            out.emit(record)
        })
    });
    let database = Arc::clone(&world.outside.records);
    let sink = out.unwrap().key_by(|record: &Record| record.1);
    sink.sink("records", 1, move |context| Ok(Insert::new(&database, context))).unwrap();
    // Each checkpoint has chunks of its own, which are damaged with it and no other.
    let config = CheckpointConfig::builder().interval(Duration::from_millis(10)).incremental(false);
    let config = config.build().unwrap();
    Job::builder(JOB, flow, config, Arc::clone(&world.outside.storage))
        .restart_policy(fast_restarts())
}

fn assert_all(world: &World) {
    let records: Vec<Record> = (0..3_000).map(|n| (0, n)).collect();
    assert!(world.outside.records.committed() == records);
}

/// Keeps the number of the restored checkpoint where the tasks of the job see it.
struct Restored(Arc<AtomicU64>, Mutex<Vec<u64>>);

impl Restored {
    fn new(cell: &Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Self(Arc::clone(cell), Mutex::default()))
    }

    fn starts(&self) -> Vec<u64> {
        self.1.lock().unwrap().clone()
    }
}

impl JobListener for Restored {
    fn restored(&self, report: &RestoreReport) {
        let id = report.restored.as_ref().map_or(0, |info| info.id.0);
        self.0.store(id, Ordering::SeqCst);
        self.1.lock().unwrap().push(id);
    }
}

#[test]
fn a_chunk_that_is_damaged_sets_its_checkpoint_aside_and_the_job_starts_again() {
    let [world, _] = worlds();
    let (bad, cell) = (Arc::default(), Arc::default());
    let ids = world.stopped(bulky(&world, &bad, &cell));
    let [older, newest] = two_newest(&ids);
    world.faults.fail(newest, Part::Chunks, ErrorKind::Corrupt);
    let run = |policy| {
        let told = Restored::new(&cell);
        let job = bulky(&world, &bad, &cell).restore_policy(policy);
        let end = job.listener(Arc::clone(&told) as Arc<dyn JobListener>).build().unwrap().run();
        (end, told.starts())
    };
    let (end, starts) = run(RestorePolicy::Latest);
    assert_eq!((end.unwrap_err().kind(), starts), (ErrorKind::Corrupt, vec![newest.0]));
    let (end, starts) = run(RestorePolicy::Fallback { max: 0 });
    assert_eq!((end.unwrap_err().kind(), starts), (ErrorKind::Corrupt, vec![newest.0]));
    assert_eq!(world.marks(), 1, "it is counted");
    world.open();
    let (end, starts) = run(RestorePolicy::default());
    assert!(matches!(end, Ok(JobEnd::Finished(_))), "{end:?}");
    assert_eq!(starts, [newest.0, older.0]);
    assert_all(&world);
}

#[test]
fn where_all_chunks_are_damaged_the_job_ends_and_keeps_the_last() {
    let [world, _] = worlds();
    let (bad, cell) = (Arc::default(), Arc::default());
    let ids = world.stopped(bulky(&world, &bad, &cell));
    for id in &ids {
        world.faults.fail(*id, Part::Chunks, ErrorKind::Corrupt);
    }
    let told = Restored::new(&cell);
    let job = bulky(&world, &bad, &cell).listener(Arc::clone(&told) as Arc<dyn JobListener>);
    assert_eq!(job.build().unwrap().run().unwrap_err().kind(), ErrorKind::Corrupt);
    let expected: Vec<u64> = ids.iter().rev().map(|id| id.0).collect();
    assert_eq!(told.starts(), expected);
    world.faults.heal();
    world.open();
    bulky(&world, &bad, &cell).build().unwrap().run().unwrap();
    assert_all(&world);
}

#[test]
fn a_panic_at_each_start_sets_a_checkpoint_aside_after_three_and_never_the_last() {
    for world in worlds() {
        let (bad, cell) = (Arc::<AtomicU64>::default(), Arc::default());
        let [older, newest] = two_newest(&world.stopped(bulky(&world, &bad, &cell)));
        bad.store(newest.0, Ordering::SeqCst);
        world.open();
        let told = Restored::new(&cell);
        let job = bulky(&world, &bad, &cell).listener(Arc::clone(&told) as Arc<dyn JobListener>);
        job.build().unwrap().run().unwrap();
        let mut expected = vec![newest.0; FAILURES_BEFORE_SET_ASIDE as usize];
        expected.push(older.0);
        assert_eq!(told.starts(), expected);
        assert_all(&world);
    }
    let [world, _] = worlds();
    let (bad, cell) = (Arc::<AtomicU64>::default(), Arc::default());
    let newest = *world.stopped(bulky(&world, &bad, &cell)).last().unwrap();
    world
        .outside
        .storage
        .open(&JobId::new(JOB).unwrap())
        .map(Checkpoints::new)
        .map(|all| {
            let mut others = all.ids();
            others.retain(|id| *id != newest);
            all.discard(&others).unwrap();
        })
        .unwrap();
    bad.store(newest.0, Ordering::SeqCst);
    let told = Restored::new(&cell);
    let policy = RestartPolicy::exponential(Duration::ZERO, Duration::ZERO).attempts_max(9);
    let job = bulky(&world, &bad, &cell).listener(Arc::clone(&told) as Arc<dyn JobListener>);
    job.restart_policy(policy).build().unwrap().run().unwrap_err();
    assert_eq!(told.starts(), [newest.0; 10]);
}

#[test]
fn a_checkpoint_that_is_named_and_not_there_ends_the_job_at_once() {
    for world in worlds() {
        world.stopped(world.job());
        let told = told(|error| panic!("it starts again after: {error}"));
        let job = world.job().listener(told as Arc<dyn JobListener>);
        let job = job.restore_policy(RestorePolicy::Exact(CheckpointId(99)));
        let error = job.build().unwrap().run().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("checkpoint 99"), "{error}");
    }
}

#[test]
fn a_job_that_is_shut_down_at_each_start_counts_nothing() {
    let [world, _] = worlds();
    let newest = *world.stopped(world.job()).last().unwrap();
    for _ in 0..2 * FAILURES_BEFORE_SET_ASIDE {
        let told = told(|error| panic!("{error}"));
        let job = world.job().listener(Arc::clone(&told) as Arc<dyn JobListener>);
        let job = job.build().unwrap();
        job.handle().shutdown(Duration::ZERO);
        job.run().unwrap();
        assert!(told.restored()[0] >= Some(newest));
    }
    assert_eq!(world.marks(), 0);
}

/// A sink that cannot undo anything.
struct Stubborn(Arc<Database<Record>>, ErrorKind);

/// Its inserts are a database's; only going back is refused.
struct StubbornSink(Insert<Record>, ErrorKind);
struct StubbornCommitter(InsertCommitter<Record>, ErrorKind);

impl Sink<Record> for StubbornSink {
    type Sealed = (Token, Vec<Record>);
    type Committer = StubbornCommitter;

    fn committer(&self) -> Result<StubbornCommitter> {
        Ok(StubbornCommitter(self.0.committer()?, self.1))
    }

    fn write(&mut self, item: Record) -> Result<()> {
        self.0.write(item)
    }

    fn seal(&mut self, id: CheckpointId) -> Result<Option<Self::Sealed>> {
        // Each checkpoint has something that was committed for it.
        let empty = (self.0.token(id), Vec::new());
        Ok(Some(self.0.seal(id)?.unwrap_or(empty)))
    }
}

impl Committer for StubbornCommitter {
    type Sealed = (Token, Vec<Record>);

    fn persist(&mut self, sealed: Self::Sealed) -> Result<Token> {
        self.0.persist(sealed)
    }

    fn commit(&mut self, token: &Token) -> Result<()> {
        self.0.commit(token)
    }

    fn abort(&mut self, held: &[Token]) -> Result<()> {
        self.0.abort(held)
    }

    fn rewind(&mut self, to: Option<CheckpointId>) -> Result<()> {
        if self.0.is_behind(to) {
            return Err(Error::new(self.1, "rows that were read cannot be taken back"));
        }
        Ok(())
    }
}

impl Stubborn {
    fn job(&self, world: &World) -> JobBuilder {
        let shape = Shape { ends: vec![3_000], ..shape() };
        let flow = Flow::new();
        let numbers = flow.source("read", gated(&shape, &world.gate)).unwrap();
        let (database, kind) = (Arc::clone(&self.0), self.1);
        numbers
            .rebalance()
            .sink("rows", 1, move |context| {
                let insert = Insert::new(&database, context);
                Ok(StubbornSink(insert, kind))
            })
            .unwrap();
        let config = CheckpointConfig::builder().interval(Duration::from_millis(10));
        Job::builder(JOB, flow, config.build().unwrap(), Arc::clone(&world.outside.storage))
            .restart_policy(fast_restarts())
    }
}

#[test]
fn going_back_behind_a_completion_needs_a_sink_that_undoes_it_or_leave_for_duplicates() {
    for world in worlds() {
        let sink = Stubborn(Database::new(), ErrorKind::Conflict);
        let [older, newest] = two_newest(&world.stopped(sink.job(&world)));
        world.faults.fail(newest, Part::Commit, ErrorKind::Corrupt);
        world.open();
        let error = sink.job(&world).build().unwrap().run().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let text = error.to_string();
        for part in [format!("checkpoint {older}"), format!("checkpoint {newest}")] {
            assert!(text.contains(&part), "{text}");
        }
        assert!(text.contains("allow_duplicates") && text.contains("taken back"), "{text}");
        let warned = Warnings::default();
        let job = sink.job(&world).allow_duplicates(true).build().unwrap();
        let seen = warned.clone();
        let end = tracing::subscriber::with_default(seen, || job.run());
        assert!(matches!(end, Ok(JobEnd::Finished(_))), "{end:?}");
        let warned = warned.0.lock().unwrap().join("\n");
        assert!(warned.contains("may come twice"), "{warned}");
        let rows = sink.0.committed();
        assert!(rows.len() >= 3_000, "{} rows", rows.len());
        let mut once = rows;
        once.dedup();
        assert_eq!(once.len(), 3_000);
    }
}

#[test]
fn a_sink_that_may_undo_later_is_asked_again_even_where_duplicates_are_allowed() {
    let [world, _] = worlds();
    let sink = Stubborn(Database::new(), ErrorKind::Unavailable);
    let [_, newest] = two_newest(&world.stopped(sink.job(&world)));
    world.faults.fail(newest, Part::Commit, ErrorKind::Corrupt);
    let policy = RestartPolicy::exponential(Duration::ZERO, Duration::ZERO).attempts_max(3);
    let job = sink.job(&world).allow_duplicates(true).restart_policy(policy);
    assert_eq!(job.build().unwrap().run().unwrap_err().kind(), ErrorKind::Unavailable);
}

/// The warnings that are traced on this thread.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

struct Text<'t>(&'t mut String);

impl tracing::field::Visit for Text<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, "{field}={value:?} ");
    }
}

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut text = String::new();
        event.record(&mut Text(&mut text));
        self.0.lock().unwrap().push(text);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// Numbers that are only read, by the counting job's source.
fn reading_only(world: &World) -> JobBuilder {
    let flow = Flow::new();
    flow.source("read", gated(&shape(), &world.gate)).unwrap();
    let config = CheckpointConfig::builder().interval(Duration::from_millis(10)).build().unwrap();
    Job::builder(JOB, flow, config, Arc::clone(&world.outside.storage))
}

#[test]
fn state_of_operators_that_left_the_flow_needs_leave() {
    for world in worlds() {
        world.stopped(world.job());
        world.open();
        let error = reading_only(&world).build().unwrap().run().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible);
        let text = error.to_string();
        assert!(text.contains("count") && text.contains("allow_non_restored_state"), "{text}");
        let told = told(|error| panic!("{error}"));
        let job = reading_only(&world).allow_non_restored_state(true);
        let job = job.listener(Arc::clone(&told) as Arc<dyn JobListener>).build().unwrap();
        job.run().unwrap();
        let reports = told.reports.lock().unwrap();
        let skipped = |uid: &str| {
            let mut operators = reports[0].operators.iter();
            operators
                .any(|found| found.uid.as_str() == uid && found.how == OperatorRestore::Skipped)
        };
        assert!(skipped("count") && skipped("counts") && skipped("records") && !skipped("read"));
    }
}

#[test]
fn a_max_parallelism_that_was_not_set_is_adopted_by_state_and_exchanges() {
    for world in worlds() {
        world.stopped(world.job().max_parallelism(7).operator_max_parallelism("records", 300));
        for (job, now) in [
            (world.job().max_parallelism(8), "sets 8"),
            (world.job().operator_max_parallelism("records", 128), "sets 128"),
        ] {
            let error = job.build().unwrap().run().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Incompatible);
            let text = error.to_string();
            let before = ["max parallelism of 7", "max parallelism of 300"];
            assert!(
                before.iter().any(|before| text.contains(before)) && text.contains(now),
                "{text}"
            );
        }
        world.open();
        // With its default of 128 key groups most keys would be in other hands.
        let counters = Shape { counters: 3, ..shape() };
        let job = counting(&counters, gated(&counters, &world.gate), &world.outside);
        assert_exactly_once(&counters, &job.build().unwrap().run().unwrap(), &world.outside);
    }
}

#[test]
fn a_checkpoint_with_too_few_key_groups_for_the_subtasks_is_refused_with_both_numbers() {
    let [world, _] = worlds();
    world.stopped(world.job().operator_max_parallelism("count", 4));
    let counters = Shape { counters: 5, ..shape() };
    let job = counting(&counters, gated(&counters, &world.gate), &world.outside);
    let error = job.build().unwrap().run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    let text = error.to_string();
    assert!(text.contains("max parallelism of 4") && text.contains("parallelism of 5"), "{text}");
}

#[test]
fn a_max_parallelism_must_be_possible_and_of_an_operator() {
    let [world, _] = worlds();
    for job in [
        world.job().max_parallelism(1),
        world.job().max_parallelism(32_769),
        world.job().operator_max_parallelism("none", 128),
    ] {
        assert_eq!(job.build().unwrap_err().kind(), ErrorKind::Invalid);
    }
}
