//! Which files there are, and which are never touched.

use super::*;
use crate::error::ErrorKind;
use crate::ids::{CheckpointId, StoreId};
use crate::message::CheckpointType;
use crate::state::SnapshotSink;
use crate::storage::CheckpointStorage;
use crate::storage::filesystem::layout::{DataName, JobPaths, job_dir};
use crate::storage::filesystem::output::Output;
use crate::storage::tests::{assert_whole, begin, body, commit, commit_kind, ids, key, task};

#[test]
fn the_layout_is_flinks() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = open(dir.path());
    for id in 1..=3 {
        commit(&checkpoints, CheckpointId(id)).unwrap();
    }
    checkpoints.subsume(2).unwrap();
    commit_kind(&checkpoints, CheckpointId(4), CheckpointType::FullCheckpoint).unwrap();
    checkpoints.record_finish("done").unwrap();
    let golden = [
        "base/",
        "base/job/",
        "base/job/attempts/",
        "base/job/attempts/1",
        "base/job/chk-2/",
        "base/job/chk-2/_metadata",
        "base/job/chk-3/",
        "base/job/chk-3/_metadata",
        "base/job/chk-4/",
        "base/job/chk-4/NAME",
        "base/job/chk-4/NAME",
        "base/job/chk-4/_metadata",
        "base/job/finished",
        "base/job/shared/",
        "base/job/shared/2-NAME",
        "base/job/shared/2-NAME",
        "base/job/shared/3-NAME",
        "base/job/shared/3-NAME",
        "base/job/taskowned/",
    ];
    assert_eq!(layout(dir.path()), golden);
}

#[test]
fn without_job_directories_the_path_is_of_one_job_alone() {
    let dir = tempfile::tempdir().unwrap();
    let storage = storage(dir.path()).with_create_subdir(false);
    let open = |job: &str| storage.open(&JobId::new(job).unwrap()).map(Checkpoints::new);
    let checkpoints = open("one").unwrap();
    commit(&checkpoints, CheckpointId(1)).unwrap();
    assert!(dir.path().join("base/chk-1/_metadata").is_file());
    assert_eq!(open("two").unwrap_err().kind(), ErrorKind::Conflict);
    drop(checkpoints);
    assert_eq!(open("two").unwrap_err().kind(), ErrorKind::Invalid);
    assert_whole(&open("one").unwrap(), CheckpointId(1));
}

#[test]
fn two_jobs_with_the_same_ids_share_a_base() {
    let dir = tempfile::tempdir().unwrap();
    let open =
        |job: &str| Checkpoints::new(storage(dir.path()).open(&JobId::new(job).unwrap()).unwrap());
    let (one, two) = (open("one"), open("two"));
    for checkpoints in [&one, &two] {
        commit(checkpoints, CheckpointId(1)).unwrap();
        commit(checkpoints, CheckpointId(2)).unwrap();
    }
    one.discard(&[CheckpointId(1), CheckpointId(2)]).unwrap();
    drop((one, two));
    assert!(ids(&open("one")).is_empty());
    let two = open("two");
    assert_eq!(ids(&two), [1, 2]);
    assert_whole(&two, CheckpointId(1));
}

#[test]
fn every_job_has_a_directory_of_its_own() {
    let base = Path::new("/b");
    let dir = |job: &str| {
        let path = job_dir(base, &JobId::new(job).unwrap());
        path.strip_prefix(base).unwrap().to_str().unwrap().to_owned()
    };
    for (job, expected) in [
        ("word_count-2.b", "word_count-2.b"),
        (".", "%2e"),
        ("..", "%2e."),
        ("a/b", "a%2fb"),
        ("a%2fb", "a%252fb"),
        ("gr\u{fc}n 1", "gr%c3%bcn%201"),
    ] {
        assert_eq!(dir(job), expected);
    }
    let long = "/".repeat(255);
    let parts: Vec<String> = dir(&long).split('/').map(str::to_owned).collect();
    assert!(parts.len() > 3 && parts.iter().all(|part| part.len() <= 200), "{parts:?}");
    // A part that goes on says so, and no job's name ends that way.
    let (last, goes_on) = parts.split_last().unwrap();
    assert!(goes_on.iter().all(|part| part.ends_with('%')) && !last.ends_with('%'));
    let joined: String = parts.iter().map(|part| part.strip_suffix('%').unwrap_or(part)).collect();
    assert_eq!(joined, "%2f".repeat(255));
}

