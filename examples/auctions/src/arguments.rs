//! The command line of the example.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;

/// The most subtasks of an operator; each is a thread.
const PARALLELISM_MAX: i64 = 64;

/// Averages the prices of auctions exactly once, whatever happens to the process.
#[derive(Debug, Parser)]
#[command(name = "auctions")]
pub(crate) struct Arguments {
    /// Where the checkpoints are [default: target/run/store in this example's directory]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,

    /// The SQLite database with the results [default: target/run/results.db in this example's
    /// directory]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// The stream ends after this many events [default: never]
    #[arg(long, value_name = "N")]
    pub(crate) events: Option<u64>,

    /// Events in a second, 0 for no limit; with 10000 the time of the events passes as fast as the
    /// clock's
    #[arg(long, value_name = "EVENTS_PER_SECOND", default_value_t = 10_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=1_000_000_000))]
    pub(crate) rate: u64,

    /// How many auctions are open at a time, about: the size of the state. A store keeps the number that it
    /// began with
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub(crate) open_auctions: u64,

    /// How many subtasks each operator and the sink have; may differ from run to run
    #[arg(long, value_name = "N", default_value_t = 2)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=PARALLELISM_MAX))]
    pub(crate) parallelism: u32,

    /// The time between two checkpoints
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub(crate) interval: Duration,

    /// The time after which an unfinished checkpoint is given up
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = duration)]
    pub(crate) checkpoint_timeout: Duration,

    /// For tests: the snapshot of every N-th checkpoint fails
    #[arg(long, value_name = "N", hide = true)]
    pub(crate) decline_every: Option<u64>,

    /// For tests: the snapshot of every N-th checkpoint takes longer than the timeout
    #[arg(long, value_name = "N", hide = true)]
    pub(crate) hold_every: Option<u64>,

    /// For tests: how often a line is printed where there is no terminal
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = duration, hide = true)]
    pub(crate) line_every: Duration,
}

impl Arguments {
    /// `--store` or its default.
    pub(crate) fn store(&self) -> PathBuf {
        self.store.clone().unwrap_or_else(|| default_path("store"))
    }

    /// `--output` or its default.
    pub(crate) fn output(&self) -> PathBuf {
        self.output.clone().unwrap_or_else(|| default_path("results.db"))
    }
}

fn default_path(name: &str) -> PathBuf {
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = if built_in.is_dir() { built_in } else { Path::new(".") };
    root.join("target").join("run").join(name)
}

/// Reads `200ms`, `1s` or `2m`; a bare number is milliseconds.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time such as 200ms, 1s or 2m");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let ms_of_unit = match unit {
        "" | "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(ms_of_unit).map(Duration::from_millis).ok_or_else(wrong)
}
