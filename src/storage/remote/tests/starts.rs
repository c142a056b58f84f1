//! Several starts of one job: what an earlier one has under way comes to nothing, or is found.

use std::path::Path;

use futures_util::FutureExt;
use object_store::{ObjectStoreExt, PutPayload};

use crate::catalog::Checkpoints;
use crate::error::{ErrorKind, Result};
use crate::ids::{Attempt, CheckpointId, JobId};
use crate::storage::CheckpointStorage;
use crate::storage::disk::{Disk, Put};
use crate::storage::remote::disk::FENCE_MILLIS;
use crate::storage::remote::tests::store::{Bucket, Fate, Op};
use crate::storage::tests::{assert_whole, begin, commit, ids, task};
use crate::sync::Ordering;

fn open_elsewhere(bucket: &Bucket) -> Checkpoints {
    Checkpoints::new(bucket.elsewhere().open(&JobId::new("job").unwrap()).unwrap())
}

#[test]
fn a_start_on_another_host_takes_the_job_over() {
    let bucket = Bucket::new();
    let earlier = bucket.open();
    commit(&earlier, CheckpointId(1)).unwrap();
    let pending = begin(&earlier, CheckpointId(2), 1).unwrap();
    let snapshot = pending.writer(&task(0)).unwrap().finish().unwrap();
    let now = open_elsewhere(&bucket);
    assert_eq!(now.attempt(), Attempt(2));
    let refused = |done: Result<()>| assert_eq!(done.unwrap_err().kind(), ErrorKind::Conflict);
    refused(pending.commit(&[(task(0), snapshot)]).map(drop));
    refused(begin(&earlier, CheckpointId(3), 1).map(drop));
    refused(earlier.discard(&[CheckpointId(1)]));
    refused(earlier.record_finish("earlier"));
    refused(earlier.clear_finish());
    assert_eq!(now.next_id(), CheckpointId(3));
    commit(&now, CheckpointId(3)).unwrap();
    drop((pending, earlier));
    assert_eq!(ids(&now), [1, 3]);
    drop(now);
    let again = bucket.open();
    assert_eq!(ids(&again), [1, 3]);
    assert_whole(&again, CheckpointId(1));
    assert_whole(&again, CheckpointId(3));
}

#[test]
fn a_later_start_between_the_last_look_and_the_put_makes_the_put_fail() {
    let bucket = Bucket::new();
    let earlier = bucket.open();
    commit(&earlier, CheckpointId(1)).unwrap();
    let pending = begin(&earlier, CheckpointId(2), 1).unwrap();
    let snapshot = pending.writer(&task(0)).unwrap().finish().unwrap();
    let inner = bucket.store.inner.clone();
    bucket.store.judge(move |_, op, key| {
        if op == Op::Put && key.filename() == Some("_metadata") {
            // What the later start puts there, after the last look of the earlier one.
            let fenced = inner.put(key, PutPayload::new()).now_or_never();
            fenced.unwrap().unwrap();
        }
        Fate::Done
    });
    let refused = pending.commit(&[(task(0), snapshot)]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    drop((pending, earlier));
    bucket.store.judge(|_, _, _| Fate::Done);
    let now = bucket.open();
    assert_eq!(ids(&now), [1]);
    assert_eq!(now.next_id(), CheckpointId(3));
}

#[test]
fn what_the_earlier_start_put_before_the_later_one_looked_is_found() {
    let bucket = Bucket::new();
    let earlier = bucket.open();
    let pending = begin(&earlier, CheckpointId(1), 1).unwrap();
    let snapshot = pending.writer(&task(0)).unwrap().finish().unwrap();
    // The store has it, and the earlier start never hears of it.
    bucket.store.judge(|_, op, key| {
        let is_it = op == Op::Put && key.filename() == Some("_metadata");
        if is_it { Fate::Unanswered } else { Fate::Done }
    });
    let lost = pending.commit(&[(task(0), snapshot)]).unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Unavailable, "{lost}");
    bucket.store.judge(|_, _, _| Fate::Done);
    let now = open_elsewhere(&bucket);
    assert_eq!(ids(&now), [1]);
    drop((pending, earlier));
    assert_eq!(ids(&now), [1], "what may be complete is left alone");
}

#[test]
fn what_stands_in_the_way_of_earlier_starts_goes_after_days_of_the_stores_clock() {
    let bucket = Bucket::new();
    let disk = bucket.disk(100);
    let base = format!("{}/chk-1", bucket.location());
    let dir = Path::new(&base);
    disk.create_dir(dir).unwrap();
    let metadata = dir.join("_metadata");
    disk.fence(&metadata).unwrap();
    disk.fence(&metadata).unwrap();
    assert_eq!(disk.list(dir).unwrap(), Vec::<String>::new());
    assert_eq!(disk.open(&metadata).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    let refused = disk.put(&metadata, &[b"late"], Put::New).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::AlreadyExists);
    disk.remove_dir(dir).unwrap();
    assert_eq!(bucket.objects().len(), 2, "the mark and the directory stay");
    disk.newest.fetch_add(FENCE_MILLIS + 60_000, Ordering::SeqCst);
    disk.remove_dir(dir).unwrap();
    assert_eq!(bucket.objects().len(), 0);
}

#[test]
fn a_directory_is_made_by_one_only() {
    let bucket = Bucket::new();
    let disk = bucket.disk(100);
    let base = format!("{}/chk-1", bucket.location());
    let dir = Path::new(&base);
    assert_eq!(disk.check_dir(dir).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    disk.create_dir(dir).unwrap();
    disk.check_dir(dir).unwrap();
    let again = disk.create_dir(dir).unwrap_err();
    assert_eq!(again.kind(), std::io::ErrorKind::AlreadyExists);
    disk.create_empty(&dir.join("other")).unwrap();
    let full = disk.remove_dir(dir).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::DirectoryNotEmpty);
}
