//! Goal: every auction that closes is in the table once, and in the running average of its category
//! once, whatever happens to the process. Method: run the program as a child, kill it at random
//! moments, start it again with another parallelism, let snapshots fail and expire meanwhile, and
//! compare the table with that of an undisturbed run and with what a model finds, which is made of
//! the stream apart from the program.
//!
//! `TIDEGATE_KILLS=100` asks for that many kills. `TIDEGATE_SEED` repeats a run's random choices as
//! far as the machine's timing allows.
#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::panic, reason = "what goes wrong here fails the test")]

#[path = "auctions/child.rs"]
mod child;
#[path = "auctions/model.rs"]
mod model;
#[path = "auctions/random.rs"]
mod random;
#[path = "auctions/table.rs"]
mod table;

use std::process::ExitStatus;
use std::time::Duration;

use child::{Process, Run};
use random::Random;
use table::Table;

/// Kills unless the environment asks for more.
const KILLS: u64 = 14;

/// Kills of one run before it is left to finish.
const KILLS_OF_A_RUN: u64 = 14;

/// Events of a run that is killed, and how many of them come in a second.
const EVENTS: u64 = 120_000;
const PACED: [&str; 2] = ["--rate", "15000"];

/// What a process may take for what takes no time on an idle machine.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn an_undisturbed_run_gives_what_the_model_gives() {
    for parallelism in ["1", "3"] {
        let dir = tempfile::tempdir().unwrap();
        let run = Run::new(dir.path(), 100_000).with(&["--parallelism", parallelism]);
        let ended = run.finish();
        assert_eq!(ended.code, Some(0), "{}", ended.text);
        let table = Table::read(&run.output);
        table.assert_is(&model::winners(100_000));
        assert!(table.rows.len() > 2_000, "{} rows are too few", table.rows.len());
    }
}

#[test]
fn the_table_is_exact_after_any_number_of_kills_and_failed_checkpoints() {
    let target = number_from("TIDEGATE_KILLS").unwrap_or(KILLS);
    let seed = number_from("TIDEGATE_SEED").unwrap_or(11);
    let mut random = Random::new(seed);
    let expected = model::winners(EVENTS);
    let dir = tempfile::tempdir().unwrap();
    let undisturbed = Run::new(dir.path(), EVENTS);
    assert_eq!(undisturbed.finish().code, Some(0));
    let undisturbed = Table::read(&undisturbed.output);
    undisturbed.assert_is(&expected);

    let (mut total, mut rounds) = (Seen::default(), 0);
    while total.kills < target {
        let dir = tempfile::tempdir().unwrap();
        let run = Run::new(dir.path(), EVENTS);
        kill_and_resume(&run, &mut random, target, &mut total);
        rounds += 1;
        let table = Table::read(&run.output);
        table.assert_is(&expected);
        assert_eq!(table.winners(), undisturbed.winners());
        assert!(rounds < 20 + target, "runs end before they are killed");
    }
    println!("{total:?} over {rounds} runs (seed {seed})");
    assert!(total.restores > total.kills / 4, "few starts found a checkpoint: {total:?}");
    assert!(total.declined > 0 && total.expired > 0, "too little went wrong: {total:?}");
}

/// What happened over all runs.
#[derive(Debug, Default)]
struct Seen {
    kills: u64,
    restores: u64,
    declined: usize,
    expired: usize,
}

/// What makes a moment to kill at.
const DECLINED: &str = "CheckpointAsyncException";
const EXPIRED: &str = "CheckpointExpired";

