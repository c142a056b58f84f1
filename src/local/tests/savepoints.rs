//! Goal: a job that was to end with a savepoint goes on when that savepoint fails.
//!
//! Method: a state of the test's own refuses to be written while a switch is on; a source stands still
//! at a gate, so that the job lives as long as the test wants.

use std::cell::RefCell;
use std::io::Read;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::config::CheckpointConfig;
use crate::engine::{CheckpointOutcome, TriggerHandle};
use crate::error::{Error, Result};
use crate::ids::CheckpointId;
use crate::local::tests::support::{
    Database, Insert, Record, Shape, fast_restarts, gated, storage,
};
use crate::local::{ExchangeOptions, Flow, Job, JobEnd, JobHandle, Output, Scope, StopMode};
use crate::message::CheckpointFailureReason as Reason;
use crate::state::{SectionKey, SectionKind, SnapshotSink, Stateful};

const RECORDS: u64 = 5_000;

/// A state that cannot be written while the switch is on.
struct Switched(Arc<AtomicBool>);

impl Stateful for Switched {
    type Frozen = Arc<AtomicBool>;

    fn freeze(&mut self, _: CheckpointId) -> Self::Frozen {
        Arc::clone(&self.0)
    }

    fn write(frozen: Self::Frozen, sink: &mut dyn SnapshotSink) -> Result<()> {
        if frozen.load(Ordering::SeqCst) {
            return Err(Error::invalid("a planned failure to write"));
        }
        let key = SectionKey::new(SectionKind::Raw, "switched");
        sink.section(&key, &mut |out| Ok(out.write_all(b"here")?))
    }

    fn restore(&mut self, _: &SectionKey, body: &mut dyn Read) -> Result<()> {
        body.read_to_end(&mut Vec::new())?;
        Ok(())
    }
}

fn job(switch: &Arc<AtomicBool>, gate: &Arc<Mutex<u64>>, database: &Arc<Database<Record>>) -> Job {
    let shape = Shape {
        ends: vec![RECORDS],
        counters: 1,
        sinks: 1,
        interval_ms: 10,
        concurrent: 1,
        exchange: ExchangeOptions::default(),
    };
    let flow = Flow::new();
    let switch = Arc::clone(switch);
    let passed = flow
        .source("read", gated(&shape, gate))
        .unwrap()
        .key_by(|record: &Record| record.1)
        .process("pass", 1, move |scope: &mut Scope| {
            let state = Rc::new(RefCell::new(Switched(Arc::clone(&switch))));
            scope.states().raw("switched", state)?;
            Ok(|record: Record, out: &mut Output<Record>| out.emit(record))
        })
        .unwrap();
    let insert = Arc::clone(database);
    passed
        .key_by(|record: &Record| record.1)
        .sink("records", 1, move |context| Ok(Insert::new(&insert, context)))
        .unwrap();
    let config = CheckpointConfig::builder().interval(Duration::from_millis(10));
    let config = config.unlimited_failures().build().unwrap();
    let job = Job::builder("switched", flow, config, storage());
    job.restart_policy(fast_restarts()).build().unwrap()
}

/// Asks until the job runs, then waits for the outcome.
fn ask(wish: impl Fn() -> Result<TriggerHandle>) -> CheckpointOutcome {
    loop {
        if let Ok(asked) = wish() {
            return asked.wait(Duration::from_secs(60)).unwrap();
        }
        std::thread::yield_now();
    }
}

fn completes_more(handle: &JobHandle) {
    let before = handle.progress().completed;
    while handle.progress().completed <= before {
        std::thread::yield_now();
    }
}

#[test]
fn a_failed_savepoint_to_stop_with_restarts_the_job_and_one_to_cancel_with_lets_it_go_on() {
    let switch = Arc::new(AtomicBool::new(false));
    let (gate, database) = (Arc::new(Mutex::new(1_000)), Database::<Record>::new());
    let job = job(&switch, &gate, &database);
    let handle = job.handle();
    let thread = std::thread::spawn(move || job.run().unwrap());
    completes_more(&handle);

    switch.store(true, Ordering::SeqCst);
    let outcome = ask(|| handle.cancel_with_savepoint());
    let reason = Reason::CheckpointAsyncException;
    assert!(matches!(outcome, CheckpointOutcome::Failed { reason: found, .. } if found == reason));
    switch.store(false, Ordering::SeqCst);
    completes_more(&handle);
    assert_eq!(handle.progress().restarts, 0);

    switch.store(true, Ordering::SeqCst);
    let outcome = ask(|| handle.stop_with_savepoint(StopMode::Suspend));
    assert!(matches!(outcome, CheckpointOutcome::Failed { .. }), "{outcome:?}");
    switch.store(false, Ordering::SeqCst);
    completes_more(&handle);
    assert_eq!(handle.progress().restarts, 1);

    *gate.lock().unwrap() = u64::MAX;
    assert!(matches!(thread.join().unwrap(), JobEnd::Finished(_)));
    assert!(database.committed().into_iter().eq((0..RECORDS).map(|number| (0, number))));
}
