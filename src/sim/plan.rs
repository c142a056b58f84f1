//! What a seed asks for: the job, its records, its policy, and how much goes wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::catalog::OperatorSpec;
use crate::coordinator::CoordinatorSettings;
use crate::error::Result;
use crate::ids::{OperatorUid, TaskId};
use crate::sim::exchange::Exchange;
use crate::sim::mode::Mode;
use crate::sim::options::SimOptions;
use crate::sim::random::{Random, mix};
use crate::state::key_owner;

/// One record on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) source: u32,
    /// Its place in its source.
    pub(super) number: u64,
    pub(super) key: u64,
    /// Its place, from 1, among the records of its source that have this key.
    pub(super) of_key: u64,
}

/// What an operator knows of one key, or of all its records. Sums, so that the order among sources
/// does not matter, and per source and key the last record, where the order does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Tally {
    pub(super) count: u64,
    pub(super) sum: u64,
    pub(super) last: BTreeMap<(u32, u64), u64>,
}

impl Tally {
    /// Counts a record.
    pub(super) fn add(&mut self, record: &Record) {
        self.count = self.count.saturating_add(1);
        self.sum = self.sum.wrapping_add(mix(u64::from(record.source) << 32 | record.number));
    }

    /// Counts a record where the order counts. The answer is the one that should have come when it
    /// is another.
    pub(super) fn add_in_order(&mut self, record: &Record) -> Option<u64> {
        self.add(record);
        let last = self.last.entry((record.source, record.key)).or_default();
        let due = last.saturating_add(1);
        *last = record.of_key;
        (record.of_key != due).then_some(due)
    }

    /// Adds what another subtask counted.
    pub(super) fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// The state of one operator by key; all under key 0 where it has no keys.
pub(super) type Tallies = BTreeMap<u64, Tally>;

/// How much goes wrong, in ten thousand cases each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Faults {
    pub(super) kill: u64,
    pub(super) stall: u64,
    pub(super) decline: u64,
    pub(super) lose_snapshot: u64,
    pub(super) late_snapshot: u64,
    pub(super) lose_trigger: u64,
    pub(super) fail_commit: u64,
    pub(super) request: u64,
    /// A sink takes no record for a while.
    pub(super) rest: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// By source.
    pub(super) records: Vec<Vec<Record>>,
    pub(super) keys: u64,
    pub(super) mode: Mode,
    /// The operators from the sources to the sinks.
    pub(super) stages: Vec<OperatorSpec>,
    /// From each stage to the next.
    exchanges: Vec<Exchange>,
    /// A start may have another parallelism than the last one.
    rescales: bool,
    /// A task heeds barriers ahead of the records before them.
    pub(super) announces: bool,
    /// A cancel marker does not wait for the records before it.
    pub(super) cancels_overtake: bool,
    /// The most records on their way in one task's snapshot.
    pub(super) logged_max: Option<u64>,
    /// How many records a channel holds.
    pub(super) capacity: usize,
    pub(super) settings: CoordinatorSettings,
    pub(super) retained: usize,
    pub(super) faults: Faults,
    /// From this step on nothing goes wrong.
    pub(super) quiet_from: u64,
    /// The longest step of a task on the clock.
    pub(super) step_max: Duration,
}

impl Plan {
    /// Draws the job. The records do not depend on `disturbed_steps_max`.
    pub(super) fn draw(random: &mut Random, options: &SimOptions) -> Result<Self> {
        let keys = random.between(1, 12);
        let sources = random.between(1, 3);
        let mut stages = vec![stage("source", sources)?];
        for operator in 0..random.between(1, 3) {
            stages.push(stage(&format!("operator-{operator}"), random.between(1, 3))?);
        }
        stages.push(stage("sink", random.between(1, 2))?);
        let mode = Mode::draw(random);
        let exchanges = (1..stages.len()).map(|_| Exchange::draw(random)).collect();
        let records = (0..stages.first().map_or(0, |stage| stage.parallelism))
            .map(|source| draw_records(random, source, keys, options.records_max))
            .collect();
        Ok(Self {
            records,
            keys,
            mode,
            stages,
            exchanges,
            rescales: random.chance(5000),
            announces: random.chance(8500),
            cancels_overtake: random.chance(5000),
            logged_max: random.chance(2000).then(|| random.between(1, 10)),
            capacity: random.index(8) + 1,
            settings: draw_settings(random, mode),
            retained: random.index(3) + 1,
            faults: draw_faults(random),
            quiet_from: random.between(1, options.disturbed_steps_max.max(1)),
            step_max: Duration::from_micros(random.between(50, 500)),
        }
        .undisturbed_if(options.disturbed_steps_max == 0))
    }

    fn undisturbed_if(mut self, quiet: bool) -> Self {
        if quiet {
            self.quiet_from = 0;
        }
        self
    }

    /// The stage of the sinks.
    pub(super) fn last_stage(&self) -> usize {
        self.stages.len().saturating_sub(1)
    }

    /// Every subtask, numbered in this order.
    pub(super) fn tasks(&self) -> Vec<TaskId> {
        self.stages.iter().flat_map(OperatorSpec::tasks).collect()
    }

