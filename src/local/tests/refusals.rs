//! What is refused, with which error.

use std::sync::Arc;

use crate::error::ErrorKind;
use crate::local::tests::support::{
    Database, Failures, Insert, Outside, Record, Shape, config, counting, numbers, storage,
};
use crate::local::{ExchangeOptions, Flow, Job, Output, Scope};

fn shape() -> Shape {
    Shape {
        ends: vec![100],
        counters: 1,
        sinks: 1,
        interval_ms: 2,
        concurrent: 1,
        exchange: ExchangeOptions::default(),
    }
}

#[test]
fn names_are_checked_while_the_flow_is_made() {
    let flow = Flow::new();
    let failures = Failures::after(vec![]);
    assert_eq!(flow.source("", numbers(&[1], &failures)).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(flow.source("a", numbers(&[], &failures)).unwrap_err().kind(), ErrorKind::Invalid);
    let records = flow.source("a", numbers(&[1], &failures)).unwrap();
    let database = Database::<Record>::new();
    let keyed = records.key_by(|record: &Record| record.1);
    for (uid, parallelism) in [("a", 1), ("b", 0), ("b", 32_769)] {
        let database = Arc::clone(&database);
        let sink = keyed.sink(uid, parallelism, move |c| Ok(Insert::new(&database, c)));
        assert_eq!(sink.unwrap_err().kind(), ErrorKind::Invalid, "{uid} {parallelism}");
    }
    let job = Job::builder("", flow, config(10, 1), storage()).build();
    assert_eq!(job.unwrap_err().kind(), ErrorKind::Invalid);
    let empty = Job::builder("job", Flow::new(), config(10, 1), storage()).build();
    assert_eq!(empty.unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn a_checkpoint_of_another_input_is_refused_and_not_retried() {
    let (shape, outside) = (shape(), Outside::new());
    let job = |input: &str| {
        counting(&shape, numbers(&shape.ends, &Failures::after(vec![])), &outside)
            .expect_property("input", input)
            .build()
            .unwrap()
    };
    drop(job("one").run().unwrap());
    let error = job("two").run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    let text = error.to_string();
    assert!(text.contains("input") && text.contains("one") && text.contains("two"), "{text}");
    drop(job("one").run().unwrap());
}

#[test]
fn a_job_that_is_open_already_is_refused() {
    let (shape, outside) = (shape(), Outside::new());
    let run = || {
        counting(&shape, numbers(&shape.ends, &Failures::after(vec![])), &outside)
            .build()
            .unwrap()
            .run()
    };
    let finished = run().unwrap();
    assert_eq!(run().unwrap_err().kind(), ErrorKind::Conflict);
    drop(finished);
    run().unwrap();
}

#[test]
fn state_that_no_operator_registers_any_more_is_refused() {
    let outside = Outside::new();
    let run = |state: &'static str| {
        let flow = Flow::new();
        let sources = numbers(&[50], &Failures::after(vec![]));
        flow.source("read", sources)
            .unwrap()
            .key_by(|record: &Record| record.1)
            .process("count", 1, move |scope: &mut Scope| {
                let map = scope.keyed_map::<u64, u64>(state)?;
                Ok(move |record: Record, _: &mut Output<()>| map.insert(&record.1, 1).map(drop))
            })
            .unwrap();
        Job::builder("job", flow, config(5, 1), Arc::clone(&outside.storage)).build().unwrap().run()
    };
    drop(run("old").unwrap());
    let error = run("new").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains("old"), "{error}");
}
