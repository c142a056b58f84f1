//! Chunks that several checkpoints refer to: written once, there as long as anybody needs them.

use super::*;
use crate::catalog::{CheckpointPlan, OperatorSpec, PendingCheckpoint, TaskSnapshot};
use crate::error::ErrorKind;
use crate::ids::{CheckpointId, OperatorUid};
use crate::message::CheckpointType;
use crate::state::{SnapshotSink, SnapshotSource};
use crate::storage::tests::{CutDisk, body, ids, key, task};

const LEN: usize = 25_000;
const STATES: u32 = 4;

fn begin(checkpoints: &Checkpoints, id: u64, kind: CheckpointType) -> Result<PendingCheckpoint> {
    let mut plan = CheckpointPlan::new(vec![OperatorSpec::new(OperatorUid::new("op")?, 1)]);
    plan.kind = kind;
    checkpoints.begin(CheckpointId(id), plan)
}

/// State `index` has the content of `versions[index]`.
fn write(pending: &PendingCheckpoint, versions: [u64; STATES as usize]) -> Result<TaskSnapshot> {
    let mut writer = pending.writer(&task(0))?;
    for (index, version) in (0..).zip(versions) {
        let bytes = body(CheckpointId(version), index, LEN);
        writer.section(&key(index), &mut |out| Ok(out.write_all(&bytes)?))?;
    }
    writer.finish()
}

/// Commits, and gives back the bytes that were written for it.
fn commit(
    checkpoints: &Checkpoints,
    id: u64,
    kind: CheckpointType,
    versions: [u64; STATES as usize],
) -> Result<u64> {
    let pending = begin(checkpoints, id, kind)?;
    let snapshot = write(&pending, versions)?;
    pending.commit(&[(task(0), snapshot)])?;
    assert_eq!(snapshot.state_bytes(), 4 * LEN as u64);
    Ok(snapshot.measurements().checkpointed_bytes)
}

fn share(checkpoints: &Checkpoints, id: u64, versions: [u64; STATES as usize]) -> u64 {
    commit(checkpoints, id, CheckpointType::Checkpoint, versions).unwrap()
}

fn assert_whole(checkpoints: &Checkpoints, id: u64, versions: [u64; STATES as usize]) {
    let mut reader = checkpoints.read_task(CheckpointId(id), &task(0)).unwrap();
    for (index, version) in (0..).zip(versions) {
        assert_eq!(reader.next_section().unwrap(), Some(key(index)));
        let mut found = Vec::new();
        reader.body().read_to_end(&mut found).unwrap();
        assert!(found == body(CheckpointId(version), index, LEN), "checkpoint {id}, {index}");
    }
}

fn shared_files(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("base/job/shared")).unwrap().count()
}

fn discard(checkpoints: &Checkpoints, id: u64) {
    checkpoints.discard(&[CheckpointId(id)]).unwrap();
}

/// Text that lz4 makes shorter, another one for each version and state.
fn text(version: u64, index: u32) -> Vec<u8> {
    let words = (0..20_000).map(|at| format!("{version} {index} {} ", at % (50 + version)));
    words.collect::<String>().into_bytes()
}

fn commit_compressed(checkpoints: &Checkpoints, id: u64, versions: [u64; 2]) -> u64 {
    let mut plan = CheckpointPlan::new(vec![OperatorSpec::new(task(0).operator, 1)]);
    plan.compression = true;
    let pending = checkpoints.begin(CheckpointId(id), plan).unwrap();
    let mut writer = pending.writer(&task(0)).unwrap();
    for (index, version) in (0..).zip(versions) {
        let bytes = text(version, index);
        writer.section(&key(index), &mut |out| Ok(out.write_all(&bytes)?)).unwrap();
    }
    let snapshot = writer.finish().unwrap();
    pending.commit(&[(task(0), snapshot)]).unwrap();
    snapshot.measurements().checkpointed_bytes
}

