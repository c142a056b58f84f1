//! What is set for a remote store beside its location. Secrets are kept apart and shown nowhere.

use std::collections::BTreeMap;
use std::fmt;
#[cfg(feature = "remote")]
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::storage::uri::{Query, print_parameters};

/// Names under which a secret might be given; in a text they are refused.
const SECRET_NAMES: [&str; 16] = [
    "access_key",
    "access_key_id",
    "account_key",
    "api_key",
    "bearer_token",
    "client_secret",
    "key",
    "password",
    "sas",
    "sas_token",
    "secret",
    "secret_access_key",
    "secret_key",
    "service_account_key",
    "session_token",
    "token",
];

/// A part of a multipart upload has at least so many bytes in Amazon S3.
const PART_BYTES_MIN: u32 = 5 << 20;

/// One part lies in memory as a whole.
const PART_BYTES_MAX: u32 = 1 << 30;

/// How a remote store is reached, beyond its location.
///
/// What is not set comes from the environment variables of the store's own tools: `AWS_*`, `GOOGLE_*`,
/// `AZURE_*`, and Hadoop's configuration below `HADOOP_CONF_DIR`. The best place for credentials is
/// there. Those that are set here stay in this process: `Debug`, the text of the storage and what is
/// serialised leave them out, so that another process takes its own from its environment.
///
/// ```
/// use tidegate::storage::{FileSystemCheckpointStorage, RemoteOptions, StorageUri};
///
/// let options = RemoteOptions::new()
///     .with_endpoint("http://localhost:9000")?
///     .with_allow_http(true)
///     .with_access_key("minio", "a secret");
/// assert!(!format!("{options:?}").contains("a secret"));
///
/// // The same, but for the key, as text:
/// let text = "s3://bucket/checkpoints?allow_http=true&endpoint=http://localhost:9000";
/// let uri: StorageUri = text.parse()?;
/// assert_eq!(uri.to_string(), text);
/// # Ok::<_, tidegate::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct RemoteOptions {
    set: BTreeMap<&'static str, String>,
    secrets: BTreeMap<&'static str, String>,
}

impl RemoteOptions {
    /// The parameters of a location, by name.
    pub(in crate::storage) const NAMES: [&'static str; 12] = [
        "account",
        "allow_http",
        "anonymous",
        "conditional_put",
        "endpoint",
        "max_retries",
        "part_bytes",
        "region",
        "request_timeout_ms",
        "retry_timeout_ms",
        "upload_parallelism",
        "virtual_hosted",
    ];

    /// Everything from the environment.
    pub fn new() -> Self {
        Self::default()
    }

    fn with(mut self, name: &'static str, value: &(impl ToString + ?Sized)) -> Self {
        self.set.insert(name, value.to_string());
        self
    }

    fn with_secret(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.secrets.insert(name, value.into());
        self
    }

    /// Sets the server, such as `http://localhost:9000`; the provider's own when not set.
    ///
    /// # Errors
    /// `Invalid` when it is no `http://` or `https://` address, or has a user or parameters in it.
    pub fn with_endpoint(self, endpoint: impl AsRef<str>) -> Result<Self> {
        let endpoint = endpoint.as_ref();
        check_endpoint(endpoint)?;
        Ok(self.with("endpoint", endpoint.trim_end_matches('/')))
    }

    /// Sets the region of a bucket in S3.
    #[must_use]
    pub fn with_region(self, region: impl AsRef<str>) -> Self {
        self.with("region", region.as_ref())
    }

    /// Sets the storage account of a container in Azure.
    #[must_use]
    pub fn with_account(self, account: impl AsRef<str>) -> Self {
        self.with("account", account.as_ref())
    }

    /// Sets whether the connection may do without TLS.
    #[must_use]
    pub fn with_allow_http(self, allow: bool) -> Self {
        self.with("allow_http", &allow)
    }

