//! Goal: the example keeps its contract whatever happens to its process. Method: run it as a child,
//! kill it at random moments, start it again, and compare the outputs byte for byte with a count
//! made apart from it; then give it every wrong input that a user may.
//!
//! `TIDEGATE_KILLS=100` makes the rounds longer: that many kills for each storage, over several
//! megabytes. `TIDEGATE_SEED` repeats a run's random choices as far as the machine's timing allows.
#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::panic, reason = "what goes wrong here fails the test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tidegate::config::CheckpointConfig;
use tidegate::local::{Flow, Job, JobEnd, Next, Output, Source};
use tidegate::storage::SledCheckpointStorage;

#[path = "word_count/modes.rs"]
mod modes;
#[path = "word_count/restoring.rs"]
mod restoring;
#[path = "word_count/storages.rs"]
mod storages;
mod support;

use support::child::{self, Run};
use support::corpus;
use support::count::{self, assert_same};
use support::random::Random;

/// Kills for each storage unless the environment asks for more; there are four.
const KILLS: u64 = 14;

/// Kills of one run before it is left to finish.
const KILLS_OF_A_RUN: u64 = 5;

#[test]
fn outputs_are_exact_after_any_number_of_kills_in_the_log() {
    outputs_are_exact_after_kills("split", |_| ["--placement".into(), "split".into()]);
}

#[test]
fn outputs_are_exact_after_any_number_of_kills_in_sled() {
    outputs_are_exact_after_kills("sled", |_| ["--placement".into(), "sled".into()]);
}

fn outputs_are_exact_after_kills(name: &str, place: impl Fn(&Path) -> [String; 2]) {
    let asked = number_from("TIDEGATE_KILLS");
    let target = asked.unwrap_or(KILLS);
    let bytes = if asked.is_some() { 4_000_000 } else { 600_000 };
    let dir = dir();
    let inputs = corpus::write(dir.path(), bytes, 1);
    let expected = count::expected(&inputs);
    let rate = expected.lines.len() / 4;
    let seed = number_from("TIDEGATE_SEED").unwrap_or(7);
    let mut random = Random::new(seed ^ name.len() as u64);

    let (mut kills, mut restores, mut rounds) = (0, 0, 0);
    while kills < target {
        let round = dir.path().join(format!("round-{rounds}"));
        fs::create_dir(&round).unwrap();
        let [option, value] = place(&round);
        let paced = ["--interval", "20ms", "--rate", &rate.to_string()];
        let run = Run::new(&round, &inputs).with(&[&option, &value]).with(&paced);
        let (killed, found) = kill_and_resume(&run, &round, &mut random, target - kills);
        kills += killed;
        restores += found;
        rounds += 1;
        assert_same(&count::found(&run.output), &expected);
        fs::remove_dir_all(&round).unwrap();
        assert!(rounds < 20 + target, "runs end before they are killed");
    }
    println!("{name}: {kills} kills over {rounds} runs, {restores} restores (seed {seed})");
    assert!(restores > kills / 4, "few starts found a checkpoint");
}

/// Gives back how often it killed the run and how many starts restored a checkpoint.
fn kill_and_resume(run: &Run, dir: &Path, random: &mut Random, at_most: u64) -> (u64, u64) {
    let (mut kills, mut restores) = (0, 0);
    let log = dir.join("log");
    loop {
        let mut process = run.start(&log);
        let is_last = kills == at_most.min(KILLS_OF_A_RUN);
        let ended = if is_last {
            process.wait(Duration::from_secs(60))
        } else {
            wait_for_a_random_moment(&mut process, run, random)
        };
        if ended.is_none() {
            process.kill();
        }
        let text = child::read(&log);
        assert!(!text.contains("panicked"), "{text}");
        restores += u64::from(text.contains("restored checkpoint"));
        match ended {
            None if is_last => panic!("it does not end:\n{text}"),
            None => kills += 1,
            Some(status) => {
                assert_eq!(status.code(), Some(0), "{text}");
                return (kills, restores);
            }
        }
    }
}

