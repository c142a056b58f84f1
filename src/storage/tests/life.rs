//! The ordinary life of a job in a storage.

use super::*;
use crate::error::ErrorKind;
use crate::record::RecordRef;

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
fn the_end_of_a_job_outlives_its_checkpoints() {
    for place in places() {
        let name = place.name;
        let checkpoints = place.open();
        commit(&checkpoints, CheckpointId(1)).unwrap();
        checkpoints.record_finish("done").unwrap();
        checkpoints.discard(&[CheckpointId(1)]).unwrap();
        drop(checkpoints);
        let checkpoints = place.open();
        assert_eq!(checkpoints.finish().as_deref(), Some("done"), "{name}");
        assert_eq!(checkpoints.next_id(), CheckpointId(2), "{name}");
        checkpoints.clear_finish().unwrap();
        drop(checkpoints);
        assert_eq!(place.open().finish(), None, "{name}");
    }
}

#[test]
fn commits_out_of_order_and_missing_tasks_are_refused() {
    for place in places() {
        let name = place.name;
        let checkpoints = place.open();
        let refused = |id| commit(&checkpoints, CheckpointId(id)).unwrap_err().kind();
        commit(&checkpoints, CheckpointId(5)).unwrap();
        assert_eq!(refused(5), ErrorKind::Conflict, "{name}");
        assert_eq!(refused(4), ErrorKind::Conflict, "{name}");
        let pending = begin(&checkpoints, CheckpointId(6), SUBTASKS).unwrap();
        let snapshot = pending.writer(&task(0)).unwrap().finish().unwrap();
        let missing = pending.commit(&[(task(0), snapshot)]).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::Invalid, "{name}");
        commit(&checkpoints, CheckpointId(7)).unwrap();
        assert_whole(&checkpoints, CheckpointId(7));
    }
}

#[test]
fn several_jobs_share_one_store_and_one_job_runs_once() {
    for place in places() {
        let name = place.name;
        let one = place.open_job("one").unwrap();
        let two = place.open_job("two").unwrap();
        commit(&one, CheckpointId(1)).unwrap();
        commit(&two, CheckpointId(1)).unwrap();
        commit(&two, CheckpointId(2)).unwrap();
        assert_eq!((ids(&one), ids(&two)), (vec![1], vec![1, 2]), "{name}");
        assert_eq!(place.open_job("one").unwrap_err().kind(), ErrorKind::Conflict, "{name}");
        drop(one);
        let one = place.open_job("one").unwrap();
        assert_eq!(ids(&one), [1], "{name}");
        assert_ne!(two.owner(), one.owner(), "{name}");
    }
}

#[test]
fn a_checkpoint_that_was_not_committed_does_not_count_but_its_id_does() {
    for place in places() {
        let name = place.name;
        let checkpoints = place.open();
        commit(&checkpoints, CheckpointId(1)).unwrap();
        let pending = begin(&checkpoints, CheckpointId(9), SUBTASKS).unwrap();
        let mut writer = pending.writer(&task(0)).unwrap();
        let bytes = body(CheckpointId(9), 0, 300_000);
        writer.section(&key(0), &mut |out| Ok(out.write_all(&bytes)?)).unwrap();
        let _snapshot = writer.finish().unwrap();
        drop((pending, checkpoints));
        let checkpoints = place.open();
        assert_eq!(ids(&checkpoints), [1], "{name}");
        assert_eq!(checkpoints.next_id(), CheckpointId(10), "{name}");
    }
}

#[test]
fn what_an_earlier_start_left_behind_commits_nothing() {
    for place in places() {
        let name = place.name;
        // Another job holds the store open in between.
        let _other = place.open_job("other").unwrap();
        let earlier = place.open();
        let pending = begin(&earlier, CheckpointId(1), 1).unwrap();
        let snapshot = pending.writer(&task(0)).unwrap().finish().unwrap();
        drop(earlier);
        let now = place.open();
        let late = pending.commit(&[(task(0), snapshot)]).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Conflict, "{name}");
        assert!(ids(&now).is_empty(), "{name}");
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

#[test]
fn a_reference_to_another_record_than_it_expects_is_corrupt() {
    type Change = fn(&mut RecordRef);
    let changes: [(&str, Change); 7] = [
        ("id", |record| record.id += 1000),
        ("checkpoint", |record| record.checkpoint = record.checkpoint.next()),
        ("attempt", |record| record.attempt.0 += 1),
        ("subtask", |record| record.subtask += 1),
        ("index", |record| record.index += 1),
        ("names", |record| record.names_crc += 1),
        ("payload", |record| record.payload_crc += 1),
    ];
    for place in places() {
        commit(&place.open(), CheckpointId(1)).unwrap();
        let storage = place.storage.open(&JobId::new("job").unwrap()).unwrap();
        let access = storage.access();
        let record = access.stored()[0].record;
        let manifest = access.node(&record).unwrap().refs[0];
        let chunk = access.node(&manifest).unwrap().refs[0];
        let mut buffer = Vec::new();
        access.chunk(&chunk, &mut buffer).unwrap();
        for (what, change) in changes {
            let wrong = |mut record: RecordRef| {
                change(&mut record);
                record
            };
            let results = [
                access.node(&wrong(record)).map(drop),
                access.node(&wrong(manifest)).map(drop),
                access.chunk(&wrong(chunk), &mut buffer).map(drop),
            ];
            for result in results {
                assert_eq!(result.unwrap_err().kind(), ErrorKind::Corrupt, "{} {what}", place.name);
            }
        }
    }
}

#[test]
fn tasks_write_at_the_same_time() {
    for place in places() {
        let name = place.name;
        let checkpoints = place.open();
        let id = CheckpointId(1);
        let pending = begin(&checkpoints, id, 4).unwrap();
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
            assert!(found == body(id, subtask, 3 << 20), "{name} {subtask}");
        }
    }
}
