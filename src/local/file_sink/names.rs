//! The names of a sink's files: who wrote them, and whether they are committed.
//!
//! `part-OWNER-OPERATOR-SUBTASK-ATTEMPT-CHECKPOINT` when committed;
//! `.part-OWNER-OPERATOR-SUBTASK-ATTEMPT-NUMBER` while pending. Owner and operator are escaped so
//! that they contain no hyphen.

use std::fmt::Write;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Attempt, CheckpointId};
use crate::local::sink::{SinkContext, Token};
use crate::state::codec;

/// The longest file name that every file system takes.
const FILE_NAME_BYTES_MAX: usize = 255;

/// What subtask, attempt and checkpoint need at most, with their hyphens.
const NUMBER_BYTES_MAX: usize = 10 + 1 + 10 + 1 + 20;

#[derive(Debug, Clone)]
pub(super) struct Names {
    /// `part-OWNER-`
    owner: String,
    /// `part-OWNER-OPERATOR-`
    operator: String,
    subtask: u32,
}

impl Names {
    pub(super) fn new(context: &SinkContext) -> Result<Self> {
        let owner = format!("part-{}-", escape(&context.owner));
        let operator = format!("{owner}{}-", escape(context.task.operator.as_str()));
        if 1 + operator.len() + NUMBER_BYTES_MAX > FILE_NAME_BYTES_MAX {
            return Err(Error::invalid(format!(
                "the operator uid {} is too long for the names of its files",
                context.task.operator
            )));
        }
        Ok(Self { owner, operator, subtask: context.task.subtask })
    }

    pub(super) fn pending(&self, attempt: Attempt, number: u64) -> String {
        format!(".{}{}-{attempt}-{number}", self.operator, self.subtask)
    }

    pub(super) fn committed(&self, attempt: Attempt, id: CheckpointId) -> String {
        format!("{}{}-{attempt}-{id}", self.operator, self.subtask)
    }

    /// The pending and the committed name that a token holds.
    pub(super) fn of_token(&self, token: &Token) -> Result<(String, String)> {
        let (pending, committed) = codec::decode::<(String, String)>(&token.bytes)?;
        let plain = self.is_pending(&pending)
            && committed.starts_with(&self.operator)
            && ![&pending, &committed].iter().any(|name| name.contains(['/', '\\']));
        if plain {
            return Ok((pending, committed));
        }
        Err(Error::new(
            ErrorKind::Incompatible,
            format!("the checkpoint holds an output file {pending:?} that is not of this sink"),
        ))
    }

    /// A pending file of this sink, of any subtask and attempt.
    pub(super) fn is_pending(&self, name: &str) -> bool {
        name.strip_prefix('.').is_some_and(|name| name.starts_with(&self.operator))
    }

    /// The checkpoint of a committed file of this sink, of any subtask and attempt.
    pub(super) fn checkpoint(&self, name: &str) -> Option<CheckpointId> {
        let mut numbers = name.strip_prefix(&self.operator)?.split('-');
        let (_subtask, _attempt) = (numbers.next()?, numbers.next()?);
        numbers.next()?.parse().ok().map(CheckpointId)
    }

    /// A committed file that was not written for this owner.
    pub(super) fn is_foreign(&self, name: &str) -> bool {
        name.starts_with("part-") && !name.starts_with(&self.owner)
    }
}

fn escape(name: &str) -> String {
    let mut escaped = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' {
            escaped.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "%{byte:02x}");
        }
    }
    escaped
}
