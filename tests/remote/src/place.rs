//! How a storage reaches a server.

use std::net::SocketAddr;
use std::time::Duration;

use tidegate::storage::RemoteOptions;

use crate::server::{ACCESS_KEY, BUCKET, SECRET_KEY};

/// The variables of the environment that hold the key.
pub const KEY_VARIABLES: [(&str, &str); 2] =
    [("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)];

/// How long a request is tried again before a storage gives up on a server.
const RETRY: Duration = Duration::from_secs(2);

/// The location of a prefix.
pub fn location(prefix: &str) -> String {
    format!("s3://{BUCKET}/{prefix}")
}

/// The location with all that a process needs beside the key.
pub fn uri(server: SocketAddr, prefix: &str) -> String {
    let retry = RETRY.as_millis();
    let place = location(prefix);
    format!("{place}?allow_http=true&endpoint=http://{server}&retry_timeout_ms={retry}")
}

/// The same as options, with the key.
///
/// # Errors
/// None for a server on loopback.
pub fn options(server: SocketAddr) -> tidegate::Result<RemoteOptions> {
    let options = RemoteOptions::new().with_endpoint(format!("http://{server}"))?;
    Ok(options
        .with_allow_http(true)
        .with_retry_timeout(RETRY)
        .with_access_key(ACCESS_KEY, SECRET_KEY))
}
