//! Goal: an unaligned checkpoint passes a sink that holds everything up, contains what is on its way,
//! and loses or repeats none of it, with the same parallelism or another.
//!
//! Method: a sink that takes one record at a time, each for a while, behind queues that are full.
//! What is compared are records, not times.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::catalog::{Checkpoints, OperatorSpec};
use crate::config::{CheckpointConfig, EffectiveConfig, ExternalizedCheckpointCleanup};
use crate::coordinator::CheckpointEntry;
use crate::engine::CheckpointOutcome;
use crate::error::Result;
use crate::ids::{CheckpointId, JobId};
use crate::local::tests::support::{
    Database, Failures, Insert, InsertCommitter, Record, fast_restarts, key_of, numbers, storage,
};
use crate::local::{
    ExchangeOptions, Flow, Job, JobEnd, JobHandle, Output, Scope, Sink, SinkContext, Token,
};
use crate::message::{CheckpointFailureReason as Reason, CheckpointRequest};
use crate::state::{SectionKind, SnapshotSource, codec, read_entries};
use crate::storage::CheckpointStorage;

const PATIENCE: Duration = Duration::from_secs(60);

/// Records of each of two sources: more than fit into all queues.
const RECORDS: u64 = 20_000;

/// A sink that takes its time.
struct Slow {
    insert: Insert<(Record, u64)>,
    pace: Arc<Pace>,
}

/// How long the sinks take for each record, and how many they took.
#[derive(Default)]
struct Pace {
    micros: AtomicU64,
    taken: AtomicU64,
}

impl Sink<(Record, u64)> for Slow {
    type Sealed = (Token, Vec<(Record, u64)>);
    type Committer = InsertCommitter<(Record, u64)>;

    fn committer(&self) -> Result<Self::Committer> {
        self.insert.committer()
    }

    fn write(&mut self, item: (Record, u64)) -> Result<()> {
        self.pace.taken.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_micros(self.pace.micros.load(Ordering::SeqCst)));
        self.insert.write(item)
    }

    fn seal(&mut self, id: CheckpointId) -> Result<Option<Self::Sealed>> {
        self.insert.seal(id)
    }
}

/// A job with two keyed exchanges, whose sinks are as fast as `pace` says.
struct Bench {
    storage: Arc<dyn CheckpointStorage>,
    database: Arc<Database<(Record, u64)>>,
    pace: Arc<Pace>,
}

impl Bench {
    fn new() -> Self {
        Self { storage: storage(), database: Database::new(), pace: Arc::default() }
    }

    fn job(&self, config: &EffectiveConfig, counters: u32, sinks: u32, limit: usize) -> Job {
        let flow = Flow::new();
        let ends = vec![RECORDS; 2];
        let (database, pace) = (Arc::clone(&self.database), Arc::clone(&self.pace));
        flow.source("read", numbers(&ends, &Failures::after(vec![])))
            .unwrap()
            .key_by(key_of)
            .process("count", counters, |scope: &mut Scope| {
                let counts = scope.keyed_map::<u64, u64>("counts")?;
                let seen = scope.list_state::<Record>("seen")?;
                Ok(move |record: Record, out: &mut Output<(Record, u64)>| {
                    seen.add(record);
                    let count = counts.update(&key_of(&record), |count| {
                        *count += 1;
                        *count
                    })?;
                    out.emit((record, count))
                })
            })
            .unwrap()
            .key_by(|(record, _): &(Record, u64)| record.1)
            .sink("slow", sinks, move |context: &SinkContext| {
                let insert = Insert::new(&database, context);
                Ok(Slow { insert, pace: Arc::clone(&pace) })
            })
            .unwrap();
        let exchange =
            ExchangeOptions::default().batch_records(64).queued_batches(4).in_flight_bytes(limit);
        Job::builder("slow", flow, config.clone(), Arc::clone(&self.storage))
            .exchange(exchange)
            .restart_policy(fast_restarts())
            .build()
            .unwrap()
    }

    /// Runs with slow sinks; returns when every queue is full.
    fn start_slow(&self, job: Job) -> (JobHandle, JoinHandle<JobEnd>) {
        self.pace.micros.store(2_000, Ordering::SeqCst);
        self.pace.taken.store(0, Ordering::SeqCst);
        let handle = job.handle();
        let thread = std::thread::spawn(move || job.run().unwrap());
        // While the sinks took so many, everything before them has filled up long since.
        while self.pace.taken.load(Ordering::SeqCst) < 40 {
            std::thread::yield_now();
        }
        (handle, thread)
    }

