//! Goal: in every mode and over every kind of exchange, the output is that of an undisturbed run; with
//! at least once nothing is missing, and what comes twice comes after a restart.
//!
//! Method: whole jobs with queues of one record and failures at random points.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{
    CheckpointConfig, CheckpointConfigBuilder, CheckpointingMode, EffectiveConfig,
};
use crate::error::ErrorKind;
use crate::local::tests::support::{
    Database, Failures, Insert, Outside, Random, Record, Shape, assert_exactly_once, counting,
    fast_restarts, numbers, shape, storage, tiny,
};
use crate::local::{DealtStream, ExchangeOptions, Flow, Job, JobEnd, Output, Scope, Stream};

fn config(of: impl FnOnce(CheckpointConfigBuilder) -> CheckpointConfigBuilder) -> EffectiveConfig {
    let builder = CheckpointConfig::builder().interval(Duration::from_millis(10));
    of(builder.unlimited_failures()).build().unwrap()
}

fn exactly_once() -> [EffectiveConfig; 4] {
    [
        config(|c| c),
        config(|c| c.unaligned(true)),
        config(|c| c.unaligned(true).aligned_timeout(Duration::from_millis(1))),
        config(|c| c.unaligned(true).aligned_timeout(Duration::from_secs(60))),
    ]
}

#[test]
fn every_exactly_once_mode_survives_failures_with_tiny_queues() {
    for (mode, config) in exactly_once().into_iter().enumerate() {
        for seed in 0..5 {
            let mut random = Random::new(seed + 10 * mode as u64);
            let ends = (0..=random.below(4)).map(|_| random.below(3_000)).collect();
            let shape = Shape {
                ends,
                counters: u32::try_from(1 + random.below(3)).unwrap(),
                sinks: u32::try_from(1 + random.below(3)).unwrap(),
                exchange: if seed % 2 == 0 { tiny() } else { ExchangeOptions::default() },
                ..shape()
            };
            let failures = (0..random.below(6)).map(|_| 1 + random.below(1_500)).collect();
            let outside = Outside::new();
            let sources = numbers(&shape.ends, &Failures::after(failures));
            let job = counting(&shape, sources, &outside).config(config.clone()).build().unwrap();
            let end = job.run().unwrap();
            assert_exactly_once(&shape, &end, &outside);
        }
    }
}

fn at_least_once() -> EffectiveConfig {
    config(|c| c.mode(CheckpointingMode::AtLeastOnce))
}

#[test]
fn at_least_once_loses_nothing_and_repeats_nothing_without_a_restart() {
    let (shape, outside) = (shape(), Outside::new());
    let sources = numbers(&shape.ends, &Failures::after(vec![]));
    let job = counting(&shape, sources, &outside).config(at_least_once()).build().unwrap();
    let end = job.run().unwrap();
    assert_exactly_once(&shape, &end, &outside);
}

#[test]
fn at_least_once_repeats_records_at_most_after_a_restart_and_loses_none() {
    for seed in 0..4 {
        let mut random = Random::new(seed);
        let shape = Shape { ends: vec![4_000, 4_000], exchange: tiny(), ..shape() };
        let outside = Outside::new();
        let failures = (0..4).map(|_| 1 + random.below(2_000)).collect();
        let sources = numbers(&shape.ends, &Failures::after(failures));
        let job = counting(&shape, sources, &outside).config(at_least_once()).build().unwrap();
        assert!(matches!(job.run().unwrap(), JobEnd::Finished(_)));
        let mut found = outside.records.committed();
        assert!(found.len() >= shape.records().len());
        found.dedup();
        let mut expected = shape.records();
        expected.sort_unstable();
        assert_eq!(found, expected, "seed {seed}");
    }
}

/// How one exchange of a test job deals records out.
type Deal = fn(&Stream<Record>) -> DealtStream<Record>;

