//! A whole job on keyed state of a million keys, with and without checkpoints.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use criterion::{Criterion, SamplingMode, Throughput};
use tidegate::Result;
use tidegate::config::{CheckpointConfig, PolicyUpdate};
use tidegate::local::{Flow, Job, JobEnd, JobHandle, Next, Output, Source};
use tidegate::storage::SledCheckpointStorage;

use crate::value::{Value108, Watch, random, share};

const KEYS: u64 = 1_000_000;
const EVENTS: u64 = 1_000_000;
/// Pairs of stretches that are one sample.
const PAIRS: u64 = 3;
const STRETCH: Duration = Duration::from_secs(2);
const SETTLING: Duration = Duration::from_millis(500);
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
        self.next += 1;
        // Every key is there before the clock starts.
        let key = if self.next <= KEYS { self.next - 1 } else { random(&mut self.seed) % KEYS };
        Ok(Next::Item(key))
    }
}

pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("job_keyed_1M");
    group
        .sample_size(10)
        .sampling_mode(SamplingMode::Flat)
        .throughput(Throughput::Elements(EVENTS));
    group.warm_up_time(Duration::from_millis(100));
    let none = PolicyUpdate::new().no_interval();
    let each_second = PolicyUpdate::new().interval(Duration::from_secs(1));
    for (name, incremental, policy) in [
        ("no_checkpoint", true, &none),
        ("incremental_1s", true, &each_second),
        ("full_1s", false, &each_second),
    ] {
        let mut running = None;
        let mut pairs = Vec::new();
        group.bench_function(name, |b| {
            let running = running.get_or_insert_with(|| Running::start(incremental));
            b.iter_custom(|rounds| {
                let times = (0..rounds * PAIRS).map(|_| {
                    let (plain, _) = running.stretch(&none);
                    let (time, completed) = running.stretch(policy);
                    pairs.push((plain.as_secs_f64() / time.as_secs_f64(), completed));
                    time
                });
                share(times.sum(), 1, PAIRS)
            });
        });
        if let Some(running) = running {
            running.end();
        }
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
        let at = |hundredths: usize| pairs.get(pairs.len() * hundredths / 100).copied();
        if let (Some((low, _)), Some((median, completed)), Some((high, _))) =
            (at(10), at(50), at(90))
        {
            println!(
                "{name}: {median:.2} of no_checkpoint ({low:.2} to {high:.2} without the outer tenths) in {} \
                 pairs, {completed} checkpoints in one",
                pairs.len()
            );
        }
    }
}

/// A job that goes on while stretches of its time are measured: with and without checkpoints its state
/// lies at the same places of the memory, and the machine is as busy.
struct Running {
    dir: PathBuf,
    handle: JobHandle,
    job: JoinHandle<Result<JobEnd>>,
    seen: Arc<AtomicU64>,
}

impl Running {
    /// Every key is there when it returns.
    fn start(incremental: bool) -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-state-job");
        let _ = fs::remove_dir_all(&dir);
        let seen = Arc::new(AtomicU64::new(0));
        let config = CheckpointConfig::builder()
            .interval(Duration::from_secs(3600))
            .incremental(incremental)
            .build()
            .unwrap();
        let storage = Arc::new(SledCheckpointStorage::new(&dir));
        let job = Job::builder("bench", flow(&seen).unwrap(), config, storage).build().unwrap();
        let handle = job.handle();
        let running = Self { dir, handle, job: thread::spawn(|| job.run()), seen };
        running.wait_for(KEYS);
        running
    }

    fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    fn wait_for(&self, events: u64) {
        while self.seen() < events {
            assert!(!self.job.is_finished(), "the job ended");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// How long `EVENTS` take under a policy, from a stretch of time that has two of its checkpoints,
    /// with how many there were.
    fn stretch(&self, policy: &PolicyUpdate) -> (Duration, u64) {
        self.handle.update(policy).unwrap();
        // What the policy before has begun comes to its end.
        thread::sleep(SETTLING);
        let completed = || self.handle.statistics().counts.completed;
        let (before, already) = (self.seen(), completed());
        let (time, ()) = Watch::new().time(|| thread::sleep(STRETCH));
        (share(time, EVENTS, self.seen() - before), completed() - already)
    }

    fn end(self) {
        self.handle.cancel();
        self.job.join().unwrap().unwrap();
        let _ = fs::remove_dir_all(&self.dir);
    }
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
                if count.is_multiple_of(1000) {
                    seen.store(count, Ordering::Relaxed);
                }
                Ok(())
            })
        },
    )?;
    Ok(flow)
}
