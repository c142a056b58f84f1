//! Goal: the engine takes a job's tasks from trigger to durable checkpoint and back. Method: a host
//! that answers barriers on a thread of its own, over a real store.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, unbounded};

use super::*;
use crate::catalog::CheckpointPlan;
use crate::clock::{Clock, ManualClock};
use crate::config::{CheckpointConfig, CheckpointConfigBuilder};
use crate::error::ErrorKind;
use crate::ids::{JobId, OperatorUid};
use crate::message::CheckpointFailureReason as Reason;
use crate::restore::RestorePolicy;
use crate::state::{SectionKey, SectionKind};
use crate::storage::{
    CheckpointedStateScope, JobManagerCheckpointStorage, SledCheckpointStorage, StreamStateHandle,
};

mod claiming;
mod restoring;

const PATIENCE: Duration = Duration::from_secs(20);

enum Told {
    Barrier(Barrier),
    News(Notification),
    Failed(Error),
}

struct Channel(Sender<Told>);

impl Host for Channel {
    fn trigger(&self, barrier: Barrier) {
        let _ = self.0.send(Told::Barrier(barrier));
    }

    fn notify(&self, notification: Notification) {
        let _ = self.0.send(Told::News(notification));
    }

    fn fail(&self, error: Error) {
        let _ = self.0.send(Told::Failed(error));
    }
}

fn builder(dir: &std::path::Path) -> EngineBuilder {
    builder_with(dir, CheckpointConfig::builder().tolerable_failures(0))
}

fn builder_with(dir: &std::path::Path, config: CheckpointConfigBuilder) -> EngineBuilder {
    let storage = Arc::new(SledCheckpointStorage::new(dir));
    Engine::builder(JobId::new("job").unwrap(), config.build().unwrap(), storage)
        .operator(OperatorSpec::new(OperatorUid::new("op").unwrap(), 2))
}

fn task(subtask: u32) -> TaskId {
    TaskId { operator: OperatorUid::new("op").unwrap(), subtask }
}

fn key() -> SectionKey {
    SectionKey::new(SectionKind::Raw, "state")
}

fn start(engine: &Engine) -> Receiver<Told> {
    let (tell, told) = unbounded();
    engine.start(Arc::new(Channel(tell))).unwrap();
    told
}

fn next_barrier(told: &Receiver<Told>) -> Barrier {
    loop {
        if let Told::Barrier(barrier) = told.recv_timeout(PATIENCE).unwrap() {
            return barrier;
        }
    }
}

fn failure(told: &Receiver<Told>) -> Error {
    loop {
        if let Told::Failed(error) = told.recv_timeout(PATIENCE).unwrap() {
            return error;
        }
    }
}

fn acknowledge_all(engine: &Engine, barrier: Barrier) {
    for subtask in 0..2 {
        let text = format!("{} of {}", subtask, barrier.id);
        let handle = engine.task(&task(subtask)).unwrap();
        handle
            .snapshot(barrier, &mut |sink| {
                sink.section(&key(), &mut |out| Ok(out.write_all(text.as_bytes())?))
            })
            .unwrap();
    }
}

fn state(engine: &Engine, subtask: u32) -> Option<String> {
    let mut source = engine.task_state(&task(subtask)).unwrap();
    source.next_section().unwrap()?;
    let mut text = String::new();
    source.body().read_to_string(&mut text).unwrap();
    Some(text)
}

#[test]
fn a_triggered_checkpoint_is_restored_by_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let engine = builder(dir.path()).property("input", "x").open().unwrap();
    assert_eq!(engine.restored(), None);
    let told = start(&engine);
    let handle = engine.trigger(CheckpointType::Checkpoint);
    let barrier = next_barrier(&told);
    acknowledge_all(&engine, barrier);
    assert_eq!(handle.wait(PATIENCE), Some(CheckpointOutcome::Completed(barrier.id)));
    let news = loop {
        if let Told::News(news) = told.recv_timeout(PATIENCE).unwrap() {
            break news;
        }
    };
    assert_eq!(news, Notification::Completed { id: barrier.id });
    drop(engine);

    let engine = builder(dir.path()).open().unwrap();
    assert_eq!(engine.restored(), Some(barrier.id));
    assert_eq!(engine.property("input"), Some("x"));
    assert_eq!(state(&engine, 1), Some(format!("1 of {}", barrier.id)));
    assert_eq!(engine.attempt().0, 2);
}

