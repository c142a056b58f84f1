//! The example as a process of its own, with its checkpoints on a server.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tidegate::clock::{Clock, SystemClock};
use tidegate_remote_tests::place::KEY_VARIABLES;

/// One run and how it is started.
pub(crate) struct Run {
    pub(crate) output: PathBuf,
    log: PathBuf,
    arguments: Vec<String>,
}

impl Run {
    /// A run over these files with its output in `dir` and its checkpoints at `uri`.
    pub(crate) fn new(dir: &Path, inputs: &[PathBuf], uri: &str) -> Self {
        let mut arguments = vec!["--storage".to_owned(), uri.to_owned()];
        for input in inputs {
            arguments.extend(["--input".to_owned(), text(input)]);
        }
        let output = dir.join("output");
        arguments.extend(["--output".to_owned(), text(&output)]);
        Self { output, log: dir.join("log"), arguments }
    }

    /// The same run with more arguments.
    pub(crate) fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Starts it; it prints into a new log.
    pub(crate) fn start(&self) -> Process {
        let log = File::create(&self.log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_word_count"));
        command.args(&self.arguments).envs(KEY_VARIABLES).env("AWS_REGION", "us-east-1");
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Process(command.spawn().unwrap())
    }

    /// What the newest process printed.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }
}

/// A process that does not outlive its test.
pub(crate) struct Process(Child);

impl Process {
    /// How it ended, if it does within `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        self.wait_until(|| false, limit)
    }

    /// How it ended, if it does before `enough` and within `limit`.
    pub(crate) fn wait_until(
        &mut self,
        enough: impl Fn() -> bool,
        limit: Duration,
    ) -> Option<ExitStatus> {
        let clock = SystemClock::new();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return Some(status);
            }
            if clock.now() >= limit || enough() {
                return None;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
