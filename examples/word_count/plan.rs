//! What an earlier run means for this one.

use tidegate::{Error, ErrorKind, Result};

use crate::input::Input;
use crate::state::{Saved, State};

/// What to do about it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Start, or go on where it stopped. The positions of the sources are for as many as there were.
    GoOn { sources: Option<u32> },
    /// Forget it and start over, for this reason.
    StartOver(String),
    /// Nothing is left to do.
    Nothing,
}

/// Decides between going on, starting over and refusing.
pub(crate) fn plan(saved: &Saved, input: &Input, state: &State) -> Result<Plan> {
    let difference = match input.difference(&saved.input) {
        Some(change) if input.is_default => {
            return Ok(Plan::StartOver(format!("the files of this crate changed: {change}")));
        }
        Some(change) => change,
        None if saved.finished => return Ok(Plan::Nothing),
        None => return Ok(Plan::GoOn { sources: saved.sources }),
    };
    Err(Error::new(
        ErrorKind::Incompatible,
        format!(
            "{state} holds another run: {difference}; give it the arguments of that run, another \
             --state or --storage and --output, or --fresh to start over"
        ),
    ))
}
