//! Goal: what has not changed is not written again, what is referred to stays, and the log gives its
//! space back. Method: a state of numbered blocks of one chunk each, over segments of a few chunks;
//! what is written is told by the length of the log. `Placement::Split`.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::error::ErrorKind;
use crate::limits::CHUNK_BYTES;
use crate::message::CheckpointType;
use crate::storage::filesystem::Savepoints;
use crate::storage::sled::backend::Backend;
use crate::storage::tests::begin_kind;

const BLOCKS: usize = 16;

/// Segments of four chunks, rewritten only when asked.
const LARGE: LogSettings = LogSettings {
    segment_bytes: 4 * CHUNK_BYTES as u64,
    is_synced_early: false,
    small_commit_bytes: 128 * 1024,
    is_rewritten: false,
};

struct Store {
    backend: Arc<dyn Backend>,
    checkpoints: Checkpoints,
    /// What each checkpoint holds: the version of each block.
    expected: BTreeMap<u64, Vec<u64>>,
}

fn job(store: &Arc<OpenStore>, name: &str) -> Checkpoints {
    let name = JobId::new(name).unwrap();
    let access = SledJob::claim(Arc::clone(store), &name).unwrap();
    Checkpoints::new(JobStorage::new(access, Savepoints::within(&name)))
}

fn block(number: usize, version: u64) -> Vec<u8> {
    body(CheckpointId(version), u32::try_from(number).unwrap(), CHUNK_BYTES)
}

fn log_bytes(dir: &Path) -> u64 {
    segments(dir).iter().map(|path| path.metadata().unwrap().len()).sum()
}

impl Store {
    fn open(dir: &Path) -> Self {
        let disk = Arc::new(RealDisk);
        let store = OpenStore::open_with(dir, Some(Placement::Split), disk, LARGE).unwrap();
        let store = Arc::new(store);
        let backend = Arc::clone(store.backend());
        let checkpoints = job(&store, "job");
        Self { backend, checkpoints, expected: BTreeMap::new() }
    }

    fn again(self, dir: &Path) -> Self {
        let expected = self.expected;
        drop((self.backend, self.checkpoints));
        Self { expected, ..Self::open(dir) }
    }

    /// Returns how many blocks were written.
    fn commit(&mut self, id: u64, kind: CheckpointType, versions: &[u64]) -> u64 {
        let pending = begin_kind(&self.checkpoints, CheckpointId(id), 1, kind).unwrap();
        let mut writer = pending.writer(&task(0)).unwrap();
        let write = &mut |out: &mut dyn std::io::Write| {
            for (number, version) in versions.iter().enumerate() {
                out.write_all(&block(number, *version))?;
            }
            Ok(())
        };
        writer.section(&key(0), write).unwrap();
        let snapshot = writer.finish().unwrap();
        pending.commit(&[(task(0), snapshot)]).unwrap();
        self.expected.insert(id, versions.to_vec());
        snapshot.measurements().checkpointed_bytes / CHUNK_BYTES as u64
    }

    fn keep_last(&mut self, count: usize) {
        let old: Vec<_> = self.checkpoints.ids().into_iter().rev().skip(count).collect();
        self.checkpoints.discard(&old).unwrap();
        for id in old {
            self.expected.remove(&id.0);
        }
    }

    fn assert_whole(&self) {
        let wanted: Vec<u64> = self.expected.keys().copied().collect();
        assert_eq!(ids(&self.checkpoints), wanted);
        for (id, versions) in &self.expected {
            let mut reader = self.checkpoints.read_task(CheckpointId(*id), &task(0)).unwrap();
            reader.next_section().unwrap();
            for (number, version) in versions.iter().enumerate() {
                let mut found = vec![0; CHUNK_BYTES];
                reader.body().read_exact(&mut found).unwrap();
                assert!(found == block(number, *version), "checkpoint {id}, block {number}");
            }
        }
    }
}

fn versions(changed: impl IntoIterator<Item = (usize, u64)>) -> Vec<u64> {
    let mut versions = vec![1; BLOCKS];
    changed.into_iter().for_each(|(number, version)| versions[number] = version);
    versions
}

const INCREMENTAL: CheckpointType = CheckpointType::Checkpoint;

#[test]
fn what_has_not_changed_is_not_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path());
    assert_eq!(store.commit(1, INCREMENTAL, &versions([])), BLOCKS as u64);
    // A close gives back the space that was reserved ahead. The next start shares, too.
    let mut store = store.again(dir.path());
    let before = log_bytes(dir.path());
    assert_eq!(store.commit(2, INCREMENTAL, &versions([])), 0);
    let mut store = store.again(dir.path());
    let unchanged = log_bytes(dir.path()) - before;
    assert!(unchanged < 4096, "{unchanged} bytes for nothing new");
    assert_eq!(store.commit(3, INCREMENTAL, &versions([(7, 3), (8, 3)])), 2);
    assert_eq!(store.commit(4, INCREMENTAL, &versions([(7, 3), (8, 4)])), 1);
    store.assert_whole();
}

