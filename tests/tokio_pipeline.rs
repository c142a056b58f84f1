//! Goal: an engine of tokio tasks that uses the crate's parts keeps the contract through any number of
//! kills. Method: run the example as a child, kill it at random moments, start it again, and compare its
//! outputs with what they must be, byte for byte; at least once, that nothing is missing.
//!
//! `TIDEGATE_KILLS=100` kills that often in each mode; `TIDEGATE_SEED` repeats the random choices as far
//! as the machine's timing allows.
#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::panic, reason = "what goes wrong here fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use tempfile::TempDir;
use tidegate::inspect::{Inspector, delete_checkpoint};

#[path = "support/child.rs"]
mod child;
#[path = "support/random.rs"]
#[expect(dead_code, reason = "not every test draws everything")]
mod random;

use child::Run;
use random::Random;

const EXAMPLE: &str = "tokio_pipeline";

/// Kills in each mode unless the environment asks for more.
const KILLS: u64 = 8;

/// Kills of one run before it is left to finish.
const KILLS_OF_A_RUN: u64 = 4;

/// Numbers of each source, and keys.
const RECORDS: u64 = 30_000;
const KEYS: u64 = 1_000;

#[test]
fn aligned_outputs_are_exact_after_any_number_of_kills() {
    kill_in_mode("aligned", assert_exact);
}

#[test]
fn unaligned_outputs_are_exact_after_any_number_of_kills() {
    kill_in_mode("unaligned", assert_exact);
}

#[test]
fn what_an_unaligned_cut_had_on_its_way_is_processed_after_a_restart() {
    let (dir, log) = (dir(), tempfile::NamedTempFile::new().unwrap());
    let more = 10 * RECORDS;
    // Without a rate the channels are full, whenever the signal comes.
    let run = Run::of(EXAMPLE, dir.path()).with(&[
        "--records",
        &more.to_string(),
        "--mode",
        "unaligned",
        "--interval",
        "3600s",
    ]);
    let mut process = run.start(log.path());
    let is_filling = || fs::read_dir(&run.output).is_ok_and(|mut files| files.next().is_some());
    assert!(process.wait_until(is_filling, Duration::from_secs(30)).is_none());
    process.signal("INT");
    let ended = process.wait(Duration::from_secs(20)).and_then(|status| status.code());
    assert_eq!(ended, Some(130), "{}", child::read(log.path()));

    let last = run.finish();
    assert_eq!(last.code, Some(0), "{}", last.text);
    assert!(in_flight_in(&last.text) > 0, "{}", last.text);
    assert_exact_of(&run.output, more);
}

#[test]
fn no_line_is_missing_at_least_once_after_any_number_of_kills() {
    kill_in_mode("at-least-once", assert_complete);
}

/// What starts said of themselves.
#[derive(Default)]
struct Seen {
    kills: u64,
    restores: u64,
    /// Records that were on their way in what was restored.
    in_flight: u64,
}

fn kill_in_mode(mode: &str, judge: fn(&Path)) {
    let target = number_from("TIDEGATE_KILLS").unwrap_or(KILLS);
    let seed = number_from("TIDEGATE_SEED").unwrap_or(11);
    let mut random = Random::new(seed ^ mode.len() as u64);
    let (mut found, mut rounds) = (Seen::default(), 0);
    while found.kills < target {
        let dir = dir();
        let run = run(&dir).with(&["--mode", mode, "--interval", "20ms", "--rate", "40000"]);
        kill_and_resume(&run, dir.path(), &mut random, target, &mut found);
        judge(&run.output);
        rounds += 1;
        assert!(rounds < 20 + target, "runs end before they are killed");
    }
    let Seen { kills, restores, in_flight } = found;
    println!(
        "{mode}: {kills} kills over {rounds} runs, {restores} restores, {in_flight} records in \
         flight (seed {seed})"
    );
    assert!(restores > kills / 4, "few starts found a checkpoint");
    assert!(in_flight == 0 || mode == "unaligned", "only an unaligned cut has records in flight");
}

