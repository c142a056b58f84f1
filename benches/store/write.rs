//! `store_write`: large state until it is durable.

use std::path::Path;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use tidegate::message::CheckpointType;
use tidegate::storage::Placement;

use crate::checkpoint;
use crate::common::{CHUNK, Fresh, MIB, Scratch, paired, time_raw_log, timed, written_bytes};

const QUARTER: (usize, &str) = (256 * MIB, "256MiB");
const WHOLE: (usize, &str) = (1024 * MIB, "1GiB");

pub(crate) fn benches(c: &mut Criterion) {
    large(c, QUARTER, &[("tidegate", Placement::Split), ("tidegate_sled", Placement::Sled)]);
    sled(c);
    large(c, WHOLE, &[("tidegate", Placement::Split)]);
}

/// The bare file, and the store in each of these placements.
fn large(c: &mut Criterion, (total, size): (usize, &str), stores: &[(&str, Placement)]) {
    let mut group = c.benchmark_group("store_write");
    group.throughput(Throughput::Bytes(total as u64)).sample_size(10);
    group.measurement_time(Duration::from_secs(10));
    let scratch = Scratch::new("write");
    let mut state = Fresh::new(total);
    group.bench_function(BenchmarkId::new("raw_log", size), |b| {
        b.iter_custom(|rounds| {
            let raw_log = |_| {
                state.stamp();
                time_raw_log(&scratch.0, &state.bytes)
            };
            (0..rounds).map(raw_log).sum()
        });
    });
    for (name, placement) in stores {
        let mut store = None;
        paired(&mut group, (name, size), ("store_write/raw_log", total), |pairs| {
            // Not made when another bench was asked for.
            let store =
                store.get_or_insert_with(|| checkpoint::open(&scratch.0.join(name), *placement));
            state.stamp();
            let subject = || {
                let before = written_bytes();
                let time = timed(|| {
                    checkpoint::write(store, &state.bytes, CheckpointType::Checkpoint);
                });
                assert!(written_bytes() - before >= total as u64, "bytes were saved");
                time
            };
            let time = pairs.measure(|| time_raw_log(&scratch.0, &state.bytes), subject);
            store.subsume(1).unwrap();
            time
        });
    }
    group.finish();
}

/// sled as its documentation says: values into a tree, one flush, which does not sync everything. A
/// new database each time, since it does not give space back.
fn sled(c: &mut Criterion) {
    let (total, size) = QUARTER;
    let mut group = c.benchmark_group("store_write");
    group.throughput(Throughput::Bytes(total as u64)).sample_size(10);
    group.measurement_time(Duration::from_secs(10));
    let scratch = Scratch::new("write-sled");
    let mut state = Fresh::new(total);
    paired(&mut group, ("sled", size), ("store_write/raw_log", total), |pairs| {
        state.stamp();
        let path = scratch.0.join("sled");
        let db = sled::open(&path).unwrap();
        let subject = || {
            let before = written_bytes();
            let time = timed(|| write_sled(&db, &state.bytes));
            assert!(written_bytes() - before >= total as u64, "bytes were saved");
            time
        };
        let time = pairs.measure(|| time_raw_log(&scratch.0, &state.bytes), subject);
        drop(db);
        remove(&path);
        time
    });
    group.finish();
}

fn write_sled(db: &sled::Db, bytes: &[u8]) {
    let mut value = Vec::with_capacity(CHUNK + 4);
    for (key, chunk) in (0_u32..).zip(bytes.chunks(CHUNK)) {
        value.clear();
        value.extend_from_slice(&crc32fast::hash(chunk).to_le_bytes());
        value.extend_from_slice(chunk);
        db.insert(key.to_be_bytes(), value.as_slice()).unwrap();
    }
    db.flush().unwrap();
}

fn remove(path: &Path) {
    std::fs::remove_dir_all(path).unwrap();
}
