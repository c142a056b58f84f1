//! Goal: streams are files where Flink has them, survive whatever cuts their disk, and no wrong bit of
//! them is believed. Method: whole streams through the public views, over a disk that stops at one
//! chosen operation, and over files with one bit wrong. What every storage promises is judged by the
//! suite in `src/storage/conformance`.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use crate::catalog::Checkpoints;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Attempt, CheckpointId, JobId, StoreId};
use crate::storage::CheckpointedStateScope::{Exclusive, Shared};
use crate::storage::disk::{Disk, RealDisk};
use crate::storage::filesystem::FileSystemCheckpointStorage;
use crate::storage::filesystem::streams::{Apart, RecordsElsewhere};
use crate::storage::filesystem::tests::{files, image, layout, listing};
use crate::storage::stream::Place;
use crate::storage::tests::{CutDisk, assert_whole, commit};
use crate::storage::{CheckpointedStateScope, JobStorage, StreamStateHandle};

const ONE: CheckpointId = CheckpointId(1);

fn open_with(dir: &Path, job: &str, threshold: i32, disk: Arc<dyn Disk>) -> Result<JobStorage> {
    FileSystemCheckpointStorage::new(format!("file://{}/base", dir.to_str().unwrap()))?
        .with_file_state_size_threshold(threshold)?
        .with_write_buffer_size(100)?
        .open_on(&JobId::new(job)?, disk)
}

/// A job with a threshold of 100 bytes.
fn open(dir: &Path) -> JobStorage {
    open_with(dir, "job", 100, Arc::new(RealDisk)).unwrap()
}

fn bytes(len: usize) -> Vec<u8> {
    (0_u32..).map(|n| u8::try_from(n * 7 % 251).unwrap()).take(len).collect()
}

fn write(
    job: &JobStorage,
    id: CheckpointId,
    scope: CheckpointedStateScope,
    len: usize,
) -> Result<StreamStateHandle> {
    let mut stream = job.worker().streams(id).create(scope)?;
    stream.write_all(&bytes(len))?;
    Ok(stream.close_and_get_handle()?.unwrap())
}

fn read(job: &JobStorage, handle: &StreamStateHandle) -> Result<Vec<u8>> {
    let mut found = Vec::new();
    job.open_state(handle)?.read_to_end(&mut found)?;
    Ok(found)
}

fn complete(job: &JobStorage, id: CheckpointId, len: usize) -> Result<StreamStateHandle> {
    let mut stream = job.metadata_stream(id)?;
    stream.write_all(&bytes(len))?;
    stream.close_and_get_handle()
}

/// The listing below the job, with random names replaced; `attempts` left out.
fn tree(dir: &Path) -> Vec<String> {
    let masked = |name: String| match name.split_once(".stream") {
        Some((front, rest)) => format!("{}NAME.stream{rest}", &front[..front.len() - 32]),
        None => name,
    };
    let names = layout(&dir.join("base/job")).into_iter().map(masked);
    let mut names: Vec<_> = names.filter(|name| !name.starts_with("attempts/")).collect();
    names.sort();
    names
}

fn is_staged(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|end| end == "tmp")
}

/// N2, N32: nothing, at most the threshold, and more; however it is written and flushed.
#[test]
fn a_stream_of_at_most_the_threshold_lies_in_its_handle() {
    let dir = tempfile::tempdir().unwrap();
    let job = open(dir.path());
    job.initialize_location(ONE).unwrap();
    for part in [1, 7, 1000] {
        for flushes in [false, true] {
            for len in [0, 1, 99, 100, 101, 300] {
                let mut stream = job.worker().streams(ONE).create(Exclusive).unwrap();
                for part in bytes(len).chunks(part) {
                    stream.write_all(part).unwrap();
                    if flushes {
                        stream.flush().unwrap();
                        stream.sync().unwrap();
                    }
                }
                let handle = stream.close_and_get_handle().unwrap();
                assert_eq!(handle.is_some(), len > 0, "{len}");
                let Some(handle) = handle else { continue };
                assert_eq!(handle.is_inline(), len <= 100, "{len} in parts of {part}");
                assert_eq!(read(&job, &handle).unwrap(), bytes(len), "{len} in parts of {part}");
                job.discard_state(&handle).unwrap();
            }
        }
    }
    assert_eq!(tree(dir.path()), ["chk-1/", "shared/", "taskowned/"]);
}

