//! `store_commit`: small checkpoints, each durable before the next begins.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use tidegate::catalog::Checkpoints;
use tidegate::storage::Placement;

use crate::checkpoint;
use crate::common::{Fresh, Scratch, paired, timed};

const KIB: usize = 1024;
/// Commits of one job.
const COMMITS: usize = 64;
const JOBS: usize = 4;

pub(crate) fn benches(c: &mut Criterion) {
    one_job(c);
    four_jobs(c);
}

/// Appends `count` times, and syncs after each part of a commit.
fn raw(dir: &Path, count: usize, parts: &[&[u8]]) -> Duration {
    let path = dir.join("raw.log");
    let mut file = File::create(&path).unwrap();
    let time = timed(|| {
        for _ in 0..count {
            for part in parts {
                file.write_all(part).unwrap();
                file.sync_data().unwrap();
            }
        }
    });
    std::fs::remove_file(&path).unwrap();
    time
}

fn commit_all(store: &Checkpoints, state: &[u8]) {
    for state in state.chunks(KIB) {
        checkpoint::write_small(store, state);
    }
}

/// State, then the commit: what a store without any cleverness syncs.
fn one_job(c: &mut Criterion) {
    let mut group = c.benchmark_group("store_commit");
    group.throughput(Throughput::Elements(COMMITS as u64)).sample_size(20);
    let scratch = Scratch::new("commit");
    let two_fsyncs = || raw(&scratch.0, COMMITS, &[&[1; KIB], &[2; 64]]);
    group.bench_function(BenchmarkId::new("raw_two_fsyncs", "64x1KiB"), |b| {
        b.iter_custom(|rounds| (0..rounds).map(|_| two_fsyncs()).sum());
    });
    let store = checkpoint::open(&scratch.0.join("store"), Placement::Split);
    let mut state = Fresh::new(COMMITS * KIB);
    let name = ("tidegate", "64x1KiB");
    paired(&mut group, name, ("store_commit/raw_two_fsyncs", state.bytes.len()), |pairs| {
        stamp_each(&mut state);
        let time = pairs.measure(two_fsyncs, || timed(|| commit_all(&store, &state.bytes)));
        store.subsume(1).unwrap();
        time
    });
    group.finish();
}

/// Four threads, each with a job of its own in one store, beside one thread that appends and syncs.
fn four_jobs(c: &mut Criterion) {
    let mut group = c.benchmark_group("store_commit");
    let all = COMMITS * JOBS;
    group.throughput(Throughput::Elements(all as u64)).sample_size(20);
    let scratch = Scratch::new("commit-jobs");
    let one_fsync = || raw(&scratch.0, all, &[&[1; KIB]]);
    group.bench_function(BenchmarkId::new("raw_fsync", "256x1KiB"), |b| {
        b.iter_custom(|rounds| (0..rounds).map(|_| one_fsync()).sum());
    });
    let store = scratch.0.join("store");
    let jobs: Vec<_> = ["a", "b", "c", "d"]
        .map(|job| checkpoint::open_job(&store, Placement::Split, job))
        .into_iter()
        .collect();
    let mut state = Fresh::new(all * KIB);
    let name = ("tidegate_4_jobs", "256x1KiB");
    paired(&mut group, name, ("store_commit/raw_fsync", state.bytes.len()), |pairs| {
        stamp_each(&mut state);
        let four_jobs = || {
            timed(|| {
                thread::scope(|scope| {
                    for (job, state) in jobs.iter().zip(state.bytes.chunks(COMMITS * KIB)) {
                        scope.spawn(move || commit_all(job, state));
                    }
                });
            })
        };
        let time = pairs.measure(one_fsync, four_jobs);
        for job in &jobs {
            job.subsume(1).unwrap();
        }
        time
    });
    group.finish();
}

/// Makes the state of each commit one that was never seen.
fn stamp_each(state: &mut Fresh) {
    state.round += 1;
    for (number, state_of_one) in (0_u64..).zip(state.bytes.chunks_mut(KIB)) {
        state_of_one[..8].copy_from_slice(&(state.round << 32 | number).to_le_bytes());
    }
}
