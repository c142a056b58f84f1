//! Goal: what only the memory storage promises: sharing by clones, bounded states, and memory that
//! comes back. Method: whole checkpoints, and looks at the store behind them. The promises of every
//! storage are tested in `src/storage/tests`.

use std::io::{Read, Write};

use super::*;
use crate::catalog::Checkpoints;
use crate::config::CheckpointConfig;
use crate::error::ErrorKind;
use crate::ids::CheckpointId;
use crate::state::{SectionKey, SectionKind, SnapshotSink};
use crate::storage::StreamStateHandle;
use crate::storage::tests::{SUBTASKS, assert_whole, begin, body, commit, ids, key, task};

fn open(storage: &JobManagerCheckpointStorage) -> Checkpoints {
    Checkpoints::new(storage.open(&JobId::new("job").unwrap()).unwrap())
}

#[test]
fn clones_share_one_store_and_a_new_description_has_its_own() {
    let storage = JobManagerCheckpointStorage::new();
    commit(&open(&storage), CheckpointId(1)).unwrap();
    assert_eq!(ids(&open(&storage.clone())), [1]);
    assert_eq!(ids(&open(&JobManagerCheckpointStorage::default())), [0; 0]);
    let claimed = open(&storage);
    let second = storage.clone().open(&JobId::new("job").unwrap()).unwrap_err();
    assert_eq!(second.kind(), ErrorKind::Conflict);
    assert_ne!(claimed.owner(), open(&JobManagerCheckpointStorage::new()).owner());
}

#[test]
fn the_description_names_place_and_maximum() {
    let storage = JobManagerCheckpointStorage::new();
    assert_eq!(storage.location(), "memory:");
    assert_eq!(storage.to_string(), "memory, at most 5242880 bytes per state");
    assert!(format!("{storage:?}").contains("max_state_size: 5242880"));
    assert_eq!(storage.max_state_size(), JobManagerCheckpointStorage::DEFAULT_MAX_STATE_SIZE);
    let refused = storage.with_max_state_size(0).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
}

/// Writes sections of one task, named by state and index.
fn write(checkpoints: &Checkpoints, sections: &[(&str, u32, usize)]) -> Result<()> {
    let pending = begin(checkpoints, checkpoints.next_id(), 1)?;
    let mut writer = pending.writer(&task(0))?;
    for &(state, index, len) in sections {
        let key = SectionKey::new(SectionKind::Raw, state).with_index(index);
        writer.section(&key, &mut |out| Ok(out.write_all(&vec![7; len])?))?;
    }
    pending.commit(&[(task(0), writer.finish()?)]).map(drop)
}

#[test]
fn a_state_of_the_maximum_is_taken_and_one_byte_more_is_refused() {
    let most = 5_242_880;
    let checkpoints = open(&JobManagerCheckpointStorage::new());
    write(&checkpoints, &[("a", 0, most)]).unwrap();
    write(&checkpoints, &[("a", 0, most - 5000), ("b", 0, most), ("a", 1, 5000)]).unwrap();
    let refused = |sections: &[_]| {
        let error = write(&checkpoints, sections).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        error.to_string()
    };
    let message = refused(&[("a", 0, most + 1)]);
    assert!(message.contains("5242881 bytes") && message.contains("5242880"), "{message}");
    let message = refused(&[("a", 0, most - 4999), ("a", 1, 5000)]);
    assert!(message.contains("5242881 bytes") && message.contains("op/0"), "{message}");
    assert_eq!(ids(&checkpoints), [1, 2]);
    let small = JobManagerCheckpointStorage::new().with_max_state_size(3000).unwrap();
    let checkpoints = open(&small);
    write(&checkpoints, &[("a", 0, 3000)]).unwrap();
    assert!(write(&checkpoints, &[("a", 0, 3001)]).is_err());
}

