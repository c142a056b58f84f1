//! Goal: what lies in the blobs is what completed checkpoints need and no more, and nothing wrong
//! that a blob gives back is believed. Method: blobs in a map that the test looks at, damages, and
//! lets fail. The promises of every storage are judged by the suite in `src/storage/conformance`.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Write};
use std::sync::{Arc, Mutex};

use super::*;
use crate::catalog::Checkpoints;
use crate::error::ErrorKind;
use crate::ids::CheckpointId;
use crate::state::SnapshotSink;
use crate::storage::conformance;
use crate::storage::tests::{SUBTASKS, assert_whole, begin, body, commit, ids, key, task};

#[derive(Debug, Clone, Default)]
struct Blobs(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    blobs: BTreeMap<String, Vec<u8>>,
    /// Publishes, and says that it failed.
    hide_success: bool,
    refuse_deletes: bool,
}

struct Writer {
    place: Blobs,
    name: String,
    bytes: Vec<u8>,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl BlobWriter for Writer {
    fn finish(self: Box<Self>) -> Result<()> {
        let replaced = self.place.0.lock().unwrap().blobs.insert(self.name, self.bytes);
        assert_eq!(replaced, None, "a name is written once");
        Ok(())
    }
}

impl CustomAccess for Blobs {
    fn create(&self, name: &str) -> Result<Box<dyn BlobWriter>> {
        Ok(Box::new(Writer { place: self.clone(), name: name.to_owned(), bytes: Vec::new() }))
    }

    fn open(&self, name: &str) -> Result<Box<dyn BlobReader>> {
        let found = self.0.lock().unwrap().blobs.get(name).cloned();
        let found = found.ok_or_else(|| Error::new(ErrorKind::NotFound, name))?;
        Ok(Box::new(Cursor::new(found)))
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>> {
        let state = self.0.lock().unwrap();
        Ok(state.blobs.keys().filter(|name| name.starts_with(prefix)).cloned().collect())
    }

    fn delete(&self, name: &str) -> Result<()> {
        let mut state = self.0.lock().unwrap();
        if state.refuse_deletes {
            return Err(Error::new(ErrorKind::Unavailable, "no deletes today"));
        }
        state.blobs.remove(name);
        Ok(())
    }

    fn publish(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        let mut state = self.0.lock().unwrap();
        if state.blobs.contains_key(name) {
            return Ok(false);
        }
        state.blobs.insert(name.to_owned(), bytes.to_vec());
        if std::mem::take(&mut state.hide_success) {
            return Err(Error::new(ErrorKind::Unavailable, "the answer was lost"));
        }
        Ok(true)
    }
}

impl Blobs {
    /// These blobs as a storage of this name.
    fn register(&self, name: &str) -> CustomCheckpointStorage {
        let blobs = self.clone();
        let open =
            move |_: &StorageParameters| Ok(Arc::new(blobs.clone()) as Arc<dyn CustomAccess>);
        register_storage(name, open).unwrap();
        CustomCheckpointStorage::new(name, [("a", "b")])
    }

