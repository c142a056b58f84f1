//! A copy into a savepoint directory is cut at every operation of its disk, and goes on.

use super::*;
use crate::catalog::{ExternalCheckpoint, copy_checkpoint};
use crate::error::ErrorKind;
use crate::ids::CheckpointId;
use crate::record::digest;
use crate::state::SnapshotSource;
use crate::storage::filesystem::export::{Export, Exported};
use crate::storage::filesystem::pointer::resolve;
use crate::storage::tests::{CutDisk, SUBTASKS, body, commit, key, lengths, task};
use crate::storage::{CheckpointStorage, JobManagerCheckpointStorage, RemoteOptions};

const ID: CheckpointId = CheckpointId(1);

fn source() -> Checkpoints {
    let storage = JobManagerCheckpointStorage::new();
    let checkpoints = Checkpoints::new(storage.open(&JobId::new("a job").unwrap()).unwrap());
    commit(&checkpoints, ID).unwrap();
    checkpoints
}

fn exported(checkpoints: &Checkpoints) -> Exported {
    let job = JobId::new("a job").unwrap();
    Exported { job, id: ID, attempt: checkpoints.attempt(), identity: digest(b"this one") }
}

/// Copies onto the disk; gives the pointer and how many tasks were resumed.
fn copy(checkpoints: &Checkpoints, base: &Path, disk: Arc<dyn Disk>) -> Result<(String, u64)> {
    match Export::open(disk, base, &exported(checkpoints))? {
        Export::Complete(pointer) => Ok((pointer, 0)),
        Export::Open(pending, pointer) => {
            let stored = *checkpoints.storage().access().stored().first().unwrap();
            let records = checkpoints.source(ID);
            let copied = copy_checkpoint(&records, &stored, &*pending, &mut |_| Ok(()))?;
            Ok((pointer, copied.resumed_tasks))
        }
    }
}

fn assert_copied(pointer: &str) {
    let found = ExternalCheckpoint::new(resolve(pointer, &RemoteOptions::default()).unwrap());
    assert_eq!(found.id(), ID);
    found.verify(&mut |_| ()).unwrap();
    for subtask in 0..SUBTASKS {
        let mut reader = found.read_task(&task(subtask)).unwrap();
        for (index, len) in (0..).zip(lengths(ID, subtask)) {
            assert_eq!(reader.next_section().unwrap(), Some(key(index)));
            let mut bytes = Vec::new();
            reader.body().read_to_end(&mut bytes).unwrap();
            assert!(bytes == body(ID, subtask, len));
        }
    }
}

/// What a complete copy has: `_metadata` and a file for each task, and nothing else.
fn assert_tidy(base: &Path) {
    let names = listing(base);
    let is_helper = |name: &&String| name.contains("_part") || name.contains("_lock");
    assert_eq!(names.iter().find(is_helper), None, "{names:?}");
    assert_eq!(names.len(), 2 + SUBTASKS as usize, "{names:?}");
}

#[test]
fn a_copy_that_is_killed_at_any_operation_goes_on_with_whole_tasks_alone() {
    let checkpoints = source();
    let mut resumed = Vec::new();
    let mut cut = 0;
    loop {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base");
        let disk = CutDisk::new(cut);
        let first = copy(&checkpoints, &base, Arc::new(disk.clone()));
        if let Ok((pointer, _)) = &first {
            assert_copied(pointer);
        }
        let (pointer, tasks) = copy(&checkpoints, &base, Arc::new(RealDisk))
            .unwrap_or_else(|error| panic!("cut {cut}: {error:?}"));
        resumed.push(tasks);
        assert_copied(&pointer);
        assert_tidy(&base);
        if disk.operations() <= cut {
            break;
        }
        cut += 1;
    }
    let all = u64::from(SUBTASKS);
    assert!((0..=all).all(|tasks| resumed.contains(&tasks)), "{resumed:?}");
}

/// A copy of which every task is finished and the commit is not.
fn interrupted(checkpoints: &Checkpoints, base: &Path) -> PathBuf {
    let Export::Open(pending, _) =
        Export::open(Arc::new(RealDisk), base, &exported(checkpoints)).unwrap()
    else {
        panic!("there is a copy");
    };
    let stored = *checkpoints.storage().access().stored().first().unwrap();
    let records = checkpoints.source(ID);
    let mut left = lengths(ID, 0).iter().chain(&lengths(ID, 1)).sum::<usize>() as u64;
    let mut stop = |bytes| {
        left -= bytes;
        if left == 0 { Err(crate::Error::new(ErrorKind::Closed, "enough")) } else { Ok(()) }
    };
    copy_checkpoint(&records, &stored, &*pending, &mut stop).unwrap_err();
    drop(pending);
    base.join(listing(base).first().unwrap().trim_end_matches('/'))
}

#[test]
fn a_part_with_one_wrong_bit_is_written_again() {
    let checkpoints = source();
    for prefix in ["_part", ""] {
        let dir = tempfile::tempdir().unwrap();
        let own = interrupted(&checkpoints, dir.path());
        let names = listing(&own);
        let part = names.iter().find(|name| name.starts_with("_part-")).unwrap();
        let name = if prefix.is_empty() { part.strip_prefix("_part-").unwrap() } else { part };
        let path = own.join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let (pointer, tasks) = copy(&checkpoints, dir.path(), Arc::new(RealDisk)).unwrap();
        assert_eq!(tasks, 0);
        assert_copied(&pointer);
        assert_tidy(dir.path());
    }
}

#[test]
fn files_of_others_stay_beside_a_copy_that_goes_on() {
    let checkpoints = source();
    let dir = tempfile::tempdir().unwrap();
    let own = interrupted(&checkpoints, dir.path());
    let foreign = ["notes.txt", "_part-mine", "00112233445566778899aabbccddeeff"];
    for name in foreign {
        std::fs::write(own.join(name), "mine").unwrap();
    }
    let (pointer, tasks) = copy(&checkpoints, dir.path(), Arc::new(RealDisk)).unwrap();
    assert_eq!(tasks, 1);
    assert_copied(&pointer);
    for name in foreign {
        assert_eq!(std::fs::read_to_string(own.join(name)).unwrap(), "mine", "{name}");
    }
}

#[test]
fn what_is_copied_already_is_not_copied_again_and_two_do_not_copy_at_once() {
    let checkpoints = source();
    let dir = tempfile::tempdir().unwrap();
    let open = || Export::open(Arc::new(RealDisk), dir.path(), &exported(&checkpoints));
    let first = open().unwrap();
    assert_eq!(open().unwrap_err().kind(), ErrorKind::Conflict);
    drop(first);
    assert_eq!(listing(dir.path()), [""; 0], "nothing was finished, nothing is left");
    let (pointer, _) = copy(&checkpoints, dir.path(), Arc::new(RealDisk)).unwrap();
    assert!(matches!(open().unwrap(), Export::Complete(found) if found == pointer));
    assert_tidy(dir.path());
}

#[test]
fn a_copy_of_what_is_gone_leaves_nothing() {
    let checkpoints = source();
    let dir = tempfile::tempdir().unwrap();
    interrupted(&checkpoints, dir.path());
    let opened = Export::open(Arc::new(RealDisk), dir.path(), &exported(&checkpoints)).unwrap();
    let Export::Open(pending, _) = opened else { panic!("it is complete") };
    pending.discard();
    assert_eq!(listing(dir.path()), [""; 0]);
}
