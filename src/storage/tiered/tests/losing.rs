//! A tier is lost, damaged, or away at a start.

use super::*;
use crate::catalog::CheckpointMark;
use crate::config::CheckpointConfig;
use crate::engine::{Engine, OperatorSpec};
use crate::ids::OperatorUid;
use crate::storage::tests::SUBTASKS;

#[test]
fn without_the_fast_tier_a_start_goes_on_from_the_durable_one() {
    for placement in [Placement::Split, Placement::Sled] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let fast = SledCheckpointStorage::new(dir.join("fast")).with_placement(placement);
        let storage = TieredCheckpointStorage::new(Arc::new(fast), file(dir));
        let checkpoints = open(&storage);
        complete(&checkpoints, 1..=3);
        let (attempt, owner) = (checkpoints.attempt(), checkpoints.owner());
        drop(checkpoints);
        std::fs::remove_dir_all(dir.join("fast")).unwrap();
        for start in 1..=3 {
            let checkpoints = open(&storage);
            assert_eq!(checkpoints.owner(), owner, "sinks find what is theirs");
            assert_eq!(checkpoints.attempt().0, attempt.0 + start);
            let next = checkpoints.next_id();
            assert!(next > checkpoints.newest().unwrap().unwrap());
            complete(&checkpoints, [next.0]);
            checkpoints.ids().into_iter().for_each(|id| assert_whole(&checkpoints, id));
        }
        assert_eq!(alone(&*file(dir)).len(), 3);
    }
}

#[test]
fn without_the_durable_tier_a_start_goes_on_and_copies_again() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let storage = TieredCheckpointStorage::new(sled(dir), file(dir));
    let checkpoints = open(&storage);
    complete(&checkpoints, 1..=3);
    let (attempt, owner) = (checkpoints.attempt(), checkpoints.owner());
    drop(checkpoints);
    std::fs::remove_dir_all(dir.join("durable")).unwrap();
    let checkpoints = open(&storage);
    assert!(checkpoints.attempt() > attempt);
    assert_eq!((checkpoints.owner(), checkpoints.lost_after()), (owner, None));
    copied(&checkpoints);
    drop(checkpoints);
    assert_eq!(alone(&*file(dir)), [3]);
}

#[test]
fn a_damaged_record_of_the_fast_tier_is_read_from_the_durable_one() {
    for (part, kind) in [
        (Part::Commit, ErrorKind::Corrupt),
        (Part::Chunks, ErrorKind::Corrupt),
        (Part::Chunks, ErrorKind::NotFound),
    ] {
        let pair = Pair::new();
        let checkpoints = pair.open();
        complete(&checkpoints, 1..=2);
        commit(&checkpoints, CheckpointId(3)).unwrap();
        copied(&checkpoints);
        for id in 1..=3 {
            pair.fast.fail(CheckpointId(id), part, kind);
        }
        (1..=3).for_each(|id| assert_whole(&checkpoints, CheckpointId(id)));
        assert_eq!(checkpoints.newest().unwrap(), Some(CheckpointId(3)));
        let mut read = 0;
        let report = checkpoints.verify(CheckpointId(3), &mut |bytes| read += bytes);
        assert!(report.is_ok() && read > 600_000, "{report:?}");
        pair.durable.fail(CheckpointId(3), part, ErrorKind::Corrupt);
        assert!(checkpoints.verify(CheckpointId(3), &mut |_| ()).is_err(), "both are damaged");
    }
}

#[test]
fn a_bit_that_flips_in_a_file_of_the_fast_tier_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let fast = || {
        let location = format!("file://{}/fast", dir.display());
        let storage = FileSystemCheckpointStorage::new(location).unwrap();
        Arc::new(storage.with_file_state_size_threshold(0).unwrap())
    };
    let storage = TieredCheckpointStorage::new(fast(), file(dir));
    complete(&open(&storage), 1..=2);
    for name in ["_metadata", ""] {
        let found = std::fs::read_dir(dir.join("fast/job/chk-2")).unwrap();
        let shared = std::fs::read_dir(dir.join("fast/job/shared")).unwrap();
        for entry in found.chain(shared).map(|entry| entry.unwrap()) {
            let is_metadata = entry.file_name() == "_metadata";
            if is_metadata == (name == "_metadata") {
                let mut bytes = std::fs::read(entry.path()).unwrap();
                let at = bytes.len() / 2;
                bytes[at] ^= 1;
                std::fs::write(entry.path(), bytes).unwrap();
            }
        }
        let checkpoints = open(&storage);
        assert_eq!(ids(&checkpoints), [1, 2], "{name}");
        assert_whole(&checkpoints, CheckpointId(2));
    }
}

