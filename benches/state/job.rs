//! A whole job on keyed state of a million keys, with and without checkpoints.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use criterion::{Criterion, SamplingMode, Throughput};
use tidegate::Result;
use tidegate::config::CheckpointConfig;
use tidegate::local::{Flow, Job, Next, Output, Source};
use tidegate::storage::SledCheckpointStorage;

use crate::value::{Value108, Watch, random, share};

const KEYS: u64 = 1_000_000;
const EVENTS: u64 = 12_000_000;
const TASKS: u32 = 1;

struct Events {
    next: u64,
    seed: u64,
}

impl Source for Events {
    type Item = u64;
    type Position = (u64, u64);

    fn position(&self) -> (u64, u64) {
        (self.next, self.seed)
    }

    fn seek(&mut self, (next, seed): (u64, u64)) -> Result<()> {
        (self.next, self.seed) = (next, seed);
        Ok(())
    }

    fn next(&mut self) -> Result<Next<u64>> {
        if self.next == KEYS + EVENTS {
            return Ok(Next::Wait(Duration::from_secs(1)));
        }
        self.next += 1;
        // Every key is there before the clock starts.
        let key = if self.next <= KEYS { self.next - 1 } else { random(&mut self.seed) % KEYS };
        Ok(Next::Item(key))
    }
}

#[derive(Clone, Copy)]
enum Checkpoints {
    None,
    Incremental,
    Full,
}

pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("job_keyed_1M");
    group
        .sample_size(10)
        .sampling_mode(SamplingMode::Flat)
        .throughput(Throughput::Elements(EVENTS));
    group.warm_up_time(Duration::from_millis(100));
    for (name, checkpoints) in [
        ("no_checkpoint", Checkpoints::None),
        ("incremental_1s", Checkpoints::Incremental),
        ("full_1s", Checkpoints::Full),
    ] {
        let mut pairs = Vec::new();
        group.bench_function(name, |b| {
            b.iter_custom(|rounds| {
                (0..rounds)
                    .map(|_| {
                        let plain = run(Checkpoints::None).0;
                        let (time, completed) = run(checkpoints);
                        pairs.push((plain.as_secs_f64() / time.as_secs_f64(), completed));
                        time
                    })
                    .sum()
            });
        });
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
        let Some((median, completed)) = pairs.get(pairs.len() / 2).copied() else { continue };
        println!(
            "{name}: {median:.2} of no_checkpoint ({:.2} to {:.2}) in {} pairs, {completed} checkpoints in one",
            pairs[0].0,
            pairs[pairs.len() - 1].0,
            pairs.len()
        );
    }
}

fn run(checkpoints: Checkpoints) -> (Duration, u64) {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-state-job");
    let _ = fs::remove_dir_all(&dir);
    let seen = Arc::new(AtomicU64::new(0));
    let interval = match checkpoints {
        Checkpoints::None => Duration::from_secs(3600),
        Checkpoints::Incremental | Checkpoints::Full => Duration::from_secs(1),
    };
    let config = CheckpointConfig::builder()
        .interval(interval)
        .incremental(!matches!(checkpoints, Checkpoints::Full))
        .build()
        .unwrap();
    let storage = Arc::new(SledCheckpointStorage::new(&dir));
    let job = Job::builder("bench", flow(&seen).unwrap(), config, storage).build().unwrap();
    let handle = job.handle();
    let measured = thread::scope(|scope| {
        let running = scope.spawn(|| job.run());
        while seen.load(Ordering::Relaxed) < KEYS {
            thread::sleep(Duration::from_millis(1));
        }
        let before = seen.load(Ordering::Relaxed);
        let (time, ()) = Watch::new().time(|| {
            while seen.load(Ordering::Relaxed) < KEYS + EVENTS {
                thread::sleep(Duration::from_millis(1));
            }
        });
        let time = share(time, EVENTS, KEYS + EVENTS - before);
        let completed = handle.statistics().counts.completed;
        handle.cancel();
        running.join().unwrap().unwrap();
        (time, completed)
    });
    let _ = fs::remove_dir_all(&dir);
    measured
}

fn flow(seen: &Arc<AtomicU64>) -> Result<Flow> {
    let flow = Flow::new();
    let seen = Arc::clone(seen);
    flow.source("events", vec![Events { next: 0, seed: 1 }])?.key_by(|key| *key).process(
        "count",
        TASKS,
        move |scope| {
            let map = scope.keyed_map::<u64, Value108>("counts")?;
            let seen = Arc::clone(&seen);
            let mut count = 0_u64;
            Ok(move |key: u64, _: &mut Output<()>| {
                map.update(&key, |value| value.count += 1)?;
                count += 1;
                if count.is_multiple_of(1024) || count == KEYS + EVENTS {
                    seen.store(count, Ordering::Relaxed);
                }
                Ok(())
            })
        },
    )?;
    Ok(flow)
}
