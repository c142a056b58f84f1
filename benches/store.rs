//! The store against a bare file, in one run: ratios are what counts, the machine is shared.
//!
//! `store_write/raw_log` is a new file per iteration: one thread, 256 KiB chunks each with a crc32,
//! 1 MiB writes, no preallocation, one `sync_data` at the end. `store_write/tidegate` is a checkpoint
//! of 4 subtasks through the public API until its commit returned, every iteration with bytes that the
//! store never saw. `store_restore` reads warm. `storage_write` and `storage_read` do the same with
//! 64 MiB for each kind of storage. Files lie under the target directory, on a real disk.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench may panic"
)]

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidegate::catalog::{CheckpointPlan, Checkpoints, OperatorSpec};
use tidegate::clock::{Clock, SystemClock};
use tidegate::state::{SectionKey, SectionKind, SnapshotSink, SnapshotSource};
use tidegate::storage::{
    CheckpointStorage, FileSystemCheckpointStorage, JobManagerCheckpointStorage, Placement,
    SledCheckpointStorage,
};
use tidegate::{CheckpointId, JobId, OperatorUid, TaskId};

const MIB: usize = 1 << 20;
const TOTAL: usize = 256 * MIB;
/// What each kind of storage writes and reads.
const STORAGE_TOTAL: usize = 64 * MIB;
const SUBTASKS: u32 = 4;
const CHUNK: usize = 256 * 1024;
const PAGE: usize = 4096;

