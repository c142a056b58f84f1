//! The text form of a storage: parsed and printed here, opened elsewhere.
//!
//! Owns the schemes and their parameters. What is printed reads back as the same value. Must never
//! look at a file: a directory is text here.

mod percent;
mod query;

pub(in crate::storage) use query::{Query, print as print_parameters};

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::config::split_scheme;
use crate::error::{Error, Result};
use crate::platform;
use crate::storage::remote::{Address, RemoteOptions, is_remote, shown};
use crate::storage::sled::Placement;

/// The most bytes of an inline threshold, as in Flink.
const THRESHOLD_MAX: u32 = 1024 * 1024;

/// What a parameter that names a place looks like.
const LOCATION: &str = "file:///path";

/// The schemes that can be read.
const SCHEMES: [&str; 9] = ["memory", "sled", "file", "custom", "s3", "gs", "az", "hdfs", "tiered"];

/// What a file system can be told, here or remote.
pub(in crate::storage) const FILES: [&str; 4] =
    ["threshold", "write_buffer", "savepoint_path", "create_subdir"];

/// A storage as text: `memory:?max_state_size=1000`, `sled:///path?placement=sled`,
/// `file:///path?threshold=20480&write_buffer=20480`, `s3://bucket/path?region=eu-west-1` and the same
/// with `gs`, `az` and `hdfs`, `custom:NAME?key=value`,
/// `tiered:?fast=sled:///path&durable=s3://bucket/path`, or a plain path, which is a sled store.
///
/// A relative directory is written behind a dot: `sled://./state`. A plain path is taken as it is:
/// it has no parameters, and a percent sign in it is one. Everywhere else other bytes than letters,
/// digits and `-._~` are percent-encoded. Serialised, it is this text.
///
/// ```
/// use tidegate::storage::{Placement, StorageUri};
///
/// let uri: StorageUri = "sled:///var/my%20state?placement=sled".parse()?;
/// let expected = ("/var/my state".into(), Some(Placement::Sled));
/// assert_eq!(uri, StorageUri::Sled { directory: expected.0, placement: expected.1 });
/// assert_eq!(uri.to_string(), "sled:///var/my%20state?placement=sled");
///
/// let unknown = "sled:///state?placment=sled".parse::<StorageUri>().unwrap_err();
/// assert!(unknown.to_string().contains("its only one is placement"));
/// # Ok::<_, tidegate::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum StorageUri {
    /// `memory:`, the process's memory.
    Memory {
        /// The most bytes of one state of one task; the storage's default when not set.
        max_state_size: Option<u64>,
        /// Where completed checkpoints are written as files too, as `file:///path`.
        checkpoint_path: Option<String>,
        /// Where savepoints go, as `file:///path`.
        savepoint_path: Option<String>,
    },
    /// `sled:` or a plain path, an embedded store in a directory.
    Sled {
        /// The directory of the store.
        directory: PathBuf,
        /// Where chunk bodies lie.
        placement: Option<Placement>,
    },
    /// `file:`, plain files.
    File {
        /// The base directory.
        directory: PathBuf,
        /// The bytes up to which state lies in the metadata: at most 1 MiB; the configuration's
        /// when not set.
        threshold: Option<u32>,
        /// The write buffer in bytes; the configuration's when not set.
        write_buffer: Option<u32>,
        /// Where savepoints go, as `file:///path`; the configuration's when not set.
        savepoint_path: Option<String>,
        /// Whether each job has a directory below the base; the configuration's when not set.
        create_subdir: Option<bool>,
    },
    /// `s3:`, `gs:`, `az:` or `hdfs:`, objects of a remote store. Read and printed by every build;
    /// opening one needs the feature of its scheme.
    Remote {
        /// The place, such as `s3://bucket/path`, not percent-encoded.
        location: String,
        /// How the store is reached; its secrets are not printed.
        options: RemoteOptions,
        /// As for files.
        threshold: Option<u32>,
        /// As for files.
        write_buffer: Option<u32>,
        /// As for files, here or remote.
        savepoint_path: Option<String>,
        /// As for files.
        create_subdir: Option<bool>,
    },
    /// `custom:`, a storage that was registered by name.
    Custom {
        /// The name.
        name: String,
        /// What its factory is told.
        parameters: BTreeMap<String, String>,
    },
    /// `tiered:`, a fast storage that is copied to a durable one.
    Tiered {
        /// Where checkpoints complete; its own `?` and `&` are percent-encoded.
        fast: Box<StorageUri>,
        /// Where they are copied to.
        durable: Box<StorageUri>,
        /// How many checkpoints the durable one keeps, at least 1; the configuration's number when
        /// not set.
        retained: Option<u32>,
        /// The most bytes that are copied in a second, at least 1; no limit when not set.
        bytes_per_second: Option<u64>,
    },
}

