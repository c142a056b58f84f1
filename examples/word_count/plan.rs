//! What an earlier run in the state directory means for this one.

use std::path::Path;

use tidegate::{Error, ErrorKind, Result};

use crate::arguments::Arguments;
use crate::input::Input;
use crate::state::Saved;

/// What to do about it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Start, or go on where it stopped.
    GoOn,
    /// Forget it and start over, for this reason.
    StartOver(String),
    /// Nothing is left to do.
    Nothing,
}

/// Decides between going on, starting over and refusing.
pub(crate) fn plan(
    saved: Option<&Saved>,
    input: &Input,
    arguments: &Arguments,
    state: &Path,
) -> Result<Plan> {
    let Some(saved) = saved else {
        return Ok(Plan::GoOn);
    };
    if arguments.fresh {
        return Ok(Plan::StartOver("--fresh was given".into()));
    }
    let difference = match input.difference(&saved.input) {
        Some(change) if input.is_default => {
            return Ok(Plan::StartOver(format!(
                "the files of this crate changed: {change}"
            )));
        }
        Some(change) => change,
        None if saved.finished => return Ok(Plan::Nothing),
        None if saved.parallelism == arguments.parallelism => return Ok(Plan::GoOn),
        None => format!(
            "its parallelism is {}, not {}",
            saved.parallelism, arguments.parallelism
        ),
    };
    Err(Error::new(
        ErrorKind::Incompatible,
        format!(
            "{} holds another run: {difference}; give it the arguments of that run, another \
             --state and --output, or --fresh to start over",
            state.display()
        ),
    ))
}