    /// The key under which a stage sees a record: another one at each stage.
    pub(super) fn key_at(&self, stage: usize, record: &Record) -> u64 {
        let salt = u64::try_from(stage).unwrap_or(u64::MAX);
        mix(record.key ^ mix(salt)).checked_rem(self.keys).unwrap_or_default()
    }

    /// The subtask of a stage that a record goes to.
    pub(super) fn route(&self, stage: usize, record: &Record) -> Result<u32> {
        let Some(spec) = self.stages.get(stage) else { return Ok(0) };
        key_owner(&self.key_at(stage, record), spec.max_parallelism, spec.parallelism)
    }

    /// How records come to a stage; nothing comes to the first one.
    pub(super) fn exchange_to(&self, stage: usize) -> Option<Exchange> {
        self.exchanges.get(stage.checked_sub(1)?).copied()
    }

    /// True when a stage heeds records by key.
    pub(super) fn is_by_key(&self, stage: usize) -> bool {
        self.exchange_to(stage).is_some_and(Exchange::is_by_key)
    }

    /// The same job with other stages.
    pub(super) fn with_stages(&self, stages: Vec<OperatorSpec>) -> Self {
        Self { stages, ..self.clone() }
    }

    /// The job of the next start when that one has another parallelism. Sources keep theirs.
    pub(super) fn rescaled(&self, random: &mut Random) -> Option<Self> {
        if !self.rescales || random.chance(5000) {
            return None;
        }
        let mut stages = self.stages.clone();
        for spec in stages.iter_mut().skip(1) {
            if random.chance(5000) {
                spec.parallelism = u32::try_from(random.between(1, 4)).unwrap_or(1);
            }
        }
        (stages != self.stages).then(|| self.with_stages(stages))
    }

    /// True when the records of one source and key come to a stage in order.
    pub(super) fn keeps_order(&self, stage: usize) -> bool {
        let sides = self.stages.iter().zip(self.stages.iter().skip(1));
        let mut edges = self.exchanges.iter().zip(sides).take(stage);
        edges.all(|(exchange, (from, to))| {
            // A pointwise exchange has other paths with another parallelism.
            let is_fixed = *exchange != Exchange::Pointwise || !self.rescales;
            is_fixed && exchange.keeps_order(from.parallelism, to.parallelism)
        })
    }

    /// True when a subtask of a stage heeds a record that comes to it.
    pub(super) fn heeds(&self, stage: usize, subtask: u32, record: &Record) -> Result<bool> {
        Ok(self.exchange_to(stage) != Some(Exchange::Broadcast)
            || self.route(stage, record)? == subtask)
    }

    /// What the operators hold at the end, by stage.
    pub(super) fn expected_state(&self) -> BTreeMap<usize, Tallies> {
        let operators = 1..self.stages.len().saturating_sub(1);
        let fold = |stage| {
            let mut tallies = Tallies::new();
            let (is_by_key, keeps_order) = (self.is_by_key(stage), self.keeps_order(stage));
            for record in self.records.iter().flatten() {
                let key = if is_by_key { self.key_at(stage, record) } else { 0 };
                let tally = tallies.entry(key).or_default();
                if is_by_key && keeps_order {
                    tally.add_in_order(record);
                } else {
                    tally.add(record);
                }
            }
            (stage, tallies)
        };
        operators.map(fold).collect()
    }
}

fn stage(name: &str, parallelism: u64) -> Result<OperatorSpec> {
    Ok(OperatorSpec::new(OperatorUid::new(name)?, u32::try_from(parallelism).unwrap_or(1)))
}

fn draw_records(random: &mut Random, source: u32, keys: u64, most: u64) -> Vec<Record> {
    let mut of_keys = BTreeMap::<u64, u64>::new();
    let count = random.between(0, most);
    let draw = |number| {
        let key = random.below(keys.saturating_mul(2));
        let of_key = of_keys.entry(key).or_default();
        *of_key = of_key.saturating_add(1);
        Record { source, number, key, of_key: *of_key }
    };
    (0..count).map(draw).collect()
}

fn draw_settings(random: &mut Random, mode: Mode) -> CoordinatorSettings {
    let ms = Duration::from_millis;
    let mut settings = CoordinatorSettings {
        period: random.chance(8500).then(|| ms(random.between(5, 100))),
        min_pause: ms([0, 0, 5, 50].get(random.index(4)).copied().unwrap_or_default()),
        timeout: ms(random.between(600, 3000)),
        max_concurrent: u32::try_from(random.between(1, 3)).unwrap_or(1),
        tolerable_failures: random
            .chance(8000)
            .then(|| u32::try_from(random.below(4)).unwrap_or_default()),
        ..CoordinatorSettings::default()
    };
    mode.apply(&mut settings, random);
    settings
}

fn draw_faults(random: &mut Random) -> Faults {
    let mut up_to = |most| if random.chance(7000) { random.between(0, most) } else { 0 };
    Faults {
        kill: up_to(25),
        stall: up_to(10),
        decline: up_to(300),
        lose_snapshot: up_to(200),
        late_snapshot: up_to(1000),
        lose_trigger: up_to(300),
        fail_commit: up_to(1500),
        request: up_to(40),
        rest: up_to(100),
    }
}
