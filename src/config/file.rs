//! A configuration file of Flink's: what it sets, from where, and what in it is not as it reads.

use std::collections::BTreeMap;
use std::fmt;

use crate::config::keys::{KEYS, Key, Known, look_up};
use crate::config::raw::CheckpointConfig;
use crate::config::yaml::{self, Leaf};
use crate::error::{Error, Result};

/// Where the values of a configuration came from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileReport {
    values: Vec<FileValue>,
    warnings: Vec<FileWarning>,
}

/// One value that a file sets.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileValue {
    /// The option, by the key that Flink uses today.
    pub option: String,
    /// The key as it stands in the file.
    pub key: String,
    /// The text behind it.
    pub value: String,
    /// The line of the key, from 1.
    pub line: usize,
}

/// Something in a file that is not as it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileWarning {
    /// No option has this key, and nothing was set.
    UnknownKey {
        /// The key as it stands in the file.
        key: String,
        /// Its line, from 1.
        line: usize,
        /// The known key that is spelled most like it.
        nearest: Option<String>,
    },
    /// Flink has the option, but it has no effect here.
    NoEffect {
        /// The key as it stands in the file.
        key: String,
        /// Its line, from 1.
        line: usize,
    },
    /// The key is an older name of an option; it was set.
    Deprecated {
        /// The key as it stands in the file.
        key: String,
        /// Its line, from 1.
        line: usize,
        /// Its name today.
        option: String,
    },
    /// The key is an older name of an option that a newer name sets too; the newer one holds.
    Overridden {
        /// The key as it stands in the file.
        key: String,
        /// Its line, from 1.
        line: usize,
        /// The key that holds.
        by: String,
        /// The line of that key, from 1.
        by_line: usize,
    },
}

impl FileWarning {
    /// The line that it is about, from 1.
    pub fn line(&self) -> usize {
        match self {
            Self::UnknownKey { line, .. }
            | Self::NoEffect { line, .. }
            | Self::Deprecated { line, .. }
            | Self::Overridden { line, .. } => *line,
        }
    }
}

impl fmt::Display for FileWarning {
    /// Without the line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKey { key, nearest: Some(nearest), .. } => {
                write!(f, "{key}: unknown key, ignored; did you mean {nearest}?")
            }
            Self::UnknownKey { key, nearest: None, .. } => {
                write!(f, "{key}: unknown key, ignored")
            }
            Self::NoEffect { key, .. } => write!(f, "{key}: Flink's option has no effect here"),
            Self::Deprecated { key, option, .. } => {
                write!(f, "{key}: older name of {option}")
            }
            Self::Overridden { key, by, by_line, .. } => {
                write!(f, "{key}: ignored, because line {by_line} sets {by}")
            }
        }
    }
}

impl FileReport {
    /// What the file sets, in the order of the options.
    pub fn values(&self) -> &[FileValue] {
        &self.values
    }

    /// What is not as it reads, in the order of lines.
    pub fn warnings(&self) -> &[FileWarning] {
        &self.warnings
    }

    /// What the file sets for an option, by the key that Flink uses today.
    pub fn value(&self, option: &str) -> Option<&FileValue> {
        self.values.iter().find(|value| value.option == option)
    }
}