#[test]
fn a_failing_snapshot_declines_and_a_panic_does_too() {
    let dir = tempfile::tempdir().unwrap();
    let config = CheckpointConfig::builder().unlimited_failures();
    let engine = builder_with(dir.path(), config).open().unwrap();
    let told = start(&engine);
    for panics in [false, true] {
        let handle = engine.trigger(CheckpointType::Checkpoint);
        let barrier = next_barrier(&told);
        let failed = engine.task(&task(0)).unwrap().snapshot(barrier, &mut |_| {
            assert!(!panics, "on purpose");
            Err(Error::invalid("on purpose"))
        });
        assert!(failed.is_err());
        let reason = Reason::CheckpointAsyncException;
        let expected = CheckpointOutcome::Failed { id: Some(barrier.id), reason };
        assert_eq!(handle.wait(PATIENCE), Some(expected));
        acknowledge_all(&engine, barrier);
    }
    let handle = engine.trigger(CheckpointType::Checkpoint);
    let barrier = next_barrier(&told);
    acknowledge_all(&engine, barrier);
    assert_eq!(handle.wait(PATIENCE), Some(CheckpointOutcome::Completed(barrier.id)));
}

#[test]
fn a_job_beyond_its_tolerance_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let engine = builder(dir.path()).open().unwrap();
    let told = start(&engine);
    let _handle = engine.trigger(CheckpointType::Checkpoint);
    let barrier = next_barrier(&told);
    let reason = Reason::CheckpointDeclined;
    engine.task(&task(1)).unwrap().decline(barrier.id, reason);
    let error = failure(&told);
    assert!(error.to_string().contains("CHECKPOINT_DECLINED"), "{error}");
}

/// Flink: `CheckpointFailureManagerITCase`, a sink whose asynchronous part fails
#[test]
fn a_snapshot_that_fails_in_the_background_fails_a_job_without_tolerance() {
    let dir = tempfile::tempdir().unwrap();
    let engine = builder(dir.path()).open().unwrap();
    let told = start(&engine);
    let _handle = engine.trigger(CheckpointType::Checkpoint);
    let barrier = next_barrier(&told);
    let handle = engine.task(&task(1)).unwrap();
    let snapshot = handle.snapshot(barrier, &mut |_| Err(Error::invalid("on purpose")));
    assert!(snapshot.is_err());
    let error = failure(&told);
    assert!(error.to_string().contains("CHECKPOINT_ASYNC_EXCEPTION"), "{error}");
}

/// Flink: `CheckpointFailureManagerITCase`, metadata that cannot be finalised
#[test]
fn a_commit_that_fails_fails_a_job_without_tolerance_and_keeps_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let engine = builder(dir.path()).open().unwrap();
    let told = start(&engine);
    let handle = engine.trigger(CheckpointType::Checkpoint);
    let barrier = next_barrier(&told);
    // The storage refuses a commit behind a newer one.
    let newer = barrier.id.next();
    let operator = OperatorSpec::new(OperatorUid::new("op").unwrap(), 1);
    let other = engine.checkpoints().begin(newer, CheckpointPlan::new(vec![operator])).unwrap();
    let snapshot = other.writer(&task(0)).unwrap().finish().unwrap();
    other.commit(&[(task(0), snapshot)]).unwrap();
    acknowledge_all(&engine, barrier);
    let reason = Reason::FinalizeCheckpointFailure;
    let expected = CheckpointOutcome::Failed { id: Some(barrier.id), reason };
    assert_eq!(handle.wait(PATIENCE), Some(expected));
    let error = failure(&told);
    assert!(error.to_string().contains("FINALIZE_CHECKPOINT_FAILURE"), "{error}");
    assert_eq!(engine.checkpoints().ids(), [newer]);
}

