//! Goal: the coordinator starts, refuses, completes, expires and subsumes exactly as the recorded
//! runs of Flink's own classes did, and gives up on the job at the same failure.
//!
//! Method: `tests/data/flink/policy.jsonl` is replayed, case by case, through the public core of the
//! coordinator under a virtual clock. The replay plays the tasks (which acknowledge or decline when
//! the case says so) and a store whose commits take no time. The events must be equal, in order and
//! to the millisecond. Keys that the replay does not know fail it, so that nothing in newer data is
//! silently ignored.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tidegate::CheckpointId;
use tidegate::coordinator::{
    Acknowledged, Coordinator, CoordinatorHandle, CoordinatorSettings, Event, RequestKind,
};
use tidegate::message::{CheckpointFailureReason, CheckpointType};

/// More than one acknowledgement word's worth.
const TASKS: u32 = 35;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    Complete,
    Decline,
}

/// How the n-th checkpoint behaves: its end, after so many milliseconds; `None` hangs.
type Attempt = Option<(u64, Outcome)>;

struct Case {
    name: String,
    settings: CoordinatorSettings,
    first_trigger_ms: u64,
    until_ms: u64,
    attempts: Vec<Attempt>,
    requests: Vec<(u64, CheckpointType)>,
    events: Vec<Value>,
}

fn object<'a>(value: &'a Value, keys: &[&str]) -> &'a Map<String, Value> {
    let object = value.as_object().expect("an object");
    let found: BTreeSet<&str> = object.keys().map(String::as_str).collect();
    assert_eq!(found, keys.iter().copied().collect(), "keys of {value}");
    object
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is not a number of milliseconds"))
}

fn millis(value: &Value) -> Duration {
    Duration::from_millis(number(value))
}

fn read_settings(value: &Value) -> CoordinatorSettings {
    let keys =
        ["interval_ms", "min_pause_ms", "timeout_ms", "max_concurrent", "tolerable_failures"];
    let config = object(value, &[&keys[..], &["unaligned"]].concat());
    let count = |value: &Value| u32::try_from(number(value)).expect("a count");
    let tolerable = &config["tolerable_failures"];
    CoordinatorSettings {
        period: Some(millis(&config["interval_ms"])),
        min_pause: millis(&config["min_pause_ms"]),
        timeout: millis(&config["timeout_ms"]),
        max_concurrent: count(&config["max_concurrent"]),
        tolerable_failures: (!tolerable.is_null()).then(|| count(tolerable)),
        unaligned: config["unaligned"].as_bool().expect("a flag"),
        ..CoordinatorSettings::default()
    }
}

fn read_attempt(value: &Value) -> Attempt {
    let attempt = object(value, &["ms", "outcome"]);
    match attempt["outcome"].as_str() {
        Some("complete") => Some((number(&attempt["ms"]), Outcome::Complete)),
        Some("decline") => Some((number(&attempt["ms"]), Outcome::Decline)),
        Some("hang") if attempt["ms"].is_null() => None,
        _ => panic!("unknown attempt {value}"),
    }
}

fn read_request(value: &Value) -> (u64, CheckpointType) {
    let request = object(value, &["at_ms", "kind"]);
    let kind = match request["kind"].as_str() {
        Some("checkpoint") => CheckpointType::Checkpoint,
        Some("savepoint") => CheckpointType::Savepoint,
        _ => panic!("unknown request {value}"),
    };
    (number(&request["at_ms"]), kind)
}

fn read_case(line: &str) -> Case {
    let value: Value = serde_json::from_str(line).expect("a JSON line");
    let keys = ["case", "config", "first_trigger_ms", "until_ms", "attempts", "requests", "events"];
    let case = object(&value, &keys);
    let list = |key: &str| case[key].as_array().expect("a list");
    Case {
        name: case["case"].to_string(),
        settings: read_settings(&case["config"]),
        first_trigger_ms: number(&case["first_trigger_ms"]),
        until_ms: number(&case["until_ms"]),
        attempts: list("attempts").iter().map(read_attempt).collect(),
        requests: list("requests").iter().map(read_request).collect(),
        events: list("events").clone(),
    }
}

