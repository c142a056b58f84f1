//! Goal: a file that Flink reads gives the configuration that it means, and every key that does not
//! is named. Method: small files, the values that come out, and the sentences about the rest.

use proptest::prelude::*;

use super::*;
use crate::config::keys::PREFIX;
use crate::config::{CheckpointingMode, ExternalizedCheckpointCleanup};

/// A value that differs from the default, for each option.
const OTHER_VALUES: [(&str, &str); 23] = [
    ("interval", "10 s"),
    ("interval-during-backlog", "1 min"),
    ("min-pause", "500ms"),
    ("timeout", "2 h"),
    ("max-concurrent-checkpoints", "3"),
    ("tolerable-failed-checkpoints", "7"),
    ("mode", "at_least_once"),
    ("unaligned.enabled", "true"),
    ("aligned-checkpoint-timeout", "30 s"),
    ("unaligned.forced", "TRUE"),
    ("checkpoints-after-tasks-finish", "false"),
    ("dir", "file:///state"),
    ("storage", "jobmanager"),
    ("create-subdir", "false"),
    ("savepoint-dir", "s3://bucket/sp"),
    ("num-retained", "5"),
    ("externalized-checkpoint-retention", "RETAIN_ON_CANCELLATION"),
    ("incremental", "false"),
    ("snapshot-compression", "true"),
    ("data-inline-threshold", "30kb"),
    ("write-buffer-size", "1 mb"),
    ("retained.max-age", "7 d"),
    ("retained.max-bytes", "100 gb"),
];

fn read(text: &str) -> (CheckpointConfig, FileReport) {
    CheckpointConfig::from_flink_yaml(text).unwrap()
}

#[track_caller]
fn refused(text: &str, sentence: &str) {
    let error = CheckpointConfig::from_flink_yaml(text).unwrap_err();
    assert!(error.to_string().starts_with(sentence), "{error}");
}

fn warnings(report: &FileReport) -> Vec<String> {
    let lines = report.warnings().iter().map(|warning| format!("{}: {warning}", warning.line()));
    lines.collect()
}

#[test]
fn every_option_is_set_by_its_key_and_by_every_older_name() {
    let names: Vec<_> = KEYS.iter().map(Key::name).collect();
    assert_eq!(names, OTHER_VALUES.map(|(name, _)| name));
    for (option, (_, value)) in KEYS.iter().zip(OTHER_VALUES) {
        let (config, report) = read(&format!("{}: {value}", option.full()));
        assert_ne!(config, CheckpointConfig::new(), "{}", option.full());
        assert_eq!(warnings(&report), [""; 0]);
        for older in option.older() {
            let (same, report) = read(&format!("\n{older}: {value}"));
            assert_eq!(same, config, "{older}");
            assert_eq!(report.value(&option.full()).unwrap().key, *older);
            assert_eq!(warnings(&report), [format!("2: {older}: older name of {}", option.full())]);
        }
    }
}

#[test]
fn nested_and_flat_files_give_the_same_and_the_rest_of_the_file_is_left_alone() {
    let nested = "\
taskmanager: {numberOfTaskSlots: 2, hosts: [a, b]}
execution:
  checkpointing:
    interval: 10 s        # why
    unaligned:
      enabled: true
    externalized-checkpoint-retention: RETAIN_ON_CANCELLATION
state.checkpoints.num-retained: 4
";
    let flat = "\
execution.checkpointing.interval: 10000
execution.checkpointing.unaligned: true
execution.checkpointing.externalized-checkpoint-retention: 'retain_on_cancellation'
execution.checkpointing.num-retained: 4
";
    let (config, report) = read(nested);
    assert_eq!(config, read(flat).0);
    assert_eq!(config.checkpoint_interval(), 10_000);
    assert!(config.is_unaligned_checkpoints_enabled());
    assert_eq!(config.num_retained(), 4);
    let retain = ExternalizedCheckpointCleanup::RetainOnCancellation;
    assert_eq!(config.externalized_checkpoint_cleanup(), retain);
    let lines: Vec<_> = report.values().iter().map(|value| value.line).collect();
    assert_eq!(lines, [4, 6, 8, 7]);
    assert_eq!(read("").0, CheckpointConfig::new());
}