    /// Sets whether the bucket stands in the server's name rather than in the path.
    #[must_use]
    pub fn with_virtual_hosted(self, hosted: bool) -> Self {
        self.with("virtual_hosted", &hosted)
    }

    /// Sets whether requests go unsigned.
    #[must_use]
    pub fn with_anonymous(self, anonymous: bool) -> Self {
        self.with("anonymous", &anonymous)
    }

    /// Sets whether the store can create an object only if there is none, which it is taken to when
    /// not set. Without it an object is looked for first: two starts of a job at the same moment may
    /// then both believe to be the newest, and an earlier start may still complete a checkpoint.
    #[must_use]
    pub fn with_conditional_put(self, conditional: bool) -> Self {
        self.with("conditional_put", &conditional)
    }

    /// Sets how often a request is tried again; 10 when not set.
    #[must_use]
    pub fn with_max_retries(self, retries: u32) -> Self {
        self.with("max_retries", &retries)
    }

    /// Sets for how long a request is tried again; one minute when not set. Counted in milliseconds.
    #[must_use]
    pub fn with_retry_timeout(self, timeout: Duration) -> Self {
        self.with("retry_timeout_ms", &timeout.as_millis())
    }

    /// Sets how long one try of a request may take; 30 seconds when not set. Counted in milliseconds.
    #[must_use]
    pub fn with_request_timeout(self, timeout: Duration) -> Self {
        self.with("request_timeout_ms", &timeout.as_millis())
    }

    /// Sets how many parts are uploaded at once, over all files of an open job; 4 when not set.
    ///
    /// # Errors
    /// `Invalid` for 0.
    pub fn with_upload_parallelism(self, parts: u32) -> Result<Self> {
        in_bounds("upload_parallelism", parts, 1, 1024)?;
        Ok(self.with("upload_parallelism", &parts))
    }

    /// Sets the bytes of one part of an upload; 5 MiB when not set. A file that is written takes four
    /// parts of memory, and has at most 10 000 of them.
    ///
    /// # Errors
    /// `Invalid` below 5 MiB, which S3 does not take, and above 1 GiB.
    pub fn with_part_bytes(self, bytes: u32) -> Result<Self> {
        in_bounds("part_bytes", bytes, PART_BYTES_MIN, PART_BYTES_MAX)?;
        Ok(self.with("part_bytes", &bytes))
    }

    /// Sets the key of an S3 account. It stays in this process.
    #[must_use]
    pub fn with_access_key(self, id: impl Into<String>, secret: impl Into<String>) -> Self {
        self.with_secret("access_key_id", id).with_secret("secret_access_key", secret)
    }

    /// Sets the token that goes with a temporary key of S3. It stays in this process.
    #[must_use]
    pub fn with_session_token(self, token: impl Into<String>) -> Self {
        self.with_secret("session_token", token)
    }

    /// Sets the key of an Azure storage account. It stays in this process.
    #[must_use]
    pub fn with_account_key(self, key: impl Into<String>) -> Self {
        self.with_secret("account_key", key)
    }

    /// Sets the key of a Google service account, as JSON. It stays in this process.
    #[must_use]
    pub fn with_service_account_key(self, json: impl Into<String>) -> Self {
        self.with_secret("service_account_key", json)
    }

    /// Sets a bearer token, for Azure and Google. It stays in this process.
    #[must_use]
    pub fn with_bearer_token(self, token: impl Into<String>) -> Self {
        self.with_secret("bearer_token", token)
    }

    /// The server, if it is set.
    pub fn endpoint(&self) -> Option<&str> {
        self.text("endpoint")
    }

    /// The region, if it is set.
    pub fn region(&self) -> Option<&str> {
        self.text("region")
    }

    /// True when the store is taken to create an object only if there is none.
    pub fn is_conditional_put(&self) -> bool {
        self.text("conditional_put") != Some("false")
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.set.get(name).map(String::as_str)
    }

    /// The value of an option, all of which were checked on the way in.
    #[cfg(feature = "remote")]
    pub(super) fn value<T: FromStr>(&self, name: &str) -> Option<T> {
        self.text(name)?.parse().ok()
    }

