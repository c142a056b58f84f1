//! Goal: the raw configuration object answers as Flink 1.20.1 does. Method: replay recorded runs of
//! Flink's own class, every call and every getter, with exact equality.
//!
//! One difference is meant: a negative alignment timeout is refused here, and only that call.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a wrong record must fail the test")]

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tidegate::Result;
use tidegate::config::CheckpointConfig;

const RECORD: &str = include_str!("data/flink/config.jsonl");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    #[serde(rename = "case")]
    number: Value,
    calls: Vec<Call>,
    getters: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    #[serde(rename = "call")]
    name: String,
    arg: Value,
    outcome: String,
}

#[test]
fn every_recorded_run_of_flinks_config_is_repeated_exactly() {
    let mut cases = 0;
    let mut calls = 0;
    for line in RECORD.lines() {
        let case: Case = serde_json::from_str(line).unwrap();
        let mut config = CheckpointConfig::new();
        for call in &case.calls {
            let expected = expected_outcome(call);
            let found = if make(&mut config, call).is_ok() { "ok" } else { "error" };
            assert_eq!(found, expected, "case {}: {} {}", case.number, call.name, call.arg);
            calls += 1;
        }
        assert_eq!(getters(&config), expected_getters(&case), "case {}", case.number);
        cases += 1;
    }
    println!("{cases} cases with {calls} calls");
    assert!(cases > 0 && calls > 0, "the record is empty");
}

fn is_negative_alignment_timeout(call: &Call) -> bool {
    call.name == "set_alignment_timeout" && number(call) < 0
}

fn expected_outcome(call: &Call) -> &str {
    match call.outcome.as_str() {
        "ok" if is_negative_alignment_timeout(call) => "error",
        outcome @ ("ok" | "error") => outcome,
        other => panic!("unknown outcome {other:?}"),
    }
}

fn make(config: &mut CheckpointConfig, call: &Call) -> Result<()> {
    match call.name.as_str() {
        "set_checkpoint_interval" => config.set_checkpoint_interval(number(call))?,
        "set_checkpoint_timeout" => config.set_checkpoint_timeout(number(call))?,
        "set_min_pause_between_checkpoints" => {
            config.set_min_pause_between_checkpoints(number(call))?
        }
        "set_max_concurrent_checkpoints" => config.set_max_concurrent_checkpoints(count(call))?,
        "set_tolerable_checkpoint_failure_number" => {
            config.set_tolerable_checkpoint_failure_number(count(call))?
        }
        "set_fail_on_checkpointing_errors" => config.set_fail_on_checkpointing_errors(flag(call)),
        "set_checkpointing_mode" => config.set_checkpointing_mode(text(call).parse()?),
        "set_externalized_checkpoint_cleanup" => {
            config.set_externalized_checkpoint_cleanup(text(call).parse()?)
        }
        "enable_externalized_checkpoints" => {
            config.enable_externalized_checkpoints(text(call).parse()?)
        }
        "enable_unaligned_checkpoints" => config.enable_unaligned_checkpoints(flag(call)),
        "disable_unaligned_checkpoints" => {
            assert!(call.arg.is_null());
            config.disable_unaligned_checkpoints()
        }
        "set_force_unaligned_checkpoints" => config.set_force_unaligned_checkpoints(flag(call)),
        "set_alignment_timeout" => config.set_alignment_timeout(number(call))?,
        "set_checkpoint_storage_dir" => config.set_checkpoint_storage_dir(text(call))?,
        other => panic!("unknown call {other:?}"),
    };
    Ok(())
}

/// All getters by PyFlink's names, so that comparing finds an unknown or missing one as well.
fn getters(config: &CheckpointConfig) -> Value {
    json!({
        "is_checkpointing_enabled": config.is_checkpointing_enabled(),
        "get_checkpointing_mode": config.checkpointing_mode().flink_name(),
        "get_checkpoint_interval": config.checkpoint_interval(),
        "get_checkpoint_timeout": config.checkpoint_timeout(),
        "get_min_pause_between_checkpoints": config.min_pause_between_checkpoints(),
        "get_max_concurrent_checkpoints": config.max_concurrent_checkpoints(),
        "is_fail_on_checkpointing_errors": config.is_fail_on_checkpointing_errors(),
        "get_tolerable_checkpoint_failure_number": config.tolerable_checkpoint_failure_number(),
        "is_externalized_checkpoints_enabled": config.is_externalized_checkpoints_enabled(),
        "get_externalized_checkpoint_cleanup":
            config.externalized_checkpoint_cleanup().flink_name(),
        "is_unaligned_checkpoints_enabled": config.is_unaligned_checkpoints_enabled(),
        "get_alignment_timeout": config.alignment_timeout(),
        "is_force_unaligned_checkpoints": config.is_force_unaligned_checkpoints(),
        "checkpoint_storage_dir": config.checkpoint_storage_dir().map(one_spelling),
    })
}

fn expected_getters(case: &Case) -> Value {
    let mut getters = case.getters.clone();
    if case.calls.iter().any(|call| call.outcome == "ok" && is_negative_alignment_timeout(call)) {
        let accepted =
            |call: &&Call| call.name == "set_alignment_timeout" && expected_outcome(call) == "ok";
        let last = case.calls.iter().rev().find(accepted).map_or(json!(0), |call| call.arg.clone());
        getters.insert("get_alignment_timeout".into(), last);
    }
    if let Some(Value::String(dir)) = getters.get_mut("checkpoint_storage_dir") {
        *dir = one_spelling(dir);
    }
    Value::Object(getters)
}

/// `file:///x` and `file:/x` are the same place.
fn one_spelling(dir: &str) -> String {
    match dir.strip_prefix("file:") {
        Some(path) => format!("file:/{}", path.trim_matches('/')),
        None => dir.to_owned(),
    }
}

fn number(call: &Call) -> i64 {
    call.arg.as_i64().unwrap_or_else(|| panic!("{} takes a number, not {}", call.name, call.arg))
}

fn count(call: &Call) -> i32 {
    number(call).try_into().unwrap()
}

fn flag(call: &Call) -> bool {
    call.arg.as_bool().unwrap_or_else(|| panic!("{} takes a bool, not {}", call.name, call.arg))
}

fn text(call: &Call) -> &str {
    call.arg.as_str().unwrap_or_else(|| panic!("{} takes text, not {}", call.name, call.arg))
}
