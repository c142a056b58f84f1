//! The command line of the example.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use tidegate::Result;
use tidegate::config::{CheckpointConfig, CheckpointingMode, EffectiveConfig};

/// Counts numbers on tokio tasks, exactly once whatever happens to the process.
#[derive(Debug, Parser)]
#[command(name = "tokio_pipeline")]
pub(crate) struct Arguments {
    /// How many numbers each of the two sources gives
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(..=1_000_000_000_000))]
    pub(crate) records: u64,

    /// How many numbers are given in a second, by both sources together [default: no limit]
    #[arg(long, value_name = "NUMBERS_PER_SECOND")]
    #[arg(value_parser = clap::value_parser!(u64).range(2..=1_000_000_000))]
    pub(crate) rate: Option<u64>,

    /// Where the checkpoints are [default: `target/tokio_pipeline/state`]
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,

    /// Where the results go [default: `target/tokio_pipeline/output`]
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,

    /// The time between two checkpoints, such as 200ms or 1s
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = duration)]
    pub(crate) interval: Duration,

    /// How barriers are aligned; another start may use another mode
    #[arg(long, value_enum, default_value = "aligned")]
    pub(crate) mode: Mode,
}

/// `--mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// An input waits from its barrier until the last barrier.
    Aligned,
    /// The cut comes with the first barrier; records before the others are part of it.
    Unaligned,
    /// Nothing waits; after a kill records may be processed twice.
    AtLeastOnce,
}

impl Arguments {
    /// What the checkpoints are to be like.
    pub(crate) fn config(&self) -> Result<EffectiveConfig> {
        let mode = match self.mode {
            Mode::AtLeastOnce => CheckpointingMode::AtLeastOnce,
            Mode::Aligned | Mode::Unaligned => CheckpointingMode::ExactlyOnce,
        };
        CheckpointConfig::builder()
            .interval(self.interval)
            .mode(mode)
            .unaligned(self.mode == Mode::Unaligned)
            .unlimited_failures()
            .build()
    }

    /// `--state` or its default.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(|| default_dir("state"))
    }

    /// `--output` or its default.
    pub(crate) fn output_dir(&self) -> PathBuf {
        self.output.clone().unwrap_or_else(|| default_dir("output"))
    }
}

fn default_dir(name: &str) -> PathBuf {
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = if built_in.is_dir() { built_in } else { Path::new(".") };
    root.join("target").join("tokio_pipeline").join(name)
}

/// Reads `200ms` or `1s`; a bare number is milliseconds.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time such as 200ms or 1s");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    match unit {
        "" | "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        _ => Err(wrong()),
    }
}
