//! Repairs what the damage matrix does to a store, also when the repair is cut off at any operation:
//! what is intact restores, nothing that was dropped comes back, and a second repair does nothing.

use std::collections::BTreeSet;
use std::fs;

use super::damage_matrix::{Ending, Found, HARMS, Harm, LIVE, SIZES, Store, harm};
use super::*;
use crate::error::ErrorKind;
use crate::inspect::Inspector;
use crate::record::FrameKind;
use crate::storage::sled::repair::{Broken, RepairReport, repair_with};
use crate::storage::tests::CutDisk;

fn repair(dir: &Path, broken: Broken) -> RepairReport {
    repair_with(dir, Arc::new(RealDisk), SETTINGS, broken, &mut |_, _| ()).unwrap()
}

fn lost(report: &RepairReport) -> BTreeSet<u64> {
    report.lost.iter().filter_map(|lost| Some(lost.checkpoint?.0)).collect()
}

fn whole(report: &RepairReport) -> Vec<u64> {
    report.recovered.values().flatten().map(|id| id.0).collect()
}

fn did_nothing(report: &RepairReport) -> bool {
    report.moved.is_empty()
        && report.copied == 0
        && !report.format_rewritten
        && !report.index_rebuilt
        && !report.log_completed
        && report.dropped.is_empty()
}

/// What the store is after a repair, whatever came before. `hit` are the frames that the harm has
/// changed or removed.
fn judge(dir: &Path, report: &RepairReport, ending: Ending, hit: &[&Found]) {
    let is_hit = |id: u64| hit.iter().any(|frame| frame.checkpoint == id);
    let knows_all = ending != Ending::KilledWithoutIndex;
    let (lost, whole) = (lost(report), whole(report));
    for id in &whole {
        let drop_is_hit = hit.iter().any(|f| matches!(f.kind, FrameKind::Drop | FrameKind::Base));
        assert!(LIVE.contains(id) || (!knows_all && drop_is_hit), "{id} came back");
    }
    for id in LIVE {
        assert!(
            whole.contains(&id) || is_hit(id),
            "{id} does not depend on the damage: {report:?}"
        );
        let is_known = whole.contains(&id) || lost.contains(&id);
        assert!(is_known || !knows_all, "{id} is forgotten without a word: {report:?}");
    }
    let again = repair(dir, Broken::Keep);
    assert!(did_nothing(&again), "{again:?} after {report:?}");
    assert_eq!((whole.clone(), lost.clone()), (self::whole(&again), self::lost(&again)));
    let verified = Inspector::open(dir).unwrap().verify(None, None, &mut |_| ()).unwrap();
    assert_eq!(verified.sound, lost.is_empty(), "{verified} after {report:?}");
    let checkpoints = open(dir, Placement::Split);
    for id in ids(&checkpoints) {
        match read_small(&checkpoints, CheckpointId(id)) {
            Ok(is_right) => assert!(is_right && whole.contains(&id), "{id}: {report:?}"),
            Err(error) => {
                assert!(lost.contains(&id) && error.kind() == ErrorKind::Corrupt, "{id}: {error}");
            }
        }
    }
    let id = checkpoints.next_id();
    assert!(id.0 > 4 || !knows_all, "{id} is given again");
    commit_small(&checkpoints, id).unwrap();
    drop(checkpoints);
    repair(dir, Broken::Drop);
    let left = ids(&open(dir, Placement::Split));
    assert_eq!(left, [whole, vec![id.0]].concat(), "only what is lost is given up");
}

#[test]
fn a_repair_recovers_all_that_is_intact_and_the_next_one_does_nothing() {
    for settings in SIZES {
        for ending in [Ending::Closed, Ending::Killed, Ending::KilledWithoutIndex] {
            let store = Store::new(ending, settings);
            let frames = store.frames();
            for harmed in HARMS {
                // Each frame once, and each harm at frames of all kinds.
                for (at, frame) in frames.iter().enumerate() {
                    if !(at + harmed as usize).is_multiple_of(HARMS.len()) {
                        continue;
                    }
                    let dir = store.copy();
                    let older = store.older.path();
                    let next = frames.get(at + 1);
                    let Some((from, to)) = harm(harmed, frame, next, dir.path(), older) else {
                        continue;
                    };
                    let hit: Vec<_> = frames
                        .iter()
                        .filter(|f| {
                            f.file == frame.file && f.offset < to && f.offset + f.len > from
                        })
                        .collect();
                    let report = repair(dir.path(), Broken::Keep);
                    judge(dir.path(), &report, ending, &hit);
                }
            }
        }
    }
}

