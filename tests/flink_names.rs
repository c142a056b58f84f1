//! Goal: every name of PyFlink's `CheckpointConfig` works here and stands in `docs/flink.md`.
//! Method: the names as a list; each must be written in a row of a table of the document, and each is
//! called with its default, a good and a bad input by a match that fails for a name it does not know.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a wrong answer must fail the test")]

use std::fmt::Debug;

use tidegate::config::CheckpointConfig;
use tidegate::config::CheckpointingMode::{AtLeastOnce, ExactlyOnce};
use tidegate::config::ExternalizedCheckpointCleanup::{
    self, DeleteOnCancellation, NoExternalizedCheckpoints, RetainOnCancellation,
};
use tidegate::{ErrorKind, Result};

const DOCUMENT: &str = include_str!("../docs/flink.md");

const METHODS: [&str; 31] = [
    "is_checkpointing_enabled",
    "get_checkpointing_mode",
    "set_checkpointing_mode",
    "get_checkpoint_interval",
    "set_checkpoint_interval",
    "get_checkpoint_timeout",
    "set_checkpoint_timeout",
    "get_min_pause_between_checkpoints",
    "set_min_pause_between_checkpoints",
    "get_max_concurrent_checkpoints",
    "set_max_concurrent_checkpoints",
    "is_fail_on_checkpointing_errors",
    "set_fail_on_checkpointing_errors",
    "get_tolerable_checkpoint_failure_number",
    "set_tolerable_checkpoint_failure_number",
    "enable_externalized_checkpoints",
    "set_externalized_checkpoint_cleanup",
    "get_externalized_checkpoint_cleanup",
    "set_externalized_checkpoint_retention",
    "get_externalized_checkpoint_retention",
    "is_externalized_checkpoints_enabled",
    "is_unaligned_checkpoints_enabled",
    "enable_unaligned_checkpoints",
    "disable_unaligned_checkpoints",
    "get_alignment_timeout",
    "set_alignment_timeout",
    "is_force_unaligned_checkpoints",
    "set_force_unaligned_checkpoints",
    "set_checkpoint_storage",
    "set_checkpoint_storage_dir",
    "get_checkpoint_storage",
];

const CONSTANTS: [&str; 7] = [
    "DEFAULT_MODE",
    "DEFAULT_TIMEOUT",
    "DEFAULT_MIN_PAUSE_BETWEEN_CHECKPOINTS",
    "DEFAULT_MAX_CONCURRENT_CHECKPOINTS",
    "DELETE_ON_CANCELLATION",
    "RETAIN_ON_CANCELLATION",
    "NO_EXTERNALIZED_CHECKPOINTS",
];

