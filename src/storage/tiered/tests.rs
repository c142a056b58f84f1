//! Goal: what two tiers promise beyond one storage: a copy elsewhere that costs no checkpoint, and a
//! restore of whatever is newest and whole. Method: whole checkpoints through the catalog over storages
//! that are lost, damaged, away, or do not answer, as the test decides. The promises of every storage are
//! judged in `tests/storage_conformance.rs`.

mod losing;
mod standing;

use std::path::Path;

use super::*;
use crate::catalog::Checkpoints;
use crate::ids::CheckpointId;
use crate::message::CheckpointType;
use crate::storage::faulty::{FaultyStorage, Part};
use crate::storage::tests::{assert_whole, begin, commit, commit_kind, ids, task};
use crate::storage::{
    FileSystemCheckpointStorage, JobManagerCheckpointStorage, Placement, SledCheckpointStorage,
    open_uri,
};

/// Long enough for whatever is certain to come.
const LONG: Duration = Duration::from_secs(60);

fn job() -> JobId {
    JobId::new("job").unwrap()
}

fn memory() -> FaultyStorage {
    FaultyStorage::new(Arc::new(JobManagerCheckpointStorage::new().keeping_savepoints()))
}

fn sled(dir: &Path) -> Arc<dyn CheckpointStorage> {
    Arc::new(SledCheckpointStorage::new(dir.join("fast")))
}

fn file(dir: &Path) -> Arc<dyn CheckpointStorage> {
    let location = format!("file://{}/durable", dir.display());
    Arc::new(FileSystemCheckpointStorage::new(location).unwrap())
}

/// Two tiers in memory, with their faults.
struct Pair {
    fast: FaultyStorage,
    durable: FaultyStorage,
    storage: TieredCheckpointStorage,
}

impl Pair {
    fn new() -> Self {
        let (fast, durable) = (memory(), memory());
        let tiers = (Arc::new(fast.clone()), Arc::new(durable.clone()));
        let storage = TieredCheckpointStorage::new(tiers.0, tiers.1);
        Self { fast, durable, storage }
    }

    fn with(self, change: impl FnOnce(TieredCheckpointStorage) -> TieredCheckpointStorage) -> Self {
        Self { storage: change(self.storage), ..self }
    }

    /// The same durable tier beside a fast one that was never used.
    fn without_fast(&self) -> Self {
        let (fast, durable) = (memory(), self.durable.clone());
        let tiers = (Arc::new(fast.clone()), Arc::new(durable.clone()));
        let storage = TieredCheckpointStorage::new(tiers.0, tiers.1);
        Self { fast, durable, storage }
    }

    fn open(&self) -> Checkpoints {
        open(&self.storage)
    }

    fn lag(&self) -> TierLag {
        self.storage.lag(&job()).unwrap()
    }
}

fn open(storage: &dyn CheckpointStorage) -> Checkpoints {
    Checkpoints::new(storage.open(&job()).unwrap())
}

/// Completes checkpoints, each one copied before the next.
fn complete(checkpoints: &Checkpoints, ids: impl IntoIterator<Item = u64>) {
    for id in ids {
        commit(checkpoints, CheckpointId(id)).unwrap();
        copied(checkpoints);
    }
}

/// Waits until everything is copied, through failures.
fn copied(checkpoints: &Checkpoints) {
    while !checkpoints.wait_copied(LONG) {
        std::thread::yield_now();
    }
}

/// The checkpoints of one tier alone.
fn alone(storage: &dyn CheckpointStorage) -> Vec<u64> {
    let checkpoints = open(storage);
    for id in checkpoints.ids() {
        assert_whole(&checkpoints, id);
    }
    ids(&checkpoints)
}

