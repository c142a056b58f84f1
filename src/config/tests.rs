//! Goal: each bound holds where it is written, each pair of options that touch does what the
//! papers say, and what is written down reads back. Method: tables of values around each bound.

use std::time::Duration;

use crate::config::{
    CheckpointConfig, CheckpointingMode, ConfigWarning, EffectiveConfig,
    ExternalizedCheckpointCleanup,
};
use crate::error::ErrorKind;

const SECOND: Duration = Duration::from_secs(1);

fn built(set: impl FnOnce(&mut CheckpointConfig)) -> EffectiveConfig {
    let mut config = CheckpointConfig::new();
    set(&mut config);
    config.build().unwrap()
}

#[test]
fn a_fresh_config_has_the_documented_defaults() {
    let config = CheckpointConfig::new();
    assert!(!config.is_checkpointing_enabled());
    assert_eq!(config.checkpoint_interval(), -1);
    assert_eq!(config.checkpoint_interval_during_backlog(), -1);
    assert_eq!(config.checkpoint_timeout(), 600_000);
    assert_eq!(config.max_concurrent_checkpoints(), 1);
    assert!(config.is_fail_on_checkpointing_errors());
    assert!(config.is_incremental_checkpoints_enabled());
    assert!(config.is_checkpoints_after_tasks_finish_enabled());
    assert_eq!(config.num_retained(), 3);
    assert_eq!(config.data_inline_threshold(), 20_480);
    assert_eq!(config.write_buffer_size(), 4_096);

    let effective = config.build().unwrap();
    assert_eq!(effective.period(), None);
    assert_eq!(effective.timeout(), Duration::from_secs(600));
    assert_eq!(effective.tolerable_failures(), Some(0));
    assert_eq!(effective.mode(), CheckpointingMode::ExactlyOnce);
    assert_eq!(effective.aligned_timeout(), None);
    assert_eq!(effective.write_buffer_size(), 20_480);
    assert!(effective.are_savepoints_forced());
    assert!(effective.warnings().is_empty());
}

#[test]
fn each_setter_refuses_the_first_value_below_its_bound_and_changes_nothing() {
    let fresh = CheckpointConfig::new();
    let mut config = fresh.clone();
    let refused = [
        config.set_checkpoint_interval(9).err(),
        config.set_checkpoint_interval(0).err(),
        config.set_checkpoint_interval(i64::MIN).err(),
        config.set_checkpoint_interval_during_backlog(9).err(),
        config.set_checkpoint_interval_during_backlog(-1).err(),
        config.set_checkpoint_timeout(9).err(),
        config.set_min_pause_between_checkpoints(-1).err(),
        config.set_max_concurrent_checkpoints(0).err(),
        config.set_tolerable_checkpoint_failure_number(-1).err(),
        config.set_alignment_timeout(-1).err(),
        config.set_data_inline_threshold(-1).err(),
        config.set_data_inline_threshold(1024 * 1024 + 1).err(),
        config.set_write_buffer_size(-1).err(),
        config.set_checkpoint_storage("").err(),
        config.set_checkpoint_storage_dir("s3://bucket").err(),
        config.set_savepoint_dir("/").err(),
        config.set_checkpoint_timeout_duration(Duration::from_micros(9_999)).err(),
        config.set_checkpoint_interval_duration(Duration::MAX).err(),
    ];
    for (index, error) in refused.into_iter().enumerate() {
        assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::Invalid), "call {index}");
    }
    assert_eq!(config, fresh);
}

#[test]
fn each_setter_takes_its_bound_itself() {
    let mut config = CheckpointConfig::new();
    config.set_checkpoint_interval(10).unwrap();
    config.set_checkpoint_interval_during_backlog(10).unwrap();
    config.set_checkpoint_timeout(10).unwrap();
    config.set_min_pause_between_checkpoints(0).unwrap();
    config.set_max_concurrent_checkpoints(1).unwrap();
    config.set_tolerable_checkpoint_failure_number(0).unwrap();
    config.set_alignment_timeout(0).unwrap();
    config.set_data_inline_threshold(0).unwrap();
    config.set_data_inline_threshold(1024 * 1024).unwrap();
    config.set_write_buffer_size(0).unwrap();
    config.build().unwrap();
}