/// Every third moment lies in the opening of the store and the restore, the others after this
/// process committed something, so that runs get on however slow the machine is.
fn wait_for_a_random_moment(
    process: &mut child::Process,
    run: &Run,
    random: &mut Random,
) -> Option<ExitStatus> {
    if random.below(3) == 0 {
        return process.wait(Duration::from_millis(random.below(100)));
    }
    let before = count::committed_files(&run.output);
    let committed = || count::committed_files(&run.output) > before;
    let ended = process.wait_until(committed, Duration::from_secs(30));
    ended.or_else(|| process.wait(Duration::from_millis(random.below(200))))
}

#[test]
fn a_finished_run_says_so_and_touches_nothing() {
    for placement in ["split", "sled"] {
        let (dir, inputs) = small_corpus();
        let run = Run::new(dir.path(), &inputs).with(&["--placement", placement]);
        let first = run.finish();
        assert_eq!(first.code, Some(0), "{}", first.text);
        assert_same(&count::found(&run.output), &count::expected(&inputs));

        let before = [contents(&run.state), contents(&run.output)];
        let second = run.finish();
        assert_eq!(second.code, Some(0), "{}", second.text);
        assert!(second.text.contains("finished"), "{}", second.text);
        let after = [contents(&run.state), contents(&run.output)];
        assert!(before == after, "{placement}: something was touched");
    }
}

#[test]
fn fresh_counts_again_and_gives_the_same() {
    let (dir, inputs) = small_corpus();
    let run = Run::new(dir.path(), &inputs);
    let first = run.finish();
    assert_eq!(first.code, Some(0), "{}", first.text);
    let again = Run::new(dir.path(), &inputs).with(&["--fresh"]).finish();
    assert_eq!(again.code, Some(0), "{}", again.text);
    assert!(last_checkpoint(&again) > last_checkpoint(&first), "{}", again.text);
    assert_same(&count::found(&run.output), &count::expected(&inputs));
}

#[test]
fn output_whose_state_is_gone_is_refused_and_a_fresh_run_replaces_it() {
    let (dir, inputs) = small_corpus();
    let run = Run::new(dir.path(), &inputs);
    assert_eq!(run.finish().code, Some(0));
    std::fs::remove_dir_all(&run.state).unwrap();
    let refused = Run::new(dir.path(), &inputs).finish();
    assert_eq!(refused.code, Some(1), "{}", refused.text);
    assert!(refused.text.contains("part-"), "{}", refused.text);
    let fresh = Run::new(dir.path(), &inputs).with(&["--fresh"]).finish();
    assert_eq!(fresh.code, Some(0), "{}", fresh.text);
    assert_same(&count::found(&run.output), &count::expected(&inputs));
}

#[test]
fn a_fresh_run_that_is_killed_goes_on_as_the_fresh_one() {
    let (dir, inputs) = small_corpus();
    let log = dir.path().join("log");
    let slow = ["--rate", "2000", "--interval", "20ms"];
    let run = Run::new(dir.path(), &inputs).with(&slow);
    kill_after(&run, &log, Duration::from_millis(400));
    let fresh = Run::new(dir.path(), &inputs).with(&slow).with(&["--fresh"]);
    for delay in [20, 60, 250] {
        kill_after(&fresh, &log, Duration::from_millis(delay));
    }
    let last = Run::new(dir.path(), &inputs).finish();
    assert_eq!(last.code, Some(0), "{}", last.text);
    assert_same(&count::found(&run.output), &count::expected(&inputs));
}

#[test]
fn a_signal_takes_one_last_checkpoint_and_sets_the_exit_code() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let (dir, inputs) = small_corpus();
        let log = dir.path().join("log");
        // No periodic checkpoint comes in time: what is restored is the last one.
        let run = Run::new(dir.path(), &inputs).with(&["--rate", "500", "--interval", "1h"]);
        let mut process = start(&run, &log, Duration::from_millis(800));
        process.signal(signal);
        let ended = process.wait(Duration::from_secs(20)).and_then(|status| status.code());
        assert_eq!(ended, Some(code), "{}", child::read(&log));

        let last = Run::new(dir.path(), &inputs).finish();
        assert_eq!(last.code, Some(0), "{}", last.text);
        assert!(last.text.contains("restored checkpoint"), "{}", last.text);
        assert_same(&count::found(&run.output), &count::expected(&inputs));
    }
}

