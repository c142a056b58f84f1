//! Goal: the completed checkpoints of a job are listed, given up and kept as Flink's store does it.
//! Method: whole checkpoints over the storage in memory, whose content outlives every opening.

use std::time::Duration;

use super::*;
use crate::config::ExternalizedCheckpointCleanup as Cleanup;
use crate::error::{ErrorKind, Result};
use crate::ids::{CheckpointId, JobId, OperatorUid, TaskId};
use crate::message::CheckpointType;
use crate::storage::{CheckpointStorage, JobManagerCheckpointStorage};

pub(super) fn open(storage: &JobManagerCheckpointStorage) -> Checkpoints {
    Checkpoints::new(storage.open(&JobId::new("job").unwrap()).unwrap())
}

/// Triggered at as many seconds as its number says.
fn commit(checkpoints: &Checkpoints, id: u64, kind: CheckpointType) -> Result<()> {
    let operator = OperatorSpec::new(OperatorUid::new("op")?, 1);
    let task = TaskId { operator: operator.uid.clone(), subtask: 0 };
    let plan = CheckpointPlan { kind, ..CheckpointPlan::new(vec![operator]) };
    let plan = CheckpointPlan { timestamp_ms: 1000 * id, ..plan };
    let pending = checkpoints.begin(CheckpointId(id), plan)?;
    let snapshot = pending.writer(&task)?.finish()?;
    pending.commit(&[(task, snapshot)]).map(drop)
}

pub(super) fn add(checkpoints: &Checkpoints, id: u64) {
    commit(checkpoints, id, CheckpointType::Checkpoint).unwrap();
}

fn numbers(ids: &[CheckpointId]) -> Vec<u64> {
    ids.iter().map(|id| id.0).collect()
}

/// Flink: DefaultCompletedCheckpointStoreTest.testRecoverSortedCheckpoints,
/// CompletedCheckpointStoreTest.testGetAllCheckpoints
#[test]
fn checkpoints_are_listed_oldest_first_also_by_the_next_start() {
    let storage = JobManagerCheckpointStorage::new().keeping_savepoints();
    let checkpoints = open(&storage);
    for id in [2, 9, 10, 100] {
        add(&checkpoints, id);
    }
    assert_eq!(numbers(&checkpoints.ids()), [2, 9, 10, 100]);
    drop(checkpoints);
    let checkpoints = open(&storage);
    assert_eq!(numbers(&checkpoints.ids()), [2, 9, 10, 100]);
    assert_eq!(checkpoints.newest().unwrap(), Some(CheckpointId(100)));
}

/// Flink: CompletedCheckpointStoreTest.testAddCheckpointMoreThanMaxRetained,
/// DefaultCompletedCheckpointStoreTest.testAddCheckpointSuccessfullyShouldRemoveOldOnes
#[test]
fn each_checkpoint_more_than_are_retained_gives_up_the_one_before() {
    let checkpoints = open(&JobManagerCheckpointStorage::new().keeping_savepoints());
    add(&checkpoints, 1);
    assert_eq!(numbers(&checkpoints.subsume(1).unwrap()), [0; 0]);
    for id in 2..=4 {
        add(&checkpoints, id);
        assert_eq!(numbers(&checkpoints.subsume(1).unwrap()), [id - 1]);
        assert_eq!(numbers(&checkpoints.ids()), [id]);
        let gone = checkpoints.info(CheckpointId(id - 1)).unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound);
    }
}

/// Flink: DefaultCompletedCheckpointStoreTest.testNotSubsumedIfNotNeeded
#[test]
fn nothing_is_given_up_while_there_is_room() {
    let checkpoints = open(&JobManagerCheckpointStorage::new().keeping_savepoints());
    for id in 1..=3 {
        add(&checkpoints, id);
        assert_eq!(numbers(&checkpoints.subsume(3).unwrap()), [0; 0]);
    }
    assert_eq!(numbers(&checkpoints.ids()), [1, 2, 3]);
}

