//! Goal: runs from fixed bytes keep every promise and reach what they are named after, and the
//! checker says which promise is broken when one is. Method: byte strings by hand, which are the
//! committed corpus too; and events by hand that no coordinator gives.

use std::collections::BTreeMap;

use super::*;
use crate::coordinator::{Acknowledged, CheckpointOutcome, Commit, RequestKind};
use crate::fuzzing::corpus;
use crate::message::{Alignment, Barrier, BarrierOptions, Notification};

/// Two tasks, ids from 1; period 100 ms, no pause, timeout 400 ms, `max` at once, no tolerance.
fn start(max: u8) -> Vec<u8> {
    vec![1, 1, 0, 100, 0, 100, max]
}

const SUBMIT: [u8; 2] = [3, 0];
const SAVEPOINT: [u8; 2] = [3, 2];
const STEP: [u8; 2] = [0, 0];
const LATER: [u8; 2] = [0, 255];
const ACKNOWLEDGE: [u8; 2] = [6, 0];
const COMMITTED: [u8; 1] = [10];
const NOT_COMMITTED: [u8; 2] = [12, 9];
const PERIODIC: [u8; 3] = [15, 2, 10];
const SUSPEND: [u8; 2] = [14, 0];
const RESUME: [u8; 2] = [15, 0];
const SHUT_DOWN: [u8; 3] = [15, 7, 0];

fn seeds() -> BTreeMap<String, Vec<u8>> {
    let input =
        |name: &str, max, parts: &[&[u8]]| (name.to_owned(), [start(max), parts.concat()].concat());
    let complete: &[u8] = &[&ACKNOWLEDGE[..], &STEP, &COMMITTED, &STEP].concat();
    let decline = [8, 0, 1, 8];
    let burst = [4, 255, 0];
    BTreeMap::from([
        input("completes", 1, &[&SUBMIT, &STEP, complete]),
        input("periodic_and_expires", 2, &[&PERIODIC, &LATER, &LATER, &LATER]),
        input("declined_and_job_fails", 1, &[&SUBMIT, &STEP, &decline, &STEP, &RESUME, &STEP]),
        input("commit_fails", 1, &[&SUBMIT, &STEP, &ACKNOWLEDGE, &STEP, &NOT_COMMITTED, &STEP]),
        input("subsumes", 3, &[&SUBMIT, &STEP, &[5, 0, 1], &SUBMIT, &STEP, complete]),
        input("savepoint_is_forced", 1, &[&SUBMIT, &SAVEPOINT, &STEP, complete, complete]),
        input("suspended_and_resumed", 1, &[&SUBMIT, &STEP, &SUSPEND, &SUBMIT, &STEP, &RESUME]),
        input("shut_down_with_requests", 1, &[&SUBMIT, &STEP, &ACKNOWLEDGE, &SHUT_DOWN, &SUBMIT]),
        input("settings_change", 1, &[&SUBMIT, &SUBMIT, &[13, 4, 9, 9, 9, 2], &STEP, &[13, 0]]),
        input("cleaning_holds_back", 1, &[&[15, 6, 2], &SUBMIT, &STEP, &[15, 6, 0], &STEP]),
        input("too_many_requests", 2, &[&burst, &burst, &burst, &burst, &burst, &STEP]),
        (
            "ids_pass_a_zero_half".to_owned(),
            [&[1, 3, 0, 100, 0, 100, 2][..], &SUBMIT, &SUBMIT, &STEP].concat(),
        ),
    ])
}

#[test]
fn the_corpus_keeps_every_promise() {
    corpus::check("coordinator", &seeds(), coordinator);
}

#[test]
fn a_seed_reaches_what_it_is_named_after() {
    let done = |of| CheckpointOutcome::Completed(id(of));
    let failed = |of, reason| CheckpointOutcome::Failed { id: Some(id(of)), reason };
    for (name, expected) in [
        ("completes", done(1)),
        ("periodic_and_expires", failed(1, Reason::CheckpointExpired)),
        ("declined_and_job_fails", failed(1, Reason::CheckpointDeclined)),
        ("commit_fails", failed(1, Reason::FinalizeCheckpointFailure)),
        ("subsumes", failed(1, Reason::CheckpointSubsumed)),
        ("savepoint_is_forced", done(2)),
        ("suspended_and_resumed", failed(1, Reason::CheckpointCoordinatorSuspend)),
        ("shut_down_with_requests", done(1)),
        ("cleaning_holds_back", failed(1, Reason::CheckpointCoordinatorShutdown)),
        ("too_many_requests", failed(2, Reason::CheckpointCoordinatorShutdown)),
        ("ids_pass_a_zero_half", failed(0x7_ffff_ffff, Reason::CheckpointCoordinatorShutdown)),
    ] {
        let outcomes = play(&seeds()[name]).unwrap().outcomes();
        assert!(outcomes.contains(&expected), "{name}: {outcomes:?}");
    }
}