/// The tasks, the store and the clock around one coordinator.
struct Replay<'a> {
    case: &'a Case,
    coordinator: Coordinator<u64>,
    handle: CoordinatorHandle<u64>,
    now_ms: u64,
    /// When which checkpoint ends, and how.
    ends: BTreeMap<(u64, CheckpointId), Outcome>,
    /// Commits that the store has done and not reported.
    committed: Vec<CheckpointId>,
    recorded: Vec<Value>,
    /// States that went in minus states that came out.
    states: i64,
    job_failed: bool,
}

impl<'a> Replay<'a> {
    fn new(case: &'a Case) -> Self {
        let settings = case.settings.clone();
        let mut coordinator =
            Coordinator::new(settings, TASKS, CheckpointId(1), None, Arc::new(|| {})).unwrap();
        coordinator.start_periodic(Duration::ZERO, Duration::from_millis(case.first_trigger_ms));
        let handle = coordinator.handle();
        Self {
            case,
            coordinator,
            handle,
            now_ms: 0,
            ends: BTreeMap::new(),
            committed: Vec::new(),
            recorded: Vec::new(),
            states: 0,
            job_failed: false,
        }
    }

    fn run(mut self) -> Vec<Value> {
        let mut requests = self.case.requests.iter().peekable();
        let mut turns = 0;
        while !self.job_failed {
            turns += 1;
            assert!(turns < 1_000_000, "nothing moves at {} ms", self.now_ms);
            let deadline = self.coordinator.next_deadline().map(|at| at.as_millis());
            let deadline = deadline.map(|at| u64::try_from(at).unwrap());
            let end = self.ends.keys().next().map(|&(at, _)| at);
            let request = requests.peek().map(|&&(at, _)| at);
            let Some(next) = [deadline, end, request].into_iter().flatten().min() else {
                break;
            };
            if next > self.case.until_ms {
                break;
            }
            assert!(next >= self.now_ms, "time goes back");
            self.now_ms = next;
            self.end_attempts();
            if self.job_failed {
                break;
            }
            while let Some((_, kind)) = requests.next_if(|&&(at, _)| at == next) {
                let _outcome = self.handle.submit(*kind);
            }
            self.coordinator.step(Duration::from_millis(next), next);
            self.drain();
        }
        self.check_statistics();
        self.recorded
    }

    /// The attempts that end now, by id, each with its consequences.
    fn end_attempts(&mut self) {
        while let Some(entry) = self.ends.first_entry()
            && entry.key().0 == self.now_ms
            && !self.job_failed
        {
            let ((_, id), outcome) = entry.remove_entry();
            match outcome {
                Outcome::Complete => (0..TASKS).rev().for_each(|task| self.acknowledge(id, task)),
                Outcome::Decline => {
                    self.acknowledge(id, 7);
                    let reason = CheckpointFailureReason::CheckpointDeclined;
                    self.handle.decline(id, 3, reason);
                    assert!(!self.handle.decline(id, 4, reason), "a second decline decided");
                    self.acknowledge(id, 5);
                }
            }
            self.settle();
        }
    }

    fn acknowledge(&mut self, id: CheckpointId, task: u32) {
        match self.handle.acknowledge(id, task, id.0) {
            Acknowledged::Accepted => self.states += 1,
            Acknowledged::Late(state) => assert_eq!(state, id.0),
            other => panic!("acknowledgement of {id} by {task}: {other:?}"),
        }
    }

    fn settle(&mut self) {
        let now = Duration::from_millis(self.now_ms);
        self.coordinator.settle(now);
        self.drain();
        for id in std::mem::take(&mut self.committed) {
            self.handle.commit_finished(id, Ok(()));
            self.coordinator.settle(now);
            self.drain();
        }
    }

    fn drain(&mut self) {
        while let Some(event) = self.coordinator.next_event() {
            assert!(!self.job_failed, "{event:?} after the job failed");
            self.take(event);
        }
    }

