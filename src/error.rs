//! The one error of the crate: a kind that says what the caller can do, and a sentence.
//!
//! Expected outcomes (declined, expired, subsumed, rejected) are values elsewhere, never errors.
//! `Display` does not repeat the source; a chain printer shows each cause once.

use std::fmt;
use std::path::{Path, PathBuf};

/// What went wrong, in one word, with [`kind`](Error::kind) saying what the caller can do.
pub struct Error(Box<Inner>);

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Fix the call or the configuration.
    Invalid,
    /// Name something that exists.
    NotFound,
    /// Fall back to an older checkpoint or run `tidegate verify`; [`Error::corruption`] says where.
    Corrupt,
    /// Use the version of the crate or of the job that wrote this.
    Incompatible,
    /// Try again later.
    Unavailable,
    /// Another owner holds this; stop one of the two.
    Conflict,
    /// Make space.
    Full,
    /// A write or sync failed earlier; drop the store and open it again.
    Poisoned,
    /// The object was closed; make a new one.
    Closed,
    /// Report this: a promise of the crate does not hold.
    Internal,
}

/// Where bytes are wrong, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Corruption {
    /// The file, as far as one is known.
    pub file: PathBuf,
    /// Bytes from the start of the file.
    pub offset: u64,
    /// What was being read.
    pub what: &'static str,
    /// What should have stood there.
    pub expected: String,
    /// What stood there.
    pub found: String,
}

struct Inner {
    kind: ErrorKind,
    message: String,
    corruption: Option<Corruption>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` with a lower-case sentence that has no final period.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), corruption: None, source: None }))
    }

    /// The same error with its cause.
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The same error, its sentence behind `context` and a colon.
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.0.message = format!("{context}: {}", self.0.message);
        self
    }

    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// True when the same call may succeed later without any change.
    pub fn is_retryable(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Unavailable | ErrorKind::Full)
    }

    /// Where the bytes are wrong, for [`ErrorKind::Corrupt`].
    pub fn corruption(&self) -> Option<&Corruption> {
        self.0.corruption.as_ref()
    }

    /// Fix the call: [`ErrorKind::Invalid`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// A promise of the crate does not hold: [`ErrorKind::Internal`].
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Wrong bytes at a known place: [`ErrorKind::Corrupt`].
    pub(crate) fn corrupt(
        file: &Path,
        offset: u64,
        what: &'static str,
        expected: impl fmt::Display,
        found: impl fmt::Display,
    ) -> Self {
        let corruption = Corruption {
            file: file.to_path_buf(),
            offset,
            what,
            expected: expected.to_string(),
            found: found.to_string(),
        };
        let message = format!(
            "{what} is damaged in {} at offset {offset}: expected {}, found {}",
            file.display(),
            corruption.expected,
            corruption.found
        );
        let mut error = Self::new(ErrorKind::Corrupt, message);
        error.0.corruption = Some(corruption);
        error
    }

    /// A failed call of the operating system; the kind follows from `source`.
    pub fn io(action: impl fmt::Display, source: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match source.kind() {
            Io::NotFound => ErrorKind::NotFound,
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => ErrorKind::Full,
            Io::PermissionDenied | Io::IsADirectory | Io::NotADirectory | Io::InvalidInput => {
                ErrorKind::Invalid
            }
            _ => ErrorKind::Unavailable,
        };
        Self::new(kind, format!("cannot {action}")).with_source(source)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.0.kind).field("message", &self.0.message);
        if let Some(source) = &self.0.source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| -> &(dyn std::error::Error + 'static) { source })
    }
}

/// For `io::Write` and `io::Read` adapters; the error stays reachable as the source.
impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            ErrorKind::Invalid => Io::InvalidInput,
            ErrorKind::NotFound => Io::NotFound,
            ErrorKind::Corrupt | ErrorKind::Incompatible => Io::InvalidData,
            ErrorKind::Full => Io::StorageFull,
            _ => Io::Other,
        };
        Self::new(kind, error)
    }
}

/// An error that travelled through an `io` adapter comes back as itself.
impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(error) => error,
            Err(error) => Self::io("read or write", error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_a_trip_through_io() {
        let error = Error::corrupt(Path::new("log/1.seg"), 7, "frame header", "magic", "zeros");
        let back = Error::from(std::io::Error::from(error));
        assert_eq!(back.kind(), ErrorKind::Corrupt);
        assert_eq!(back.corruption().map(|c| c.offset), Some(7));
    }

    #[test]
    fn display_does_not_repeat_the_source() {
        let error = Error::io("open x", std::io::Error::from(std::io::ErrorKind::NotFound));
        assert_eq!(error.to_string(), "cannot open x");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
