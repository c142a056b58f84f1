//! Goal: the verbs that change a store do exactly what they say, durably, and nothing to a store in
//! use, to attempts or to ids. Method: stores are made through the public API, the program runs as a
//! process of its own, and the next start of the job says what is left.

#![expect(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

#[path = "support/program.rs"]
mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use tidegate::catalog::{CheckpointPlan, Checkpoints, OperatorSpec};
use tidegate::state::{SectionKey, SectionKind, SnapshotSink};
use tidegate::storage::{CheckpointStorage, Placement, SledCheckpointStorage};
use tidegate::{CheckpointId, JobId, OperatorUid, TaskId};

use program::{refused, says, says_json, tidegate};

const BOTH: [Placement; 2] = [Placement::Split, Placement::Sled];

/// Bytes of state of a checkpoint, in chunks.
const STATE: usize = 3_000_000;

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(arguments);
    command
}

fn open(dir: &Path, job: &str, placement: Placement) -> Checkpoints {
    let storage = SledCheckpointStorage::new(dir).with_placement(placement);
    Checkpoints::new(storage.open(&JobId::new(job).unwrap()).unwrap())
}

fn commit(checkpoints: &Checkpoints) {
    let id = checkpoints.next_id();
    let operator = OperatorSpec::new(OperatorUid::new("op").unwrap(), 1);
    let task = TaskId { operator: operator.uid.clone(), subtask: 0 };
    let pending = checkpoints.begin(id, CheckpointPlan::new(vec![operator])).unwrap();
    let mut writer = pending.writer(&task).unwrap();
    let key = SectionKey::new(SectionKind::Raw, "state");
    // Nothing of it is like another checkpoint's.
    let seed = id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let words = (1..).map(|number: u64| (number.wrapping_mul(seed | 1)).to_le_bytes());
    let body: Vec<u8> = words.flatten().take(STATE).collect();
    writer.section(&key, &mut |out| Ok(out.write_all(&body)?)).unwrap();
    pending.commit(&[(task, writer.finish().unwrap())]).unwrap();
}

/// Three checkpoints of `job`.
fn store(placement: Placement) -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = open(dir.path(), "job", placement);
    (0..3).for_each(|_| commit(&checkpoints));
    let path = dir.path().to_str().unwrap().to_owned();
    (dir, path)
}

fn ids(checkpoints: &Checkpoints) -> Vec<u64> {
    checkpoints.ids().iter().map(|id| id.0).collect()
}

