//! How jobs end: finished, stopped and continued, given up.

use std::cell::RefCell;
use std::io::Read;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::config::CheckpointConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::local::tests::support::{
    Database, Failures, Insert, Outside, Record, Shape, assert_exactly_once, config, counting,
    fast_restarts, gated, numbers, shape, storage, stored,
};
use crate::local::{Flow, Job, JobEnd, JobListener, Output, Progress, RestartPolicy, Scope};
use crate::message::CheckpointRequest;
use crate::state::{SectionKey, SectionKind, SnapshotSink, Stateful};

/// Longer than any of these jobs takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Counts what it is told, and calls back at each completed checkpoint.
struct Watcher<F> {
    on_completed: F,
    restarts: AtomicU32,
    reports: Mutex<Vec<String>>,
}

impl<F: Fn(CheckpointId, &Progress) + Send + Sync> JobListener for Watcher<F> {
    fn restored(&self, report: &crate::restore::RestoreReport) {
        self.reports.lock().unwrap().push(report.to_string());
    }

    fn completed(&self, id: CheckpointId, progress: &Progress) {
        (self.on_completed)(id, progress);
    }

    fn restarting(&self, _: &Error, _: Duration) {
        self.restarts.fetch_add(1, Ordering::SeqCst);
    }
}

fn watcher<F: Fn(CheckpointId, &Progress) + Send + Sync>(on_completed: F) -> Arc<Watcher<F>> {
    Arc::new(Watcher { on_completed, restarts: AtomicU32::new(0), reports: Mutex::default() })
}

#[test]
fn sources_that_end_at_different_times_take_part_to_the_end() {
    let (shape, outside) = (shape(), Outside::new());
    let gate = Arc::new(Mutex::new(1_000));
    let opened = Arc::clone(&gate);
    // Checkpoints complete while two sources have ended and the third waits; each opens the gate.
    let listener = watcher(move |_, _| *opened.lock().unwrap() += 1_000);
    let job = counting(&shape, gated(&shape, &gate), &outside).listener(listener).build().unwrap();
    let handle = job.handle();
    let end = job.run().unwrap();
    assert_exactly_once(&shape, &end, &outside);
    assert!(handle.progress().completed >= 5, "{:?}", handle.progress());
}

#[test]
fn each_planned_failure_restarts_the_job_once() {
    // One source: several could fail before the first failure has halted them all.
    let shape = Shape { ends: vec![6_000], ..shape() };
    let outside = Outside::new();
    let listener = watcher(|_, _| {});
    let failures = Failures::after(vec![2_000, 1_000, 1_500]);
    let job = counting(&shape, numbers(&shape.ends, &failures), &outside)
        .listener(Arc::clone(&listener) as Arc<dyn JobListener>)
        .build()
        .unwrap();
    let handle = job.handle();
    let end = job.run().unwrap();
    assert_exactly_once(&shape, &end, &outside);
    assert_eq!(listener.restarts.load(Ordering::SeqCst), 3);
    assert_eq!(handle.progress().restarts, 3);
    assert_eq!(listener.reports.lock().unwrap().len(), 4);
}

#[test]
fn a_stopped_job_goes_on_where_it_stopped() {
    let (shape, outside) = (shape(), Outside::new());
    let gate = Arc::new(Mutex::new(1_000));
    for round in 1..=3 {
        *gate.lock().unwrap() = round * 1_500;
        let job = counting(&shape, gated(&shape, &gate), &outside).build().unwrap();
        let handle = job.handle();
        let job = std::thread::spawn(move || job.run().unwrap());
        while handle.progress().completed < 3 {
            std::thread::yield_now();
        }
        handle.shutdown(PATIENCE);
        let end = job.join().unwrap();
        let JobEnd::Suspended { checkpoint } = end else { panic!("{end:?}") };
        assert!(checkpoint.is_some());
        assert!(
            handle.trigger_checkpoint(CheckpointRequest::Configured).is_err(),
            "the job is over"
        );
    }
    *gate.lock().unwrap() = u64::MAX;
    let end = counting(&shape, gated(&shape, &gate), &outside).build().unwrap().run().unwrap();
    assert_exactly_once(&shape, &end, &outside);
}

