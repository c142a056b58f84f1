//! Goal: what a user's code does wrong costs the checkpoint or the attempt at hand, and nothing else:
//! not what is complete already, not other jobs in the same store.
//!
//! Method: an operator keeps the newest number of each key, in values that refuse to be encoded, or
//! panic, when the test says so. Checkpoints are asked for one by one, with the source at a gate.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::Read;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::config::{CheckpointConfig, PolicyUpdate};
use crate::engine::CheckpointOutcome;
use crate::error::{Error, Result};
use crate::ids::CheckpointId;
use crate::local::tests::support::{
    Outside, Record, Shape, assert_exactly_once, counting, fast_restarts, gated, key_of, shape,
};
use crate::local::{Flow, Job, JobEnd, JobHandle, JobListener, Output, Scope};
use crate::message::{CheckpointFailureReason as Reason, CheckpointRequest};
use crate::restore::RestoreReport;
use crate::state::{SectionKey, SectionKind, SnapshotSink, Stateful};

/// Longer than any of these jobs takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// This value has no encoding.
const REFUSES: u64 = u64::MAX;
/// The encoding of this value panics.
const PANICS: u64 = u64::MAX - 1;

/// From this record on the state has what the plan says, until [`END_OF_BAD`].
const BAD: u64 = 100;
/// The next record with the key of [`BAD`].
const END_OF_BAD: u64 = BAD + super::support::KEYS;

/// The newest number of a key.
#[derive(Debug, Clone, PartialEq)]
struct Newest(u64);

impl Serialize for Newest {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        assert!(self.0 != PANICS, "a planned panic while encoding");
        if self.0 == REFUSES {
            return Err(S::Error::custom("a planned value without an encoding"));
        }
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Newest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        u64::deserialize(from).map(Self)
    }
}

/// What the operator does wrong.
#[derive(Default)]
struct Plan {
    /// Becomes the value of record [`BAD`], once, when it is not zero.
    bad: AtomicU64,
    /// The next freeze panics.
    freeze: AtomicBool,
    /// The record with this number makes the operator panic, once, when it is not zero.
    panics_at: AtomicU64,
    /// Records before this one have been processed by the running attempt.
    seen: AtomicU64,
}

/// A structure of the user's own that is frozen as planned.
struct Freezes(Arc<Plan>);

impl Stateful for Freezes {
    type Frozen = ();

    fn freeze(&mut self, _: CheckpointId) {
        assert!(!self.0.freeze.swap(false, Ordering::SeqCst), "a planned panic at a freeze");
    }

    fn write((): (), sink: &mut dyn SnapshotSink) -> Result<()> {
        let key = SectionKey::new(SectionKind::Raw, "freezes");
        sink.section(&key, &mut |out| Ok(out.write_all(b"here")?))
    }

    fn restore(&mut self, _: &SectionKey, body: &mut dyn Read) -> Result<()> {
        std::io::copy(body, &mut std::io::sink())?;
        Ok(())
    }
}

/// What the job's listener is told.
#[derive(Default)]
struct Told {
    restored: Mutex<Vec<Option<CheckpointId>>>,
    errors: Mutex<Vec<String>>,
}

impl JobListener for Told {
    fn restored(&self, report: &RestoreReport) {
        let from = report.restored.as_ref().map(|info| info.id);
        self.restored.lock().unwrap().push(from);
    }

    fn restarting(&self, error: &Error, _: Duration) {
        self.errors.lock().unwrap().push(error.to_string());
    }
}

/// A job with its world, running.
struct Bench {
    gate: Arc<Mutex<u64>>,
    plan: Arc<Plan>,
    told: Arc<Told>,
    handle: JobHandle,
    thread: JoinHandle<JobEnd>,
}

/// Records of the one source.
const RECORDS: u64 = 1_000;

impl Bench {
    fn start(outside: &Outside, tolerable: i32) -> Self {
        let (gate, plan) = (Arc::new(Mutex::new(50)), Arc::<Plan>::default());
        let told = Arc::<Told>::default();
        let shape = Shape { ends: vec![RECORDS], ..shape() };
        let flow = Flow::new();
        let planned = Arc::clone(&plan);
        let _end = flow
            .source("read", gated(&shape, &gate))
            .unwrap()
            .key_by(key_of)
            .process("keep", 1, move |scope: &mut Scope| keep(scope, &planned))
            .unwrap();
        let mut config = CheckpointConfig::new();
        config.set_checkpoint_interval(3_600_000).unwrap();
        config.set_tolerable_checkpoint_failure_number(tolerable).unwrap();
        let job =
            Job::builder("keeping", flow, config.build().unwrap(), Arc::clone(&outside.storage))
                .restart_policy(fast_restarts())
                .listener(Arc::clone(&told) as Arc<dyn JobListener>)
                .build()
                .unwrap();
        let handle = job.handle();
        let thread = std::thread::spawn(move || job.run().unwrap());
        Self { gate, plan, told, handle, thread }
    }