/// Flink: DefaultCompletedCheckpointStoreTest.testAddCheckpointFailedShouldNotRemoveOldOnes
#[test]
fn a_commit_that_is_refused_leaves_what_was_there() {
    let checkpoints = open(&JobManagerCheckpointStorage::new().keeping_savepoints());
    add(&checkpoints, 1);
    add(&checkpoints, 3);
    let refused = commit(&checkpoints, 2, CheckpointType::Checkpoint).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert_eq!(numbers(&checkpoints.ids()), [1, 3]);
    for id in [1, 3] {
        checkpoints.verify(CheckpointId(id), &mut |_| {}).unwrap();
    }
}

/// Flink: `DefaultCompletedCheckpointStoreTest`,
/// testShutdownShouldNotDiscardStateHandleWhenJobIsNotGloballyTerminalState
#[test]
fn a_suspended_job_keeps_everything_and_can_be_opened_again() {
    for cleanup in [
        Cleanup::NoExternalizedCheckpoints,
        Cleanup::DeleteOnCancellation,
        Cleanup::RetainOnCancellation,
    ] {
        let storage = JobManagerCheckpointStorage::new().keeping_savepoints();
        let checkpoints = open(&storage);
        for id in 1..=3 {
            add(&checkpoints, id);
        }
        assert_eq!(numbers(&checkpoints.end(cleanup, JobStatus::Suspended).unwrap()), [0; 0]);
        drop(checkpoints);
        assert_eq!(numbers(&open(&storage).ids()), [1, 2, 3]);
    }
}

/// Flink: CompletedCheckpointTest.testCleanUpOnShutdown
#[test]
fn the_end_gives_up_all_or_nothing_and_never_a_savepoint() {
    for (cleanup, kept) in
        [(Cleanup::DeleteOnCancellation, &[2][..]), (Cleanup::RetainOnCancellation, &[1, 2, 3])]
    {
        let checkpoints = open(&JobManagerCheckpointStorage::new().keeping_savepoints());
        add(&checkpoints, 1);
        commit(&checkpoints, 2, CheckpointType::Savepoint).unwrap();
        add(&checkpoints, 3);
        checkpoints.end(cleanup, JobStatus::Canceled).unwrap();
        assert_eq!(numbers(&checkpoints.ids()), kept, "{cleanup:?}");
    }
}

#[test]
fn what_is_too_old_is_given_up_and_what_is_pinned_is_not() {
    let checkpoints = open(&JobManagerCheckpointStorage::new().keeping_savepoints());
    (1..=4).for_each(|id| add(&checkpoints, id));
    checkpoints.pin(CheckpointId(2)).unwrap();
    let retention = Retention::new(9).with_max_age(Duration::from_secs(10));
    assert_eq!(numbers(&checkpoints.retain(&retention, 11_000).unwrap()), [0; 0]);
    assert_eq!(numbers(&checkpoints.retain(&retention, 13_500).unwrap()), [1, 3]);
    checkpoints.unpin(CheckpointId(2)).unwrap();
    assert_eq!(numbers(&checkpoints.retain(&retention, 60_000).unwrap()), [2]);
    assert_eq!(numbers(&checkpoints.ids()), [4]);
}

#[test]
fn what_is_pinned_is_discarded_by_nobody_before_it_is_unpinned() {
    let checkpoints = open(&JobManagerCheckpointStorage::new().keeping_savepoints());
    (1..=4).for_each(|id| add(&checkpoints, id));
    checkpoints.pin(CheckpointId(2)).unwrap();
    let refused = checkpoints.discard(&[CheckpointId(1), CheckpointId(2)]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    let refused = checkpoints.course_after(Some(CheckpointId(1))).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.to_string().contains("checkpoint 2 is pinned"), "{refused}");
    assert_eq!(numbers(&checkpoints.course_after(Some(CheckpointId(2))).unwrap()), [3, 4]);
    let given_up = checkpoints.end(Cleanup::DeleteOnCancellation, JobStatus::Canceled).unwrap();
    assert_eq!((numbers(&given_up), numbers(&checkpoints.ids())), (vec![1, 3, 4], vec![2]));
}
