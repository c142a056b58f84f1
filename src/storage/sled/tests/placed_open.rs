//! A sled under `Placement::Sled` that hangs, panics, fails or has no space: the store opens without a
//! person, in time, and everything that was completed is read.

use std::sync::mpsc::channel;
use std::time::Duration;

use super::*;
use crate::error::ErrorKind;
use crate::storage::sled::placed::watch_syncs;
use crate::storage::sled::repair::{Broken, repair};
use crate::storage::tests::{FailDisk, Fault};

/// What takes so long hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// A closed store with the checkpoints 1 and 3.
fn store() -> TempDir {
    let dir = quick_dir();
    let checkpoints = open(dir.path(), Placement::Sled);
    for id in 1..=3 {
        commit_small(&checkpoints, CheckpointId(id)).unwrap();
    }
    checkpoints.discard(&[CheckpointId(2)]).unwrap();
    drop(checkpoints);
    dir
}

fn assert_reads(checkpoints: &Checkpoints, expected: &[u64]) {
    assert_eq!(ids(checkpoints), expected);
    for id in checkpoints.ids() {
        assert!(read_small(checkpoints, id).unwrap(), "{id}");
    }
}

/// Opens it in time and uses it.
fn use_in_time(dir: &Path, index: &str) {
    let (tell, told) = channel();
    let path = dir.to_owned();
    std::thread::spawn(move || {
        drop(tell.send(open_on(&path, Placement::Sled, Arc::new(RealDisk))));
    });
    let checkpoints = told.recv_timeout(PATIENCE).unwrap().unwrap();
    assert_reads(&checkpoints, &[1, 3]);
    commit_small(&checkpoints, CheckpointId(4)).unwrap();
    assert!(dir.join(index).exists() && !dir.join("index-1").exists());
    drop(checkpoints);
    assert_reads(&open(dir, Placement::Sled), &[1, 3, 4]);
}

#[cfg(unix)]
#[test]
fn a_sled_that_hangs_while_it_opens_is_made_anew() {
    let dir = store();
    let conf = dir.path().join("index-1/conf");
    std::fs::remove_file(&conf).unwrap();
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
    rustix::fs::mknodat(rustix::fs::CWD, &conf, kind, mode, 0).unwrap();
    use_in_time(dir.path(), "index-2");
}

#[test]
fn a_sled_that_hangs_once_it_is_open_is_made_anew() {
    let dir = store();
    let (tell, told) = channel::<()>();
    let told = std::sync::Mutex::new(told);
    let watch = watch_syncs(&dir.path().join("index-1"), move || {
        let _never = told.lock().unwrap().recv();
    });
    use_in_time(dir.path(), "index-2");
    drop((tell, watch));
}

/// sled asserts that no two segments have one position.
#[test]
fn a_sled_that_panics_while_it_opens_is_made_anew() {
    const SEGMENT: usize = 16 << 20;
    let dir = store();
    let db = dir.path().join("index-1/db");
    let mut bytes = std::fs::read(&db).unwrap();
    bytes.resize(SEGMENT, 0);
    bytes.extend_from_within(..);
    std::fs::write(&db, bytes).unwrap();
    // A snapshot would hide it.
    for entry in std::fs::read_dir(dir.path().join("index-1")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("snap.")) {
            std::fs::remove_file(path).unwrap();
        }
    }
    use_in_time(dir.path(), "index-2");
}

#[test]
fn what_was_completed_is_read_when_sled_has_failed_and_by_the_next_open_in_the_process() {
    let dir = store();
    let checkpoints = open(dir.path(), Placement::Sled);
    commit_small(&checkpoints, CheckpointId(4)).unwrap();
    let watch = watch_syncs(&dir.path().join("index-1"), || panic!("a change fails"));
    commit_small(&checkpoints, CheckpointId(5)).unwrap_err();
    drop(watch);
    for id in [1, 3, 4] {
        assert!(read_small(&checkpoints, CheckpointId(id)).unwrap(), "{id}");
    }
    commit_small(&checkpoints, CheckpointId(6)).unwrap_err();
    drop(checkpoints);
    // What is left of the failed one holds sled's file until the process ends.
    let checkpoints = open(dir.path(), Placement::Sled);
    let found: Vec<u64> = ids(&checkpoints).into_iter().filter(|id| *id != 5).collect();
    assert_eq!(found, [1, 3, 4]);
    for id in checkpoints.ids() {
        assert!(read_small(&checkpoints, id).unwrap(), "{id}");
    }
    let next = checkpoints.next_id();
    commit_small(&checkpoints, next).unwrap();
    drop(checkpoints);
    assert!(read_small(&open(dir.path(), Placement::Sled), next).unwrap());
}

#[test]
fn a_store_that_is_opened_on_a_full_disk_reads_and_goes_on_when_there_is_space() {
    for is_closed in [true, false] {
        let (dir, work) = (quick_dir(), store());
        let running = (!is_closed).then(|| open(work.path(), Placement::Sled));
        image(work.path(), dir.path());
        drop(running);
        let disk = FailDisk::new(Fault::Full, 0, true);
        disk.fill();
        let on_full = || open_on(dir.path(), Placement::Sled, Arc::new(disk.clone())).unwrap();
        drop(on_full());
        let checkpoints = on_full();
        assert_reads(&checkpoints, &[1, 3]);
        let next = checkpoints.next_id();
        let error = commit_small(&checkpoints, next).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full, "{error:?}");
        assert_reads(&checkpoints, &[1, 3]);
        disk.mend();
        commit_small(&checkpoints, next).unwrap();
        checkpoints.discard(&[CheckpointId(1)]).unwrap();
        assert_reads(&checkpoints, &[3, next.0]);
        drop(checkpoints);
        assert_reads(&open(dir.path(), Placement::Sled), &[3, next.0]);
    }
}

#[test]
fn a_repair_makes_format_of_what_stands_in_the_file_of_sled() {
    for is_missing in [true, false] {
        let dir = store();
        let format = dir.path().join("FORMAT");
        let whole = std::fs::read(&format).unwrap();
        if is_missing {
            std::fs::remove_file(&format).unwrap();
        } else {
            std::fs::write(&format, "torn").unwrap();
        }
        let error = open_on(dir.path(), Placement::Sled, Arc::new(RealDisk)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
        let report = repair(dir.path(), Broken::Keep, &mut |_, _| ()).unwrap();
        assert!(report.format_rewritten, "{report:?}");
        assert_eq!(report.moved.len(), usize::from(!is_missing), "{report:?}");
        assert_eq!(report.recovered["job"], [CheckpointId(1), CheckpointId(3)]);
        assert_eq!(std::fs::read(&format).unwrap(), whole);
        let again = repair(dir.path(), Broken::Keep, &mut |_, _| ()).unwrap();
        assert!(!again.format_rewritten && again.moved.is_empty(), "{again:?}");
        assert_reads(&open(dir.path(), Placement::Sled), &[1, 3]);
    }
}