#[test]
fn another_rate_and_interval_may_go_on_with_a_saved_run() {
    let (dir, inputs) = small_corpus();
    stopped_run(&dir, &inputs);
    let last = Run::new(dir.path(), &inputs).with(&["--rate", "9999", "--interval", "1s"]).finish();
    assert_eq!(last.code, Some(0), "{}", last.text);
    assert_same(&count::found(&dir.path().join("output")), &count::expected(&inputs));
}

#[test]
fn other_input_is_refused_and_loses_nothing() {
    let (dir, inputs) = small_corpus();
    changes_are_refused(&dir, &inputs, &[]);
}

fn changes_are_refused(dir: &TempDir, inputs: &[PathBuf], place: &[&str]) {
    let first = inputs.first().unwrap();
    let run = stopped_run_in(dir, inputs, place);
    let expected = count::expected(inputs);

    let fewer = Run::new(dir.path(), inputs.get(1..).unwrap()).with(place).finish();
    refused(&fewer, 1, "files");
    let mut swapped = inputs.to_vec();
    swapped.swap(0, 1);
    refused(&Run::new(dir.path(), &swapped).with(place).finish(), 1, "file 0");
    let kept = fs::read(first).unwrap();
    fs::write(first, b"something else\n").unwrap();
    refused(&run.finish(), 1, "file 0");
    fs::write(first, kept).unwrap();

    let last = run.finish();
    assert_eq!(last.code, Some(0), "{}", last.text);
    assert_same(&count::found(&run.output), &expected);
}

#[test]
fn outputs_are_exact_when_a_killed_run_goes_on_with_another_parallelism() {
    for mode in [&["--interval", "20ms"][..], &["--interval", "20ms", "--unaligned"]] {
        let dir = dir();
        let inputs = corpus::write(dir.path(), 600_000, 1);
        let expected = count::expected(&inputs);
        let rate = (expected.lines.len() / 4).to_string();
        let run = |parallelism| {
            let run =
                Run::new(dir.path(), &inputs).with(mode).with(&["--parallelism", parallelism]);
            if parallelism == "1" { run } else { run.with(&["--rate", &rate]) }
        };
        let log = dir.path().join("log");
        kill_after_a_commit(&run("2"), &log);
        kill_after_a_commit(&run("3"), &log);
        assert!(child::read(&log).contains("restored checkpoint"), "{}", child::read(&log));
        let last = run("1").finish();
        assert_eq!(last.code, Some(0), "{}", last.text);
        assert!(last.text.contains("restored checkpoint"), "{}", last.text);
        assert_same(&count::found(&dir.path().join("output")), &expected);
    }
}

#[test]
fn empty_input_gives_empty_outputs() {
    let dir = dir();
    let empty = dir.path().join("empty");
    fs::write(&empty, b"").unwrap();
    let run = Run::new(dir.path(), &[empty]);
    let ended = run.finish();
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    let found = count::found(&run.output);
    assert!(found.counts.is_empty() && found.lines.is_empty());
}

#[test]
fn lines_and_words_of_sixteen_megabytes_are_counted_and_longer_ones_refused() {
    let dir = dir();
    let longest = dir.path().join("longest");
    let mut bytes = vec![b'w'; 16 * 1024 * 1024];
    bytes.extend_from_slice(b"\nend\n");
    fs::write(&longest, &bytes).unwrap();
    let run = Run::new(dir.path(), std::slice::from_ref(&longest)).with(&["--interval", "50ms"]);
    let ended = run.finish();
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    assert_same(&count::found(&run.output), &count::expected(std::slice::from_ref(&longest)));

    bytes.insert(0, b'w');
    fs::write(&longest, &bytes).unwrap();
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    refused(&Run::new(&other, &[longest]).finish(), 2, "16777216");
}

#[test]
fn input_that_cannot_be_read_is_refused_before_anything_is_made() {
    let dir = dir();
    for (input, says) in [
        (dir.path().join("missing"), "missing"),
        (dir.path().to_path_buf(), "directory"),
        (PathBuf::from("/dev/null"), "regular file"),
    ] {
        let run = Run::new(dir.path(), &[input]);
        refused(&run.finish(), 2, says);
        assert!(!run.state.exists() && !run.output.exists(), "{says}");
    }
}

