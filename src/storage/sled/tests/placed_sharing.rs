//! What checkpoints under `Placement::Sled` have in common is stored once, stays as long as one of them
//! needs it or was offered it, and goes then.

use super::*;
use crate::message::CheckpointType;
use crate::storage::tests::begin_kind;

/// Contents of which each makes two chunks.
fn content(variant: u64) -> Vec<u8> {
    body(CheckpointId(variant), 0, 700_000)
}

/// Commits one task's state and returns how many of its bytes were written.
fn commit_content(checkpoints: &Checkpoints, kind: CheckpointType, variant: u64) -> u64 {
    let id = checkpoints.next_id();
    let pending = begin_kind(checkpoints, id, 1, kind).unwrap();
    write_and_commit(&pending, variant).unwrap()
}

fn write_and_commit(pending: &PendingCheckpoint, variant: u64) -> Result<u64> {
    let mut writer = pending.writer(&task(0))?;
    let bytes = content(variant);
    writer.section(&key(0), &mut |out| Ok(out.write_all(&bytes)?))?;
    let snapshot = writer.finish()?;
    pending.commit(&[(task(0), snapshot)])?;
    Ok(snapshot.measurements().checkpointed_bytes)
}

fn holds(checkpoints: &Checkpoints, id: CheckpointId, variant: u64) -> bool {
    let mut reader = checkpoints.read_task(id, &task(0)).unwrap();
    assert_eq!(reader.next_section().unwrap(), Some(key(0)));
    let mut found = Vec::new();
    reader.body().read_to_end(&mut found).unwrap();
    found == content(variant)
}

#[test]
fn what_did_not_change_is_not_written_again_and_outlives_the_one_that_wrote_it() {
    let dir = quick_dir();
    let checkpoints = open(dir.path(), Placement::Sled);
    assert_eq!(commit_content(&checkpoints, CheckpointType::Checkpoint, 1), 700_000);
    assert_eq!(commit_content(&checkpoints, CheckpointType::Checkpoint, 1), 0);
    checkpoints.discard(&[CheckpointId(1)]).unwrap();
    assert_eq!(commit_content(&checkpoints, CheckpointType::Checkpoint, 2), 700_000);
    drop(checkpoints);
    let checkpoints = open(dir.path(), Placement::Sled);
    assert_eq!(ids(&checkpoints), [2, 3]);
    assert!(holds(&checkpoints, CheckpointId(2), 1) && holds(&checkpoints, CheckpointId(3), 2));
    assert_eq!(commit_content(&checkpoints, CheckpointType::Checkpoint, 2), 0, "of another start");
    checkpoints.discard(&[CheckpointId(2)]).unwrap();
    assert_eq!(commit_content(&checkpoints, CheckpointType::Checkpoint, 1), 700_000, "dropped");
    assert!(holds(&checkpoints, CheckpointId(4), 2) && holds(&checkpoints, CheckpointId(5), 1));
}

#[test]
fn savepoints_and_full_checkpoints_stand_alone() {
    let dir = quick_dir();
    let checkpoints = open(dir.path(), Placement::Sled);
    commit_content(&checkpoints, CheckpointType::Checkpoint, 1);
    for kind in [CheckpointType::FullCheckpoint, CheckpointType::Savepoint] {
        assert_eq!(commit_content(&checkpoints, kind, 1), 700_000, "{kind:?}");
    }
    assert_eq!(commit_content(&checkpoints, CheckpointType::Checkpoint, 1), 0);
}

#[test]
fn a_chunk_that_was_offered_is_kept_until_the_checkpoint_has_ended() {
    let dir = quick_dir();
    let checkpoints = open(dir.path(), Placement::Sled);
    commit_content(&checkpoints, CheckpointType::Checkpoint, 1);
    let pending = begin(&checkpoints, checkpoints.next_id(), 1).unwrap();
    let mut writer = pending.writer(&task(0)).unwrap();
    let bytes = content(1);
    writer.section(&key(0), &mut |out| Ok(out.write_all(&bytes)?)).unwrap();
    let snapshot = writer.finish().unwrap();
    assert_eq!(snapshot.measurements().checkpointed_bytes, 0);
    checkpoints.discard(&[CheckpointId(1)]).unwrap();
    // Another one would take a slot that was given back.
    let other = begin(&checkpoints, CheckpointId(9), 1).unwrap();
    let mut writer = other.writer(&task(0)).unwrap();
    let bytes = content(2);
    writer.section(&key(0), &mut |out| Ok(out.write_all(&bytes)?)).unwrap();
    writer.finish().unwrap();
    drop(other);
    pending.commit(&[(task(0), snapshot)]).unwrap();
    drop(pending);
    assert!(holds(&checkpoints, CheckpointId(2), 1));
    drop(checkpoints);
    assert!(holds(&open(dir.path(), Placement::Sled), CheckpointId(2), 1));
}

#[test]
fn reuse_and_drops_that_race_lose_nothing() {
    let dir = quick_dir();
    let checkpoints = open(dir.path(), Placement::Sled);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let dropping = scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Acquire) {
                let old: Vec<_> = checkpoints.ids().into_iter().rev().skip(1).collect();
                checkpoints.discard(&old).unwrap();
            }
        });
        for round in 0..40_u64 {
            let id = checkpoints.next_id();
            let variant = 1 + (round * round) % 3;
            commit_content(&checkpoints, CheckpointType::Checkpoint, variant);
            assert!(holds(&checkpoints, id, variant), "{id}");
        }
        done.store(true, std::sync::atomic::Ordering::Release);
        dropping.join().unwrap();
    });
    let last = checkpoints.ids().pop().unwrap();
    drop(checkpoints);
    assert!(holds(&open(dir.path(), Placement::Sled), last, 1));
}

#[test]
fn slots_are_used_again_and_a_file_of_a_few_segments_is_not_made_anew() {
    let dir = quick_dir();
    let checkpoints = open(dir.path(), Placement::Sled);
    let db = dir.path().join("index-1/db");
    let len = || std::fs::metadata(&db).unwrap().len();
    let mut longest = 0;
    // 175 MB go through it; sled keeps five segments of 16 MiB in its hands, and one to come.
    for round in 0..250 {
        commit_content(&checkpoints, CheckpointType::Checkpoint, 100 + round);
        checkpoints.subsume(1).unwrap();
        longest = longest.max(len());
        if round > 100 && len() > 5 * (16 << 20) {
            break;
        }
    }
    assert!(longest <= 6 * (16 << 20), "{longest}");
    println!("{longest} at most, {} in the end", len());
    drop(checkpoints);
    drop(open(dir.path(), Placement::Sled));
    assert!(db.exists(), "it was made anew for {longest} bytes");
}
