//! How long a record takes through the pipeline when hardly any come: a thousand a second.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use criterion::{Criterion, SamplingMode};
use tidegate::clock::{Clock, SystemClock};
use tidegate::config::CheckpointConfig;
use tidegate::local::{Flow, Job, Next, Output, Sink, SinkContext, Source};
use tidegate::storage::SledCheckpointStorage;
use tidegate::{CheckpointId, Result};

use crate::gate::Nothing;

const RECORDS: usize = 1_000;
const EVERY: Duration = Duration::from_millis(1);

pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("pipeline");
    group.sample_size(10).sampling_mode(SamplingMode::Flat).warm_up_time(Duration::from_secs(1));
    let mut all = Vec::new();
    group.bench_function("gate_latency_1000_per_second", |b| {
        b.iter_custom(|rounds| {
            let run = |_| {
                let latencies = run();
                let sum: Duration = latencies.iter().sum();
                all.extend(latencies);
                sum / u32::try_from(RECORDS).unwrap()
            };
            (0..rounds).map(run).sum()
        });
    });
    all.sort();
    if let (Some(median), Some(p99)) = (all.get(all.len() / 2), all.get(all.len() * 99 / 100)) {
        println!("pipeline/gate_latency_1000_per_second: p50 {median:?}, p99 {p99:?}");
    }
}

/// Yields the time, once in a while.
struct Ticks {
    clock: Arc<SystemClock>,
    next: Duration,
}

impl Source for Ticks {
    type Item = Duration;
    type Position = ();

    fn position(&self) {}

    fn seek(&mut self, (): ()) -> Result<()> {
        self.next = self.clock.now();
        Ok(())
    }

    fn next(&mut self) -> Result<Next<Duration>> {
        let now = self.clock.now();
        if now < self.next {
            return Ok(Next::Wait(self.next.saturating_sub(now)));
        }
        self.next += EVERY;
        Ok(Next::Item(now))
    }
}

struct Arrivals {
    clock: Arc<SystemClock>,
    latencies: Arc<Mutex<Vec<Duration>>>,
}

impl Sink<Duration> for Arrivals {
    type Sealed = ();
    type Committer = Nothing;

    fn committer(&self) -> Result<Nothing> {
        Ok(Nothing)
    }

    fn write(&mut self, sent: Duration) -> Result<()> {
        let latency = self.clock.now().saturating_sub(sent);
        self.latencies.lock().unwrap().push(latency);
        Ok(())
    }

    fn seal(&mut self, _: CheckpointId) -> Result<Option<()>> {
        Ok(None)
    }
}

fn key(sent: &Duration) -> u32 {
    sent.subsec_nanos() % 1024
}

fn run() -> Vec<Duration> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-latency");
    let _ = fs::remove_dir_all(&dir);
    let (clock, latencies) = (Arc::new(SystemClock::new()), Arc::new(Mutex::new(Vec::new())));
    let flow = Flow::new();
    let ticks = Ticks { clock: Arc::clone(&clock), next: Duration::ZERO };
    let arrivals = Arc::clone(&latencies);
    flow.source("ticks", vec![ticks])
        .unwrap()
        .key_by(key)
        .process("count", 2, |scope| {
            let counts = scope.keyed_map::<u32, u64>("counts")?;
            Ok(move |sent: Duration, output: &mut Output<Duration>| {
                counts.update(&key(&sent), |count| *count += 1)?;
                output.emit(sent)
            })
        })
        .unwrap()
        .forward()
        .sink("sink", 2, move |_: &SinkContext| {
            Ok(Arrivals { clock: Arc::clone(&clock), latencies: Arc::clone(&arrivals) })
        })
        .unwrap();
    let config = CheckpointConfig::builder().interval(Duration::from_millis(100)).build().unwrap();
    let storage = Arc::new(SledCheckpointStorage::new(&dir));
    let job = Job::builder("latency", flow, config, storage).build().unwrap();
    let handle = job.handle();
    thread::scope(|scope| {
        let running = scope.spawn(|| job.run());
        while latencies.lock().unwrap().len() < RECORDS {
            thread::sleep(Duration::from_millis(5));
        }
        handle.cancel();
        running.join().unwrap().unwrap();
    });
    let _ = fs::remove_dir_all(&dir);
    let mut latencies = latencies.lock().unwrap().clone();
    latencies.truncate(RECORDS);
    latencies
}