#[test]
fn a_duration_means_its_whole_milliseconds() {
    let mut config = CheckpointConfig::new();
    config.set_checkpoint_interval_duration(Duration::from_micros(12_900)).unwrap();
    assert_eq!(config.checkpoint_interval(), 12);
}

#[test]
fn a_pause_longer_than_the_interval_is_the_period() {
    let effective = built(|config| {
        config.set_checkpoint_interval(1_000).unwrap();
        config.set_min_pause_between_checkpoints(5_000).unwrap();
    });
    assert_eq!(effective.interval(), Some(SECOND));
    assert_eq!(effective.period(), Some(5 * SECOND));
    let expected = ConfigWarning::MinPauseAboveInterval { interval: SECOND, min_pause: 5 * SECOND };
    assert_eq!(effective.warnings(), [expected]);
}

#[test]
fn a_pause_of_more_than_a_year_is_a_year() {
    let effective = built(|config| {
        config.set_min_pause_between_checkpoints(i64::MAX).unwrap();
    });
    assert_eq!(effective.min_pause(), 365 * 24 * 3600 * SECOND);
    assert!(matches!(effective.warnings(), [ConfigWarning::MinPauseCapped { .. }]));
}

#[test]
fn unaligned_without_exactly_once_is_off_with_a_warning() {
    let effective = built(|config| {
        config.set_checkpointing_mode(CheckpointingMode::AtLeastOnce);
        config.enable_unaligned_checkpoints(true);
        config.set_max_concurrent_checkpoints(2).unwrap();
    });
    assert!(!effective.is_unaligned());
    assert!(effective.are_savepoints_forced());
    assert_eq!(effective.warnings(), [ConfigWarning::UnalignedNeedsExactlyOnce]);
}

#[test]
fn unaligned_with_several_concurrent_checkpoints_is_refused() {
    let mut config = CheckpointConfig::new();
    config.enable_unaligned_checkpoints(true).set_max_concurrent_checkpoints(2).unwrap();
    let error = config.build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("unaligned"), "{error}");
    config.disable_unaligned_checkpoints();
    assert_eq!(config.build().unwrap().max_concurrent(), 2);
}

#[test]
fn an_alignment_timeout_of_nothing_or_for_ever_starts_unaligned() {
    for (ms, expected) in [(0, None), (i64::MAX, None), (50, Some(Duration::from_millis(50)))] {
        let effective = built(|config| {
            config.enable_unaligned_checkpoints(true).set_alignment_timeout(ms).unwrap();
        });
        assert!(effective.is_unaligned());
        assert!(!effective.are_savepoints_forced());
        assert_eq!(effective.aligned_timeout(), expected, "{ms}");
    }
}

#[test]
fn more_concurrent_checkpoints_than_there_are_places_are_refused() {
    let mut config = CheckpointConfig::new();
    config.set_max_concurrent_checkpoints(1024).unwrap();
    assert_eq!(config.build().unwrap().max_concurrent(), 1024);
    config.set_max_concurrent_checkpoints(1025).unwrap();
    assert!(config.build().unwrap_err().to_string().contains("1024"));
}

#[test]
fn the_interval_during_backlog_is_never_shorter_than_the_interval() {
    let period = |backlog: Option<i64>| {
        let mut config = CheckpointConfig::new();
        config.set_checkpoint_interval(1_000).unwrap();
        if let Some(ms) = backlog {
            config.set_checkpoint_interval_during_backlog(ms).unwrap();
        }
        config.build().map(|effective| effective.period_during_backlog()).ok()
    };
    assert_eq!(period(None), Some(Some(SECOND)));
    assert_eq!(period(Some(0)), Some(None));
    assert_eq!(period(Some(1_000)), Some(Some(SECOND)));
    assert_eq!(period(Some(999)), None);
}

