//! The ordinary life of a store.

use super::*;
use crate::error::ErrorKind;
use crate::storage::{CheckpointStorage, SledCheckpointStorage};

#[test]
fn what_is_committed_is_there_after_a_clean_close() {
    for placement in BOTH {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..3 {
            let checkpoints = open(dir.path(), placement);
            assert_eq!(checkpoints.attempt().0, round + 1, "{placement}");
            let id = checkpoints.next_id();
            assert_eq!(id.0, u64::from(round) + 1, "{placement}");
            commit(&checkpoints, id).unwrap();
            for id in checkpoints.ids() {
                assert_whole(&checkpoints, id);
            }
        }
    }
}

#[test]
fn a_clean_close_needs_no_rebuild_and_an_open_image_does() {
    let dir = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let rebuilt = |dir: &Path| {
        let store = OpenStore::open(dir, None, Arc::new(RealDisk)).unwrap();
        let rebuilt = store.backend().report().rebuilt;
        drop(store);
        rebuilt
    };
    let checkpoints = open(dir.path(), Placement::Split);
    commit(&checkpoints, CheckpointId(1)).unwrap();
    image(dir.path(), copy.path());
    drop(checkpoints);
    assert!(!rebuilt(dir.path()));
    assert!(rebuilt(copy.path()));
    assert!(!rebuilt(copy.path()), "the rebuilt index was closed in order");
}

#[test]
fn what_is_committed_is_in_an_image_of_the_open_store() {
    for placement in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let copy = tempfile::tempdir().unwrap();
        let checkpoints = open(dir.path(), placement);
        for id in 1..=3 {
            commit(&checkpoints, CheckpointId(id)).unwrap();
        }
        checkpoints.discard(&[CheckpointId(2)]).unwrap();
        image(dir.path(), copy.path());
        let reopened = open(copy.path(), placement);
        assert_eq!(ids(&reopened), [1, 3], "{placement}");
        assert_whole(&reopened, CheckpointId(1));
        assert_whole(&reopened, CheckpointId(3));
        assert_eq!(reopened.attempt().0, 2, "{placement}");
    }
}

#[test]
fn a_checkpoint_that_was_not_committed_does_not_count_but_its_id_does() {
    for placement in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let copy = tempfile::tempdir().unwrap();
        let checkpoints = open(dir.path(), placement);
        commit(&checkpoints, CheckpointId(1)).unwrap();
        let operator = OperatorSpec::new(OperatorUid::new("op").unwrap(), SUBTASKS);
        let plan = CheckpointPlan::new(vec![operator]);
        let pending = checkpoints.begin(CheckpointId(9), plan).unwrap();
        let mut writer = pending.writer(&task(0)).unwrap();
        let bytes = body(CheckpointId(9), 0, 300_000);
        writer.section(&key(0), &mut |out| Ok(out.write_all(&bytes)?)).unwrap();
        let _snapshot = writer.finish().unwrap();
        image(dir.path(), copy.path());
        drop(pending);
        assert_eq!(ids(&checkpoints), [1], "{placement}");
        let reopened = open(copy.path(), placement);
        assert_eq!(ids(&reopened), [1], "{placement}");
        if placement == Placement::Split {
            assert_eq!(reopened.next_id(), CheckpointId(10));
        }
    }
}

#[test]
fn space_comes_back_when_checkpoints_are_subsumed() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = open(dir.path(), Placement::Split);
    let operator = OperatorSpec::new(OperatorUid::new("op").unwrap(), 1);
    let bytes = vec![7; 30 << 20];
    let mut used = Vec::new();
    for id in 1..=12 {
        let plan = CheckpointPlan::new(vec![operator.clone()]);
        let pending = checkpoints.begin(CheckpointId(id), plan).unwrap();
        let mut writer = pending.writer(&task(0)).unwrap();
        writer.section(&key(0), &mut |out| Ok(out.write_all(&bytes)?)).unwrap();
        pending.commit(&[(task(0), writer.finish().unwrap())]).unwrap();
        drop(pending);
        checkpoints.subsume(1).unwrap();
        let log = std::fs::read_dir(dir.path().join("log")).unwrap();
        used.push(log.map(|entry| entry.unwrap().metadata().unwrap().len()).sum::<u64>());
    }
    assert_eq!(ids(&checkpoints), [12]);
    let most = used.iter().max().unwrap();
    assert!(*most < 4 * (64 << 20), "{used:?}");
}

