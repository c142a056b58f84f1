//! What a configuration file comes to: each option's value in force, and where it is from.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::config::{CheckpointConfig, EffectiveConfig, KEYS, PREFIX};
use crate::error::Result;
use crate::inspect::text::{Side, Table, plain};

/// What a configuration file comes to; prints itself as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ConfigReport {
    /// True when the file sets an interval.
    pub checkpointing_enabled: bool,
    /// Every option, in a fixed order.
    pub options: Vec<CheckedOption>,
    /// What is not as it reads: first what is about a line, then what is about the whole.
    pub warnings: Vec<ConfigNotice>,
}

/// One option as it is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CheckedOption {
    /// Flink's key of today.
    pub key: String,
    /// What is in force, which the warnings explain where it is not what was set.
    pub value: OptionValue,
    /// Where it was set; none for a default.
    pub origin: Option<Origin>,
}

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Origin {
    /// The line, from 1.
    pub line: usize,
    /// The key as it stands there.
    pub key: String,
    /// The text as it stands there.
    pub text: String,
}

/// The value of an option; a plain number, word or null in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum OptionValue {
    /// Nothing is set; or any number, where an upper limit is asked for.
    None,
    /// A time in milliseconds.
    Millis(u64),
    /// A size in bytes.
    Bytes(u64),
    /// A number of things.
    Count(u64),
    /// Yes or no.
    Flag(bool),
    /// A name or a place.
    Text(String),
}

/// A warning and the line that it is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ConfigNotice {
    /// The line, from 1; none when it is about several.
    pub line: Option<usize>,
    /// One sentence.
    pub message: String,
}

/// Reads a configuration file of Flink's as
/// [`CheckpointConfig::from_flink_yaml`] does and checks the whole.
///
/// ```
/// let report = tidegate::inspect::check_config("execution.checkpointing.interval: 10 s")?;
/// assert!(report.checkpointing_enabled && report.warnings.is_empty());
/// println!("{report}");
/// # Ok::<(), tidegate::Error>(())
/// ```
///
/// # Errors
/// `Invalid`, with line and key where there is one: as reading the file, and for options that
/// contradict each other.
pub fn check_config(text: &str) -> Result<ConfigReport> {
    let (config, file) = CheckpointConfig::from_flink_yaml(text)?;
    let effective = config.build()?;
    let options = KEYS.iter().map(|option| {
        let key = option.full();
        let origin = file.value(&key).map(|set| Origin {
            line: set.line,
            key: set.key.clone(),
            text: set.value.clone(),
        });
        CheckedOption { key, value: value(option.name(), &config, &effective), origin }
    });
    let of_lines = file.warnings().iter();
    let of_lines = of_lines.map(|w| ConfigNotice { line: Some(w.line()), message: w.to_string() });
    let of_all = effective.warnings().iter();
    let of_all = of_all.map(|w| ConfigNotice { line: None, message: w.to_string() });
    Ok(ConfigReport {
        checkpointing_enabled: config.is_checkpointing_enabled(),
        options: options.collect(),
        warnings: of_lines.chain(of_all).collect(),
    })
}

/// What is in force for the option of that name.
fn value(name: &str, config: &CheckpointConfig, effective: &EffectiveConfig) -> OptionValue {
    use OptionValue::{Bytes, Count, Flag};
    match name {
        "interval" => time(effective.period()),
        "interval-during-backlog" => time(effective.period_during_backlog()),
        "min-pause" => time(Some(effective.min_pause())),
        "timeout" => time(Some(effective.timeout())),
        "max-concurrent-checkpoints" => Count(effective.max_concurrent().into()),
        "tolerable-failed-checkpoints" => {
            effective.tolerable_failures().map_or(OptionValue::None, |n| Count(n.into()))
        }
        "mode" => text(Some(effective.mode().flink_name())),
        "unaligned.enabled" => Flag(effective.is_unaligned()),
        "aligned-checkpoint-timeout" => time(Some(effective.aligned_timeout().unwrap_or_default())),
        "unaligned.forced" => Flag(effective.is_force_unaligned()),
        "checkpoints-after-tasks-finish" => Flag(effective.is_checkpoints_after_tasks_finish()),
        "dir" => text(config.checkpoint_storage_dir()),
        "storage" => text(effective.storage()),
        "create-subdir" => Flag(effective.is_create_subdir()),
        "savepoint-dir" => text(effective.savepoint_dir()),
        "num-retained" => Count(effective.num_retained().into()),
        "externalized-checkpoint-retention" => {
            text(Some(effective.externalized_cleanup().flink_name()))
        }
        "incremental" => Flag(effective.is_incremental()),
        "snapshot-compression" => Flag(effective.is_snapshot_compression()),
        "data-inline-threshold" => Bytes(effective.data_inline_threshold().into()),
        "retained.max-age" => time(effective.retained_max_age()),
        "retained.max-bytes" => effective.retained_max_bytes().map_or(OptionValue::None, Bytes),
        "write-buffer-size" => Bytes(effective.write_buffer_size().into()),
        // A test reads every option.
        _ => OptionValue::None,
    }
}