#[test]
fn every_name_has_a_row_in_the_document() {
    let rows: Vec<_> = DOCUMENT.lines().filter(|line| line.starts_with('|')).collect();
    let is_missing = |name: &&str| {
        let name = format!("`{name}`");
        !rows.iter().any(|row| row.contains(&name))
    };
    let missing: Vec<_> = METHODS.into_iter().chain(CONSTANTS).filter(is_missing).collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn every_method_has_flinks_default_takes_good_input_and_refuses_bad_input() {
    METHODS.into_iter().for_each(call);
}

#[test]
fn every_constant_has_flinks_value() {
    CONSTANTS.into_iter().for_each(constant);
}

fn new() -> CheckpointConfig {
    CheckpointConfig::new()
}

/// The default comes out of a new configuration, and what was set comes out afterwards.
#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "the calls read better with plain values")]
fn reads<T: PartialEq + Debug>(
    read: impl Fn(&CheckpointConfig) -> T,
    default: T,
    set: impl Fn(&mut CheckpointConfig),
    then: T,
) {
    let mut config = new();
    assert_eq!(read(&config), default);
    set(&mut config);
    assert_eq!(read(&config), then);
}

/// The setter takes the good values, the bound among them, and refuses the bad ones unchanged.
#[track_caller]
fn bounds<T: Copy + PartialEq + Debug>(
    set: impl Fn(&mut CheckpointConfig, T) -> Result<()>,
    read: impl Fn(&CheckpointConfig) -> T,
    good: &[T],
    bad: &[T],
) {
    for &value in good {
        let mut config = new();
        set(&mut config, value).unwrap();
        assert_eq!(read(&config), value);
    }
    for &value in bad {
        let mut config = new();
        assert_eq!(set(&mut config, value).unwrap_err().kind(), ErrorKind::Invalid, "{value:?}");
        assert_eq!(config, new(), "{value:?}");
    }
}

fn call(name: &str) {
    match name {
        "is_checkpointing_enabled"
        | "get_checkpoint_interval"
        | "set_checkpoint_interval"
        | "get_checkpoint_timeout"
        | "set_checkpoint_timeout"
        | "get_min_pause_between_checkpoints"
        | "set_min_pause_between_checkpoints"
        | "get_alignment_timeout"
        | "set_alignment_timeout" => times(name),
        "get_max_concurrent_checkpoints"
        | "set_max_concurrent_checkpoints"
        | "get_tolerable_checkpoint_failure_number"
        | "set_tolerable_checkpoint_failure_number" => counts(name),
        "is_fail_on_checkpointing_errors"
        | "set_fail_on_checkpointing_errors"
        | "is_unaligned_checkpoints_enabled"
        | "enable_unaligned_checkpoints"
        | "disable_unaligned_checkpoints"
        | "is_force_unaligned_checkpoints"
        | "set_force_unaligned_checkpoints" => flags(name),
        "get_checkpointing_mode"
        | "set_checkpointing_mode"
        | "enable_externalized_checkpoints"
        | "set_externalized_checkpoint_cleanup"
        | "get_externalized_checkpoint_cleanup"
        | "set_externalized_checkpoint_retention"
        | "get_externalized_checkpoint_retention"
        | "is_externalized_checkpoints_enabled" => choices(name),
        _ => places(name),
    }
}

fn times(name: &str) {
    let interval = |c: &mut CheckpointConfig, ms| c.set_checkpoint_interval(ms).map(drop);
    let timeout = |c: &mut CheckpointConfig, ms| c.set_checkpoint_timeout(ms).map(drop);
    let pause = |c: &mut CheckpointConfig, ms| c.set_min_pause_between_checkpoints(ms).map(drop);
    let alignment = |c: &mut CheckpointConfig, ms| c.set_alignment_timeout(ms).map(drop);
    match name {
        "is_checkpointing_enabled" => {
            let read = CheckpointConfig::is_checkpointing_enabled;
            reads(read, false, |c| assert!(interval(c, 0).is_err()), false);
            reads(read, false, |c| interval(c, 10).unwrap(), true);
        }
        "get_checkpoint_interval" => {
            let read = CheckpointConfig::checkpoint_interval;
            reads(read, -1, |c| interval(c, 7_000).unwrap(), 7_000);
        }
        "set_checkpoint_interval" => {
            let read = CheckpointConfig::checkpoint_interval;
            bounds(interval, read, &[10, i64::MAX], &[9, 0, -1, i64::MIN]);
        }
        "get_checkpoint_timeout" => {
            let read = CheckpointConfig::checkpoint_timeout;
            reads(read, 600_000, |c| timeout(c, 7_000).unwrap(), 7_000);
        }
        "set_checkpoint_timeout" => {
            let read = CheckpointConfig::checkpoint_timeout;
            bounds(timeout, read, &[10, i64::MAX], &[9, 0, -1, i64::MIN]);
        }
        "get_min_pause_between_checkpoints" => {
            let read = CheckpointConfig::min_pause_between_checkpoints;
            reads(read, 0, |c| pause(c, 7_000).unwrap(), 7_000);
        }
        "set_min_pause_between_checkpoints" => {
            let read = CheckpointConfig::min_pause_between_checkpoints;
            bounds(pause, read, &[0, i64::MAX], &[-1, i64::MIN]);
        }
        "get_alignment_timeout" => {
            let read = CheckpointConfig::alignment_timeout;
            reads(read, 0, |c| alignment(c, 7_000).unwrap(), 7_000);
        }
        "set_alignment_timeout" => {
            let read = CheckpointConfig::alignment_timeout;
            bounds(alignment, read, &[0, i64::MAX], &[-1, i64::MIN]);
        }
        other => panic!("unknown name {other:?}"),
    }
}

fn counts(name: &str) {
    let concurrent = |c: &mut CheckpointConfig, n| c.set_max_concurrent_checkpoints(n).map(drop);
    let tolerable =
        |c: &mut CheckpointConfig, n| c.set_tolerable_checkpoint_failure_number(n).map(drop);
    match name {
        "get_max_concurrent_checkpoints" => {
            let read = CheckpointConfig::max_concurrent_checkpoints;
            reads(read, 1, |c| concurrent(c, 7).unwrap(), 7);
        }
        "set_max_concurrent_checkpoints" => {
            let read = CheckpointConfig::max_concurrent_checkpoints;
            bounds(concurrent, read, &[1, i32::MAX], &[0, -1, i32::MIN]);
        }
        "get_tolerable_checkpoint_failure_number" => {
            let read = CheckpointConfig::tolerable_checkpoint_failure_number;
            reads(read, 0, |c| tolerable(c, 7).unwrap(), 7);
        }
        "set_tolerable_checkpoint_failure_number" => {
            let read = CheckpointConfig::tolerable_checkpoint_failure_number;
            bounds(tolerable, read, &[0, i32::MAX], &[-1, i32::MIN]);
        }
        other => panic!("unknown name {other:?}"),
    }
}

/// A flag has no bad input.
fn flags(name: &str) {
    match name {
        "is_fail_on_checkpointing_errors" => {
            let read = CheckpointConfig::is_fail_on_checkpointing_errors;
            let tolerate = |c: &mut CheckpointConfig| {
                c.set_tolerable_checkpoint_failure_number(1).unwrap();
            };
            reads(read, true, tolerate, false);
        }
        "set_fail_on_checkpointing_errors" => {
            let read = CheckpointConfig::tolerable_checkpoint_failure_number;
            let set = |c: &mut CheckpointConfig, fail| {
                c.set_fail_on_checkpointing_errors(fail);
            };
            reads(read, 0, |c| set(c, true), 0);
            reads(read, 0, |c| set(c, false), i32::MAX);
        }
        "is_unaligned_checkpoints_enabled" | "enable_unaligned_checkpoints" => {
            let read = CheckpointConfig::is_unaligned_checkpoints_enabled;
            reads(
                read,
                false,
                |c| {
                    c.enable_unaligned_checkpoints(true);
                },
                true,
            );
            reads(
                read,
                false,
                |c| {
                    c.enable_unaligned_checkpoints(false);
                },
                false,
            );
        }
        "disable_unaligned_checkpoints" => {
            let read = CheckpointConfig::is_unaligned_checkpoints_enabled;
            let off = |c: &mut CheckpointConfig| {
                c.enable_unaligned_checkpoints(true).disable_unaligned_checkpoints();
            };
            reads(read, false, off, false);
        }
        "is_force_unaligned_checkpoints" | "set_force_unaligned_checkpoints" => {
            let read = CheckpointConfig::is_force_unaligned_checkpoints;
            reads(
                read,
                false,
                |c| {
                    c.set_force_unaligned_checkpoints(true);
                },
                true,
            );
            reads(
                read,
                false,
                |c| {
                    c.set_force_unaligned_checkpoints(false);
                },
                false,
            );
        }
        other => panic!("unknown name {other:?}"),
    }
}

/// The bad input of a choice is a word that names none.
fn choices(name: &str) {
    let default = NoExternalizedCheckpoints;
    match name {
        "get_checkpointing_mode" | "set_checkpointing_mode" => {
            let set = |c: &mut CheckpointConfig| {
                c.set_checkpointing_mode("at_least_once".parse().unwrap());
            };
            reads(CheckpointConfig::checkpointing_mode, ExactlyOnce, set, AtLeastOnce);
            let bad = "at-least-once".parse::<tidegate::config::CheckpointingMode>();
            assert_eq!(bad.unwrap_err().kind(), ErrorKind::Invalid);
            return;
        }
        "enable_externalized_checkpoints" => {
            let set = |c: &mut CheckpointConfig| {
                c.enable_externalized_checkpoints(word("RETAIN"));
            };
            let read = CheckpointConfig::externalized_checkpoint_cleanup;
            reads(read, default, set, RetainOnCancellation);
        }
        "get_externalized_checkpoint_cleanup" | "set_externalized_checkpoint_cleanup" => {
            let set = |c: &mut CheckpointConfig| {
                c.set_externalized_checkpoint_cleanup(word("DELETE"));
            };
            let read = CheckpointConfig::externalized_checkpoint_cleanup;
            reads(read, default, set, DeleteOnCancellation);
        }
        "get_externalized_checkpoint_retention" | "set_externalized_checkpoint_retention" => {
            let set = |c: &mut CheckpointConfig| {
                c.set_externalized_checkpoint_retention(word("RETAIN"));
            };
            let read = CheckpointConfig::externalized_checkpoint_retention;
            reads(read, default, set, RetainOnCancellation);
        }
        "is_externalized_checkpoints_enabled" => {
            let read = CheckpointConfig::is_externalized_checkpoints_enabled;
            let set = |c: &mut CheckpointConfig, to| {
                c.set_externalized_checkpoint_cleanup(to);
            };
            reads(read, false, |c| set(c, DeleteOnCancellation), true);
            reads(read, false, |c| set(c, NoExternalizedCheckpoints), false);
        }
        other => panic!("unknown name {other:?}"),
    }
    let bad = "RETAIN".parse::<ExternalizedCheckpointCleanup>();
    assert_eq!(bad.unwrap_err().kind(), ErrorKind::Invalid);
}

fn word(begin: &str) -> ExternalizedCheckpointCleanup {
    format!("{begin}_ON_CANCELLATION").parse().unwrap()
}

fn places(name: &str) {
    let storage = |c: &CheckpointConfig| c.checkpoint_storage().map(str::to_owned);
    let dir = |c: &CheckpointConfig| c.checkpoint_storage_dir().map(str::to_owned);
    let owned = |text: &str| Some(text.to_owned());
    match name {
        "get_checkpoint_storage" | "set_checkpoint_storage" => {
            let set = |c: &mut CheckpointConfig| {
                c.set_checkpoint_storage("memory:").unwrap();
            };
            reads(storage, None, set, owned("memory:"));
            refuses("", |c, text| c.set_checkpoint_storage(text).map(drop));
        }
        "set_checkpoint_storage_dir" => {
            let set = |c: &mut CheckpointConfig| {
                c.set_checkpoint_storage_dir("file:///a/b/").unwrap();
            };
            reads(dir, None, set, owned("file:///a/b"));
            reads(storage, None, set, owned("file:///a/b"));
            for bad in ["", "/", "file:///", "s3://bucket"] {
                refuses(bad, |c, text| c.set_checkpoint_storage_dir(text).map(drop));
            }
        }
        other => panic!("unknown name {other:?}"),
    }
}

#[track_caller]
fn refuses(bad: &str, set: impl Fn(&mut CheckpointConfig, &str) -> Result<()>) {
    let mut config = new();
    assert_eq!(set(&mut config, bad).unwrap_err().kind(), ErrorKind::Invalid, "{bad:?}");
    assert_eq!(config, new());
}

fn constant(name: &str) {
    match name {
        "DEFAULT_MODE" => assert_eq!(CheckpointConfig::DEFAULT_MODE, ExactlyOnce),
        "DEFAULT_TIMEOUT" => assert_eq!(CheckpointConfig::DEFAULT_TIMEOUT, 600_000),
        "DEFAULT_MIN_PAUSE_BETWEEN_CHECKPOINTS" => {
            assert_eq!(CheckpointConfig::DEFAULT_MIN_PAUSE_BETWEEN_CHECKPOINTS, 0);
        }
        "DEFAULT_MAX_CONCURRENT_CHECKPOINTS" => {
            assert_eq!(CheckpointConfig::DEFAULT_MAX_CONCURRENT_CHECKPOINTS, 1);
        }
        "DELETE_ON_CANCELLATION" => assert_eq!(DeleteOnCancellation.flink_name(), name),
        "RETAIN_ON_CANCELLATION" => assert_eq!(RetainOnCancellation.flink_name(), name),
        "NO_EXTERNALIZED_CHECKPOINTS" => assert_eq!(NoExternalizedCheckpoints.flink_name(), name),
        other => panic!("unknown name {other:?}"),
    }
}