    /// Asks for a checkpoint, and says what came of it and how many records the sinks took meanwhile.
    fn checkpoint(&self, handle: &JobHandle) -> (CheckpointOutcome, u64) {
        let before = self.pace.taken.load(Ordering::SeqCst);
        let asked = handle.trigger_checkpoint(CheckpointRequest::Configured).unwrap();
        let outcome = asked.wait(PATIENCE).unwrap();
        (outcome, self.pace.taken.load(Ordering::SeqCst) - before)
    }

    fn finish(&self, job: Job) {
        self.pace.micros.store(0, Ordering::SeqCst);
        assert!(matches!(job.run().unwrap(), JobEnd::Finished(_)));
    }

    /// The items of the list in the newest checkpoint, of all subtasks.
    fn seen(&self) -> Vec<Record> {
        let job = self.storage.open(&JobId::new("slow").unwrap()).unwrap();
        let checkpoints = Checkpoints::new(job);
        let info = checkpoints.info(checkpoints.newest().unwrap().unwrap()).unwrap();
        let mut seen = Vec::new();
        for task in info.operators.iter().flat_map(OperatorSpec::tasks) {
            let mut sections = checkpoints.read_task(info.id, &task).unwrap();
            while let Some(key) = sections.next_section().unwrap() {
                if key.kind == SectionKind::Split {
                    let before = seen.len();
                    read_entries(sections.body(), |_, item| {
                        seen.push(codec::decode(item)?);
                        Ok(())
                    })
                    .unwrap();
                    assert_eq!(seen.len() - before, usize::try_from(key.index).unwrap());
                }
            }
        }
        seen
    }

    /// Every record once, and the count of its key with each count once; every record once in the list.
    fn assert_exact(&self) {
        let mut found = self.database.committed();
        let mut records: Vec<Record> = found.iter().map(|(record, _)| *record).collect();
        records.sort_unstable();
        let expected: Vec<Record> =
            (0..2).flat_map(|id| (0..RECORDS).map(move |number| (id, number))).collect();
        assert!(records == expected, "{} records instead of {}", records.len(), expected.len());
        let mut seen = self.seen();
        seen.sort_unstable();
        assert!(seen == expected, "{} items instead of {}", seen.len(), expected.len());
        found.sort_by_key(|(record, count)| (key_of(record), *count));
        for pair in found.chunk_by(|a, b| key_of(&a.0) == key_of(&b.0)) {
            assert!((1..).zip(pair).all(|(count, (_, found))| *found == count), "a count is lost");
        }
        // Order within a sender and key.
        for pair in found.windows(2).filter(|pair| key_of(&pair[0].0) == key_of(&pair[1].0)) {
            let of = |id: u32| pair.iter().filter(move |((source, _), _)| *source == id);
            assert!((0..2).all(|id| of(id).is_sorted_by_key(|((_, number), _)| *number)));
        }
    }
}

fn config(unaligned: bool, timeout_ms: i64) -> EffectiveConfig {
    let mut config = CheckpointConfig::new();
    config
        .set_checkpoint_interval(3_600_000)
        .unwrap()
        .enable_unaligned_checkpoints(unaligned)
        .set_externalized_checkpoint_cleanup(ExternalizedCheckpointCleanup::RetainOnCancellation)
        .set_tolerable_checkpoint_failure_number(1_000)
        .unwrap()
        .set_alignment_timeout(timeout_ms)
        .unwrap();
    config.build().unwrap()
}

fn entry(handle: &JobHandle, outcome: CheckpointOutcome) -> Arc<CheckpointEntry> {
    let CheckpointOutcome::Completed(id) = outcome else { panic!("{outcome:?}") };
    Arc::clone(handle.statistics().checkpoint(id).unwrap())
}

/// Stops without a word, as a kill would, and waits.
fn kill(handle: &JobHandle, thread: JoinHandle<JobEnd>) {
    handle.shutdown(Duration::ZERO);
    assert!(matches!(thread.join().unwrap(), JobEnd::Suspended { .. }));
}

