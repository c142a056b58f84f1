//! Checkpoints of a million keys in a sled store, and the way back.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use serde::{Deserialize, Serialize};
use tidegate::catalog::{CheckpointPlan, Checkpoints, OperatorSpec};
use tidegate::message::CheckpointType;
use tidegate::state::{KeyedMap, SnapshotSource, StateScope, key_group, key_hash};
use tidegate::storage::{CheckpointStorage, SledCheckpointStorage};
use tidegate::{CheckpointId, JobId, OperatorUid, TaskId};

use crate::value::{Value100, Watch, filled, random};

const KEYS: u64 = 1_000_000;
const RETAINED: usize = 3;
const MAX_PARALLELISM: u32 = 128;

/// A KiB when it is written.
#[derive(Clone, Serialize, Deserialize)]
struct Kib(#[serde(with = "bytes")] Vec<u8>);

mod bytes {
    use serde::{Deserializer, Serializer, de::Visitor};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }
        }
        from.deserialize_byte_buf(Bytes)
    }
}

impl Default for Kib {
    fn default() -> Self {
        // With the key and the heads of entry and value 1 KiB.
        Self(vec![7; 1000])
    }
}

/// A store with the checkpoints of some subtasks.
struct Store {
    dir: PathBuf,
    checkpoints: Checkpoints,
    tasks: Vec<TaskId>,
}