#[test]
fn a_finished_job_is_run_again_only_until_its_end_is_recorded() {
    let (shape, outside) = (shape(), Outside::new());
    let run = || {
        let sources = numbers(&shape.ends, &Failures::after(vec![]));
        counting(&shape, sources, &outside).build().unwrap().run().unwrap()
    };
    for _ in 0..2 {
        assert_exactly_once(&shape, &run(), &outside);
    }
    let JobEnd::Finished(finished) = run() else { panic!("not finished") };
    finished.record("done").unwrap();
    for _ in 0..2 {
        let end = run();
        assert!(matches!(&end, JobEnd::AlreadyFinished { word } if word == "done"), "{end:?}");
    }
    assert_eq!(stored(&outside), [0; 0], "the record outlives the checkpoints");
}

#[test]
fn the_policy_ends_a_job_that_fails_too_often() {
    let shape = Shape { ends: vec![6_000], ..shape() };
    let outside = Outside::new();
    let failures = Failures::after(vec![10, 10, 10, 10]);
    let error = counting(&shape, numbers(&shape.ends, &failures), &outside)
        .restart_policy(fast_restarts().attempts_max(2))
        .build()
        .unwrap()
        .run()
        .unwrap_err();
    assert!(error.to_string().contains("planned"), "{error}");
    // What was completed is kept: the next process goes on.
    let sources = numbers(&shape.ends, &failures);
    let end = counting(&shape, sources, &outside).build().unwrap().run().unwrap();
    assert_exactly_once(&shape, &end, &outside);
}

#[test]
fn a_panic_names_its_task() {
    let (shape, outside) = (shape(), Outside::new());
    // The second failure of a source at an even position is a panic.
    let failures = Failures::after(vec![0]);
    let error = counting(&shape, numbers(&[10], &failures), &outside)
        .restart_policy(RestartPolicy::never())
        .build()
        .unwrap()
        .run()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.to_string().contains("read/0 panicked: a planned panic"), "{error}");
}

