//! `tiered`: what a copy in the background costs a checkpoint on the fast tier.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use tidegate::JobId;
use tidegate::catalog::Checkpoints;
use tidegate::message::CheckpointType;
use tidegate::storage::{
    CheckpointStorage, FileSystemCheckpointStorage, SledCheckpointStorage, TieredCheckpointStorage,
};

use crate::checkpoint;
use crate::common::{Fresh, MIB, Scratch, paired, timed};

const TOTAL: usize = 64 * MIB;
const SIZE: &str = "64MiB";

/// How long a copy may take before the bench gives up on it.
const PATIENCE: Duration = Duration::from_secs(60);

fn fast(dir: &Path) -> Arc<SledCheckpointStorage> {
    Arc::new(SledCheckpointStorage::new(dir))
}

fn open(storage: &dyn CheckpointStorage) -> Checkpoints {
    Checkpoints::new(storage.open(&JobId::new("bench").unwrap()).unwrap())
}

/// Two checkpoints, one after the other: while the second is written the first is copied, where it is
/// copied at all. The time of the second.
fn second(store: &Checkpoints, state: &mut Fresh) -> Duration {
    state.stamp();
    checkpoint::write(store, &state.bytes, CheckpointType::Checkpoint);
    state.stamp();
    let time = timed(|| _ = checkpoint::write(store, &state.bytes, CheckpointType::Checkpoint));
    assert!(store.wait_copied(PATIENCE), "it is not copied");
    store.subsume(1).unwrap();
    time
}

pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("tiered");
    group.throughput(Throughput::Bytes(TOTAL as u64)).sample_size(10);
    let scratch = Scratch::new("tiered");
    let mut state = Fresh::new(TOTAL);
    let mut bare_state = Fresh::new(TOTAL);
    let bare = open(&*fast(&scratch.0.join("bare")));
    group.bench_function(criterion::BenchmarkId::new("fast_only", SIZE), |b| {
        b.iter_custom(|rounds| (0..rounds).map(|_| second(&bare, &mut bare_state)).sum());
    });
    let location = format!("file://{}", scratch.0.join("durable").display());
    let durable = FileSystemCheckpointStorage::new(location).unwrap();
    let storage = TieredCheckpointStorage::new(fast(&scratch.0.join("fast")), Arc::new(durable));
    let store = open(&storage.with_durable_retained(1).unwrap());
    paired(&mut group, ("tiered", SIZE), ("tiered/fast_only", TOTAL), |pairs| {
        let baseline = second(&bare, &mut bare_state);
        let subject = second(&store, &mut state);
        pairs.measure(|| baseline, || subject)
    });
    group.finish();
}
