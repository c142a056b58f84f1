//! Savepoints beside the checkpoints of a job, and pointers to what lies in a file system.

use super::*;
use crate::catalog::{CheckpointPlan, ExternalCheckpoint, OperatorSpec};
use crate::error::ErrorKind;
use crate::ids::{CheckpointId, OperatorUid};
use crate::message::CheckpointType;
use crate::state::{SnapshotSink, SnapshotSource};
use crate::storage::tests::{body, commit, ids, key, task};
use crate::storage::{CheckpointStorage, JobManagerCheckpointStorage, SledCheckpointStorage};

const LEN: usize = 50_000;

fn save(checkpoints: &Checkpoints, kind: CheckpointType) -> Result<(CheckpointId, Option<String>)> {
    save_to(checkpoints, kind, None)
}

fn save_to(
    checkpoints: &Checkpoints,
    kind: CheckpointType,
    target: Option<String>,
) -> Result<(CheckpointId, Option<String>)> {
    let mut plan = CheckpointPlan::new(vec![OperatorSpec::new(OperatorUid::new("op")?, 1)]);
    plan.kind = kind;
    plan.savepoint_target = target;
    let id = checkpoints.next_id();
    let pending = checkpoints.begin(id, plan)?;
    let mut writer = pending.writer(&task(0))?;
    for index in 0..2 {
        let bytes = body(id, index, LEN);
        writer.section(&key(index), &mut |out| Ok(out.write_all(&bytes)?))?;
    }
    let info = pending.commit(&[(task(0), writer.finish()?)])?;
    Ok((id, info.external_pointer))
}

fn assert_saved(storage: &dyn CheckpointStorage, pointer: &str, id: CheckpointId) {
    let found = ExternalCheckpoint::new(storage.resolve_checkpoint(pointer).unwrap());
    assert_eq!((found.id(), found.info().unwrap().id), (id, id));
    assert!(found.verify(&mut |_| ()).unwrap().bytes > 2 * LEN as u64);
    let mut reader = found.read_task(&task(0)).unwrap();
    for index in 0..2 {
        assert_eq!(reader.next_section().unwrap(), Some(key(index)));
        let mut bytes = Vec::new();
        reader.body().read_to_end(&mut bytes).unwrap();
        assert!(bytes == body(id, index, LEN));
    }
}

fn savepoints(dir: &Path) -> String {
    format!("file://{}/savepoints", dir.to_str().unwrap())
}

/// Each with a savepoint path below `dir`, and whether `_metadata` holds everything.
fn storages(dir: &Path) -> [(Box<dyn CheckpointStorage>, bool); 3] {
    let path = savepoints(dir);
    let base = format!("file://{}/base", dir.to_str().unwrap());
    let memory = JobManagerCheckpointStorage::new().with_savepoint_path(&path).unwrap();
    let written = memory.clone().with_checkpoint_path(base).unwrap();
    [
        (Box::new(storage(dir).with_savepoint_path(&path).unwrap()), false),
        (Box::new(memory), true),
        (Box::new(written), true),
    ]
}

/// N17 and N22, as far as a job's own directory of savepoints goes.
#[test]
fn a_savepoint_goes_to_the_savepoint_path_and_stands_alone() {
    for at in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let [first, second, third] = storages(dir.path());
        let (storage, is_inline) = [first, second, third].into_iter().nth(at).unwrap();
        let checkpoints = Checkpoints::new(storage.open(&JobId::new("a job").unwrap()).unwrap());
        let (id, pointer) = save(&checkpoints, CheckpointType::Savepoint).unwrap();
        let pointer = pointer.unwrap();
        let name = pointer.strip_prefix(&format!("{}/", savepoints(dir.path()))).unwrap();
        assert!(name.starts_with("savepoint-a_job-"), "{name}");
        assert!(ids(&checkpoints).is_empty(), "it is not one of the job's checkpoints");
        assert!(checkpoints.next_id() > id, "its number is used up");
        assert_saved(&*storage, &pointer, id);
        let own = dir.path().join("savepoints").join(name);
        let files = std::fs::read_dir(&own).unwrap().count();
        assert_eq!(files, if is_inline { 1 } else { 2 }, "{own:?}");
        // It may be moved, and what is left of it under its old name is nothing.
        let moved = dir.path().join("moved");
        std::fs::rename(&own, &moved).unwrap();
        assert_saved(&*storage, moved.to_str().unwrap(), id);
        let gone = storage.resolve_checkpoint(&pointer).unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound);
    }
}

#[test]
fn the_savepoint_that_a_job_stops_with_is_kept_with_its_checkpoints_too() {
    for at in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let (storage, _) = storages(dir.path()).into_iter().nth(at).unwrap();
        let checkpoints = Checkpoints::new(storage.open(&JobId::new("job").unwrap()).unwrap());
        let (id, pointer) = save(&checkpoints, CheckpointType::SyncSavepoint).unwrap();
        assert_eq!(checkpoints.newest().unwrap(), Some(id));
        checkpoints.verify(id, &mut |_| ()).unwrap();
        assert_saved(&*storage, &pointer.unwrap(), id);
    }
}