/// Flink: CheckpointCoordinatorTest.testTriggerAndConfirmSimpleCheckpoint,
/// PendingCheckpointTest.testNullSubtaskStateLeadsToStatelessTask
#[test]
fn a_checkpoint_without_state_takes_the_place_of_one_with_state() {
    let dir = tempfile::tempdir().unwrap();
    let config = CheckpointConfig::builder().num_retained(1);
    let engine = builder_with(dir.path(), config).open().unwrap();
    let told = start(&engine);
    let _first = engine.trigger(CheckpointType::Checkpoint);
    let first = next_barrier(&told);
    acknowledge_all(&engine, first);
    let asked = engine.trigger(CheckpointType::Checkpoint);
    let second = next_barrier(&told);
    for subtask in 0..2 {
        let handle = engine.task(&task(subtask)).unwrap();
        handle.snapshot(second, &mut |_| Ok(())).unwrap();
    }
    assert_eq!(asked.wait(PATIENCE), Some(CheckpointOutcome::Completed(second.id)));
    let subsumed = loop {
        if let Told::News(Notification::Subsumed { id }) = told.recv_timeout(PATIENCE).unwrap() {
            break id;
        }
    };
    assert_eq!(subsumed, first.id);
    assert_eq!(engine.checkpoints().ids(), [second.id]);
    drop(engine);
    let engine = builder(dir.path()).open().unwrap();
    assert_eq!(engine.restored(), Some(second.id));
    assert_eq!([state(&engine, 0), state(&engine, 1)], [None, None]);
}

/// Flink: CompletedCheckpointTest.testCompletedCheckpointStatsCallbacks
#[test]
fn what_retention_gave_up_is_marked_before_the_host_hears_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = builder_with(dir.path(), CheckpointConfig::builder().num_retained(1));
    let engine = engine.open().unwrap();
    let told = start(&engine);
    for _ in 0..3 {
        let handle = engine.trigger(CheckpointType::Checkpoint);
        let barrier = next_barrier(&told);
        acknowledge_all(&engine, barrier);
        assert_eq!(handle.wait(PATIENCE), Some(CheckpointOutcome::Completed(barrier.id)));
        let entry = engine.statistics().checkpoint(barrier.id).cloned();
        assert!(entry.is_none_or(|entry| !entry.is_discarded));
        let Some(before) = barrier.id.0.checked_sub(1).filter(|&id| id > 0) else { continue };
        let given_up = loop {
            if let Told::News(Notification::Subsumed { id }) = told.recv_timeout(PATIENCE).unwrap()
            {
                break id;
            }
        };
        assert_eq!(given_up.0, before);
        let statistics = engine.statistics();
        assert!(statistics.checkpoint(given_up).unwrap().is_discarded);
    }
}

/// Flink: CheckpointCoordinatorMasterHooksTest.testDeduplicateOnRegister
#[test]
fn two_operators_of_one_name_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let again = OperatorSpec::new(OperatorUid::new("op").unwrap(), 1);
    let refused = builder(dir.path()).operator(again).open().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    for nothing in ["", "\n"] {
        assert!(OperatorUid::new(nothing).is_err());
    }
}

#[test]
fn only_the_retained_checkpoints_stay() {
    let small = CheckpointConfig::builder().num_retained(9).retained_max_bytes(1);
    for (config, given_up) in [(CheckpointConfig::builder(), &[1, 2][..]), (small, &[1, 2, 3, 4])] {
        let dir = tempfile::tempdir().unwrap();
        let engine = builder_with(dir.path(), config).open().unwrap();
        let told = start(&engine);
        for _ in 0..5 {
            let handle = engine.trigger(CheckpointType::Checkpoint);
            let barrier = next_barrier(&told);
            acknowledge_all(&engine, barrier);
            assert_eq!(handle.wait(PATIENCE), Some(CheckpointOutcome::Completed(barrier.id)));
        }
        let is_last = |told: Told| match told {
            Told::News(Notification::Subsumed { id }) => Some(&id.0) == given_up.last(),
            _ => false,
        };
        while !is_last(told.recv_timeout(PATIENCE).unwrap()) {}
        let left: Vec<u64> = engine.checkpoints().ids().iter().map(|id| id.0).collect();
        assert_eq!(left, (given_up.len() as u64 + 1..=5).collect::<Vec<_>>());
    }
}

/// A task writes a stream of its own and keeps the handle in its snapshot.
#[test]
fn a_handle_of_a_stream_in_a_snapshot_opens_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let engine = builder(dir.path()).open().unwrap();
    let told = start(&engine);
    let completed = engine.trigger(CheckpointType::Checkpoint);
    let barrier = next_barrier(&told);
    let storage = engine.checkpoints().storage();
    storage.initialize_location(barrier.id).unwrap();
    for subtask in 0..2 {
        let scope = CheckpointedStateScope::Exclusive;
        let mut stream = storage.worker().streams(barrier.id).create(scope).unwrap();
        let bytes = vec![u8::try_from(subtask).unwrap(); 50_000];
        std::io::Write::write_all(&mut stream, &bytes).unwrap();
        let text = serde_json::to_string(&stream.close_and_get_handle().unwrap()).unwrap();
        let handle = engine.task(&task(subtask)).unwrap();
        let body = &mut |out: &mut dyn std::io::Write| Ok(out.write_all(text.as_bytes())?);
        handle.snapshot(barrier, &mut |sink| sink.section(&key(), body)).unwrap();
    }
    assert!(completed.wait(PATIENCE).is_some());
    drop(engine);
    let engine = builder(dir.path()).open().unwrap();
    for subtask in 0..2 {
        let text = state(&engine, subtask).unwrap();
        let handle: StreamStateHandle = serde_json::from_str(&text).unwrap();
        let mut stream = engine.checkpoints().storage().worker().open_state(&handle).unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut bytes).unwrap();
        assert_eq!(bytes, vec![u8::try_from(subtask).unwrap(); 50_000]);
    }
}

