//! Goal: this release reads every store that a released one wrote. Method: `tests/data` holds
//! a store of each kind from each release, packed as a text, and what it held. Each is unpacked,
//! opened, compared, and written to. A version in the changelog without its stores fails.
//!
//! `TIDEGATE_WRITE_FIXTURES=1 cargo test --test golden_stores made_when_asked` makes those of this
//! version anew: of a version that is not released yet, since those of a released one never change.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test may panic"
)]

#[path = "support/archive.rs"]
mod archive;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use tidegate::catalog::{CheckpointPlan, Checkpoints, OperatorSpec};
use tidegate::message::CheckpointType;
use tidegate::state::{SectionKey, SectionKind, SnapshotSink, SnapshotSource};
use tidegate::storage::{
    CheckpointStorage, FileSystemCheckpointStorage, Placement, SledCheckpointStorage,
};
use tidegate::{CheckpointId, JobId, OperatorUid, TaskId};

/// What a store is written with, and whether its process was killed. Every release has these.
const KINDS: [&str; 5] = ["split", "split-killed", "sled", "sled-killed", "file"];

const VERSION: &str = env!("CARGO_PKG_VERSION");

const JOBS: [&str; 2] = ["orders", "ended"];

fn storage(kind: &str, dir: &Path) -> Box<dyn CheckpointStorage> {
    let sled = |placement| SledCheckpointStorage::new(dir).with_placement(placement);
    match kind.split('-').next().unwrap() {
        "split" => Box::new(sled(Placement::Split)),
        "sled" => Box::new(sled(Placement::Sled)),
        _ => {
            Box::new(FileSystemCheckpointStorage::new(format!("file://{}", dir.display())).unwrap())
        }
    }
}

fn open(kind: &str, dir: &Path, job: &str) -> Checkpoints {
    Checkpoints::new(storage(kind, dir).open(&JobId::new(job).unwrap()).unwrap())
}

fn operators() -> Vec<OperatorSpec> {
    let operator =
        |uid, parallelism| OperatorSpec::new(OperatorUid::new(uid).unwrap(), parallelism);
    vec![operator("source", 1), operator("count", 2)]
}

fn tasks(operators: &[OperatorSpec]) -> impl Iterator<Item = TaskId> {
    operators.iter().flat_map(|operator| {
        (0..operator.parallelism).map(|subtask| TaskId { operator: operator.uid.clone(), subtask })
    })
}

/// The state of one task: of the position and the first subtask some changes with each checkpoint, of
/// the second nothing; some lies in the manifest, some in chunks.
fn state(id: u64, task: &TaskId) -> Vec<(SectionKey, Vec<u8>)> {
    let bytes = |seed: u64, len: u64| -> Vec<u8> {
        (0..len).map(|at| (seed.wrapping_mul(31 + at % 7) + at / 3).to_le_bytes()[0]).collect()
    };
    if task.operator.as_str() == "source" {
        let key = SectionKey::new(SectionKind::Position, "position");
        return vec![(key, bytes(id, 8))];
    }
    let id = if task.subtask == 0 { id } else { 0 };
    vec![
        (SectionKey::new(SectionKind::Raw, "small").with_index(7), bytes(id + 1, 20 + id)),
        (SectionKey::new(SectionKind::Raw, "large"), bytes(id + 2, 2049 + id)),
    ]
}

fn properties(id: u64) -> BTreeMap<String, String> {
    BTreeMap::from([("name".to_owned(), format!("checkpoint {id}"))])
}

fn commit(checkpoints: &Checkpoints, id: u64, kind: CheckpointType) {
    let mut plan = CheckpointPlan::new(operators());
    (plan.kind, plan.timestamp_ms) = (kind, 1_700_000_000_000 + id);
    plan.properties = properties(id);
    let pending = checkpoints.begin(CheckpointId(id), plan).unwrap();
    let snapshots: Vec<_> = tasks(&operators())
        .map(|task| {
            let mut writer = pending.writer(&task).unwrap();
            for (key, bytes) in state(id, &task) {
                writer.section(&key, &mut |out| Ok(out.write_all(&bytes)?)).unwrap();
            }
            (task, writer.finish().unwrap())
        })
        .collect();
    pending.commit(&snapshots).unwrap();
}

