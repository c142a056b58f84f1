//! Goal: a start goes on from what its policy says, whatever happened to the newest checkpoint. Method:
//! runs are killed, what they saved is damaged on disk or put out of reach, and the next start is judged
//! by its report, its exit code and its outputs.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use tidegate::CheckpointId;
use tidegate::inspect::{Inspector, saved_jobs};
use tidegate::state::SectionKind;

use super::support::child::{self, Ended, Run};
use super::support::count::{self, assert_same};
use super::support::damage::damage_newest;
use super::{corpus, dir, refused, small_corpus};

const PATIENCE: Duration = Duration::from_secs(60);

/// More than the failures after which a checkpoint is set aside.
const KILLS_IN_A_ROW: u64 = 8;

#[test]
fn kills_before_a_newer_checkpoint_completes_set_nothing_aside() {
    let (dir, inputs) = small_corpus();
    let run = killed_run(&dir, &inputs, 4);
    let (newest, log) = (newest(&run), dir.path().join("log"));
    let slow = Run::new(dir.path(), &inputs).with(&["--rate", "500", "--interval", "1h"]);
    for kill in 0..KILLS_IN_A_ROW {
        let mut process = slow.start(&log);
        let has_restored = || child::read(&log).contains("restored checkpoint");
        assert!(process.wait_until(has_restored, PATIENCE).is_none(), "{}", child::read(&log));
        // While state is read, and later among the records.
        assert!(process.wait(Duration::from_millis(kill * 15)).is_none());
        process.kill();
        assert_eq!(restored(&child::read(&log)), [newest]);
        assert_eq!(suspects(&run), []);
    }
    let last = run.finish();
    assert_eq!((last.code, &restored(&last.text)[..]), (Some(0), &[newest][..]), "{}", last.text);
    assert!(!last.text.contains("passed over"), "{}", last.text);
    assert_same(&count::found(&run.output), &count::expected(&inputs));
}

#[test]
fn a_damaged_newest_checkpoint_is_passed_over_and_what_was_committed_after_the_older_is_undone() {
    let (dir, inputs) = corpus_of_chunks();
    let run = killed_run(&dir, &inputs, 8);
    commit_newest(&run, &dir, &inputs);
    let [damaged, older] = damage_newest(&run.state, "count");
    let of_damaged = lines_of(&run, damaged);
    assert!(!of_damaged.is_empty());

    // A process that is killed on its way back leaves the next one the same way.
    let (slow, log) = (slow_run(&dir, &inputs), dir.path().join("log"));
    let mut process = slow.start(&log);
    let has_gone_back = || child::read(&log).contains("passed over");
    assert!(process.wait_until(has_gone_back, PATIENCE).is_none(), "{}", child::read(&log));
    process.kill();
    let first = child::read(&log);
    assert_eq!(restored(&first), [damaged, older], "{first}");
    let reason = format!("passed over checkpoint {damaged}: task count/");
    assert!(first.contains(&reason), "{first}");
    let [(suspect, why)] = &suspects(&run)[..] else { panic!("{:?}", suspects(&run)) };
    assert!(*suspect == damaged && why.starts_with("task count/"), "{why}");

    let last = run.finish();
    assert_eq!(last.code, Some(0), "{}", last.text);
    assert_eq!(restored(&last.text), [older], "{}", last.text);
    assert!(last.text.contains(&reason), "{}", last.text);
    assert!(lines_of(&run, damaged).is_disjoint(&of_damaged), "they are still there");
    assert_same(&count::found(&run.output), &count::expected(&inputs));
}

#[test]
fn latest_and_a_number_refuse_a_damaged_checkpoint_by_name_and_set_nothing_aside() {
    let (dir, inputs) = corpus_of_chunks();
    let run = killed_run(&dir, &inputs, 8);
    let [damaged, older] = damage_newest(&run.state, "count");
    let restore = |what: &str| Run::new(dir.path(), &inputs).with(&["--restore", what]).finish();
    for what in ["latest", &damaged.to_string()] {
        let ended = restore(what);
        refused(&ended, 1, "error: ");
        let error = error_of(&ended);
        assert!(error.contains(&format!("checkpoint {damaged}")), "{what}: {error}");
        assert!(error.contains("task count/"), "{what}: {error}");
        assert_eq!(suspects(&run), [], "{what}");
        assert_eq!(newest(&run), damaged);
    }
    let last = restore(&older.to_string());
    assert_eq!(last.code, Some(0), "{}", last.text);
    assert_eq!(restored(&last.text), [older], "{}", last.text);
    let go_on = last.text.lines().find(|line| line.contains("go on:")).unwrap();
    assert!(!go_on.contains("--restore"), "it would go back once more: {go_on}");
    assert_same(&count::found(&run.output), &count::expected(&inputs));
}

