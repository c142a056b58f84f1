//! The command line of the example.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use tidegate::CheckpointId;
use tidegate::config::CheckpointingMode;
use tidegate::restore::RestorePolicy;

/// The most subtasks; each is a thread.
const PARALLELISM_MAX: i64 = 256;

/// Counts words exactly once, whatever happens to the process.
#[derive(Debug, Parser)]
#[command(name = "word_count")]
pub(crate) struct Arguments {
    /// A file to read; repeat for more. Without one: the .rs and .md files of this crate.
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Vec<PathBuf>,

    /// Where the checkpoints are [default: `target/word_count/state`]
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,

    /// Where the checkpoints are instead of --state: `file:///DIR`,
    /// `sled:///DIR?placement=sled`, `memory:` (gone with the process),
    /// `custom:encrypted?directory=DIR&key=NUMBER`, or `tiered:?fast=URI&durable=URI`
    #[arg(long, value_name = "URI")]
    pub(crate) storage: Option<String>,

    /// Where the results go [default: `target/word_count/output`]
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,

    /// How many subtasks read, count and write; may change for a saved run, but for those that read
    #[arg(long, value_name = "N", default_value_t = 2)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=PARALLELISM_MAX))]
    pub(crate) parallelism: u32,

    /// The time between two checkpoints
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = duration)]
    pub(crate) interval: Duration,

    /// How many lines are read in a second, by all subtasks together [default: no limit with
    /// --input, else such that the run lasts ten seconds]
    #[arg(long, value_name = "LINES_PER_SECOND")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(crate) rate: Option<u64>,

    /// How often a line may take effect: with at-least-once, lines may be counted and written again
    /// after a kill
    #[arg(long, value_enum, default_value_t = Mode::ExactlyOnce)]
    pub(crate) mode: Mode,

    /// Let barriers overtake lines and words: checkpoints contain what is on its way
    #[arg(long)]
    pub(crate) unaligned: bool,

    /// Let barriers overtake only when a checkpoint is older than this; implies --unaligned
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) alignment_timeout: Option<Duration>,

    /// Write 500 lines a second in each subtask, so that every queue before is full
    #[arg(long)]
    pub(crate) slow_sink: bool,

    /// Where the bytes of a new --state lie: beside sled in the store's log, or all in sled; with
    /// --storage it is written into the URI [default: split]
    #[arg(long, value_enum)]
    pub(crate) placement: Option<Place>,

    /// What a saved run goes on from: `latest`, its newest checkpoint and no other; `fallback`, an
    /// older one where newer ones cannot be read; `fresh`, nothing; or a checkpoint by its number,
    /// behind which everything is undone
    #[arg(long, value_name = "WHAT", default_value = "fallback", value_parser = policy)]
    pub(crate) restore: RestorePolicy,

    /// Forget the saved run and start over, as with --restore fresh
    #[arg(long, conflicts_with = "restore")]
    pub(crate) fresh: bool,
}

/// `--placement`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Place {
    /// Bodies above 2 KiB in the log, everything else in sled.
    Split,
    /// Everything in sled.
    Sled,
}

/// `--mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Each line takes effect once.
    ExactlyOnce,
    /// Each line takes effect, after a kill perhaps again.
    AtLeastOnce,
}

impl From<Mode> for CheckpointingMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::ExactlyOnce => Self::ExactlyOnce,
            Mode::AtLeastOnce => Self::AtLeastOnce,
        }
    }
}

impl Arguments {
    /// `--state` or its default.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(|| default_dir("state"))
    }

    /// `--output` or its default.
    pub(crate) fn output_dir(&self) -> PathBuf {
        self.output.clone().unwrap_or_else(|| default_dir("output"))
    }

    /// What `--restore` and `--fresh` come to.
    pub(crate) fn policy(&self) -> RestorePolicy {
        if self.fresh { RestorePolicy::Fresh } else { self.restore.clone() }
    }

    /// What to type after a kill to go on. What was given up once is not given up again.
    pub(crate) fn command_to_go_on(&self) -> String {
        let keep = (self.policy() == RestorePolicy::Latest).then_some("--restore latest");
        command_with(keep)
    }
}

/// What to type to start over.
pub(crate) fn command_to_start_over() -> String {
    command_with(Some("--fresh"))
}

/// The command of this process, with something else said of what it goes on from.
fn command_with(policy: Option<&str>) -> String {
    let mut command = Vec::new();
    let mut words = std::env::args_os().map(|word| quoted(&word.to_string_lossy()));
    let program = words.next().unwrap_or_default();
    if std::env::var_os("CARGO").is_some() {
        let profile = if cfg!(debug_assertions) { "" } else { "--release " };
        command.push(format!("cargo run {profile}--example word_count --"));
    } else {
        command.push(program);
    }
    while let Some(word) = words.next() {
        match word.as_str() {
            "--restore" => drop(words.next()),
            "--fresh" => {}
            _ if word.starts_with("--restore=") => {}
            _ => command.push(word),
        }
    }
    command.extend(policy.map(str::to_owned));
    command.join(" ")
}

/// An argument as a shell takes it.
fn quoted(argument: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', "'\\''"))
}

/// The directory of this crate, or the working directory once the crate was moved away.
pub(crate) fn crate_dir() -> PathBuf {
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR"));
    if built_in.is_dir() { built_in.to_path_buf() } else { PathBuf::from(".") }
}

fn default_dir(name: &str) -> PathBuf {
    crate_dir().join("target").join("word_count").join(name)
}

/// Reads `--restore`.
fn policy(text: &str) -> Result<RestorePolicy, String> {
    match text {
        "latest" => Ok(RestorePolicy::Latest),
        "fallback" => Ok(RestorePolicy::default()),
        "fresh" => Ok(RestorePolicy::Fresh),
        _ => {
            let wrong = |_| format!("{text:?} is not latest, fallback, fresh or a number");
            text.parse().map(|id| RestorePolicy::Exact(CheckpointId(id))).map_err(wrong)
        }
    }
}

/// Reads `200ms`, `1s`, `2m` or `1h`; a bare number is milliseconds.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time such as 200ms, 1s or 2m");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let ms_of_unit = match unit {
        "" | "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(ms_of_unit).map(Duration::from_millis).ok_or_else(wrong)
}