#[test]
fn no_cut_and_no_changed_byte_of_a_seed_breaks_a_promise() {
    for seed in seeds().values() {
        for at in 0..seed.len() {
            coordinator(&seed[..at]);
            for byte in [0, 1, 6, 9, 14, 15, 255] {
                let mut changed = seed.clone();
                changed[at] = byte;
                coordinator(&changed);
            }
        }
    }
}

const LIMITS: Limits = Limits { max_concurrent: 1, cleaning: 0, slots: 33, may_force: true };
const KIND: RequestKind = RequestKind::Manual(CheckpointType::Checkpoint);

fn id(id: u64) -> CheckpointId {
    CheckpointId(id)
}

fn trigger(of: u64) -> Event<State> {
    let options = BarrierOptions {
        kind: CheckpointType::Checkpoint,
        alignment: Alignment::Aligned,
        aligned_timeout: None,
    };
    Event::Trigger {
        barrier: Barrier { id: id(of), timestamp_ms: 0, options },
        kind: KIND,
        target: None,
    }
}

fn commit(of: u64, acknowledged: &[(u32, State)]) -> Event<State> {
    let (kind, acknowledged) = (CheckpointType::Checkpoint, acknowledged.to_vec());
    Event::Commit(Commit { id: id(of), kind, timestamp_ms: 0, acknowledged })
}

fn completed(of: u64) -> Event<State> {
    Event::Completed { id: id(of), kind: KIND, duration: Duration::ZERO }
}

fn aborted(of: u64) -> Event<State> {
    let reason = Reason::CheckpointExpired;
    Event::Aborted { id: id(of), kind: KIND, reason, declined_by: None }
}

/// One task, whose states for the first two checkpoints are inside.
fn checker() -> Checker {
    let mut checker = Checker::new(1);
    for of in [1, 2] {
        let limits = Limits { max_concurrent: 2, ..LIMITS };
        checker.follow(trigger(of), limits).unwrap();
        checker.acknowledged(id(of), 0, of * 10, &Acknowledged::Accepted).unwrap();
    }
    checker
}

fn broken_by(events: Vec<Event<State>>) -> Option<Broken> {
    let mut checker = checker();
    events.into_iter().find_map(|event| {
        let is_commit = matches!(event, Event::Commit(_));
        let broken = checker.follow(event, LIMITS).err();
        if is_commit {
            checker.report(Ok(()));
        }
        broken
    })
}

#[test]
fn every_broken_promise_is_named() {
    let notify = |of| Event::Notify(Notification::Completed { id: id(of) });
    let discard = |of, state| Event::Discard { id: id(of), task: 0, state };
    let whole = |of: u64| commit(of, &[(0, of * 10)]);
    assert_eq!(
        broken_by(vec![whole(1), completed(1), notify(1), aborted(2), discard(2, 20)]),
        None
    );
    for (events, why) in [
        (vec![trigger(3)], "3 beside 2 of 1"),
        (vec![trigger(2)], "2 after"),
        (vec![commit(1, &[])], "1 lacks a task"),
        (vec![commit(1, &[(0, 20)])], "state 20 of 1"),
        (vec![whole(1), whole(1)], "1 is handed out in Reported"),
        (vec![completed(1)], "1 completed from"),
        (vec![whole(1), aborted(1)], "1 aborted by"),
        (vec![aborted(1), aborted(1)], "1 aborted and not in flight"),
        (vec![discard(1, 10), discard(1, 10)], "state 10 of 1"),
        (vec![notify(1)], "1 announced"),
    ] {
        let broken = broken_by(events).unwrap_or_default();
        assert!(broken.starts_with(why), "{why}: {broken}");
    }
    let mut halted = checker();
    halted.halt();
    let limits = Limits { max_concurrent: 9, ..LIMITS };
    assert!(halted.follow(trigger(3), limits).unwrap_err().contains("does not run"));
}

#[test]
fn who_is_not_answered_or_told_something_else_is_found() {
    let mut checker = Checker::new(1);
    checker.follow(trigger(1), LIMITS).unwrap();
    assert!(checker.ended(&[None], 0).unwrap_err().contains("CheckpointId(1)"), "in flight");
    checker.follow(aborted(1), LIMITS).unwrap();
    let reason = Reason::CheckpointExpired;
    let truth = CheckpointOutcome::Failed { id: Some(id(1)), reason };
    assert_eq!(checker.ended(&[Some(truth)], 0), Ok(()));
    for (answers, refused, why) in [
        (vec![None], 0, "never answered"),
        (vec![Some(CheckpointOutcome::Completed(id(1)))], 0, "told Completed"),
        (vec![Some(truth), Some(truth)], 1, "1 answers two requests"),
        (vec![Some(truth)], 1, "1 requests were made, 2 were seen"),
    ] {
        let broken = checker.ended(&answers, refused).unwrap_err();
        assert!(broken.contains(why), "{why}: {broken}");
    }
}