fn kill_and_resume(run: &Run, dir: &Path, random: &mut Random, target: u64, seen: &mut Seen) {
    let (log, most) = (dir.join("log"), seen.kills + KILLS_OF_A_RUN);
    loop {
        let mut process = run.start(&log);
        let is_last = seen.kills == most.min(target);
        let ended = if is_last {
            process.wait(Duration::from_secs(60))
        } else {
            wait_for_a_random_moment(&mut process, run, random)
        };
        if ended.is_none() {
            process.kill();
        }
        let text = child::read(&log);
        assert!(!text.contains("panicked") && !text.contains("warning"), "{text}");
        seen.restores += u64::from(text.contains("restored checkpoint"));
        seen.in_flight += in_flight_in(&text);
        match ended {
            None if is_last => panic!("it does not end:\n{text}"),
            None => seen.kills += 1,
            Some(status) => {
                assert_eq!(status.code(), Some(0), "{text}");
                return;
            }
        }
    }
}

/// Every fourth moment lies in opening and restoring, the others after this process committed something,
/// so that runs get on however slow the machine is.
fn wait_for_a_random_moment(
    process: &mut child::Process,
    run: &Run,
    random: &mut Random,
) -> Option<ExitStatus> {
    if random.below(4) == 0 {
        return process.wait(Duration::from_millis(random.below(80)));
    }
    let before = committed_names(&run.output).len();
    let committed = || committed_names(&run.output).len() > before;
    let ended = process.wait_until(committed, Duration::from_secs(30));
    ended.or_else(|| process.wait(Duration::from_millis(random.below(200))))
}

#[test]
fn a_finished_run_says_so_and_does_nothing() {
    let dir = dir();
    let first = run(&dir).finish();
    assert_eq!(first.code, Some(0), "{}", first.text);
    let run = run(&dir);
    assert_exact(&run.output);
    let before = committed_files(&run.output);
    let second = run.finish();
    assert_eq!(second.code, Some(0), "{}", second.text);
    assert!(second.text.contains("has finished already"), "{}", second.text);
    assert!(before == committed_files(&run.output));
    let other = Run::of(EXAMPLE, dir.path()).with(&["--records", "7"]).finish();
    refused(&other, 1, "--records 30000");
}

#[test]
fn a_signal_takes_one_last_checkpoint_from_which_another_mode_goes_on() {
    for (signal, code, mode) in [("INT", 130, "aligned"), ("TERM", 143, "unaligned")] {
        let (dir, log) = (dir(), tempfile::NamedTempFile::new().unwrap());
        // No periodic checkpoint comes in time: what is restored is the last one.
        let slow = run(&dir).with(&["--mode", mode, "--rate", "10000", "--interval", "3600s"]);
        let mut process = slow.start(log.path());
        assert!(process.wait(Duration::from_millis(700)).is_none(), "{}", child::read(log.path()));
        process.signal(signal);
        let ended = process.wait(Duration::from_secs(20)).and_then(|status| status.code());
        assert_eq!(ended, Some(code), "{}", child::read(log.path()));

        let last = run(&dir).finish();
        assert_eq!(last.code, Some(0), "{}", last.text);
        assert!(last.text.contains("restored checkpoint"), "{}", last.text);
        assert_exact(&dir.path().join("output"));
    }
}

#[test]
fn what_was_committed_after_the_restored_checkpoint_is_undone() {
    let (dir, log) = (dir(), tempfile::NamedTempFile::new().unwrap());
    let paced = ["--interval", "50ms", "--rate", "20000"];
    let mut process = run(&dir).with(&paced).start(log.path());
    let output = run(&dir).output;
    let has_committed = || committed_names(&output).len() >= 6;
    assert!(process.wait_until(has_committed, Duration::from_secs(60)).is_none());
    process.kill();
    // The newest ones are lost: the sink has committed more than the one before them knows of.
    let run = run(&dir);
    let listing = Inspector::open(&run.state).unwrap().list(None).unwrap();
    let ids: Vec<_> = listing.jobs.first().unwrap().checkpoints.iter().map(|one| one.id).collect();
    let [.., older, middle, newest] = ids[..] else { panic!("{ids:?}") };
    for lost in [middle, newest] {
        delete_checkpoint(&run.state, None, lost).unwrap();
    }

    let last = run.finish();
    assert_eq!(last.code, Some(0), "{}", last.text);
    assert!(last.text.contains(&format!("restored checkpoint {older} ")), "{}", last.text);
    assert_exact(&run.output);
}

#[test]
fn output_whose_state_is_gone_is_refused() {
    let dir = dir();
    let run = run(&dir);
    assert_eq!(run.finish().code, Some(0));
    fs::remove_dir_all(&run.state).unwrap();
    refused(&run.finish(), 1, &child::text(&run.output));
    assert_exact(&run.output);
}

