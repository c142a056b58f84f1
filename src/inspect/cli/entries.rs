//! `show --state`: the entries of one keyed state as JSON.

use std::io::{self, BufWriter, Write};

use serde::Serialize;
use serde::de::IgnoredAny;

use super::{EXIT_NO, EXIT_OK, printed};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, OperatorUid};
use crate::inspect::Inspector;
use crate::inspect::state::StateEntry;

/// How the object begins; not printed before it is known that there is such a state.
const BEGIN: &str = "{\"entries\":[";

/// `UID/NAME`: a state of an operator.
#[derive(Debug, Clone)]
pub(super) struct StateName {
    operator: OperatorUid,
    state: String,
}

impl StateName {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let wrong = || Error::invalid(format!("{text:?} names no state; write UID/NAME"));
        let (operator, state) = text.split_once('/').ok_or_else(wrong)?;
        Ok(Self { operator: OperatorUid::new(operator)?, state: state.to_owned() })
    }

    /// Prints a line for each entry, then what the state is; with `json` one object with all of it.
    /// Returns the exit code.
    pub(super) fn print(
        &self,
        inspector: &Inspector,
        (job, id): (Option<&str>, Option<CheckpointId>),
        json: bool,
        out: &mut dyn Write,
    ) -> Result<u8> {
        let mut lines = Lines { out: BufWriter::new(out), json, count: 0, is_open: true };
        let (operator, state) = (&self.operator, self.state.clone());
        let details = inspector.state(job, id, operator, state, &mut |entry| lines.entry(entry))?;
        if json {
            let details = to_json(&details)?;
            // The details are one object: what is behind its brace goes on where the entries end.
            let begin = if lines.count == 0 { BEGIN } else { "" };
            lines.put(begin)?;
            lines.put("],")?;
            lines.put(details.strip_prefix('{').unwrap_or_default())?;
            lines.put("\n")?;
        } else if !details.readable || lines.count == 0 {
            lines.put(&format!("{details}\n"))?;
        }
        printed(lines.out.flush())?;
        Ok(if details.readable { EXIT_OK } else { EXIT_NO })
    }
}

struct Lines<W: Write> {
    out: BufWriter<W>,
    json: bool,
    count: u64,
    /// False once the reader is gone.
    is_open: bool,
}

impl<W: Write> Lines<W> {
    fn put(&mut self, text: &str) -> Result<()> {
        if self.is_open {
            self.is_open = printed(self.out.write_all(text.as_bytes()))?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: StateEntry<'_>) -> Result<()> {
        let StateEntry { subtask, key, value } = entry;
        for text in [key, value] {
            serde_json::from_str::<IgnoredAny>(text).map_err(|error| {
                Error::new(ErrorKind::Corrupt, "an entry is said to be JSON and is none")
                    .with_source(error)
            })?;
        }
        let before = match (self.json, self.count) {
            (false, _) => "",
            (true, 0) => BEGIN,
            (true, _) => ",\n",
        };
        let end = if self.json { "" } else { "\n" };
        self.count = self.count.saturating_add(1);
        self.put(&format!("{before}{{\"subtask\":{subtask},\"key\":{key},\"value\":{value}}}{end}"))
    }
}

fn to_json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| {
        Error::internal("the report has no JSON").with_source(io::Error::from(error))
    })
}
