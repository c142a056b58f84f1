//! Goal: cases are read strictly, have the promised defaults, stay within bounds, and their results
//! can be read back. Method: cases as JSON and as values, without the command line.

use super::*;
use crate::error::ErrorKind;
use crate::limits::SUBMITTED_REQUESTS_MAX;

const SHORTEST: &str =
    r#"{"case":"a","config":{"interval_ms":100},"attempts":[{"outcome":"hang"}]}"#;

fn read(text: &str) -> Result<PolicyCase, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn complete_in(ms: u64) -> PolicyCase {
    PolicyCase::new("a", PolicyConfig::new(100), vec![PolicyAttempt::Complete(ms)])
}

#[test]
fn what_is_missing_has_its_default() {
    let case = read(SHORTEST).unwrap();
    assert_eq!(case, PolicyCase::new("a", PolicyConfig::new(100), vec![PolicyAttempt::Hang]));
    assert_eq!((case.first_trigger_ms, case.until_ms, case.requests), (100, 6_000, vec![]));
    let PolicyConfig { min_pause_ms, timeout_ms, max_concurrent, .. } = case.config;
    assert_eq!((min_pause_ms, timeout_ms, max_concurrent), (0, 600_000, 1));
    assert_eq!((case.config.tolerable_failures, case.config.unaligned), (Some(0), false));

    let paused = SHORTEST.replace("100", "100,\"min_pause_ms\":250,\"tolerable_failures\":null");
    let case = read(&paused).unwrap();
    assert_eq!((case.first_trigger_ms, case.until_ms), (250, 15_000));
    assert_eq!(case.config.tolerable_failures, None);
}

#[test]
fn what_is_wrong_is_named_by_its_key() {
    for (from, to, why) in [
        ("\"case\"", "\"cases\"", "unknown field `cases`"),
        ("interval_ms", "interval", "config: unknown field `interval`"),
        ("{\"outcome\"", "{\"why\":1,\"outcome\"", "attempts: unknown field `why`"),
        ("\"case\":\"a\",", "", "case: is missing"),
        ("\"case\":\"a\"", "\"case\":\"a\",\"case\":\"b\"", "duplicate field `case`"),
        ("100", "\"100\"", "config: interval_ms: invalid type: string \"100\", expected u64"),
        ("100", "-1", "config: interval_ms: invalid value: integer `-1`"),
        ("100", "0", "config: interval_ms: is zero"),
        ("100", "100,\"timeout_ms\":0", "config: timeout_ms: is zero"),
        ("100", "100,\"max_concurrent\":0", "config: max_concurrent: 0, allowed are 1 to 1024"),
        ("100", "100,\"max_concurrent\":1025", "config: max_concurrent: 1025, allowed are"),
        ("100", "100,\"unaligned\":null", "config: unaligned: invalid type: null"),
        ("{\"outcome\":\"hang\"}", "", "attempts: is empty"),
        ("hang", "fly", "attempts: outcome: unknown variant `fly`"),
        ("hang", "decline", "attempts: ms: is missing"),
        ("\"outcome\":\"hang\"", "\"ms\":1,\"outcome\":\"hang\"", "attempts: ms: what hangs never"),
        ("}]}", "}],\"requests\":[{\"at_ms\":1}]}", "requests: kind: is missing"),
        ("}]}", "}],\"until_ms\":100000100}", "until_ms: the timer would fire more than"),
    ] {
        let error = read(&SHORTEST.replacen(from, to, 1)).unwrap_err();
        assert!(error.starts_with(why), "{to}: {error}");
    }
    assert!(read("[1]").unwrap_err().starts_with("invalid type: sequence, expected a case"));
}

#[test]
fn a_result_reads_back_as_its_case_and_gives_itself_again() {
    let mut case = complete_in(30);
    case.requests.push(PolicyRequest { at_ms: 320, kind: PolicyRequestKind::Savepoint });
    let simulated = simulate(case.clone()).unwrap();
    let json = serde_json::to_string(&simulated).unwrap();
    let again = read(&json).unwrap();
    assert_eq!(again, case);
    assert_eq!(simulate(again).unwrap(), simulated);
}

#[test]
fn a_policy_ticks_as_its_period_says() {
    let mut case = complete_in(30);
    case.until_ms = 330;
    let simulated = simulate(case).unwrap();
    let times: Vec<_> = simulated.events.iter().map(|event| event.at_ms).collect();
    assert_eq!(times, [100, 130, 200, 230, 300, 330]);
    assert_eq!(simulated.summary.checkpoints.completed, 3);
    assert_eq!(simulated.summary.longest_gap_ms, Some(100));
}

#[test]
fn requests_may_come_in_any_order_of_time() {
    let request = |at_ms, kind| PolicyRequest { at_ms, kind };
    let mut case = complete_in(5);
    case.until_ms = 99;
    case.requests =
        vec![request(50, PolicyRequestKind::Checkpoint), request(20, PolicyRequestKind::Savepoint)];
    let simulated = simulate(case).unwrap();
    let times: Vec<_> = simulated.events.iter().map(|event| event.at_ms).collect();
    assert_eq!(times, [20, 25, 50, 55]);
}

#[test]
fn a_case_that_is_made_by_hand_is_checked_too() {
    let kind = PolicyRequestKind::Checkpoint;
    let mut crowded = complete_in(1);
    crowded.requests = vec![PolicyRequest { at_ms: 7, kind }; SUBMITTED_REQUESTS_MAX + 1];
    let mut endless = complete_in(1);
    endless.until_ms = u64::MAX;
    let mut never = complete_in(1);
    never.attempts.clear();
    for (case, why) in [(crowded, "at 7 ms"), (endless, "until_ms"), (never, "attempts")] {
        let error = simulate(case).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[test]
fn the_longest_times_neither_overflow_nor_stand_still() {
    let mut case = complete_in(u64::MAX);
    case.config = PolicyConfig::new(u64::MAX);
    case.config.timeout_ms = u64::MAX;
    (case.first_trigger_ms, case.until_ms) = (u64::MAX, u64::MAX);
    case.requests = vec![PolicyRequest { at_ms: 1, kind: PolicyRequestKind::Checkpoint }];
    let checkpoints = simulate(case).unwrap().summary.checkpoints;
    assert_eq!((checkpoints.triggered, checkpoints.completed), (1, 0));
}
