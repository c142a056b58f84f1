//! Goal: windows over event time close once and whole, whatever fails, in every mode: no timer is lost,
//! fires twice or early, and no record is behind the watermark that it comes at.
//!
//! Method: the sources' times rise, with a watermark after every few records, and fail at random points.
//! The counting operator refuses a record that is late; the expected counts are computed apart.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{CheckpointConfig, EffectiveConfig};
use crate::error::{Error, Result};
use crate::local::tests::support::{
    Database, Failures, Insert, Numbers, Random, Record, fast_restarts, numbers, storage, tiny,
};
use crate::local::{ExchangeOptions, Flow, Job, JobEnd, Next, Operator, Output, Scope, Source};
use crate::state::{Fired, KeyedMap, Timers};

/// Milliseconds; a record's number is its event time.
const WINDOW: u64 = 100;

const KEYS: u64 = 7;

fn key_of(record: &Record) -> u64 {
    record.1 % KEYS
}

/// Numbers, with a watermark after every `every`.
struct Timed {
    numbers: Numbers,
    every: u64,
    said: u64,
}

impl Source for Timed {
    type Item = Record;
    type Position = u64;

    fn position(&self) -> u64 {
        self.numbers.position()
    }

    fn seek(&mut self, position: u64) -> Result<()> {
        self.said = position;
        self.numbers.seek(position)
    }

    fn next(&mut self) -> Result<Next<Record>> {
        if self.numbers.next >= self.said + self.every {
            self.said = self.numbers.next;
            return Ok(Next::Watermark(self.numbers.next - 1));
        }
        self.numbers.next()
    }
}

/// Key, end of the window, records in it.
type Closed = (u64, u64, u64);

struct Count {
    open: KeyedMap<u64, BTreeMap<u64, u64>>,
    ends: Timers<u64>,
}

impl Operator<Record, Closed> for Count {
    fn record(&mut self, record: Record, _: &mut Output<Closed>) -> Result<()> {
        if self.ends.watermark().is_some_and(|watermark| watermark >= record.1) {
            // Not worth a restart.
            return Err(Error::invalid(format!("{record:?} is late")));
        }
        let end = record.1 - record.1 % WINDOW + WINDOW - 1;
        self.open.update(&key_of(&record), |open| *open.entry(end).or_default() += 1)?;
        self.ends.register_event_time(&key_of(&record), end)
    }

    fn timer(&mut self, timer: &Fired, output: &mut Output<Closed>) -> Result<()> {
        let key: u64 = timer.key()?;
        let count = self.open.update(&key, |open| open.remove(&timer.at_ms))?;
        let count = count.ok_or_else(|| Error::invalid("a window closes twice"))?;
        output.emit((key, timer.at_ms, count))
    }
}

fn expected(ends: &[u64]) -> Vec<Closed> {
    let mut counts = BTreeMap::new();
    for record in (0..).zip(ends).flat_map(|(id, end)| (0..*end).map(move |n| (id, n))) {
        let end = record.1 - record.1 % WINDOW + WINDOW - 1;
        *counts.entry((key_of(&record), end)).or_default() += 1;
    }
    counts.into_iter().map(|((key, end), count)| (key, end, count)).collect()
}

fn run(ends: &[u64], failures: Vec<u64>, config: EffectiveConfig, exchange: ExchangeOptions) {
    let failures = Failures::after(failures);
    let sources = (1..).zip(numbers(ends, &failures));
    let sources = sources.map(|(n, numbers)| Timed { numbers, every: n * 9, said: 0 }).collect();
    let database = Database::new();
    let into = Arc::clone(&database);
    let flow = Flow::new();
    flow.source("read", sources)
        .unwrap()
        // Two exchanges, so that a watermark has to come through a task, too.
        .rebalance()
        .process("pass", 2, |_: &mut Scope| {
            Ok(|record: Record, output: &mut Output<Record>| output.emit(record))
        })
        .unwrap()
        .key_by(key_of)
        .operator("count", 3, |scope: &mut Scope| {
            Ok(Count { open: scope.keyed_map("open")?, ends: scope.timers("ends")? })
        })
        .unwrap()
        .rebalance()
        .sink("closed", 2, move |context| Ok(Insert::new(&into, context)))
        .unwrap();
    let job = Job::builder("windows", flow, config, storage())
        .exchange(exchange)
        .restart_policy(fast_restarts())
        .build()
        .unwrap();
    let end = job.run().unwrap();
    assert!(matches!(end, JobEnd::Finished(_)), "{end:?}");
    assert_eq!(database.committed(), expected(ends));
}

fn random_runs(config: &EffectiveConfig) {
    for seed in 0..6 {
        let mut random = Random::new(seed);
        let ends = [3_000, 2_000 + random.below(1_000), random.below(500)];
        let failures = (0..5).map(|_| 1 + random.below(1_200)).collect();
        let exchange = if seed % 2 == 0 { tiny() } else { ExchangeOptions::default() };
        run(&ends, failures, config.clone(), exchange);
    }
}

fn checkpoints() -> CheckpointConfig {
    let mut config = CheckpointConfig::new();
    config.set_checkpoint_interval(10).unwrap();
    config
}

#[test]
fn windows_close_once_with_aligned_checkpoints() {
    random_runs(&checkpoints().build().unwrap());
}

#[test]
fn windows_close_once_with_records_on_their_way_in_the_checkpoints() {
    let mut config = checkpoints();
    config.enable_unaligned_checkpoints(true);
    random_runs(&config.build().unwrap());
}
