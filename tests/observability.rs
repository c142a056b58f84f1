//! Goal: an engine says of every checkpoint and of every start what the documents promise, in its
//! statistics and through `tracing`.
//!
//! Method: one scenario of two engines over one store, played once by a host that answers by hand
//! under a clock that stands still; a small subscriber of its own notes every span and event. Each
//! test looks at one side of what was noted.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a wrong answer must fail the test")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use tidegate::clock::{Clock, ManualClock, SystemClock};
use tidegate::config::CheckpointConfig;
use tidegate::coordinator::{CheckpointEntry, CheckpointStatistics, CheckpointStatus};
use tidegate::engine::{CheckpointOutcome, Engine, Host, OperatorSpec, Statistics, TriggerHandle};
use tidegate::message::{Barrier, CheckpointFailureReason, CheckpointType, Notification};
use tidegate::state::{SectionKey, SectionKind};
use tidegate::storage::SledCheckpointStorage;
use tidegate::task::SnapshotTiming;
use tidegate::{CheckpointId, Error, JobId, OperatorUid, TaskId};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

const PATIENCE: Duration = Duration::from_secs(60);

const WALL_MS: u64 = 10_000;

const DOCUMENT: &str = include_str!("../docs/flink.md");

/// The name of a span, or the message of an event, with its fields as text.
#[derive(Debug, Clone)]
struct Note {
    name: String,
    is_span: bool,
    fields: BTreeMap<String, String>,
}

impl Visit for Note {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let value = format!("{value:?}");
        if field.name() == "message" {
            self.name = value;
        } else {
            self.fields.insert(field.name().to_owned(), value);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name().to_owned(), value.to_owned());
    }
}

static NOTES: Mutex<Vec<Note>> = Mutex::new(Vec::new());

/// Notes everything under the target of checkpoints.
struct Notes(AtomicU64);

impl Subscriber for Notes {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "tidegate::checkpoint"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let name = span.metadata().name().to_owned();
        let mut note = Note { name, is_span: true, fields: BTreeMap::new() };
        span.record(&mut note);
        NOTES.lock().unwrap().push(note);
        Id::from_u64(self.0.fetch_add(1, Ordering::Relaxed))
    }

    fn event(&self, event: &Event<'_>) {
        let mut note = Note { name: String::new(), is_span: false, fields: BTreeMap::new() };
        event.record(&mut note);
        NOTES.lock().unwrap().push(note);
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Keeps what it is told.
#[derive(Default)]
struct Told {
    barriers: Mutex<Vec<Barrier>>,
    failed: Mutex<Vec<Error>>,
}

impl Host for Told {
    fn trigger(&self, barrier: Barrier) {
        self.barriers.lock().unwrap().push(barrier);
    }

    fn notify(&self, _: Notification) {}

    fn fail(&self, error: Error) {
        self.failed.lock().unwrap().push(error);
    }
}

/// Looks until it finds something.
fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let clock = SystemClock::new();
    while clock.now() < PATIENCE {
        if let Some(found) = look() {
            return found;
        }
        std::thread::yield_now();
    }
    panic!("nothing came within {PATIENCE:?}");
}

struct Bench {
    engine: Engine,
    told: Arc<Told>,
    clock: Arc<ManualClock>,
}

impl Bench {
    fn start(directory: &std::path::Path, statistics: &Statistics) -> Self {
        let clock = Arc::new(ManualClock::new(WALL_MS));
        let config = CheckpointConfig::builder().tolerable_failures(0).build().unwrap();
        let storage = Arc::new(SledCheckpointStorage::new(directory));
        let engine = Engine::builder(JobId::new("job").unwrap(), config, storage)
            .operator(OperatorSpec::new(OperatorUid::new("op").unwrap(), 2))
            .clock(Arc::<ManualClock>::clone(&clock))
            .statistics(statistics.clone())
            .open()
            .unwrap();
        clock.advance(Duration::from_millis(30));
        let told = Arc::new(Told::default());
        engine.start(Arc::<Told>::clone(&told)).unwrap();
        Self { engine, told, clock }
    }

    fn trigger(&self, kind: CheckpointType) -> (Barrier, TriggerHandle) {
        let handle = self.engine.trigger(kind);
        (until(|| self.told.barriers.lock().unwrap().pop()), handle)
    }