/// N17: a savepoint that names its place goes there, from any storage, whatever else is set.
#[test]
fn a_savepoint_goes_to_the_place_it_names() {
    for at in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        let [first, second, third] = storages(dir.path()).map(|(storage, _)| storage);
        let all: [Box<dyn CheckpointStorage>; 5] = [
            first,
            second,
            third,
            Box::new(JobManagerCheckpointStorage::new()),
            Box::new(SledCheckpointStorage::new(dir.path().join("store"))),
        ];
        let storage = all.into_iter().nth(at).unwrap();
        let checkpoints = Checkpoints::new(storage.open(&JobId::new("job").unwrap()).unwrap());
        let target = format!("file://{}/target", dir.path().to_str().unwrap());
        let (id, pointer) =
            save_to(&checkpoints, CheckpointType::Savepoint, Some(target.clone())).unwrap();
        let pointer = pointer.unwrap();
        assert!(pointer.starts_with(&format!("{target}/savepoint-job-")), "{pointer}");
        assert_saved(&*storage, &pointer, id);
        assert!(ids(&checkpoints).is_empty());
        let wrong = save_to(&checkpoints, CheckpointType::Savepoint, Some("/a".to_owned()));
        assert_eq!(wrong.unwrap_err().kind(), ErrorKind::Invalid);
    }
}

#[test]
fn a_savepoint_that_is_given_up_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, _) = storages(dir.path()).into_iter().next().unwrap();
    let checkpoints = Checkpoints::new(storage.open(&JobId::new("job").unwrap()).unwrap());
    for kind in [CheckpointType::Savepoint, CheckpointType::SyncSavepoint] {
        let mut plan = CheckpointPlan::new(vec![OperatorSpec::new(task(0).operator, 1)]);
        plan.kind = kind;
        let pending = checkpoints.begin(checkpoints.next_id(), plan).unwrap();
        let mut writer = pending.writer(&task(0)).unwrap();
        let bytes = body(CheckpointId(1), 0, LEN);
        writer.section(&key(0), &mut |out| Ok(out.write_all(&bytes)?)).unwrap();
        drop((writer, pending));
        assert_eq!(listing(&dir.path().join("savepoints")), [""; 0]);
    }
}

/// N17: a job in memory has nowhere to put a savepoint unless it is told.
#[test]
fn without_a_savepoint_path_a_job_in_memory_refuses_one_and_says_what_to_set() {
    let storage = JobManagerCheckpointStorage::new();
    let checkpoints = Checkpoints::new(storage.open(&JobId::new("job").unwrap()).unwrap());
    let refused = save(&checkpoints, CheckpointType::Savepoint).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(refused.to_string().contains("savepoint path"), "{refused}");
    assert_eq!(save(&checkpoints, CheckpointType::SyncSavepoint).unwrap().1, None);
}

/// N13.
#[test]
fn a_checkpoint_is_found_by_its_directory_its_location_and_its_file_under_any_name() {
    let dir = tempfile::tempdir().unwrap();
    let storage = storage(dir.path());
    commit(&open(dir.path()), CheckpointId(1)).unwrap();
    let at = dir.path().join("base/job/chk-1");
    let at = at.to_str().unwrap();
    let expected = format!("file://{at}");
    for pointer in [
        at.to_owned(),
        format!("{at}/"),
        format!("file:{at}"),
        expected.clone(),
        format!("{at}/_metadata"),
        format!("{expected}/_metadata"),
    ] {
        let found = storage.resolve_checkpoint(&pointer).unwrap();
        assert_eq!(found.pointer(), expected, "{pointer}");
        ExternalCheckpoint::new(found).verify(&mut |_| ()).unwrap();
    }
    let renamed = dir.path().join("base/job/chk-1/anything");
    std::fs::rename(dir.path().join("base/job/chk-1/_metadata"), &renamed).unwrap();
    let found = storage.resolve_checkpoint(renamed.to_str().unwrap()).unwrap();
    assert_eq!(found.pointer(), expected);
    let refused = storage.resolve_checkpoint(at).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    assert!(refused.to_string().contains("_metadata"), "{refused}");
}

/// N14 and N25.
#[test]
fn a_pointer_that_names_no_checkpoint_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"no checkpoint").unwrap();
    let memory = JobManagerCheckpointStorage::new();
    for (pointer, kind) in [
        ("", ErrorKind::Invalid),
        ("s3://bucket/chk-1", ErrorKind::Invalid),
        ("file://host/chk-1", ErrorKind::Invalid),
        ("/nowhere/chk-1", ErrorKind::NotFound),
        ("<checkpoint-not-externally-addressable>", ErrorKind::NotFound),
        (file.to_str().unwrap(), ErrorKind::Corrupt),
        (dir.path().to_str().unwrap(), ErrorKind::NotFound),
    ] {
        for storage in [&memory as &dyn CheckpointStorage, &storage(dir.path())] {
            let refused = storage.resolve_checkpoint(pointer).unwrap_err();
            assert_eq!(refused.kind(), kind, "{pointer}: {refused}");
        }
    }
}
