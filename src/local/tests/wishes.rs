//! Goal: a job ends as it was asked to, keeps what its policy says, and can be changed while it runs.
//!
//! Method: sources stand still at a gate, so that a job lives as long as a test wants; what is left in
//! the store and in the sinks is looked at afterwards.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::config::{CheckpointConfig, ExternalizedCheckpointCleanup as Cleanup, PolicyUpdate};
use crate::engine::{CheckpointOutcome, TriggerHandle};
use crate::error::{Error, ErrorKind};
use crate::ids::{CheckpointId, JobId};
use crate::local::tests::support::{
    Failures, Outside, assert_exactly_once, counting, fast_restarts, gated, numbers, shape, stored,
};
use crate::local::{JobBuilder, JobEnd, JobHandle, JobListener, Progress, RestartPolicy, StopMode};
use crate::message::{CheckpointFailureReason as Reason, CheckpointRequest};
use crate::restore::RestorePolicy;
use crate::storage::{CheckpointStorage, JobStorage};

/// Longer than any of these jobs takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A job whose sources go on up to `gate`.
fn job(outside: &Outside, gate: &Arc<Mutex<u64>>, cleanup: Cleanup) -> JobBuilder {
    let mut config = CheckpointConfig::new();
    config.set_checkpoint_interval(10).unwrap().set_externalized_checkpoint_cleanup(cleanup);
    counting(&shape(), gated(&shape(), gate), outside).config(config.build().unwrap())
}

/// Runs on a thread of its own; returns when so many checkpoints are complete.
fn run(job: JobBuilder, completed: u64) -> (JobHandle, JoinHandle<JobEnd>) {
    let job = job.build().unwrap();
    let handle = job.handle();
    let thread = std::thread::spawn(move || job.run().unwrap());
    while handle.progress().completed < completed {
        std::thread::yield_now();
    }
    (handle, thread)
}

fn outcome(asked: &TriggerHandle) -> CheckpointOutcome {
    asked.wait(PATIENCE).unwrap()
}

fn completed(asked: &TriggerHandle) -> CheckpointId {
    match outcome(asked) {
        CheckpointOutcome::Completed(id) => id,
        failed => panic!("{failed:?}"),
    }
}

#[test]
fn a_job_stopped_with_a_savepoint_commits_it_and_goes_on_from_it() {
    let (outside, gate) = (Outside::new(), Arc::new(Mutex::new(1_000)));
    for mode in [StopMode::Suspend, StopMode::Drain] {
        let job = job(&outside, &gate, Cleanup::NoExternalizedCheckpoints);
        let (handle, thread) = run(job, 2);
        let asked = handle.stop_with_savepoint(mode).unwrap();
        let again = handle.stop_with_savepoint(mode).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::Conflict);
        let id = completed(&asked);
        let end = thread.join().unwrap();
        assert!(matches!(end, JobEnd::Stopped { savepoint } if savepoint == id), "{end:?}");
        assert_eq!(stored(&outside).last(), Some(&id.0));
        assert_eq!(outside.records.pending(), 0, "its transactions are committed");
        *gate.lock().unwrap() += 1_000;
    }
    *gate.lock().unwrap() = u64::MAX;
    let end = job(&outside, &gate, Cleanup::NoExternalizedCheckpoints).build().unwrap().run();
    assert_exactly_once(&shape(), &end.unwrap(), &outside);
}

#[test]
fn nothing_is_read_behind_the_savepoint_that_a_job_stops_with() {
    // The gate is open: sources would run on to their ends.
    let (outside, gate) = (Outside::new(), Arc::new(Mutex::new(10)));
    let (handle, thread) = run(job(&outside, &gate, Cleanup::NoExternalizedCheckpoints), 1);
    let asked = handle.stop_with_savepoint(StopMode::Suspend).unwrap();
    *gate.lock().unwrap() = u64::MAX;
    let end = thread.join().unwrap();
    let JobEnd::Stopped { savepoint } = end else { panic!("{end:?}") };
    assert_eq!(savepoint, completed(&asked));
    assert_eq!(
        stored(&outside),
        [savepoint.0],
        "its checkpoints are discarded, as of a finished job"
    );
    let committed = outside.records.committed().len();
    let job = job(&outside, &gate, Cleanup::NoExternalizedCheckpoints).build().unwrap();
    assert_exactly_once(&shape(), &job.run().unwrap(), &outside);
    assert!(outside.records.committed().len() >= committed);
}

#[test]
fn a_cancelled_job_keeps_its_checkpoints_only_when_that_was_asked_for() {
    let kept = |cleanup| {
        let (outside, gate) = (Outside::new(), Arc::new(Mutex::new(1_000)));
        let (handle, thread) = run(job(&outside, &gate, cleanup), 2);
        handle.cancel();
        let end = thread.join().unwrap();
        assert!(matches!(end, JobEnd::Canceled { savepoint: None }), "{end:?}");
        stored(&outside).len()
    };
    assert_eq!(kept(Cleanup::NoExternalizedCheckpoints), 0);
    assert_eq!(kept(Cleanup::DeleteOnCancellation), 0);
    assert!(kept(Cleanup::RetainOnCancellation) > 0);
}

