//! Goal: the coordinator starts, refuses, completes, expires and subsumes exactly as the recorded
//! runs of Flink's own classes did, and gives up on the job at the same failure.
//!
//! Method: `tests/data/flink/policy.jsonl` is played, case by case, by `tidegate::inspect::simulate`,
//! which drives the coordinator's public core under a virtual clock and fails when a state is lost
//! or the statistics say something else than the events. The events must be equal, in order and to
//! the millisecond. A key that is not known fails it, so that nothing in newer data is silently
//! ignored.

#![allow(clippy::expect_used, reason = "a test fails by panicking, in its helping functions too")]

use serde_json::Value;
use tidegate::inspect::{PolicyCase, SimulatedPolicy, simulate};

/// A case as it was recorded, and what the coordinator does with it.
struct Played {
    recorded: Value,
    simulated: SimulatedPolicy,
}

fn play(line: &str) -> Played {
    let recorded: Value = serde_json::from_str(line).expect("a JSON line");
    let case: PolicyCase = serde_json::from_str(line).expect("a case without unknown keys");
    let simulated = simulate(case).expect("every promise is kept");
    Played { recorded, simulated }
}

/// The first difference, with what led to it.
fn compare(Played { recorded, simulated }: &Played) -> Result<usize, String> {
    let mut played = serde_json::to_value(simulated).expect("JSON");
    let events = |value: &Value| value.get("events").and_then(Value::as_array).cloned();
    let flink = events(recorded).expect("events");
    let tidegate = events(&played).expect("events");
    let longest = flink.len().max(tidegate.len());
    if let Some(at) = (0..longest).find(|&i| flink.get(i) != tidegate.get(i)) {
        return Err(format!(
            "case {}, event {at} of {}:\n  flink    {:?}\n  tidegate {:?}\n  before   {:?}\n  with {:?}",
            simulated.case.case,
            flink.len(),
            flink.get(at).map(Value::to_string),
            tidegate.get(at).map(Value::to_string),
            flink.get(at.saturating_sub(4)..at),
            simulated.case.config,
        ));
    }
    // Nothing that was recorded was left out or replaced by a default.
    let summary = played.as_object_mut().and_then(|played| played.remove("summary"));
    assert!(summary.is_some() && played == *recorded, "{played}\nis not\n{recorded}");
    Ok(flink.len())
}

#[test]
fn every_recorded_run_of_flink_is_repeated_event_by_event() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/flink/policy.jsonl");
    let text = std::fs::read_to_string(path).expect(path);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    assert!(!lines.is_empty(), "{path} has no case");
    let compared: Vec<_> = lines.iter().map(|line| compare(&play(line))).collect();
    let failed: Vec<_> = compared.iter().filter_map(|one| one.as_ref().err()).collect();
    let shown = failed.iter().take(3).map(|why| why.as_str()).collect::<Vec<_>>().join("\n");
    assert!(failed.is_empty(), "{} of {} cases differ:\n{shown}", failed.len(), lines.len());
    let events: usize = compared.iter().flatten().sum();
    println!("{} cases of Flink's policy replayed, {events} events", compared.len());
}
