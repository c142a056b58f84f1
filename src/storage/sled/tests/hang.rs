//! A sled that never answers holds nobody up: a pipe without a writer stands in the place of a file
//! that sled reads first.

use std::fs::OpenOptions;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::*;
use crate::error::ErrorKind;
use crate::storage::sled::kv::{SledKv, SledSettings};

/// Makes a pipe; whoever opens it to read waits for a writer.
fn pipe(path: &Path) {
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
}

#[test]
fn an_open_of_sled_that_hangs_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("conf");
    pipe(&conf);
    let settings = SledSettings { patience: Duration::from_millis(100), ..SledSettings::INDEX };
    let (tell, told) = channel();
    let path = dir.path().to_owned();
    std::thread::spawn(move || tell.send(SledKv::open(&path, settings).map(drop)));
    let answer = told.recv_timeout(Duration::from_secs(100)).unwrap();
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Unavailable);
    // The thread that hangs comes to its end.
    drop(OpenOptions::new().write(true).open(conf).unwrap());
}

#[test]
fn a_store_with_an_index_that_hangs_is_opened_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = open(dir.path(), Placement::Split);
    for id in 1..=3 {
        commit_small(&checkpoints, CheckpointId(id)).unwrap();
    }
    checkpoints.discard(&[CheckpointId(2)]).unwrap();
    drop(checkpoints);
    let index = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let mut index = index.filter(|path| path.is_dir() && path.join("conf").exists());
    let conf = index.next().unwrap().join("conf");
    std::fs::remove_file(&conf).unwrap();
    pipe(&conf);
    let (tell, told) = channel();
    let path = dir.path().to_owned();
    std::thread::spawn(move || {
        drop(tell.send(open_on(&path, Placement::Split, Arc::new(RealDisk))));
    });
    let checkpoints = told.recv_timeout(Duration::from_secs(100)).unwrap().unwrap();
    assert_eq!(ids(&checkpoints), [1, 3]);
    for id in checkpoints.ids() {
        assert!(read_small(&checkpoints, id).unwrap());
    }
    commit_small(&checkpoints, CheckpointId(4)).unwrap();
    assert!(read_small(&checkpoints, CheckpointId(4)).unwrap());
}
