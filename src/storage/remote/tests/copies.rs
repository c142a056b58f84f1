//! Copies of a checkpoint into a store: cut at every request, and several at once.

use crate::catalog::{Checkpoints, ExternalCheckpoint, copy_checkpoint};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, JobId};
use crate::record::digest;
use crate::storage::filesystem::{Export, Exported, resolve};
use crate::storage::remote::tests::store::{Bucket, Fate};
use crate::storage::tests::{SUBTASKS, commit, lengths};
use crate::storage::{
    CheckpointStorage, JobManagerCheckpointStorage, PendingRecords, RemoteOptions,
};

const ID: CheckpointId = CheckpointId(1);

fn source() -> Checkpoints {
    let storage = JobManagerCheckpointStorage::new();
    let checkpoints = Checkpoints::new(storage.open(&JobId::new("job").unwrap()).unwrap());
    commit(&checkpoints, ID).unwrap();
    checkpoints
}

fn open(checkpoints: &Checkpoints, bucket: &Bucket) -> Result<Export> {
    let (job, attempt) = (JobId::new("job").unwrap(), checkpoints.attempt());
    let exported = Exported { job, id: ID, attempt, identity: digest(b"this one") };
    Export::below(&bucket.location(), &exported)
}

/// Writes what is not there yet, as far as the first `bytes` bytes of it.
fn write(checkpoints: &Checkpoints, pending: &dyn PendingRecords, bytes: u64) -> Result<u64> {
    let stored = *checkpoints.storage().access().stored().first().unwrap();
    let mut left = bytes;
    let mut count = |bytes| {
        left = left.saturating_sub(bytes);
        if left == 0 { Err(Error::new(ErrorKind::Closed, "enough")) } else { Ok(()) }
    };
    let copied = copy_checkpoint(&checkpoints.source(ID), &stored, pending, &mut count)?;
    Ok(copied.resumed_tasks)
}

/// The pointer, and how many tasks were resumed.
fn copy(checkpoints: &Checkpoints, bucket: &Bucket) -> Result<(String, u64)> {
    match open(checkpoints, bucket)? {
        Export::Complete(pointer) => Ok((pointer, 0)),
        Export::Open(pending, pointer) => Ok((pointer, write(checkpoints, &*pending, u64::MAX)?)),
    }
}

/// Whole, with a file for each task and nothing else beside it.
fn assert_copied(bucket: &Bucket, pointer: &str) {
    let found = ExternalCheckpoint::new(resolve(pointer, &RemoteOptions::default()).unwrap());
    found.verify(&mut |_| ()).unwrap();
    assert_eq!(bucket.objects().len(), 1 + SUBTASKS as usize, "{:?}", bucket.objects());
}

#[test]
fn a_copy_that_loses_any_request_goes_on_with_whole_tasks_alone() {
    let checkpoints = source();
    let mut resumed = Vec::new();
    for fate in [Fate::Lost, Fate::Unanswered] {
        for cut in 0.. {
            let bucket = Bucket::new();
            // A try that follows at once meets the same.
            bucket.store.judge(move |number, _, _| if number < cut { Fate::Done } else { fate });
            let first = copy(&checkpoints, &bucket);
            let is_cut = bucket.store.asked() > cut;
            bucket.store.judge(|_, _, _| Fate::Done);
            let (pointer, tasks) = copy(&checkpoints, &bucket)
                .unwrap_or_else(|error| panic!("{fate:?} at {cut}: {error:?}"));
            resumed.push(tasks);
            assert_copied(&bucket, &pointer);
            if !is_cut {
                assert!(first.is_ok());
                break;
            }
        }
    }
    let all = u64::from(SUBTASKS);
    assert!((0..=all).all(|tasks| resumed.contains(&tasks)), "{resumed:?}");
}

#[test]
fn of_two_copies_at_once_one_completes_and_the_other_spoils_nothing() {
    let checkpoints = source();
    let first_task = lengths(ID, 0).iter().sum::<usize>() as u64;
    for is_given_up in [true, false] {
        let bucket = Bucket::new();
        let Export::Open(slow, _) = open(&checkpoints, &bucket).unwrap() else { panic!() };
        write(&checkpoints, &*slow, first_task + 1).unwrap_err();
        // It takes the task that the slow one has finished.
        let (pointer, tasks) = copy(&checkpoints, &bucket).unwrap();
        assert_eq!(tasks, 1);
        if is_given_up {
            slow.discard();
        } else {
            let late = write(&checkpoints, &*slow, u64::MAX).unwrap_err();
            assert_eq!(late.kind(), ErrorKind::Conflict, "{late}");
            drop(slow);
            let again = open(&checkpoints, &bucket).unwrap();
            assert!(matches!(again, Export::Complete(found) if found == pointer));
        }
        assert_copied(&bucket, &pointer);
    }
}

#[test]
fn a_copy_whose_parts_another_gave_up_does_not_complete() {
    let checkpoints = source();
    let first_task = lengths(ID, 0).iter().sum::<usize>() as u64;
    let bucket = Bucket::new();
    let Export::Open(slow, _) = open(&checkpoints, &bucket).unwrap() else { panic!() };
    write(&checkpoints, &*slow, first_task + 1).unwrap_err();
    let Export::Open(other, pointer) = open(&checkpoints, &bucket).unwrap() else { panic!() };
    slow.discard();
    assert!(bucket.objects().is_empty(), "what one gives up is gone");
    let refused = write(&checkpoints, &*other, u64::MAX).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    drop(other);
    assert_eq!(copy(&checkpoints, &bucket).unwrap().0, pointer);
    assert_copied(&bucket, &pointer);
}
