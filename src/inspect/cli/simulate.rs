//! The verb `simulate`: lines of cases in, what the coordinator does with them out.
//!
//! All lines are read and checked before anything is printed; then case by case is played and
//! printed. Reading is bounded by line and by file.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::printed;
use crate::error::{Error, Result};
use crate::inspect::{PolicyCase, SimulatedPolicy, simulate};
use crate::limits::{SIMULATED_FILE_BYTES_MAX, SIMULATED_LINE_BYTES_MAX};

const EXAMPLE: &str = r#"A case is one line:
{"case": "slow", "config": {"interval_ms": 1000, "min_pause_ms": 800}, "attempts": [{"ms": 900, "outcome": "complete"}]}

  config             interval_ms; min_pause_ms, timeout_ms, max_concurrent, tolerable_failures (null: any
                     number) and unaligned have Flink's defaults
  attempts           what becomes of the checkpoints in turn: "complete" or "decline" after ms, or "hang"
  requests           what users ask for: at_ms and kind, "checkpoint" or "savepoint" [default: nothing]
  first_trigger_ms   when the timer first fires [default: after one period]
  until_ms           the end [default: 60 periods]
  events, summary    as --json prints them; skipped"#;

/// The arguments of the verb.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Simulate {
    /// A file of cases, one JSON object a line; - is standard input
    #[arg(value_name = "FILE")]
    file: OsString,

    /// Prints one JSON object a line: the case with its events and a summary, times in milliseconds
    #[arg(long)]
    json: bool,
}

impl Simulate {
    /// Reads every case, then plays and prints one after the other.
    pub(super) fn print(&self, out: &mut dyn Write) -> Result<()> {
        let cases = self.read().map_err(|error| error.context(self.name().display()))?;
        // What is printed in small pieces must not be written in them.
        let mut out = BufWriter::new(out);
        for (index, case) in cases.into_iter().enumerate() {
            if !printed(self.print_case(&simulate(case)?, index, &mut out))? {
                return Ok(());
            }
        }
        printed(out.flush()).map(drop)
    }

    fn print_case(
        &self,
        simulated: &SimulatedPolicy,
        index: usize,
        out: &mut impl Write,
    ) -> io::Result<()> {
        if self.json {
            serde_json::to_writer(&mut *out, simulated)?;
            return writeln!(out);
        }
        let gap = if index == 0 { "" } else { "\n" };
        write!(out, "{gap}{simulated}")
    }

    fn name(&self) -> &Path {
        if self.file == "-" { Path::new("standard input") } else { Path::new(&self.file) }
    }

    fn read(&self) -> Result<Vec<PolicyCase>> {
        if self.file == *OsStr::new("-") {
            return read_cases(io::stdin().lock());
        }
        let path = PathBuf::from(&self.file);
        let file = File::open(&path)
            .map_err(|error| Error::io(format!("open {}", path.display()), error))?;
        read_cases(BufReader::new(file))
    }
}

/// The case of each line that is not blank.
///
/// # Errors
/// `Invalid`, with the line and the key: a line that is no case or too long, more lines than a file
/// may have bytes, or no case at all.
fn read_cases(mut input: impl BufRead) -> Result<Vec<PolicyCase>> {
    let line_most = u64::try_from(SIMULATED_LINE_BYTES_MAX).unwrap_or(u64::MAX);
    let mut cases = Vec::new();
    let mut line = Vec::new();
    let mut file_bytes: u64 = 0;
    let mut number: u64 = 0;
    loop {
        line.clear();
        // One byte more than is allowed shows that there are too many.
        let mut rest = (&mut input).take(line_most.saturating_add(1));
        let read = rest.read_until(b'\n', &mut line);
        let read = read.map_err(|error| Error::io("read the cases", error))?;
        if read == 0 {
            break;
        }
        number += 1;
        let refuse = |why: String| Err(Error::invalid(format!("line {number}: {why}")));
        if read > SIMULATED_LINE_BYTES_MAX {
            return refuse(format!("is longer than {SIMULATED_LINE_BYTES_MAX} bytes"));
        }
        file_bytes = file_bytes.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        if file_bytes > SIMULATED_FILE_BYTES_MAX {
            return refuse(format!("ends beyond {SIMULATED_FILE_BYTES_MAX} bytes of cases"));
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice(&line) {
            Ok(case) => cases.push(case),
            Err(error) => return refuse(without_line(&error)),
        }
    }
    if cases.is_empty() {
        return Err(Error::invalid("there is no case"));
    }
    Ok(cases)
}

/// The error with its column; its line is always the first.
fn without_line(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    let text = text.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&text);
    format!("{text} (column {column})")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CASE: &str = r#"{"case":"a","config":{"interval_ms":9},"attempts":[{"outcome":"hang"}]}"#;

    #[test]
    fn a_line_of_the_longest_length_is_read_and_a_longer_one_is_refused_by_its_number() {
        let pad = " ".repeat(SIMULATED_LINE_BYTES_MAX - CASE.len() - 1);
        let cases = read_cases(format!("\n{CASE}{pad}\n{CASE}").as_bytes());
        assert_eq!(cases.unwrap().len(), 2);
        let error = read_cases(format!("{CASE}\n{CASE}{pad}  \n").as_bytes()).unwrap_err();
        assert!(error.to_string().starts_with("line 2: is longer than"), "{error}");
    }

    #[test]
    fn a_file_that_is_too_long_is_refused_however_short_its_lines_are() {
        let blank = format!("{}\n", " ".repeat(SIMULATED_LINE_BYTES_MAX / 16 - 1));
        let lines = usize::try_from(SIMULATED_FILE_BYTES_MAX).unwrap() / blank.len() + 1;
        let error = read_cases(blank.repeat(lines).as_bytes()).unwrap_err();
        assert!(error.to_string().contains("ends beyond"), "{error}");
    }
}
