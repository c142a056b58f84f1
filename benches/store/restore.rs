//! `store_restore`: large state back from the disk, or from memory where the system still has it.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use rustix::fs::{Advice, fadvise};
use tidegate::message::CheckpointType;
use tidegate::storage::Placement;

use crate::checkpoint;
use crate::common::{MIB, Scratch, noise, paired, raw_log, timed};

const TOTAL: usize = 256 * MIB;
const SIZE: &str = "256MiB";

pub(crate) fn benches(c: &mut Criterion) {
    let bytes = noise(TOTAL);
    let scratch = Scratch::new("restore");
    let raw = scratch.0.join("raw.log");
    raw_log(&raw, &bytes);
    let store = checkpoint::open(&scratch.0.join("store"), Placement::Split);
    let id = checkpoint::write(&store, &bytes, CheckpointType::Checkpoint);

    let mut group = c.benchmark_group("store_restore");
    group.throughput(Throughput::Bytes(TOTAL as u64)).sample_size(10);
    for (raw_name, name, is_cold) in
        [("raw_read", "tidegate", false), ("raw_read_cold", "tidegate_cold", true)]
    {
        let mut buffer = vec![0; MIB];
        let chill = || {
            if is_cold {
                forget(&scratch.0);
            }
        };
        let mut raw_read = || -> Duration {
            chill();
            timed(|| {
                let mut file = File::open(&raw).unwrap();
                while file.read(&mut buffer).unwrap() > 0 {}
            })
        };
        group.bench_function(BenchmarkId::new(raw_name, SIZE), |b| {
            b.iter_custom(|rounds| (0..rounds).map(|_| raw_read()).sum());
        });
        paired(&mut group, (name, SIZE), (&format!("store_restore/{raw_name}"), TOTAL), |pairs| {
            pairs.measure(&mut raw_read, || {
                chill();
                timed(|| assert_eq!(checkpoint::read(&store, id), TOTAL))
            })
        });
    }
    group.finish();
}

/// Takes every file below `dir` out of the system's memory.
fn forget(dir: &Path) {
    for path in files(dir) {
        let file = File::open(path).unwrap();
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}