#[test]
fn a_job_cancelled_with_a_savepoint_can_be_started_from_it_by_its_number() {
    let (outside, gate) = (Outside::new(), Arc::new(Mutex::new(1_000)));
    let policy = Cleanup::NoExternalizedCheckpoints;
    let (handle, thread) = run(job(&outside, &gate, policy), 2);
    let asked = handle.cancel_with_savepoint().unwrap();
    let end = thread.join().unwrap();
    let JobEnd::Canceled { savepoint: Some(id) } = end else { panic!("{end:?}") };
    assert_eq!((id, stored(&outside)), (completed(&asked), vec![id.0]));
    *gate.lock().unwrap() = u64::MAX;
    let job = job(&outside, &gate, policy).restore_policy(RestorePolicy::Exact(id));
    assert_exactly_once(&shape(), &job.build().unwrap().run().unwrap(), &outside);
    assert!(stored(&outside).contains(&id.0), "it is the user's");
}

#[test]
fn a_job_goes_on_from_checkpoints_and_not_from_a_savepoint() {
    let (outside, gate) = (Outside::new(), Arc::new(Mutex::new(1_000)));
    let (handle, thread) = run(job(&outside, &gate, Cleanup::RetainOnCancellation), 1);
    handle.update(&PolicyUpdate::new().no_interval()).unwrap();
    let checkpoint = completed(&handle.trigger_checkpoint(CheckpointRequest::Full).unwrap());
    let savepoint = completed(&handle.trigger_savepoint().unwrap());
    assert!(savepoint > checkpoint);
    handle.shutdown(Duration::ZERO);
    let end = thread.join().unwrap();
    assert!(matches!(end, JobEnd::Suspended { .. }), "{end:?}");
    *gate.lock().unwrap() = u64::MAX;
    let reports = Arc::new(Reports::default());
    let job = job(&outside, &gate, Cleanup::RetainOnCancellation)
        .listener(Arc::clone(&reports) as Arc<dyn JobListener>);
    assert_exactly_once(&shape(), &job.build().unwrap().run().unwrap(), &outside);
    assert!(*reports.0.lock().unwrap() >= Some(checkpoint));
    assert_ne!(*reports.0.lock().unwrap(), Some(savepoint));
}

/// The checkpoint that the first attempt restored.
#[derive(Default)]
struct Reports(Mutex<Option<CheckpointId>>);

impl JobListener for Reports {
    fn restored(&self, report: &crate::restore::RestoreReport) {
        let restored = report.restored.as_ref().map(|info| info.id);
        self.0.lock().unwrap().get_or_insert(restored.unwrap_or(CheckpointId(0)));
    }
}

#[test]
fn a_shutdown_that_has_no_time_ends_at_once_and_keeps_everything() {
    let (outside, gate) = (Outside::new(), Arc::new(Mutex::new(1_000)));
    let (handle, thread) = run(job(&outside, &gate, Cleanup::NoExternalizedCheckpoints), 2);
    handle.shutdown(Duration::ZERO);
    let end = thread.join().unwrap();
    assert!(matches!(end, JobEnd::Suspended { checkpoint: Some(_) }), "{end:?}");
    assert!(!stored(&outside).is_empty());
    assert_eq!(
        handle.stop_with_savepoint(StopMode::Suspend).unwrap_err().kind(),
        ErrorKind::Conflict
    );
    *gate.lock().unwrap() = u64::MAX;
    let job = job(&outside, &gate, Cleanup::NoExternalizedCheckpoints).build().unwrap();
    assert_exactly_once(&shape(), &job.run().unwrap(), &outside);
}

#[test]
fn a_failed_job_keeps_its_newest_checkpoint_under_every_policy() {
    for (cleanup, all) in [
        (Cleanup::NoExternalizedCheckpoints, false),
        (Cleanup::DeleteOnCancellation, true),
        (Cleanup::RetainOnCancellation, true),
    ] {
        let (outside, gate) = (Outside::new(), Arc::new(Mutex::new(1_000)));
        let (handle, thread) = run(job(&outside, &gate, cleanup), 4);
        handle.shutdown(PATIENCE);
        thread.join().unwrap();
        let before = stored(&outside);
        assert!(before.len() > 1);
        let failing =
            counting(&shape(), numbers(&shape().ends, &Failures::after(vec![0])), &outside);
        let mut config = CheckpointConfig::new();
        config.set_externalized_checkpoint_cleanup(cleanup);
        let failed = failing
            .config(config.build().unwrap())
            .restart_policy(RestartPolicy::never())
            .build()
            .unwrap()
            .run();
        assert!(failed.is_err());
        let newest = before.last().copied().into_iter().collect();
        assert_eq!(stored(&outside), if all { before } else { newest }, "{cleanup:?}");
    }
}

