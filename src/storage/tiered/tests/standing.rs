//! Starts of the same job, one after the other and at once.

use super::*;
use crate::storage::tests::task;
use crate::storage::{
    CustomAccess, CustomCheckpointStorage, DirectoryBlobs, StorageParameters, register_storage,
};

#[test]
fn an_earlier_start_completes_nothing_in_either_tier() {
    let dir = tempfile::tempdir().unwrap();
    let factory = |parameters: &StorageParameters| {
        let directory = parameters.get("directory").map(String::as_str).unwrap_or_default();
        Ok(Arc::new(DirectoryBlobs::new(directory)) as Arc<dyn CustomAccess>)
    };
    register_storage("tiered-standing", factory).unwrap();
    // Another text for the same place is another process to the claims of this one.
    let place = |name: &str, spelling: &str| {
        let directory = dir.path().join(name).join(spelling);
        let parameters = [("directory", directory.to_str().unwrap().to_owned())];
        Arc::new(CustomCheckpointStorage::new("tiered-standing", parameters))
    };
    let storage = |spelling| {
        TieredCheckpointStorage::new(place("fast", spelling), place("durable", spelling))
    };
    let (one, other) = (storage(""), storage("."));
    let zombie = open(&one);
    complete(&zombie, 1..=2);
    let pending = begin(&zombie, CheckpointId(3), 1).unwrap();
    let snapshot = pending.writer(&task(0)).unwrap().finish().unwrap();
    let checkpoints = open(&other);
    assert!(checkpoints.attempt() > zombie.attempt());
    complete(&checkpoints, [4]);
    let refused = pending.commit(&[(task(0), snapshot)]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    let tiers = zombie.storage().access().tiers().unwrap();
    let durable = tiers.durable().access();
    let copy = durable.begin(CheckpointId(5), CheckpointType::Checkpoint);
    let copy = copy.and_then(|copy| copy.commit(&crate::record::Node::default()));
    assert_eq!(copy.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(zombie.discard(&[CheckpointId(1)]).is_err());
    drop((pending, tiers, zombie));
    checkpoints.ids().into_iter().for_each(|id| assert_whole(&checkpoints, id));
    assert_eq!(ids(&checkpoints), [1, 2, 4]);
}

#[test]
fn a_job_that_ran_on_the_fast_storage_alone_keeps_its_name_and_is_copied() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let before = open(&*sled(dir));
    commit(&before, CheckpointId(1)).unwrap();
    let (attempt, owner) = (before.attempt(), before.owner());
    drop(before);
    let storage = TieredCheckpointStorage::new(sled(dir), file(dir));
    let checkpoints = open(&storage);
    assert!(checkpoints.attempt() > attempt);
    assert_eq!((checkpoints.owner(), checkpoints.lost_after()), (owner, None));
    copied(&checkpoints);
    drop(checkpoints);
    assert_eq!(alone(&*file(dir)), [1]);
}

#[test]
fn a_job_that_ran_on_the_durable_storage_alone_goes_on_with_a_faster_one_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let before = open(&*file(dir));
    commit(&before, CheckpointId(4)).unwrap();
    before.record_finish("done").unwrap();
    let owner = before.owner();
    drop(before);
    let storage = TieredCheckpointStorage::new(sled(dir), file(dir));
    let checkpoints = open(&storage);
    assert_eq!((ids(&checkpoints), checkpoints.owner()), (vec![4], owner));
    assert_eq!(checkpoints.finish().as_deref(), Some("done"));
    assert_eq!((checkpoints.lost_after(), checkpoints.next_id()), (None, CheckpointId(5)));
    complete(&checkpoints, [5]);
    assert_eq!(ids(&checkpoints), [4, 5]);
}

#[test]
fn what_was_not_copied_at_the_end_is_copied_by_the_next_start() {
    let pair = Pair::new();
    let checkpoints = pair.open();
    pair.durable.set_away(true);
    commit(&checkpoints, CheckpointId(1)).unwrap();
    drop(checkpoints);
    pair.durable.set_away(false);
    let checkpoints = pair.open();
    copied(&checkpoints);
    assert_eq!(pair.lag().copied, Some(CheckpointId(1)));
    drop(checkpoints);
    assert_eq!(alone(&pair.durable), [1]);
}

#[test]
fn a_second_view_of_one_start_copies_nothing_twice() {
    let pair = Pair::new();
    let storage = pair.storage.open(&job()).unwrap();
    let one = Checkpoints::new(storage.clone());
    let other = Checkpoints::new(storage.clone());
    complete(&one, 1..=2);
    drop(one);
    // The first has said that everything is copied; what begins now takes that back.
    let third = Checkpoints::new(storage);
    complete(&third, [3]);
    assert_eq!(pair.lag().copied_checkpoints, 3);
    pair.durable.set_away(true);
    commit(&other, CheckpointId(4)).unwrap();
    drop((other, third));
    pair.durable.set_away(false);
    assert_eq!(pair.without_fast().open().lost_after(), Some(CheckpointId(4)));
}
