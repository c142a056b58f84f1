//! What a user sets, and what is refused.

use super::*;
use crate::config::CheckpointConfig;
use crate::error::ErrorKind;
use crate::storage::CheckpointStorage;

fn new(path: &str) -> FileSystemCheckpointStorage {
    FileSystemCheckpointStorage::new(path).unwrap()
}

#[test]
fn a_location_has_one_spelling() {
    for path in ["file:///a/b", "file:/a/b", "file:///a//b/", "FILE:///a/b", "file://localhost/a/b"]
    {
        assert_eq!(new(path).checkpoint_path(), "file:///a/b", "{path}");
        assert_eq!(new(path).location(), "file:///a/b", "{path}");
    }
}

#[test]
fn a_path_without_scheme_path_or_directory_below_the_root_is_refused() {
    for path in [
        "",
        "/a/b",
        "a/b",
        "C:\\a",
        "file:",
        "file://",
        "file://host/a",
        "file:/",
        "file:///",
        "file:////",
        "file:a",
        "file:///a/../b",
        "file:///.",
        "file:///a\0",
        "s3://bucket/a",
        "memory:",
        "hdfs:///a",
    ] {
        let refused = |found: Result<FileSystemCheckpointStorage>| {
            assert_eq!(found.map_err(|e| e.kind()).err(), Some(ErrorKind::Invalid), "{path:?}");
        };
        refused(FileSystemCheckpointStorage::new(path));
        refused(new("file:///a").with_savepoint_path(path));
    }
    assert_eq!(
        new("file:///a").with_savepoint_path("file:/s/").unwrap().savepoint_path(),
        Some("file:///s")
    );
}

#[test]
fn sizes_outside_their_bounds_are_refused() {
    let most = FileSystemCheckpointStorage::MAX_FILE_STATE_THRESHOLD;
    assert_eq!(most, 1_048_576);
    for bytes in [i32::MIN, -2, most + 1, i32::MAX] {
        let found = new("file:///a").with_file_state_size_threshold(bytes);
        assert_eq!(found.unwrap_err().kind(), ErrorKind::Invalid, "{bytes}");
    }
    for bytes in [i32::MIN, -2, 0] {
        let found = new("file:///a").with_write_buffer_size(bytes);
        assert_eq!(found.unwrap_err().kind(), ErrorKind::Invalid, "{bytes}");
    }
    for (threshold, buffer) in [(0, 1), (most, i32::MAX)] {
        let storage = new("file:///a").with_file_state_size_threshold(threshold).unwrap();
        let storage = storage.with_write_buffer_size(buffer).unwrap();
        assert_eq!(storage.min_file_size_threshold(), u32::try_from(threshold).unwrap());
        assert_eq!(storage.write_buffer_size(), u32::try_from(buffer).unwrap());
    }
}

#[test]
fn a_configuration_completes_what_was_not_set() {
    let sizes = |storage: &FileSystemCheckpointStorage| {
        (storage.min_file_size_threshold(), storage.write_buffer_size())
    };
    let default = CheckpointConfig::builder().build().unwrap();
    let plain = new("file:///a");
    assert_eq!(sizes(&plain), (20_480, 4_096));
    assert_eq!(sizes(&plain.configure(&default)), (20_480, 20_480));
    let config = CheckpointConfig::builder()
        .data_inline_threshold(100)
        .write_buffer_size(7_000)
        .savepoint_dir("file:///from-the-configuration")
        .create_subdir(false)
        .build()
        .unwrap();
    let configured = plain.configure(&config);
    assert_eq!(sizes(&configured), (100, 7_000));
    assert_eq!(configured.savepoint_path(), Some("file:///from-the-configuration"));
    assert!(plain.is_create_subdir() && !configured.is_create_subdir());
    let set = plain
        .clone()
        .with_file_state_size_threshold(9_000)
        .and_then(|storage| storage.with_write_buffer_size(5))
        .and_then(|storage| storage.with_savepoint_path("file:///s"))
        .unwrap()
        .with_create_subdir(true);
    assert_eq!(sizes(&set.configure(&config)), (9_000, 9_000));
    assert_eq!(set.configure(&config).savepoint_path(), Some("file:///s"));
    assert!(set.configure(&config).is_create_subdir());
    let unset = set.with_file_state_size_threshold(-1).unwrap().with_write_buffer_size(-1).unwrap();
    assert_eq!(sizes(&unset), (20_480, 4_096));
}

#[test]
fn locations_threshold_and_buffer_make_two_descriptions_equal() {
    let plain = new("file:///a");
    assert_eq!(plain, new("file:/a/"));
    assert_eq!(plain, plain.clone().with_create_subdir(false));
    for other in [
        new("file:///b"),
        plain.clone().with_file_state_size_threshold(1).unwrap(),
        plain.clone().with_write_buffer_size(1).unwrap(),
        plain.clone().with_savepoint_path("file:///s").unwrap(),
    ] {
        assert_ne!(plain, other);
    }
}

#[test]
fn a_description_reads_back_and_a_wrong_one_does_not() {
    let storage = new("file:///a").with_file_state_size_threshold(7).unwrap();
    let storage = storage.with_savepoint_path("file:///s").unwrap().with_create_subdir(false);
    let text = serde_json::to_string(&storage).unwrap();
    let back: FileSystemCheckpointStorage = serde_json::from_str(&text).unwrap();
    assert_eq!(back, storage);
    assert!(!back.is_create_subdir());
    assert_eq!(text, "\"file:///a?threshold=7&savepoint_path=file:///s&create_subdir=false\"");
    for (from, to) in [
        ("file:///a?", "/a?"),
        ("file:///a?", "file://./a?"),
        ("file:///a?", "file:///?"),
        ("=7", "=1048577"),
        ("=7", "=4294967295"),
    ] {
        let wrong = text.replace(from, to);
        assert!(serde_json::from_str::<FileSystemCheckpointStorage>(&wrong).is_err(), "{wrong}");
    }
}
