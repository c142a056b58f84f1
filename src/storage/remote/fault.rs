//! The store's errors as `io::Error`: their kind, and a text in which no secret stands.

use std::error::Error as StdError;
use std::io;

use object_store::Error;

/// Secrets that must not be shown.
#[derive(Clone, Default)]
pub(super) struct Secrets(pub(super) Vec<String>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

/// Where a signed address begins to tell what nobody should know.
const SIGNED: [&str; 4] =
    ["X-Amz-Signature=", "X-Amz-Security-Token=", "X-Goog-Signature=", "sig="];

/// Who is asked for credentials where none are set: the machine's own service, if it has one.
const METADATA_SERVICES: [&str; 2] = ["169.254.169.254", "metadata.google.internal"];

/// The longest text of a store that is passed on, in bytes.
const TEXT_BYTES_MAX: usize = 2048;

/// The error as the crate passes it on. Its sources are in its text; none of them is kept, for nobody
/// knows what they would show.
pub(super) fn to_io(error: &Error, secrets: &Secrets) -> io::Error {
    io::Error::new(kind(error), secrets.hide(&text(error)))
}

/// True when the connection broke while a request was under way that is not tried again by itself.
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
pub(super) fn is_interrupted(error: &Error) -> bool {
    use object_store::client::{HttpError, HttpErrorKind};
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<HttpError>() {
            return error.kind() == HttpErrorKind::Interrupted;
        }
        source = error.source();
    }
    false
}

/// Without HTTP there is none that is not tried again.
#[cfg(not(any(feature = "s3", feature = "gcs", feature = "azure")))]
pub(super) fn is_interrupted(_: &Error) -> bool {
    false
}

fn text(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        // Most of them repeat what caused them.
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    if METADATA_SERVICES.iter().any(|service| text.contains(service)) {
        return format!("no credentials are set, and no service of the machine gives any: {text}");
    }
    text
}

fn kind(error: &Error) -> io::ErrorKind {
    use io::ErrorKind as Io;
    match error {
        Error::NotFound { .. } => Io::NotFound,
        Error::AlreadyExists { .. } | Error::Precondition { .. } => Io::AlreadyExists,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Io::PermissionDenied,
        Error::InvalidPath { .. } | Error::UnknownConfigurationKey { .. } => Io::InvalidInput,
        Error::NotSupported { .. } | Error::NotImplemented { .. } => Io::Unsupported,
        other => kind_of_text(&text(other)),
    }
}

/// What a store says only in words.
fn kind_of_text(text: &str) -> io::ErrorKind {
    use io::ErrorKind as Io;
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["507 ", "QuotaExceeded", "StorageFull", "quota exceeded", "Quota exceeded"]) {
        Io::QuotaExceeded
    } else if says(&["timed out", "timeout", "Timeout"]) {
        Io::TimedOut
    } else {
        Io::Other
    }
}

impl Secrets {
    fn hide(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in self.0.iter().filter(|secret| !secret.is_empty()) {
            text = text.replace(secret, "...");
        }
        for mark in SIGNED {
            text = hide_behind(&text, mark);
        }
        let mut end = text.len().min(TEXT_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text
    }
}

/// The text with what follows each `mark` left out, up to the end of the parameter.
fn hide_behind(text: &str, mark: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(mark) {
        out.push_str(before);
        out.push_str(mark);
        out.push_str("...");
        let is_end = |c: char| c == '&' || c.is_whitespace() || "\"')>".contains(c);
        rest = after.get(after.find(is_end).unwrap_or(after.len())..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}