/// The checkpoints of the first job that were not given up, by what was asked for.
const KEPT: [(u64, CheckpointType); 4] = [
    (2, CheckpointType::Checkpoint),
    (3, CheckpointType::Savepoint),
    (4, CheckpointType::FullCheckpoint),
    (5, CheckpointType::Checkpoint),
];

/// Two jobs: one goes on after checkpoints, a savepoint and a drop, one has ended. Gives their
/// checkpoints, still open, and what they hold.
fn write(kind: &str, dir: &Path) -> (Vec<Checkpoints>, String) {
    let jobs: Vec<_> = JOBS.iter().map(|job| open(kind, dir, job)).collect();
    commit(&jobs[0], 1, CheckpointType::Checkpoint);
    for (id, kind) in KEPT {
        commit(&jobs[0], id, kind);
        if id == 2 {
            jobs[0].discard(&[CheckpointId(1)]).unwrap();
        }
    }
    let ended = [(1, CheckpointType::Checkpoint)];
    commit(&jobs[1], ended[0].0, ended[0].1);
    jobs[1].record_finish("FINISHED").unwrap();

    let mut text = String::new();
    let finishes = [None, Some("FINISHED")];
    for ((job, kept), finish) in JOBS.iter().zip([&KEPT[..], &ended]).zip(finishes) {
        writeln!(text, "job {job}").unwrap();
        for (id, kind) in kept {
            let head = (*id, *kind, 1_700_000_000_000 + id, &properties(*id));
            describe(&mut text, head, &operators(), |task| state(*id, task));
        }
        writeln!(text, "finish {finish:?}").unwrap();
    }
    (jobs, text)
}

fn describe(
    text: &mut String,
    (id, kind, timestamp, properties): (u64, CheckpointType, u64, &BTreeMap<String, String>),
    operators: &[OperatorSpec],
    state: impl Fn(&TaskId) -> Vec<(SectionKey, Vec<u8>)>,
) {
    writeln!(text, "checkpoint {id} {kind:?} at {timestamp} {properties:?}").unwrap();
    for operator in operators {
        let uid = operator.uid.as_str();
        writeln!(text, "  {uid} {} of {}", operator.parallelism, operator.max_parallelism).unwrap();
    }
    for task in tasks(operators) {
        for (key, bytes) in state(&task) {
            let SectionKey { kind, state, index } = key;
            let (len, crc) = (bytes.len(), crc32fast::hash(&bytes));
            writeln!(text, "    {task} {kind:?} {state} {index}: {len} bytes {crc:08x}").unwrap();
        }
    }
}

/// The same of an open store, as far as it is there.
fn read(jobs: &[Checkpoints]) -> String {
    let mut text = String::new();
    for (name, job) in JOBS.iter().zip(jobs) {
        writeln!(text, "job {name}").unwrap();
        for id in job.ids() {
            let info = job.info(id).unwrap();
            let head = (id.0, info.kind, info.timestamp_ms, &info.properties);
            describe(&mut text, head, &info.operators, |task| sections(job, id, task));
            assert!(job.verify(id, &mut |_| ()).is_ok(), "checkpoint {id} of {name}");
        }
        writeln!(text, "finish {:?}", job.finish().as_deref()).unwrap();
    }
    text
}

fn sections(job: &Checkpoints, id: CheckpointId, task: &TaskId) -> Vec<(SectionKey, Vec<u8>)> {
    let mut reader = job.read_task(id, task).unwrap();
    let mut found = Vec::new();
    while let Some(key) = reader.next_section().unwrap() {
        let mut bytes = Vec::new();
        reader.body().read_to_end(&mut bytes).unwrap();
        found.push((key, bytes));
    }
    found
}

/// In memory where there is such a place: nothing here depends on a disk.
fn quick_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A store as its process leaves it, packed, and what it holds.
fn packed(kind: &str) -> (String, String) {
    let dir = quick_dir();
    let (jobs, expected) = write(kind, dir.path());
    if kind.ends_with("-killed") {
        return (archive::pack(dir.path()), expected);
    }
    drop(jobs);
    (archive::pack(dir.path()), expected)
}

