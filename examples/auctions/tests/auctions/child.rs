//! Runs the program as a process of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tidegate::clock::{Clock, SystemClock};

/// How long a run may take before the test gives up on it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where one saved run lies and how it is started.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) store: PathBuf,
    pub(crate) output: PathBuf,
    log: PathBuf,
    arguments: Vec<String>,
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) text: String,
}

impl Run {
    /// A run in `dir` over so many events, as fast as they come unless it is told otherwise.
    pub(crate) fn new(dir: &Path, events: u64) -> Self {
        let [store, output, log] = ["store", "results.db", "log"].map(|name| dir.join(name));
        let arguments = vec!["--events".to_owned(), events.to_string()];
        Self { store, output, log, arguments }
    }

    /// The same run with more arguments.
    pub(crate) fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// A place beside its files, for the test.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.log.with_file_name("scratch")
    }

    pub(crate) fn start(&self) -> Process {
        let log = fs::File::create(&self.log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_auctions"));
        if !self.arguments.iter().any(|argument| argument == "--rate") {
            command.args(["--rate", "0"]);
        }
        command.args(&self.arguments);
        command.arg("--store").arg(&self.store).arg("--output").arg(&self.output);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Process { child: command.spawn().unwrap(), log: self.log.clone() }
    }

    /// Runs it to its end.
    pub(crate) fn finish(&self) -> Ended {
        let mut process = self.start();
        let status = process.wait_until(|_| false, PATIENCE);
        let text = process.text();
        let status = status.unwrap_or_else(|| panic!("it still runs after {PATIENCE:?}:\n{text}"));
        Ended { code: status.code(), text }
    }
}

/// A process that does not outlive its test.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// How it ended, if it does before it has printed `enough` and within `limit`.
    pub(crate) fn wait_until(
        &mut self,
        enough: impl Fn(&str) -> bool,
        limit: Duration,
    ) -> Option<ExitStatus> {
        let clock = SystemClock::new();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            if clock.now() >= limit || enough(&self.text()) {
                return None;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What it has printed.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
