//! Failures at random points: the result is that of an undisturbed run.

use crate::local::tests::support::{
    Failures, Outside, Random, Record, Shape, assert_exactly_once, config, counting, fast_restarts,
    numbers, storage, tiny,
};
use crate::local::{ExchangeOptions, FileSink, Flow, Job, JobEnd};

fn run(shape: &Shape, failures: Vec<u64>, outside: &Outside) -> JobEnd {
    let failures = Failures::after(failures);
    let job = counting(shape, numbers(&shape.ends, &failures), outside).build().unwrap();
    job.run().unwrap()
}

fn shape() -> Shape {
    Shape {
        ends: vec![5_000, 3_000],
        counters: 2,
        sinks: 2,
        interval_ms: 2,
        concurrent: 1,
        exchange: ExchangeOptions::default(),
    }
}

#[test]
fn an_undisturbed_job_counts_every_record_once() {
    let (shape, outside) = (shape(), Outside::new());
    let end = run(&shape, vec![], &outside);
    assert_exactly_once(&shape, &end, &outside);
}

#[test]
fn one_source_and_one_receiver_work_too() {
    let shape = Shape { ends: vec![2_000], counters: 1, sinks: 1, ..shape() };
    let outside = Outside::new();
    let end = run(&shape, vec![700], &outside);
    assert_exactly_once(&shape, &end, &outside);
}

#[test]
fn many_to_many_with_tiny_queues_survives_failures() {
    for seed in 0..10 {
        let mut random = Random::new(seed);
        let ends = (0..=random.below(4)).map(|_| random.below(2_000)).collect();
        let shape = Shape {
            ends,
            counters: u32::try_from(1 + random.below(3)).unwrap(),
            sinks: u32::try_from(1 + random.below(3)).unwrap(),
            interval_ms: 1,
            concurrent: i32::try_from(1 + random.below(3)).unwrap(),
            exchange: tiny(),
        };
        let failures = (0..random.below(6)).map(|_| 1 + random.below(1_000)).collect();
        let outside = Outside::new();
        let end = run(&shape, failures, &outside);
        assert_exactly_once(&shape, &end, &outside);
    }
}

#[test]
fn failures_before_the_first_checkpoint_start_from_the_beginning() {
    let shape = Shape { interval_ms: 60_000, ..shape() };
    let outside = Outside::new();
    let end = run(&shape, vec![10, 3_000, 7_999], &outside);
    assert_exactly_once(&shape, &end, &outside);
}

#[test]
fn several_checkpoints_at_once_stay_apart() {
    let shape = Shape { ends: vec![20_000, 20_000, 10], concurrent: 4, interval_ms: 1, ..shape() };
    let outside = Outside::new();
    let end = run(&shape, vec![10_000, 10_000], &outside);
    assert_exactly_once(&shape, &end, &outside);
}

#[test]
fn a_failing_commit_or_persist_is_tried_again_after_a_restart() {
    for fail_at in [0, 1, 5, 9] {
        let (shape, outside) = (shape(), Outside::new());
        outside.records.fail_commit.store(fail_at, std::sync::atomic::Ordering::SeqCst);
        outside.counts.fail_persist.store(fail_at, std::sync::atomic::Ordering::SeqCst);
        let end = run(&shape, vec![], &outside);
        assert_exactly_once(&shape, &end, &outside);
    }
}

#[test]
fn lines_in_files_are_there_once_whatever_fails() {
    for seed in 0..4 {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("lines");
        let mut random = Random::new(seed);
        let points = (0..5).map(|_| 1 + random.below(1_500)).collect();
        let ends = [3_000, 1_000, 17];
        let flow = Flow::new();
        let into = directory.clone();
        flow.source("read", numbers(&ends, &Failures::after(points)))
            .unwrap()
            .map(|(id, number): Record| format!("{id}\t{number}"))
            .filter(|line| !line.ends_with('3'))
            .key_by_ref(|line: &String| line.as_str())
            .sink("lines", 3, move |context| {
                FileSink::new(&into, context, |line: &String, bytes: &mut Vec<u8>| {
                    bytes.extend_from_slice(line.as_bytes());
                    bytes.push(b'\n');
                })
            })
            .unwrap();
        let job = Job::builder("lines", flow, config(1, 2), storage())
            .restart_policy(fast_restarts())
            .build()
            .unwrap();
        assert!(matches!(job.run().unwrap(), JobEnd::Finished(_)));

        let mut found = Vec::new();
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            assert!(path.file_name().unwrap().to_str().unwrap().starts_with("part-"), "{path:?}");
            let content = std::fs::read_to_string(path).unwrap();
            found.extend(content.lines().map(str::to_string));
        }
        let mut expected: Vec<String> = (0..)
            .zip(ends)
            .flat_map(|(id, end)| (0..end).map(move |number| format!("{id}\t{number}")))
            .filter(|line| !line.ends_with('3'))
            .collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "seed {seed}");
    }
}