impl FromStr for StorageUri {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).map_err(|error| error.context(format!("the storage {:?}", shown(text))))
    }
}

fn parse(text: &str) -> Result<StorageUri> {
    if text.is_empty() {
        return Err(Error::invalid("is empty"));
    }
    if text.contains('\0') {
        return Err(Error::invalid("has a zero byte"));
    }
    let Some((scheme, rest)) = split_scheme(text) else {
        return Ok(StorageUri::Sled { directory: text.into(), placement: None });
    };
    let scheme = scheme.to_ascii_lowercase();
    if is_remote(text) {
        return remote(text);
    }
    if !SCHEMES.contains(&scheme.as_str()) {
        let known = SCHEMES.map(|name| format!("{name}:")).join(", ");
        let nearest = query::nearest(&scheme, &SCHEMES).unwrap_or_default();
        let message = format!(
            "there is no scheme {scheme:?}; the nearest is {nearest}:, there are {known} and plain \
             paths"
        );
        return Err(Error::invalid(message));
    }
    if rest.contains('#') {
        return Err(Error::invalid("a # stands for a checkpoint; write it as %23"));
    }
    let (place, query) = rest.split_once('?').map_or((rest, None), |(a, b)| (a, Some(b)));
    let query = Query::parse(query)?;
    match scheme.as_str() {
        "memory" => memory(place, query),
        "sled" => sled(place, query),
        "file" => file(place, query),
        "tiered" => tiered(place, query),
        _ => custom(place, query),
    }
}

fn memory(place: &str, mut query: Query) -> Result<StorageUri> {
    if !place.is_empty() {
        return Err(Error::invalid(format!("memory: has no place, and this names {place:?}")));
    }
    let name = "max_state_size";
    let wanted = "a number of bytes from 1";
    let max_state_size = query.take::<u64>(name, wanted)?;
    if max_state_size == Some(0) {
        return Err(Error::invalid(format!("{name}=0 is wrong: {wanted} is needed")));
    }
    let checkpoint_path = query.take("checkpoint_path", LOCATION)?;
    let savepoint_path = query.take("savepoint_path", LOCATION)?;
    query.finish("memory", &[name, "checkpoint_path", "savepoint_path"])?;
    Ok(StorageUri::Memory { max_state_size, checkpoint_path, savepoint_path })
}

fn sled(place: &str, mut query: Query) -> Result<StorageUri> {
    let directory = directory("sled", place)?;
    let placement = query.take("placement", "split or sled")?;
    query.finish("sled", &["placement"])?;
    Ok(StorageUri::Sled { directory, placement })
}

fn file(place: &str, mut query: Query) -> Result<StorageUri> {
    let is_path = place.starts_with('/') && !place.starts_with("//");
    // Flink's other spelling.
    let whole = if is_path { format!("//{place}") } else { place.to_owned() };
    let directory = directory("file", &whole)?;
    let (threshold, write_buffer, savepoint_path, create_subdir) = files(&mut query)?;
    query.finish("file", &FILES)?;
    Ok(StorageUri::File { directory, threshold, write_buffer, savepoint_path, create_subdir })
}

