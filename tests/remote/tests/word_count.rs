//! Goal: the example keeps its contract with its checkpoints on an S3 server, whatever happens to its
//! process, to the server and to the connections between. Method: run it as a child, kill it at random
//! moments, stop and start the server meanwhile, and compare the outputs byte for byte with a count
//! made apart from it.
//!
//! `TIDEGATE_KILLS=50` makes the rounds longer. `TIDEGATE_SEED` repeats a run's random choices as far as
//! the machine's timing allows.
#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::panic, reason = "what goes wrong here fails the test")]

#[expect(dead_code, reason = "the tests of the crate use all of it")]
#[path = "../../support/corpus.rs"]
mod corpus;
#[expect(dead_code, reason = "the tests of the crate use all of it")]
#[path = "../../support/count.rs"]
mod count;
#[path = "../../support/random.rs"]
mod random;
#[path = "word_count/run.rs"]
mod run;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use count::{Outputs, assert_same};
use random::Random;
use run::{Process, Run};
use tempfile::TempDir;
use tidegate_remote_tests::faults;
use tidegate_remote_tests::place::uri;
use tidegate_remote_tests::proxy::Proxy;
use tidegate_remote_tests::server::S3Server;

/// Kills of each test unless the environment asks for more.
const KILLS: u64 = 8;

/// Kills of one run before it is left to finish.
const KILLS_OF_A_RUN: u64 = 4;

/// The longest that a run takes to its next commit, and to its end.
const PATIENCE: Duration = Duration::from_secs(100);

/// Of a thousand requests, how many the proxy spoils.
const SPOILED: u64 = 50;

#[test]
fn outputs_are_exact_after_any_number_of_kills() {
    let server = S3Server::start();
    let restores = kill_over_and_over(server.address(), |run, random, _| {
        let mut process = run.start();
        let ended = wait_for_a_random_moment(&mut process, run, random);
        (process, ended)
    });
    assert!(restores > 0, "no start found a checkpoint");
}

#[test]
fn outputs_are_exact_after_kills_behind_a_proxy_that_spoils_requests() {
    let server = S3Server::start();
    let proxy = Proxy::start(server.address());
    proxy.decide_by(faults::seeded(seed(), SPOILED));
    let restores = kill_over_and_over(proxy.address(), |run, random, _| {
        let mut process = run.start();
        let ended = wait_for_a_random_moment(&mut process, run, random);
        (process, ended)
    });
    println!("met: {:?}", proxy.met());
    assert!(restores > 0, "no start found a checkpoint");
    assert!(!proxy.met().is_empty());
}

#[test]
fn outputs_are_exact_after_kills_while_the_server_is_stopped_and_started() {
    let mut server = S3Server::start();
    let address = server.address();
    let mut downs = 0;
    let restores = kill_over_and_over(address, |run, random, is_last| {
        if !server.is_running() {
            refused_without_a_server(run);
            server.start_again();
        }
        let mut process = run.start();
        let is_opening = random.below(4) == 0;
        let ended = if is_opening {
            process.wait(Duration::from_millis(random.below(300)))
        } else {
            wait_for_a_commit(&mut process, run)
        };
        if ended.is_some() {
            return (process, ended);
        }
        server.stop();
        downs += 1;
        let ended = process.wait(Duration::from_millis(random.below(4000)));
        if is_opening && ended.is_some_and(|status| status.code() == Some(1)) {
            // Nothing can be restored from a server that is down.
            return (process, None);
        }
        if ended.is_none() && (is_last || random.below(2) == 0) {
            server.start_again();
            let ended = if is_last { None } else { wait_for_a_commit(&mut process, run) };
            return (process, ended);
        }
        (process, ended)
    });
    println!("the server was down {downs} times");
    assert!(restores > 0 && downs > 0, "{restores} restores, {downs} times down");
}

/// Starts the run while its server is down.
fn refused_without_a_server(run: &Run) {
    let ended = run.start().wait(PATIENCE);
    assert_eq!(ended.and_then(|status| status.code()), Some(1), "{}", run.said());
    assert!(run.said().contains("error"), "{}", run.said());
}

