//! The ordinary life of a job through the catalog.

use super::*;
use crate::error::ErrorKind;

#[test]
fn what_is_committed_is_there_after_a_clean_close() {
    for place in places() {
        let name = place.name;
        for round in 0..3 {
            let checkpoints = place.open();
            assert_eq!(checkpoints.attempt().0, round + 1, "{name}");
            let id = checkpoints.next_id();
            assert_eq!(id.0, u64::from(round) + 1, "{name}");
            commit(&checkpoints, id).unwrap();
            for id in checkpoints.ids() {
                assert_whole(&checkpoints, id);
            }
        }
    }
}

#[test]
fn a_commit_that_misses_a_task_is_refused() {
    for place in places() {
        let name = place.name;
        let checkpoints = place.open();
        let pending = begin(&checkpoints, CheckpointId(6), SUBTASKS).unwrap();
        let snapshot = pending.writer(&task(0)).unwrap().finish().unwrap();
        let missing = pending.commit(&[(task(0), snapshot)]).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::Invalid, "{name}");
        commit(&checkpoints, CheckpointId(7)).unwrap();
        assert_whole(&checkpoints, CheckpointId(7));
    }
}

#[test]
fn dropped_checkpoints_are_gone_and_the_others_stay_whole() {
    for place in places() {
        let name = place.name;
        let checkpoints = place.open();
        for id in 1..=4 {
            commit(&checkpoints, CheckpointId(id)).unwrap();
        }
        checkpoints.discard(&[CheckpointId(2), CheckpointId(77)]).unwrap();
        assert_eq!(checkpoints.subsume(2).unwrap(), [CheckpointId(1)], "{name}");
        drop(checkpoints);
        let checkpoints = place.open();
        assert_eq!(ids(&checkpoints), [3, 4], "{name}");
        let gone = checkpoints.read_task(CheckpointId(2), &task(0)).unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound, "{name}");
        for id in checkpoints.ids() {
            assert_whole(&checkpoints, id);
        }
    }
}