impl Store {
    fn new(name: &str, parallelism: u32) -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-state-{name}"));
        let _ = fs::remove_dir_all(&dir);
        let storage = SledCheckpointStorage::new(&dir);
        let checkpoints = Checkpoints::new(storage.open(&JobId::new("bench").unwrap()).unwrap());
        let operator = OperatorUid::new("op").unwrap();
        let task = |subtask| TaskId { operator: operator.clone(), subtask };
        Self { dir, checkpoints, tasks: (0..parallelism).map(task).collect() }
    }

    /// From the freeze until the commit is durable, each subtask on a thread of its own; bytes that were
    /// written, not shared.
    fn checkpoint(&self, scopes: &[&StateScope], kind: CheckpointType) -> (Duration, u64) {
        let parallelism = u32::try_from(self.tasks.len()).unwrap();
        let operator = OperatorSpec::new(self.tasks[0].operator.clone(), parallelism);
        let mut plan = CheckpointPlan::new(vec![operator]);
        plan.kind = kind;
        let id = self.checkpoints.next_id();
        let (time, written) = Watch::new().time(|| {
            let frozen: Vec<_> = scopes.iter().map(|scope| scope.freeze(id)).collect();
            let pending = &self.checkpoints.begin(id, plan).unwrap();
            let snapshots: Vec<_> = thread::scope(|threads| {
                let writing = self.tasks.iter().zip(frozen).map(|(task, frozen)| {
                    threads.spawn(move || {
                        let mut writer = pending.writer(task).unwrap();
                        frozen.write(&mut writer).unwrap();
                        (task.clone(), writer.finish().unwrap())
                    })
                });
                let writing: Vec<_> = writing.collect();
                writing.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            pending.commit(&snapshots).unwrap();
            snapshots.iter().map(|(_, snapshot)| snapshot.measurements().checkpointed_bytes).sum()
        });
        for scope in scopes {
            scope.completed(id);
        }
        let ids = self.checkpoints.ids();
        let old = ids.get(..ids.len().saturating_sub(RETAINED)).unwrap_or_default();
        self.checkpoints.discard(old).unwrap();
        (time, written)
    }

    fn newest(&self) -> CheckpointId {
        *self.checkpoints.ids().last().unwrap()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

pub(crate) fn benches(c: &mut Criterion) {
    million(c);
    large_values(c);
    restore(c);
}

fn million(c: &mut Criterion) {
    let mut group = c.benchmark_group("state_checkpoint");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    let (scope, map) = filled::<Value100>(KEYS);
    let store = Store::new("million", 1);
    let (_, full) = store.checkpoint(&[&scope], CheckpointType::FullCheckpoint);
    group.throughput(Throughput::Bytes(full));
    group.bench_function("full/1M_keys", |b| {
        b.iter_custom(|rounds| {
            let full = || store.checkpoint(&[&scope], CheckpointType::FullCheckpoint).0;
            (0..rounds).map(|_| full()).sum()
        });
    });
    let clustered: Vec<u64> =
        (0..KEYS).filter(|key| key_group(key_hash(&key.to_le_bytes()), 128) == 5).collect();
    for (name, is_uniform) in [("one_percent_uniform", true), ("one_percent_clustered", false)] {
        store.checkpoint(&[&scope], CheckpointType::FullCheckpoint);
        let mut seed = 3;
        let written = RefCell::new(Vec::new());
        let mut round = || {
            let count = if is_uniform { KEYS / 100 } else { clustered.len() as u64 };
            for _ in 0..count {
                let number = random(&mut seed);
                let key = if is_uniform {
                    number % KEYS
                } else {
                    clustered[usize::try_from(number).unwrap() % clustered.len()]
                };
                map.update(&key, |value| value.count += 1).unwrap();
            }
            let (time, bytes) = store.checkpoint(&[&scope], CheckpointType::Checkpoint);
            written.borrow_mut().push(bytes);
            time
        };
        group.bench_function(format!("{name}/1M_keys"), |b| {
            b.iter_custom(|rounds| (0..rounds).map(|_| round()).sum());
        });
        while written.borrow().len() < 100 {
            round();
        }
        let written = written.into_inner();
        let per_mille = |bytes: u64| bytes * 1000 / full;
        let hundred = &written[..100];
        println!(
            "{name}: 100 checkpoints wrote {} per mille of a full one on average, {} at most",
            per_mille(hundred.iter().sum::<u64>() / 100),
            per_mille(*hundred.iter().max().unwrap())
        );
    }
}

/// With as many subtasks as the machine has for it, and with one.
fn large_values(c: &mut Criterion) {
    let mut group = c.benchmark_group("state_checkpoint");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    for (name, parallelism) in [("262144x1KiB", 2), ("262144x1KiB_one_subtask", 1)] {
        let subtasks: Vec<_> = (0..parallelism).map(|at| large(at, parallelism)).collect();
        let scopes: Vec<_> = subtasks.iter().map(|(scope, _)| scope).collect();
        let store = Store::new("large", parallelism);
        let (_, full) = store.checkpoint(&scopes, CheckpointType::FullCheckpoint);
        group.throughput(Throughput::Bytes(full));
        group.bench_function(BenchmarkId::new("full", name), |b| {
            b.iter_custom(|rounds| {
                let full = || store.checkpoint(&scopes, CheckpointType::FullCheckpoint).0;
                (0..rounds).map(|_| full()).sum()
            });
        });
    }
}

/// The subtask of some that share 262144 keys.
fn large(subtask: u32, parallelism: u32) -> (StateScope, KeyedMap<u64, Kib>) {
    let mut scope = StateScope::new(subtask, parallelism, MAX_PARALLELISM);
    let map = scope.keyed_map::<u64, Kib>("map").unwrap();
    let is_own = |key: &u64| {
        let group = key_group(key_hash(&key.to_le_bytes()), MAX_PARALLELISM);
        group * parallelism / MAX_PARALLELISM == subtask
    };
    for key in (0..262_144).filter(is_own) {
        map.insert(&key, Kib::default()).unwrap();
    }
    (scope, map)
}

fn restore(c: &mut Criterion) {
    let mut group = c.benchmark_group("state_restore");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    let (scope, map) = filled::<Value100>(KEYS);
    let store = Store::new("restore", 1);
    let (_, full) = store.checkpoint(&[&scope], CheckpointType::FullCheckpoint);
    group.throughput(Throughput::Bytes(full));
    let restore = || {
        let (time, map) = Watch::new().time(|| {
            let mut scope = StateScope::new(0, 1, 128);
            let map = scope.keyed_map::<u64, Value100>("map").unwrap();
            let mut reader = store.checkpoints.read_task(store.newest(), &store.tasks[0]).unwrap();
            while let Some(key) = reader.next_section().unwrap() {
                scope.restore(&key, reader.body()).unwrap();
            }
            scope.restored(None);
            map
        });
        assert_eq!(map.len() as u64, KEYS);
        time
    };
    group.bench_function("keyed_map/1M_keys", |b| {
        b.iter_custom(|rounds| (0..rounds).map(|_| restore()).sum());
    });
    let whole = restore();
    let mut seed = 5;
    for _ in 0..100 {
        for _ in 0..KEYS / 100 {
            map.update(&(random(&mut seed) % KEYS), |value| value.count += 1).unwrap();
        }
        store.checkpoint(&[&scope], CheckpointType::Checkpoint);
    }
    group.bench_function("keyed_map_after_100_incremental/1M_keys", |b| {
        b.iter_custom(|rounds| (0..rounds).map(|_| restore()).sum());
    });
    let ratio = restore().as_secs_f64() / whole.as_secs_f64();
    println!("after 100 incremental checkpoints a restore takes {ratio:.2} of a full one's");
}