    fn take(&mut self, event: Event<u64>) {
        let at_ms = self.now_ms;
        match event {
            Event::Trigger { barrier, kind } => {
                let id = barrier.id;
                assert_eq!(barrier.timestamp_ms, at_ms);
                let nth = usize::try_from(id.0 - 1).unwrap() % self.case.attempts.len();
                if let Some((after, outcome)) = self.case.attempts[nth] {
                    self.ends.insert((at_ms + after, id), outcome);
                }
                self.record(json!({"event": "triggered", "id": id.0, "kind": name(kind)}));
            }
            Event::Commit(commit) => {
                let expected: Vec<_> = (0..TASKS).map(|task| (task, commit.id.0)).collect();
                assert_eq!(commit.acknowledged, expected);
                self.states -= i64::from(TASKS);
                self.committed.push(commit.id);
            }
            Event::Completed { id, .. } => {
                self.record(json!({"event": "completed", "id": id.0}));
            }
            Event::Aborted { id, reason, declined_by, .. } => {
                let (event, by) = match reason {
                    CheckpointFailureReason::CheckpointExpired => ("expired", None),
                    CheckpointFailureReason::CheckpointSubsumed => ("subsumed", None),
                    CheckpointFailureReason::CheckpointDeclined => ("declined", Some(3)),
                    other => panic!("{id} aborted by {other}"),
                };
                assert_eq!(declined_by, by);
                self.record(json!({"event": event, "id": id.0}));
            }
            Event::Rejected { kind, reason } => {
                let reason = reason.flink_name().to_lowercase();
                self.record(json!({"event": "rejected", "kind": name(kind), "reason": reason}));
            }
            Event::Discard { id, state, .. } => {
                assert_eq!(state, id.0);
                self.states -= 1;
            }
            Event::JobFailed { .. } => {
                self.record(json!({"event": "job_failed"}));
                self.job_failed = true;
            }
            _ => {}
        }
    }

    fn record(&mut self, mut event: Value) {
        event["at_ms"] = self.now_ms.into();
        self.recorded.push(event);
    }

    /// The counts say what the events said, and no state is lost.
    fn check_statistics(&self) {
        let seen = |names: &[&str]| {
            let is_named = |event: &&Value| names.contains(&event["event"].as_str().unwrap());
            self.recorded.iter().filter(is_named).count() as u64
        };
        let counts = self.handle.counts();
        assert_eq!(counts.total, seen(&["triggered"]));
        assert_eq!(counts.completed, seen(&["completed"]));
        assert_eq!(counts.failed, seen(&["declined", "expired", "subsumed"]));
        assert_eq!(counts.in_progress, counts.total - counts.completed - counts.failed);
        assert_eq!(self.states, 0, "states that are neither committed nor discarded");
    }
}

fn name(kind: RequestKind) -> String {
    kind.to_string()
}

/// The first difference, with what led to it.
fn compare(case: &Case, replayed: &[Value]) -> Result<(), String> {
    let longest = case.events.len().max(replayed.len());
    let differs = (0..longest).find(|&i| case.events.get(i) != replayed.get(i));
    let Some(at) = differs else { return Ok(()) };
    let before = &case.events[at.saturating_sub(4)..at];
    Err(format!(
        "case {}, event {at} of {}:\n  flink    {:?}\n  tidegate {:?}\n  before   {before:?}\n  with {:?}",
        case.name,
        case.events.len(),
        case.events.get(at).map(Value::to_string),
        replayed.get(at).map(Value::to_string),
        case.settings,
    ))
}

#[test]
fn every_recorded_run_of_flink_is_repeated_event_by_event() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/flink/policy.jsonl");
    let text = std::fs::read_to_string(path).expect(path);
    let cases: Vec<Case> =
        text.lines().filter(|line| !line.trim().is_empty()).map(read_case).collect();
    assert!(!cases.is_empty(), "{path} has no case");
    let events: usize = cases.iter().map(|case| case.events.len()).sum();
    let failed: Vec<String> =
        cases.iter().filter_map(|case| compare(case, &Replay::new(case).run()).err()).collect();
    let shown = failed.iter().take(3).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(failed.is_empty(), "{} of {} cases differ:\n{shown}", failed.len(), cases.len());
    println!("{} cases of Flink's policy replayed, {events} events", cases.len());
}