#[test]
fn compressed_chunks_are_shared_like_others_and_outlive_the_checkpoint_that_wrote_them() {
    let dir = tempfile::tempdir().unwrap();
    let storage = storage(dir.path()).with_file_state_size_threshold(64).unwrap();
    let job = storage.open_on(&JobId::new("job").unwrap(), Arc::new(RealDisk));
    let checkpoints = Checkpoints::new(job.unwrap());
    let whole = commit_compressed(&checkpoints, 1, [1, 1]);
    assert!(whole > 0 && whole < text(1, 0).len() as u64 / 4, "{whole} bytes");
    assert_eq!(commit_compressed(&checkpoints, 2, [1, 1]), 0);
    let changed = commit_compressed(&checkpoints, 3, [1, 2]);
    assert!(changed > 0 && changed < whole, "{changed} of {whole} bytes");
    discard(&checkpoints, 1);
    discard(&checkpoints, 2);
    let mut reader = checkpoints.read_task(CheckpointId(3), &task(0)).unwrap();
    for (index, version) in [(0, 1), (1, 2)] {
        assert_eq!(reader.next_section().unwrap(), Some(key(index)));
        let mut found = Vec::new();
        reader.body().read_to_end(&mut found).unwrap();
        assert!(found == text(version, index), "{index}");
    }
    checkpoints.verify(CheckpointId(3), &mut |_| ()).unwrap();
}

#[test]
fn an_unchanged_state_is_written_once_and_outlives_the_checkpoint_that_wrote_it() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = open(dir.path());
    assert_eq!(share(&checkpoints, 1, [1, 1, 1, 1]), 4 * LEN as u64);
    assert_eq!(share(&checkpoints, 2, [1, 1, 1, 1]), 0);
    assert_eq!(share(&checkpoints, 3, [1, 3, 1, 1]), LEN as u64);
    discard(&checkpoints, 1);
    discard(&checkpoints, 2);
    assert_eq!(shared_files(dir.path()), 2);
    assert_whole(&checkpoints, 3, [1, 3, 1, 1]);
    drop(checkpoints);
    let checkpoints = open(dir.path());
    assert_whole(&checkpoints, 3, [1, 3, 1, 1]);
    discard(&checkpoints, 3);
    assert_eq!(shared_files(dir.path()), 0);
}

#[test]
fn what_an_earlier_start_wrote_is_not_referred_to() {
    let dir = tempfile::tempdir().unwrap();
    share(&open(dir.path()), 1, [1, 1, 1, 1]);
    let checkpoints = open(dir.path());
    assert_eq!(share(&checkpoints, 2, [1, 1, 1, 1]), 4 * LEN as u64);
    assert_eq!(share(&checkpoints, 3, [1, 1, 1, 1]), 0);
}

#[test]
fn full_checkpoints_and_savepoints_stand_alone() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = open(dir.path());
    share(&checkpoints, 1, [1, 1, 1, 1]);
    for (id, kind) in [(2, CheckpointType::FullCheckpoint), (3, CheckpointType::Savepoint)] {
        assert_eq!(commit(&checkpoints, id, kind, [1, 1, 1, 1]).unwrap(), 4 * LEN as u64);
    }
    discard(&checkpoints, 1);
    assert_eq!(shared_files(dir.path()), 0);
    assert_whole(&checkpoints, 2, [1, 1, 1, 1]);
    assert_whole(&checkpoints, 3, [1, 1, 1, 1]);
}

#[test]
fn a_file_of_which_less_than_half_is_in_use_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = open(dir.path());
    share(&checkpoints, 1, [1, 1, 1, 1]);
    assert_eq!(share(&checkpoints, 2, [1, 1, 1, 2]), LEN as u64);
    assert_eq!(share(&checkpoints, 3, [1, 2, 2, 2]), 2 * LEN as u64);
    assert_eq!(share(&checkpoints, 4, [1, 2, 2, 2]), LEN as u64, "the rest of the first file");
    for id in 1..=3 {
        discard(&checkpoints, id);
    }
    assert_eq!(shared_files(dir.path()), 3);
    assert_whole(&checkpoints, 4, [1, 2, 2, 2]);
}