/// Exactly these are there, all whole, and one start has been counted.
#[track_caller]
fn assert_left(dir: &Path, placement: Placement, expected: &[u64]) -> Checkpoints {
    let checkpoints = open(dir, "job", placement);
    assert_eq!(ids(&checkpoints), expected, "{placement}");
    for id in checkpoints.ids() {
        checkpoints.verify(id, &mut |_| ()).unwrap();
    }
    assert_eq!(checkpoints.attempt().0, 2, "{placement}");
    assert_eq!(checkpoints.next_id(), CheckpointId(4), "{placement}");
    checkpoints
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let log = fs::read_dir(dir.join("log")).unwrap();
    let mut found: Vec<_> = log.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

#[test]
fn delete_takes_one_checkpoint_and_no_number() {
    for placement in BOTH {
        let (dir, path) = store(placement);
        let deleted = says_json(&["delete", &path, "2"]);
        assert_eq!((&deleted["job"], &deleted["id"]), (&"job".into(), &2.into()));
        assert_eq!((&deleted["change"], &deleted["changed"]), (&"deleted".into(), &true.into()));
        refused(&["delete", &path, "2"], 2, "there is no completed checkpoint 2 of job");
        assert!(says(&["delete", &format!("{path}#3")]).contains("checkpoint 3 of job job in"));
        assert_left(dir.path(), placement, &[1]);
    }
}

#[test]
fn a_pinned_checkpoint_is_kept_by_delete_and_by_retention_until_it_is_unpinned() {
    for placement in BOTH {
        let (dir, path) = store(placement);
        assert_eq!(says_json(&["pin", &path, "1"])["changed"], true);
        assert_eq!(says_json(&["pin", &path, "1"])["changed"], false);
        assert!(says(&["list", &path]).contains("checkpoint, pinned"));
        assert_eq!(says_json(&["show", &path, "1"])["pinned"], true);
        refused(&["delete", &path, "1"], 3, "checkpoint 1 is pinned: unpin it");
        let checkpoints = assert_left(dir.path(), placement, &[1, 2, 3]);
        checkpoints.subsume(1).unwrap();
        assert_eq!(ids(&checkpoints), [1, 3]);
        drop(checkpoints);
        assert_eq!(says_json(&["unpin", &path, "1"])["change"], "unpinned");
        assert!(says(&["unpin", &path, "1"]).contains("is not pinned already"));
        says(&["delete", &path, "1"]);
        assert_eq!(ids(&open(dir.path(), "job", placement)), [3]);
    }
}

#[test]
fn gc_frees_what_nothing_needs_and_nothing_else() {
    for placement in BOTH {
        let (dir, path) = store(placement);
        says(&["delete", &path, "1"]);
        says(&["delete", &path, "2"]);
        let freed = says_json(&["gc", &path])["freed"].as_u64().unwrap();
        assert!(says(&["gc", &path]).contains("freed ("));
        if placement == Placement::Split {
            let left: u64 = segments(dir.path()).iter().map(|s| s.metadata().unwrap().len()).sum();
            assert!(left < 2 * STATE as u64, "{left} bytes are left, {freed} were freed");
        }
        assert_left(dir.path(), placement, &[3]);
    }
}

#[test]
fn a_store_in_use_is_left_alone() {
    for placement in BOTH {
        let (dir, path) = store(placement);
        let held = assert_left(dir.path(), placement, &[1, 2, 3]);
        for verb in ["delete", "pin", "unpin"] {
            refused(&[verb, &path, "1"], 3, "another process has");
        }
        for verb in ["gc", "repair"] {
            refused(&[verb, &path], 3, "another process has");
        }
        assert_eq!(ids(&held), [1, 2, 3]);
        commit(&held);
    }
}

#[test]
fn what_is_not_there_or_not_said_is_bad_input() {
    let (dir, path) = store(Placement::Split);
    open(dir.path(), "other", Placement::Split);
    refused(&["delete", &path, "1"], 2, "has several jobs, name one: job, other");
    refused(&["pin", &path, "1", "--job", "nobody"], 2, "has no job \"nobody\"");
    refused(&["unpin", &path, "9", "--job", "job"], 2, "no completed checkpoint 9");
    refused(&["delete", &path], 2, "needs the id of a checkpoint");
    refused(&["gc", &format!("{path}#1")], 2, "takes a whole store");
    for verb in [&["delete", "/nowhere", "1"][..], &["gc", "/nowhere"], &["repair", "/nowhere"]] {
        refused(verb, 2, "holds no tidegate store");
    }
    assert!(!Path::new("/nowhere").exists());
    says(&["pin", &path, "1", "--job", "job"]);
    assert!(says(&["delete", "--help"]).contains("a pinned one is refused"));
}

#[test]
fn repair_of_a_sound_store_changes_nothing() {
    let (dir, path) = store(Placement::Split);
    let before: Vec<_> = segments(dir.path()).iter().map(|path| fs::read(path).unwrap()).collect();
    let repaired = says_json(&["repair", &path]);
    assert_eq!(
        (&repaired["unchanged"], repaired["lost"].as_array().unwrap().len()),
        (&true.into(), 0)
    );
    assert_eq!(repaired["jobs"][0]["whole"].as_array().unwrap().len(), 3);
    assert!(says(&["repair", &path]).contains("is sound: nothing to do"));
    let after: Vec<_> = segments(dir.path()).iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(before == after && !dir.path().join("lost").exists());
    assert_left(dir.path(), Placement::Split, &[1, 2, 3]);
}

#[test]
fn repair_keeps_what_is_whole_and_names_what_is_lost() {
    let (dir, path) = store(Placement::Split);
    let segment = segments(dir.path()).into_iter().next().unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    // The body of a chunk of the first checkpoint.
    bytes[500_000] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    fs::write(dir.path().join("FORMAT"), "tidegate store\nversion 1\nwhat").unwrap();
    fs::remove_file(dir.path().join("CURRENT")).unwrap();
    let (code, out, err) = tidegate(&["repair", &path, "--json"]);
    assert!(code == Some(1) && err.is_empty(), "{code:?} {out} {err}");
    let repaired: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(repaired["lost"][0]["checkpoint"], 1);
    assert_eq!(repaired["jobs"][0]["whole"], serde_json::json!([2, 3]));
    assert!(repaired["format_rewritten"] == true && repaired["index_rebuilt"] == true);
    let kept = dir.path().join("lost").join(segment.file_name().unwrap());
    assert!(fs::read(kept).unwrap() == bytes, "the damaged segment is kept as it was");
    let (code, out, _) = tidegate(&["repair", &path]);
    assert!(code == Some(1) && out.contains("nothing more can be done"), "{out}");
    let (code, out, _) = tidegate(&["verify", &path]);
    assert!(code == Some(1) && out.contains("checkpoint 1: DAMAGED"), "{out}");
    let text = says(&["repair", &path, "--drop-broken"]);
    assert!(text.contains("checkpoint 1 of job job is given up"), "{text}");
    assert!(says(&["verify", &path]).contains("is sound: 2 checkpoints"));
    assert_left(dir.path(), Placement::Split, &[2, 3]);
}