#[test]
fn what_sets_nothing_is_named_with_its_line() {
    let (config, report) = read(
        "\
execution.checkpointing.timeout: 1 min
execution.checkpointing.intervall: 10 s
execution.checkpointing.file-merging.enabled: true
state.checkpoints.num-retained: 2
execution.checkpointing.num-retained: 3
state.checkpoints.dirs: ignored
",
    );
    assert_eq!((config.checkpoint_interval(), config.num_retained()), (-1, 3));
    assert_eq!(
        warnings(&report),
        [
            "2: execution.checkpointing.intervall: unknown key, ignored; did you mean \
             execution.checkpointing.interval?",
            "3: execution.checkpointing.file-merging.enabled: Flink's option has no effect here",
            "4: state.checkpoints.num-retained: ignored, because line 5 sets \
             execution.checkpointing.num-retained",
        ]
    );
}

#[test]
fn a_bad_value_is_refused_with_line_and_key() {
    refused(
        "\nexecution.checkpointing.interval: 9",
        "line 2: execution.checkpointing.interval: the checkpoint interval must be at least 10 ms",
    );
    let timeout = "execution:\n  checkpointing:\n    timeout: soon";
    refused(timeout, "line 3: execution.checkpointing.timeout: \"soon\" is not a time");
    for (name, bad) in [
        ("mode", "at-least-once"),
        ("unaligned.enabled", "yes"),
        ("num-retained", "many"),
        ("data-inline-threshold", "2 mb"),
        ("dir", "/"),
        ("min-pause", "-1"),
        ("interval", ""),
        ("interval", "[1 s, 2 s]"),
        ("mode", "~"),
    ] {
        let key = format!("{PREFIX}{name}");
        refused(&format!("{key}: {bad}"), &format!("line 1: {key}: "));
    }
    refused(
        "execution.checkpointing.mode: EXACTLY_ONCE\nexecution: {checkpointing: {mode: x}}",
        "line 2: execution.checkpointing.mode: given in line 1 already",
    );
}

#[test]
fn the_directory_comes_before_the_storage_whatever_the_order() {
    let (storage, dir) = ("execution.checkpointing.storage", "execution.checkpointing.dir: /a/b");
    for text in [format!("{storage}: jobmanager\n{dir}"), format!("{dir}\n{storage}: jobmanager")] {
        assert_eq!(read(&text).0.checkpoint_storage(), Some("memory:"));
        assert_eq!(read(&text).0.checkpoint_storage_dir(), Some("/a/b"));
    }
    let both = format!("{storage}: filesystem\n{dir}");
    assert_eq!(read(&both).0.checkpoint_storage(), Some("/a/b"));
    refused(
        &format!("{storage}: filesystem"),
        "line 1: execution.checkpointing.storage: filesystem needs a directory",
    );
}

#[test]
fn a_key_alone_is_checked_like_a_file() {
    let mut config = CheckpointConfig::new();
    config.apply_flink_key("execution.checkpointing.mode", "AT_LEAST_ONCE").unwrap();
    assert_eq!(config.checkpointing_mode(), CheckpointingMode::AtLeastOnce);
    config.apply_flink_key("state.checkpoints.num-retained", "9").unwrap();
    let before = config.clone();
    for (key, value, sentence) in [
        ("execution.checkpointing.num-retaind", "1", "did you mean"),
        ("execution.checkpointing.local-backup.enabled", "true", "has no effect"),
        ("parallelism.default", "1", "not a key of checkpointing"),
        ("execution.checkpointing.timeout", "9", "at least 10 ms"),
    ] {
        let error = config.apply_flink_key(key, value).unwrap_err().to_string();
        assert!(error.starts_with(key) && error.contains(sentence), "{error}");
    }
    assert_eq!(config, before);
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "[a-c:\\-\\[\\]{}?*&!|>'\"%@`#,. \\n\\t~\u{0}\u{85}]{0,60}") {
        let _ = CheckpointConfig::from_flink_yaml(&text);
        let _ = CheckpointConfig::from_flink_yaml(&format!("execution.checkpointing.{text}"));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(text in any::<String>()) {
        let _ = CheckpointConfig::from_flink_yaml(&text);
        let _ = CheckpointConfig::new().apply_flink_key("execution.checkpointing.interval", &text);
    }
}
