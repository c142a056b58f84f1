//! Names and numbers that identify things, each its own type so that none stands for another.
//!
//! Numbers are fixed width and little-endian wherever they are stored. Names are checked once,
//! here, against `limits::NAME_BYTES_MAX`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::limits::NAME_BYTES_MAX;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[derive(Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A checkpoint's number within its job: at least 1, never used twice.
    CheckpointId(u64)
}
number! {
    /// The number of one start of a job; each start has a higher one.
    Attempt(u32)
}

impl CheckpointId {
    /// The id after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks and takes a name.
            ///
            /// # Errors
            /// `Invalid` when it is empty, longer than 255 bytes or has a control character.
            pub fn new(name: impl Into<String>) -> Result<Self> {
                let name = name.into();
                check_name($what, &name)?;
                Ok(Self(name))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(name: String) -> Result<Self> {
                Self::new(name)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = Error;
            fn try_from(name: &str) -> Result<Self> {
                Self::new(name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

name! {
    /// The name of a job within a store.
    JobId, "job id"
}
name! {
    /// The stable name of an operator; its state finds its way home by it.
    OperatorUid, "operator uid"
}

fn check_name(what: &str, name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid(format!("the {what} is empty")));
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(Error::invalid(format!(
            "the {what} has {} bytes, the most is {NAME_BYTES_MAX}",
            name.len()
        )));
    }
    if name.chars().any(char::is_control) {
        return Err(Error::invalid(format!("the {what} {name:?} has a control character")));
    }
    Ok(())
}

/// One subtask of an operator.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId {
    /// The operator.
    pub operator: OperatorUid,
    /// The subtask, from 0.
    pub subtask: u32,
}

impl TaskId {
    /// Every subtask of an operator with so many.
    pub(crate) fn all(
        operator: &OperatorUid,
        parallelism: u32,
    ) -> impl Iterator<Item = Self> + use<> {
        let operator = operator.clone();
        (0..parallelism).map(move |subtask| Self { operator: operator.clone(), subtask })
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.operator, self.subtask)
    }
}

/// The number of a store, drawn when it is made: a frame of another store is never taken for ours.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StoreId(pub [u8; 16]);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreId({self})")
    }
}

impl std::str::FromStr for StoreId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::invalid(format!("{text:?} is not a store id of 32 hex digits"));
        if text.len() != 32 || !text.is_ascii() {
            return Err(wrong());
        }
        let value = u128::from_str_radix(text, 16).map_err(|_| wrong())?;
        let mut bytes = [0; 16];
        for (byte, shift) in bytes.iter_mut().zip((0..16).rev()) {
            *byte = u8::try_from(value >> (shift * 8) & 0xff).unwrap_or_default();
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_break_a_listing_are_refused() {
        assert!(JobId::new("").is_err());
        assert!(JobId::new("a\nb").is_err());
        assert!(JobId::new("x".repeat(256)).is_err());
        assert!(JobId::new("x".repeat(255)).is_ok());
    }

    #[test]
    fn a_store_id_reads_back_as_printed() {
        let id = StoreId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        assert_eq!(id.to_string().parse::<StoreId>().unwrap(), id);
        assert!("12".parse::<StoreId>().is_err());
    }
}
