//! Locations and options as text, and what of them is shown.

use std::path::Path;

use crate::error::ErrorKind;
use crate::ids::{CheckpointId, JobId};
use crate::message::CheckpointType;
use crate::storage::remote::tests::store::Bucket;
use crate::storage::remote::{Address, shown};
use crate::storage::tests::commit;
use crate::storage::{
    CheckpointStorage, FileSystemCheckpointStorage, RemoteOptions, StorageUri, open_uri,
};

#[test]
fn a_remote_text_reads_back_as_printed() {
    for (text, printed) in [
        ("s3://bucket/a//b/", "s3://bucket/a/b"),
        ("S3A://bucket/a%20b", "s3a://bucket/a%20b"),
        ("gs://bucket/a?threshold=0", "gs://bucket/a?threshold=0"),
        ("hdfs://host:8020/a?create_subdir=false", "hdfs://host:8020/a?create_subdir=false"),
        (
            "abfss://container@account.dfs.core.windows.net/a",
            "abfss://container@account.dfs.core.windows.net/a",
        ),
        (
            "s3://bucket/a?region=x&threshold=1&endpoint=http://h:1/&conditional_put=false",
            "s3://bucket/a?conditional_put=false&endpoint=http://h:1&region=x&threshold=1",
        ),
        (
            "az://box/a?savepoint_path=s3://other/b%3Fregion=y",
            "az://box/a?savepoint_path=s3://other/b%3Fregion%3Dy",
        ),
    ] {
        let uri: StorageUri = text.parse().unwrap();
        assert_eq!(uri.to_string(), printed);
        assert_eq!(printed.parse::<StorageUri>().unwrap(), uri);
    }
}

#[test]
fn what_is_set_travels_and_what_is_secret_does_not() {
    let bucket = Bucket::new();
    let options = RemoteOptions::new()
        .with_endpoint("http://localhost:1")
        .unwrap()
        .with_region("here")
        .with_access_key("the id", "hunter2")
        .with_session_token("hunter2")
        .with_account_key("hunter2")
        .with_bearer_token("hunter2")
        .with_service_account_key("hunter2");
    let storage = bucket.storage().with_remote_options(&options);
    let text = serde_json::to_string(&storage).unwrap();
    for shown in [format!("{storage:?}"), format!("{storage}"), text.clone(), storage.location()] {
        assert!(!shown.contains("hunter2") && !shown.contains("the id"), "{shown}");
    }
    let back: FileSystemCheckpointStorage = serde_json::from_str(&text).unwrap();
    assert_eq!(back, storage);
    assert_eq!(back.remote_options().region(), Some("here"));
}

#[test]
fn a_secret_in_a_text_is_refused_and_not_repeated() {
    for text in [
        "s3://bucket/a?secret_access_key=hunter2",
        "s3://bucket/a?AWS_SECRET_ACCESS_KEY=hunter2",
        "s3://id:hunter2@bucket/a",
        "s3://bucket/a?endpoint=http://user:hunter2@host",
        "az://box/a?sas_token=hunter2&sas_token=hunter2",
    ] {
        let errors = [
            text.parse::<StorageUri>().unwrap_err(),
            FileSystemCheckpointStorage::new(text).unwrap_err(),
            open_uri(text).unwrap_err(),
            Address::parse("place", text).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
        assert!(!shown(text).contains("hunter2"));
    }
}

#[test]
fn a_scheme_whose_feature_is_off_names_it() {
    for (text, feature, is_on) in [
        ("s3://bucket/a", "s3", cfg!(feature = "s3")),
        ("gs://bucket/a", "gcs", cfg!(feature = "gcs")),
        ("az://bucket/a", "azure", cfg!(feature = "azure")),
        ("hdfs://host/a", "hdfs", cfg!(feature = "hdfs")),
    ] {
        let opened = FileSystemCheckpointStorage::new(text);
        if is_on {
            assert_eq!(opened.unwrap().location(), text);
            continue;
        }
        let error = opened.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(&format!("the feature {feature} ")), "{error}");
        assert!(open_uri(text).is_err());
    }
}

#[test]
fn a_savepoint_goes_to_a_remote_store_and_is_found_there_by_its_pointer() {
    let (bucket, other) = (Bucket::new(), Bucket::new());
    let storage = bucket.storage().with_savepoint_path(other.location()).unwrap();
    let job = storage.open(&JobId::new("job").unwrap()).unwrap();
    let begun = job.begin(CheckpointId(1), CheckpointType::Savepoint, None).unwrap();
    let pointer = begun.1.clone().unwrap();
    assert!(pointer.starts_with(&other.location()), "{pointer}");
    drop((begun, job));
    let missing = storage.resolve_checkpoint(&pointer).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    commit(&bucket.open(), CheckpointId(2)).unwrap();
    let pointer = format!("{}/job/chk-2", bucket.location());
    for pointer in [pointer.clone(), format!("{pointer}/_metadata")] {
        let found = storage.resolve_checkpoint(&pointer).unwrap();
        assert_eq!(found.pointer(), format!("{}/job/chk-2", bucket.location()));
    }
    assert!(Path::new(&pointer).is_relative());
}
