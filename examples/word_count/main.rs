//! Counts the words of files exactly once, however often the process is killed.
//!
//! Lines are read in parallel, divided into words and counted by key; a line about each input line
//! goes through a two-phase-commit sink. Kill it at any moment and start it again with the same
//! arguments: it goes on from its last completed checkpoint, and its outputs end as those of an
//! undisturbed run.

mod arguments;
#[path = "../encrypted_storage/encrypted.rs"]
mod encrypted;
mod flow;
mod input;
mod output;
mod plan;
mod progress;
mod rate;
mod run;
mod signals;
mod slow;
mod source;
mod state;
mod words;

use std::io::{Write, stderr};
use std::process::ExitCode;

use clap::Parser;
use tidegate::Error;

use crate::arguments::Arguments;
use crate::run::{Ended, run};

/// Why there is no result.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The arguments or the files they name.
    Usage(Error),
    /// Everything else.
    Run(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Run(error)
    }
}

fn main() -> ExitCode {
    let (error, code) = match run(&Arguments::parse()) {
        Ok(Ended::Finished) => return ExitCode::SUCCESS,
        Ok(Ended::Stopped(code)) => return ExitCode::from(code),
        Err(Failure::Usage(error)) => (error, 2),
        Err(Failure::Run(error)) => (error, 1),
    };
    let _ = writeln!(stderr(), "error: {}", with_causes(&error));
    ExitCode::from(code)
}

/// The error and its causes, each once.
fn with_causes(error: &Error) -> String {
    let first: &dyn std::error::Error = error;
    let chain = std::iter::successors(Some(first), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
