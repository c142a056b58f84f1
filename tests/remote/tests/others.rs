//! Goal: what holds on the server of these tests holds on servers that others wrote. Method: the crate's
//! suite over whatever the environment names, and what each server does with conditions.
//!
//! `TIDEGATE_S3_ENDPOINT=http://127.0.0.1:5000` is any S3 server that takes any key, such as moto;
//! `TIDEGATE_AZURE_ENDPOINT=http://127.0.0.1:10000/devstoreaccount1` is Azurite. Without them the tests
//! say that they are skipped.
#![expect(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

#[path = "others/azure.rs"]
mod azure;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use tidegate::storage::RemoteOptions;
use tidegate_remote_tests::judge::{has_key, judge};
use tidegate_remote_tests::place::{KEY_VARIABLES, location};
use tidegate_remote_tests::server::{ACCESS_KEY, BUCKET, SECRET_KEY};

/// Puts at the same moment.
const PUTS: u8 = 12;

/// The address that the environment names, or a word that there is none.
fn endpoint(variable: &str) -> Option<String> {
    let endpoint = std::env::var(variable).ok().filter(|endpoint| !endpoint.is_empty());
    if endpoint.is_none() {
        println!("skipped: {variable} is not set");
    }
    endpoint
}

/// Sends one request without a body, and gives back the status.
fn send(endpoint: &str, request: &str) -> u16 {
    let address = endpoint.strip_prefix("http://").unwrap().split('/').next().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let end = format!("Host: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(format!("{request}{end}").as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Makes the bucket in an S3 server that asks for no key.
fn make_bucket(endpoint: &str) {
    let status = send(endpoint, &format!("PUT /{BUCKET} HTTP/1.1\r\n"));
    assert!(matches!(status, 200 | 409), "{status}");
}

/// How many of several puts at the same moment created their one object.
fn winners(store: &Arc<dyn ObjectStore>, key: &str) -> usize {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(async {
        let mut puts = tokio::task::JoinSet::new();
        for writer in 0..PUTS {
            let (store, key) = (Arc::clone(store), Path::from(key));
            puts.spawn(async move {
                let body = PutPayload::from(vec![writer; 50_000]);
                store.put_opts(&key, body, PutMode::Create.into()).await
            });
        }
        let ends = puts.join_all().await;
        for end in &ends {
            assert!(matches!(end, Ok(_) | Err(Error::AlreadyExists { .. })), "{end:?}");
        }
        let size = store.head(&Path::from(key)).await.unwrap().size;
        assert_eq!(size, 50_000);
        ends.iter().filter(|end| end.is_ok()).count()
    })
}

/// A name that no run before had.
fn fresh(name: &str) -> String {
    let unique = tempfile::tempdir().unwrap();
    format!("{name}-{}", unique.path().file_name().unwrap().to_str().unwrap().replace('.', ""))
}

#[test]
fn every_promise_is_kept_on_another_s3_server() {
    let Some(endpoint) = endpoint("TIDEGATE_S3_ENDPOINT") else { return };
    if !has_key("every_promise_is_kept_on_another_s3_server", &KEY_VARIABLES) {
        return;
    }
    make_bucket(&endpoint);
    let options = RemoteOptions::new().with_endpoint(&endpoint).unwrap();
    let options = options.with_allow_http(true).with_access_key(ACCESS_KEY, SECRET_KEY);
    judge(&location(&fresh("suite")), &options, Ok);
}

#[test]
fn another_s3_server_creates_an_object_once() {
    let Some(endpoint) = endpoint("TIDEGATE_S3_ENDPOINT") else { return };
    make_bucket(&endpoint);
    let store = AmazonS3Builder::new()
        .with_endpoint(&endpoint)
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_bucket_name(BUCKET)
        .with_access_key_id(ACCESS_KEY)
        .with_secret_access_key(SECRET_KEY)
        .build()
        .unwrap();
    assert_eq!(winners(&(Arc::new(store) as _), &fresh("once")), 1);
}

#[test]
fn every_promise_is_kept_on_an_azure_server() {
    let Some(endpoint) = endpoint("TIDEGATE_AZURE_ENDPOINT") else { return };
    let key = [("AZURE_STORAGE_ACCOUNT_KEY", azure::KEY)];
    if !has_key("every_promise_is_kept_on_an_azure_server", &key) {
        return;
    }
    azure::make_container(&endpoint);
    let options = RemoteOptions::new().with_endpoint(&endpoint).unwrap().with_allow_http(true);
    let options = options.with_account(azure::ACCOUNT).with_account_key(azure::KEY);
    judge(&format!("az://{}/{}", azure::CONTAINER, fresh("suite")), &options, Ok);
}

#[test]
fn an_azure_server_creates_a_blob_once() {
    let Some(endpoint) = endpoint("TIDEGATE_AZURE_ENDPOINT") else { return };
    azure::make_container(&endpoint);
    let store = MicrosoftAzureBuilder::new()
        .with_endpoint(endpoint)
        .with_allow_http(true)
        .with_account(azure::ACCOUNT)
        .with_access_key(azure::KEY)
        .with_container_name(azure::CONTAINER)
        .build()
        .unwrap();
    assert_eq!(winners(&(Arc::new(store) as _), &fresh("once")), 1);
}