#[test]
fn content_is_shared_wherever_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path());
    let write = |id: u64, index: u32| {
        let pending = begin(&store.checkpoints, CheckpointId(id), 1).unwrap();
        let mut writer = pending.writer(&task(0)).unwrap();
        let bytes = block(1, 1);
        writer.section(&key(index), &mut |out| Ok(out.write_all(&bytes)?)).unwrap();
        let snapshot = writer.finish().unwrap();
        pending.commit(&[(task(0), snapshot)]).unwrap();
        snapshot.measurements().checkpointed_bytes
    };
    assert_eq!(write(1, 3), CHUNK_BYTES as u64);
    assert_eq!(write(2, 4), 0);
}

#[test]
fn full_checkpoints_and_savepoints_write_everything_and_stand_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path());
    store.commit(1, INCREMENTAL, &versions([]));
    for (id, kind) in [(2, CheckpointType::FullCheckpoint), (3, CheckpointType::Savepoint)] {
        assert_eq!(store.commit(id, kind, &versions([])), BLOCKS as u64, "{kind:?}");
    }
    store.checkpoints.discard(&[CheckpointId(1), CheckpointId(2)]).unwrap();
    store.expected.retain(|id, _| *id == 3);
    store.backend.reclaim().unwrap();
    store.assert_whole();
}

#[test]
fn a_chunk_that_was_offered_is_kept_although_its_checkpoint_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path());
    store.commit(1, INCREMENTAL, &versions([]));
    let pending = begin(&store.checkpoints, CheckpointId(2), 1).unwrap();
    let abandoned = begin(&store.checkpoints, CheckpointId(3), 1).unwrap();
    store.keep_last(0);
    store.backend.reclaim().unwrap();
    let image_dir = tempfile::tempdir().unwrap();
    let mut writer = pending.writer(&task(0)).unwrap();
    let write = &mut |out: &mut dyn std::io::Write| {
        (0..BLOCKS).try_for_each(|number| out.write_all(&block(number, 1)).map_err(Into::into))
    };
    writer.section(&key(0), write).unwrap();
    let snapshot = writer.finish().unwrap();
    pending.commit(&[(task(0), snapshot)]).unwrap();
    assert_eq!(snapshot.measurements().checkpointed_bytes, 0, "it was offered");
    store.expected.insert(2, versions([]));
    drop((pending, abandoned));
    store.backend.reclaim().unwrap();
    store.assert_whole();
    image(dir.path(), image_dir.path());
    let store = Store { expected: store.expected.clone(), ..Store::open(image_dir.path()) };
    store.assert_whole();
}

#[test]
fn what_nobody_took_up_is_given_back_when_its_last_holder_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path());
    store.commit(1, INCREMENTAL, &versions([]));
    let pending = begin(&store.checkpoints, CheckpointId(2), 1).unwrap();
    store.keep_last(0);
    let held = log_bytes(dir.path());
    assert!(held > (BLOCKS * CHUNK_BYTES) as u64);
    drop(pending);
    assert!(log_bytes(dir.path()) < held / 3, "{} of {held}", log_bytes(dir.path()));
}

fn damage_each_segment(dir: &Path) {
    for path in segments(dir) {
        let mut bytes = std::fs::read(&path).unwrap();
        if bytes.len() > CHUNK_BYTES {
            bytes[CHUNK_BYTES / 2] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
}

#[test]
fn a_stored_chunk_that_is_damaged_is_not_shared() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path());
    store.commit(1, INCREMENTAL, &versions([]));
    damage_each_segment(dir.path());
    let error = store.checkpoints.verify(CheckpointId(1), &mut |_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    store.commit(2, INCREMENTAL, &versions([]));
    store.keep_last(1);
    store.assert_whole();
}

#[test]
fn a_chunk_is_shared_no_longer_when_a_reader_has_met_its_damage() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path());
    store.commit(1, INCREMENTAL, &versions([]));
    // From the second on the digests of all chunks are known, and nothing stored is compared.
    store.commit(2, INCREMENTAL, &versions([]));
    let written = log_bytes(dir.path());
    damage_each_segment(dir.path());
    let error = store.checkpoints.verify(CheckpointId(2), &mut |_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    store.commit(3, INCREMENTAL, &versions([]));
    assert!(log_bytes(dir.path()) < written + written / 2, "what is sound is shared");
    store.keep_last(1);
    store.assert_whole();
}