#[test]
fn an_unaligned_checkpoint_overtakes_what_an_aligned_one_waits_for() {
    let mut taken = Vec::new();
    for unaligned in [true, false] {
        let bench = Bench::new();
        let (handle, thread) = bench.start_slow(bench.job(&config(unaligned, 0), 2, 2, 1 << 20));
        let (outcome, meanwhile) = bench.checkpoint(&handle);
        let entry = entry(&handle, outcome);
        assert_eq!(entry.is_unaligned, unaligned);
        assert_eq!(entry.persisted_bytes > 0, unaligned, "{entry:?}");
        let parts: Vec<_> = entry.measured().iter().flatten().collect();
        assert!(parts.iter().all(|part| part.unaligned == unaligned), "{parts:?}");
        let sinks = &parts[parts.len() - 2..];
        if !unaligned {
            // The records before the barriers had to be processed first.
            assert!(sinks.iter().all(|sink| sink.processed_bytes > 0), "{sinks:?}");
            assert!(sinks.iter().all(|sink| !sink.alignment_duration.is_zero()), "{sinks:?}");
        }
        let pause = handle.statistics().summary.hot_pause;
        assert_eq!(pause.count, 6, "one for each snapshot");
        assert!(pause.p50 <= pause.p99 && pause.p99 <= pause.max && !pause.max.is_zero());
        taken.push(meanwhile);
        kill(&handle, thread);
        bench.finish(bench.job(&config(unaligned, 0), 2, 2, 1 << 20));
        bench.assert_exact();
    }
    let [unaligned, aligned] = taken[..] else { unreachable!() };
    assert!(unaligned * 4 < aligned, "the sinks took {unaligned} and {aligned} records meanwhile");
}

#[test]
fn an_alignment_that_takes_too_long_becomes_unaligned() {
    let bench = Bench::new();
    let (handle, thread) = bench.start_slow(bench.job(&config(true, 20), 2, 2, 1 << 20));
    let (outcome, _) = bench.checkpoint(&handle);
    let entry = entry(&handle, outcome);
    assert!(entry.is_unaligned && entry.persisted_bytes > 0, "{entry:?}");
    kill(&handle, thread);
    bench.finish(bench.job(&config(true, 20), 2, 2, 1 << 20));
    bench.assert_exact();
}

#[test]
fn records_on_their_way_are_replayed_once_with_another_parallelism() {
    for (counters, sinks) in [(3, 1), (1, 3), (7, 2), (2, 2)] {
        let bench = Bench::new();
        let (handle, thread) = bench.start_slow(bench.job(&config(true, 0), 2, 2, 1 << 20));
        let (outcome, _) = bench.checkpoint(&handle);
        assert!(entry(&handle, outcome).persisted_bytes > 0);
        kill(&handle, thread);
        // Once more with records on their way, some of them replayed ones.
        let (handle, thread) =
            bench.start_slow(bench.job(&config(true, 0), counters, sinks, 1 << 20));
        let (outcome, _) = bench.checkpoint(&handle);
        assert!(entry(&handle, outcome).persisted_bytes > 0);
        kill(&handle, thread);
        bench.finish(bench.job(&config(true, 0), sinks, counters, 1 << 20));
        bench.assert_exact();
    }
}

#[test]
fn more_bytes_in_flight_than_allowed_fail_the_checkpoint_and_nothing_else() {
    let bench = Bench::new();
    let (handle, thread) = bench.start_slow(bench.job(&config(true, 0), 2, 2, 1_000));
    let (outcome, _) = bench.checkpoint(&handle);
    let failed =
        matches!(outcome, CheckpointOutcome::Failed { reason: Reason::InFlightDataTooLarge, .. });
    assert!(failed, "{outcome:?}");
    // The next one that finds room completes.
    bench.pace.micros.store(0, Ordering::SeqCst);
    assert!(matches!(thread.join().unwrap(), JobEnd::Finished(_)));
    bench.assert_exact();
}

#[test]
fn a_savepoint_is_aligned_and_has_nothing_in_flight() {
    let bench = Bench::new();
    let (handle, thread) = bench.start_slow(bench.job(&config(true, 0), 2, 2, 1 << 20));
    let asked = handle.trigger_savepoint().unwrap();
    bench.pace.micros.store(0, Ordering::SeqCst);
    let entry = entry(&handle, asked.wait(PATIENCE).unwrap());
    assert!(!entry.is_unaligned && entry.persisted_bytes == 0, "{entry:?}");
    assert!(matches!(thread.join().unwrap(), JobEnd::Finished(_)));
    bench.assert_exact();
}