#[test]
fn the_tolerable_number_has_no_limit_at_the_largest_value() {
    let number = |count| {
        built(|config| {
            config.set_tolerable_checkpoint_failure_number(count).unwrap();
        })
        .tolerable_failures()
    };
    assert_eq!(number(i32::MAX - 1), Some(i32::MAX.unsigned_abs() - 1));
    assert_eq!(number(i32::MAX), None);
}

#[test]
fn fail_on_errors_acts_once_and_only_before_a_number_is_set() {
    let mut config = CheckpointConfig::new();
    config.set_fail_on_checkpointing_errors(false).set_fail_on_checkpointing_errors(true);
    assert_eq!(config.tolerable_checkpoint_failure_number(), i32::MAX);
    config.set_tolerable_checkpoint_failure_number(0).unwrap();
    assert!(config.is_fail_on_checkpointing_errors());
}

#[test]
fn at_least_one_checkpoint_is_retained() {
    for asked in [0, -5] {
        let effective = built(|config| {
            config.set_num_retained(asked);
        });
        assert_eq!(effective.num_retained(), 1);
        assert_eq!(effective.warnings(), [ConfigWarning::NumRetainedRaised { asked }]);
    }
}

#[test]
fn a_directory_is_a_storage_too_and_a_later_storage_replaces_it() {
    let mut config = CheckpointConfig::new();
    config.set_checkpoint_storage_dir("state//job/").unwrap();
    assert_eq!(config.checkpoint_storage(), Some("state/job"));
    config.set_checkpoint_storage("memory:").unwrap();
    assert_eq!(config.build().unwrap().storage(), Some("memory:"));
}

#[test]
fn names_are_read_in_any_case_and_printed_as_flink_does() {
    for mode in CheckpointingMode::ALL {
        assert_eq!(mode.to_string().to_lowercase().parse::<CheckpointingMode>().unwrap(), *mode);
    }
    assert!("at-least-once".parse::<CheckpointingMode>().is_err());
    assert!("".parse::<ExternalizedCheckpointCleanup>().is_err());
    let parsed: ExternalizedCheckpointCleanup = "Retain_On_Cancellation".parse().unwrap();
    assert_eq!(parsed, ExternalizedCheckpointCleanup::RetainOnCancellation);
}

#[test]
fn a_config_reads_back_as_written_and_is_checked_again() {
    let mut config = CheckpointConfig::new();
    config.set_checkpoint_interval(200).unwrap();
    config.set_fail_on_checkpointing_errors(false);
    config.set_externalized_checkpoint_cleanup(ExternalizedCheckpointCleanup::RetainOnCancellation);
    config.set_checkpoint_storage_dir("file:///a").unwrap();
    let text = serde_json::to_string(&config).unwrap();
    assert!(text.contains("RETAIN_ON_CANCELLATION"), "{text}");
    assert_eq!(serde_json::from_str::<CheckpointConfig>(&text).unwrap(), config);

    let read = serde_json::from_str::<CheckpointConfig>;
    assert_eq!(read("{}").unwrap(), CheckpointConfig::new());
    for wrong in
        [r#"{"interval_ms": 9}"#, r#"{"timeout_ms": 0}"#, r#"{"storage": ""}"#, r#"{"typo": 1}"#]
    {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn the_builder_comes_to_the_same_and_reports_its_first_error() {
    let effective = CheckpointConfig::builder()
        .interval(SECOND)
        .timeout(2 * SECOND)
        .min_pause(SECOND / 2)
        .max_concurrent(3)
        .unlimited_failures()
        .storage_dir("state")
        .num_retained(2)
        .build()
        .unwrap();
    let raw = built(|config| {
        config.set_checkpoint_interval(1_000).unwrap();
        config.set_checkpoint_timeout(2_000).unwrap();
        config.set_min_pause_between_checkpoints(500).unwrap();
        config.set_max_concurrent_checkpoints(3).unwrap();
        config.set_tolerable_checkpoint_failure_number(i32::MAX).unwrap();
        config.set_checkpoint_storage_dir("state").unwrap();
        config.set_num_retained(2);
    });
    assert_eq!(effective, raw);

    let error = CheckpointConfig::builder().max_concurrent(0).timeout(Duration::ZERO).build();
    assert!(error.unwrap_err().to_string().contains("concurrent"));
}