#[test]
fn a_tier_that_is_away_at_a_start_is_an_error_and_no_fresh_start() {
    let pair = Pair::new();
    complete(&pair.open(), 1..=2);
    for away in [&pair.durable, &pair.fast] {
        away.set_away(true);
        let refused = pair.storage.open(&job()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        assert!(refused.to_string().contains("tier"), "{refused}");
        away.set_away(false);
    }
    let lost = pair.without_fast();
    lost.durable.set_away(true);
    assert_eq!(lost.storage.open(&job()).unwrap_err().kind(), ErrorKind::Unavailable);
    lost.durable.set_away(false);
    assert_eq!(ids(&lost.open()), [1, 2]);
}

/// A process that is killed: nothing is copied any more, and nothing is said at the end.
fn kill(pair: &Pair, checkpoints: Checkpoints) {
    pair.durable.set_away(true);
    drop(checkpoints);
    pair.durable.set_away(false);
}

#[test]
fn completions_that_are_lost_with_the_fast_tier_are_gone_back_behind() {
    let pair = Pair::new();
    let checkpoints = pair.open();
    complete(&checkpoints, 1..=2);
    pair.durable.set_away(true);
    commit(&checkpoints, CheckpointId(3)).unwrap();
    kill(&pair, checkpoints);
    let lost = pair.without_fast();
    let checkpoints = lost.open();
    assert_eq!((ids(&checkpoints), checkpoints.lost_after().map(|id| id.0)), (vec![1, 2], Some(3)));
    let next = checkpoints.next_id();
    assert!(next.0 > 3, "{next}");
    kill(&lost, checkpoints);
    // Until something completes again, every start must undo, also after one that ended in order.
    drop(lost.open());
    let checkpoints = lost.open();
    assert_eq!(checkpoints.lost_after().map(|id| id.0), Some(3));
    complete(&checkpoints, [checkpoints.next_id().0]);
    kill(&lost, checkpoints);
    assert_eq!(lost.open().lost_after(), None);
}

#[test]
fn an_older_fast_tier_that_comes_back_does_not_hide_what_is_newer() {
    let pair = Pair::new();
    let checkpoints = pair.open();
    complete(&checkpoints, 1..=2);
    kill(&pair, checkpoints);
    let other = pair.without_fast();
    let checkpoints = other.open();
    complete(&checkpoints, 10..=12);
    kill(&other, checkpoints);
    let tiers = (Arc::new(pair.fast.clone()), Arc::new(other.durable.clone()));
    let checkpoints = open(&TieredCheckpointStorage::new(tiers.0, tiers.1));
    assert_eq!(checkpoints.newest().unwrap(), Some(CheckpointId(12)));
    assert_eq!(checkpoints.lost_after(), Some(CheckpointId(13)));
    assert!(checkpoints.next_id() > CheckpointId(13));
}

#[test]
fn after_an_end_at_which_everything_was_copied_nothing_is_lost() {
    let pair = Pair::new();
    let checkpoints = pair.open();
    complete(&checkpoints, 1..=2);
    drop(checkpoints);
    let moved = pair.without_fast();
    // A kill before anything completes changes nothing of that.
    kill(&moved, moved.open());
    let checkpoints = moved.open();
    assert_eq!(
        (checkpoints.newest().unwrap(), checkpoints.lost_after()),
        (Some(CheckpointId(2)), None)
    );
}

#[test]
fn an_engine_that_lost_completions_says_so_to_its_sinks_and_names_both() {
    let pair = Pair::new();
    let checkpoints = pair.open();
    complete(&checkpoints, 1..=2);
    kill(&pair, checkpoints);
    let lost = pair.without_fast();
    let config = CheckpointConfig::builder().build().unwrap();
    let engine = Engine::builder(job(), config, Arc::new(lost.storage))
        .operator(OperatorSpec::new(OperatorUid::new("op").unwrap(), SUBTASKS))
        .open()
        .unwrap();
    let ids = (engine.restored().map(|id| id.0), engine.newest_given_up().map(|id| id.0));
    assert_eq!(ids, (Some(2), Some(3)));
}

#[test]
fn what_is_said_of_a_job_is_found_in_the_durable_tier_alone() {
    let pair = Pair::new();
    let checkpoints = pair.open();
    complete(&checkpoints, 1..=2);
    drop(checkpoints);
    let checkpoints = pair.open();
    let suspect = CheckpointMark { suspect: Some("bad".into()), ..CheckpointMark::default() };
    let mark =
        || checkpoints.change_marks(|marks| drop(marks.insert(CheckpointId(2), suspect.clone())));
    // Sinks are about to undo what they committed: the next start must know, whatever is lost.
    pair.durable.set_away(true);
    assert_eq!(mark().unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(checkpoints.marks().unwrap().is_empty());
    pair.durable.set_away(false);
    mark().unwrap();
    kill(&pair, checkpoints);
    let lost = pair.without_fast();
    let checkpoints = lost.open();
    assert_eq!(checkpoints.marks().unwrap().get(&CheckpointId(2)), Some(&suspect));
    // Once a checkpoint has begun, the durable tier gets it in the background.
    commit(&checkpoints, checkpoints.next_id()).unwrap();
    lost.durable.set_away(true);
    checkpoints.record_finish("done").unwrap();
    lost.durable.set_away(false);
    copied(&checkpoints);
    drop(checkpoints);
    let durable = open(&lost.durable);
    assert_eq!(durable.finish().as_deref(), Some("done"));
    assert!(durable.marks().unwrap().contains_key(&CheckpointId(2)));
    drop(durable);
    assert_eq!(pair.without_fast().open().finish().as_deref(), Some("done"));
}

#[test]
fn what_was_set_aside_is_not_copied() {
    let pair = Pair::new();
    let checkpoints = pair.open();
    pair.durable.set_away(true);
    commit(&checkpoints, CheckpointId(1)).unwrap();
    commit(&checkpoints, CheckpointId(2)).unwrap();
    let suspect = CheckpointMark { suspect: Some("bad".into()), ..CheckpointMark::default() };
    checkpoints.change_marks(|marks| drop(marks.insert(CheckpointId(2), suspect))).unwrap();
    pair.durable.set_away(false);
    copied(&checkpoints);
    drop(checkpoints);
    assert_eq!(alone(&pair.durable), [1]);
}