    /// Writes 100 bytes in 7 ms, or fails.
    fn snapshot(&self, barrier: Barrier, subtask: u32, fails: bool) {
        let task = TaskId { operator: OperatorUid::new("op").unwrap(), subtask };
        let mut timing = SnapshotTiming::default();
        timing.start_delay = Duration::from_millis(2);
        timing.alignment = Duration::from_millis(3);
        timing.hot_pause = Duration::from_millis(4);
        timing.queued = Duration::from_millis(5);
        timing.persisted_bytes = 6;
        let written =
            self.engine.task(&task).unwrap().snapshot_timed(barrier, &timing, &mut |sink| {
                self.clock.advance(Duration::from_millis(7));
                let key = SectionKey::new(SectionKind::Raw, "state");
                sink.section(&key, &mut |out| Ok(out.write_all(&[1; 100])?))?;
                if fails { Err(Error::invalid("on purpose")) } else { Ok(()) }
            });
        assert_eq!(written.is_err(), fails);
    }

    /// The entry of a checkpoint once it satisfies.
    fn entry(
        &self,
        id: CheckpointId,
        is: impl Fn(&CheckpointEntry) -> bool,
    ) -> Arc<CheckpointEntry> {
        until(|| {
            let statistics = self.engine.statistics();
            statistics.checkpoint(id).filter(|entry| is(entry)).cloned()
        })
    }
}

/// What the scenario left.
struct Seen {
    notes: Vec<Note>,
    /// The first checkpoint while one of two had acknowledged.
    halfway: Arc<CheckpointEntry>,
    completed: Arc<CheckpointEntry>,
    failed: Arc<CheckpointEntry>,
    at_the_end: Arc<CheckpointStatistics>,
}

static SEEN: LazyLock<Seen> = LazyLock::new(play);

fn play() -> Seen {
    tracing::subscriber::set_global_default(Notes(AtomicU64::new(1))).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let statistics = Statistics::with_history(5);

    let bench = Bench::start(directory.path(), &statistics);
    let (barrier, outcome) = bench.trigger(CheckpointType::Checkpoint);
    bench.snapshot(barrier, 0, false);
    let halfway = bench.entry(barrier.id, |entry| entry.acknowledged_subtasks == 1);
    bench.snapshot(barrier, 1, false);
    assert_eq!(outcome.wait(PATIENCE), Some(CheckpointOutcome::Completed(barrier.id)));
    let is_done = |entry: &CheckpointEntry| entry.status == CheckpointStatus::Completed;
    let completed = bench.entry(barrier.id, is_done);

    // Fails, is one too many, and the other task writes after the end.
    let (barrier, _) = bench.trigger(CheckpointType::Checkpoint);
    bench.snapshot(barrier, 0, true);
    until(|| bench.told.failed.lock().unwrap().pop());
    bench.snapshot(barrier, 1, false);
    let has_both = |entry: &CheckpointEntry| entry.measured().iter().all(Option::is_some);
    let failed = bench.entry(barrier.id, has_both);
    let refused = bench.engine.trigger(CheckpointType::Checkpoint).wait(PATIENCE);
    let reason = CheckpointFailureReason::NotAllRequiredTasksRunning;
    assert_eq!(refused, Some(CheckpointOutcome::Failed { id: None, reason }));
    bench.engine.stop();
    drop(bench);

    let bench = Bench::start(directory.path(), &statistics);
    let (barrier, outcome) = bench.trigger(CheckpointType::Savepoint);
    (0..2).for_each(|subtask| bench.snapshot(barrier, subtask, false));
    assert_eq!(outcome.wait(PATIENCE), Some(CheckpointOutcome::Completed(barrier.id)));
    bench.engine.stop();
    let notes = NOTES.lock().unwrap().clone();
    Seen { notes, halfway, completed, failed, at_the_end: statistics.read() }
}

fn spans(name: &str) -> Vec<&'static BTreeMap<String, String>> {
    let spans = SEEN.notes.iter().filter(|note| note.is_span && note.name == name);
    spans.map(|note| &note.fields).collect()
}