#[test]
fn a_run_whose_server_is_down_at_the_end_of_its_input_waits_for_it() {
    let mut server = S3Server::start();
    let corpus = Corpus::new(60_000);
    let run = corpus.run(corpus.dir.path(), server.address()).with(&["--interval", "100ms"]);
    let run = run.with(&["--rate", &(corpus.lines() / 2).to_string()]);
    let mut process = run.start();
    let ended = process.wait_until(|| count::committed_files(&run.output) > 0, PATIENCE);
    assert!(ended.is_none(), "{}", run.said());
    server.stop();
    let ended = process.wait(Duration::from_secs(6));
    assert!(ended.is_none(), "{}", run.said());
    server.start_again();
    let ended = process.wait(PATIENCE);
    assert_eq!(ended.and_then(|status| status.code()), Some(0), "{}", run.said());
    assert_same(&count::found(&run.output), &corpus.expected);
}

/// Inputs and what must come of them.
struct Corpus {
    dir: TempDir,
    inputs: Vec<PathBuf>,
    expected: Outputs,
}

impl Corpus {
    fn new(bytes: usize) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let inputs = corpus::write(dir.path(), bytes, 1);
        let expected = count::expected(&inputs);
        Self { dir, inputs, expected }
    }

    fn lines(&self) -> usize {
        self.expected.lines.len()
    }

    fn run(&self, dir: &Path, server: SocketAddr) -> Run {
        let prefix = dir.file_name().unwrap().to_str().unwrap();
        Run::new(dir, &self.inputs, &uri(server, prefix))
    }
}

/// Runs until enough were killed, and gives back how many starts restored a checkpoint. `start` starts
/// the run and waits for the moment to kill it, or tells how it ended; it is told when the run is then
/// left to finish.
fn kill_over_and_over(
    server: SocketAddr,
    mut start: impl FnMut(&Run, &mut Random, bool) -> (Process, Option<ExitStatus>),
) -> u64 {
    let target = number_from("TIDEGATE_KILLS").unwrap_or(KILLS);
    let corpus = Corpus::new(300_000);
    let rate = (corpus.lines() / 6).to_string();
    let mut random = Random::new(seed());
    let (mut kills, mut restores, mut rounds) = (0, 0, 0);
    while kills < target {
        let round = corpus.dir.path().join(format!("round-{rounds}"));
        fs::create_dir(&round).unwrap();
        let paced = ["--interval", "50ms", "--rate", &rate];
        let run = corpus.run(&round, server).with(&paced);
        let mut kills_of_this = 0;
        let status = loop {
            let is_last = kills_of_this == KILLS_OF_A_RUN || kills == target;
            let (mut process, mut ended) = start(&run, &mut random, is_last);
            if is_last && ended.is_none() {
                ended = process.wait(PATIENCE);
                assert!(ended.is_some(), "it does not end:\n{}", run.said());
            }
            if ended.is_none() {
                process.kill();
                kills += 1;
                kills_of_this += 1;
            }
            let said = run.said();
            assert!(!said.contains("panicked"), "{said}");
            restores += u64::from(said.contains("restored checkpoint"));
            if let Some(status) = ended {
                break status;
            }
        };
        assert_eq!(status.code(), Some(0), "{}", run.said());
        assert_same(&count::found(&run.output), &corpus.expected);
        rounds += 1;
        assert!(rounds < 20 + target, "runs end before they are killed");
    }
    println!("{kills} kills over {rounds} runs, {restores} restores (seed {})", seed());
    restores
}

/// Every third moment lies in the opening of the storage and the restore, the others after this process
/// committed something, so that runs get on however slow the machine is.
fn wait_for_a_random_moment(
    process: &mut Process,
    run: &Run,
    random: &mut Random,
) -> Option<ExitStatus> {
    if random.below(3) == 0 {
        return process.wait(Duration::from_millis(random.below(300)));
    }
    let ended = wait_for_a_commit(process, run);
    ended.or_else(|| process.wait(Duration::from_millis(random.below(300))))
}

fn wait_for_a_commit(process: &mut Process, run: &Run) -> Option<ExitStatus> {
    let before = count::committed_files(&run.output);
    process.wait_until(|| count::committed_files(&run.output) > before, PATIENCE)
}

fn seed() -> u64 {
    number_from("TIDEGATE_SEED").unwrap_or(7)
}

fn number_from(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}={value} is no number")))
}