#[test]
fn without_arguments_the_files_of_the_crate_are_read_over_ten_checkpoints_or_more() {
    let dir = dir();
    let run = Run::new(dir.path(), &[]);
    let ended = run.finish();
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    let files = corpus::files_of_the_crate();
    assert!(files.len() > 10);
    assert_same(&count::found(&run.output), &count::expected(&files));
    assert!(last_checkpoint(&ended) >= 10, "{}", ended.text);
    for says in ["kill -9", "go on:"] {
        assert!(ended.text.contains(says), "{says:?} is not in:\n{}", ended.text);
    }
}

#[test]
fn a_store_keeps_its_placement() {
    let (dir, inputs) = small_corpus();
    stopped_run(&dir, &inputs);
    let other = Run::new(dir.path(), &inputs).with(&["--placement", "sled"]).finish();
    refused(&other, 1, "placement");
    assert_eq!(Run::new(dir.path(), &inputs).finish().code, Some(0));
}

#[test]
fn an_output_that_is_no_directory_is_refused() {
    let (dir, inputs) = small_corpus();
    let mut run = Run::new(dir.path(), &inputs);
    run.output = inputs.first().unwrap().clone();
    let before = fs::read(&run.output).unwrap();
    refused(&run.finish(), 1, &child::text(&run.output));
    assert!(fs::read(&run.output).unwrap() == before);
}

#[test]
fn an_output_of_another_run_is_refused_and_kept() {
    let (dir, inputs) = small_corpus();
    let first = Run::new(dir.path(), &inputs);
    assert_eq!(first.finish().code, Some(0));
    let mut second = Run::new(dir.path(), &inputs);
    second.state = dir.path().join("another-state");
    refused(&second.finish(), 1, &child::text(&first.output));
    assert_same(&count::found(&first.output), &count::expected(&inputs));
}

#[test]
fn the_state_directory_of_another_job_is_refused_and_kept() {
    let (dir, inputs) = small_corpus();
    let run = Run::new(dir.path(), &inputs);
    run_another_job(&run.state);
    let before = contents(&run.state);
    refused(&run.finish(), 1, "another_job");
    assert!(before == contents(&run.state), "something was touched");
}

/// A job of one number, to its end.
fn run_another_job(state: &Path) {
    let flow = Flow::new();
    let numbers = flow.source("numbers", vec![OneNumber { done: false }]).unwrap();
    numbers
        .key_by(|number| *number)
        .process("sum", 1, |scope| {
            let sums = scope.keyed_map::<u64, u64>("sums")?;
            Ok(move |number: u64, _: &mut Output<()>| sums.update(&number, |sum| *sum += number))
        })
        .unwrap();
    let config = CheckpointConfig::new().build().unwrap();
    let storage = Arc::new(SledCheckpointStorage::new(state));
    let job = Job::builder("another_job", flow, config, storage).build().unwrap();
    assert!(matches!(job.run().unwrap(), JobEnd::Finished(_)));
}

struct OneNumber {
    done: bool,
}

impl Source for OneNumber {
    type Item = u64;
    type Position = bool;

    fn position(&self) -> bool {
        self.done
    }

    fn seek(&mut self, done: bool) -> tidegate::Result<()> {
        self.done = done;
        Ok(())
    }

    fn next(&mut self) -> tidegate::Result<Next<u64>> {
        let done = std::mem::replace(&mut self.done, true);
        Ok(if done { Next::End } else { Next::Item(1) })
    }
}

#[test]
fn wrong_arguments_are_refused_with_code_two() {
    for arguments in [
        ["--parallelism", "0"],
        ["--parallelism", "-1"],
        ["--interval", "fast"],
        ["--interval", "1ms"],
        ["--interval", "99999999999999999999s"],
        ["--rate", "0"],
        ["--placement", "ram"],
        ["--unknown", "x"],
        ["word", "count"],
    ] {
        let ended = child::run("word_count", &arguments);
        refused(&ended, 2, "error");
    }
    let help = child::run("word_count", &["--help"]);
    assert_eq!(help.code, Some(0), "{}", help.text);
}

