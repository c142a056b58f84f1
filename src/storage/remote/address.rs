//! Remote locations: `scheme://authority/path`, perhaps with parameters behind a question mark.

use crate::config::split_scheme;
use crate::error::{Error, Result};
use crate::storage::remote::RemoteOptions;
use crate::storage::uri::Query;

/// A kind of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::storage) enum Kind {
    S3,
    Gcs,
    Azure,
    Hdfs,
    /// A store that a test made.
    #[cfg(all(test, feature = "remote"))]
    Test,
}

impl Kind {
    fn of(scheme: &str) -> Option<Self> {
        match scheme.to_ascii_lowercase().as_str() {
            "s3" | "s3a" => Some(Self::S3),
            "gs" => Some(Self::Gcs),
            "az" | "abfs" | "abfss" => Some(Self::Azure),
            "hdfs" => Some(Self::Hdfs),
            #[cfg(all(test, feature = "remote"))]
            "test-store" => Some(Self::Test),
            _ => None,
        }
    }

    /// The feature that it needs.
    pub(super) fn feature(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gcs",
            Self::Azure => "azure",
            Self::Hdfs => "hdfs",
            #[cfg(all(test, feature = "remote"))]
            Self::Test => "remote",
        }
    }

    fn is_built(self) -> bool {
        match self {
            Self::S3 => cfg!(feature = "s3"),
            Self::Gcs => cfg!(feature = "gcs"),
            Self::Azure => cfg!(feature = "azure"),
            Self::Hdfs => cfg!(feature = "hdfs"),
            #[cfg(all(test, feature = "remote"))]
            Self::Test => true,
        }
    }

    /// # Errors
    /// `Invalid` when the crate was built without it.
    pub(super) fn require_built(self) -> Result<()> {
        if self.is_built() {
            return Ok(());
        }
        let feature = self.feature();
        Err(Error::invalid(format!(
            "this place needs the feature {feature} of the crate, which is off: build tidegate with \
             features = [\"{feature}\"]"
        )))
    }
}

/// True when the text begins with the scheme of a remote store.
pub(in crate::storage) fn is_remote(text: &str) -> bool {
    split_scheme(text).is_some_and(|(scheme, _)| Kind::of(scheme).is_some())
}

/// A remote location, and its parameters with their question mark; any other text has none.
pub(in crate::storage) fn split_parameters(text: &str) -> (&str, &str) {
    let at = text.find('?').filter(|_| is_remote(text));
    text.split_at(at.unwrap_or(text.len()))
}

/// The text as a message may show it: without parameters and without what stands before an `@`.
pub(in crate::storage) fn shown(text: &str) -> String {
    if !is_remote(text) {
        return text.to_owned();
    }
    let (place, query) = text.split_once('?').map_or((text, ""), |(place, _)| (place, "?..."));
    let (scheme, rest) = place.split_once("://").unwrap_or((place, ""));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((user, host)) if user.contains(':') => format!("{scheme}://...@{host}{path}{query}"),
        _ => format!("{place}{query}"),
    }
}

/// A place in a remote store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) struct Address {
    pub(super) kind: Kind,
    /// `scheme://authority`.
    pub(super) root: String,
    /// The bucket, the container or the host.
    pub(super) authority: String,
    /// The path without slashes at its ends; never empty.
    pub(super) path: String,
    /// What the parameters say.
    pub(in crate::storage) options: RemoteOptions,
}

impl Address {
    /// Reads a location; `None` when its scheme is of no remote store.
    ///
    /// # Errors
    /// `Invalid` without a bucket or a path, for `.` and `..` in it, for a secret in the text, and
    /// for a parameter that is unknown or wrong.
    pub(in crate::storage) fn parse(what: &str, text: &str) -> Result<Option<Self>> {
        let Some((place, mut query)) = Self::split(what, text)? else { return Ok(None) };
        let options = RemoteOptions::take_from(&mut query)?;
        query.finish(place.kind.feature(), &RemoteOptions::NAMES)?;
        Ok(Some(Self { options, ..place }))
    }

    /// The same with the parameters as they are.
    pub(in crate::storage) fn split(what: &str, text: &str) -> Result<Option<(Self, Query)>> {
        let refuse = |why: &str| Error::invalid(format!("the {what} {:?} {why}", shown(text)));
        let Some((scheme, rest)) = split_scheme(text) else { return Ok(None) };
        let Some(kind) = Kind::of(scheme) else { return Ok(None) };
        if text.contains('\0') {
            return Err(refuse("has a zero byte"));
        }
        if rest.contains('#') {
            return Err(refuse("has a #, which stands for a checkpoint"));
        }
        let (place, query) = rest.split_once('?').map_or((rest, None), |(a, b)| (a, Some(b)));
        let place = place.strip_prefix("//").unwrap_or_default();
        let (authority, path) = place.split_at(place.find('/').unwrap_or(place.len()));
        if authority.is_empty() {
            return Err(refuse("names no bucket, container or host behind //"));
        }
        if authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':')) {
            return Err(refuse("has a secret before the @; the environment is the place for it"));
        }
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        if parts.is_empty() {
            return Err(refuse("is a root directory; name a path below it"));
        }
        if parts.iter().any(|part| matches!(*part, "." | "..")) {
            return Err(refuse("has . or .. in its path"));
        }
        if parts.iter().any(|part| part.contains(|c: char| c.is_ascii_control())) {
            return Err(refuse("has a control character in its path"));
        }
        let query = RemoteOptions::query(query).map_err(|error| error.context(shown(text)))?;
        let address = Self {
            kind,
            root: format!("{}://{authority}", scheme.to_ascii_lowercase()),
            authority: authority.to_owned(),
            path: parts.join("/"),
            options: RemoteOptions::new(),
        };
        Ok(Some((address, query)))
    }

    /// The scheme, in small letters.
    pub(in crate::storage) fn scheme(&self) -> String {
        self.root.split(':').next().unwrap_or_default().to_owned()
    }

    /// The location in its one spelling, without parameters.
    pub(in crate::storage) fn location(&self) -> String {
        format!("{}/{}", self.root, self.path)
    }

    /// The location with its parameters.
    pub(in crate::storage) fn text(&self) -> String {
        let mut text = self.location();
        self.options.print(&mut text);
        text
    }

    /// # Errors
    /// `Invalid` when the crate was built without what the place needs.
    pub(in crate::storage) fn require_built(&self) -> Result<()> {
        self.kind.require_built()
    }
}