#[test]
fn no_records_give_empty_outputs() {
    let dir = dir();
    let run = Run::of(EXAMPLE, dir.path()).with(&["--records", "0"]);
    let ended = run.finish();
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    assert!(committed_files(&run.output).is_empty());
    assert_eq!(fs::read(run.output.join("counts.tsv")).unwrap(), b"");
}

#[test]
fn wrong_arguments_are_refused_with_code_two() {
    for arguments in [["--mode", "sometimes"], ["--rate", "0"], ["--interval", "1ms"]] {
        refused(&child::run(EXAMPLE, &arguments), 2, "error");
    }
}

fn run(dir: &TempDir) -> Run {
    Run::of(EXAMPLE, dir.path()).with(&["--records", &RECORDS.to_string()])
}

fn dir() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn refused(ended: &child::Ended, code: i32, says: &str) {
    assert_eq!(ended.code, Some(code), "{}", ended.text);
    assert!(ended.text.contains(says), "{says:?} is not in:\n{}", ended.text);
    assert!(!ended.text.contains("panicked"), "{}", ended.text);
}

/// How many records a start says were in flight.
fn in_flight_in(text: &str) -> u64 {
    let count = text.lines().find_map(|line| line.strip_suffix(" records were in flight"));
    count.map_or(0, |count| count.parse().unwrap())
}

fn assert_exact(output: &Path) {
    assert_exact_of(output, RECORDS);
}

fn assert_exact_of(output: &Path, records: u64) {
    let mut expected: Vec<String> = numbers(records)
        .map(|(source, number)| {
            format!("{source}\t{number}\t{}\t{}", number % KEYS, number / KEYS + 1)
        })
        .collect();
    expected.sort_unstable();
    let found = lines(output);
    let (missing, extra) = differences(&expected, &found);
    assert!(found == expected, "missing {missing:?}, more than expected {extra:?}");
    let mut counts = String::new();
    for (key, count) in totals(records) {
        writeln!(counts, "{key}\t{count}").unwrap();
    }
    assert!(fs::read_to_string(output.join("counts.tsv")).unwrap() == counts);
}

/// A number may be counted and written more than once, but none is left out.
fn assert_complete(output: &Path) {
    let found: BTreeSet<(u64, u64)> = lines(output)
        .iter()
        .map(|line| {
            let mut fields = line.split('\t').map(|field| field.parse().unwrap());
            (fields.next().unwrap(), fields.next().unwrap())
        })
        .collect();
    assert!(numbers(RECORDS).eq(found), "lines are missing, or are of no number");
    let counts = fs::read_to_string(output.join("counts.tsv")).unwrap();
    let counts = counts.lines().map(|line| {
        let (key, count) = line.split_once('\t').unwrap();
        (key.parse::<u64>().unwrap(), count.parse::<u64>().unwrap())
    });
    let (counts, least): (BTreeMap<_, _>, _) = (counts.collect(), totals(RECORDS));
    assert!(counts.keys().eq(least.keys()));
    assert!(least.iter().all(|(key, least)| counts.get(key) >= Some(least)), "counts are too low");
}

/// Every number of every source, ordered.
fn numbers(records: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..2).flat_map(move |source| (0..records).map(move |number| (source, number)))
}

fn totals(records: u64) -> BTreeMap<u64, u64> {
    let mut totals = BTreeMap::new();
    numbers(records).for_each(|(_, number)| *totals.entry(number % KEYS).or_default() += 1);
    totals
}

/// All committed lines, sorted.
fn lines(output: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for bytes in committed_files(output).values() {
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(text.ends_with('\n'));
        lines.extend(text.lines().map(str::to_owned));
    }
    lines.sort_unstable();
    lines
}

fn differences<'a>(expected: &'a [String], found: &'a [String]) -> (Vec<&'a str>, Vec<&'a str>) {
    let [e, f] = [expected, found].map(|lines| {
        let mut counts = BTreeMap::<&str, u64>::new();
        for line in lines {
            *counts.entry(line.as_str()).or_default() += 1;
        }
        counts
    });
    let of = |a: &BTreeMap<&'a str, u64>, b: &BTreeMap<&str, u64>| {
        a.iter().filter(|(line, n)| b.get(*line) < Some(n)).map(|(line, _)| *line).take(5).collect()
    };
    (of(&e, &f), of(&f, &e))
}

/// By name, with what is in them.
fn committed_files(output: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = committed_names(output).into_iter();
    names.map(|name| (name.clone(), fs::read(output.join(name)).unwrap())).collect()
}

fn committed_names(output: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(output) else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("part-")).collect()
}

fn number_from(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}={value} is no number")))
}