#[test]
fn a_fresh_start_forgets_everything_but_the_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let engine = builder(dir.path()).open().unwrap();
    let told = start(&engine);
    let handle = engine.trigger(CheckpointType::Checkpoint);
    let barrier = next_barrier(&told);
    acknowledge_all(&engine, barrier);
    assert!(handle.wait(PATIENCE).is_some());
    engine.record_finish("done").unwrap();
    drop(engine);

    let engine = builder(dir.path()).restore_policy(RestorePolicy::Fresh).open().unwrap();
    assert_eq!((engine.restored(), state(&engine, 0)), (None, None));
    drop(engine);
    let engine = builder(dir.path()).open().unwrap();
    assert_eq!((engine.restored(), engine.checkpoints().finish()), (None, None));
    assert!(engine.checkpoints().next_id() > barrier.id);
}

/// Completes a checkpoint of this kind.
fn complete(engine: &Engine, kind: CheckpointType) -> CheckpointId {
    let told = start(engine);
    let handle = engine.trigger(kind);
    let barrier = next_barrier(&told);
    acknowledge_all(engine, barrier);
    assert_eq!(handle.wait(PATIENCE), Some(CheckpointOutcome::Completed(barrier.id)));
    barrier.id
}

#[test]
fn a_savepoint_elsewhere_is_restored_by_another_job_in_another_storage() {
    let dir = tempfile::tempdir().unwrap();
    let path = format!("file://{}/savepoints", dir.path().display());
    let config = CheckpointConfig::builder().savepoint_dir(&path).build().unwrap();
    let memory = Arc::new(JobManagerCheckpointStorage::new());
    let operator = OperatorSpec::new(OperatorUid::new("op").unwrap(), 2);
    let engine = Engine::builder(JobId::new("other").unwrap(), config, memory);
    let engine = engine.operator(operator).open().unwrap();
    let id = complete(&engine, CheckpointType::Savepoint);
    let pointer = engine.statistics().latest.savepoint.as_ref().unwrap().external_path.clone();
    let pointer = pointer.unwrap();
    assert!(pointer.starts_with(&path), "{pointer}");
    drop(engine);

    let store = dir.path().join("store");
    let given_up = complete(&builder(&store).open().unwrap(), CheckpointType::Checkpoint);
    let from = RestorePolicy::Savepoint(pointer.clone());
    let engine = builder(&store).restore_policy(from).open().unwrap();
    assert_eq!(engine.restored(), Some(id));
    assert_eq!(state(&engine, 1), Some(format!("1 of {id}")));
    assert!(engine.report().to_string().contains(&pointer));
    assert!(engine.checkpoints().ids().is_empty());
    let own = complete(&engine, CheckpointType::Checkpoint);
    assert!(own > given_up && own > id);
    drop(engine);
    let engine = builder(&store).open().unwrap();
    assert_eq!(state(&engine, 0), Some(format!("0 of {own}")));
    drop(engine);

    let nowhere = RestorePolicy::Savepoint(dir.path().display().to_string());
    let refused = builder(&store).restore_policy(nowhere).open().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    assert_eq!(builder(&store).open().unwrap().checkpoints().ids(), [own], "nothing is given up");
}

