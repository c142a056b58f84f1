//! Goal: the contract holds in every mode: exactly once whatever barriers do, and with at least once no
//! line is missing. Method: rounds of kills, with queues that are full, too.

use super::support::child::Run;
use super::support::count::{self, assert_at_least, assert_same};
use super::support::random::Random;
use super::{corpus, dir, kill_and_resume, number_from};

/// Kills of each mode unless the environment asks for more.
const KILLS: u64 = 6;

/// Kills runs with these options; gives each output and what it should be to `judge`.
fn kill_rounds(options: &[&str], judge: fn(&count::Outputs, &count::Outputs)) {
    let target = number_from("TIDEGATE_KILLS").unwrap_or(KILLS);
    let dir = dir();
    let is_slow = options.contains(&"--slow-sink");
    let bytes = if is_slow { 60_000 } else { 400_000 };
    let inputs = corpus::write(dir.path(), bytes, 5);
    let expected = count::expected(&inputs);
    let rate = (expected.lines.len() / 3).to_string();
    let mut random = Random::new(options.len() as u64 + 40);
    let (mut kills, mut rounds) = (0, 0);
    while kills < target {
        let round = dir.path().join(format!("round-{rounds}"));
        std::fs::create_dir(&round).unwrap();
        let mut run = Run::new(&round, &inputs).with(&["--interval", "20ms"]).with(options);
        if !is_slow {
            run = run.with(&["--rate", &rate]);
        }
        kills += kill_and_resume(&run, &round, &mut random, target - kills).0;
        rounds += 1;
        judge(&count::found(&run.output), &expected);
        std::fs::remove_dir_all(&round).unwrap();
        assert!(rounds < 20 + target, "runs end before they are killed");
    }
}

#[test]
fn unaligned_checkpoints_keep_outputs_exact_over_kills() {
    kill_rounds(&["--unaligned"], assert_same);
}

#[test]
fn unaligned_checkpoints_keep_outputs_exact_over_kills_with_full_queues() {
    kill_rounds(&["--unaligned", "--slow-sink"], assert_same);
}

#[test]
fn checkpoints_that_become_unaligned_keep_outputs_exact_over_kills_with_full_queues() {
    kill_rounds(&["--alignment-timeout", "10ms", "--slow-sink"], assert_same);
}

#[test]
fn at_least_once_loses_no_line_over_kills() {
    kill_rounds(&["--mode", "at-least-once"], assert_at_least);
}

#[test]
fn another_mode_goes_on_with_a_saved_run() {
    let dir = dir();
    let inputs = corpus::write(dir.path(), 40_000, 6);
    let log = dir.path().join("log");
    let modes: [&[&str]; 3] = [&["--unaligned", "--slow-sink"], &["--slow-sink"], &["--unaligned"]];
    for (place, mode) in modes.into_iter().enumerate() {
        let run = Run::new(dir.path(), &inputs).with(&["--interval", "20ms"]).with(mode);
        let mut process = run.start(&log);
        if place + 1 < modes.len() {
            let committed = || count::committed_files(&run.output) > place;
            process.wait_until(committed, std::time::Duration::from_secs(30));
            process.kill();
            continue;
        }
        let status = process.wait(std::time::Duration::from_secs(60)).unwrap();
        assert_eq!(status.code(), Some(0), "{}", super::child::read(&log));
        assert_same(&count::found(&run.output), &count::expected(&inputs));
    }
}