#[test]
fn a_state_that_is_no_directory_is_refused() {
    let (dir, inputs) = small_corpus();
    let first = inputs.first().unwrap();
    let mut run = Run::new(dir.path(), &inputs);
    run.state = first.clone();
    let before = fs::read(first).unwrap();
    refused(&run.finish(), 1, &child::text(&run.state));
    assert!(fs::read(first).unwrap() == before);
}

#[test]
fn a_state_directory_that_cannot_be_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, inputs) = small_corpus();
    let run = stopped_run(&dir, &inputs);
    let mode = |bits| fs::set_permissions(&run.state, fs::Permissions::from_mode(bits)).unwrap();
    mode(0);
    if fs::read_dir(&run.state).is_ok() {
        mode(0o700);
        println!("skipped: permissions do not bind this user");
        return;
    }
    let ended = run.finish();
    mode(0o700);
    refused(&ended, 1, &child::text(&run.state));
    assert_eq!(run.finish().code, Some(0));
}

#[test]
fn a_state_directory_in_use_is_refused() {
    let (dir, inputs) = small_corpus();
    let log = dir.path().join("log");
    let run = Run::new(dir.path(), &inputs).with(&["--rate", "500", "--interval", "20ms"]);
    let mut process = start(&run, &log, Duration::from_millis(500));
    refused(&run.finish(), 1, "");
    process.kill();
    let last = Run::new(dir.path(), &inputs).finish();
    assert_eq!(last.code, Some(0), "{}", last.text);
    assert_same(&count::found(&run.output), &count::expected(&inputs));
}

/// A run that was killed after its first checkpoints.
fn stopped_run(dir: &TempDir, inputs: &[PathBuf]) -> Run {
    stopped_run_in(dir, inputs, &[])
}

fn stopped_run_in(dir: &TempDir, inputs: &[PathBuf], place: &[&str]) -> Run {
    let log = dir.path().join("log");
    let run = || Run::new(dir.path(), inputs).with(place);
    let slow = run().with(&["--rate", "2000", "--interval", "20ms"]);
    kill_after(&slow, &log, Duration::from_millis(700));
    run()
}

fn kill_after(run: &Run, log: &Path, delay: Duration) {
    let mut process = start(run, log, delay);
    process.kill();
}

/// What is committed is in a completed checkpoint.
fn kill_after_a_commit(run: &Run, log: &Path) {
    let before = count::committed_files(&run.output);
    let mut process = run.start(log);
    let committed = || count::committed_files(&run.output) > before;
    let ended = process.wait_until(committed, Duration::from_secs(30));
    assert!(ended.is_none(), "it ended too early:\n{}", child::read(log));
    process.kill();
}

/// A process that runs for that long already.
fn start(run: &Run, log: &Path, delay: Duration) -> child::Process {
    let mut process = run.start(log);
    assert!(process.wait(delay).is_none(), "it ended too early:\n{}", child::read(log));
    process
}

/// The number that a finished run names.
fn last_checkpoint(ended: &child::Ended) -> u64 {
    let (_, after) = ended.text.split_once("finished with checkpoint ").unwrap();
    let digits = after.split(|c: char| !c.is_ascii_digit()).next().unwrap();
    digits.parse().unwrap()
}

fn refused(ended: &child::Ended, code: i32, says: &str) {
    assert_eq!(ended.code, Some(code), "{}", ended.text);
    assert!(ended.text.contains(says), "{says:?} is not in:\n{}", ended.text);
    assert!(ended.text.contains("error"), "{}", ended.text);
    assert!(!ended.text.contains("panicked"), "{}", ended.text);
}

fn small_corpus() -> (TempDir, Vec<PathBuf>) {
    let dir = dir();
    let inputs = corpus::write(dir.path(), 200_000, 3);
    (dir, inputs)
}

fn dir() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Every file below a directory with its content and time of change.
fn contents(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            if meta.is_dir() {
                open.push(entry.path());
            }
            let content = if meta.is_dir() { Vec::new() } else { fs::read(entry.path()).unwrap() };
            found.insert(entry.path(), (content, meta.modified().unwrap()));
        }
    }
    found
}

fn number_from(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}={value} is no number")))
}