#[test]
fn what_is_offered_stays_until_the_checkpoint_it_was_offered_to_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = open(dir.path());
    share(&checkpoints, 1, [1, 1, 1, 1]);
    let pending = begin(&checkpoints, 2, CheckpointType::Checkpoint).unwrap();
    let given_up = begin(&checkpoints, 3, CheckpointType::Checkpoint).unwrap();
    discard(&checkpoints, 1);
    let snapshot = write(&pending, [1, 1, 1, 2]).unwrap();
    pending.commit(&[(task(0), snapshot)]).unwrap();
    drop(pending);
    assert_whole(&checkpoints, 2, [1, 1, 1, 2]);
    write(&given_up, [1, 5, 6, 7]).unwrap();
    discard(&checkpoints, 2);
    assert_eq!(shared_files(dir.path()), 2, "what was offered, and what was written");
    drop(given_up);
    assert_eq!(shared_files(dir.path()), 0);
}

#[test]
fn while_a_checkpoint_is_damaged_no_shared_file_goes() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = open(dir.path());
    share(&checkpoints, 1, [1, 1, 1, 1]);
    share(&checkpoints, 2, [1, 1, 1, 1]);
    drop(checkpoints);
    let path = dir.path().join("base/job/chk-1/_metadata");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, b"damaged").unwrap();
    let checkpoints = open(dir.path());
    discard(&checkpoints, 2);
    drop(checkpoints);
    let checkpoints = open(dir.path());
    assert_eq!(checkpoints.info(CheckpointId(1)).unwrap_err().kind(), ErrorKind::Corrupt);
    drop(checkpoints);
    std::fs::write(&path, whole).unwrap();
    assert_whole(&open(dir.path()), 1, [1, 1, 1, 1]);
}

/// Five checkpoints of which two are retained; every other one changes, and one is given up.
fn run(dir: &Path, disk: &CutDisk) -> Option<(u64, bool)> {
    let mut committed = None;
    let Ok(checkpoints) = open_on(dir, Arc::new(disk.clone())) else { return committed };
    for id in 1..=5 {
        let ended = commit(&checkpoints, id, CheckpointType::Checkpoint, versions(id));
        if ended.is_err() {
            return committed.map(|(id, _)| (id, false));
        }
        committed = Some((id, true));
        let pending = begin(&checkpoints, 100 + id, CheckpointType::Checkpoint);
        let written = pending.and_then(|pending| write(&pending, [id, 0, id, 0]));
        let oldest: Vec<_> = checkpoints.ids().iter().rev().skip(2).copied().collect();
        if written.and(checkpoints.discard(&oldest)).is_err() {
            return committed;
        }
    }
    committed
}

fn versions(id: u64) -> [u64; STATES as usize] {
    [1, id.div_ceil(2), id.div_ceil(3), id.div_ceil(4)]
}

#[test]
fn a_cut_at_any_operation_leaves_every_retained_checkpoint_whole_and_nothing_else() {
    let whole = CutDisk::new(u64::MAX);
    run(tempfile::tempdir().unwrap().path(), &whole);
    assert!(whole.operations() > 100, "{}", whole.operations());
    for cut in 0..whole.operations() {
        let dir = tempfile::tempdir().unwrap();
        let committed = run(dir.path(), &CutDisk::new(cut));
        let checkpoints = open(dir.path());
        let found = ids(&checkpoints);
        if let Some((id, _)) = committed {
            assert!(found.contains(&id), "cut {cut}: {id} is lost, there are {found:?}");
        }
        for id in &found {
            assert_whole(&checkpoints, *id, versions(*id));
        }
        for id in found {
            discard(&checkpoints, id);
        }
        assert_eq!(shared_files(dir.path()), 0, "cut {cut}");
    }
}
