//! Cuts a run of the store at every operation of its disk, then opens what is left.

use std::collections::BTreeSet;

use super::*;
use crate::storage::tests::CutDisk;

/// What a run announced before its disk was cut off.
#[derive(Debug, Default)]
struct Announced {
    attempts: u32,
    committed: Vec<u64>,
    /// Asked to be dropped; whether it worked is not known unless `dropped` has it, too.
    dropping: Vec<u64>,
    dropped: Vec<u64>,
    /// The commit that was under way.
    committing: Option<u64>,
    /// What was pinned in the end, and what may have changed since.
    pinned: BTreeSet<u64>,
    pinning: Option<u64>,
}

/// Pins a checkpoint, or takes the pin back.
fn pin(checkpoints: &Checkpoints, said: &mut Announced, id: CheckpointId) -> Result<()> {
    said.pinning = Some(id.0);
    if said.pinned.contains(&id.0) {
        checkpoints.unpin(id)?;
        said.pinned.remove(&id.0);
    } else {
        checkpoints.pin(id)?;
        said.pinned.insert(id.0);
    }
    said.pinning = None;
    Ok(())
}

/// Opens, commits, retains two, closes, and opens again.
fn run(dir: &Path, disk: &CutDisk) -> Announced {
    let mut said = Announced::default();
    for _ in 0..2 {
        let Ok(checkpoints) = open_on(dir, Placement::Split, Arc::new(disk.clone())) else {
            break;
        };
        said.attempts += 1;
        for round in 0..3 {
            let id = checkpoints.next_id();
            said.committing = Some(id.0);
            if commit(&checkpoints, id).is_err() {
                break;
            }
            said.committing = None;
            said.committed.push(id.0);
            // The first two are pinned in the first start, one of them is unpinned in the second.
            let to_pin = if said.attempts == 1 { CheckpointId(round + 1) } else { CheckpointId(1) };
            if (said.attempts == 1 || round == 1)
                && round < 2
                && pin(&checkpoints, &mut said, to_pin).is_err()
            {
                break;
            }
            let mut oldest: Vec<CheckpointId> =
                checkpoints.ids().iter().rev().skip(2).copied().collect();
            oldest.retain(|id| !said.pinned.contains(&id.0));
            said.dropping.extend(oldest.iter().map(|id| id.0));
            if checkpoints.discard(&oldest).is_err() {
                break;
            }
            said.dropped.extend(oldest.iter().map(|id| id.0));
        }
        if said.committing.is_some() {
            break;
        }
    }
    said
}

fn check(dir: &Path, said: &Announced, cut: u64) {
    let checkpoints = open_on(dir, Placement::Split, Arc::new(RealDisk))
        .unwrap_or_else(|error| panic!("cut {cut}: {error} {error:?}"));
    let found = ids(&checkpoints);
    for id in &said.committed {
        let maybe_dropped = said.dropping.contains(id);
        assert!(found.contains(id) || maybe_dropped, "cut {cut}: {id} is lost: {found:?} {said:?}");
    }
    for id in &found {
        let known = said.committed.contains(id) || said.committing == Some(*id);
        assert!(known, "cut {cut}: {id} appeared: {found:?} {said:?}");
        assert!(!said.dropped.contains(id), "cut {cut}: {id} came back: {found:?} {said:?}");
        assert_whole(&checkpoints, CheckpointId(*id));
    }
    for id in &found {
        let is_pinned = checkpoints.info(CheckpointId(*id)).unwrap().pinned;
        let was = said.pinned.contains(id);
        assert!(is_pinned == was || said.pinning == Some(*id), "cut {cut}: {id} {said:?}");
    }
    let attempt = checkpoints.attempt().0;
    assert!(attempt > said.attempts, "cut {cut}: attempt {attempt} {found:?} {said:?}");
    let id = checkpoints.next_id();
    assert!(said.committed.iter().all(|old| *old < id.0), "cut {cut}");
    commit(&checkpoints, id).unwrap();
    assert_whole(&checkpoints, id);
}

#[test]
fn a_cut_at_any_operation_loses_nothing_announced() {
    let whole = CutDisk::new(u64::MAX);
    let dir = tempfile::tempdir().unwrap();
    let said = run(dir.path(), &whole);
    assert_eq!(said.committed.len(), 6);
    assert_eq!((said.dropped.as_slice(), said.pinned.len()), (&[3, 1, 4][..], 1));
    assert!(whole.operations() > 50, "{}", whole.operations());
    for cut in 0..whole.operations() {
        let dir = tempfile::tempdir().unwrap();
        let said = run(dir.path(), &CutDisk::new(cut));
        check(dir.path(), &said, cut);
    }
}

/// The open after a crash may crash as well.
#[test]
fn a_cut_while_opening_after_a_crash_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let base = tempfile::tempdir().unwrap();
    let checkpoints = open(dir.path(), Placement::Split);
    for id in 1..=3 {
        commit(&checkpoints, CheckpointId(id)).unwrap();
    }
    image(dir.path(), base.path());
    for cut in 0.. {
        let dir = tempfile::tempdir().unwrap();
        image(base.path(), dir.path());
        let disk = CutDisk::new(cut);
        let opened = open_on(dir.path(), Placement::Split, Arc::new(disk.clone()));
        let succeeded = opened.is_ok();
        drop(opened);
        let checkpoints = open(dir.path(), Placement::Split);
        assert_eq!(ids(&checkpoints), [1, 2, 3], "cut {cut}");
        assert_whole(&checkpoints, CheckpointId(3));
        if succeeded && disk.operations() <= cut {
            break;
        }
    }
}