#[test]
fn an_older_checkpoint_by_its_number_undoes_what_came_after_it() {
    let (dir, inputs) = small_corpus();
    let run = killed_run(&dir, &inputs, 12);
    let list = Inspector::open(&run.state).unwrap().list(None).unwrap();
    let ids: Vec<_> = list.jobs.first().unwrap().checkpoints.iter().map(|one| one.id).collect();
    let [oldest, .., newest] = ids[..] else { panic!("{ids:?}") };
    let missing = newest.0 + 100;
    let ended = Run::new(dir.path(), &inputs).with(&["--restore", &missing.to_string()]).finish();
    refused(&ended, 1, &format!("no completed checkpoint {missing}"));

    let back = Run::new(dir.path(), &inputs).with(&["--restore", &oldest.to_string()]).finish();
    assert_eq!(back.code, Some(0), "{}", back.text);
    assert_eq!(restored(&back.text), [oldest], "{}", back.text);
    assert_same(&count::found(&run.output), &count::expected(&inputs));
}

#[test]
fn a_wrong_policy_is_refused_with_code_two() {
    let dir = dir();
    for (policy, says) in [
        (&["--restore", "newest"][..], "latest, fallback, fresh or a number"),
        (&["--restore", ""], "latest, fallback, fresh or a number"),
        (&["--restore", "-1"], "error"),
        (&["--restore", "latest", "--fresh"], "--fresh"),
    ] {
        refused(&Run::new(dir.path(), &[]).with(policy).finish(), 2, says);
    }
}

#[test]
fn restore_fresh_starts_over() {
    let (dir, inputs) = small_corpus();
    let run = killed_run(&dir, &inputs, 4);
    let fresh = Run::new(dir.path(), &inputs).with(&["--restore", "fresh"]).finish();
    assert_eq!(fresh.code, Some(0), "{}", fresh.text);
    assert_eq!(restored(&fresh.text), [], "{}", fresh.text);
    assert_same(&count::found(&run.output), &count::expected(&inputs));
}

#[test]
fn a_store_out_of_reach_fails_the_start_and_nothing_is_set_aside() {
    let (dir, inputs) = small_corpus();
    let run = killed_run(&dir, &inputs, 4);
    let (newest, away) = (newest(&run), dir.path().join("away"));
    // A path under a file, which root cannot read either; then a store whose log is not there.
    let of_store = [run.state.clone(), run.state.join("log")];
    for path in of_store {
        fs::rename(&path, &away).unwrap();
        fs::write(&path, b"no directory").unwrap();
        for policy in ["fallback", "latest"] {
            let ended = Run::new(dir.path(), &inputs).with(&["--restore", policy]).finish();
            refused(&ended, 1, &child::text(&run.state));
        }
        fs::remove_file(&path).unwrap();
        fs::rename(&away, &path).unwrap();
        assert_eq!(suspects(&run), []);
    }
    let last = run.finish();
    assert_eq!((last.code, &restored(&last.text)[..]), (Some(0), &[newest][..]), "{}", last.text);
    assert_same(&count::found(&run.output), &count::expected(&inputs));
}

#[test]
fn a_checkpoint_writes_what_changed_and_is_restored_from_its_base_and_its_deltas() {
    let dir = dir();
    let input = dir.path().join("words");
    // Many words that are never seen again, in few lines; then few words, in many lines.
    let mut text = String::new();
    for number in 1..=60_000 {
        let end = if number % 1000 == 0 { "\n" } else { " " };
        write!(text, "word{number}{end}").unwrap();
    }
    text.push_str(&"a few words again\n".repeat(20_000));
    fs::write(&input, text).unwrap();
    let inputs = [input];
    let log = dir.path().join("log");
    let paced = ["--parallelism", "1", "--interval", "50ms", "--rate", "2000"];
    let mut process = Run::new(dir.path(), &inputs).with(&paced).start(&log);
    let has_said = || written(&child::read(&log)).is_some();
    assert!(process.wait_until(has_said, PATIENCE).is_none(), "{}", child::read(&log));
    process.kill();

    let (written, all) = written(&child::read(&log)).unwrap();
    println!("{written} of {all} bytes written");
    assert!(all > 1_000_000 && written * 5 < all, "{written} of {all}");
    let run = Run::new(dir.path(), &inputs).with(&["--parallelism", "1"]);
    let shown = Inspector::open(&run.state).unwrap().show(None, None).unwrap();
    let count = shown.operators.iter().find(|operator| operator.uid.as_str() == "count").unwrap();
    let bytes = |kind| -> u64 {
        let sections = count.subtasks.iter().flat_map(|task| &task.sections);
        sections.filter(|section| section.kind == kind).map(|section| section.size).sum()
    };
    let [base, deltas] = [SectionKind::Keyed, SectionKind::KeyedDelta].map(bytes);
    println!("base {base}, deltas {deltas}");
    assert!(deltas > 0 && deltas * 2 < base, "base {base}, deltas {deltas}");

    let last = run.finish();
    assert_eq!(last.code, Some(0), "{}", last.text);
    assert_eq!(restored(&last.text), [shown.summary.id], "{}", last.text);
    assert_same(&count::found(&run.output), &count::expected(&inputs));
}