fn fields(expected: &[(&str, &str)]) -> BTreeMap<String, String> {
    expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Flink: CheckpointStatsTrackerTest.testSpanCreation
#[test]
fn every_attempt_that_ends_is_one_span() {
    let spans = spans("checkpoint");
    assert_eq!(spans.len(), 3, "{spans:?}");
    let completed = [
        ("id", "1"),
        ("kind", "CHECKPOINT"),
        ("status", "COMPLETED"),
        ("state_bytes", "200"),
        ("checkpointed_bytes", "200"),
        ("start_ms", "10030"),
        ("end_ms", "10044"),
        ("duration_ms", "14"),
    ];
    assert_eq!(*spans[0], fields(&completed));
    assert_eq!(spans[1]["status"], "FAILED");
    assert_eq!(spans[1]["reason"], "CHECKPOINT_ASYNC_EXCEPTION");
    assert_eq!((&*spans[2]["kind"], &*spans[2]["status"]), ("SAVEPOINT", "COMPLETED"));
}

/// Flink: CheckpointStatsTrackerTest.testInitializationSpanCreation
#[test]
fn every_start_of_an_engine_is_one_span() {
    let spans = spans("job_initialization");
    assert_eq!(spans.len(), 2, "{spans:?}");
    assert_eq!(*spans[0], fields(&[("attempt", "1"), ("duration_ms", "30")]));
    let second = fields(&[("attempt", "2"), ("duration_ms", "30"), ("restored", "1")]);
    assert_eq!(*spans[1], second);
}

#[test]
fn events_say_in_order_what_happened() {
    let events = SEEN.notes.iter().filter(|note| !note.is_span);
    let names: Vec<&str> = events.clone().map(|note| note.name.as_str()).collect();
    let expected = [
        "checkpoint triggered",
        "checkpoint completed",
        "checkpoint triggered",
        "checkpoint aborted",
        "job failed by its checkpoints",
        "checkpoint request rejected",
        "checkpoint triggered",
        "checkpoint completed",
    ];
    assert_eq!(names, expected);
    let all: Vec<&Note> = events.collect();
    assert_eq!(all[3].fields["task"], "0");
    assert_eq!(all[3].fields["reason"], "CHECKPOINT_ASYNC_EXCEPTION");
    assert_eq!(all[5].fields["reason"], "NOT_ALL_REQUIRED_TASKS_RUNNING");
}

#[test]
fn all_names_stand_in_the_document() {
    let section = DOCUMENT.split("## Statistics and tracing").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    for note in &SEEN.notes {
        assert!(section.contains(&format!("`{}`", note.name)), "{}", note.name);
        for field in note.fields.keys() {
            assert!(section.contains(&format!("`{field}`")), "{field} of {}", note.name);
        }
    }
    let answer = serde_json::to_value(&*SEEN.at_the_end).unwrap();
    let parts = [&answer["counts"], &answer["latest"], &answer["summary"], &answer["history"][0]];
    for name in parts.iter().flat_map(|part| part.as_object().unwrap().keys()) {
        assert!(section.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn a_checkpoint_in_progress_shows_who_has_acknowledged() {
    let entry = &SEEN.halfway;
    assert_eq!((entry.status, entry.subtasks), (CheckpointStatus::InProgress, 2));
    assert!(entry.measured()[0].is_some() && entry.measured()[1].is_none());
    assert_eq!(entry.end_to_end_duration(), Some(Duration::from_millis(7)));
}

#[test]
fn a_snapshot_is_measured_by_the_host_and_by_the_handle() {
    let first = SEEN.completed.measured()[0].unwrap();
    assert_eq!(first.start_delay, Duration::from_millis(2));
    assert_eq!(first.alignment_duration, Duration::from_millis(3));
    assert_eq!(first.sync_duration, Duration::from_millis(4));
    assert_eq!(first.async_duration, Duration::from_millis(12), "waiting and writing");
    assert_eq!((first.state_bytes, first.checkpointed_bytes, first.persisted_bytes), (100, 100, 6));
    assert_eq!(first.ack_timestamp_ms, WALL_MS + 37);
    assert_eq!(SEEN.completed.persisted_bytes, 12);
    let path = SEEN.completed.external_path.as_deref().unwrap();
    assert!(path.ends_with("#1"), "{path}");
}

/// Flink: CheckpointCoordinatorTest.testAbortedCheckpointStatsUpdatedAfterFailure
#[test]
fn tasks_of_a_failed_checkpoint_still_say_what_they_measured() {
    let failed = &SEEN.failed;
    assert_eq!((failed.status, failed.acknowledged_subtasks), (CheckpointStatus::Failed, 0));
    for part in failed.measured() {
        assert_eq!(part.unwrap().sync_duration, Duration::from_millis(4));
    }
    assert_eq!(failed.latest_ack_timestamp_ms, None);
}

#[test]
fn the_statistics_go_on_from_one_engine_to_the_next() {
    let counts = SEEN.at_the_end.counts;
    assert_eq!((counts.total, counts.completed, counts.failed), (4, 2, 2));
    assert_eq!((counts.in_progress, counts.restored), (0, 1));
    assert_eq!(SEEN.at_the_end.history.len(), 3, "the refused request has no entry");
    let restored = SEEN.at_the_end.latest.restored.as_ref().unwrap();
    assert_eq!((restored.id, restored.is_savepoint), (CheckpointId(1), false));
    assert_eq!(SEEN.at_the_end.summary.state_size.max, 200);
}