#[test]
fn the_description_reads_back_and_names_both_tiers() {
    let text = "tiered:?fast=sled:///a%253Fb%3Fplacement%3Dsplit&durable=file:///c%3Fthreshold%3D1&\
                retained=7&bytes_per_second=1000";
    let storage = open_uri(text).unwrap();
    assert_eq!(storage.to_uri().unwrap().to_string(), text);
    let json = format!("{text:?}");
    let read: TieredCheckpointStorage = serde_json::from_str(&json).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), json);
    assert_eq!(read.location(), "sled store in /a?b, copied to file:///c");
    let memory = open_uri("tiered:?fast=memory:&durable=memory:?max_state_size%3D9").unwrap();
    assert!(!memory.capabilities().is_durable());
    assert_eq!(memory.capabilities().max_state_size(), Some(9));
}

/// A storage whose pointers only it understands.
#[derive(Debug)]
struct Named(FaultyStorage, &'static str, String);

impl CheckpointStorage for Named {
    fn location(&self) -> String {
        self.0.location()
    }

    fn open(&self, job: &JobId) -> Result<JobStorage> {
        self.0.open(job)
    }

    fn resolve_checkpoint(&self, pointer: &str) -> Result<CompletedCheckpointLocation> {
        if pointer == self.1 {
            return self.0.resolve_checkpoint(&self.2);
        }
        Err(Error::new(ErrorKind::NotFound, format!("no {pointer} in {}", self.1)))
    }

    fn capabilities(&self) -> StorageCapabilities {
        self.0.capabilities()
    }
}

#[test]
fn a_pointer_is_looked_for_in_the_fast_tier_and_then_in_the_durable_one() {
    let dir = tempfile::tempdir().unwrap();
    let files = file(dir.path());
    complete_alone(&*files, [1, 2]);
    let chk = |id: u64| format!("file://{}/durable/job/chk-{id}", dir.path().display());
    let fast = Arc::new(Named(memory(), "fast", chk(1)));
    let durable = Arc::new(Named(memory(), "durable", chk(2)));
    let storage = TieredCheckpointStorage::new(fast, durable);
    for (pointer, id) in [("fast", 1), ("durable", 2)] {
        assert_eq!(storage.resolve_checkpoint(pointer).unwrap().id(), CheckpointId(id));
    }
    let missing = storage.resolve_checkpoint("neither").unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().contains("in durable"), "{missing}");
}

/// Completes checkpoints on one tier.
fn complete_alone(storage: &dyn CheckpointStorage, ids: impl IntoIterator<Item = u64>) {
    let checkpoints = open(storage);
    for id in ids {
        commit(&checkpoints, CheckpointId(id)).unwrap();
    }
}

#[test]
fn a_wrong_description_says_what_is_missing() {
    for (text, why) in [
        ("tiered:?fast=memory:", "lacks the durable storage"),
        ("tiered:", "lacks the fast storage"),
        ("tiered:x?fast=memory:&durable=memory:", "has no place"),
        ("tiered:?fast=memory:&durable=nothing:", "no scheme"),
        ("tiered:?fast=memory:&durable=memory:&retained=0", "a number from 1"),
        ("tiered:?fast=memory:&durable=memory:&keep=1", "no parameter \"keep\""),
        ("tiered:?fast=memory:&durable=Tiered:?x%3Dy", "cannot have two tiers"),
    ] {
        let error = open_uri(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(why), "{text}: {error}");
    }
    let nested = Arc::new(Pair::new().storage);
    let nested = TieredCheckpointStorage::new(nested, Arc::new(memory()));
    assert_eq!(nested.open(&job()).unwrap_err().kind(), ErrorKind::Invalid);
    assert!(serde_json::to_string(&Pair::new().storage).is_err(), "a double has no text");
}