/// Opens a packed store, compares it, writes to it, and opens it again.
fn check(name: &str, kind: &str, store: &str, expected: &str) {
    let dir = quick_dir();
    archive::unpack(store, dir.path());
    let open_all = || -> Vec<_> { JOBS.iter().map(|job| open(kind, dir.path(), job)).collect() };
    let jobs = open_all();
    assert_same(name, &read(&jobs), expected);
    assert!(jobs[0].next_id() > CheckpointId(5), "{name}: {}", jobs[0].next_id());
    let id = jobs[0].next_id();
    commit(&jobs[0], id.0, CheckpointType::Checkpoint);
    drop(jobs);
    let jobs = open_all();
    assert_eq!(jobs[0].ids().last(), Some(&id), "{name}");
    jobs[0].discard(&[id]).unwrap();
    assert_same(name, &read(&jobs), expected);
}

fn assert_same(name: &str, found: &str, expected: &str) {
    let pairs = found.lines().zip(expected.lines());
    for (found, expected) in pairs {
        assert_eq!(found, expected, "{name}");
    }
    assert_eq!(found.lines().count(), expected.lines().count(), "{name}");
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/stores")
}

fn fixture(version: &str, kind: &str) -> PathBuf {
    fixtures().join(format!("v{version}-{kind}.store"))
}

fn content(version: &str) -> PathBuf {
    fixtures().join(format!("v{version}.content"))
}

/// The versions with a heading in a changelog, and whether each is released.
fn versions(changelog: &str) -> Vec<(String, bool)> {
    let headings = changelog.lines().filter_map(|line| line.strip_prefix("## "));
    let version = |heading: &str| {
        let (version, rest) = heading.split_once(' ').unwrap_or((heading, ""));
        let is_version = version.split('.').all(|part| part.parse::<u32>().is_ok());
        is_version.then(|| (version.to_owned(), !rest.contains("unreleased")))
    };
    headings.filter_map(version).collect()
}

fn changelog() -> Vec<(String, bool)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("CHANGELOG.md");
    let versions = versions(&fs::read_to_string(path).unwrap());
    assert!(versions.iter().any(|(version, _)| version == VERSION), "{VERSION} has no heading");
    versions
}

#[test]
fn a_store_that_this_version_wrote_is_read_from_its_text() {
    for kind in KINDS {
        let (store, expected) = packed(kind);
        check(kind, kind, &store, &expected);
    }
}

#[test]
fn the_stores_of_every_release_are_read() {
    for (version, is_released) in changelog() {
        for kind in KINDS {
            let path = fixture(&version, kind);
            if !is_released && !path.exists() {
                continue;
            }
            let name = path.display().to_string();
            let store = fs::read_to_string(&path).expect(&name);
            let expected = fs::read_to_string(content(&version)).expect(&name);
            check(&name, kind, &store, &expected);
        }
    }
}

#[test]
fn an_index_that_is_missing_from_a_released_store_is_made_anew() {
    for (version, _) in changelog() {
        for kind in ["split", "split-killed"] {
            let Ok(store) = fs::read_to_string(fixture(&version, kind)) else { continue };
            let mut is_index = false;
            let without = store.lines().filter(|line| {
                if let Some(path) = line.strip_prefix("dir ").or(line.strip_prefix("file ")) {
                    is_index = path.starts_with("index-");
                }
                !is_index
            });
            let without: String = without.flat_map(|line| [line, "\n"]).collect();
            assert!(without.len() < store.len());
            let expected = fs::read_to_string(content(&version)).unwrap();
            check(&format!("{version} {kind} without its index"), kind, &without, &expected);
        }
    }
}

#[test]
fn every_release_in_the_changelog_is_found() {
    let text =
        "# Changes\n\n## 1.2.0 (unreleased)\n\n- A.\n\n## 1.1.3 (2026-01-02)\n## 1.0.0\n## Why\n";
    let found = versions(text);
    let found: Vec<_> = found.iter().map(|(version, is)| (version.as_str(), *is)).collect();
    assert_eq!(found, [("1.2.0", false), ("1.1.3", true), ("1.0.0", true)]);
}

#[test]
fn the_stores_of_this_version_are_made_when_asked() {
    if std::env::var_os("TIDEGATE_WRITE_FIXTURES").is_none_or(|asked| asked != "1") {
        return;
    }
    let is_released = changelog().contains(&(VERSION.to_owned(), true));
    assert!(!is_released, "{VERSION} is released: its stores never change");
    fs::create_dir_all(fixtures()).unwrap();
    for kind in KINDS {
        let (store, expected) = packed(kind);
        fs::write(fixture(VERSION, kind), store).unwrap();
        fs::write(content(VERSION), expected).unwrap();
    }
}