fn remote(text: &str) -> Result<StorageUri> {
    if text.contains('#') {
        let message = "a # stands for a checkpoint, and no path of a remote store has one";
        return Err(Error::invalid(message));
    }
    // The path is percent-encoded here, as in every text of a storage.
    let (place, query) = text.split_once('?').map_or((text, ""), |(place, query)| (place, query));
    let decoded = percent::decode(place).and_then(|bytes| String::from_utf8(bytes).ok());
    let decoded = decoded.filter(|place| !place.contains(['?', '#', '\0']));
    let place = decoded.ok_or_else(|| Error::invalid("the path is not percent-encoded UTF-8"))?;
    let whole = if query.is_empty() { place } else { format!("{place}?{query}") };
    let found = Address::split("place", &whole)?;
    let (address, mut query) = found.ok_or_else(|| Error::internal("a remote place"))?;
    let options = RemoteOptions::take_from(&mut query)?;
    let (threshold, write_buffer, savepoint_path, create_subdir) = files(&mut query)?;
    let known: Vec<&str> = FILES.into_iter().chain(RemoteOptions::NAMES).collect();
    query.finish(&address.scheme(), &known)?;
    Ok(StorageUri::Remote {
        location: address.location(),
        options,
        threshold,
        write_buffer,
        savepoint_path,
        create_subdir,
    })
}

type Files = (Option<u32>, Option<u32>, Option<String>, Option<bool>);

/// What a file system is told.
fn files(query: &mut Query) -> Result<Files> {
    let wanted = "a number of bytes up to 1048576";
    let threshold = query.take("threshold", wanted)?;
    if threshold.is_some_and(|bytes| bytes > THRESHOLD_MAX) {
        return Err(Error::invalid(format!("the threshold is too large: {wanted} is needed")));
    }
    let write_buffer = query.take("write_buffer", "a number of bytes")?;
    let savepoint_path = query.take("savepoint_path", LOCATION)?;
    let create_subdir = query.take("create_subdir", "true or false")?;
    Ok((threshold, write_buffer, savepoint_path, create_subdir))
}

fn tiered(place: &str, mut query: Query) -> Result<StorageUri> {
    if !place.is_empty() {
        return Err(Error::invalid(format!("tiered: has no place, and this names {place:?}")));
    }
    let fast = tier(&mut query, "fast")?;
    let durable = tier(&mut query, "durable")?;
    let wanted = "a number from 1";
    let retained = query.take::<u32>("retained", wanted)?;
    let bytes_per_second = query.take::<u64>("bytes_per_second", wanted)?;
    let zero =
        [("retained", retained == Some(0)), ("bytes_per_second", bytes_per_second == Some(0))];
    if let Some((name, _)) = zero.iter().find(|(_, is_zero)| *is_zero) {
        return Err(Error::invalid(format!("{name}=0 is wrong: {wanted} is needed")));
    }
    query.finish("tiered", &["fast", "durable", "retained", "bytes_per_second"])?;
    Ok(StorageUri::Tiered { fast, durable, retained, bytes_per_second })
}

/// A storage within the text of another one.
fn tier(query: &mut Query, name: &str) -> Result<Box<StorageUri>> {
    let text = query.take::<String>(name, "a storage")?;
    let text = text.ok_or_else(|| {
        Error::invalid(format!("tiered: lacks the {name} storage: tiered:?fast=URI&durable=URI"))
    })?;
    // A tier has no tiers: the text is not read deeper than this.
    let is_tiered =
        split_scheme(&text).is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("tiered"));
    if is_tiered {
        return Err(Error::invalid(format!("{name}: a tier cannot have two tiers itself")));
    }
    parse(&text).map(Box::new).map_err(|error| error.context(format!("{name}={text:?}")))
}

fn custom(place: &str, query: Query) -> Result<StorageUri> {
    let name = percent::decode(place).and_then(|name| String::from_utf8(name).ok());
    let name = name.ok_or_else(|| Error::invalid("the name is not percent-encoded UTF-8"))?;
    if name.is_empty() {
        return Err(Error::invalid("custom: lacks the name of a registered storage: custom:NAME"));
    }
    if place.starts_with('/') {
        return Err(Error::invalid("custom: is followed by a name, not by slashes: custom:NAME"));
    }
    Ok(StorageUri::Custom { name, parameters: query.into_parameters() })
}

