//! Goal: a store whose process is killed at a random moment has every checkpoint that was announced,
//! whole, and nothing that was announced as dropped. Method: this test runs itself as a child that
//! commits without end and prints what it did; it is killed with SIGKILL after a random time, over
//! and over on one directory, in both placements. `TIDEGATE_KILLS` asks for more rounds.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test may panic"
)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::mpsc;
use std::time::Duration;

use tidegate::catalog::{CheckpointPlan, Checkpoints, OperatorSpec};
use tidegate::state::{SectionKey, SectionKind, SnapshotSink, SnapshotSource};
use tidegate::storage::{CheckpointStorage, Placement, SledCheckpointStorage};
use tidegate::{CheckpointId, JobId, OperatorUid, TaskId};

const DIRECTORY: &str = "TIDEGATE_KILL_DIRECTORY";
const PLACEMENT: &str = "TIDEGATE_KILL_PLACEMENT";
const SUBTASKS: u32 = 2;

fn open(dir: &Path, placement: Placement) -> Checkpoints {
    let storage = SledCheckpointStorage::new(dir).with_placement(placement);
    Checkpoints::new(storage.open(&JobId::new("job").unwrap()).unwrap())
}

fn task(subtask: u32) -> TaskId {
    TaskId { operator: OperatorUid::new("op").unwrap(), subtask }
}

/// State that tells checkpoint, subtask and position apart, from a few bytes to several chunks.
fn state(id: CheckpointId, subtask: u32) -> Vec<u8> {
    let len = (id.0 * 7919 + u64::from(subtask) * 104_729) % 700_000;
    let word = |at: u64| (id.0 << 40 | u64::from(subtask) << 36 | at).to_le_bytes();
    (0..len / 8).flat_map(word).collect()
}

/// The child: commits, retains two, and says so, until it is killed.
fn commit_for_ever(dir: &Path, placement: Placement) {
    let checkpoints = open(dir, placement);
    let mut out = std::io::stdout().lock();
    let mut say = |line: String| {
        writeln!(out, "{line}").unwrap();
        out.flush().unwrap();
    };
    say("\nopen".to_owned());
    loop {
        let id = checkpoints.next_id();
        let operator = OperatorSpec::new(OperatorUid::new("op").unwrap(), SUBTASKS);
        let pending = checkpoints.begin(id, CheckpointPlan::new(vec![operator])).unwrap();
        let snapshots: Vec<_> = (0..SUBTASKS)
            .map(|subtask| {
                let mut writer = pending.writer(&task(subtask)).unwrap();
                let key = SectionKey::new(SectionKind::Raw, "state");
                let bytes = state(id, subtask);
                writer.section(&key, &mut |out| Ok(out.write_all(&bytes)?)).unwrap();
                (task(subtask), writer.finish().unwrap())
            })
            .collect();
        pending.commit(&snapshots).unwrap();
        say(format!("committed {id}"));
        drop(pending);
        let ids = checkpoints.ids();
        for old in ids.iter().rev().skip(2) {
            say(format!("dropping {old}"));
            checkpoints.discard(&[*old]).unwrap();
            say(format!("dropped {old}"));
        }
    }
}

#[derive(Debug, Default)]
struct Said {
    committed: BTreeSet<u64>,
    dropping: BTreeSet<u64>,
    dropped: BTreeSet<u64>,
}

/// Runs the child and kills it `delay` after it opened, or `delay` after its start.
fn run_and_kill(dir: &Path, placement: Placement, delay: Duration, opened: bool, said: &mut Said) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["a_killed_store_keeps_what_it_announced", "--exact", "--nocapture"])
        .env(DIRECTORY, dir)
        .env(PLACEMENT, placement.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (tell, told) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        lines.map_while(Result::ok).for_each(|line| drop(tell.send(line)));
    });
    let mut heard = Vec::new();
    if opened {
        while let Ok(line) = told.recv_timeout(Duration::from_secs(60)) {
            heard.push(line);
            if heard.last().is_some_and(|line| line == "open") {
                break;
            }
        }
    }
    // Not to be right, but to be at a random place: any delay is a valid test.
    std::thread::sleep(delay);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap();
    heard.extend(told.try_iter());
    for line in heard {
        let mut words = line.split(' ');
        let (verb, id) = (words.next().unwrap(), words.next().and_then(|id| id.parse().ok()));
        match (verb, id) {
            ("committed", Some(id)) => said.committed.insert(id),
            ("dropping", Some(id)) => said.dropping.insert(id),
            ("dropped", Some(id)) => said.dropped.insert(id),
            _ => false,
        };
    }
}

fn check(dir: &Path, placement: Placement, said: &Said) {
    let checkpoints = open(dir, placement);
    let found: BTreeSet<u64> = checkpoints.ids().iter().map(|id| id.0).collect();
    for id in &said.committed {
        assert!(found.contains(id) || said.dropping.contains(id), "{id} is lost: {found:?}");
    }
    for id in &found {
        assert!(!said.dropped.contains(id), "{id} came back: {found:?}");
        for subtask in 0..SUBTASKS {
            let id = CheckpointId(*id);
            let mut reader = checkpoints.read_task(id, &task(subtask)).unwrap();
            reader.next_section().unwrap();
            let mut bytes = Vec::new();
            reader.body().read_to_end(&mut bytes).unwrap();
            assert!(bytes == state(id, subtask), "{id} of {subtask} is wrong");
        }
    }
}

#[test]
fn a_killed_store_keeps_what_it_announced() {
    if let (Some(dir), Ok(placement)) = (std::env::var_os(DIRECTORY), std::env::var(PLACEMENT)) {
        let placement = Placement::from_str(&placement).unwrap();
        commit_for_ever(Path::new(&dir), placement);
    }
    let kills = std::env::var("TIDEGATE_KILLS").map_or(30, |kills| kills.parse().unwrap());
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for placement in [Placement::Split, Placement::Sled] {
        let dir = tempfile::tempdir().unwrap();
        let mut said = Said::default();
        for round in 0..kills {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let delay = Duration::from_micros(random % 120_000);
            run_and_kill(dir.path(), placement, delay, round % 3 != 0, &mut said);
            if round % 5 == 4 {
                check(dir.path(), placement, &said);
            }
        }
        check(dir.path(), placement, &said);
        assert!(!said.committed.is_empty(), "{placement}: nothing was committed");
        println!("{placement}: {} commits, {} drops", said.committed.len(), said.dropped.len());
    }
}
