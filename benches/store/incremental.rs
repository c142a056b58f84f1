//! `store_incremental`: large state of which little or nothing changed.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use tidegate::catalog::Checkpoints;
use tidegate::message::CheckpointType;
use tidegate::storage::Placement;

use crate::checkpoint;
use crate::common::{Fresh, MIB, Scratch, paired, timed, written_bytes};

const TOTAL: usize = 256 * MIB;
const SIZE: &str = "256MiB";
/// What changes between two checkpoints.
const CHANGED: usize = TOTAL / 100;

fn write(store: &Checkpoints, state: &Fresh, kind: CheckpointType) -> Duration {
    let time = timed(|| {
        checkpoint::write(store, &state.bytes, kind);
    });
    store.subsume(1).unwrap();
    time
}

/// Writes everything again, as nothing is shared with a full checkpoint.
fn write_full(store: &Checkpoints, state: &Fresh) -> Duration {
    let before = written_bytes();
    let time = write(store, state, CheckpointType::FullCheckpoint);
    assert!(written_bytes() - before >= TOTAL as u64, "bytes were saved");
    time
}

/// Changes the state in one place, each time another one.
fn change(state: &mut Fresh) {
    let places = u64::try_from(TOTAL / CHANGED).unwrap();
    let place = usize::try_from(state.round * 37 % places).unwrap();
    state.stamp_within(place * CHANGED, CHANGED);
}

pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("store_incremental");
    group.throughput(Throughput::Bytes(TOTAL as u64)).sample_size(10);
    group.measurement_time(Duration::from_secs(10));
    let scratch = Scratch::new("incremental");
    let full = checkpoint::open_job(&scratch.0.join("full"), Placement::Split, "full");
    let store = checkpoint::open(&scratch.0.join("store"), Placement::Split);
    let mut state = Fresh::new(TOTAL);
    group.bench_function(BenchmarkId::new("full", SIZE), |b| {
        b.iter_custom(|rounds| {
            let full = |_| {
                change(&mut state);
                write_full(&full, &state)
            };
            (0..rounds).map(full).sum()
        });
    });
    let mut is_first = true;
    for (name, is_changed) in [("one_percent_clustered", true), ("unchanged", false)] {
        paired(&mut group, (name, SIZE), ("store_incremental/full", TOTAL), |pairs| {
            if std::mem::take(&mut is_first) {
                write(&store, &state, CheckpointType::Checkpoint);
            }
            if is_changed {
                change(&mut state);
            }
            let incremental = || write(&store, &state, CheckpointType::Checkpoint);
            pairs.measure(|| write_full(&full, &state), incremental)
        });
    }
    group.finish();
}
