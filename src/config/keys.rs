//! Flink's configuration keys and the crate's own, each with the setter that it ends in.

use crate::config::raw::CheckpointConfig;
use crate::config::syntax::{bytes, count, flag, long_bytes, millis};
use crate::error::{Error, Result};

/// What Flink's keys of checkpointing begin with.
pub(crate) const PREFIX: &str = "execution.checkpointing.";

/// What the keys begin with that Flink does not have.
const OWN_PREFIX: &str = "tidegate.";

/// The longest rest of a key for which a nearest one is looked for.
const NEAREST_BYTES_MAX: usize = 64;

/// One option by its key.
pub(crate) struct Key {
    prefix: &'static str,
    /// Behind `prefix`.
    name: &'static str,
    /// Whole keys that Flink has given up but reads, the newest first.
    older: &'static [&'static str],
    set: fn(&mut CheckpointConfig, &str) -> Result<()>,
}

/// The options in the order in which a file applies them: the directory before the storage, which
/// decides between the two.
pub(crate) const KEYS: &[Key] = &[
    key("interval", &[], |config, text| config.set_checkpoint_interval(millis(text)?).map(drop)),
    key("interval-during-backlog", &[], |config, text| {
        config.set_checkpoint_interval_during_backlog(millis(text)?).map(drop)
    }),
    key("min-pause", &[], |config, text| {
        config.set_min_pause_between_checkpoints(millis(text)?).map(drop)
    }),
    key("timeout", &[], |config, text| config.set_checkpoint_timeout(millis(text)?).map(drop)),
    key("max-concurrent-checkpoints", &[], |config, text| {
        config.set_max_concurrent_checkpoints(count(text)?).map(drop)
    }),
    key("tolerable-failed-checkpoints", &[], |config, text| {
        config.set_tolerable_checkpoint_failure_number(count(text)?).map(drop)
    }),
    key("mode", &[], |config, text| {
        config.set_checkpointing_mode(text.trim().parse()?);
        Ok(())
    }),
    key("unaligned.enabled", &["execution.checkpointing.unaligned"], |config, text| {
        config.enable_unaligned_checkpoints(flag(text)?);
        Ok(())
    }),
    key(
        "aligned-checkpoint-timeout",
        &["execution.checkpointing.alignment-timeout"],
        |config, text| config.set_aligned_checkpoint_timeout(millis(text)?).map(drop),
    ),
    key("unaligned.forced", &[], |config, text| {
        config.set_force_unaligned_checkpoints(flag(text)?);
        Ok(())
    }),
    key(
        "checkpoints-after-tasks-finish",
        &["execution.checkpointing.checkpoints-after-tasks-finish.enabled"],
        |config, text| {
            config.set_checkpoints_after_tasks_finish(flag(text)?);
            Ok(())
        },
    ),
    key("dir", &["state.checkpoints.dir", "state.backend.fs.checkpointdir"], |config, text| {
        config.set_checkpoint_storage_dir(text).map(drop)
    }),
    key("storage", &["state.checkpoint-storage"], set_storage),
    key("create-subdir", &["state.checkpoints.create-subdir"], |config, text| {
        config.set_create_subdir(flag(text)?);
        Ok(())
    }),
    key(
        "savepoint-dir",
        &[
            "state.savepoints.dir",
            "savepoints.state.backend.fs.dir",
            "state.backend.fs.savepointdir",
        ],
        |config, text| config.set_savepoint_dir(text).map(drop),
    ),
    key("num-retained", &["state.checkpoints.num-retained"], |config, text| {
        config.set_num_retained(count(text)?);
        Ok(())
    }),
    key("externalized-checkpoint-retention", &[], |config, text| {
        config.set_externalized_checkpoint_retention(text.trim().parse()?);
        Ok(())
    }),
    key("incremental", &["state.backend.incremental"], |config, text| {
        config.enable_incremental_checkpoints(flag(text)?);
        Ok(())
    }),
    key("snapshot-compression", &[], |config, text| {
        config.set_snapshot_compression(flag(text)?);
        Ok(())
    }),
    key(
        "data-inline-threshold",
        &["state.storage.fs.memory-threshold", "state.backend.fs.memory-threshold"],
        |config, text| config.set_data_inline_threshold(bytes(text)?).map(drop),
    ),
    key(
        "write-buffer-size",
        &["state.storage.fs.write-buffer-size", "state.backend.fs.write-buffer-size"],
        |config, text| config.set_write_buffer_size(bytes(text)?).map(drop),
    ),
    own("retained.max-age", |config, text| config.set_retained_max_age(millis(text)?).map(drop)),
    own("retained.max-bytes", |config, text| {
        config.set_retained_max_bytes(long_bytes(text)?).map(drop)
    }),
];

/// What else Flink reads below [`PREFIX`] and nothing here acts on.
const WITHOUT_EFFECT: &[&str] = &[
    "cleaner.parallel-mode",
    "during-recovery.enabled",
    "file-merging.across-checkpoint-boundary",
    "file-merging.enabled",
    "file-merging.max-file-size",
    "file-merging.max-space-amplification",
    "file-merging.max-subtasks-per-file",
    "file-merging.pool-blocking",
    "local-backup.dirs",
    "local-backup.enabled",
    "recover-without-channel-state.checkpoint-id",
    "unaligned.interruptible-timers.enabled",
    "unaligned.max-subtasks-per-channel-state-file",
    "unaligned.recover-output-on-downstream.enabled",
];

const fn key(
    name: &'static str,
    older: &'static [&'static str],
    set: fn(&mut CheckpointConfig, &str) -> Result<()>,
) -> Key {
    Key { prefix: PREFIX, name, older, set }
}

