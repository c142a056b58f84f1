//! What Azurite gives to everybody, and the one request that the client in use cannot make.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::send;

/// The account of every Azurite.
pub(crate) const ACCOUNT: &str = "devstoreaccount1";

/// The well-known key of that account.
pub(crate) const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Where the blobs go.
pub(crate) const CONTAINER: &str = "checkpoints";

/// Any date does: the server does not compare it with its clock.
const DATE: &str = "Mon, 01 Jan 2024 00:00:00 GMT";

/// Makes the container, if there is none.
pub(crate) fn make_container(endpoint: &str) {
    let headers = format!("x-ms-date:{DATE}\nx-ms-version:2021-08-06\n");
    let resource = format!("/{ACCOUNT}/{ACCOUNT}/{CONTAINER}\nrestype:container");
    let signed = format!("PUT\n\n\n\n\n\n\n\n\n\n\n\n{headers}{resource}");
    let mut mac = Hmac::<Sha256>::new_from_slice(&STANDARD.decode(KEY).unwrap()).unwrap();
    mac.update(signed.as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    let headers =
        headers.replace(':', ": ").replace("00: 00: 00", "00:00:00").replace('\n', "\r\n");
    let request = format!(
        "PUT /{ACCOUNT}/{CONTAINER}?restype=container HTTP/1.1\r\n\
         {headers}Authorization: SharedKey {ACCOUNT}:{signature}\r\n"
    );
    let status = send(endpoint, &request);
    assert!(matches!(status, 201 | 409), "{status}");
}