/// Files of which each checkpoint brings so many new words that the changes lie in chunks.
fn corpus_of_chunks() -> (TempDir, Vec<PathBuf>) {
    let dir = dir();
    let inputs = corpus::write(dir.path(), 1_600_000, 9);
    (dir, inputs)
}

/// A run that was killed once it had committed so many files; to be gone on with.
fn killed_run(dir: &TempDir, inputs: &[PathBuf], files: usize) -> Run {
    let log = dir.path().join("log");
    let paced = ["--rate", "4000", "--interval", "100ms"];
    let run = Run::new(dir.path(), inputs).with(&paced);
    let mut process = run.start(&log);
    let has_committed = || count::committed_files(&run.output) >= files;
    let ended = process.wait_until(has_committed, PATIENCE);
    assert!(ended.is_none(), "it ended too early:\n{}", child::read(&log));
    process.kill();
    Run::new(dir.path(), inputs)
}

/// The same without a checkpoint of its own, for long enough.
fn slow_run(dir: &TempDir, inputs: &[PathBuf]) -> Run {
    Run::new(dir.path(), inputs).with(&["--rate", "500", "--interval", "1h"])
}

/// Sees to it that the sink has committed what the newest checkpoint holds; a restore does.
fn commit_newest(run: &Run, dir: &TempDir, inputs: &[PathBuf]) {
    let (newest, log) = (newest(run), dir.path().join("log"));
    let mut process = slow_run(dir, inputs).start(&log);
    let has_committed = || !lines_of(run, newest).is_empty();
    assert!(process.wait_until(has_committed, PATIENCE).is_none(), "{}", child::read(&log));
    process.kill();
}

/// The files that were committed with this checkpoint.
fn lines_of(run: &Run, id: CheckpointId) -> BTreeSet<PathBuf> {
    let files = fs::read_dir(run.output.join("lines")).unwrap().map(|entry| entry.unwrap().path());
    let of_checkpoint = format!("-{id}");
    let is_of = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("part-") && name.ends_with(&of_checkpoint)
    };
    files.filter(is_of).collect()
}

fn newest(run: &Run) -> CheckpointId {
    let saved = saved_jobs(&run.state).unwrap();
    saved.first().unwrap().newest.as_ref().unwrap().id
}

/// What was set aside, and why.
fn suspects(run: &Run) -> Vec<(CheckpointId, String)> {
    let list = Inspector::open(&run.state).unwrap().list(None).unwrap();
    let checkpoints = list.jobs.into_iter().flat_map(|job| job.checkpoints);
    checkpoints.filter_map(|one| one.suspect.map(|why| (one.id, why))).collect()
}

/// The checkpoints that a process says it restored, in order.
fn restored(text: &str) -> Vec<CheckpointId> {
    number_after(text, "restored checkpoint ").map(CheckpointId).collect()
}

fn number_after<'a>(text: &'a str, words: &'a str) -> impl Iterator<Item = u64> + 'a {
    text.split(words)
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap())
}

/// Bytes written for the newest checkpoint of which a process tells, and bytes of its state.
fn written(text: &str) -> Option<(u64, u64)> {
    let (before, _) = text.rsplit_once(" bytes written")?;
    let said = before.rsplit_once("with ")?.1;
    let (written, all) = said.split_once(" of ")?;
    Some((written.parse().ok()?, all.parse().ok()?))
}

fn error_of(ended: &Ended) -> &str {
    ended.text.lines().find(|line| line.starts_with("error: ")).unwrap()
}