#[test]
fn what_is_copied_stands_alone_in_the_durable_tier_under_its_own_numbers() {
    let pair = Pair::new();
    let checkpoints = pair.open();
    complete(&checkpoints, [1, 4, 9]);
    let lag = pair.lag();
    assert_eq!((lag.newest, lag.copied), (Some(CheckpointId(9)), Some(CheckpointId(9))));
    assert_eq!((lag.checkpoints, lag.pending_bytes, lag.copied_checkpoints), (0, 0, 3));
    assert_eq!(checkpoints.storage().tier_lag(), Some(lag));
    drop(checkpoints);
    assert_eq!(alone(&pair.durable), [1, 4, 9]);
}

#[test]
fn chunks_that_did_not_change_are_copied_once() {
    let dir = tempfile::tempdir().unwrap();
    for durable in [file(dir.path()), Arc::new(SledCheckpointStorage::new(dir.path().join("d")))] {
        let fast =
            SledCheckpointStorage::new(dir.path().join(format!("f-{}", durable.location().len())));
        let storage = TieredCheckpointStorage::new(Arc::new(fast), durable);
        let checkpoints = open(&storage);
        let write = |id| {
            use crate::state::SnapshotSink;
            let pending = begin(&checkpoints, CheckpointId(id), 1).unwrap();
            let mut writer = pending.writer(&crate::storage::tests::task(0)).unwrap();
            for (index, of) in [(0, 1), (1, id)] {
                let bytes = crate::storage::tests::body(CheckpointId(of), 0, 200_000);
                let key = crate::storage::tests::key(index);
                writer.section(&key, &mut |out| Ok(out.write_all(&bytes)?)).unwrap();
            }
            pending.commit(&[(crate::storage::tests::task(0), writer.finish().unwrap())]).unwrap();
            copied(&checkpoints);
            storage.lag(&job()).unwrap().copied_bytes
        };
        let written = [write(1), write(2), write(3)];
        assert!(written[0] <= 400_000, "{written:?}");
        assert_eq!([written[1] - written[0], written[2] - written[1]], [200_000; 2]);
    }
}

#[test]
fn a_durable_tier_that_is_away_costs_no_checkpoint_and_gets_the_newest_once_it_is_back() {
    let pair = Pair::new();
    let checkpoints = pair.open();
    complete(&checkpoints, [1]);
    pair.durable.set_away(true);
    for id in 2..=5 {
        commit(&checkpoints, CheckpointId(id)).unwrap();
    }
    checkpoints.retain(&crate::catalog::Retention::new(2), 0).unwrap();
    while pair.lag().failures == 0 {
        assert!(!checkpoints.wait_copied(LONG));
    }
    let lag = pair.lag();
    assert_eq!((lag.newest, lag.copied), (Some(CheckpointId(5)), Some(CheckpointId(1))));
    assert!(lag.last_error.unwrap().contains("away"));
    pair.durable.set_away(false);
    copied(&checkpoints);
    assert_eq!((pair.lag().checkpoints, pair.lag().last_error), (0, None));
    drop(checkpoints);
    assert_eq!(alone(&pair.durable), [1, 5]);
}

#[test]
fn a_durable_tier_that_does_not_answer_holds_up_no_checkpoint_and_no_drop() {
    let clock = Arc::new(crate::clock::ManualClock::new(0));
    let pair = Pair::new()
        .with(|storage| storage.with_clock(Arc::<crate::clock::ManualClock>::clone(&clock)));
    let checkpoints = pair.open();
    pair.durable.set_shut(true);
    commit(&checkpoints, CheckpointId(1)).unwrap();
    pair.durable.await_waiting();
    clock.advance(Duration::from_secs(7));
    for id in 2..=6 {
        commit(&checkpoints, CheckpointId(id)).unwrap();
        checkpoints.subsume(1).unwrap();
    }
    let lag = pair.lag();
    assert_eq!((lag.newest, lag.copied), (Some(CheckpointId(6)), None));
    assert_eq!((lag.checkpoints, lag.behind), (6, Duration::from_secs(7)));
    assert!(lag.pending_bytes > 600_000, "{lag:?}");
    // The copy that waits has read all it needs; those between it and the newest are superseded.
    pair.durable.set_shut(false);
    copied(&checkpoints);
    assert_eq!((pair.lag().behind, pair.lag().copied_checkpoints), (Duration::ZERO, 2));
    pair.durable.set_shut(true);
    commit(&checkpoints, CheckpointId(7)).unwrap();
    pair.durable.await_waiting();
    drop(checkpoints);
    // The fast tier is free, though the thread is stuck in the durable one.
    assert_eq!(alone(&pair.fast), [6, 7]);
    assert_eq!(pair.storage.open(&job()).unwrap_err().kind(), ErrorKind::Unavailable);
    pair.durable.set_shut(false);
    assert_eq!(ids(&pair.open()), [1, 6, 7]);
}

