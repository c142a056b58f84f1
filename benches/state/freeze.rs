//! What a cut costs the records: the freeze itself, and updates while the background writes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use criterion::Criterion;
use tidegate::state::{KeyedMap, SectionBody, SectionKey, SnapshotSink, StateScope};
use tidegate::{CheckpointId, Result};

use crate::value::{Value100, Watch, filled, random};

/// Takes everything and keeps nothing.
struct Nowhere;

impl SnapshotSink for Nowhere {
    fn section(&mut self, _: &SectionKey, body: SectionBody<'_>) -> Result<()> {
        body(&mut io::sink())
    }
}

pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("state_freeze");
    group.sample_size(10);
    let watch = Watch::new();
    for (name, bytes, rounds) in [("1MiB", 1_u64 << 20, 2_000), ("1GiB", 1 << 30, 400)] {
        let keys = bytes / 108;
        let (scope, map) = filled::<Value100>(keys);
        let mut next = 0;
        group.bench_function(format!("keyed_map/{name}"), |b| {
            b.iter_custom(|times| {
                (0..times)
                    .map(|_| {
                        next += 1;
                        watch.time(|| scope.freeze(CheckpointId(next))).0
                    })
                    .sum()
            });
        });
        freezes_under_load(name, (&scope, &map), keys, rounds, &mut next);
        updates_while_written(name, (&scope, &map), keys, &mut next);
    }
}

/// Freezes with changes between them.
fn freezes_under_load(
    name: &str,
    (scope, map): (&StateScope, &KeyedMap<u64, Value100>),
    keys: u64,
    rounds: u64,
    next: &mut u64,
) {
    let (watch, mut seed, mut times) = (Watch::new(), 7, Vec::new());
    for _ in 0..rounds {
        for _ in 0..2_000 {
            let key = random(&mut seed) % keys;
            map.update(&key, |value| value.count += 1).unwrap();
        }
        *next += 1;
        times.push(watch.time(|| scope.freeze(CheckpointId(*next))).0);
    }
    print(&format!("freeze of {name} under changes"), &mut times);
}

/// Updates one by one, while cuts are written one after the other.
fn updates_while_written(
    name: &str,
    (scope, map): (&StateScope, &KeyedMap<u64, Value100>),
    keys: u64,
    next: &mut u64,
) {
    let (watch, mut seed, mut times) = (Watch::new(), 9, Vec::new());
    let before = scope.sizes()[0].copied_bytes;
    for _ in 0..3 {
        *next += 1;
        let frozen = scope.freeze(CheckpointId(*next));
        let is_over = Arc::new(AtomicBool::new(false));
        let done = Arc::clone(&is_over);
        let writer = std::thread::spawn(move || {
            frozen.write(&mut Nowhere).unwrap();
            done.store(true, Ordering::Release);
        });
        while !is_over.load(Ordering::Acquire) {
            let key = random(&mut seed) % keys;
            let update = || map.update(&key, |value| value.count += 1).unwrap();
            times.push(watch.time(update).0);
        }
        writer.join().unwrap();
    }
    let copied = (scope.sizes()[0].copied_bytes - before) / 3;
    print(&format!("update of {name} while it is written"), &mut times);
    println!("    {copied} bytes copied for each cut");
}

fn print(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |thousandths: usize| times[(times.len() - 1) * thousandths / 1000];
    println!(
        "{what}: p50 {:?}, p99 {:?}, p99.9 {:?}, most {:?} of {}",
        at(500),
        at(990),
        at(999),
        at(1000),
        times.len()
    );
}
