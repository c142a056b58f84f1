//! Goal: an engine restores the newest checkpoint that can be, says so, and counts how its starts end;
//! nothing else moves it. Method: both kinds of storage behind planned faults; a kill is an engine that
//! is dropped and has reported nothing.

use super::*;
use crate::limits::FAILURES_BEFORE_SET_ASIDE;
use crate::restore::OperatorRestore;
use crate::storage::CheckpointStorage;
use crate::storage::faulty::{FaultyStorage, Part};

/// A job in a storage of each kind, with this many completed checkpoints.
fn each_storage(checkpoints: u64, test: impl Fn(&FaultyStorage)) {
    let dir = tempfile::tempdir().unwrap();
    let storages: [Arc<dyn CheckpointStorage>; 2] = [
        Arc::new(JobManagerCheckpointStorage::new()),
        Arc::new(SledCheckpointStorage::new(dir.path())),
    ];
    for storage in storages {
        let storage = FaultyStorage::new(storage);
        for id in 1..=checkpoints {
            assert_eq!(complete(&open(&storage).unwrap(), CheckpointType::Checkpoint).0, id);
        }
        test(&storage);
    }
}

fn job(storage: &FaultyStorage) -> EngineBuilder {
    let config = CheckpointConfig::builder().build().unwrap();
    Engine::builder(JobId::new("job").unwrap(), config, Arc::new(storage.clone()))
        .operator(OperatorSpec::new(OperatorUid::new("op").unwrap(), 2))
}

fn open(storage: &FaultyStorage) -> Result<Engine> {
    job(storage).open()
}

fn restored(storage: &FaultyStorage) -> u64 {
    let engine = open(storage).unwrap();
    engine.restored().map_or(0, |id| id.0)
}

fn bad_state() -> Error {
    Error::new(ErrorKind::Internal, "task op/0 panicked: a planned panic")
}

#[test]
fn a_damaged_or_missing_newest_checkpoint_is_passed_over_for_good() {
    for kind in [ErrorKind::Corrupt, ErrorKind::NotFound] {
        each_storage(2, |storage| {
            storage.fail(CheckpointId(2), Part::Commit, kind);
            let engine = open(storage).unwrap();
            assert_eq!(engine.restored(), Some(CheckpointId(1)));
            assert_eq!(state(&engine, 1).unwrap(), "1 of 1");
            assert_eq!(engine.newest_given_up(), Some(CheckpointId(2)));
            let text = engine.report().to_string();
            assert!(text.contains("passed over checkpoint 2: a planned fault"), "{text}");
            drop(engine);
            // Sinks may have undone what lies between the two.
            storage.heal();
            assert_eq!(restored(storage), 1);
            for policy in [RestorePolicy::Latest, RestorePolicy::Exact(CheckpointId(2))] {
                let refused = job(storage).restore_policy(policy).open().unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Conflict);
            }
            let next = complete(&open(storage).unwrap(), CheckpointType::Checkpoint);
            let engine = open(storage).unwrap();
            assert_eq!((engine.restored(), engine.newest_given_up()), (Some(next), None));
            assert_eq!(engine.report().skipped, []);
        });
    }
}

#[test]
fn a_storage_that_does_not_answer_fails_the_start_and_nothing_is_marked() {
    for kind in [ErrorKind::Unavailable, ErrorKind::Incompatible] {
        each_storage(2, |storage| {
            storage.fail(CheckpointId(2), Part::Commit, kind);
            assert_eq!(open(storage).unwrap_err().kind(), kind);
            storage.heal();
            let engine = open(storage).unwrap();
            assert_eq!(engine.restored(), Some(CheckpointId(2)));
            assert!(engine.checkpoints().marks().unwrap().is_empty());
        });
    }
}

#[test]
fn a_job_never_falls_back_to_nothing() {
    each_storage(2, |storage| {
        for id in [1, 2] {
            storage.fail(CheckpointId(id), Part::Commit, ErrorKind::Corrupt);
        }
        let error = open(storage).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let text = error.to_string();
        assert!(
            text.contains("checkpoint 1: a pl") && text.contains("checkpoint 2: a pl"),
            "{text}"
        );
        storage.heal();
        assert_eq!(restored(storage), 2, "a repair is enough");
    });
}

#[test]
fn the_policy_says_how_many_may_be_passed_over() {
    each_storage(3, |storage| {
        for id in [2, 3] {
            storage.fail(CheckpointId(id), Part::Commit, ErrorKind::Corrupt);
        }
        let open = |policy| job(storage).restore_policy(policy).open();
        assert!(open(RestorePolicy::Fallback { max: 1 }).is_err());
        let latest = open(RestorePolicy::Latest).unwrap_err();
        assert!(latest.to_string().contains("checkpoint 3"), "{latest}");
        let engine = open(RestorePolicy::Fallback { max: 2 }).unwrap();
        assert_eq!(engine.restored(), Some(CheckpointId(1)));
    });
}

#[test]
fn state_that_is_damaged_sets_its_checkpoint_aside_at_once() {
    each_storage(2, |storage| {
        let engine = open(storage).unwrap();
        let damaged = Error::new(ErrorKind::Corrupt, "a chunk is damaged");
        assert!(engine.restore_failed(&task(1), &damaged).unwrap());
        assert!(engine.restore_failed(&task(0), &damaged).unwrap(), "the second says the same");
        drop(engine);
        let engine = open(storage).unwrap();
        let skipped = engine.report().skipped.first().cloned().unwrap();
        assert_eq!((engine.restored(), skipped.id.0), (Some(CheckpointId(1)), 2));
        assert_eq!(skipped.reason, "task op/1: a chunk is damaged");
        assert!(!engine.restore_failed(&task(1), &damaged).unwrap(), "it is the last");
        drop(engine);
        assert_eq!(restored(storage), 1);
    });
}

