//! Goal: what a storage is called has one meaning, and what has none is refused with the way out.
//! Method: tables of texts, and values of every byte printed and read again.

use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;
use crate::storage::{JobManagerCheckpointStorage, SledCheckpointStorage};

fn sled(directory: &str, placement: Option<Placement>) -> StorageUri {
    StorageUri::Sled { directory: directory.into(), placement }
}

fn file(directory: &str, threshold: Option<u32>, write_buffer: Option<u32>) -> StorageUri {
    let directory = directory.into();
    let (savepoint_path, create_subdir) = (None, None);
    StorageUri::File { directory, threshold, write_buffer, savepoint_path, create_subdir }
}

#[test]
fn a_text_means_what_it_says_and_prints_in_its_one_spelling() {
    let file = |threshold, write_buffer| file("/a", threshold, write_buffer);
    let memory = |max_state_size| StorageUri::Memory {
        max_state_size,
        checkpoint_path: None,
        savepoint_path: None,
    };
    let custom = |parameters: &[(&str, &str)]| StorageUri::Custom {
        name: "my store".into(),
        parameters: parameters.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
    };
    for (text, meant, printed) in [
        ("memory:", memory(None), "memory:"),
        ("MEMORY:?max_state_size=1000", memory(Some(1000)), "memory:?max_state_size=1000"),
        ("/var/a?b%", sled("/var/a?b%", None), "sled:///var/a%3Fb%25"),
        ("state", sled("state", None), "sled://./state"),
        ("C:\\state", sled("C:\\state", None), "sled://./C%3A%5Cstate"),
        ("sled:///a%20b", sled("/a b", None), "sled:///a%20b"),
        ("sled://localhost/a", sled("/a", None), "sled:///a"),
        (
            "sled://./a/b?placement=sled",
            sled("a/b", Some(Placement::Sled)),
            "sled://./a/b?placement=sled",
        ),
        ("file:///a", file(None, None), "file:///a"),
        ("file:/a?threshold=0", file(Some(0), None), "file:///a?threshold=0"),
        (
            "file:///a?write_buffer=1&threshold=1048576",
            file(Some(1_048_576), Some(1)),
            "file:///a?threshold=1048576&write_buffer=1",
        ),
        (
            "memory:?savepoint_path=file:///s%20p&checkpoint_path=file:///c",
            StorageUri::Memory {
                max_state_size: None,
                checkpoint_path: Some("file:///c".into()),
                savepoint_path: Some("file:///s p".into()),
            },
            "memory:?checkpoint_path=file:///c&savepoint_path=file:///s%20p",
        ),
        (
            "file:///a?create_subdir=false&savepoint_path=file:///s",
            StorageUri::File {
                directory: "/a".into(),
                threshold: None,
                write_buffer: None,
                savepoint_path: Some("file:///s".into()),
                create_subdir: Some(false),
            },
            "file:///a?savepoint_path=file:///s&create_subdir=false",
        ),
        ("custom:my%20store", custom(&[]), "custom:my%20store"),
        (
            "custom:my%20store?b=/x:y&a=1%263",
            custom(&[("a", "1&3"), ("b", "/x:y")]),
            "custom:my%20store?a=1%263&b=/x:y",
        ),
    ] {
        let found: StorageUri = text.parse().unwrap();
        assert_eq!(found, meant, "{text}");
        assert_eq!(found.to_string(), printed, "{text}");
        assert_eq!(printed.parse::<StorageUri>().unwrap(), meant, "{printed}");
    }
}

