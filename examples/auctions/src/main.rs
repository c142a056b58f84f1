//! The average price of the auctions in each category, exactly once, however often the process is
//! killed.
//!
//! An endless stream of auctions and bids goes through two operators with state by key into a table
//! of a SQLite database, by two-phase commit. Kill it at any moment and start it again on the same
//! store, with another parallelism if you like: it goes on from its last completed checkpoint, and
//! every closed auction is in the table once.

mod arguments;
mod event;
mod faults;
mod flow;
mod prices;
mod progress;
#[path = "../../word_count/rate.rs"]
mod rate;
mod run;
#[path = "../../word_count/signals.rs"]
mod signals;
mod source;
mod sqlite;
mod winners;

use std::io::{Write, stderr};
use std::process::ExitCode;

use clap::Parser;
use tidegate::Error;

use crate::arguments::Arguments;
use crate::run::{Ended, run};

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(Ended::Finished) => ExitCode::SUCCESS,
        Ok(Ended::Stopped(code)) => ExitCode::from(code),
        Err(error) => {
            let _ = writeln!(stderr(), "error: {}", with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes, each once.
fn with_causes(error: &Error) -> String {
    let first: &dyn std::error::Error = error;
    let chain = std::iter::successors(Some(first), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