const DEALS: [(&str, Deal); 5] = [
    ("rebalance", Stream::rebalance),
    ("rescale", Stream::rescale),
    ("forward", Stream::forward),
    ("partition", |stream| {
        stream.partition(|record, of| u32::try_from(record.1 % 7).unwrap() % of)
    }),
    ("broadcast", Stream::broadcast),
];

/// Source, an operator that hands each record on, and a sink, with one kind of exchange before each.
/// Where every subtask gets every record, the one whose turn it is hands it on.
fn handing_on(deal: (&'static str, Deal), of: u32, database: &Arc<Database<Record>>) -> Flow {
    let (name, deal) = deal;
    let flow = Flow::new();
    let ends = vec![2_000; 2];
    let records = flow.source("read", numbers(&ends, &Failures::after(vec![700, 900]))).unwrap();
    let passed = deal(&records)
        .process("pass", of, move |scope: &mut Scope| {
            let (me, all) = (scope.task().subtask, scope.parallelism());
            Ok(move |record: Record, out: &mut Output<Record>| {
                let is_mine = u32::try_from(record.1).unwrap() % all == me;
                if name != "broadcast" || is_mine { out.emit(record) } else { Ok(()) }
            })
        })
        .unwrap();
    let database = Arc::clone(database);
    passed
        .rebalance()
        .sink("records", 2, move |context| Ok(Insert::new(&database, context)))
        .unwrap();
    flow
}

#[test]
fn every_kind_of_exchange_keeps_exactly_once_in_every_mode() {
    for config in exactly_once() {
        for deal in DEALS {
            let of = if deal.0 == "forward" { 2 } else { 3 };
            let database = Database::new();
            let config = EffectiveConfig::clone(&config);
            let forced = CheckpointConfig::builder()
                .interval(Duration::from_millis(10))
                .unaligned(config.is_unaligned())
                .force_unaligned(true)
                .build()
                .unwrap();
            let config = if deal.0 == "partition" { forced } else { config };
            let job = Job::builder("dealt", handing_on(deal, of, &database), config, storage())
                .exchange(tiny())
                .restart_policy(fast_restarts())
                .build()
                .unwrap();
            assert!(matches!(job.run().unwrap(), JobEnd::Finished(_)));
            let mut expected: Vec<Record> =
                (0..2).flat_map(|id| (0..2_000).map(move |number| (id, number))).collect();
            expected.sort_unstable();
            let found = database.committed();
            let counts = (found.len(), expected.len());
            assert!(found == expected, "{}: {counts:?} records", deal.0);
        }
    }
}

#[test]
fn a_stream_is_forwarded_only_to_as_many_subtasks() {
    let flow = Flow::new();
    let records = flow.source("read", numbers(&[1, 1], &Failures::after(vec![]))).unwrap();
    let pass = |scope: &mut Scope| {
        let _ = scope;
        Ok(|record: Record, out: &mut Output<Record>| out.emit(record))
    };
    let error = records.forward().process("pass", 3, pass).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("rescale"), "{error}");
}

#[test]
fn a_function_that_deals_records_out_forbids_unaligned_checkpoints_unless_they_are_forced() {
    let build = |force| {
        let config = config(|c| c.unaligned(true).force_unaligned(force));
        let flow = handing_on(DEALS[3], 2, &Database::new());
        Job::builder("dealt", flow, config, storage()).build()
    };
    let error = build(false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("pass"), "{error}");
    assert!(build(true).is_ok());
}

#[test]
fn a_record_dealt_to_a_receiver_that_is_not_there_fails_the_job() {
    let flow = Flow::new();
    let database: Arc<Database<Record>> = Database::new();
    flow.source("read", numbers(&[10], &Failures::after(vec![])))
        .unwrap()
        .partition(|_, of| of)
        .sink("records", 2, move |context| Ok(Insert::new(&database, context)))
        .unwrap();
    let job = Job::builder("dealt", flow, config(|c| c), storage()).build().unwrap();
    let error = job.run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("receiver 2 of 2"), "{error}");
}