impl CheckpointConfig {
    /// Reads the checkpointing keys of a configuration that Flink reads: a `config.yaml` with nested
    /// or dotted keys, or a `flink-conf.yaml`. Keys are those of
    /// [`apply_flink_key`](Self::apply_flink_key); others are none of its business, except that an
    /// unknown key below `execution.checkpointing.` is a warning. Today's name of an option holds
    /// before its older ones. What is not in the file stays at its default.
    ///
    /// # Errors
    /// `Invalid`, with line and key: not one YAML mapping, too large or too deep, an alias, a key
    /// given twice, a key without a value, or a value that its setter refuses; also the storage
    /// `filesystem` without a directory.
    ///
    /// ```
    /// use tidegate::config::CheckpointConfig;
    ///
    /// let text = "execution:\n  checkpointing:\n    interval: 10 s\n    mim-pause: 1 s\n";
    /// let (config, report) = CheckpointConfig::from_flink_yaml(text)?;
    /// assert_eq!(config.checkpoint_interval(), 10_000);
    /// assert_eq!(report.values()[0].line, 3);
    /// assert_eq!(
    ///     report.warnings()[0].to_string(),
    ///     "execution.checkpointing.mim-pause: unknown key, ignored; \
    ///      did you mean execution.checkpointing.min-pause?"
    /// );
    /// # Ok::<(), tidegate::Error>(())
    /// ```
    pub fn from_flink_yaml(text: &str) -> Result<(Self, FileReport)> {
        let mut found: BTreeMap<usize, Vec<(usize, Leaf)>> = BTreeMap::new();
        let mut warnings = Vec::new();
        for leaf in yaml::leaves(text, |key| !matches!(look_up(key), Known::Foreign))? {
            let Leaf { key, line, .. } = leaf.clone();
            match look_up(&key) {
                Known::Option(index, age) => found.entry(index).or_default().push((age, leaf)),
                Known::WithoutEffect => warnings.push(FileWarning::NoEffect { key, line }),
                Known::Unknown(nearest) => {
                    warnings.push(FileWarning::UnknownKey { key, line, nearest });
                }
                Known::Foreign => {}
            }
        }
        let mut config = Self::new();
        let mut values = Vec::new();
        for (index, leaves) in found {
            let Some(option) = KEYS.get(index) else { continue };
            let leaf = newest(option, leaves, &mut warnings)?;
            values.push(apply(&mut config, option, leaf)?);
        }
        warnings.sort_by_key(FileWarning::line);
        let report = FileReport { values, warnings };
        require_directory(&config, &report)?;
        Ok((config, report))
    }
}

/// Of everything that a file says about one option, what holds.
fn newest(
    option: &Key,
    mut leaves: Vec<(usize, Leaf)>,
    warnings: &mut Vec<FileWarning>,
) -> Result<Leaf> {
    leaves.sort_by_key(|(age, leaf)| (*age, leaf.line));
    let twice = leaves.iter().zip(leaves.iter().skip(1)).find(|(a, b)| a.0 == b.0);
    if let Some(((_, first), (_, second))) = twice {
        let (key, line, earlier) = (&second.key, second.line, first.line);
        return Err(Error::invalid(format!("line {line}: {key}: given in line {earlier} already")));
    }
    let mut leaves = leaves.into_iter();
    let Some((age, holds)) = leaves.next() else {
        return Err(Error::internal("an option without a key was found"));
    };
    if age > 0 {
        let Leaf { key, line, .. } = holds.clone();
        warnings.push(FileWarning::Deprecated { key, line, option: option.full() });
    }
    for (_, Leaf { key, line, .. }) in leaves {
        let (by, by_line) = (holds.key.clone(), holds.line);
        warnings.push(FileWarning::Overridden { key, line, by, by_line });
    }
    Ok(holds)
}

fn apply(config: &mut CheckpointConfig, option: &Key, leaf: Leaf) -> Result<FileValue> {
    let Leaf { key, value, line } = leaf;
    let place = format!("line {line}: {key}");
    let value = value.ok_or_else(|| Error::invalid(format!("{place}: needs one value")))?;
    option.set(config, &value).map_err(|error| error.context(place))?;
    Ok(FileValue { option: option.full(), key, value, line })
}

/// The storage `filesystem` says that there is a directory.
fn require_directory(config: &CheckpointConfig, report: &FileReport) -> Result<()> {
    let storage = report.values.iter().find(|value| value.option.ends_with(".storage"));
    match storage {
        Some(FileValue { key, value, line, .. }) if config.checkpoint_storage().is_none() => {
            Err(Error::invalid(format!(
                "line {line}: {key}: {value} needs a directory: set execution.checkpointing.dir"
            )))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