#[test]
fn a_flipped_bit_is_corrupt_wherever_it_lies() {
    let storage = JobManagerCheckpointStorage::new();
    commit(&open(&storage), CheckpointId(1)).unwrap();
    let job = storage.open(&JobId::new("job").unwrap()).unwrap();
    let access = job.access();
    let record = access.stored()[0].record;
    let manifest = access.node(&record).unwrap().refs[0];
    let chunk = access.node(&manifest).unwrap().refs[0];
    for damaged in [record, manifest, chunk] {
        let len = storage.store.bytes(&damaged).unwrap().len();
        for at in [0, len / 3, len - 1] {
            storage.store.damage(&damaged, |bytes| bytes[at] ^= 4);
            let read = if damaged == chunk {
                access.chunk(&damaged, &mut Vec::new()).map(drop)
            } else {
                access.node(&damaged).map(drop)
            };
            assert_eq!(read.unwrap_err().kind(), ErrorKind::Corrupt, "byte {at} of {len}");
            storage.store.damage(&damaged, |bytes| bytes[at] ^= 4);
        }
    }
    drop(job);
    assert_whole(&open(&storage), CheckpointId(1));
}

#[test]
fn memory_comes_back_from_what_is_dropped_and_from_what_was_never_committed() {
    let storage = JobManagerCheckpointStorage::new();
    let checkpoints = open(&storage);
    commit(&checkpoints, CheckpointId(1)).unwrap();
    let one = storage.store.usage();
    for id in 2..=20 {
        commit(&checkpoints, CheckpointId(id)).unwrap();
        checkpoints.subsume(1).unwrap();
        let (records, bytes) = storage.store.usage();
        assert_eq!(records, one.0);
        assert!(bytes < one.1 + 2000, "{bytes} bytes instead of about {}", one.1);
    }
    let before = storage.store.usage();
    let pending = begin(&checkpoints, CheckpointId(21), SUBTASKS).unwrap();
    let mut writer = pending.writer(&task(0)).unwrap();
    let bytes = body(CheckpointId(21), 0, 900_000);
    writer.section(&key(0), &mut |out| Ok(out.write_all(&bytes)?)).unwrap();
    let frames = Arc::downgrade(&storage.store);
    let _snapshot = writer.finish().unwrap();
    assert_eq!(storage.store.usage(), before, "nothing is published before the commit");
    drop(pending);
    drop(checkpoints);
    assert_eq!(frames.strong_count(), 1, "what was not committed still holds the store");
    let checkpoints = open(&storage);
    checkpoints.discard(&checkpoints.ids()).unwrap();
    assert_eq!(storage.store.usage(), (0, 0));
}

/// N23, N35: the maximum itself is taken, one byte more fails at the commit.
#[test]
fn a_stream_above_the_maximum_fails_at_its_commit_and_names_both_sizes() {
    let storage = JobManagerCheckpointStorage::new().with_max_state_size(10).unwrap();
    let job = storage.open(&JobId::new("job").unwrap()).unwrap();
    for (len, fits) in [(1, true), (10, true), (11, false), (100_000, false)] {
        let mut stream = job.worker().task_owned_stream().unwrap();
        for part in vec![7; len].chunks(3) {
            stream.write_all(part).unwrap();
        }
        assert_eq!(stream.position(), len as u64);
        let outcome = stream.close_and_get_handle();
        if fits {
            let mut found = Vec::new();
            job.open_state(&outcome.unwrap().unwrap()).unwrap().read_to_end(&mut found).unwrap();
            assert_eq!(found, vec![7; len]);
            continue;
        }
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let text = error.to_string();
        assert!(text.contains(&format!("{len} bytes")) && text.contains("is 10;"), "{text}");
        assert_eq!(stream.close_and_get_handle().unwrap_err().kind(), ErrorKind::Closed);
    }
}

/// N25, N26: handles hold the bytes, those of metadata too; they live as long as the store.
#[test]
fn the_bytes_of_a_stream_lie_in_its_handle() {
    let storage = JobManagerCheckpointStorage::new();
    let job = storage.open(&JobId::new("job").unwrap()).unwrap();
    job.initialize_location(CheckpointId(3)).unwrap();
    let mut stream = job.metadata_stream(CheckpointId(3)).unwrap();
    stream.write_all(&vec![7; 100_000]).unwrap();
    let handle = stream.close_and_get_handle().unwrap();
    assert!(handle.is_inline());
    drop((job, stream));
    let job = storage.open(&JobId::new("job").unwrap()).unwrap();
    assert_eq!(job.raw_checkpoints().unwrap(), [(CheckpointId(3), handle.clone())]);
    let text = serde_json::to_string(&handle).unwrap();
    assert_eq!(serde_json::from_str::<StreamStateHandle>(&text).unwrap(), handle);
    let changed = text.replacen("\"len\":100000", "\"len\":100001", 1);
    assert_ne!(changed, text);
    assert!(serde_json::from_str::<StreamStateHandle>(&changed).is_err());
    let other = JobManagerCheckpointStorage::new().open(&JobId::new("job").unwrap()).unwrap();
    assert_eq!(other.raw_checkpoints().unwrap(), []);
}