#[test]
fn small_files_are_made_anew_and_the_damaged_ones_are_kept() {
    let store = Store::new(Ending::Closed, SETTINGS);
    for file in ["FORMAT", "CURRENT"] {
        for content in [None, Some("garbage")] {
            let dir = store.copy();
            let path = dir.path().join(file);
            match content {
                None => fs::remove_file(&path).unwrap(),
                Some(text) => fs::write(&path, text).unwrap(),
            }
            let report = repair(dir.path(), Broken::Keep);
            assert_eq!(
                (report.format_rewritten, whole(&report)),
                (file == "FORMAT", LIVE.to_vec())
            );
            assert_eq!(report.index_rebuilt, file == "CURRENT");
            if file == "FORMAT" && content.is_some() {
                assert_eq!(fs::read_to_string(dir.path().join("lost/FORMAT")).unwrap(), "garbage");
            }
            judge(dir.path(), &report, Ending::Closed, &[]);
        }
    }
}

#[test]
fn a_store_that_nobody_can_name_or_that_is_newer_is_left_alone() {
    let store = Store::new(Ending::Closed, SETTINGS);
    let dir = store.copy();
    let newer = "tidegate store\nversion 9\n";
    fs::write(dir.path().join("FORMAT"), newer).unwrap();
    let refuse = || {
        let disk = Arc::new(RealDisk);
        repair_with(dir.path(), disk, SETTINGS, Broken::Drop, &mut |_, _| ()).unwrap_err().kind()
    };
    assert_eq!(refuse(), ErrorKind::Incompatible);
    fs::write(dir.path().join("FORMAT"), "garbage").unwrap();
    for entry in fs::read_dir(dir.path().join("log")).unwrap() {
        fs::write(entry.unwrap().path(), vec![7; 300]).unwrap();
    }
    assert_eq!(refuse(), ErrorKind::Corrupt);
    assert_eq!(fs::read_to_string(dir.path().join("FORMAT")).unwrap(), "garbage");
}

/// Cuts a repair of this store off at every operation: the next one recovers what an undisturbed one
/// does.
fn is_finished_by_the_next(
    ending: Ending,
    harmed: &dyn Fn() -> TempDir,
    hit: &Found,
) -> RepairReport {
    let dir = harmed();
    let expected = repair(dir.path(), Broken::Keep);
    for cut in 0.. {
        let dir = harmed();
        let disk = CutDisk::new(cut);
        let first =
            repair_with(dir.path(), Arc::new(disk.clone()), SETTINGS, Broken::Keep, &mut |_, _| ());
        let is_done = first.is_ok() && disk.operations() <= cut;
        let report = repair(dir.path(), Broken::Keep);
        assert_eq!(
            (whole(&report), lost(&report)),
            (whole(&expected), lost(&expected)),
            "{cut}: {report:?}"
        );
        judge(dir.path(), &report, ending, &[hit]);
        if is_done {
            assert!(cut > 20, "{cut} operations");
            break;
        }
    }
    expected
}

#[test]
fn a_repair_that_is_cut_off_anywhere_is_finished_by_the_next() {
    let store = Store::new(Ending::Killed, SETTINGS);
    let frames = store.frames();
    let chunk = frames.iter().find(|f| f.checkpoint == 3 && f.kind == FrameKind::Chunk);
    let chunk = chunk.or(frames.iter().find(|f| f.checkpoint == 3)).unwrap();
    let harmed = || {
        let dir = store.copy();
        harm(Harm::FlipLast, chunk, None, dir.path(), store.older.path()).unwrap();
        fs::write(dir.path().join("FORMAT"), "garbage").unwrap();
        dir
    };
    let expected = is_finished_by_the_next(Ending::Killed, &harmed, chunk);
    assert!(whole(&expected).contains(&4) && expected.moved.len() > 1, "{expected:?}");
}

#[test]
fn what_the_index_alone_knows_outlives_a_repair_that_is_cut_off() {
    let store = Store::new(Ending::Closed, SETTINGS);
    let frames = store.frames();
    let manifest = frames.iter().find(|f| f.checkpoint == 3 && f.kind == FrameKind::Manifest);
    let manifest = manifest.unwrap();
    let harmed = || {
        let dir = store.copy();
        harm(Harm::FlipLast, manifest, None, dir.path(), store.older.path()).unwrap();
        dir
    };
    let expected = is_finished_by_the_next(Ending::Closed, &harmed, manifest);
    assert!(expected.log_completed && lost(&expected).is_empty(), "{expected:?}");
}
