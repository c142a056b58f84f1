//! Goal: the servers of these tests are as strict as S3, and the proxy does what its faults say; else
//! what the other tests prove is worth nothing. Method: a plain `object_store` client asks both, and
//! what the server stores is looked at behind its back.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what goes wrong here fails the test"
)]

use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut, S3CopyIfNotExists};
use object_store::path::Path;
use object_store::{
    Error, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutPayload, Result, RetryConfig,
};
use tidegate_remote_tests::faults::{self, Fault};
use tidegate_remote_tests::proxy::Proxy;
use tidegate_remote_tests::server::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};

/// The smallest part that S3 takes in the midst of an upload.
const PART_BYTES: usize = 5 << 20;

fn client(server: std::net::SocketAddr, retries: usize) -> AmazonS3 {
    client_of(server, retries, SECRET_KEY)
}

fn client_of(server: std::net::SocketAddr, retries: usize, secret: &str) -> AmazonS3 {
    let retry = RetryConfig {
        max_retries: retries,
        retry_timeout: Duration::from_secs(60),
        ..RetryConfig::default()
    };
    AmazonS3Builder::new()
        .with_endpoint(format!("http://{server}"))
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_bucket_name(BUCKET)
        .with_access_key_id(ACCESS_KEY)
        .with_secret_access_key(secret)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_copy_if_not_exists(S3CopyIfNotExists::Multipart)
        .with_retry(retry)
        .build()
        .unwrap()
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(future)
}

async fn create(client: &AmazonS3, key: &str, bytes: Vec<u8>) -> Result<()> {
    let (key, mode) = (Path::from(key), PutMode::Create.into());
    client.put_opts(&key, PutPayload::from(bytes), mode).await.map(drop)
}

async fn read(client: &AmazonS3, key: &str) -> Result<Vec<u8>> {
    Ok(client.get(&Path::from(key)).await?.bytes().await?.to_vec())
}

#[test]
fn of_puts_at_the_same_moment_that_may_only_create_one_succeeds() {
    let server = S3Server::start();
    let client = client(server.address(), 0);
    wait(async {
        for round in 0..8 {
            let key = format!("round-{round}");
            let mut puts = tokio::task::JoinSet::new();
            for writer in 0..12_u8 {
                let (client, key) = (client.clone(), key.clone());
                puts.spawn(
                    async move { (writer, create(&client, &key, vec![writer; 300_000]).await) },
                );
            }
            let mut winners = Vec::new();
            for (writer, end) in puts.join_all().await {
                match end {
                    Ok(()) => winners.push(writer),
                    Err(Error::AlreadyExists { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            assert_eq!(winners.len(), 1, "{winners:?}");
            assert!(read(&client, &key).await.unwrap() == vec![winners[0]; 300_000]);
        }
    });
    assert_eq!(server.count("refused"), 8 * 11);
}

#[test]
fn an_upload_that_may_only_create_is_not_completed_over_an_object() {
    let server = S3Server::start();
    let client = client(server.address(), 0);
    wait(async {
        create(&client, "from", b"new".to_vec()).await.unwrap();
        let [from, to] = ["from", "to"].map(Path::from);
        client.copy_if_not_exists(&from, &to).await.unwrap();
        assert_eq!(read(&client, "to").await.unwrap(), b"new");
        create(&client, "there", b"old".to_vec()).await.unwrap();
        let refused = client.copy_if_not_exists(&from, &Path::from("there")).await;
        assert!(matches!(refused, Err(Error::AlreadyExists { .. })), "{refused:?}");
        assert_eq!(read(&client, "there").await.unwrap(), b"old");
    });
    assert_eq!(server.open_uploads(), 0);
}

#[test]
fn a_directory_of_the_server_is_no_object() {
    let server = S3Server::start();
    let client = client(server.address(), 0);
    wait(async {
        create(&client, "a/b/c", b"x".to_vec()).await.unwrap();
        for key in ["a", "a/b"] {
            let head = client.head(&Path::from(key)).await;
            assert!(matches!(head, Err(Error::NotFound { .. })), "{head:?}");
            let get = read(&client, key).await;
            assert!(matches!(get, Err(Error::NotFound { .. })), "{get:?}");
        }
    });
}

#[test]
fn a_wrong_key_is_refused() {
    let server = S3Server::start();
    let client = client_of(server.address(), 0, "wrong");
    wait(async { create(&client, "key", b"x".to_vec()).await.unwrap_err() });
    assert!(server.objects("").is_empty());
}

#[test]
fn a_server_that_was_stopped_goes_on_with_what_it_stored() {
    let mut server = S3Server::start();
    let client = client(server.address(), 0);
    for round in 0..3 {
        let key = format!("key-{round}");
        wait(create(&client, &key, vec![round; 1000])).unwrap();
        server.stop();
        wait(read(&client, &key)).unwrap_err();
        server.start_again();
        assert!(wait(read(&client, &key)).unwrap() == vec![round; 1000]);
    }
    assert_eq!(server.objects("key-").len(), 3);
}

#[test]
fn each_fault_does_what_it_says() {
    for fault in Fault::ALL {
        let server = S3Server::start();
        let proxy = Proxy::start(server.address());
        let through = client(proxy.address(), 0);
        let direct = client(server.address(), 0);
        proxy.decide_by(faults::always(fault));
        let bytes = vec![7; 200_000];

        let put = wait(create(&through, "key", bytes.clone()));
        let is_stored = server.objects("") == ["key"];
        let (is_told, is_done) = match fault {
            Fault::Slow => (true, true),
            Fault::DoneButRefused | Fault::CutBeforeAnswer | Fault::CutInAnswer => (false, true),
            Fault::SlowDown | Fault::Refused | Fault::CutBefore | Fault::CutInRequest => {
                (false, false)
            }
        };
        assert_eq!((put.is_ok(), is_stored), (is_told, is_done), "{fault:?}: {put:?}");

        if !is_stored {
            wait(create(&direct, "key", bytes.clone())).unwrap();
        }
        let got = wait(read(&through, "key"));
        assert_eq!(got.is_ok(), is_told, "{fault:?}");
        assert!(proxy.met().get(&fault).is_some_and(|met| *met >= 2), "{fault:?}");
        proxy.decide_by(faults::none());
        assert!(wait(read(&through, "key")).unwrap() == bytes);
    }
}

#[test]
fn a_client_that_tries_again_gets_parts_through_the_faults() {
    let server = S3Server::start();
    let proxy = Proxy::start(server.address());
    let through = client(proxy.address(), 10);
    proxy.decide_by(faults::seeded(3, 300));
    let parts: Vec<Vec<u8>> = (0..4_u8).map(|part| vec![part; PART_BYTES]).collect();
    wait(async {
        let path = Path::from("large");
        let mut upload = client(server.address(), 0).put_multipart(&path).await.unwrap();
        upload.abort().await.unwrap();
        let mut upload = through.put_multipart(&path).await.unwrap();
        for part in &parts {
            upload.put_part(part.clone().into()).await.unwrap();
        }
        proxy.decide_by(faults::none());
        upload.complete().await.unwrap();
        assert!(read(&through, "large").await.unwrap() == parts.concat());
    });
    assert!(server.count("part") >= 4, "{}", server.count("part"));
    assert!(!proxy.met().is_empty());
}