/// The files that a state of `len` bytes alone leaves beside `_metadata`, and the bytes of that.
fn files_of_a_state(threshold: i32, len: usize) -> (usize, u64) {
    let dir = tempfile::tempdir().unwrap();
    let storage = storage(dir.path()).with_file_state_size_threshold(threshold).unwrap();
    let job = JobId::new("job").unwrap();
    let checkpoints = Checkpoints::new(storage.open(&job).unwrap());
    let pending = begin(&checkpoints, CheckpointId(1), 1).unwrap();
    let mut writer = pending.writer(&task(0)).unwrap();
    let bytes = body(CheckpointId(1), 0, len);
    writer.section(&key(0), &mut |out| Ok(out.write_all(&bytes)?)).unwrap();
    let snapshot = writer.finish().unwrap();
    pending.commit(&[(task(0), snapshot)]).unwrap();
    let chk = dir.path().join("base/job/chk-1");
    assert_eq!(files(&chk).len(), 1);
    let data = files(&dir.path().join("base/job/shared")).len();
    (data, std::fs::metadata(chk.join("_metadata")).unwrap().len())
}

#[test]
fn state_up_to_the_threshold_lies_in_the_metadata() {
    for (threshold, len, expected) in [
        (3_000, 0, 0),
        (3_000, 2_999, 0),
        (3_000, 3_000, 0),
        (3_000, 3_001, 1),
        (-1, 20_480, 0),
        (-1, 20_481, 1),
        (1 << 20, 1 << 20, 0),
        (1 << 20, (1 << 20) + 1, 1),
        // A piece of a large state is not a small state.
        (3_000, 256 * 1024 + 10, 1),
    ] {
        let (found, metadata) = files_of_a_state(threshold, len);
        assert_eq!(found, expected, "{len} bytes under a threshold of {threshold}");
        let inline = if expected == 0 { len as u64 } else { 0 };
        assert!((inline..inline + 2_000).contains(&metadata), "{metadata} bytes for {len}");
    }
}

#[test]
fn metadata_has_its_name_only_after_the_commit() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = open(dir.path());
    let pending = begin(&checkpoints, CheckpointId(1), 1).unwrap();
    let snapshot = pending.writer(&task(0)).unwrap().finish().unwrap();
    let chk = dir.path().join("base/job/chk-1");
    assert_eq!(listing(&chk), [""; 0]);
    std::fs::write(chk.join("_metadata"), b"somebody else's").unwrap();
    let refused = pending.commit(&[(task(0), snapshot)]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    drop(pending);
    assert_eq!(std::fs::read(chk.join("_metadata")).unwrap(), b"somebody else's");
    commit(&checkpoints, CheckpointId(2)).unwrap();
    assert_eq!(ids(&checkpoints), [2]);
}

#[test]
fn files_of_others_stay_whatever_happens_around_them() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = open(dir.path());
    commit(&checkpoints, CheckpointId(1)).unwrap();
    commit(&checkpoints, CheckpointId(2)).unwrap();
    drop(begin(&checkpoints, CheckpointId(3), 1).unwrap());
    let job = dir.path().join("base/job");
    std::fs::create_dir(job.join("chk-4")).unwrap();
    let strangers = [
        "notes.txt",
        "chk-5",
        "attempts/notes",
        "shared/file",
        "chk-1/notes",
        "chk-2/0123456789abcdef0123456789abcdef",
        "chk-3/_metadata.txt.tmp",
        "chk-4/0123456789abcdef0123456789abcdef",
    ];
    for name in strangers {
        std::fs::write(job.join(name), name).unwrap();
    }
    checkpoints.discard(&[CheckpointId(1)]).unwrap();
    drop(checkpoints);
    let checkpoints = open(dir.path());
    assert_eq!(ids(&checkpoints), [2]);
    assert_eq!(checkpoints.next_id(), CheckpointId(6));
    for name in strangers {
        assert_eq!(std::fs::read_to_string(job.join(name)).unwrap(), name);
    }
    assert!(!job.join("chk-1/_metadata").exists());
    assert_whole(&checkpoints, CheckpointId(2));
}

#[test]
fn a_name_that_is_taken_is_drawn_again_ten_times() {
    let dir = tempfile::tempdir().unwrap();
    let taken = dir.path().join("taken");
    std::fs::write(&taken, b"").unwrap();
    for (free_at, works) in [(1, true), (10, true), (11, false)] {
        let mut drawn = 0;
        let draw = || {
            drawn += 1;
            let free = dir.path().join(format!("free-{free_at}"));
            (drawn, if drawn < free_at { taken.clone() } else { free })
        };
        let made = Output::create(&RealDisk, 100, draw);
        assert_eq!(made.as_ref().ok().map(|(drawn, _)| *drawn), works.then_some(free_at));
    }
}

#[test]
fn a_data_file_tells_by_its_name_whose_it_is() {
    let (store, id) = (StoreId([3; 16]), CheckpointId(7));
    let name = DataName::draw(store, id);
    assert_eq!(DataName::parse(&name.to_string()), Some(name));
    assert!(name.is_of(store, id));
    assert!(!name.is_of(store, CheckpointId(8)) && !name.is_of(StoreId([4; 16]), id));
    assert_ne!(DataName::draw(store, id), name);
    assert_eq!(DataName::parse(&name.to_string().to_uppercase()), None);
    let paths = JobPaths::new(Path::new("/j"));
    assert_eq!(paths.metadata(id), Path::new("/j/chk-7/_metadata"));
}