#[test]
fn the_end_of_a_job_outlives_its_checkpoints() {
    for placement in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = open(dir.path(), placement);
        commit(&checkpoints, CheckpointId(1)).unwrap();
        checkpoints.record_finish("done").unwrap();
        checkpoints.discard(&[CheckpointId(1)]).unwrap();
        drop(checkpoints);
        let checkpoints = open(dir.path(), placement);
        assert_eq!(checkpoints.finish().as_deref(), Some("done"), "{placement}");
        assert_eq!(checkpoints.next_id(), CheckpointId(2), "{placement}");
        checkpoints.clear_finish().unwrap();
        drop(checkpoints);
        assert_eq!(open(dir.path(), placement).finish(), None, "{placement}");
    }
}

#[test]
fn commits_out_of_order_and_missing_tasks_are_refused() {
    for placement in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = open(dir.path(), placement);
        commit(&checkpoints, CheckpointId(5)).unwrap();
        assert_eq!(commit(&checkpoints, CheckpointId(5)).unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(commit(&checkpoints, CheckpointId(4)).unwrap_err().kind(), ErrorKind::Conflict);
        let operator = OperatorSpec::new(OperatorUid::new("op").unwrap(), SUBTASKS);
        let plan = CheckpointPlan::new(vec![operator]);
        let pending = checkpoints.begin(CheckpointId(6), plan).unwrap();
        let snapshot = pending.writer(&task(0)).unwrap().finish().unwrap();
        assert_eq!(pending.commit(&[(task(0), snapshot)]).unwrap_err().kind(), ErrorKind::Invalid);
        commit(&checkpoints, CheckpointId(7)).unwrap();
        assert_whole(&checkpoints, CheckpointId(7));
    }
}

#[test]
fn several_jobs_share_one_store_and_one_job_runs_once() {
    for placement in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let storage = SledCheckpointStorage::new(dir.path()).with_placement(placement);
        let job = |name: &str| storage.open(&JobId::new(name).unwrap());
        let one = Checkpoints::new(job("one").unwrap());
        let two = Checkpoints::new(job("two").unwrap());
        commit(&one, CheckpointId(1)).unwrap();
        commit(&two, CheckpointId(1)).unwrap();
        commit(&two, CheckpointId(2)).unwrap();
        assert_eq!((ids(&one), ids(&two)), (vec![1], vec![1, 2]));
        assert_eq!(job("one").unwrap_err().kind(), ErrorKind::Conflict);
        drop(one);
        assert_eq!(ids(&Checkpoints::new(job("one").unwrap())), [1]);
        assert_ne!(two.owner(), Checkpoints::new(job("one").unwrap()).owner());
    }
}

#[test]
fn a_store_keeps_its_placement() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), Placement::Split));
    let wrong = open_on(dir.path(), Placement::Sled, Arc::new(RealDisk)).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Incompatible);
}

#[test]
fn a_store_that_is_open_elsewhere_is_a_conflict() {
    let dir = tempfile::tempdir().unwrap();
    let _open = open(dir.path(), Placement::Split);
    let second = open_on(dir.path(), Placement::Split, Arc::new(RealDisk)).unwrap_err();
    assert_eq!(second.kind(), ErrorKind::Conflict);
}

#[test]
fn tasks_write_at_the_same_time() {
    for placement in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = open(dir.path(), placement);
        let operator = OperatorSpec::new(OperatorUid::new("op").unwrap(), 4);
        let id = CheckpointId(1);
        let pending = checkpoints.begin(id, CheckpointPlan::new(vec![operator])).unwrap();
        let write = |subtask: u32| {
            let mut writer = pending.writer(&task(subtask)).unwrap();
            let bytes = body(id, subtask, 3 << 20);
            writer.section(&key(0), &mut |out| Ok(out.write_all(&bytes)?)).unwrap();
            (task(subtask), writer.finish().unwrap())
        };
        let snapshots: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|n| scope.spawn(move || write(n))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        pending.commit(&snapshots).unwrap();
        for subtask in 0..4 {
            let mut reader = checkpoints.read_task(id, &task(subtask)).unwrap();
            reader.next_section().unwrap();
            let mut found = Vec::new();
            reader.body().read_to_end(&mut found).unwrap();
            assert!(found == body(id, subtask, 3 << 20), "{placement} {subtask}");
        }
    }
}