    #[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
    pub(super) fn secret(&self, name: &str) -> Option<&str> {
        self.secrets.get(name).map(String::as_str)
    }

    #[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
    pub(super) fn secrets(&self) -> Vec<String> {
        self.secrets.values().cloned().collect()
    }

    /// The same without its secrets: what may be written down.
    pub(in crate::storage) fn without_secrets(&self) -> Self {
        Self { set: self.set.clone(), secrets: BTreeMap::new() }
    }

    /// These options, with what `wins` sets in their place.
    pub(in crate::storage) fn completed_by(&self, wins: &Self) -> Self {
        let mut all = self.clone();
        all.set.extend(wins.set.iter().map(|(name, value)| (*name, value.clone())));
        all.secrets.extend(wins.secrets.iter().map(|(name, value)| (*name, value.clone())));
        all
    }

    /// Reads the parameters of a remote location.
    ///
    /// # Errors
    /// `Invalid` when one is a secret or written wrong; the message shows no value.
    pub(super) fn query(text: Option<&str>) -> Result<Query> {
        for part in text.into_iter().flat_map(|text| text.split('&')) {
            let name = part.split('=').next().unwrap_or_default().to_ascii_lowercase();
            if SECRET_NAMES.iter().any(|secret| name.ends_with(secret)) {
                return Err(Error::invalid(format!(
                    "the parameter {name} is a secret: it belongs into the environment, or into the \
                     options of this process"
                )));
            }
        }
        Query::parse(text)
    }

    /// Takes what a text may set.
    ///
    /// # Errors
    /// `Invalid` when a value is wrong.
    pub(in crate::storage) fn take_from(query: &mut Query) -> Result<Self> {
        let mut this = Self::new();
        for name in Self::NAMES {
            let value = match name {
                "allow_http" | "anonymous" | "conditional_put" | "virtual_hosted" => {
                    query.take::<bool>(name, "true or false")?.map(|value| value.to_string())
                }
                "max_retries" | "part_bytes" | "upload_parallelism" => {
                    query.take::<u32>(name, "a number")?.map(|value| value.to_string())
                }
                "request_timeout_ms" | "retry_timeout_ms" => {
                    query.take::<u64>(name, "a number of milliseconds")?.map(|ms| ms.to_string())
                }
                _ => query.take::<String>(name, "a text")?,
            };
            let Some(value) = value else { continue };
            this = match name {
                "endpoint" => this.with_endpoint(value)?,
                "part_bytes" => this.with_part_bytes(value.parse().unwrap_or_default())?,
                "upload_parallelism" => {
                    this.with_upload_parallelism(value.parse().unwrap_or_default())?
                }
                _ => this.with(name, &value),
            };
        }
        Ok(this)
    }

    /// The parameters of a text, in order.
    pub(in crate::storage) fn parameters(&self) -> impl Iterator<Item = (&str, String)> {
        self.set.iter().map(|(name, value)| (*name, value.clone()))
    }

    pub(super) fn print(&self, out: &mut String) {
        print_parameters(self.parameters(), out);
    }
}

fn check_endpoint(endpoint: &str) -> Result<()> {
    let rest = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
    let is_plain =
        rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['@', '?', '#', ' ', '\0']));
    if is_plain {
        return Ok(());
    }
    // What stands there may be a password.
    let message =
        "the endpoint is no address like http://host:port: without a user, parameters or spaces";
    Err(Error::invalid(message))
}

fn in_bounds(name: &str, value: u32, least: u32, most: u32) -> Result<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::invalid(format!("{name}={value} is wrong: from {least} to {most} are possible")))
}

impl fmt::Debug for RemoteOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = self.secrets.keys().map(|name| (*name, "..."));
        f.debug_map()
            .entries(self.set.iter().map(|(name, value)| (*name, value.as_str())))
            .entries(hidden)
            .finish()
    }
}