    /// Lets records before this one through, and waits until the state has them.
    fn up_to(&self, record: u64) {
        *self.gate.lock().unwrap() = record;
        while self.plan.seen.load(Ordering::SeqCst) < record {
            assert!(!self.thread.is_finished(), "the job has ended");
            std::thread::yield_now();
        }
    }

    fn checkpoint(&self) -> CheckpointOutcome {
        let asked = loop {
            // None is taken between two attempts.
            match self.handle.trigger_checkpoint(CheckpointRequest::Configured) {
                Ok(asked) => break asked,
                Err(_) => std::thread::yield_now(),
            }
        };
        asked.wait(PATIENCE).unwrap()
    }

    fn completed(&self) -> CheckpointId {
        match self.checkpoint() {
            CheckpointOutcome::Completed(id) => id,
            failed => panic!("{failed:?}"),
        }
    }

    fn declined(&self) {
        let outcome = self.checkpoint();
        let reason = Reason::CheckpointAsyncException;
        assert!(
            matches!(outcome, CheckpointOutcome::Failed { id: Some(_), reason: r } if r == reason),
            "{outcome:?}"
        );
    }

    fn restarted(&self, times: u64) {
        while self.handle.progress().restarts < times {
            assert!(!self.thread.is_finished(), "the job has ended");
            std::thread::yield_now();
        }
    }

    /// Lets the job finish with all records in its state. Returns what its attempts started from and
    /// why each but the last ended.
    fn finish(self) -> (Vec<Option<CheckpointId>>, Vec<String>) {
        *self.gate.lock().unwrap() = u64::MAX;
        let often = PolicyUpdate::new().interval(Duration::from_millis(10));
        while self.handle.update(&often).is_err() {
            std::thread::yield_now();
        }
        let JobEnd::Finished(finished) = self.thread.join().unwrap() else {
            panic!("the job has not finished")
        };
        let mut found = Vec::new();
        finished
            .keyed_state::<u64, Newest>("keep", "newest", |key, newest| {
                found.push((key, newest.0));
                Ok(())
            })
            .unwrap();
        found.sort_unstable();
        let keys = super::support::KEYS;
        let newest = |key| (0..RECORDS).rev().find(|number| number % keys == key).unwrap();
        assert_eq!(found, (0..keys).map(|key| (key, newest(key))).collect::<Vec<_>>());
        let restored = self.told.restored.lock().unwrap().clone();
        let errors = self.told.errors.lock().unwrap().clone();
        (restored, errors)
    }
}

fn keep(
    scope: &mut Scope,
    plan: &Arc<Plan>,
) -> Result<impl FnMut(Record, &mut Output<()>) -> Result<()> + use<>> {
    let plan = Arc::clone(plan);
    plan.seen.store(0, Ordering::SeqCst);
    let newest = scope.keyed_map::<u64, Newest>("newest")?;
    let freezes = Rc::new(RefCell::new(Freezes(Arc::clone(&plan))));
    scope.states().raw("freezes", freezes)?;
    Ok(move |record: Record, _: &mut Output<()>| {
        let number = record.1;
        if number > 0 && plan.panics_at.load(Ordering::SeqCst) == number {
            plan.panics_at.store(0, Ordering::SeqCst);
            panic!("a planned panic of the operator");
        }
        let value = match plan.bad.load(Ordering::SeqCst) {
            bad if bad > 0 && number == BAD => {
                plan.bad.store(0, Ordering::SeqCst);
                bad
            }
            _ => number,
        };
        newest.insert(&key_of(&record), Newest(value))?;
        plan.seen.fetch_max(number + 1, Ordering::SeqCst);
        Ok(())
    })
}

/// All warnings of this process.
fn warnings() -> &'static Mutex<Vec<String>> {
    static ALL: OnceLock<Mutex<Vec<String>>> = OnceLock::new();
    ALL.get_or_init(|| {
        tracing::subscriber::set_global_default(Warnings).unwrap();
        Mutex::default()
    })
}

struct Warnings;

struct Text<'t>(&'t mut String);