/// The directory behind a scheme: `///path`, or `//./path` for one that is relative.
fn directory(scheme: &str, place: &str) -> Result<PathBuf> {
    let Some(rest) = place.strip_prefix("//") else {
        let message = format!("{scheme}: lacks the slashes of {scheme}:///path");
        return Err(Error::invalid(message));
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = match host {
        "" | "localhost" => path,
        "." => path.trim_start_matches('/'),
        _ => {
            return Err(Error::invalid(format!(
                "{scheme}: names the host {host:?}, but the place is a local directory: \
                 {scheme}:///path, or {scheme}://./path below the working directory"
            )));
        }
    };
    if path.is_empty() {
        return Err(Error::invalid(format!("{scheme}: names no directory: {scheme}:///path")));
    }
    let bytes = percent::decode(path);
    let bytes = bytes.filter(|bytes| !bytes.contains(&0));
    bytes
        .and_then(platform::path_of_bytes)
        .ok_or_else(|| Error::invalid(format!("{path:?} is not a percent-encoded path")))
}

fn print_directory(directory: &Path, out: &mut String) {
    let bytes = platform::path_bytes(directory);
    out.push_str(if bytes.starts_with(b"/") { "://" } else { "://./" });
    percent::encode(&bytes, "/", out);
}

/// A parameter as it is printed, if it is set.
fn text<'a, T: fmt::Display>(name: &'a str, value: Option<&T>) -> Option<(&'a str, String)> {
    value.map(|value| (name, value.to_string()))
}

impl fmt::Display for StorageUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        match self {
            Self::Memory { max_state_size, checkpoint_path, savepoint_path } => {
                out.push_str("memory:");
                let parameters = [
                    text("max_state_size", max_state_size.as_ref()),
                    text("checkpoint_path", checkpoint_path.as_ref()),
                    text("savepoint_path", savepoint_path.as_ref()),
                ];
                query::print(parameters.into_iter().flatten(), &mut out);
            }
            Self::Sled { directory, placement } => {
                out.push_str("sled");
                print_directory(directory, &mut out);
                query::print(text("placement", placement.as_ref()), &mut out);
            }
            Self::File { directory, threshold, write_buffer, savepoint_path, create_subdir } => {
                out.push_str("file");
                print_directory(directory, &mut out);
                let parameters = [
                    text("threshold", threshold.as_ref()),
                    text("write_buffer", write_buffer.as_ref()),
                    text("savepoint_path", savepoint_path.as_ref()),
                    text("create_subdir", create_subdir.as_ref()),
                ];
                query::print(parameters.into_iter().flatten(), &mut out);
            }
            Self::Remote {
                location,
                options,
                threshold,
                write_buffer,
                savepoint_path,
                create_subdir,
            } => {
                percent::encode(location.as_bytes(), "/:@", &mut out);
                let parameters = [
                    text("threshold", threshold.as_ref()),
                    text("write_buffer", write_buffer.as_ref()),
                    text("savepoint_path", savepoint_path.as_ref()),
                    text("create_subdir", create_subdir.as_ref()),
                ];
                let parameters = options.parameters().chain(parameters.into_iter().flatten());
                query::print(parameters, &mut out);
            }
            Self::Custom { name, parameters } => {
                out.push_str("custom:");
                percent::encode(name.as_bytes(), "", &mut out);
                let parameters = parameters.iter();
                query::print(parameters.map(|(k, v)| (k.as_str(), v.clone())), &mut out);
            }
            Self::Tiered { fast, durable, retained, bytes_per_second } => {
                out.push_str("tiered:");
                let parameters = [
                    text("fast", Some(fast)),
                    text("durable", Some(durable)),
                    text("retained", retained.as_ref()),
                    text("bytes_per_second", bytes_per_second.as_ref()),
                ];
                query::print(parameters.into_iter().flatten(), &mut out);
            }
        }
        f.write_str(&out)
    }
}

impl TryFrom<String> for StorageUri {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<StorageUri> for String {
    fn from(uri: StorageUri) -> Self {
        uri.to_string()
    }
}

#[cfg(test)]
mod tests;
