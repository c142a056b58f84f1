//! The life of a store in its directory; what every storage promises is in `src/storage/tests`.

use super::*;
use crate::error::ErrorKind;
use crate::ids::StoreId;
use crate::record::{FrameHeader, FrameKind, Origin, Payload};
use crate::state::SnapshotSink;
use crate::storage::sled::owner::open_job;

#[test]
fn a_clean_close_leaves_nothing_to_do_and_an_open_image_is_rolled_forward() {
    let dir = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let reported = |dir: &Path| {
        let store = OpenStore::open(dir, None, Arc::new(RealDisk)).unwrap();
        let report = store.backend().report().clone();
        drop(store);
        (report.rebuilt, report.steps.len())
    };
    let checkpoints = open(dir.path(), Placement::Split);
    commit(&checkpoints, CheckpointId(1)).unwrap();
    // The index has written what it knows when it answers again.
    assert_whole(&checkpoints, CheckpointId(1));
    image(dir.path(), copy.path());
    drop(checkpoints);
    assert_eq!(reported(dir.path()), (false, 0));
    assert_eq!(reported(copy.path()), (false, 1));
    assert_eq!(reported(copy.path()), (false, 0), "it was closed in order");
    std::fs::remove_dir_all(copy.path().join("index-1")).unwrap();
    assert_eq!(reported(copy.path()), (true, 1));
    assert_eq!(reported(copy.path()), (false, 0), "it was closed in order");
}

#[test]
fn what_is_committed_is_in_an_image_of_the_open_store() {
    for placement in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let copy = tempfile::tempdir().unwrap();
        let checkpoints = open(dir.path(), placement);
        for id in 1..=3 {
            commit(&checkpoints, CheckpointId(id)).unwrap();
        }
        checkpoints.discard(&[CheckpointId(2)]).unwrap();
        image(dir.path(), copy.path());
        let reopened = open(copy.path(), placement);
        assert_eq!(ids(&reopened), [1, 3], "{placement}");
        assert_whole(&reopened, CheckpointId(1));
        assert_whole(&reopened, CheckpointId(3));
        assert_eq!(reopened.attempt().0, 2, "{placement}");
    }
}

#[test]
fn a_checkpoint_that_was_not_committed_does_not_count_but_its_id_does() {
    for placement in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let copy = tempfile::tempdir().unwrap();
        let checkpoints = open(dir.path(), placement);
        commit(&checkpoints, CheckpointId(1)).unwrap();
        let pending = begin(&checkpoints, CheckpointId(9), 2).unwrap();
        let mut writer = pending.writer(&task(0)).unwrap();
        let bytes = body(CheckpointId(9), 0, 300_000);
        writer.section(&key(0), &mut |out| Ok(out.write_all(&bytes)?)).unwrap();
        let _snapshot = writer.finish().unwrap();
        image(dir.path(), copy.path());
        drop(pending);
        assert_eq!(ids(&checkpoints), [1], "{placement}");
        let reopened = open(copy.path(), placement);
        assert_eq!(ids(&reopened), [1], "{placement}");
        if placement == Placement::Split {
            assert_eq!(reopened.next_id(), CheckpointId(10));
        }
    }
}

#[test]
fn space_comes_back_when_checkpoints_are_subsumed() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = open(dir.path(), Placement::Split);
    let bytes = vec![7; 30 << 20];
    let mut used = Vec::new();
    for id in 1..=12 {
        let pending = begin(&checkpoints, CheckpointId(id), 1).unwrap();
        let mut writer = pending.writer(&task(0)).unwrap();
        writer.section(&key(0), &mut |out| Ok(out.write_all(&bytes)?)).unwrap();
        pending.commit(&[(task(0), writer.finish().unwrap())]).unwrap();
        drop(pending);
        checkpoints.subsume(1).unwrap();
        let log = std::fs::read_dir(dir.path().join("log")).unwrap();
        used.push(log.map(|entry| entry.unwrap().metadata().unwrap().len()).sum::<u64>());
    }
    assert_eq!(ids(&checkpoints), [12]);
    let most = used.iter().max().unwrap();
    assert!(*most < 4 * (64 << 20), "{used:?}");
}

/// The process that had it died before anything that counts came behind it in the log.
#[test]
fn the_number_of_a_spare_is_not_given_out_again() {
    let dir = quick_dir();
    let killed = quick_dir();
    {
        let checkpoints = open(dir.path(), Placement::Split);
        commit_small(&checkpoints, CheckpointId(1)).unwrap();
        image(dir.path(), killed.path());
    }
    let spare = killed.path().join("log/0000000000000fff.spare");
    let (place, payload) = ((StoreId([7; 16]), 0xfff), Payload::of(&[]));
    let kind = FrameKind::Segment;
    let header = FrameHeader::first(kind, place, 0xfff, Origin::default(), payload).unwrap();
    std::fs::write(spare, [header.frame(&[]), vec![7; 100_000]].concat()).unwrap();
    let before = segments(killed.path());
    let checkpoints = open(killed.path(), Placement::Split);
    commit_small(&checkpoints, CheckpointId(2)).unwrap();
    let names = segments(killed.path()).into_iter().filter(|path| !before.contains(path));
    let names: Vec<_> = names.map(|path| path.file_name().unwrap().to_owned()).collect();
    let is_above = |name: &std::ffi::OsString| name.to_str().unwrap() > "0000000000000fff.seg";
    assert!(!names.is_empty() && names.iter().all(is_above), "{names:?}");
}

