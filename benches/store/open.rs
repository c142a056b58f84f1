//! `store_open`: a store that is opened after an orderly close, and one whose process was killed.

use std::cell::OnceCell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use tidegate::storage::Placement;

use crate::checkpoint;
use crate::common::{Fresh, Scratch, timed};

/// A store as both ends leave it.
struct Ends {
    closed: PathBuf,
    killed: PathBuf,
}

impl Ends {
    /// `count` live checkpoints of 1 KiB each.
    fn make(dir: &Path, count: usize) -> Self {
        let ends = Self { closed: dir.join("closed"), killed: dir.join("killed") };
        let store = checkpoint::open(&ends.closed, Placement::Split);
        let mut state = Fresh::new(1024);
        for _ in 0..count {
            state.stamp();
            checkpoint::write_small(&store, &state.bytes);
        }
        copy(&ends.closed, &ends.killed);
        assert_eq!(store.ids().len(), count);
        ends
    }
}

pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("store_open");
    group.sample_size(20).measurement_time(Duration::from_secs(10));
    for count in [3, 10_000] {
        let scratch = Scratch::new("open");
        // Not made when another bench was asked for.
        let ends = OnceCell::new();
        let ends = || ends.get_or_init(|| Ends::make(&scratch.0, count));
        for (name, is_killed) in [("tidegate", false), ("tidegate_killed", true)] {
            let id = BenchmarkId::new(name, format!("{count}_checkpoints"));
            group.bench_function(id, |b| {
                let ends = ends();
                let from = if is_killed { &ends.killed } else { &ends.closed };
                b.iter_custom(|rounds| {
                    (0..rounds).map(|_| open(from, &scratch.0.join("copy"), count)).sum()
                });
            });
        }
    }
    group.finish();
}

/// Opens a copy, so that each open finds the same: the store's own end is not timed.
fn open(from: &Path, to: &Path, count: usize) -> Duration {
    let _ = fs::remove_dir_all(to);
    copy(from, to);
    let mut store = None;
    let time = timed(|| store = Some(checkpoint::open(to, Placement::Split)));
    assert_eq!(store.unwrap().ids().len(), count);
    time
}

/// Copies what lies in the files, and syncs it: an open must not pay for the copy.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
            File::open(&target).unwrap().sync_all().unwrap();
        }
    }
    File::open(to).unwrap().sync_all().unwrap();
}
