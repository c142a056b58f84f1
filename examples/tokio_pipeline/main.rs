//! A stream processor whose tasks are tokio tasks, with the checkpoints of this crate.
//!
//! `tidegate` has no runtime of its own kind in it: this program brings tasks, channels and records,
//! and uses an [`Engine`](tidegate::engine::Engine), a
//! [`BarrierAligner`](tidegate::barrier::BarrierAligner) for each task with inputs, and a
//! [`TaskHandle`](tidegate::task::TaskHandle) for each task. Two sources give the numbers below
//! `--records`; they are dealt out by key to two counters, and a sink writes a line about each number.
//! Kill it at any moment and start it again with the same arguments: it goes on from its last completed
//! checkpoint.
//!
//! | here | in the crate |
//! |---|---|
//! | `source.rs`: a source is a task of its own that answers `position` and `seek` through a channel | the contract of `local::Source`, asked for asynchronously |
//! | `record.rs`: a [`Barrier`](tidegate::message::Barrier) is one kind of message on the channel of the records | nothing: messages are small `Copy` values |
//! | `input.rs`: what comes on a channel becomes a `BarrierEvent`, each `BarrierAction` is awaited in turn | the rules of alignment; no thread, clock or channel |
//! | `counter.rs`: state by key group, frozen between two records | `Stateful`, `SectionKind::Keyed` |
//! | `sink.rs`, `files.rs`: two-phase commit; sealed at the cut, made durable before the acknowledgement, renamed on `Notification::Completed` | `SectionKind::Tokens` |
//! | `host.rs`: triggers and notifications go to the tasks through unbounded channels | `Host`, called on the engine's thread, must not block |
//! | `job.rs`: the last checkpoint is asked for and awaited | `TriggerHandle` is a `Future` |
//!
//! No thread of the runtime blocks for records, barriers or acknowledgements: what writes - the
//! background half of a snapshot in `TaskHandle::snapshot`, and the sink's files - runs in
//! `spawn_blocking`. Opening and restoring come before the runtime, the record of the end after it.
//!
//! Barriers overtake nothing here. In the mode `unaligned` a task cuts at the first barrier and logs what
//! comes before the others, which a restart processes first.

mod arguments;
mod counter;
mod files;
mod host;
mod input;
mod job;
mod record;
#[path = "../word_count/signals.rs"]
mod signals;
mod sink;
mod source;

use std::io::{Write, stderr, stdout};
use std::process::ExitCode;

use clap::Parser;
use tidegate::Error;

use crate::arguments::Arguments;
use crate::job::{Ended, run};

/// Why there is no result.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The arguments.
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

/// Prints a line; a reader that has gone away is no reason to stop.
pub(crate) fn say(line: &str) {
    let _ = writeln!(stdout(), "{line}");
}