#[test]
fn a_segment_that_is_freed_is_written_again() {
    let dir = quick_dir();
    let disk = Arc::new(RealDisk);
    let store = OpenStore::open_with(dir.path(), Some(Placement::Split), disk, SETTINGS).unwrap();
    let name = JobId::new("job").unwrap();
    let job = SledJob::claim(Arc::new(store), &name).unwrap();
    let checkpoints = Checkpoints::new(JobStorage::new(job, Savepoints::within(&name)));
    let inode = |path: PathBuf| std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap());
    let spares = || {
        let paths = std::fs::read_dir(dir.path().join("log")).unwrap();
        let paths = paths.map(|entry| entry.unwrap().path());
        let spare = |path: &PathBuf| path.extension().is_some_and(|end| end == "spare");
        paths.filter(spare).map(inode).collect::<Vec<_>>()
    };
    let mut again = 0;
    for id in 1..=12 {
        let before = spares();
        assert!(before.len() <= 2, "{before:?}");
        commit_small(&checkpoints, CheckpointId(id)).unwrap();
        again += segments(dir.path())
            .into_iter()
            .filter(|path| before.contains(&inode(path.clone())))
            .count();
        checkpoints.subsume(1).unwrap();
        assert!(read_small(&checkpoints, CheckpointId(id)).unwrap());
    }
    assert!(again > 3, "{again}");
    drop(checkpoints);
    let checkpoints = open(dir.path(), Placement::Split);
    assert!(read_small(&checkpoints, CheckpointId(12)).unwrap());
}

#[test]
fn a_store_keeps_its_placement() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), Placement::Split));
    let wrong = open_on(dir.path(), Placement::Sled, Arc::new(RealDisk)).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Incompatible);
}

#[test]
fn a_store_that_is_open_elsewhere_is_a_conflict() {
    let dir = tempfile::tempdir().unwrap();
    let _open = open(dir.path(), Placement::Split);
    let second = open_on(dir.path(), Placement::Split, Arc::new(RealDisk)).unwrap_err();
    assert_eq!(second.kind(), ErrorKind::Conflict);
}

#[test]
fn the_space_that_a_killed_process_reserved_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let checkpoints = open(dir.path(), Placement::Split);
    commit_small(&checkpoints, CheckpointId(1)).unwrap();
    image(dir.path(), copy.path());
    let longest = |dir: &Path| {
        let log = std::fs::read_dir(dir.join("log")).unwrap();
        log.map(|entry| entry.unwrap().metadata().unwrap().len()).max().unwrap()
    };
    assert!(longest(copy.path()) >= 1 << 20, "nothing was reserved");
    let store = OpenStore::open(copy.path(), None, Arc::new(RealDisk)).unwrap();
    assert!(longest(copy.path()) < 1 << 16);
    drop(store);
    assert!(read_small(&open(copy.path(), Placement::Split), CheckpointId(1)).unwrap());
}

#[test]
fn a_store_is_open_as_long_as_a_checkpoint_is_in_progress() {
    for placement in BOTH {
        let dir = quick_dir();
        let name = JobId::new("job").unwrap();
        let open = || Checkpoints::new(open_job(dir.path(), Some(placement), &name).unwrap());
        let checkpoints = open();
        commit_small(&checkpoints, CheckpointId(1)).unwrap();
        let pending = begin(&checkpoints, CheckpointId(2), 1).unwrap();
        let mut writer = pending.writer(&task(0)).unwrap();
        drop(checkpoints);
        let write = &mut |out: &mut dyn std::io::Write| Ok(out.write_all(&vec![5; 100_000])?);
        writer.section(&key(0), write).unwrap();
        let snapshot = writer.finish().unwrap();
        pending.commit(&[(task(0), snapshot)]).unwrap();
        drop(pending);
        let checkpoints = open();
        assert_eq!(ids(&checkpoints), [1, 2], "{placement}");
        checkpoints.verify(CheckpointId(2), &mut |_| ()).unwrap();
    }
}

#[test]
fn whoever_opens_a_store_waits_for_the_one_who_closes_it() {
    let dir = quick_dir();
    let name = JobId::new("job").unwrap();
    for _ in 0..50 {
        let first = open_job(dir.path(), None, &name).unwrap();
        let closing = std::thread::spawn(move || drop(first));
        let other = JobId::new("other").unwrap();
        drop(open_job(dir.path(), None, &other).unwrap());
        closing.join().unwrap();
    }
}

#[test]
fn a_word_that_is_too_long_is_refused_and_nothing_is_lost() {
    for placement in BOTH {
        let dir = quick_dir();
        let checkpoints = open(dir.path(), placement);
        commit_small(&checkpoints, CheckpointId(1)).unwrap();
        let refused = checkpoints.record_finish(&"x".repeat(17 << 20)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid);
        let word = "x".repeat(256 << 10);
        checkpoints.record_finish(&word).unwrap();
        commit_small(&checkpoints, CheckpointId(2)).unwrap();
        drop(checkpoints);
        let checkpoints = open(dir.path(), placement);
        assert_eq!(ids(&checkpoints), [1, 2], "{placement}");
        assert!(checkpoints.finish() == Some(word), "{placement}");
    }
}
