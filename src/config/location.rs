//! Locations as text: `scheme://authority/path`, or a plain path.

use crate::error::{Error, Result};

/// Checks a directory and gives it in its one spelling: no doubled and no trailing slash.
///
/// # Errors
/// `Invalid` when it is empty, has a scheme without a path, or is a root directory.
pub(super) fn directory(what: &str, text: &str) -> Result<String> {
    let refuse = |why: &str| Error::invalid(format!("the {what} {text:?} {why}"));
    if text.is_empty() {
        return Err(refuse("is empty"));
    }
    if text.contains('\0') {
        return Err(refuse("has a zero byte"));
    }
    let (base, path) = split(text);
    let path = without_extra_slashes(path);
    match path.as_str() {
        "" => Err(refuse("has no path")),
        "/" => Err(refuse("is a root directory")),
        _ => Ok(format!("{base}{path}")),
    }
}

/// Divides a location behind the colon of its scheme, if it has one. A scheme has two letters or
/// more, so that `C:\dir` is a path.
pub(crate) fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let is_scheme = |name: &str| {
        name.len() > 1
            && name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "+.-".contains(c))
    };
    text.split_once(':').filter(|(scheme, _)| is_scheme(scheme))
}

/// Divides a location before its path.
fn split(text: &str) -> (&str, &str) {
    let Some((scheme, rest)) = split_scheme(text) else {
        return ("", text);
    };
    let authority =
        rest.strip_prefix("//").map_or(0, |after| 2 + after.find('/').unwrap_or(after.len()));
    text.split_at(scheme.len() + 1 + authority)
}

fn without_extra_slashes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !out.ends_with('/') {
            out.push(c);
        }
    }
    if out.len() > 1 && out.ends_with('/') {
        out.pop();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::directory;

    #[test]
    fn a_directory_has_one_spelling() {
        for (given, kept) in [
            ("file:///a/b/", "file:///a/b"),
            ("gs://bucket/a//b", "gs://bucket/a/b"),
            ("hdfs://host:8020/x", "hdfs://host:8020/x"),
            ("file:/a", "file:/a"),
            ("state//x/", "state/x"),
            ("/var/state", "/var/state"),
            ("C:\\state", "C:\\state"),
        ] {
            assert_eq!(directory("directory", given).unwrap(), kept);
        }
    }

    #[test]
    fn a_location_that_names_no_directory_is_refused() {
        for text in ["", "/", "///", "file:///", "file:", "s3://bucket", "memory:", "a\0b"] {
            assert!(directory("directory", text).is_err(), "{text:?}");
        }
    }
}