    fn count(&self, part: &str) -> usize {
        self.0.lock().unwrap().blobs.keys().filter(|name| name.contains(part)).count()
    }
}

fn open(storage: &CustomCheckpointStorage) -> Result<Checkpoints> {
    Ok(Checkpoints::new(storage.open(&JobId::new("job")?)?))
}

#[test]
fn only_what_completed_checkpoints_need_lies_in_the_blobs() {
    let blobs = Blobs::default();
    let storage = blobs.register("counted");
    let checkpoints = open(&storage).unwrap();
    for id in 1..=10 {
        commit(&checkpoints, CheckpointId(id)).unwrap();
        checkpoints.subsume(2).unwrap();
    }
    // Two checkpoints of two tasks and their commit records.
    assert_eq!((blobs.count("/data/"), blobs.count("/root/")), (6, 1));
    let pending = begin(&checkpoints, CheckpointId(11), SUBTASKS).unwrap();
    let mut writer = pending.writer(&task(0)).unwrap();
    let bytes = body(CheckpointId(11), 0, 300_000);
    writer.section(&key(0), &mut |out| Ok(out.write_all(&bytes)?)).unwrap();
    let _snapshot = writer.finish().unwrap();
    assert_eq!(blobs.count("/data/"), 7);
    drop(pending);
    assert_eq!(blobs.count("/data/"), 6, "what was given up is removed");
    checkpoints.discard(&checkpoints.ids()).unwrap();
    assert_eq!((blobs.count("/data/"), blobs.count("/root/")), (0, 1));
}

#[test]
fn what_could_not_be_removed_is_removed_at_the_next_start() {
    let blobs = Blobs::default();
    let storage = blobs.register("sticky");
    let checkpoints = open(&storage).unwrap();
    blobs.0.lock().unwrap().refuse_deletes = true;
    for id in 1..=3 {
        commit(&checkpoints, CheckpointId(id)).unwrap();
    }
    checkpoints.discard(&[CheckpointId(1), CheckpointId(2)]).unwrap();
    assert_eq!(ids(&checkpoints), [3]);
    assert_eq!(blobs.count("/data/"), 9);
    drop(checkpoints);
    blobs.0.lock().unwrap().refuse_deletes = false;
    let checkpoints = open(&storage).unwrap();
    assert_eq!((blobs.count("/data/"), blobs.count("/root/")), (3, 1));
    assert_whole(&checkpoints, CheckpointId(3));
    assert_eq!(checkpoints.next_id(), CheckpointId(4));
}

#[test]
fn a_commit_whose_answer_was_lost_is_found_by_the_next_change_and_the_next_start() {
    let blobs = Blobs::default();
    let storage = blobs.register("forgetful");
    let checkpoints = open(&storage).unwrap();
    blobs.0.lock().unwrap().hide_success = true;
    let lost = commit(&checkpoints, CheckpointId(1)).unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Unavailable);
    commit(&checkpoints, CheckpointId(2)).unwrap();
    assert_eq!(ids(&checkpoints), [1, 2]);
    blobs.0.lock().unwrap().hide_success = true;
    commit(&checkpoints, CheckpointId(3)).unwrap_err();
    drop(checkpoints);
    let checkpoints = open(&storage).unwrap();
    assert_eq!(ids(&checkpoints), [1, 2, 3]);
    (1..=3).for_each(|id| assert_whole(&checkpoints, CheckpointId(id)));
}

#[test]
fn a_flipped_bit_is_corrupt_wherever_it_lies() {
    let blobs = Blobs::default();
    let storage = blobs.register("damaged");
    commit(&open(&storage).unwrap(), CheckpointId(1)).unwrap();
    let whole = blobs.0.lock().unwrap().blobs.clone();
    for (name, bytes) in &whole {
        for at in [0, bytes.len() / 3, bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            blobs.0.lock().unwrap().blobs = whole.clone();
            blobs.0.lock().unwrap().blobs.insert(name.clone(), damaged);
            let read = open(&storage)
                .and_then(|checkpoints| checkpoints.verify(CheckpointId(1), &mut |_| ()).map(drop));
            assert_eq!(read.unwrap_err().kind(), ErrorKind::Corrupt, "{name} at {at}");
        }
    }
    blobs.0.lock().unwrap().blobs = whole;
    assert_whole(&open(&storage).unwrap(), CheckpointId(1));
}

#[test]
fn blobs_in_memory_keep_every_promise_of_a_storage_but_size() {
    let number = std::cell::Cell::new(0);
    let blobs_of = |size: u64| {
        number.set(number.get() + 1);
        let blobs = Blobs::default();
        let name = format!("suite-{size}-{}", number.get());
        register_storage(name.as_str(), Bounded(blobs, size)).unwrap();
        Ok(Arc::new(CustomCheckpointStorage::new(name, [("a", "b")])) as Arc<dyn CheckpointStorage>)
    };
    let report = conformance::run_all(|| blobs_of(400_000));
    assert!(report.is_kept(), "{report}");
    assert_eq!(report.skipped(), ["a_large_state_streams_in_little_memory"]);
}

struct Bounded(Blobs, u64);

impl CustomStorageFactory for Bounded {
    fn open(&self, _: &StorageParameters) -> Result<Arc<dyn CustomAccess>> {
        Ok(Arc::new(self.0.clone()))
    }

    fn capabilities(&self, _: &StorageParameters) -> StorageCapabilities {
        StorageCapabilities::new().with_max_state_size(self.1)
    }
}