/// Every checkpoint changes some blocks here and there, so that segments end up half empty.
fn scatter(store: &mut Store, rounds: std::ops::Range<u64>) {
    for id in rounds {
        let lot = |number: usize| (number as u64 * 7919 + id * 104_729) % 1009 % 5;
        let changed = (0..BLOCKS).filter(|number| lot(*number) == 0);
        let mut versions = store.expected.values().last().cloned().unwrap_or_else(|| versions([]));
        changed.for_each(|number| versions[number] = id);
        store.commit(id, INCREMENTAL, &versions);
        store.keep_last(2);
    }
}

#[test]
fn a_log_of_which_little_is_needed_is_rewritten_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path());
    scatter(&mut store, 1..40);
    let freed = store.backend.reclaim().unwrap();
    assert!(freed > 0);
    store.assert_whole();
    let distinct: BTreeSet<(usize, u64)> =
        store.expected.values().flat_map(|versions| versions.iter().copied().enumerate()).collect();
    let needed = (distinct.len() * CHUNK_BYTES) as u64;
    let open = 4 * LARGE.segment_bytes;
    let found = log_bytes(dir.path());
    assert!(found < needed * 3 / 2 + open, "{found} bytes for {needed}");
    assert_eq!(store.backend.reclaim().unwrap(), 0, "nothing is left to do");
    // A kill leaves the copies, and an index that names them or is brought up to it.
    let killed = tempfile::tempdir().unwrap();
    image(dir.path(), killed.path());
    let copy = Store { expected: store.expected.clone(), ..Store::open(killed.path()) };
    copy.assert_whole();
    let mut store = store.again(dir.path());
    store.assert_whole();
    scatter(&mut store, 40..46);
    store.backend.reclaim().unwrap();
    store.assert_whole();
    let store = store.again(dir.path());
    store.assert_whole();
}

#[test]
fn a_dropped_checkpoint_whose_commit_was_moved_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path());
    scatter(&mut store, 1..40);
    store.backend.reclaim().unwrap();
    store.keep_last(1);
    let killed = tempfile::tempdir().unwrap();
    image(dir.path(), killed.path());
    std::fs::remove_file(killed.path().join("CURRENT")).unwrap();
    let copy = Store { expected: store.expected.clone(), ..Store::open(killed.path()) };
    copy.assert_whole();
}

#[test]
fn a_reader_goes_on_while_what_it_reads_is_moved() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path());
    scatter(&mut store, 1..40);
    let (id, versions) = store.expected.last_key_value().unwrap();
    let mut reader = store.checkpoints.read_task(CheckpointId(*id), &task(0)).unwrap();
    reader.next_section().unwrap();
    for (number, version) in versions.iter().enumerate() {
        let mut found = vec![0; CHUNK_BYTES];
        reader.body().read_exact(&mut found).unwrap();
        assert!(found == block(number, *version), "block {number}");
        if number == 2 {
            assert!(store.backend.reclaim().unwrap() > 0);
        }
    }
}

#[test]
fn what_is_read_is_not_given_back_before_the_reader_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path());
    store.commit(1, INCREMENTAL, &versions([]));
    let mut reader = store.checkpoints.read_task(CheckpointId(1), &task(0)).unwrap();
    store.keep_last(0);
    store.backend.reclaim().unwrap();
    reader.next_section().unwrap();
    let mut found = Vec::new();
    reader.body().read_to_end(&mut found).unwrap();
    assert!(found == (0..BLOCKS).flat_map(|number| block(number, 1)).collect::<Vec<_>>());
    let held = log_bytes(dir.path());
    drop(reader);
    assert!(log_bytes(dir.path()) < held / 3);
}

#[test]
fn jobs_that_commit_at_once_all_find_their_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let store = OpenStore::open(dir.path(), Some(Placement::Split), Arc::new(RealDisk)).unwrap();
    let store = Arc::new(store);
    let names = ["a", "b", "c", "d"];
    let jobs: Vec<_> = names.iter().map(|name| job(&store, name)).collect();
    std::thread::scope(|scope| {
        for checkpoints in &jobs {
            scope.spawn(move || {
                for id in 1..=30 {
                    commit_small(checkpoints, CheckpointId(id)).unwrap();
                    let old: Vec<_> = checkpoints.ids().into_iter().rev().skip(3).collect();
                    checkpoints.discard(&old).unwrap();
                }
            });
        }
    });
    let killed = tempfile::tempdir().unwrap();
    image(dir.path(), killed.path());
    drop((jobs, store));
    for dir in [dir.path(), killed.path()] {
        let store = Arc::new(OpenStore::open(dir, None, Arc::new(RealDisk)).unwrap());
        for name in names {
            let checkpoints = job(&store, name);
            assert_eq!(ids(&checkpoints), [28, 29, 30], "{name}");
            for id in 28..=30 {
                assert!(read_small(&checkpoints, CheckpointId(id)).unwrap(), "{name}");
            }
        }
    }
}
