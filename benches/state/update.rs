//! One update of a random key among a million.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;
use tidegate::state::key_hash;

use crate::value::{Value100, filled, random};

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
    let mut seed = 1;
    let mut of_plain = || {
        let start = Instant::now();
        for _ in 0..UPDATES {
            let key = random(&mut seed) % KEYS;
            plain.entry(key).or_default().count += 1;
        }
        start.elapsed()
    };
    let mut seed = 1;
    let mut of_map = || {
        let start = Instant::now();
        for _ in 0..UPDATES {
            let key = random(&mut seed) % KEYS;
            map.update(&black_box(key), |value| value.count += 1).unwrap();
        }
        start.elapsed()
    };
    let mut group = c.benchmark_group("state_update");
    group.sample_size(20);
    group.bench_function("hashmap", |b| {
        b.iter_custom(|rounds| {
            (0..rounds.div_ceil(UPDATES))
                .map(|_| of_plain())
                .sum::<Duration>()
                .mul_f64(rounds as f64 / (rounds.div_ceil(UPDATES) * UPDATES) as f64)
        });
    });
    let mut pairs = Vec::new();
    group.bench_function("keyed_map", |b| {
        b.iter_custom(|rounds| {
            let batches = rounds.div_ceil(UPDATES);
            let mut sum = Duration::ZERO;
            for _ in 0..batches {
                let plain = of_plain();
                let own = of_map();
                pairs.push(plain.as_secs_f64() / own.as_secs_f64());
                sum += own;
            }
            sum.mul_f64(rounds as f64 / (batches * UPDATES) as f64)
        });
    });
    pairs.sort_by(f64::total_cmp);
    if let Some(median) = pairs.get(pairs.len() / 2) {
        println!(
            "keyed_map: {median:.2} of hashmap ({:.2} to {:.2}) in {} pairs",
            pairs[0],
            pairs[pairs.len() - 1],
            pairs.len()
        );
    }
}