/// N5, N8: what is closed or dropped is gone, and discarding every handle empties the directory.
#[test]
fn streams_of_all_sizes_share_a_directory_and_leave_it_empty() {
    let dir = tempfile::tempdir().unwrap();
    let job = open(dir.path());
    job.initialize_location(ONE).unwrap();
    let factory = job.worker().streams(ONE);
    let mut streams = Vec::new();
    for len in [50, 100, 101, 5000, 70_000] {
        let mut stream = factory.create(Exclusive).unwrap();
        stream.write_all(&bytes(len)).unwrap();
        stream.flush().unwrap();
        streams.push((stream, len));
    }
    let staged = tree(dir.path()).iter().filter(|name| name.ends_with(".stream.1.tmp")).count();
    assert_eq!(staged, 3, "{:?}", tree(dir.path()));
    let (mut closed, _) = streams.pop().unwrap();
    assert!(closed.closer().close());
    let error = closed.close_and_get_handle().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    drop(streams.pop().unwrap());
    let handles: Vec<_> = streams
        .into_iter()
        .map(|(mut stream, len)| (stream.close_and_get_handle().unwrap().unwrap(), len))
        .collect();
    assert_eq!(tree(dir.path()), ["chk-1/", "chk-1/NAME.stream", "shared/", "taskowned/"]);
    for (handle, len) in &handles {
        assert_eq!(read(&job, handle).unwrap(), bytes(*len));
        job.discard_state(handle).unwrap();
    }
    assert_eq!(tree(dir.path()), ["chk-1/", "shared/", "taskowned/"]);
}

/// N19, N20: each scope has its directory.
#[test]
fn every_scope_has_a_directory_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let job = open(dir.path());
    job.initialize_location(ONE).unwrap();
    let handles = [write(&job, ONE, Exclusive, 500), write(&job, ONE, Shared, 500)];
    let mut stream = job.worker().task_owned_stream().unwrap();
    stream.write_all(&bytes(500)).unwrap();
    let owned = stream.close_and_get_handle().unwrap().unwrap();
    let expected = [
        "chk-1/",
        "chk-1/NAME.stream",
        "shared/",
        "shared/NAME.stream",
        "taskowned/",
        "taskowned/NAME.stream",
    ];
    assert_eq!(tree(dir.path()), expected);
    for handle in handles {
        job.discard_state(&handle.unwrap()).unwrap();
    }
    job.worker().discard_task_owned(&owned).unwrap();
    assert_eq!(tree(dir.path()), ["chk-1/", "shared/", "taskowned/"]);
}

/// N10, N11: a host's `_metadata` has its name once it is committed, zero bytes included.
#[test]
fn the_metadata_of_a_host_have_their_name_once_committed() {
    let dir = tempfile::tempdir().unwrap();
    let job = open(dir.path());
    job.initialize_location(ONE).unwrap();
    let mut stream = job.metadata_stream(ONE).unwrap();
    stream.write_all(&bytes(5000)).unwrap();
    stream.sync().unwrap();
    assert!(tree(dir.path()).contains(&"chk-1/_metadata.1.tmp".to_owned()));
    stream.close();
    assert_eq!(tree(dir.path()), ["chk-1/", "shared/", "taskowned/"]);
    let handle = job.metadata_stream(ONE).unwrap().close_and_get_handle().unwrap();
    assert_eq!(tree(dir.path()), ["chk-1/", "chk-1/_metadata", "shared/", "taskowned/"]);
    assert_eq!((handle.state_size(), read(&job, &handle).unwrap()), (0, Vec::new()));
}

/// N16: two jobs with the same id under the same base.
#[test]
fn two_jobs_have_directories_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = ["one", "two"].map(|job| open_with(dir.path(), job, 100, Arc::new(RealDisk)));
    let jobs = jobs.map(Result::unwrap);
    let handles = jobs.each_ref().map(|job| {
        job.initialize_location(ONE).unwrap();
        complete(job, ONE, 500).unwrap()
    });
    for (job, handle) in jobs.iter().zip(&handles) {
        assert_eq!(read(job, handle).unwrap(), bytes(500));
    }
    assert_eq!(read(&jobs[0], &handles[1]).unwrap_err().kind(), ErrorKind::Invalid);
    for job in ["one", "two"] {
        assert!(dir.path().join("base").join(job).join("chk-1/_metadata").is_file());
    }
}

