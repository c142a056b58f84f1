//! Locations of files and of remote objects: checked, in one spelling, and as a path.

use std::path::PathBuf;

use crate::config::split_scheme;
use crate::error::{Error, Result};
use crate::storage::remote::{Address, is_remote, split_parameters};

/// Checks a location and gives it as `file:///path`, or as that of a remote place.
///
/// # Errors
/// `Invalid` without a scheme, with one that is not known or needs a feature that is off, for a file
/// with a host or without an absolute path, for a root directory, and for a path with `.` or `..`.
pub(in crate::storage) fn check(what: &str, text: &str) -> Result<String> {
    if let Some(address) = Address::parse(what, text)? {
        let location = address.text();
        let named = |error: Error| error.context(format!("the {what} {location:?}"));
        address.require_built().map_err(named)?;
        return Ok(location);
    }
    let refuse = |why: &str| Error::invalid(format!("the {what} {text:?} {why}"));
    if text.contains('\0') {
        return Err(refuse("has a zero byte"));
    }
    let (scheme, rest) = split_scheme(text)
        .ok_or_else(|| refuse("has no scheme; a local directory is file:///and/its/path"))?;
    if !scheme.eq_ignore_ascii_case("file") {
        return Err(refuse(
            "is of a file system that this release does not know; there are file:, s3:, gs:, az: and \
             hdfs:",
        ));
    }
    let path = match rest.strip_prefix("//") {
        None => rest,
        Some(after) => {
            let (host, _) = after.split_at(after.find('/').unwrap_or(after.len()));
            if !matches!(host, "" | "localhost") {
                return Err(refuse("names another host; mount its files and give their path"));
            }
            after.get(host.len()..).unwrap_or_default()
        }
    };
    if path.is_empty() {
        return Err(refuse("has no path"));
    }
    if !path.starts_with('/') {
        return Err(refuse("has a path that does not begin at the root"));
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if parts.is_empty() {
        return Err(refuse("is a root directory"));
    }
    if parts.iter().any(|part| matches!(*part, "." | "..")) {
        return Err(refuse("has . or .. in its path"));
    }
    Ok(format!("file:///{}", parts.join("/")))
}

/// The location of an absolute path, or of one in a remote store.
///
/// # Errors
/// `Invalid` for a path that does not begin at the root.
pub(super) fn of_path(what: &str, path: &str) -> Result<String> {
    if is_remote(path) {
        return Ok(path.to_owned());
    }
    if !path.starts_with('/') {
        let why = "does not begin at the root; a file system is named by its whole path";
        return Err(Error::invalid(format!("the {what} {path:?} {why}")));
    }
    Ok(format!("file://{path}"))
}

/// The path of a location that [`check`] made; a remote one is its own path, without parameters.
pub(super) fn path(location: &str) -> PathBuf {
    let (location, _) = split_parameters(location);
    PathBuf::from(location.strip_prefix("file://").unwrap_or(location))
}
