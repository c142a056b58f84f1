//! From a location and options to a store. Nothing is asked of the store yet.

use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use object_store::multipart::MultipartStore;
use tokio::sync::Semaphore;

use crate::error::{Error, Result};
use crate::storage::disk::Disk;
use crate::storage::remote::address::Address;
#[cfg(any(test, feature = "s3", feature = "gcs", feature = "azure", feature = "hdfs"))]
use crate::storage::remote::address::Kind;
use crate::storage::remote::client::{Client, Limits, Parts};
use crate::storage::remote::disk::ObjectDisk;
use crate::storage::remote::fault::Secrets;
use crate::storage::remote::options::RemoteOptions;

#[cfg(feature = "azure")]
mod azure;
#[cfg(feature = "gcs")]
mod gcs;
#[cfg(feature = "hdfs")]
mod hdfs;
#[cfg(feature = "s3")]
mod s3;

/// Bytes of one part of an upload, when not set: the least that S3 takes.
const PART_BYTES: usize = 5 << 20;

/// Parts that are uploaded at once, when not set.
const PARALLELISM: usize = 4;

/// How often a request is tried again, when not set.
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
const RETRIES: u32 = 10;

/// For how long it is tried again, when not set.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// How long one try may take, when not set.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection may take to come about.
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What a kind of store gives.
pub(super) struct Connected {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) parts: Option<Arc<dyn MultipartStore>>,
    pub(super) has_directories: bool,
    pub(super) secrets: Vec<String>,
}

impl Connected {
    /// A store whose parts have numbers.
    #[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
    fn numbered<T: ObjectStore + MultipartStore>(store: T, secrets: Vec<String>) -> Self {
        let store = Arc::new(store);
        let parts: Arc<dyn MultipartStore> = Arc::<T>::clone(&store);
        Self { store, parts: Some(parts), has_directories: false, secrets }
    }
}

/// How long things may take and how often they are tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    #[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
    retries: u32,
    retry: Duration,
    request: Duration,
}

impl Patience {
    fn of(options: &RemoteOptions) -> Self {
        let millis = |name| options.value(name).map(Duration::from_millis);
        Self {
            #[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
            retries: options.value("max_retries").unwrap_or(RETRIES),
            retry: millis("retry_timeout_ms").unwrap_or(RETRY_TIMEOUT),
            request: millis("request_timeout_ms").unwrap_or(REQUEST_TIMEOUT),
        }
    }

    #[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
    fn retry(self) -> object_store::RetryConfig {
        object_store::RetryConfig {
            max_retries: usize::try_from(self.retries).unwrap_or(usize::MAX),
            retry_timeout: self.retry,
            ..Default::default()
        }
    }
}

/// The client options that the environment gives, with what is set here in their place.
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
fn transport(
    options: &RemoteOptions,
    patience: Patience,
) -> Vec<(object_store::ClientConfigKey, String)> {
    use object_store::ClientConfigKey as Key;
    let seconds = |time: Duration| format!("{} ms", time.as_millis());
    let mut set = vec![
        (Key::Timeout, seconds(patience.request)),
        (Key::ConnectTimeout, seconds(CONNECT_TIMEOUT.min(patience.request))),
    ];
    set.extend(options.text("allow_http").map(|allow| (Key::AllowHttp, allow.to_owned())));
    set
}

/// Reaches the store of a place.
///
/// # Errors
/// `Invalid` when an option is missing or wrong, or the feature of the place is off.
pub(super) fn connect(address: &Address, options: &RemoteOptions) -> Result<Arc<dyn Disk>> {
    let patience = Patience::of(options);
    let Connected { store, parts, has_directories, secrets } = reach(address, options, patience)?;
    let size = |name| options.value::<u32>(name).and_then(|value| usize::try_from(value).ok());
    let parallelism = size("upload_parallelism").unwrap_or(PARALLELISM);
    let client = Client {
        store,
        parts: parts.map(Parts),
        is_conditional: options.is_conditional_put(),
        has_directories,
        limits: Limits {
            part: size("part_bytes").unwrap_or(PART_BYTES),
            // The last try may begin when there is no time left for one more.
            deadline: patience.retry.saturating_add(patience.request.saturating_mul(2)),
        },
        slots: Arc::new(Semaphore::new(parallelism)),
        secrets: Secrets(secrets),
    };
    let server = options.endpoint().unwrap_or_default();
    Ok(Arc::new(ObjectDisk::new(client, &address.root, server)))
}

/// The store of a place, by its kind.
#[cfg_attr(
    not(any(feature = "s3", feature = "gcs", feature = "azure")),
    allow(unused_variables, reason = "only these are told options")
)]
fn reach(address: &Address, options: &RemoteOptions, patience: Patience) -> Result<Connected> {
    match address.kind {
        #[cfg(feature = "s3")]
        Kind::S3 => s3::connect(address, options, patience),
        #[cfg(feature = "gcs")]
        Kind::Gcs => gcs::connect(address, options, patience),
        #[cfg(feature = "azure")]
        Kind::Azure => azure::connect(address, options, patience),
        #[cfg(feature = "hdfs")]
        Kind::Hdfs => hdfs::connect(address),
        #[cfg(test)]
        Kind::Test => Ok(super::tests::connect(&address.authority)),
        #[allow(unreachable_patterns, reason = "with every feature there is no other kind")]
        kind => kind.require_built().and(Err(Error::internal("a kind that cannot be reached"))),
    }
}

/// What a builder refuses, without secrets.
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure", feature = "hdfs"))]
fn refused(address: &Address, error: &object_store::Error, secrets: &[String]) -> Error {
    let error = super::fault::to_io(error, &Secrets(secrets.to_vec()));
    Error::invalid(format!("the store of {} cannot be reached: {error}", address.location()))
}