#[test]
fn workers_make_no_directory_and_a_failing_commit_removes_none() {
    let dir = tempfile::tempdir().unwrap();
    let job = open(dir.path());
    let error = write(&job, ONE, Exclusive, 500).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains("checkpoint 1 has no location"), "{error}");
    job.initialize_location(ONE).unwrap();
    let mut stream = job.worker().streams(ONE).create(Exclusive).unwrap();
    stream.write_all(&bytes(500)).unwrap();
    stream.flush().unwrap();
    let staged = files(&dir.path().join("base/job/chk-1")).pop().unwrap();
    std::fs::remove_file(staged).unwrap();
    assert_eq!(stream.close_and_get_handle().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(tree(dir.path()), ["chk-1/", "shared/", "taskowned/"]);
}

#[test]
fn a_checkpoint_of_the_host_is_not_the_engines() {
    let dir = tempfile::tempdir().unwrap();
    let job = open(dir.path());
    let id = CheckpointId(4);
    job.initialize_location(id).unwrap();
    let stream = write(&job, id, Exclusive, 500).unwrap();
    let metadata = complete(&job, id, 500).unwrap();
    drop(job);
    for _ in 0..2 {
        let job = open(dir.path());
        let checkpoints = Checkpoints::new(job.clone());
        assert!(!checkpoints.ids().contains(&id));
        assert_eq!(job.raw_checkpoints().unwrap(), [(id, metadata.clone())]);
        assert_eq!(read(&job, &stream).unwrap(), bytes(500));
        let next = checkpoints.next_id();
        assert!(next > id);
        commit(&checkpoints, next).unwrap();
        assert_whole(&checkpoints, next);
    }
}

#[test]
fn a_disposed_location_keeps_what_is_not_the_storages() {
    let dir = tempfile::tempdir().unwrap();
    let job = open(dir.path());
    for id in [1, 2].map(CheckpointId) {
        job.initialize_location(id).unwrap();
        write(&job, id, Exclusive, 500).unwrap();
        complete(&job, id, 500).unwrap();
    }
    let foreign = dir.path().join("base/job/chk-1/notes");
    std::fs::write(&foreign, "not ours").unwrap();
    job.dispose_location(CheckpointId(1)).unwrap();
    job.dispose_location(CheckpointId(2)).unwrap();
    assert_eq!(tree(dir.path()), ["chk-1/", "chk-1/notes", "shared/", "taskowned/"]);
    drop(job);
    let job = open(dir.path());
    assert_eq!(job.access().next_checkpoint_id(), CheckpointId(3));
    assert!(foreign.is_file());
}