fn written(dir: &std::path::Path, most: u64) -> JobManagerCheckpointStorage {
    let path = format!("file://{}/checkpoints", dir.to_str().unwrap());
    let storage = JobManagerCheckpointStorage::new().with_max_state_size(most).unwrap();
    storage.with_checkpoint_path(path).unwrap()
}

#[test]
fn with_a_checkpoint_path_metadata_holds_everything_and_outlives_the_description() {
    let dir = tempfile::tempdir().unwrap();
    let storage = written(dir.path(), 1_000_000);
    commit(&open(&storage), CheckpointId(1)).unwrap();
    let job = dir.path().join("checkpoints/job");
    let names = |dir: &std::path::Path| {
        let entries = std::fs::read_dir(dir).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&job), ["attempts", "chk-1"]);
    assert_eq!(names(&job.join("chk-1")), ["_metadata"]);
    let found = storage.resolve_checkpoint(job.join("chk-1").to_str().unwrap()).unwrap();
    assert_eq!(found.id(), CheckpointId(1));
    let text = storage.to_uri().to_string();
    let again: JobManagerCheckpointStorage =
        serde_json::from_str(&serde_json::to_string(&storage).unwrap()).unwrap();
    assert_eq!(again.to_uri().to_string(), text);
    let checkpoints = open(&again);
    assert_eq!(ids(&checkpoints), [1]);
    assert_whole(&checkpoints, CheckpointId(1));
}

#[test]
fn with_a_checkpoint_path_the_maximum_holds_too() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = open(&written(dir.path(), 400_000));
    write(&checkpoints, &[("a", 0, 300_000), ("a", 1, 100_000), ("b", 0, 400_000)]).unwrap();
    let refused = write(&checkpoints, &[("a", 0, 300_000), ("a", 1, 100_001)]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    let message = refused.to_string();
    assert!(message.contains("400001") && message.contains("400000"), "{message}");
}

/// N31: where nothing names a directory, none is made.
#[test]
fn the_configuration_completes_the_paths_that_are_not_set() {
    let storage = JobManagerCheckpointStorage::new();
    assert_eq!((storage.checkpoint_path(), storage.savepoint_path()), (None, None));
    let mut config = CheckpointConfig::new();
    config.set_checkpoint_storage_dir("file:///c/").unwrap();
    config.set_savepoint_dir("file:///s").unwrap();
    let config = config.build().unwrap();
    let both = storage.configure(&config);
    assert_eq!(both.checkpoint_path(), Some("file:///c"));
    assert_eq!(both.savepoint_path(), Some("file:///s"));
    let explicit = storage.clone().with_checkpoint_path("file:///e").unwrap();
    assert_eq!(explicit.configure(&config).checkpoint_path(), Some("file:///e"));
    let silent = CheckpointConfig::new().build().unwrap();
    assert_eq!(storage.configure(&silent).location(), "memory:");
    // A directory without a scheme is an embedded store, not a file system.
    let mut config = CheckpointConfig::new();
    config.set_checkpoint_storage_dir("/c").unwrap();
    assert_eq!(storage.configure(&config.build().unwrap()).checkpoint_path(), None);
}

#[test]
fn a_path_that_is_no_local_directory_is_refused() {
    for path in ["", "/a", "file:///", "s3://bucket/a", "file:a", "file:///a/../b"] {
        for refused in [
            JobManagerCheckpointStorage::new().with_checkpoint_path(path).unwrap_err(),
            JobManagerCheckpointStorage::new().with_savepoint_path(path).unwrap_err(),
        ] {
            assert_eq!(refused.kind(), ErrorKind::Invalid, "{path}");
            assert!(refused.to_string().contains(path), "{refused}");
        }
    }
}
