//! Goal: the command line says what a store holds and whether it is sound, with the promised exit
//! codes, and looking changes nothing. Method: stores are made through the public API, the program runs as
//! a process of its own, and the answers are read as text and as JSON.

#![expect(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

#[path = "cli/entries.rs"]
mod entries;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate::catalog::{CheckpointPlan, Checkpoints, OperatorSpec};
use tidegate::message::CheckpointType;
use tidegate::state::{SectionKey, SectionKind, SnapshotSink};
use tidegate::storage::{CheckpointStorage, Placement, SledCheckpointStorage};
use tidegate::{CheckpointId, JobId, OperatorUid, TaskId};

/// How many bytes of state lie in chunks, and how many in the manifest.
const CHUNKED: usize = 600_000;
const INLINE: usize = 10;

/// 2026-11-22 15:19:05.123 UTC.
const TRIGGERED_MS: u64 = 1_795_360_745_123;

#[derive(Debug)]
struct Answer {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Starts the program without input.
fn start(arguments: &[&str]) -> Child {
    start_with(arguments, Stdio::null())
}

fn start_with(arguments: &[&str], input: Stdio) -> Child {
    // A child has copies of this process's files, sled's locks with them, until it executes: one
    // that is just being started for another test must not hold the store that this one looks at.
    static ONE_BY_ONE: Mutex<()> = Mutex::new(());
    let _turn = ONE_BY_ONE.lock().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(arguments).stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn tidegate(arguments: &[&str]) -> Answer {
    answer(start(arguments))
}

fn answer(child: Child) -> Answer {
    let output = child.wait_with_output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    Answer { code: output.status.code(), out, err }
}

/// The answer of a command that succeeds silently but for it.
fn says(arguments: &[&str]) -> String {
    let answer = tidegate(arguments);
    assert!(answer.code == Some(0) && answer.err.is_empty(), "{arguments:?}: {answer:?}");
    answer.out
}

fn says_json(arguments: &[&str]) -> Value {
    serde_json::from_str(&says(&[arguments, &["--json"]].concat())).unwrap()
}

#[track_caller]
fn refused(arguments: &[&str], code: i32, why: &str) {
    let answer = tidegate(arguments);
    assert_eq!(answer.code, Some(code), "{arguments:?}: {answer:?}");
    assert_eq!(answer.out, "", "{arguments:?}");
    assert!(answer.err.contains(why), "{arguments:?}: {}", answer.err);
}

fn open(dir: &Path, job: &str, placement: Placement) -> Checkpoints {
    let storage = SledCheckpointStorage::new(dir).with_placement(placement);
    Checkpoints::new(storage.open(&JobId::new(job).unwrap()).unwrap())
}

fn commit(checkpoints: &Checkpoints, kind: CheckpointType) -> CheckpointId {
    let count = OperatorSpec::new(OperatorUid::new("count").unwrap(), 2);
    let tasks = (0..2).map(|subtask| TaskId { operator: count.uid.clone(), subtask });
    let mut plan = CheckpointPlan::new(vec![count.clone()]);
    plan.kind = kind;
    plan.timestamp_ms = TRIGGERED_MS;
    plan.properties.insert("input".into(), "two\nlines".into());
    let pending = checkpoints.begin(checkpoints.next_id(), plan).unwrap();
    let snapshot = |task: TaskId| {
        let mut writer = pending.writer(&task).unwrap();
        for (state, index, len) in [("words", 5, CHUNKED), ("total", 0, INLINE)] {
            let key = SectionKey::new(SectionKind::Keyed, state).with_index(index);
            let body = vec![u8::try_from(task.subtask).unwrap(); len];
            writer.section(&key, &mut |out| Ok(out.write_all(&body)?)).unwrap();
        }
        (task, writer.finish().unwrap())
    };
    let snapshots: Vec<_> = tasks.map(snapshot).collect();
    pending.commit(&snapshots).unwrap().id
}

/// Two checkpoints and a savepoint of `wordy`.
fn store(placement: Placement) -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = open(dir.path(), "wordy", placement);
    for kind in [CheckpointType::Checkpoint, CheckpointType::Checkpoint, CheckpointType::Savepoint]
    {
        commit(&checkpoints, kind);
    }
    let path = dir.path().to_str().unwrap().to_owned();
    (dir, path)
}

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.insert(path.clone(), Vec::new());
            found.append(&mut files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn list_shows_every_job_with_its_checkpoints() {
    let (dir, path) = store(Placement::Split);
    open(dir.path(), "other", Placement::Split).record_finish("all\tdone").unwrap();

    let text = says(&["list", &path]);
    for part in [
        "(placement split)",
        "job wordy: 3 completed checkpoints\n",
        "savepoint   2026-11-22 15:19:05.123Z",
        "1.1 MiB  count x2\n",
        "job other: 0 completed checkpoints, finished: all\\tdone\n",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }

    let list = says_json(&["list", &format!("sled://{path}"), "--job", "wordy"]);
    assert_eq!((&list["placement"], &list["damage"]), (&json!("split"), &json!([])));
    assert_eq!(list["jobs"].as_array().unwrap().len(), 1);
    let job = &list["jobs"][0];
    assert_eq!((&job["job"], &job["finished"]), (&json!("wordy"), &Value::Null));
    assert_eq!(job["checkpoints"][0]["checkpoint_type"], "CHECKPOINT");
    let savepoint = &job["checkpoints"][2];
    let expected = json!({
        "id": 3,
        "status": "COMPLETED",
        "is_savepoint": true,
        "pinned": false,
        "checkpoint_type": "SAVEPOINT",
        "trigger_timestamp": TRIGGERED_MS,
        "latest_ack_timestamp": TRIGGERED_MS,
        "end_to_end_duration": 0,
        "state_size": 2 * (CHUNKED + INLINE),
        "num_subtasks": 2,
        "num_acknowledged_subtasks": 2,
        "attempt": 1,
        "operators": [{ "uid": "count", "parallelism": 2, "max_parallelism": 128 }],
        "external_path": format!("sled://{path}#3"),
    });
    assert_eq!(savepoint, &expected);
}

#[test]
fn show_describes_one_checkpoint_to_its_sections() {
    let (_dir, path) = store(Placement::Split);
    let text = says(&["show", &path]);
    for part in [
        "checkpoint 3 of job wordy",
        "type        savepoint\n",
        "input = two\\nlines\n",
        "count            2              128     1.1 MiB\n",
        "task count/1: 2 sections, 585.9 KiB\n",
        "keyed  words      5  600000       3\n",
        "keyed  total      0      10       0\n",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }

    let show = says_json(&["show", &path, "2"]);
    assert_eq!(show, says_json(&["show", &format!("{path}#2")]));
    assert_eq!((&show["id"], &show["job"]), (&json!(2), &json!("wordy")));
    assert_eq!(show["state_size"], 2 * (CHUNKED + INLINE));
    assert_eq!(show["properties"], json!({ "input": "two\nlines" }));
    let task = &show["tasks"][0]["subtasks"][1];
    assert_eq!((&task["index"], &task["state_size"]), (&json!(1), &json!(CHUNKED + INLINE)));
    let words =
        json!({ "kind": "keyed", "name": "words", "index": 5, "size": CHUNKED, "chunks": 3 });
    assert_eq!(task["sections"][0], words);
}

#[test]
fn verify_reads_every_record_of_every_job() {
    let (dir, path) = store(Placement::Split);
    commit(&open(dir.path(), "other", Placement::Split), CheckpointType::Checkpoint);
    let text = says(&["verify", &path]);
    // A commit, two manifests and three chunks for each task.
    assert_eq!(text.matches("sound, 9 records, 1.1 MiB\n").count(), 4, "{text}");
    assert!(text.contains("is sound: 4 checkpoints, 4.5 MiB\n"), "{text}");

    let one = says_json(&["verify", &path, "2", "--job", "wordy"]);
    assert_eq!((&one["sound"], &one["damage"]), (&json!(true), &json!([])));
    let checkpoint = &one["jobs"][0]["checkpoints"][0];
    assert_eq!((&checkpoint["id"], &checkpoint["verdict"]), (&json!(2), &json!("sound")));
}

#[test]
fn a_flipped_bit_is_found_named_and_does_not_hide_the_other_checkpoints() {
    let (dir, path) = store(Placement::Split);
    let mut segments: Vec<_> = files(&dir.path().join("log")).into_iter().collect();
    let (segment, bytes) = &mut segments[0];
    let at = 100_000;
    bytes[at] ^= 4;
    fs::write(&*segment, &*bytes).unwrap();

    let answer = tidegate(&["verify", &path, "--json"]);
    assert_eq!(answer.code, Some(1), "{answer:?}");
    let verified: Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(verified["sound"], false);
    let checkpoints = verified["jobs"][0]["checkpoints"].as_array().unwrap();
    let verdicts: Vec<_> = checkpoints.iter().map(|one| one["verdict"].as_str().unwrap()).collect();
    // The second one refers to what the first one wrote; a savepoint stands alone.
    assert_eq!(verdicts, ["damaged", "damaged", "sound"]);
    assert_eq!(checkpoints[0]["records"], 8);
    let damage = &checkpoints[0]["damage"][0];
    assert_eq!(damage["file"], segment.to_str().unwrap());
    assert!(damage["offset"].as_u64().unwrap() < at as u64);
    assert_eq!(damage["expected"], "a valid frame");
    assert!(damage["found"].as_str().unwrap().contains("payload checksum"), "{damage}");

    let answer = tidegate(&["verify", &path]);
    assert_eq!(answer.code, Some(1));
    assert!(answer.out.contains("checkpoint 1: DAMAGED"), "{}", answer.out);
    assert!(answer.out.contains("is DAMAGED: 2 of 3 checkpoints"), "{}", answer.out);
    says(&["verify", &path, "3"]);
}

/// Flips one bit at many places, in turn: verifying never calls a store sound that is not, and
/// nothing panics.
#[test]
fn whatever_bit_flips_the_answers_are_clear() {
    let (dir, path) = store(Placement::Split);
    let (mut found, mut harmless) = (0, 0);
    for (segment, bytes) in files(&dir.path().join("log")) {
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        // The ends of a segment hold the small records.
        let places = (0..used).step_by(used / 8 + 1);
        for at in places.chain([used.saturating_sub(1), used.saturating_sub(100)]) {
            let mut wrong = bytes.clone();
            wrong[at] ^= 0x10;
            fs::write(&segment, wrong).unwrap();
            for verb in ["list", "show", "verify"] {
                let answer = tidegate(&[verb, &path]);
                let may_fail = [Some(0), Some(1), Some(2)];
                assert!(may_fail.contains(&answer.code), "{verb} {at}: {answer:?}");
                if verb == "verify" {
                    let count = if answer.code == Some(1) { &mut found } else { &mut harmless };
                    *count += 1;
                }
            }
        }
        fs::write(&segment, bytes).unwrap();
    }
    assert!(found > harmless, "{found} found, {harmless} not");
    says(&["verify", &path]);
}

#[test]
fn what_does_not_exist_or_is_not_understood_is_bad_input() {
    let (dir, path) = store(Placement::Split);
    let file = dir.path().join("FORMAT");
    for verb in ["list", "show", "verify"] {
        refused(&[verb, "/nowhere/at/all"], 2, "holds no tidegate store");
        refused(&[verb, file.to_str().unwrap()], 2, "error: ");
        refused(&[verb, &path, "--job", "nobody"], 2, "has no job \"nobody\"; it has wordy");
        refused(&[verb, "memory:"], 2, "scheme memory");
        refused(&[verb, "s3://bucket"], 2, "name a path below it");
        if cfg!(not(feature = "s3")) {
            refused(&[verb, "s3://bucket/state"], 2, "needs the feature s3 ");
        }
        refused(&[verb, &path, "--wrong"], 2, "--wrong");
        refused(&[verb], 2, "<STORE>");
    }
    for verb in ["show", "verify"] {
        refused(&[verb, &path, "77"], 2, "no completed checkpoint 77 of wordy");
        refused(&[verb, &format!("{path}#77")], 2, "no completed checkpoint 77");
        refused(&[verb, &format!("{path}#2"), "2"], 2, "named twice");
        refused(&[verb, &path, "two"], 2, "two");
    }
    refused(&["list", &format!("{path}#2")], 2, "not a checkpoint");
    refused(&["eat", &path], 2, "eat");
    refused(&[], 2, "Usage");
    commit(&open(dir.path(), "other", Placement::Split), CheckpointType::Checkpoint);
    refused(&["show", &path], 2, "several jobs, name one: other, wordy");
    says(&["show", &path, "--job", "other"]);
    refused(&["verify", &path, "--job", "other", "3"], 2, "no completed checkpoint 3 of other");
}

#[test]
fn a_store_that_lost_its_format_or_its_log_is_never_called_sound() {
    let (dir, path) = store(Placement::Split);
    fs::rename(dir.path().join("log"), dir.path().join("lost")).unwrap();
    refused(&["verify", &path], 1, "the log is damaged");
    fs::write(dir.path().join("FORMAT"), "tidegate store\nversion 9\n").unwrap();
    refused(&["verify", &path], 3, "version 9");
    fs::write(dir.path().join("FORMAT"), "garbage").unwrap();
    refused(&["verify", &path], 1, "FORMAT is damaged");
}

#[test]
fn help_and_version_are_answers() {
    let help = says(&["--help"]);
    for word in ["list", "show", "verify", "config", "simulate", "Exit codes"] {
        assert!(help.contains(word), "{help}");
    }
    assert_eq!(says(&["--version"]), format!("tidegate {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn no_verb_that_looks_changes_a_byte() {
    let (dir, path) = store(Placement::Split);
    let before = files(dir.path());
    for verb in ["list", "show", "verify"] {
        says(&[verb, &path]);
        says(&[verb, &path, "--json"]);
    }
    assert!(before == files(dir.path()));
}

/// A job commits and gives up checkpoints as fast as it can while every verb looks at its store:
/// what is caught half-way is never taken for damage.
#[test]
fn a_live_job_is_looked_at_from_beside() {
    const ROUNDS: usize = 8;
    const COMMITS: usize = 20;
    let (dir, path) = store(Placement::Split);
    let (stop, committed) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let job = scope.spawn(|| {
            let checkpoints = open(dir.path(), "wordy", Placement::Split);
            while !stop.load(Ordering::Relaxed) {
                commit(&checkpoints, CheckpointType::Checkpoint);
                checkpoints.subsume(2).unwrap();
                committed.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut looks = Vec::new();
        let enough = |looks: usize| looks >= ROUNDS && committed.load(Ordering::Relaxed) >= COMMITS;
        while !enough(looks.len()) && !job.is_finished() {
            looks.push(["list", "show", "verify"].map(|verb| (verb, tidegate(&[verb, &path]))));
        }
        stop.store(true, Ordering::Relaxed);
        job.join().unwrap();
        for (verb, answer) in looks.into_iter().flatten() {
            let sees = answer.code == Some(0) && !answer.out.contains(": 0 completed");
            assert!(sees, "{verb}: {answer:?}");
        }
    });
}

#[test]
fn a_store_wholly_in_sled_is_read_while_it_is_free() {
    let (dir, path) = store(Placement::Sled);
    let text = says(&["list", &path]);
    assert!(text.contains("(placement sled)"), "{text}");
    assert!(says(&["show", &path, "1"]).contains("checkpoint 1 of job wordy"));
    assert_eq!(says_json(&["verify", &path])["sound"], true);

    let held = open(dir.path(), "wordy", Placement::Sled);
    for verb in ["list", "show", "verify"] {
        refused(&[verb, &path], 3, "placement sled is read only while it is free");
    }
    drop(held);
    says(&["verify", &path]);
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let (_dir, path) = store(Placement::Split);
    let mut child = start(&["list", &path]);
    drop(child.stdout.take());
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!((child.wait().unwrap().code(), err.as_str()), (Some(0), ""));
}

#[test]
fn config_check_shows_what_a_file_comes_to() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    let path = file.to_str().unwrap();
    fs::write(&file, "execution:\n  checkpointing:\n    interval: 10 s\n    tiemout: 1 min\n")
        .unwrap();
    let text = says(&["config", "check", path]);
    let interval = text.lines().find(|line| line.trim_start().starts_with("interval ")).unwrap();
    assert_eq!(
        interval.split_whitespace().collect::<Vec<_>>(),
        ["interval", "10000", "ms", "line", "3"]
    );
    assert!(
        text.contains("warning: line 4: execution.checkpointing.tiemout: unknown key"),
        "{text}"
    );
    let report = says_json(&["config", "check", path]);
    assert_eq!(report["options"][0]["key"], "execution.checkpointing.interval");
    assert_eq!(report["options"][0]["value"], 10_000);
    assert_eq!(report["options"][0]["origin"]["line"], 3);
    assert_eq!(report["warnings"][0]["line"], 4);

    fs::write(&file, "\nexecution.checkpointing.interval: 9\n").unwrap();
    let why =
        format!("error: {path}: line 2: execution.checkpointing.interval: the checkpoint interval");
    refused(&["config", "check", path], 2, &why);
    fs::write(&file, [0xff, 0xfe]).unwrap();
    refused(&["config", "check", path, "--json"], 2, "is not UTF-8 text");
    refused(&["config", "check", "/nowhere/config.yaml"], 2, "cannot read /nowhere/config.yaml");
    refused(&["config", "check"], 2, "FILE");
}

/// Two completions and a job that fails, in a policy that is given whole.
const CASES: &str = concat!(
    r#"{"case": "slow", "config": {"interval_ms": 1000, "min_pause_ms": 800, "timeout_ms": 5000, "#,
    r#""max_concurrent": 1, "tolerable_failures": null, "unaligned": false}, "#,
    r#""first_trigger_ms": 500, "until_ms": 2600, "attempts": [{"ms": 900, "outcome": "complete"}], "#,
    r#""requests": [{"at_ms": 700, "kind": "savepoint"}]}"#,
    "\n\n",
    r#"{"case": "fails", "config": {"interval_ms": 100}, "attempts": [{"ms": 20, "outcome": "decline"}]}"#,
    "\n",
);

fn simulated_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn simulate_plays_every_case_and_prints_a_timeline() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cases.jsonl");
    fs::write(&file, CASES).unwrap();
    let text = says(&["simulate", file.to_str().unwrap()]);
    let (slow, fails) = text.split_once("\n\ncase fails, 6000 ms\n").unwrap();
    let expected = "\
case slow, 2600 ms
  policy: period 1000 ms from 500 ms on, pause 800 ms, timeout 5000 ms, 1 at once, any number of \
tolerable failures, aligned

  TIME MS  EVENT       ID  KIND        REASON
      500  triggered    1  periodic
      700  triggered    2  savepoint
     1400  completed    1
     1600  completed    2
     1600  rejected        periodic    minimum_time_between_checkpoints
     2400  triggered    3  periodic

  checkpoints: 3 triggered, 2 completed, 0 declined, 0 expired, 0 subsumed
  rejected: 1 request by minimum_time_between_checkpoints
  longest gap between two completions: 200 ms
  job: survived";
    assert_eq!(slow, expected);
    let ends = ["100  triggered    1  periodic\n", "120  declined     1\n", "120  job failed\n"];
    assert!(ends.iter().all(|line| fails.contains(line)), "{fails}");
    assert!(
        fails.ends_with("longest gap between two completions: none\n  job: failed\n"),
        "{fails}"
    );
}

#[test]
fn simulate_prints_lines_of_json_that_can_be_fed_back_in() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cases.jsonl");
    fs::write(&file, CASES).unwrap();
    let first = says(&["simulate", file.to_str().unwrap(), "--json"]);
    let lines = simulated_lines(&first);
    let mut slow: Value = serde_json::from_str(CASES.lines().next().unwrap()).unwrap();
    slow["events"] = json!([
        { "at_ms": 500, "event": "triggered", "id": 1, "kind": "periodic" },
        { "at_ms": 700, "event": "triggered", "id": 2, "kind": "savepoint" },
        { "at_ms": 1400, "event": "completed", "id": 1 },
        { "at_ms": 1600, "event": "completed", "id": 2 },
        {
            "at_ms": 1600,
            "event": "rejected",
            "kind": "periodic",
            "reason": "minimum_time_between_checkpoints",
        },
        { "at_ms": 2400, "event": "triggered", "id": 3, "kind": "periodic" },
    ]);
    slow["summary"] = json!({
        "checkpoints": { "triggered": 3, "completed": 2, "declined": 0, "expired": 0, "subsumed": 0 },
        "rejections": { "minimum_time_between_checkpoints": 1 },
        "longest_gap_ms": 200,
        "job_failed": false,
    });
    assert_eq!(lines[0], slow);
    let fails = &lines[1];
    let defaults = json!({
        "interval_ms": 100,
        "min_pause_ms": 0,
        "timeout_ms": 600_000,
        "max_concurrent": 1,
        "tolerable_failures": 0,
        "unaligned": false,
    });
    assert_eq!((&fails["config"], &fails["requests"]), (&defaults, &json!([])));
    assert_eq!((&fails["first_trigger_ms"], &fails["until_ms"]), (&json!(100), &json!(6000)));
    assert_eq!(fails["events"][2], json!({ "at_ms": 120, "event": "job_failed" }));
    assert_eq!(fails["summary"]["job_failed"], true);

    let mut child = start_with(&["simulate", "-", "--json"], Stdio::piped());
    child.stdin.take().unwrap().write_all(first.as_bytes()).unwrap();
    let again = answer(child);
    assert_eq!((again.code, again.out, again.err.as_str()), (Some(0), first, ""));
}

#[test]
fn simulate_refuses_what_it_does_not_know_and_prints_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cases.jsonl");
    let path = file.to_str().unwrap();
    for (from, to, why) in [
        ("\"case\": \"fails\"", "\"cases\": 1", "line 3: unknown field `cases`"),
        (
            "\"interval_ms\": 100}",
            "\"intervall_ms\": 1}",
            "line 3: config: unknown field `intervall_ms`",
        ),
        ("100}", "100, \"unaligned\": 1}", "line 3: config: unaligned: invalid type: integer `1`"),
        ("{\"ms\": 20, \"outcome\": \"decline\"}", "", "line 3: attempts: is empty"),
        ("\"decline\"}]}", "\"decline\"}]", "line 3: EOF while parsing an object"),
        (
            "\"fails\"",
            "\"fails\", \"until_ms\": 100000100",
            "line 3: until_ms: the timer would fire",
        ),
    ] {
        let wrong = CASES.replacen(from, to, 1);
        assert_ne!(wrong, CASES);
        fs::write(&file, wrong).unwrap();
        for arguments in [&["simulate", path][..], &["simulate", path, "--json"]] {
            refused(arguments, 2, &format!("error: {path}: {why}"));
        }
    }
    fs::write(&file, "\n").unwrap();
    refused(&["simulate", path], 2, "there is no case");
    refused(&["simulate", "-"], 2, "standard input: there is no case");
    refused(&["simulate", "/nowhere/cases"], 2, "cannot open /nowhere/cases");
    refused(&["simulate", dir.path().to_str().unwrap()], 2, "cannot read the cases");
    refused(&["simulate"], 2, "<FILE>");
}