#[test]
fn a_checkpoint_is_set_aside_after_three_failures_in_a_row_and_never_the_last() {
    each_storage(2, |storage| {
        for nth in 1..=FAILURES_BEFORE_SET_ASIDE {
            let engine = open(storage).unwrap();
            assert_eq!(engine.restored(), Some(CheckpointId(2)));
            let is_set_aside = engine.attempt_failed(&bad_state()).unwrap();
            assert_eq!(is_set_aside, nth == FAILURES_BEFORE_SET_ASIDE);
            assert_eq!(engine.attempt_failed(&bad_state()).unwrap(), is_set_aside, "counted once");
        }
        for _ in 0..2 * FAILURES_BEFORE_SET_ASIDE {
            let engine = open(storage).unwrap();
            assert_eq!(engine.restored(), Some(CheckpointId(1)));
            assert!(!engine.attempt_failed(&bad_state()).unwrap());
        }
    });
}

#[test]
fn a_kill_and_what_lies_outside_of_the_job_never_count() {
    each_storage(2, |storage| {
        for _ in 0..4 * FAILURES_BEFORE_SET_ASIDE {
            let engine = open(storage).unwrap();
            assert_eq!(engine.restored(), Some(CheckpointId(2)));
            let away = Error::new(ErrorKind::Unavailable, "a database is away");
            assert!(!engine.attempt_failed(&away).unwrap());
        }
        assert!(open(storage).unwrap().checkpoints().marks().unwrap().is_empty());
    });
}

#[test]
fn a_completed_checkpoint_after_a_restore_clears_the_count() {
    each_storage(2, |storage| {
        for _ in 1..FAILURES_BEFORE_SET_ASIDE {
            open(storage).unwrap().attempt_failed(&bad_state()).unwrap();
        }
        let engine = open(storage).unwrap();
        assert_eq!(engine.checkpoints().marks().unwrap()[&CheckpointId(2)].failures, 2);
        complete(&engine, CheckpointType::Checkpoint);
        engine.stop();
        assert!(!engine.attempt_failed(&bad_state()).unwrap(), "it failed later");
        assert!(engine.checkpoints().marks().unwrap().is_empty());
    });
}

#[test]
fn nothing_is_set_aside_when_the_policy_takes_no_other() {
    each_storage(2, |storage| {
        for policy in [RestorePolicy::Latest, RestorePolicy::Exact(CheckpointId(2))] {
            let engine = job(storage).restore_policy(policy).open().unwrap();
            let damaged = Error::new(ErrorKind::Corrupt, "a chunk is damaged");
            assert!(!engine.restore_failed(&task(0), &damaged).unwrap());
            assert!(engine.checkpoints().marks().unwrap().is_empty());
        }
    });
}

#[test]
fn what_was_set_aside_is_neither_retained_for_a_sound_one_nor_kept_for_ever() {
    each_storage(2, |storage| {
        storage.fail(CheckpointId(2), Part::Commit, ErrorKind::Corrupt);
        drop(open(storage).unwrap());
        storage.heal();
        let engine = open(storage).unwrap();
        let ids = |engine: &Engine| engine.checkpoints().ids().iter().map(|id| id.0).collect();
        let retain = |engine: &Engine| engine.checkpoints().subsume(1).unwrap();
        complete(&engine, CheckpointType::Checkpoint);
        assert_eq!((ids(&engine), retain(&engine).len()), (vec![1, 2, 3], 2));
        assert_eq!(ids(&engine), [3]);
    });
}

#[test]
fn operators_that_left_are_skipped_where_that_is_allowed() {
    each_storage(1, |storage| {
        let config = CheckpointConfig::builder().build().unwrap();
        let other = || {
            let storage = Arc::new(storage.clone());
            let uid = OperatorUid::new("other").unwrap();
            Engine::builder(JobId::new("job").unwrap(), config.clone(), storage)
                .operator(OperatorSpec::new(uid, 1))
        };
        let refused = other().open().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Incompatible);
        assert!(refused.to_string().contains("allow_non_restored_state"), "{refused}");
        let engine = other().allow_non_restored_state(true).open().unwrap();
        let report = &engine.report().operators;
        let how: Vec<_> =
            report.iter().map(|operator| (operator.uid.as_str(), operator.how)).collect();
        assert_eq!(how, [("other", OperatorRestore::New), ("op", OperatorRestore::Skipped)]);
        assert_eq!(report[1].bytes, 12);
    });
}

#[test]
fn the_report_has_bytes_at_once_and_times_when_all_have_read() {
    each_storage(1, |storage| {
        let clock = Arc::new(ManualClock::new(1_000));
        let engine = job(storage).clock(Arc::clone(&clock) as Arc<dyn Clock>).open().unwrap();
        let report = &engine.report().operators[0];
        assert_eq!((report.how, report.bytes), (OperatorRestore::Restored, 12));
        assert_eq!((report.read_time, engine.final_report()), (None, None));
        for (subtask, seconds) in [(0, 3), (1, 2)] {
            assert_eq!(engine.final_report(), None);
            let mut source = engine.task_state(&task(subtask)).unwrap();
            clock.advance(Duration::from_secs(seconds));
            while source.next_section().unwrap().is_some() {}
        }
        let times = engine.final_report().unwrap().operators[0].read_time;
        assert_eq!(times, Some(Duration::from_secs(3)));
    });
}
