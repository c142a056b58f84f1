//! A pipeline with and without tidegate: what gates and checkpoints cost its records.
//!
//! Two sources, a keyed exchange, two operators that count by key, two sinks: six threads. The
//! baseline is the same on bounded channels of crossbeam with one operation for each record, and a
//! `HashMap`. Each iteration of a subject runs the baseline first, so that what disturbs the machine
//! disturbs both; a time is from the first record of a source to the last at a sink.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench may panic")]

#[path = "pipeline/align.rs"]
mod align;
#[path = "pipeline/gate.rs"]
mod gate;
#[path = "pipeline/latency.rs"]
mod latency;
#[path = "pipeline/raw.rs"]
mod raw;
#[path = "pipeline/work.rs"]
mod work;

use std::time::Duration;

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};

use gate::Checkpoints;
use work::RECORDS;

fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("pipeline");
    group.throughput(Throughput::Elements(RECORDS));
    // An iteration takes seconds.
    group.sample_size(10).sampling_mode(SamplingMode::Flat).warm_up_time(Duration::from_secs(1));
    group.bench_function("raw_channel", |b| {
        b.iter_custom(|rounds| (0..rounds).map(|_| raw::run()).sum());
    });
    let subjects = [
        ("gate_idle", Checkpoints::None),
        ("gate_checkpoint_100ms", Checkpoints::Aligned),
        ("gate_unaligned_100ms", Checkpoints::Unaligned),
    ];
    let mut times: Vec<Vec<(Duration, gate::Run)>> = vec![Vec::new(); subjects.len()];
    for (index, (name, checkpoints)) in subjects.into_iter().enumerate() {
        group.bench_function(name, |b| {
            b.iter_custom(|rounds| {
                (0..rounds)
                    .map(|_| {
                        let raw = raw::run();
                        let run = gate::run(checkpoints);
                        times[index].push((raw, run));
                        run.time
                    })
                    .sum()
            });
        });
    }
    for ((name, _), pairs) in subjects.into_iter().zip(&mut times) {
        report(name, pairs);
    }
}

/// Prints the median of the pairs.
fn report(name: &str, pairs: &mut [(Duration, gate::Run)]) {
    let speed = |(raw, run): &(Duration, gate::Run)| raw.as_secs_f64() / run.time.as_secs_f64();
    pairs.sort_by(|a, b| speed(a).total_cmp(&speed(b)));
    let (Some(low), Some(high)) = (pairs.first(), pairs.last()) else { return };
    let median = &pairs[pairs.len() / 2];
    #[allow(clippy::cast_precision_loss, reason = "a rate of a few digits")]
    let rate = RECORDS as f64 / median.1.time.as_secs_f64() / 1e6;
    println!("pipeline/{name}: {:.2} times the speed of raw_channel", speed(median));
    println!("    median of {} pairs, {:.2} to {:.2}", pairs.len(), speed(low), speed(high));
    println!("    {rate:.1} million records/s, {} checkpoints in that run", median.1.completed);
    println!(
        "    hot pause p50 {:?}, p99 {:?}, max {:?}; checkpoints took at most {:?}",
        median.1.pause.p50, median.1.pause.p99, median.1.pause.max, median.1.longest
    );
}

criterion_group!(all, benches, latency::benches, align::benches);
criterion_main!(all);