#[test]
fn a_wrong_text_says_what_is_wrong_and_what_is_known() {
    for (text, parts) in [
        ("", &["is empty"][..]),
        ("memroy:", &["no scheme \"memroy\"", "nearest is memory:", "sled:", "plain paths"]),
        ("memory:/a", &["has no place", "/a"]),
        ("memory:?max_state_size=ten", &["max_state_size=ten", "bytes from 1"]),
        ("memory:?max_state_size=0", &["max_state_size=0", "bytes from 1"]),
        ("memory:?max=1", &["no parameter \"max\"", "nearest is", "max_state_size"]),
        ("sled:state", &["lacks the slashes of sled:///path"]),
        ("sled:/state", &["lacks the slashes of sled:///path"]),
        ("sled://host/state", &["host \"host\"", "sled:///path"]),
        ("sled://", &["names no directory"]),
        ("sled:///a%2", &["not a percent-encoded path"]),
        ("sled:///a%00", &["not a percent-encoded path"]),
        ("sled:///a#1", &["%23"]),
        ("sled:///a?placement=both", &["placement=both", "split or sled"]),
        ("sled:///a?placement=sled&placement=sled", &["given twice"]),
        ("sled:///a?placement", &["has no value"]),
        ("file:a", &["lacks the slashes of file:///path"]),
        ("file:///a?treshold=1", &["\"treshold\"", "nearest is threshold", "write_buffer"]),
        ("file:///a?threshold=1048577", &["up to 1048576"]),
        ("file:///a?write_buffer=-1", &["write_buffer=-1"]),
        ("file:///a?create_subdir=yes", &["create_subdir=yes", "true or false"]),
        ("custom:", &["lacks the name"]),
        ("custom://name", &["not by slashes"]),
        ("s3:bucket/a", &["names no bucket"]),
        ("s3://bucket/", &["root directory"]),
        ("gs://bucket/a/../b", &[".."]),
        ("s3://bucket/a?regoin=x", &["no parameter \"regoin\"", "nearest is region"]),
        ("s3://bucket/a?allow_http=yes", &["allow_http=yes", "true or false"]),
        ("s3://bucket/a?part_bytes=1", &["part_bytes=1", "5242880"]),
        ("s3://bucket/a#1", &["stands for a checkpoint"]),
        ("a\0b", &["zero byte"]),
    ] {
        let error = text.parse::<StorageUri>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{text}");
        for part in parts {
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
    }
}

#[test]
fn a_description_travels_as_its_text() {
    let stored = SledCheckpointStorage::new("/a b").with_placement(Placement::Sled);
    let text = serde_json::to_string(&stored).unwrap();
    assert_eq!(text, "\"sled:///a%20b?placement=sled\"");
    assert_eq!(serde_json::from_str::<SledCheckpointStorage>(&text).unwrap(), stored);
    assert!(serde_json::from_str::<SledCheckpointStorage>("\"memory:\"").is_err());
    let memory = JobManagerCheckpointStorage::new().with_max_state_size(7).unwrap();
    let text = serde_json::to_string(&memory).unwrap();
    assert_eq!(text, "\"memory:?max_state_size=7\"");
    let back: JobManagerCheckpointStorage = serde_json::from_str(&text).unwrap();
    assert_eq!(back.max_state_size(), 7);
    assert!(serde_json::from_str::<JobManagerCheckpointStorage>("\"/a\"").is_err());
    assert_eq!(JobManagerCheckpointStorage::new().to_uri().to_string(), "memory:");
}

#[cfg(unix)]
#[test]
fn a_path_that_is_no_text_reads_back() {
    let directory = platform::path_of_bytes((1..=255).collect()).unwrap();
    let uri = StorageUri::Sled { directory, placement: None };
    assert_eq!(uri.to_string().parse::<StorageUri>().unwrap(), uri);
}

proptest! {
    #[test]
    fn every_value_reads_back_as_printed(
        path in "[^\0]{1,20}",
        name in "[^/\0].{0,10}",
        parameters in proptest::collection::btree_map(".{1,5}", ".{0,8}", 0..4),
        size in proptest::option::of(1_u64..),
    ) {
        for uri in [
            StorageUri::Memory {
                max_state_size: size,
                checkpoint_path: None,
                savepoint_path: Some(path.clone()),
            },
            sled(&path, Some(Placement::Split)),
            file(&path, Some(3), None),
            StorageUri::Custom { name, parameters },
        ] {
            prop_assert_eq!(uri.to_string().parse::<StorageUri>().unwrap(), uri);
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "(memory|sled|file|custom|s3|x)?:?[/.?&=%#a-z0-9]{0,30}") {
        if let Ok(uri) = text.parse::<StorageUri>() {
            prop_assert_eq!(uri.to_string().parse::<StorageUri>().unwrap(), uri);
        }
    }
}
