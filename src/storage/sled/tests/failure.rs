//! Lets each operation of the disk fail, once or until it is mended: as on a full disk, on a broken
//! one, and on one that only fails to sync. sled's own operations are not among them.

use std::sync::mpsc::channel;
use std::time::Duration;

use super::*;
use crate::error::ErrorKind;
use crate::storage::sled::view::StoreView;
use crate::storage::tests::{FailDisk, Fault};

/// What takes so long hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// One run over a disk that fails.
#[derive(Debug, Clone, Copy)]
struct Case {
    fault: Fault,
    first: u64,
    is_lasting: bool,
    /// Checkpoints are committed in one frame.
    is_small: bool,
    /// The store is opened again before the disk is mended; else the same one goes on.
    is_reopened: bool,
}

impl Case {
    fn disk(self) -> FailDisk {
        FailDisk::new(self.fault, self.first, self.is_lasting)
    }
}

/// What a run announced.
#[derive(Debug, Default)]
struct Said {
    committed: Vec<u64>,
    dropped: Vec<u64>,
    /// The call failed: there is no telling.
    maybe: Vec<u64>,
}

impl Said {
    /// Checks what is found, and that it is whole.
    fn check(&mut self, checkpoints: &Checkpoints, case: Case, when: &str) {
        let found = ids(checkpoints);
        let missing: Vec<_> = self.committed.iter().filter(|id| !found.contains(id)).collect();
        assert!(missing.is_empty(), "{case:?} {when}: {missing:?} lost: {found:?} {self:?}");
        for id in found {
            let is_known = self.committed.contains(&id) || self.maybe.contains(&id);
            assert!(is_known, "{case:?} {when}: {id} appeared: {self:?}");
            let whole = read_small(checkpoints, CheckpointId(id));
            assert!(matches!(whole, Ok(true)), "{case:?} {when}: {id}: {whole:?} {self:?}");
        }
    }
}

fn open_job(dir: &Path, disk: &FailDisk, is_small: bool) -> Result<Checkpoints> {
    let disk = Arc::new(disk.clone());
    let small_commit_bytes = if is_small { 32 * 1024 } else { 0 };
    let settings = LogSettings { small_commit_bytes, ..SETTINGS };
    let store = OpenStore::open_with(dir, Some(Placement::Split), disk, settings)?;
    let job = SledJob::claim(Arc::new(store), &JobId::new("job")?)?;
    Ok(Checkpoints::new(JobStorage::new(job, Savepoints::within(&JobId::new("job")?))))
}

/// Takes one checkpoint and retains two.
fn step(checkpoints: &Checkpoints, said: &mut Said) -> Result<()> {
    let id = checkpoints.next_id();
    said.maybe.push(id.0);
    commit_small(checkpoints, id)?;
    said.maybe.pop();
    said.committed.push(id.0);
    let old: Vec<u64> = ids(checkpoints).into_iter().rev().skip(2).collect();
    said.committed.retain(|id| !old.contains(id));
    said.maybe.extend(&old);
    checkpoints.discard(&old.iter().map(|id| CheckpointId(*id)).collect::<Vec<_>>())?;
    said.maybe.retain(|id| !old.contains(id));
    said.dropped.extend(old);
    Ok(())
}

/// The kind of error that a fault may give.
fn expect_kind(case: Case, kind: ErrorKind) {
    let expected: &[ErrorKind] = match case.fault {
        Fault::Full => &[ErrorKind::Full],
        Fault::Broken | Fault::NoSync => &[ErrorKind::Unavailable, ErrorKind::Poisoned],
    };
    assert!(expected.contains(&kind), "{case:?}: {kind:?}");
}

/// Runs `act` on a thread, and fails when it does not come to its end.
fn without_hanging(case: Case, act: impl FnOnce() + Send + 'static) {
    let (tell, told) = channel();
    let thread = std::thread::spawn(move || {
        act();
        let _ = tell.send(());
    });
    if told.recv_timeout(PATIENCE).is_err() {
        assert!(thread.is_finished(), "{case:?} hangs");
    }
    thread.join().unwrap();
}

/// Whatever the store answers on a failing disk, what it held is there, at once and later.
fn run(case: Case, disk: &FailDisk) {
    let dir = quick_dir();
    let mut said = Said::default();
    let checkpoints = open_job(dir.path(), disk, case.is_small).map(|checkpoints| {
        let failure = (0..5).find_map(|_| step(&checkpoints, &mut said).err());
        (checkpoints, failure)
    });
    let (mut checkpoints, failure) = match checkpoints {
        Ok((checkpoints, failure)) => (Some(checkpoints), failure),
        Err(error) => (None, Some(error)),
    };
    let is_poisoned = failure.as_ref().is_some_and(|error| error.kind() == ErrorKind::Poisoned);
    if let Some(error) = failure {
        expect_kind(case, error.kind());
    }
    if let Some(checkpoints) = &checkpoints {
        said.check(checkpoints, case, "at once");
        if is_poisoned {
            let refused = begin(checkpoints, checkpoints.next_id(), 2).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Poisoned, "{case:?}");
        }
    }
    if checkpoints.is_some() && (case.is_reopened || is_poisoned) {
        checkpoints = None;
        look_while_it_fails(dir.path(), disk, case, &mut said);
    }
    disk.mend();
    let again =
        checkpoints.take().unwrap_or_else(|| open_job(dir.path(), disk, case.is_small).unwrap());
    said.check(&again, case, "mended");
    step(&again, &mut said).unwrap_or_else(|error| panic!("{case:?}: {error:?}"));
    drop(again);
    let again = open(dir.path(), Placement::Split);
    said.check(&again, case, "at the end");
    let gone = |id: &u64| !ids(&again).contains(id);
    assert!(said.dropped.iter().all(gone), "{case:?}: one came back: {said:?}");
    step(&again, &mut said).unwrap();
}