#[test]
fn a_start_removes_partial_streams_and_no_finished_one_of_an_owner() {
    let dir = tempfile::tempdir().unwrap();
    let job = open(dir.path());
    for id in [1, 2].map(CheckpointId) {
        job.initialize_location(id).unwrap();
    }
    let kept = [
        write(&job, ONE, Exclusive, 500).unwrap(),
        write(&job, ONE, Shared, 500).unwrap(),
        write(&job, CheckpointId(2), Shared, 500).unwrap(),
    ];
    complete(&job, ONE, 500).unwrap();
    let gone = write(&job, CheckpointId(2), Exclusive, 500).unwrap();
    let worker = job.worker();
    let mut partial = vec![worker.task_owned_stream().unwrap()];
    for scope in [Exclusive, Shared] {
        for id in [1, 2].map(CheckpointId) {
            partial.push(worker.streams(id).create(scope).unwrap());
        }
    }
    for stream in &mut partial {
        stream.write_all(&bytes(500)).unwrap();
        stream.flush().unwrap();
    }
    let copy = tempfile::tempdir().unwrap();
    image(dir.path(), copy.path());
    let left = tree(copy.path()).iter().filter(|name| is_staged(name)).count();
    assert_eq!(left, 5);
    let job = open(copy.path());
    let expected = [
        "chk-1/",
        "chk-1/NAME.stream",
        "chk-1/_metadata",
        "shared/",
        "shared/NAME.stream",
        "shared/NAME.stream",
        "taskowned/",
    ];
    assert_eq!(tree(copy.path()), expected);
    for handle in &kept {
        assert_eq!(read(&job, handle).unwrap(), bytes(500));
    }
    assert_eq!(read(&job, &gone).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_duplicate_is_independent_of_its_original() {
    let dir = tempfile::tempdir().unwrap();
    let job = open(dir.path());
    job.initialize_location(ONE).unwrap();
    let original = write(&job, ONE, Exclusive, 70_000).unwrap();
    let inline = write(&job, ONE, Exclusive, 10).unwrap();
    let factory = job.worker().streams(ONE);
    assert!(factory.can_duplicate(&original, Shared));
    assert!(!factory.can_duplicate(&inline, Shared));
    let refused = factory.duplicate(&[original.clone(), inline], Shared).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    let made = factory.duplicate(std::slice::from_ref(&original), Shared).unwrap();
    assert_ne!(made[0].identity(), original.identity());
    job.discard_state(&original).unwrap();
    assert_eq!(read(&job, &made[0]).unwrap(), bytes(70_000));
    let gone = factory.duplicate(&[made[0].clone(), original], Exclusive).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    assert_eq!(tree(dir.path()), ["chk-1/", "shared/", "shared/NAME.stream", "taskowned/"]);
}

#[derive(Debug)]
struct NoRecords;

impl RecordsElsewhere for NoRecords {
    fn attempt_max(&self) -> Attempt {
        Attempt(1)
    }

    fn is_live(&self, _: CheckpointId) -> bool {
        false
    }
}

#[test]
fn a_copy_is_made_where_a_file_cannot_have_a_second_name() {
    let dir = tempfile::tempdir().unwrap();
    let job = JobId::new("job").unwrap();
    let identity = (StoreId([7; 16]), &job, Attempt(1));
    let apart = Apart::open(Arc::new(RealDisk), dir.path(), identity, Arc::new(NoRecords)).unwrap();
    assert!(listing(dir.path()).is_empty(), "nothing is made before it is needed");
    let original = dir.path().join("original");
    std::fs::write(&original, bytes(200_000)).unwrap();
    let name = apart.files().copy(&original, Place::Shared).unwrap();
    let copied = dir.path().join("job/shared").join(name.file());
    assert_eq!(std::fs::read(copied).unwrap(), bytes(200_000));
}

#[test]
fn no_wrong_bit_of_a_file_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let job = open_with(dir.path(), "job", 0, Arc::new(RealDisk)).unwrap();
    job.initialize_location(ONE).unwrap();
    let handles = [write(&job, ONE, Exclusive, 90).unwrap(), complete(&job, ONE, 90).unwrap()];
    for path in files(&dir.path().join("base/job/chk-1")) {
        let right = std::fs::read(&path).unwrap();
        let is_metadata = path.ends_with("_metadata");
        let handle = &handles[usize::from(is_metadata)];
        for at in 0..right.len() {
            let mut wrong = right.clone();
            wrong[at] ^= 1 << (at % 8);
            std::fs::write(&path, wrong).unwrap();
            let error = read(&job, handle).unwrap_err();
            let kinds = [ErrorKind::Corrupt, ErrorKind::Incompatible];
            assert!(kinds.contains(&error.kind()), "{at} of {}: {error}", path.display());
            if error.kind() == ErrorKind::Corrupt {
                let place = error.corruption().unwrap();
                assert_eq!(place.file, path);
                assert!(!place.expected.is_empty() && !place.found.is_empty());
            }
        }
        for len in [0, right.len() - 1, right.len() + 1] {
            let mut wrong = right.clone();
            wrong.resize(len, 0);
            std::fs::write(&path, wrong).unwrap();
            assert_eq!(read(&job, handle).unwrap_err().kind(), ErrorKind::Corrupt, "{len}");
        }
        std::fs::write(&path, right).unwrap();
        assert_eq!(read(&job, handle).unwrap(), bytes(90));
    }
}

#[test]
fn damaged_metadata_of_a_host_are_kept_and_not_listed() {
    let dir = tempfile::tempdir().unwrap();
    let job = open(dir.path());
    job.initialize_location(ONE).unwrap();
    let stream = write(&job, ONE, Exclusive, 500).unwrap();
    complete(&job, ONE, 500).unwrap();
    drop(job);
    let path = dir.path().join("base/job/chk-1/_metadata");
    let mut wrong = std::fs::read(&path).unwrap();
    wrong[40] ^= 1;
    std::fs::write(&path, wrong).unwrap();
    let job = open(dir.path());
    assert_eq!(job.raw_checkpoints().unwrap(), []);
    assert!(Checkpoints::new(job.clone()).ids().is_empty());
    assert_eq!(read(&job, &stream).unwrap(), bytes(500));
    job.dispose_location(ONE).unwrap();
    assert_eq!(tree(dir.path()), ["shared/", "taskowned/"]);
}

/// What a run announced before its disk was cut off.
#[derive(Debug, Default)]
struct Announced {
    shared: Vec<StreamStateHandle>,
    exclusive: Vec<(CheckpointId, StreamStateHandle)>,
    completed: Vec<(CheckpointId, StreamStateHandle)>,
    completing: Option<CheckpointId>,
    disposing: Vec<CheckpointId>,
    disposed: Vec<CheckpointId>,
}

fn run(dir: &Path, disk: &CutDisk, said: &mut Announced) -> Result<()> {
    for _ in 0..2 {
        let job = open_with(dir, "job", 100, Arc::new(disk.clone()))?;
        for _ in 0..2 {
            let id = job.access().next_checkpoint_id();
            job.initialize_location(id)?;
            said.exclusive.push((id, write(&job, id, Exclusive, 70_000)?));
            said.shared.push(write(&job, id, Shared, 300)?);
            let dropped = job.worker().streams(id).create(Exclusive)?;
            drop(dropped);
            said.completing = Some(id);
            said.completed.push((id, complete(&job, id, 300)?));
            said.completing = None;
            let oldest = said.completed.iter().rev().nth(1).map(|(id, _)| *id);
            said.disposing.extend(oldest);
            if let Some(id) = oldest {
                job.dispose_location(id)?;
                said.disposed.push(id);
            }
        }
    }
    Err(Error::internal("the run came to its end"))
}

fn check(dir: &Path, said: &Announced, cut: u64) {
    let job = open(dir);
    let found = job.raw_checkpoints().unwrap();
    for (id, handle) in &said.completed {
        let is_there = found.contains(&(*id, handle.clone()));
        assert!(is_there || said.disposing.contains(id), "cut {cut}: {id} is lost: {said:?}");
        assert!(!(is_there && said.disposed.contains(id)), "cut {cut}: {id} came back");
    }
    for (id, handle) in &found {
        let known = said.completed.iter().any(|(known, _)| known == id);
        assert!(known || said.completing == Some(*id), "cut {cut}: {id} appeared: {said:?}");
        assert_eq!(read(&job, handle).unwrap(), bytes(300), "cut {cut}");
        let (_, stream) = said.exclusive.iter().find(|(of, _)| of == id).unwrap();
        assert_eq!(read(&job, stream).unwrap(), bytes(70_000), "cut {cut}: {id}");
    }
    for handle in &said.shared {
        assert_eq!(read(&job, handle).unwrap(), bytes(300), "cut {cut}");
    }
    for name in listing(&dir.join("base/job")) {
        assert!(!is_staged(&name), "cut {cut}: {name} is left: {said:?}");
        let id = name.strip_prefix("chk-").and_then(|rest| rest.split_once('/'));
        let id = id.map(|(id, _)| CheckpointId(id.parse().unwrap()));
        let is_complete = id.is_none_or(|id| found.iter().any(|(found, _)| *found == id));
        assert!(is_complete, "cut {cut}: {name} is left: {said:?}");
    }
    let next = job.access().next_checkpoint_id();
    assert!(said.completed.iter().all(|(id, _)| *id < next), "cut {cut}");
    job.initialize_location(next).unwrap();
    complete(&job, next, 300).unwrap();
}

#[test]
fn whatever_cuts_the_disk_the_next_start_finds_what_was_committed() {
    let whole = CutDisk::new(u64::MAX);
    let dir = tempfile::tempdir().unwrap();
    let mut said = Announced::default();
    let end = run(dir.path(), &whole, &mut said).unwrap_err();
    assert_eq!(end.kind(), ErrorKind::Internal, "{end:?}");
    assert_eq!((said.completed.len(), said.disposed.len()), (4, 3));
    let operations = whole.operations();
    assert!(operations > 100, "{operations}");
    for cut in 0..operations {
        let dir = tempfile::tempdir().unwrap();
        let mut said = Announced::default();
        let end = run(dir.path(), &CutDisk::new(cut), &mut said).unwrap_err();
        assert!(said.completed.len() < 4 || end.kind() != ErrorKind::Internal, "cut {cut}");
        check(dir.path(), &said, cut);
    }
}