/// A directory of this bench alone, on the disk that holds the build.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-store-{name}"));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Incompressible bytes.
fn noise(len: usize) -> Vec<u8> {
    let mut word = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// Makes every page of `bytes` one that was never seen.
fn stamp(bytes: &mut [u8], round: u64) {
    for (page, at) in (0_u64..).zip((0..bytes.len()).step_by(PAGE)) {
        bytes[at..at + 8].copy_from_slice(&(round << 32 | page).to_le_bytes());
    }
}

fn raw_log(path: &Path, bytes: &[u8]) {
    let mut file = File::create(path).unwrap();
    let mut buffer = Vec::with_capacity(MIB + 4096);
    for chunk in bytes.chunks(CHUNK) {
        buffer.extend_from_slice(&crc32fast::hash(chunk).to_le_bytes());
        buffer.extend_from_slice(chunk);
        if buffer.len() >= MIB {
            file.write_all(&buffer).unwrap();
            buffer.clear();
        }
    }
    file.write_all(&buffer).unwrap();
    file.sync_data().unwrap();
}

fn checkpoints(dir: &Path, placement: Placement) -> Checkpoints {
    let storage = SledCheckpointStorage::new(dir).with_placement(placement);
    Checkpoints::new(storage.open(&JobId::new("bench").unwrap()).unwrap())
}

fn task(subtask: u32) -> TaskId {
    TaskId { operator: OperatorUid::new("op").unwrap(), subtask }
}

fn write_checkpoint(checkpoints: &Checkpoints, parts: &[&[u8]]) -> CheckpointId {
    let operator = OperatorSpec::new(OperatorUid::new("op").unwrap(), SUBTASKS);
    let id = checkpoints.next_id();
    let pending = checkpoints.begin(id, CheckpointPlan::new(vec![operator])).unwrap();
    let write = |subtask: u32, part: &[u8]| {
        let mut writer = pending.writer(&task(subtask)).unwrap();
        let key = SectionKey::new(SectionKind::Raw, "state");
        writer.section(&key, &mut |out| Ok(out.write_all(part)?)).unwrap();
        (task(subtask), writer.finish().unwrap())
    };
    let snapshots: Vec<_> = std::thread::scope(|scope| {
        let write = &write;
        let threads: Vec<_> =
            (0..).zip(parts).map(|(n, part)| scope.spawn(move || write(n, part))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    pending.commit(&snapshots).unwrap();
    id
}

/// Two threads stream every section back and give every byte to a sink.
fn read_checkpoint(checkpoints: &Checkpoints, id: CheckpointId) -> usize {
    let read_half = |half: u32| {
        let mut buffer = vec![0; MIB];
        let mut read = 0;
        for subtask in (half..SUBTASKS).step_by(2) {
            let mut reader = checkpoints.read_task(id, &task(subtask)).unwrap();
            while reader.next_section().unwrap().is_some() {
                read += drain(&mut buffer, |buffer| reader.body().read(buffer).unwrap());
            }
        }
        read
    };
    std::thread::scope(|scope| {
        let threads = [0, 1].map(|half| scope.spawn(move || read_half(half)));
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

/// Reads to the end; the sink takes every byte and keeps none.
fn drain(buffer: &mut [u8], mut read: impl FnMut(&mut [u8]) -> usize) -> usize {
    let mut total = 0;
    loop {
        let len = read(buffer);
        if len == 0 {
            return total;
        }
        std::io::sink().write_all(black_box(&buffer[..len])).unwrap();
        total += len;
    }
}

/// Bytes that this process handed to the system so far, as Linux counts them. The log's length
/// would not do: it has space reserved ahead, and freed segments leave it.
fn written_bytes() -> u64 {
    let counts = fs::read_to_string("/proc/self/io").unwrap();
    let count = counts.lines().find_map(|line| line.strip_prefix("wchar: "));
    count.unwrap().parse().unwrap()
}

fn write(c: &mut Criterion) {
    let clock = SystemClock::new();
    let timed = |act: &mut dyn FnMut()| {
        let start = clock.now();
        act();
        clock.now().saturating_sub(start)
    };
    let mut group = c.benchmark_group("store_write");
    group.throughput(Throughput::Bytes(TOTAL as u64)).sample_size(10);
    group.measurement_time(Duration::from_secs(10));
    let mut bytes = noise(TOTAL);
    let mut round = 0;

    let scratch = Scratch::new("raw");
    group.bench_function(BenchmarkId::new("raw_log", "256MiB"), |b| {
        b.iter_custom(|rounds| {
            let mut total = Duration::ZERO;
            for _ in 0..rounds {
                round += 1;
                stamp(&mut bytes, round);
                let path = scratch.0.join(format!("{round}.log"));
                total += timed(&mut || raw_log(&path, &bytes));
                fs::remove_file(&path).unwrap();
            }
            total
        });
    });

    let scratch = Scratch::new("tidegate");
    let store = checkpoints(&scratch.0, Placement::Split);
    group.bench_function(BenchmarkId::new("tidegate", "256MiB"), |b| {
        b.iter_custom(|rounds| {
            let mut total = Duration::ZERO;
            for _ in 0..rounds {
                round += 1;
                stamp(&mut bytes, round);
                let parts: Vec<&[u8]> = bytes.chunks(TOTAL / SUBTASKS as usize).collect();
                let before = written_bytes();
                total += timed(&mut || {
                    write_checkpoint(&store, &parts);
                });
                assert!(written_bytes() - before >= TOTAL as u64, "bytes were saved");
                store.subsume(1).unwrap();
            }
            total
        });
    });
    group.finish();
}

fn restore(c: &mut Criterion) {
    let bytes = noise(TOTAL);
    let scratch = Scratch::new("restore");
    let raw = scratch.0.join("raw.log");
    raw_log(&raw, &bytes);
    let store = checkpoints(&scratch.0.join("store"), Placement::Split);
    let parts: Vec<&[u8]> = bytes.chunks(TOTAL / SUBTASKS as usize).collect();
    let id = write_checkpoint(&store, &parts);

    let mut group = c.benchmark_group("store_restore");
    group.throughput(Throughput::Bytes(TOTAL as u64)).sample_size(10);
    group.bench_function(BenchmarkId::new("raw_read", "256MiB"), |b| {
        let mut buffer = vec![0; MIB];
        b.iter(|| {
            let mut file = File::open(&raw).unwrap();
            while file.read(&mut buffer).unwrap() > 0 {}
        });
    });
    group.bench_function(BenchmarkId::new("tidegate", "256MiB"), |b| {
        b.iter(|| assert_eq!(read_checkpoint(&store, id), TOTAL));
    });
    group.finish();
}

/// Each kind of storage by its name, and whether it writes to the disk.
fn storages(dir: &Path) -> [(&'static str, Checkpoints, bool); 3] {
    let memory = JobManagerCheckpointStorage::new().with_max_state_size(1 << 30).unwrap();
    let file = format!("file://{}", dir.join("file").display());
    let file = FileSystemCheckpointStorage::new(file).unwrap();
    let job = JobId::new("bench").unwrap();
    [
        ("memory", Checkpoints::new(memory.open(&job).unwrap()), false),
        ("sled", checkpoints(&dir.join("sled"), Placement::Split), true),
        ("file", Checkpoints::new(file.open(&job).unwrap()), true),
    ]
}

fn storage_write(c: &mut Criterion) {
    let clock = SystemClock::new();
    let mut group = c.benchmark_group("storage_write");
    group.throughput(Throughput::Bytes(STORAGE_TOTAL as u64)).sample_size(10);
    let mut bytes = noise(STORAGE_TOTAL);
    let mut round = 0;
    let scratch = Scratch::new("storage-write");
    group.bench_function(BenchmarkId::new("raw_log", "64MiB"), |b| {
        b.iter_custom(|rounds| {
            let mut total = Duration::ZERO;
            for _ in 0..rounds {
                round += 1;
                stamp(&mut bytes, round);
                let path = scratch.0.join(format!("{round}.log"));
                let start = clock.now();
                raw_log(&path, &bytes);
                total += clock.now().saturating_sub(start);
                fs::remove_file(&path).unwrap();
            }
            total
        });
    });
    for (name, store, is_on_disk) in storages(&scratch.0) {
        group.bench_function(BenchmarkId::new(name, "64MiB"), |b| {
            b.iter_custom(|rounds| {
                let mut total = Duration::ZERO;
                for _ in 0..rounds {
                    round += 1;
                    stamp(&mut bytes, round);
                    let parts: Vec<_> = bytes.chunks(STORAGE_TOTAL / SUBTASKS as usize).collect();
                    let (before, start) = (written_bytes(), clock.now());
                    write_checkpoint(&store, &parts);
                    total += clock.now().saturating_sub(start);
                    let written = written_bytes() - before;
                    assert!(!is_on_disk || written >= STORAGE_TOTAL as u64, "bytes were saved");
                    store.subsume(1).unwrap();
                }
                total
            });
        });
    }
    group.finish();
}

fn storage_read(c: &mut Criterion) {
    let mut group = c.benchmark_group("storage_read");
    group.throughput(Throughput::Bytes(STORAGE_TOTAL as u64)).sample_size(10);
    let bytes = noise(STORAGE_TOTAL);
    let scratch = Scratch::new("storage-read");
    let raw = scratch.0.join("raw.log");
    raw_log(&raw, &bytes);
    group.bench_function(BenchmarkId::new("raw_read", "64MiB"), |b| {
        let mut buffer = vec![0; MIB];
        b.iter(|| {
            let mut file = File::open(&raw).unwrap();
            assert!(drain(&mut buffer, |buffer| file.read(buffer).unwrap()) >= STORAGE_TOTAL);
        });
    });
    let parts: Vec<_> = bytes.chunks(STORAGE_TOTAL / SUBTASKS as usize).collect();
    for (name, store, _) in storages(&scratch.0) {
        let id = write_checkpoint(&store, &parts);
        group.bench_function(BenchmarkId::new(name, "64MiB"), |b| {
            b.iter(|| assert_eq!(read_checkpoint(&store, id), STORAGE_TOTAL));
        });
    }
    group.finish();
}

criterion_group!(benches, write, restore, storage_write, storage_read);
criterion_main!(benches);