fn kill_and_resume(run: &Run, random: &mut Random, target: u64, seen: &mut Seen) {
    let at_most = seen.kills + KILLS_OF_A_RUN.min(target - seen.kills);
    let mut visible = 0;
    for start in 0.. {
        let parallelism = ["2", "3", "1"].into_iter().cycle().nth(start).unwrap();
        let is_last = seen.kills == at_most;
        let run = run.clone().with(&["--parallelism", parallelism, "--interval", "30ms"]);
        let run = run.with(&["--checkpoint-timeout", "250ms", "--line-every", "10ms"]);
        let run = run.with(&["--decline-every", "3", "--hold-every", "7"]);
        let run = if is_last { run } else { run.with(&PACED) };
        let mut process = run.start();
        let ended = if is_last {
            process.wait_until(|_| false, PATIENCE)
        } else {
            wait_for_a_random_moment(&mut process, random)
        };
        if ended.is_none() {
            process.kill();
        }
        let text = process.text();
        assert!(!text.contains("panicked"), "{text}");
        if let Some(restored) = restored(&text) {
            seen.restores += 1;
            let early = "rows were visible before their checkpoint was complete";
            assert!(visible <= restored, "{early}: {visible} > {restored}\n{text}");
        }
        visible = table::newest_visible(&run.output, &run.scratch()).max(visible);
        seen.declined += text.matches(DECLINED).count();
        seen.expired += text.matches(EXPIRED).count();
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

/// Some moments lie in the opening of the store and the restore; others after the process completed
/// checkpoints, so that runs get on however slow the machine is; others after one failed.
fn wait_for_a_random_moment(process: &mut Process, random: &mut Random) -> Option<ExitStatus> {
    let wanted = 1 + random.below(4);
    let ended = match random.below(6) {
        0 => return process.wait_until(|_| false, Duration::from_millis(random.below(150))),
        1 => process.wait_until(|text| text.contains(EXPIRED), PATIENCE),
        2 => process.wait_until(|text| text.contains(DECLINED), PATIENCE),
        _ => process.wait_until(|text| completed(text) >= wanted, PATIENCE),
    };
    let later = Duration::from_millis(random.below(60));
    ended.or_else(|| process.wait_until(|_| false, later))
}

/// The number of the checkpoint that a start went on from.
fn restored(text: &str) -> Option<i64> {
    let (_, behind) = text.split_once("restored checkpoint ")?;
    behind.split(' ').next()?.parse().ok()
}

/// How many checkpoints the newest line of progress knows.
fn completed(text: &str) -> u64 {
    let line = text.rsplit("checkpoints: ").next().filter(|_| text.contains("checkpoints: "));
    line.and_then(|line| line.split(' ').next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn a_signal_takes_one_last_checkpoint_and_the_next_start_goes_on_from_it() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let dir = tempfile::tempdir().unwrap();
        // No periodic checkpoint comes in time: what is restored is the last one.
        let slow = ["--rate", "5000", "--interval", "10m", "--line-every", "10ms"];
        let mut process = Run::new(dir.path(), 50_000).with(&slow).start();
        let ended = process.wait_until(|text| events(text) > 1_000, PATIENCE);
        assert_eq!(ended, None, "{}", process.text());
        process.signal(signal);
        let ended = process.wait_until(|_| false, PATIENCE);
        let ended = ended.and_then(|status| status.code());
        assert_eq!(ended, Some(code), "{}", process.text());
        assert!(process.text().contains("is kept"), "{}", process.text());

        let run = Run::new(dir.path(), 50_000);
        let last = run.finish();
        assert_eq!(last.code, Some(0), "{}", last.text);
        assert!(last.text.contains("restored checkpoint 1 "), "{}", last.text);
        Table::read(&run.output).assert_is(&model::winners(50_000));
    }
}

/// The position in the newest line of progress.
fn events(text: &str) -> u64 {
    let line = text.lines().rfind(|line| line.contains(" events, "));
    line.and_then(|line| line.split(' ').next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn a_finished_run_says_so_and_touches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let run = Run::new(dir.path(), 10_000);
    assert_eq!(run.finish().code, Some(0));
    let before = Table::read(&run.output);
    let again = run.finish();
    assert_eq!(again.code, Some(0), "{}", again.text);
    assert!(again.text.contains("nothing to do"), "{}", again.text);
    assert_eq!(Table::read(&run.output).rows, before.rows);
}

#[test]
fn the_results_of_another_store_are_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let run = Run::new(dir.path(), 10_000);
    assert_eq!(run.finish().code, Some(0));
    let mut other = run.clone();
    other.store = dir.path().join("other");
    let refused = other.finish();
    assert_eq!(refused.code, Some(1), "{}", refused.text);
    assert!(refused.text.contains("another store"), "{}", refused.text);
    Table::read(&run.output).assert_is(&model::winners(10_000));
}

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}
