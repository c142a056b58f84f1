//! `storage_write` and `storage_read`: each kind of storage with its defaults.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use tidegate::JobId;
use tidegate::catalog::Checkpoints;
use tidegate::message::CheckpointType;
use tidegate::storage::{
    CheckpointStorage, FileSystemCheckpointStorage, JobManagerCheckpointStorage, Placement,
};

use crate::checkpoint;
use crate::common::{
    Fresh, MIB, Scratch, drain, noise, paired, raw_log, time_raw_log, timed, written_bytes,
};

const TOTAL: usize = 64 * MIB;
const SIZE: &str = "64MiB";

/// Each kind of storage by its name, and whether it writes to the disk.
fn storages(dir: &Path) -> [(&'static str, Checkpoints, bool); 3] {
    let memory = JobManagerCheckpointStorage::new().with_max_state_size(1 << 30).unwrap();
    let file = format!("file://{}", dir.join("file").display());
    let file = FileSystemCheckpointStorage::new(file).unwrap();
    let job = JobId::new("bench").unwrap();
    [
        ("memory", Checkpoints::new(memory.open(&job).unwrap()), false),
        ("sled", checkpoint::open(&dir.join("sled"), Placement::Split), true),
        ("file", Checkpoints::new(file.open(&job).unwrap()), true),
    ]
}

pub(crate) fn write(c: &mut Criterion) {
    let mut group = c.benchmark_group("storage_write");
    group.throughput(Throughput::Bytes(TOTAL as u64)).sample_size(10);
    let mut state = Fresh::new(TOTAL);
    let scratch = Scratch::new("storage-write");
    group.bench_function(BenchmarkId::new("raw_log", SIZE), |b| {
        b.iter_custom(|rounds| {
            let raw_log = |_| {
                state.stamp();
                time_raw_log(&scratch.0, &state.bytes)
            };
            (0..rounds).map(raw_log).sum()
        });
    });
    for (name, store, is_on_disk) in storages(&scratch.0) {
        paired(&mut group, (name, SIZE), ("storage_write/raw_log", TOTAL), |pairs| {
            state.stamp();
            let subject = || {
                let before = written_bytes();
                let time = timed(|| {
                    checkpoint::write(&store, &state.bytes, CheckpointType::Checkpoint);
                });
                let written = written_bytes() - before;
                assert!(!is_on_disk || written >= TOTAL as u64, "bytes were saved");
                time
            };
            let time = pairs.measure(|| time_raw_log(&scratch.0, &state.bytes), subject);
            store.subsume(1).unwrap();
            time
        });
    }
    group.finish();
}

pub(crate) fn read(c: &mut Criterion) {
    let mut group = c.benchmark_group("storage_read");
    group.throughput(Throughput::Bytes(TOTAL as u64)).sample_size(10);
    let bytes = noise(TOTAL);
    let scratch = Scratch::new("storage-read");
    let raw = scratch.0.join("raw.log");
    raw_log(&raw, &bytes);
    let mut buffer = vec![0; MIB];
    let mut raw_read = || -> Duration {
        timed(|| {
            let mut file = File::open(&raw).unwrap();
            assert!(drain(&mut buffer, |buffer| file.read(buffer).unwrap()) >= TOTAL);
        })
    };
    group.bench_function(BenchmarkId::new("raw_read", SIZE), |b| {
        b.iter_custom(|rounds| (0..rounds).map(|_| raw_read()).sum());
    });
    for (name, store, _) in storages(&scratch.0) {
        let id = checkpoint::write(&store, &bytes, CheckpointType::Checkpoint);
        paired(&mut group, (name, SIZE), ("storage_read/raw_read", TOTAL), |pairs| {
            let read = || timed(|| assert_eq!(checkpoint::read(&store, id), TOTAL));
            pairs.measure(&mut raw_read, read)
        });
    }
    group.finish();
}