#[test]
fn interval_and_tolerance_of_a_running_job_can_be_changed() {
    let (outside, gate) = (Outside::new(), Arc::new(Mutex::new(1_000)));
    let mut config = CheckpointConfig::new();
    config.set_checkpoint_interval(3_600_000).unwrap();
    let job = counting(&shape(), gated(&shape(), &gate), &outside).config(config.build().unwrap());
    let (handle, thread) = run(job, 0);
    let wrong = handle.update(&PolicyUpdate::new().interval(Duration::from_millis(9)));
    assert_eq!(wrong.unwrap_err().kind(), ErrorKind::Invalid);
    // Without this no checkpoint would come for half an hour on average.
    let update = PolicyUpdate::new().interval(Duration::from_millis(10)).tolerable_failures(7);
    handle.update(&update).unwrap();
    while handle.progress().completed < 3 {
        std::thread::yield_now();
    }
    *gate.lock().unwrap() = u64::MAX;
    assert_exactly_once(&shape(), &thread.join().unwrap(), &outside);
}

/// A store that takes snapshots for a while and then fails every commit.
#[derive(Debug)]
struct Failing {
    inner: Arc<dyn CheckpointStorage>,
    /// Opens that may still succeed.
    opens: AtomicU32,
}

impl CheckpointStorage for Failing {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn open(&self, job: &JobId) -> crate::Result<JobStorage> {
        let left = |opens: u32| opens.checked_sub(1);
        match self.opens.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left) {
            Ok(_) => self.inner.open(job),
            Err(_) => Err(Error::new(ErrorKind::Unavailable, "the store is away")),
        }
    }
}

/// Stops the job after some restarts.
struct Patience {
    handle: Mutex<Option<JobHandle>>,
    restarts: u32,
}

impl JobListener for Patience {
    fn restarting(&self, error: &Error, _: Duration) {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        let handle = self.handle.lock().unwrap();
        let handle = handle.as_ref().unwrap();
        if handle.progress().restarts >= u64::from(self.restarts) {
            handle.shutdown(Duration::ZERO);
        }
    }

    fn completed(&self, _: CheckpointId, _: &Progress) {}
}

#[test]
fn a_failing_store_never_costs_a_completed_checkpoint() {
    let (mut outside, gate) = (Outside::new(), Arc::new(Mutex::new(1_000)));
    let (handle, thread) = run(job(&outside, &gate, Cleanup::NoExternalizedCheckpoints), 4);
    handle.shutdown(PATIENCE);
    thread.join().unwrap();
    let before = stored(&outside);
    // Default settings but for the delay between restarts, so that nothing has to be waited for.
    let inner = Arc::clone(&outside.storage);
    outside.storage = Arc::new(Failing { inner: Arc::clone(&inner), opens: AtomicU32::new(0) });
    let patience = Arc::new(Patience { handle: Mutex::default(), restarts: 50 });
    let failing = counting(&shape(), gated(&shape(), &gate), &outside)
        .config(CheckpointConfig::new().build().unwrap())
        .restart_policy(fast_restarts())
        .listener(Arc::clone(&patience) as Arc<dyn JobListener>)
        .build()
        .unwrap();
    *patience.handle.lock().unwrap() = Some(failing.handle());
    let end = failing.run().unwrap();
    assert!(matches!(end, JobEnd::Suspended { .. }), "{end:?}");
    outside.storage = inner;
    assert_eq!(stored(&outside), before);
    *gate.lock().unwrap() = u64::MAX;
    let job = job(&outside, &gate, Cleanup::NoExternalizedCheckpoints).build().unwrap();
    assert_exactly_once(&shape(), &job.run().unwrap(), &outside);
}

#[test]
fn a_request_to_a_job_that_does_not_run_is_refused_and_not_kept() {
    let (outside, gate) = (Outside::new(), Arc::new(Mutex::new(u64::MAX)));
    let job = job(&outside, &gate, Cleanup::NoExternalizedCheckpoints).build().unwrap();
    let handle = job.handle();
    for refused in [
        handle.trigger_savepoint(),
        handle.trigger_checkpoint(CheckpointRequest::Incremental),
        handle.stop_with_savepoint(StopMode::Drain),
        handle.cancel_with_savepoint(),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    assert_exactly_once(&shape(), &job.run().unwrap(), &outside);
    let late = handle.trigger_savepoint().map(|asked| outcome(&asked));
    let reason = Reason::CheckpointCoordinatorShutdown;
    assert!(
        late.is_err()
            || matches!(late, Ok(CheckpointOutcome::Failed { reason: r, .. }) if r == reason)
    );
}
