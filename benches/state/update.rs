//! One update of a random key among a million.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::hint::black_box;
use std::time::Duration;

use criterion::Criterion;
use tidegate::state::key_hash;

use crate::value::{Value100, Watch, filled, random, share};

const KEYS: u64 = 1_000_000;
const UPDATES: u64 = 1_000_000;

/// The hash of keyed state, spread over the bits that a table uses.
#[derive(Default)]
struct SameHash(u64);

impl Hasher for SameHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = u64::from(key_hash(bytes)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

pub(crate) fn benches(c: &mut Criterion) {
    let mut plain: HashMap<u64, Value100, BuildHasherDefault<SameHash>> = HashMap::default();
    plain.extend((0..KEYS).map(|key| (key, Value100::default())));
    let (_scope, map) = filled::<Value100>(KEYS);
    let watch = Watch::new();
    let mut of_plain = batch(&watch, |key| plain.entry(key).or_default().count += 1);
    let mut of_map = batch(&watch, |key| map.update(&key, |value| value.count += 1).unwrap());
    let mut group = c.benchmark_group("state_update");
    group.sample_size(20);
    group.bench_function("hashmap", |b| {
        b.iter_custom(|rounds| {
            let batches = rounds.div_ceil(UPDATES);
            share((0..batches).map(|_| of_plain()).sum(), rounds, batches * UPDATES)
        });
    });
    let mut pairs = Vec::new();
    group.bench_function("keyed_map", |b| {
        b.iter_custom(|rounds| {
            let batches = rounds.div_ceil(UPDATES);
            let mut sum = Duration::ZERO;
            for _ in 0..batches {
                let (plain, own) = (of_plain(), of_map());
                pairs.push(plain.as_secs_f64() / own.as_secs_f64());
                sum += own;
            }
            share(sum, rounds, batches * UPDATES)
        });
    });
    pairs.sort_by(f64::total_cmp);
    if let [first, .., last] = pairs.as_slice() {
        let (median, count) = (pairs[pairs.len() / 2], pairs.len());
        println!("keyed_map: {median:.2} of hashmap ({first:.2} to {last:.2}) in {count} pairs");
    }
}

/// Times batches of updates of random keys.
fn batch(watch: &Watch, mut update: impl FnMut(u64)) -> impl FnMut() -> Duration {
    let mut seed = 1;
    move || {
        let updates = || (0..UPDATES).for_each(|_| update(black_box(random(&mut seed) % KEYS)));
        watch.time(updates).0
    }
}