fn time(time: Option<Duration>) -> OptionValue {
    time.map_or(OptionValue::None, |time| {
        OptionValue::Millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    })
}

fn text(text: Option<&str>) -> OptionValue {
    text.map_or(OptionValue::None, |text| OptionValue::Text(text.to_owned()))
}

impl fmt::Display for OptionValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Millis(ms) => write!(f, "{ms} ms"),
            Self::Bytes(bytes) => write!(f, "{bytes} bytes"),
            Self::Count(count) => write!(f, "{count}"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Text(text) => f.write_str(&plain(text)),
        }
    }
}

impl fmt::Display for ConfigReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.checkpointing_enabled { "on" } else { "off: no interval is set" };
        writeln!(
            f,
            "Periodic checkpoints are {state}. Options below {PREFIX}* and tidegate's own:\n"
        )?;
        let columns = [("OPTION", Side::Left), ("VALUE", Side::Left), ("FROM", Side::Left)];
        let mut table = Table::new(2, &columns);
        for CheckedOption { key, value, origin } in &self.options {
            let name = key.strip_prefix(PREFIX).unwrap_or(key);
            let from = match origin {
                None => "default".to_owned(),
                Some(Origin { line, key: written, .. }) if written == key => format!("line {line}"),
                Some(Origin { line, key: written, .. }) => format!("line {line}, {written}"),
            };
            table.row([name.to_owned(), value.to_string(), from]);
        }
        write!(f, "{table}")?;
        for (index, ConfigNotice { line, message }) in self.warnings.iter().enumerate() {
            let gap = if index == 0 { "\n" } else { "" };
            let place = line.map_or(String::new(), |line| format!("line {line}: "));
            writeln!(f, "{gap}warning: {place}{}", plain(message))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
execution:
  checkpointing:
    interval: 10 s
    min-pause: 20 s
    tolerable-failed-checkpoints: 2147483647
    stroage: filesystem
state.checkpoints.dir: file:///state/
state.checkpoints.num-retained: 0
";

    #[test]
    fn each_value_in_force_is_shown_with_its_origin_and_every_warning() {
        let report = check_config(FILE).unwrap();
        let text = report.to_string();
        let line = |name: &str| {
            let line = text.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
            line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(line("interval "), "20000 ms line 3");
        assert_eq!(line("min-pause"), "20000 ms line 4");
        assert_eq!(line("timeout"), "600000 ms default");
        assert_eq!(line("tolerable-failed-checkpoints"), "none line 5");
        assert_eq!(line("dir"), "file:///state line 7, state.checkpoints.dir");
        assert_eq!(line("num-retained"), "1 line 8, state.checkpoints.num-retained");
        let messages: Vec<_> = text.lines().filter(|line| line.starts_with("warning: ")).collect();
        assert_eq!(messages.len(), 5, "{text}");
        assert!(
            messages.first().unwrap().contains("did you mean execution.checkpointing.storage?")
        );
        assert!(messages.iter().any(|m| m.contains("replaces the shorter interval")));
    }

    #[test]
    fn the_json_form_has_plain_values_in_milliseconds_and_bytes() {
        let json = serde_json::to_value(check_config(FILE).unwrap()).unwrap();
        assert_eq!(json["checkpointing_enabled"], true);
        let option = |name: &str| {
            let key = format!("{PREFIX}{name}");
            json["options"].as_array().unwrap().iter().find(|o| o["key"] == key).unwrap().clone()
        };
        assert_eq!(option("interval")["value"], 20_000);
        assert_eq!(option("interval")["origin"]["text"], "10 s");
        assert_eq!(option("write-buffer-size")["value"], 20_480);
        assert_eq!(option("write-buffer-size")["origin"], serde_json::Value::Null);
        assert_eq!(option("mode")["value"], "EXACTLY_ONCE");
        assert_eq!(json["warnings"][0]["line"], 6);
    }

    #[test]
    fn every_option_has_a_value_in_force() {
        let full = "\
execution.checkpointing: {interval: 1 s, dir: /a/b, savepoint-dir: /a/c}
execution.checkpointing.tolerable-failed-checkpoints: 1
tidegate.retained: {max-age: 1 d, max-bytes: 1 gb}";
        let report = check_config(full).unwrap();
        assert_eq!(report.options.len(), KEYS.len());
        for option in report.options {
            assert_ne!(option.value, OptionValue::None, "{}", option.key);
        }
    }

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        let text = "execution.checkpointing: {unaligned: true, max-concurrent-checkpoints: 2}";
        assert!(check_config(text).unwrap_err().to_string().contains("one checkpoint at a time"));
    }
}
