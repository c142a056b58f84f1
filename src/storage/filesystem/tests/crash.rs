//! Cuts a run at every operation of its disk, then opens what is left.

use super::*;
use crate::ids::CheckpointId;
use crate::state::SnapshotSink;
use crate::storage::tests::{CutDisk, SUBTASKS, assert_whole, begin, body, commit, ids, key, task};

/// What a run announced before its disk was cut off.
#[derive(Debug, Default)]
struct Announced {
    attempts: u32,
    begun: u64,
    committed: Vec<u64>,
    dropping: Vec<u64>,
    dropped: Vec<u64>,
    committing: Option<u64>,
    finishing: Vec<&'static str>,
    finished: Option<&'static str>,
}

/// Opens, commits, gives one up half way, retains two, closes, and opens again.
fn run(dir: &Path, disk: &CutDisk) -> Announced {
    let mut said = Announced::default();
    for word in ["first", "second"] {
        let Ok(checkpoints) = open_on(dir, Arc::new(disk.clone())) else { break };
        said.attempts += 1;
        if life(&checkpoints, &mut said).is_err() {
            break;
        }
        said.finishing.push(word);
        if checkpoints.record_finish(word).is_err() {
            break;
        }
        said.finished = Some(word);
    }
    said
}

fn life(checkpoints: &Checkpoints, said: &mut Announced) -> Result<()> {
    for _ in 0..3 {
        let id = checkpoints.next_id();
        said.committing = Some(id.0);
        said.begun = id.0;
        commit(checkpoints, id)?;
        said.committing = None;
        said.committed.push(id.0);
        let oldest: Vec<CheckpointId> = checkpoints.ids().iter().rev().skip(2).copied().collect();
        said.dropping.extend(oldest.iter().map(|id| id.0));
        checkpoints.discard(&oldest)?;
        said.dropped.extend(oldest.iter().map(|id| id.0));
    }
    let id = checkpoints.next_id();
    let pending = begin(checkpoints, id, SUBTASKS)?;
    said.begun = id.0;
    let mut writer = pending.writer(&task(0))?;
    let bytes = body(id, 0, 300_000);
    writer.section(&key(0), &mut |out| Ok(out.write_all(&bytes)?))?;
    Ok(())
}

fn check(dir: &Path, said: &Announced, cut: u64) {
    let checkpoints =
        open_on(dir, Arc::new(RealDisk)).unwrap_or_else(|error| panic!("cut {cut}: {error:?}"));
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
    assert!(checkpoints.attempt().0 > said.attempts, "cut {cut}: {said:?}");
    let finish = checkpoints.finish();
    let may_be = |word: &str| said.finishing.iter().rev().take(2).any(|w| *w == word);
    assert!(finish.as_deref().is_none_or(may_be), "cut {cut}: {finish:?} {said:?}");
    assert!(finish.is_some() || said.finished.is_none(), "cut {cut}: {said:?}");
    let id = checkpoints.next_id();
    let known = said.committed.iter().chain(said.committing.iter().filter(|id| found.contains(id)));
    assert!(known.max().is_none_or(|old| *old < id.0), "cut {cut}: {id} {said:?}");
    commit(&checkpoints, id).unwrap();
    assert_whole(&checkpoints, id);
    nothing_is_left_over(dir, &checkpoints, cut);
}

/// Beside the completed checkpoints and this start's claim, clean-up leaves nothing.
fn nothing_is_left_over(dir: &Path, checkpoints: &Checkpoints, cut: u64) {
    let live: Vec<String> =
        ids(checkpoints).iter().map(|id| format!("base/job/chk-{id}/")).collect();
    let claim = format!("base/job/attempts/{}", checkpoints.attempt());
    for name in layout(dir) {
        let expected = match name.as_str() {
            "base/"
            | "base/job/"
            | "base/job/attempts/"
            | "base/job/finished"
            | "base/job/shared/"
            | "base/job/taskowned/" => true,
            name if name == claim || is_shared_by_a_live_one(name, checkpoints) => true,
            name => live.iter().any(|dir| {
                name.strip_prefix(dir.as_str())
                    .is_some_and(|rest| matches!(rest, "" | "_metadata" | "NAME"))
            }),
        };
        assert!(expected, "cut {cut}: {name} is left over");
    }
}

fn is_shared_by_a_live_one(name: &str, checkpoints: &Checkpoints) -> bool {
    let mut shared = ids(checkpoints).into_iter().map(|id| format!("base/job/shared/{id}-NAME"));
    shared.any(|shared| shared == name)
}

#[test]
fn a_cut_at_any_operation_loses_nothing_announced() {
    let whole = CutDisk::new(u64::MAX);
    let dir = tempfile::tempdir().unwrap();
    let said = run(dir.path(), &whole);
    assert_eq!(said.committed.len(), 6, "{said:?}");
    assert_eq!(said.begun, 8, "{said:?}");
    assert!(whole.operations() > 150, "{}", whole.operations());
    for cut in 0..whole.operations() {
        let dir = tempfile::tempdir().unwrap();
        let said = run(dir.path(), &CutDisk::new(cut));
        check(dir.path(), &said, cut);
    }
}

/// The open after a crash has something to fence, to clean up and to remember; it may crash as well.
#[test]
fn a_cut_while_opening_after_a_crash_loses_nothing() {
    let base = tempfile::tempdir().unwrap();
    {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = open(dir.path());
        for id in 1..=3 {
            commit(&checkpoints, CheckpointId(id)).unwrap();
        }
        let pending = begin(&checkpoints, CheckpointId(9), SUBTASKS).unwrap();
        let mut writer = pending.writer(&task(0)).unwrap();
        let bytes = body(CheckpointId(9), 0, 300_000);
        writer.section(&key(0), &mut |out| Ok(out.write_all(&bytes)?)).unwrap();
        image(dir.path(), base.path());
    }
    std::fs::write(base.path().join("base/job/chk-9/_metadata.1.tmp"), b"half").unwrap();
    for cut in 0.. {
        let dir = tempfile::tempdir().unwrap();
        image(base.path(), dir.path());
        let disk = CutDisk::new(cut);
        let opened = open_on(dir.path(), Arc::new(disk.clone()));
        let succeeded = opened.is_ok();
        drop(opened);
        let checkpoints = open(dir.path());
        assert_eq!(ids(&checkpoints), [1, 2, 3], "cut {cut}");
        assert_eq!(checkpoints.next_id(), CheckpointId(10), "cut {cut}");
        assert_whole(&checkpoints, CheckpointId(3));
        nothing_is_left_over(dir.path(), &checkpoints, cut);
        if succeeded && disk.operations() <= cut {
            assert!(cut > 12, "only {cut} operations");
            break;
        }
    }
}
