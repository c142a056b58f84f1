//! Damage as a value of a report.

use std::fmt;

use serde::Serialize;

use crate::error::Error;

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Damage {
    /// What is wrong, with the task that it hits when one is known.
    pub message: String,
    /// The file, when one is known.
    pub file: Option<String>,
    /// Bytes from the start of the file.
    pub offset: Option<u64>,
    /// What should have stood there.
    pub expected: Option<String>,
    /// What stood there.
    pub found: Option<String>,
}

impl Damage {
    pub(super) fn of(error: &Error) -> Self {
        let place = error.corruption();
        Self {
            message: chain(error),
            file: place.map(|place| place.file.display().to_string()),
            offset: place.map(|place| place.offset),
            expected: place.map(|place| place.expected.clone()),
            found: place.map(|place| place.found.clone()),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::text::plain(&self.message))
    }
}

/// An error and its causes in one line, each once.
pub(super) fn chain(error: &Error) -> String {
    let first: &dyn std::error::Error = error;
    let causes = std::iter::successors(Some(first), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