#[test]
fn each_tier_retains_its_own_number() {
    let pair = Pair::new().with(|storage| storage.with_durable_retained(4).unwrap());
    let checkpoints = pair.open();
    for id in 1..=7 {
        complete(&checkpoints, [id]);
        let given_up = checkpoints.subsume(2).unwrap();
        assert_eq!(given_up.len(), usize::from(id > 2), "each is given up once");
    }
    assert_eq!(ids(&checkpoints), [4, 5, 6, 7]);
    for id in checkpoints.ids() {
        assert_whole(&checkpoints, id);
    }
    drop(checkpoints);
    assert_eq!((alone(&pair.fast), alone(&pair.durable)), (vec![6, 7], vec![4, 5, 6, 7]));
}

#[test]
fn as_many_are_retained_as_the_configuration_says_unless_the_tier_says_otherwise() {
    let config = crate::config::CheckpointConfig::builder().num_retained(2).build().unwrap();
    let configured = |storage: &TieredCheckpointStorage| storage.configured(&config).unwrap();
    let pair = Pair::new();
    let checkpoints = open(&*configured(&pair.storage));
    complete(&checkpoints, 1..=4);
    drop(checkpoints);
    assert_eq!(alone(&pair.durable), [3, 4]);
    let pair = Pair::new().with(|storage| storage.with_durable_retained(1).unwrap());
    let checkpoints = open(&*configured(&pair.storage));
    complete(&checkpoints, 1..=4);
    assert!(pair.storage.lag(&job()).is_some(), "the copy counts for the original too");
    drop(checkpoints);
    assert_eq!(alone(&pair.durable), [4]);
}

#[test]
fn savepoints_and_what_is_pinned_are_not_skipped() {
    let pair = Pair::new().with(|storage| storage.with_durable_retained(1).unwrap());
    let checkpoints = pair.open();
    pair.durable.set_shut(true);
    commit(&checkpoints, CheckpointId(1)).unwrap();
    pair.durable.await_waiting();
    commit_kind(&checkpoints, CheckpointId(2), CheckpointType::Savepoint).unwrap();
    commit(&checkpoints, CheckpointId(3)).unwrap();
    checkpoints.pin(CheckpointId(3)).unwrap();
    commit(&checkpoints, CheckpointId(4)).unwrap();
    commit(&checkpoints, CheckpointId(5)).unwrap();
    pair.durable.set_shut(false);
    copied(&checkpoints);
    checkpoints.unpin(CheckpointId(3)).unwrap();
    checkpoints.pin(CheckpointId(5)).unwrap();
    copied(&checkpoints);
    drop(checkpoints);
    let durable = open(&pair.durable);
    assert_eq!(ids(&durable), [2, 3, 5], "what is unpinned goes with the next copy");
    assert!(durable.info(CheckpointId(5)).unwrap().pinned);
    assert!(!durable.info(CheckpointId(3)).unwrap().pinned);
    assert_eq!(durable.info(CheckpointId(2)).unwrap().kind, CheckpointType::Savepoint);
}