#[test]
fn a_checkpoint_can_be_asked_for() {
    let shape = Shape { interval_ms: 3_600_000, ..shape() };
    let outside = Outside::new();
    let gate = Arc::new(Mutex::new(1_000));
    let job = counting(&shape, gated(&shape, &gate), &outside).build().unwrap();
    let handle = job.handle();
    assert_eq!(
        handle.trigger_checkpoint(CheckpointRequest::Configured).unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    let job = std::thread::spawn(move || job.run().unwrap());
    let asked = loop {
        if let Ok(asked) = handle.trigger_checkpoint(CheckpointRequest::Configured) {
            break asked;
        }
        std::thread::yield_now();
    };
    while asked.try_outcome().is_none() {
        std::thread::yield_now();
    }
    *gate.lock().unwrap() = u64::MAX;
    assert_exactly_once(&shape, &job.join().unwrap(), &outside);
    assert!(handle.progress().last_duration > Duration::ZERO);
}

/// A structure of the user's own whose every other write fails.
struct Flaky {
    writes: Arc<AtomicU32>,
}

impl Stateful for Flaky {
    type Frozen = Arc<AtomicU32>;

    fn freeze(&mut self, _: CheckpointId) -> Self::Frozen {
        Arc::clone(&self.writes)
    }

    fn write(frozen: Self::Frozen, sink: &mut dyn SnapshotSink) -> Result<()> {
        let write = frozen.fetch_add(1, Ordering::SeqCst);
        assert!(write % 4 != 1, "a planned panic while writing");
        if write % 4 == 3 {
            return Err(Error::new(ErrorKind::Full, "a planned failure to write"));
        }
        let key = SectionKey::new(SectionKind::Raw, "flaky");
        sink.section(&key, &mut |out| Ok(out.write_all(b"here")?))
    }

    fn restore(&mut self, _: &SectionKey, body: &mut dyn Read) -> Result<()> {
        let mut content = String::new();
        body.read_to_string(&mut content)?;
        assert_eq!(content, "here");
        Ok(())
    }
}

#[test]
fn a_declined_checkpoint_aborts_no_transaction() {
    let shape = Shape { ends: vec![12_000], ..shape() };
    let database = Database::<Record>::new();
    let writes = Arc::new(AtomicU32::new(0));
    let gate = Arc::new(Mutex::new(1_000));
    let flow = Flow::new();
    let state = Arc::clone(&writes);
    let passed = flow
        .source("read", gated(&shape, &gate))
        .unwrap()
        .key_by(|record: &Record| record.1)
        .process("pass", 1, move |scope: &mut Scope| {
            let flaky = Rc::new(RefCell::new(Flaky { writes: Arc::clone(&state) }));
            scope.states().raw("flaky", flaky)?;
            Ok(|record: Record, out: &mut Output<Record>| out.emit(record))
        })
        .unwrap();
    let insert = Arc::clone(&database);
    passed
        .key_by(|record: &Record| record.1)
        .sink("records", 1, move |context| Ok(Insert::new(&insert, context)))
        .unwrap();
    let mut config = CheckpointConfig::new();
    config.set_checkpoint_interval(10).unwrap();
    config.set_tolerable_checkpoint_failure_number(i32::MAX).unwrap();
    // Records flow before each checkpoint, whether it fails or not.
    let opened = Arc::clone(&gate);
    let listener = watcher(move |_, _| *opened.lock().unwrap() += 2_000);
    let job = Job::builder("flaky", flow, config.build().unwrap(), storage())
        .listener(listener)
        .build()
        .unwrap();
    let handle = job.handle();
    assert!(matches!(job.run().unwrap(), JobEnd::Finished(_)));
    let expected: Vec<Record> = (0..12_000).map(|number| (0, number)).collect();
    assert_eq!(database.committed(), expected);
    assert_eq!(database.pending(), 0);
    let progress = handle.progress();
    assert_eq!(progress.restarts, 0, "the failures were tolerable");
    assert!(progress.failed >= 2, "{progress:?}");
}

#[test]
fn a_record_does_not_wait_for_its_batch_when_nothing_follows() {
    // No checkpoint ever flushes, and the second source shuts the way to the end: the job stops
    // only because the record arrived.
    let shape = Shape { interval_ms: 3_600_000, ..shape() };
    let gate = Arc::new(Mutex::new(1));
    let flow = Flow::new();
    let arrived = Arc::new(AtomicU32::new(0));
    let arriving = Arc::clone(&arrived);
    flow.source("read", gated(&shape, &gate))
        .unwrap()
        .key_by(|record: &Record| record.1)
        .process("first", 2, |_: &mut Scope| {
            Ok(|record: Record, out: &mut Output<Record>| out.emit(record))
        })
        .unwrap()
        .key_by(|record: &Record| record.0)
        .process("second", 2, move |_: &mut Scope| {
            let arriving = Arc::clone(&arriving);
            Ok(move |_: Record, _: &mut Output<()>| {
                arriving.fetch_add(1, Ordering::SeqCst);
                Ok(())
            })
        })
        .unwrap();
    let job = Job::builder("idle", flow, config(3_600_000, 1), storage()).build().unwrap();
    let handle = job.handle();
    let job = std::thread::spawn(move || job.run().unwrap());
    while arrived.load(Ordering::SeqCst) < 2 {
        std::thread::yield_now();
    }
    handle.shutdown(PATIENCE);
    assert!(matches!(job.join().unwrap(), JobEnd::Suspended { checkpoint: Some(_) }));
}