const fn own(name: &'static str, set: fn(&mut CheckpointConfig, &str) -> Result<()>) -> Key {
    Key { prefix: OWN_PREFIX, name, older: &[], set }
}

/// `filesystem` is whatever directory is set, `jobmanager` is memory, anything else a text form.
fn set_storage(config: &mut CheckpointConfig, text: &str) -> Result<()> {
    match text.trim() {
        name if name.eq_ignore_ascii_case("filesystem") => {
            config.options.storage.clone_from(&config.options.storage_dir);
            Ok(())
        }
        name if name.eq_ignore_ascii_case("jobmanager") => {
            config.set_checkpoint_storage("memory:").map(drop)
        }
        text => config.set_checkpoint_storage(text).map(drop),
    }
}

impl Key {
    /// The whole key.
    pub(crate) fn full(&self) -> String {
        format!("{}{}", self.prefix, self.name)
    }

    /// Without what Flink's keys, or this crate's, begin with.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Whole keys that Flink has given up but reads, the newest first.
    #[cfg(test)]
    pub(super) fn older(&self) -> &'static [&'static str] {
        self.older
    }

    /// How much `key` is this one: 0 its name today, more for older names, none for another key.
    pub(super) fn age(&self, key: &str) -> Option<usize> {
        if key.strip_prefix(self.prefix) == Some(self.name) {
            return Some(0);
        }
        self.older.iter().position(|older| *older == key).map(|index| index.saturating_add(1))
    }

    pub(super) fn set(&self, config: &mut CheckpointConfig, text: &str) -> Result<()> {
        (self.set)(config, text)
    }
}

/// What a key is.
pub(super) enum Known {
    /// An option, by its place in [`KEYS`] and the age of its name.
    Option(usize, usize),
    /// Flink's, without effect here.
    WithoutEffect,
    /// Below a prefix of ours, but nobody's; the nearest one that is.
    Unknown(Option<String>),
    /// Not about checkpoints.
    Foreign,
}

pub(super) fn look_up(key: &str) -> Known {
    let option = KEYS.iter().enumerate().find_map(|(index, known)| Some((index, known.age(key)?)));
    if let Some((index, age)) = option {
        return Known::Option(index, age);
    }
    let within = |prefix| Some((prefix, key.strip_prefix(prefix)?));
    match within(PREFIX).or_else(|| within(OWN_PREFIX)) {
        None => Known::Foreign,
        Some((PREFIX, name)) if WITHOUT_EFFECT.contains(&name) => Known::WithoutEffect,
        Some((prefix, name)) => {
            Known::Unknown(nearest(prefix, name).map(|nearest| format!("{prefix}{nearest}")))
        }
    }
}

/// The name with the fewest letters to change; options before those without effect.
fn nearest(prefix: &str, name: &str) -> Option<&'static str> {
    if name.len() > NEAREST_BYTES_MAX {
        return None;
    }
    let options = KEYS.iter().filter(|key| key.prefix == prefix).map(Key::name);
    let rest = if prefix == PREFIX { WITHOUT_EFFECT } else { &[] };
    options.chain(rest.iter().copied()).min_by_key(|known| edit_distance(name, known))
}

/// How many letters to put in, take out or replace (Levenshtein).
pub(crate) fn edit_distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (above_left, a) in from.chars().enumerate() {
        let mut diagonal = above_left;
        let mut left = above_left + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(to.chars()) {
            let replaced = diagonal + usize::from(a != b);
            diagonal = *cell;
            left = replaced.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = above_left + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

impl CheckpointConfig {
    /// Sets one option by Flink's key, today's or an older one, or by one of the crate's own below
    /// `tidegate.`, from Flink's text: `execution.checkpointing.interval` to `10 s`.
    ///
    /// Times take a unit (`ms`, `s`, `min`, `h`, `d` and their long forms) and are milliseconds
    /// without one; sizes take `b`, `kb`, `mb`, `gb` and are bytes without one. It is the same as
    /// calling the setter, so a later call wins. The storage `filesystem` is the directory that is
    /// set, `jobmanager` is `memory:`.
    ///
    /// # Errors
    /// `Invalid`, with the key: it is unknown (the nearest known one is named) or has no effect
    /// here, the text is not of its type, or the setter refuses the value.
    ///
    /// ```
    /// use tidegate::config::CheckpointConfig;
    ///
    /// let mut config = CheckpointConfig::new();
    /// config.apply_flink_key("execution.checkpointing.interval", "10 s")?;
    /// assert_eq!(config.checkpoint_interval(), 10_000);
    /// let error = config.apply_flink_key("execution.checkpointing.intervall", "10 s").unwrap_err();
    /// assert!(error.to_string().ends_with("did you mean execution.checkpointing.interval?"));
    /// # Ok::<(), tidegate::Error>(())
    /// ```
    pub fn apply_flink_key(&mut self, key: &str, value: &str) -> Result<&mut Self> {
        let refuse = |why: &str| Err(Error::invalid(format!("{key}: {why}")));
        match look_up(key) {
            Known::Option(index, _) => {
                let Some(option) = KEYS.get(index) else { return refuse("unknown key") };
                option.set(self, value).map_err(|error| error.context(key))?;
                Ok(self)
            }
            Known::WithoutEffect => refuse("Flink's option has no effect here"),
            Known::Unknown(Some(nearest)) => {
                refuse(&format!("unknown key; did you mean {nearest}?"))
            }
            Known::Unknown(None) => refuse("unknown key"),
            Known::Foreign => refuse("not a key of checkpointing"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::edit_distance;

    #[test]
    fn the_distance_of_words_is_the_fewest_changes() {
        for (from, to, distance) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("intervall", "interval", 1),
            ("flaw", "lawn", 2),
        ] {
            assert_eq!(edit_distance(from, to), distance, "{from:?} {to:?}");
        }
    }
}