/// The disk still fails while the store is closed, opened and read.
fn look_while_it_fails(dir: &Path, disk: &FailDisk, case: Case, said: &mut Said) {
    match open_job(dir, disk, case.is_small) {
        Ok(checkpoints) => said.check(&checkpoints, case, "while it fails"),
        Err(error) => {
            assert_ne!(case.fault, Fault::Full, "{case:?}: not even opened: {error:?}");
            expect_kind(case, error.kind());
        }
    }
    let view = StoreView::open(dir).unwrap();
    let found: Vec<u64> = view.jobs().iter().flat_map(|job| &job.stored).map(|s| s.id.0).collect();
    let seen = |id: &&u64| !found.contains(id);
    assert_eq!(said.committed.iter().find(seen), None, "{case:?}: {found:?}");
}

fn fail_everywhere(fault: Fault, operations_min: u64) {
    for (is_lasting, is_small) in [(false, false), (false, true), (true, false), (true, true)] {
        for first in 0.. {
            let case = Case { fault, first, is_lasting, is_small, is_reopened: first % 2 == 0 };
            let disk = case.disk();
            let used = disk.clone();
            without_hanging(case, move || run(case, &used));
            if !disk.was_met() {
                assert!(first >= operations_min, "only {first} operations were there to fail");
                break;
            }
        }
    }
}

#[test]
fn a_disk_that_is_full_at_any_operation_keeps_what_was_completed() {
    fail_everywhere(Fault::Full, 20);
}

#[test]
fn a_disk_that_breaks_at_any_operation_keeps_what_was_completed() {
    fail_everywhere(Fault::Broken, 40);
}

#[test]
fn a_sync_that_fails_poisons_the_store_until_it_is_opened_again() {
    fail_everywhere(Fault::NoSync, 5);
}

#[test]
fn on_a_full_disk_no_checkpoint_starts() {
    let dir = quick_dir();
    let disk = FailDisk::new(Fault::Full, 0, true);
    disk.mend();
    let checkpoints = open_job(dir.path(), &disk, true).unwrap();
    commit_small(&checkpoints, CheckpointId(1)).unwrap();
    disk.fill();
    let refused = begin(&checkpoints, CheckpointId(2), 2).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Full);
    disk.mend();
    commit_small(&checkpoints, CheckpointId(2)).unwrap();
    assert_eq!(ids(&checkpoints), [1, 2]);
}

/// What a killed process left is only in the cache of the system.
#[test]
fn a_sync_that_fails_while_opening_is_not_taken_back_by_a_second_try() {
    let left = quick_dir();
    {
        let checkpoints = open_job(left.path(), &FailDisk::new(Fault::NoSync, 1000, false), false);
        let checkpoints = checkpoints.unwrap();
        (1..=3).for_each(|id| commit_small(&checkpoints, CheckpointId(id)).unwrap());
        let killed = quick_dir();
        image(left.path(), killed.path());
        drop(checkpoints);
        std::fs::remove_dir_all(left.path()).unwrap();
        image(killed.path(), left.path());
    }
    for has_index in [true, false] {
        for first in 0.. {
            let dir = quick_dir();
            image(left.path(), dir.path());
            if !has_index {
                std::fs::remove_file(dir.path().join("CURRENT")).unwrap();
            }
            let disk = FailDisk::new(Fault::NoSync, first, false);
            let opened = OpenStore::open_with(dir.path(), None, Arc::new(disk.clone()), SETTINGS);
            if !disk.was_met() {
                assert!(first > 3, "{first} syncs");
                break;
            }
            assert_eq!(opened.unwrap_err().kind(), ErrorKind::Poisoned, "{first}");
            assert!(dir.path().join("POISONED").exists(), "{first}");
            let checkpoints = open(dir.path(), Placement::Split);
            assert_eq!(ids(&checkpoints), [1, 2, 3]);
            assert!(!dir.path().join("POISONED").exists());
        }
    }
}

/// The commit may turn out to count: then it must be whole.
#[test]
fn a_commit_whose_sync_failed_is_whole_or_not_there_when_the_store_is_opened_again() {
    for first in 0.. {
        let dir = quick_dir();
        let disk = FailDisk::new(Fault::NoSync, first, false);
        let opened = open_job(dir.path(), &disk, false);
        if let Ok(checkpoints) = opened {
            let failed = (1..=3).any(|id| commit(&checkpoints, CheckpointId(id)).is_err());
            assert_eq!(failed, disk.was_met());
        }
        let checkpoints = open(dir.path(), Placement::Split);
        for id in checkpoints.ids() {
            assert_whole(&checkpoints, id);
        }
        if !disk.was_met() {
            assert_eq!(ids(&checkpoints), [1, 2, 3]);
            break;
        }
    }
}

#[test]
fn a_store_that_was_opened_on_a_full_disk_is_not_clean_once_it_was_written_to() {
    let dir = quick_dir();
    {
        let checkpoints = open(dir.path(), Placement::Split);
        commit_small(&checkpoints, CheckpointId(1)).unwrap();
    }
    let current = || std::fs::read_to_string(dir.path().join("CURRENT")).unwrap();
    assert!(current().contains("clean"));
    std::fs::write(dir.path().join("index-1/db"), "garbage").unwrap();
    let disk = FailDisk::new(Fault::Full, 0, true);
    let checkpoints = open_job(dir.path(), &disk, false).unwrap();
    disk.mend();
    commit_small(&checkpoints, CheckpointId(2)).unwrap();
    assert!(!current().contains("clean"), "{}", current());
    assert_eq!(ids(&checkpoints), [1, 2]);
}
