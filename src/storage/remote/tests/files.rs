//! Files of every length around a part, and what goes wrong with them.

use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use crate::catalog::Checkpoints;
use crate::ids::{CheckpointId, JobId};
use crate::storage::CheckpointStorage;
use crate::storage::disk::{Disk, DiskFile};
use crate::storage::remote::tests::store::{Bucket, Fate, Op};
use crate::storage::tests::{assert_whole, commit};
use crate::sync::{AtomicU64, Ordering};

fn path(bucket: &Bucket, name: &str) -> PathBuf {
    Path::new(&bucket.location()).join(name)
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

fn write(file: &dyn DiskFile, bytes: &[u8], step: usize) {
    let mut at = 0;
    for part in bytes.chunks(step) {
        file.write_all_at(part, at).unwrap();
        at += part.len() as u64;
    }
}

#[test]
fn a_file_of_any_length_reads_back_and_is_there_once_it_is_finished() {
    for has_parts in [true, false] {
        let bucket = Bucket::with_parts(has_parts);
        let disk = bucket.disk(10);
        for len in [0, 1, 9, 10, 11, 19, 20, 21, 55, 100] {
            for step in [1, 7, 10, 200] {
                let path = path(&bucket, &format!("{len}-{step}"));
                let file = disk.create(&path).unwrap();
                write(&*file, &bytes(len), step);
                file.sync_data().unwrap();
                assert!(disk.open(&path).is_err(), "{len} by {step} before its end");
                file.finish().unwrap();
                let found = disk.open(&path).unwrap();
                assert_eq!(found.len().unwrap(), len as u64);
                let mut read = vec![0; len + 5];
                assert_eq!(found.read_up_to_at(&mut read, 0).unwrap(), len);
                assert_eq!(read[..len], bytes(len));
                let mut end = [0; 3];
                let expected = len.saturating_sub(8).min(3);
                assert_eq!(found.read_up_to_at(&mut end, 8).unwrap(), expected);
            }
        }
    }
}

#[test]
fn the_start_of_a_file_may_be_replaced_until_it_is_finished() {
    let bucket = Bucket::new();
    let disk = bucket.disk(10);
    for len in [5, 10, 35] {
        let path = path(&bucket, &len.to_string());
        let file = disk.create(&path).unwrap();
        write(&*file, &bytes(len), 4);
        file.write_all_at(b"head", 0).unwrap();
        file.finish().unwrap();
        let mut read = vec![0; len];
        disk.open(&path).unwrap().read_up_to_at(&mut read, 0).unwrap();
        assert_eq!(read[..4], *b"head");
        assert_eq!(read[4..], bytes(len)[4..]);
    }
    // Where parts go up in order the first is gone.
    let bucket = Bucket::with_parts(false);
    let disk = bucket.disk(10);
    let file = disk.create(&path(&bucket, "long")).unwrap();
    write(&*file, &bytes(35), 4);
    let refused = file.write_all_at(b"head", 0).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::Unsupported);
    assert!(file.finish().is_err(), "it stays broken");
}

#[test]
fn an_upload_that_is_dropped_is_taken_back() {
    let bucket = Bucket::new();
    let disk = bucket.disk(10);
    let (sender, receiver) = channel();
    let sender = Mutex::new(sender);
    bucket.store.judge(move |_, op, _| {
        if op == Op::Delete {
            sender.lock().unwrap().send(()).unwrap();
        }
        Fate::Done
    });
    let file = disk.create(&path(&bucket, "file")).unwrap();
    write(&*file, &bytes(55), 7);
    drop(file);
    receiver.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
    assert_eq!(bucket.objects().len(), 0);
}

#[test]
fn a_part_that_fails_fails_the_file() {
    for has_parts in [true, false] {
        let bucket = Bucket::with_parts(has_parts);
        let disk = bucket.disk(10);
        bucket.store.judge(|_, op, _| match op {
            Op::Part | Op::Put => Fate::Lost,
            _ => Fate::Done,
        });
        let file = disk.create(&path(&bucket, "file")).unwrap();
        let written = file.write_all_at(&bytes(100), 0).and_then(|()| file.finish());
        assert!(written.is_err());
        assert!(file.finish().is_err());
        drop(file);
        assert_eq!(bucket.objects().len(), 0);
    }
}

#[test]
fn the_lost_answer_of_a_completion_costs_no_file() {
    for (fate, is_there) in [(Fate::Unanswered, true), (Fate::Lost, false)] {
        let bucket = Bucket::new();
        let disk = bucket.disk(10);
        bucket.store.judge(move |_, op, _| if op == Op::Complete { fate } else { Fate::Done });
        let path = path(&bucket, "file");
        let file = disk.create(&path).unwrap();
        write(&*file, &bytes(55), 7);
        assert_eq!(file.finish().is_ok(), is_there);
        assert_eq!(disk.open(&path).is_ok_and(|found| found.len().unwrap() == 55), is_there);
    }
}

/// How far apart the bytes written and the bytes that the store has may be.
#[test]
fn an_upload_of_any_length_has_few_parts_in_memory() {
    const PART: usize = 64 * 1024;
    let bucket = Bucket::new();
    let disk = bucket.disk(PART);
    let written = Arc::new(AtomicU64::new(0));
    let (seen, most) = (Arc::clone(&written), Arc::new(AtomicU64::new(0)));
    let highest = Arc::clone(&most);
    let arrived = AtomicU64::new(0);
    bucket.store.judge(move |_, op, _| {
        if op == Op::Part {
            // The upload is begun by the first of these, and each later one has a part.
            let arrived = arrived.fetch_add(1, Ordering::SeqCst).saturating_sub(1) * PART as u64;
            highest
                .fetch_max(seen.load(Ordering::SeqCst).saturating_sub(arrived), Ordering::SeqCst);
        }
        Fate::Done
    });
    let file = disk.create(&path(&bucket, "long")).unwrap();
    let chunk = bytes(8 * 1024);
    for at in 0..4096_u64 {
        file.write_all_at(&chunk, at * chunk.len() as u64).unwrap();
        written.fetch_add(chunk.len() as u64, Ordering::SeqCst);
    }
    file.finish().unwrap();
    let most = most.load(Ordering::SeqCst);
    assert!(most <= 4 * PART as u64, "{most} bytes were in memory");
}

#[test]
fn a_store_can_be_called_from_within_any_runtime() {
    let current = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let several = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    for runtime in [&current, &several] {
        let bucket = Bucket::new();
        let storage = bucket.storage();
        runtime.block_on(async {
            let open = || storage.open(&JobId::new("job").unwrap()).unwrap();
            let checkpoints = Checkpoints::new(open());
            commit(&checkpoints, CheckpointId(1)).unwrap();
            drop(checkpoints);
            let checkpoints = Checkpoints::new(open());
            tokio::spawn(async move { assert_whole(&checkpoints, CheckpointId(1)) }).await.unwrap();
        });
    }
}