impl tracing::field::Visit for Text<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, "{field}={value:?} ");
    }
}

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut text = String::new();
        event.record(&mut Text(&mut text));
        warnings().lock().unwrap().push(text);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn a_value_that_cannot_be_encoded_fails_its_checkpoints_and_names_the_state() {
    let (outside, told) = (Outside::new(), warnings());
    let bench = Bench::start(&outside, i32::MAX);
    bench.up_to(50);
    let first = bench.completed();
    bench.plan.bad.store(REFUSES, Ordering::SeqCst);
    bench.up_to(END_OF_BAD);
    bench.declined();
    bench.declined();
    let told = told.lock().unwrap().clone();
    let of_this = |text: &&String| text.contains("without an encoding");
    let texts: Vec<_> = told.iter().filter(of_this).collect();
    assert!(texts.len() >= 2, "{told:?}");
    for part in ["keep/0", "state \"newest\"", "Newest"] {
        assert!(texts[0].contains(part), "{texts:?} lack {part}");
    }
    // Another value stands in its place: the same attempt goes on to a checkpoint with it.
    bench.up_to(END_OF_BAD + 1);
    let second = bench.completed();
    assert!(second > first);
    assert_eq!(bench.handle.progress().restarts, 0);
    // What is restored is that one, and the state at the end has every record.
    bench.plan.panics_at.store(300, Ordering::SeqCst);
    *bench.gate.lock().unwrap() = 301;
    bench.restarted(1);
    let (restored, _) = bench.finish();
    assert_eq!(restored, [None, Some(second)]);
}

#[test]
fn nothing_of_a_failed_checkpoint_is_restored() {
    for bad in [REFUSES, PANICS] {
        let outside = Outside::new();
        let bench = Bench::start(&outside, i32::MAX);
        bench.up_to(50);
        let first = bench.completed();
        bench.plan.bad.store(bad, Ordering::SeqCst);
        bench.up_to(END_OF_BAD);
        bench.declined();
        assert_eq!(bench.handle.progress().restarts, 0, "the job goes on");
        bench.plan.panics_at.store(END_OF_BAD, Ordering::SeqCst);
        *bench.gate.lock().unwrap() = END_OF_BAD + 1;
        bench.restarted(1);
        // The value was planned once: now the records before are good, and so is a checkpoint.
        bench.up_to(END_OF_BAD);
        bench.completed();
        let (restored, errors) = bench.finish();
        assert_eq!(restored, [None, Some(first)]);
        assert!(
            errors[0].contains("keep/0 panicked: a planned panic of the operator"),
            "{errors:?}"
        );
    }
}

#[test]
fn a_panic_while_a_value_is_encoded_fails_the_checkpoint_and_not_the_job() {
    let outside = Outside::new();
    let bench = Bench::start(&outside, i32::MAX);
    bench.plan.bad.store(PANICS, Ordering::SeqCst);
    bench.up_to(BAD + 1);
    bench.declined();
    bench.up_to(END_OF_BAD + 1);
    bench.completed();
    bench.up_to(500);
    bench.completed();
    let (restored, errors) = bench.finish();
    assert_eq!((restored, errors), (vec![None], vec![]));
}

#[test]
fn more_failed_checkpoints_than_are_tolerable_restart_the_job() {
    let outside = Outside::new();
    let bench = Bench::start(&outside, 1);
    bench.up_to(50);
    let first = bench.completed();
    bench.plan.bad.store(REFUSES, Ordering::SeqCst);
    bench.up_to(BAD + 1);
    bench.declined();
    assert_eq!(bench.handle.progress().restarts, 0, "one is tolerable");
    bench.declined();
    bench.restarted(1);
    bench.up_to(BAD + 1);
    bench.completed();
    let (restored, errors) = bench.finish();
    assert_eq!(restored, [None, Some(first)]);
    assert_eq!(errors.len(), 1);
}

#[test]
fn a_panic_at_a_freeze_or_in_an_operator_restarts_its_job_and_leaves_others_alone() {
    let outside = Outside::new();
    // Another job in the same store, over all of the time.
    let gate = Arc::new(Mutex::new(200));
    let other = counting(&shape(), gated(&shape(), &gate), &outside).build().unwrap();
    let other_handle = other.handle();
    let other = std::thread::spawn(move || other.run().unwrap());

    let bench = Bench::start(&outside, i32::MAX);
    bench.up_to(50);
    let first = bench.completed();
    bench.plan.freeze.store(true, Ordering::SeqCst);
    let outcome = bench.checkpoint();
    assert!(matches!(outcome, CheckpointOutcome::Failed { .. }), "{outcome:?}");
    bench.restarted(1);
    bench.up_to(150);
    let second = bench.completed();
    bench.plan.panics_at.store(200, Ordering::SeqCst);
    *bench.gate.lock().unwrap() = 201;
    bench.restarted(2);
    let before = other_handle.progress().completed;
    while other_handle.progress().completed < before + 2 {
        std::thread::yield_now();
    }
    let (restored, errors) = bench.finish();
    assert_eq!(restored, [None, Some(first), Some(second)]);
    assert!(errors[0].contains("keep/0 panicked: a planned panic at a freeze"), "{errors:?}");
    assert!(errors[1].contains("keep/0 panicked: a planned panic of the operator"), "{errors:?}");

    *gate.lock().unwrap() = u64::MAX;
    assert_exactly_once(&shape(), &other.join().unwrap(), &outside);
    assert_eq!(other_handle.progress().restarts, 0);
}