#[test]
fn what_is_damaged_in_the_fast_tier_does_not_keep_what_is_newer_from_being_copied() {
    for part in [Part::Commit, Part::Chunks] {
        let pair = Pair::new();
        let checkpoints = pair.open();
        pair.durable.set_shut(true);
        commit(&checkpoints, CheckpointId(1)).unwrap();
        pair.durable.await_waiting();
        pair.fast.fail(CheckpointId(2), part, ErrorKind::Corrupt);
        commit_kind(&checkpoints, CheckpointId(2), CheckpointType::Savepoint).unwrap();
        commit(&checkpoints, CheckpointId(3)).unwrap();
        pair.durable.set_shut(false);
        copied(&checkpoints);
        assert_eq!(pair.lag().copied, Some(CheckpointId(3)));
        drop(checkpoints);
        assert_eq!(alone(&pair.durable), [1, 3]);
    }
}

#[test]
fn what_is_discarded_goes_from_both_tiers_and_a_copy_in_progress_does_not_bring_it_back() {
    let pair = Pair::new();
    let checkpoints = pair.open();
    complete(&checkpoints, 1..=2);
    pair.durable.set_shut(true);
    commit(&checkpoints, CheckpointId(3)).unwrap();
    pair.durable.await_waiting();
    // Whoever discards waits for the copy that is being completed.
    std::thread::scope(|scope| {
        let discard = scope.spawn(|| checkpoints.discard(&[CheckpointId(1), CheckpointId(3)]));
        pair.durable.set_shut(false);
        discard.join().unwrap().unwrap();
    });
    copied(&checkpoints);
    assert_eq!(ids(&checkpoints), [2]);
    pair.durable.set_away(true);
    let refused = checkpoints.discard(&[CheckpointId(2)]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert_eq!(ids(&checkpoints), [2]);
    pair.durable.set_away(false);
    checkpoints.pin(CheckpointId(2)).unwrap();
    copied(&checkpoints);
    assert_eq!(checkpoints.discard(&[CheckpointId(2)]).unwrap_err().kind(), ErrorKind::Conflict);
    checkpoints.unpin(CheckpointId(2)).unwrap();
    checkpoints.discard(&[CheckpointId(2)]).unwrap();
    drop(checkpoints);
    assert_eq!((alone(&pair.fast), alone(&pair.durable)), (vec![], vec![]));
}

#[test]
fn a_rate_is_kept_and_the_end_of_the_job_does_not_wait_for_it() {
    let pair = Pair::new().with(|storage| storage.with_bytes_per_second(1).unwrap());
    let checkpoints = pair.open();
    commit(&checkpoints, CheckpointId(1)).unwrap();
    assert!(!checkpoints.wait_copied(Duration::from_millis(1)), "it takes days");
    drop(checkpoints);
    assert_eq!(alone(&pair.durable), [1]);
}

/// A checkpoint of one task that is being written, over a first one that has to be copied.
fn with_a_writer(checkpoints: &Checkpoints, then: impl FnOnce()) {
    let pending = begin(checkpoints, CheckpointId(2), 1).unwrap();
    let writer = pending.writer(&task(0)).unwrap();
    commit(checkpoints, CheckpointId(1)).unwrap();
    then();
    drop(writer);
}

#[test]
fn a_copy_stands_back_while_a_checkpoint_is_written() {
    let pair = Pair::new();
    let checkpoints = pair.open();
    with_a_writer(&checkpoints, || {
        assert!(!checkpoints.wait_copied(Duration::from_millis(100)));
        assert_eq!(pair.lag().copied, None);
    });
    copied(&checkpoints);
    assert_eq!(pair.lag().copied, Some(CheckpointId(1)));
}

#[test]
fn a_copy_does_not_stand_back_for_ever() {
    let pair =
        Pair::new().with(|storage| TieredCheckpointStorage { courtesy: Duration::ZERO, ..storage });
    let checkpoints = pair.open();
    with_a_writer(&checkpoints, || copied(&checkpoints));
}