#[test]
fn a_savepoint_that_names_its_place_goes_there_from_any_storage() {
    let dir = tempfile::tempdir().unwrap();
    let engine = builder(&dir.path().join("store")).open().unwrap();
    let told = start(&engine);
    let target = format!("file://{}/target", dir.path().display());
    for kind in [CheckpointType::Savepoint, CheckpointType::SyncSavepoint] {
        let handle = engine.trigger_savepoint_to(kind, &target).unwrap();
        let barrier = next_barrier(&told);
        acknowledge_all(&engine, barrier);
        assert_eq!(handle.wait(PATIENCE), Some(CheckpointOutcome::Completed(barrier.id)));
        let statistics = engine.statistics();
        let entry = statistics.checkpoint(barrier.id).unwrap();
        let pointer = entry.external_path.as_deref().unwrap();
        assert!(pointer.starts_with(&target), "{pointer}");
        let is_kept = kind == CheckpointType::SyncSavepoint;
        assert_eq!(engine.checkpoints().ids().contains(&barrier.id), is_kept);
    }
    let wrong = engine.trigger_savepoint_to(CheckpointType::Savepoint, "/target");
    assert_eq!(wrong.unwrap_err().kind(), ErrorKind::Invalid);
    let wrong = engine.trigger_savepoint_to(CheckpointType::Checkpoint, &target);
    assert_eq!(wrong.unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn a_checkpoint_that_does_not_fit_the_job_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let engine = builder(dir.path()).open().unwrap();
    let told = start(&engine);
    let handle = engine.trigger(CheckpointType::Checkpoint);
    let barrier = next_barrier(&told);
    acknowledge_all(&engine, barrier);
    assert!(handle.wait(PATIENCE).is_some());
    drop(engine);
    let config = CheckpointConfig::builder().build().unwrap();
    let storage = Arc::new(SledCheckpointStorage::new(dir.path()));
    let spec = |parallelism| OperatorSpec::new(OperatorUid::new("op").unwrap(), parallelism);
    let open = |operator: OperatorSpec| {
        let storage = Arc::<SledCheckpointStorage>::clone(&storage);
        let job = JobId::new("job").unwrap();
        Engine::builder(job, config.clone(), storage).operator(operator).open()
    };
    let refused = |operator| open(operator).unwrap_err().kind();
    assert_eq!(refused(spec(129)), ErrorKind::Incompatible);
    assert_eq!(refused(spec(2).with_max_parallelism(256)), ErrorKind::Incompatible);
    // So many subtasks would have other key groups without a checkpoint.
    let uid = OperatorUid::new("op").unwrap();
    assert_eq!(open(spec(90)).unwrap().max_parallelism(&uid), Some(128));
    let other = open(spec(3)).unwrap();
    assert!(other.is_rescaled(&OperatorUid::new("op").unwrap()));
}

/// Flips a bit behind the last occurrence of `text` in the log.
fn damage_log(dir: &std::path::Path, text: &[u8]) {
    for entry in std::fs::read_dir(dir.join("log")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(text.len()).rposition(|found| found == text) {
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
}

#[test]
fn a_start_from_a_damaged_checkpoint_fails_and_names_it() {
    for (inline, index) in [(true, true), (false, true), (true, false), (false, false)] {
        let dir = tempfile::tempdir().unwrap();
        let engine = builder(dir.path()).open().unwrap();
        let told = start(&engine);
        let handle = engine.trigger(CheckpointType::Checkpoint);
        let barrier = next_barrier(&told);
        let text = if inline { "needle".to_owned() } else { "needle".repeat(1000) };
        for subtask in 0..2 {
            let handle = engine.task(&task(subtask)).unwrap();
            let write = &mut |out: &mut dyn std::io::Write| Ok(out.write_all(text.as_bytes())?);
            handle.snapshot(barrier, &mut |sink| sink.section(&key(), write)).unwrap();
        }
        assert!(handle.wait(PATIENCE).is_some());
        drop(engine);
        damage_log(dir.path(), b"needleneedle".get(..if inline { 6 } else { 12 }).unwrap());
        if !index {
            std::fs::remove_file(dir.path().join("CURRENT")).unwrap();
        }
        let opened = builder(dir.path()).open();
        let error = match opened {
            // Manifests are read from the index, which was closed in order.
            Ok(engine) if inline && index => {
                assert_eq!(state(&engine, 1), Some(text));
                continue;
            }
            Ok(engine) => {
                let read = |subtask| -> Result<()> {
                    let mut source = engine.task_state(&task(subtask))?;
                    source.next_section()?;
                    source.body().read_to_end(&mut Vec::new())?;
                    Ok(())
                };
                read(0).and_then(|()| read(1)).unwrap_err()
            }
            Err(error) => error,
        };
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains(&format!("checkpoint {}", barrier.id)), "{error}");
    }
}

#[test]
fn checkpoints_go_on_without_a_finished_task_and_say_that_it_had_finished() {
    let dir = tempfile::tempdir().unwrap();
    let engine = builder(dir.path()).open().unwrap();
    engine.set_task_state(&task(1), TaskState::Finished).unwrap();
    let told = start(&engine);
    let asked = engine.trigger_checkpoint(CheckpointRequest::Full);
    let barrier = next_barrier(&told);
    assert_eq!(barrier.options.kind, CheckpointType::FullCheckpoint);
    let writing = engine.task(&task(0)).unwrap();
    writing.snapshot(barrier, &mut |sink| sink.section(&key(), &mut |_| Ok(()))).unwrap();
    assert_eq!(asked.wait(PATIENCE), Some(CheckpointOutcome::Completed(barrier.id)));
    assert!(engine.shutdown(PATIENCE));
    drop((writing, engine));
    let engine = builder(dir.path()).open().unwrap();
    let sections = |subtask| {
        let mut state = engine.task_state(&task(subtask)).unwrap();
        std::iter::from_fn(move || state.next_section().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(sections(0), [key()]);
    assert_eq!(sections(1), [SectionKey::new(SectionKind::Finished, "finished")]);
}

/// The outcome of a request, whose barrier is acknowledged if one comes.
fn answer(engine: &Engine, told: &Receiver<Told>) -> CheckpointOutcome {
    let asked = engine.trigger(CheckpointType::Checkpoint);
    loop {
        if let Ok(Told::Barrier(barrier)) = told.try_recv() {
            acknowledge_all(engine, barrier);
        }
        if let Some(outcome) = asked.wait(Duration::from_millis(1)) {
            return outcome;
        }
    }
}

#[test]
fn a_task_that_does_not_run_holds_checkpoints_back_until_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let config = CheckpointConfig::builder().checkpoints_after_tasks_finish(false);
    let engine = builder_with(dir.path(), config).open().unwrap();
    let told = start(&engine);
    let reason = Reason::NotAllRequiredTasksRunning;
    let refused = CheckpointOutcome::Failed { id: None, reason };
    for state in [TaskState::NotRunning, TaskState::Finished] {
        engine.set_task_state(&task(1), state).unwrap();
        // Requests may overtake a change that was made just before them.
        assert!((0..10_000).any(|_| answer(&engine, &told) == refused), "{state:?}");
    }
    engine.set_task_state(&task(1), TaskState::Running).unwrap();
    assert!((0..10_000).any(|_| answer(&engine, &told) != refused));
    let unknown = engine.set_task_state(&task(2), TaskState::Running).unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
}

/// The next barrier, and all of it acknowledged; the clock goes on by seconds until it comes.
fn next_completed(engine: &Engine, told: &Receiver<Told>, clock: &ManualClock) -> Barrier {
    loop {
        clock.advance(Duration::from_secs(1));
        // Lets the scheduler look at the time.
        drop(engine.statistics());
        if let Ok(Told::Barrier(barrier)) = told.recv_timeout(Duration::from_millis(5)) {
            acknowledge_all(engine, barrier);
            // The next one may be on its way by the time that this one is complete.
            while engine.counts().last_completed.is_none_or(|last| last.id < barrier.id) {
                std::thread::yield_now();
            }
            return barrier;
        }
    }
}

#[test]
fn while_a_source_has_a_backlog_only_requested_checkpoints_start() {
    let dir = tempfile::tempdir().unwrap();
    let config = CheckpointConfig::builder()
        .interval(Duration::from_secs(1))
        .interval_during_backlog(Duration::ZERO);
    let clock = Arc::new(ManualClock::new(0));
    let engine = builder_with(dir.path(), config);
    let engine = engine.clock(Arc::clone(&clock) as Arc<dyn Clock>).open().unwrap();
    engine.set_backlog(&task(0), true).unwrap();
    let told = start(&engine);
    let planned = next_completed(&engine, &told, &clock);
    clock.advance(Duration::from_secs(60));
    drop(engine.trigger(CheckpointType::Checkpoint));
    let requested = next_completed(&engine, &told, &clock);
    assert_eq!(requested.id, planned.id.next());
    let while_backlogged = clock.wall_ms();
    engine.set_backlog(&task(0), false).unwrap();
    let periodic = next_completed(&engine, &told, &clock);
    assert!(requested.timestamp_ms <= while_backlogged);
    assert!(periodic.timestamp_ms > while_backlogged, "none started in between");
}
