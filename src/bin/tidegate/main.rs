//! Looks at tidegate checkpoint stores from the command line; see [`tidegate::inspect::cli`].

use std::io::{IsTerminal, stderr, stdout};
use std::process::ExitCode;

fn main() -> ExitCode {
    let (mut out, mut err) = (stdout(), stderr());
    let progress = err.is_terminal();
    ExitCode::from(tidegate::inspect::cli::run(std::env::args_os(), &mut out, &mut err, progress))
}
