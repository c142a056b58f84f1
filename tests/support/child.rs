//! Runs an example as a process of its own.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use tidegate::clock::{Clock, SystemClock};

/// How long a run may take before the test gives up on it.
const PATIENCE: Duration = Duration::from_secs(100);

/// What to do about an old program.
const BUILD_IT: &str = "run `cargo test` whole, or first `cargo build --example`";

/// The directories of one saved run and how it is started.
pub(crate) struct Run {
    example: &'static str,
    pub(crate) state: PathBuf,
    pub(crate) output: PathBuf,
    arguments: Vec<String>,
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) text: String,
}

impl Run {
    /// A run whose state and output are in `dir`, so far without other arguments.
    pub(crate) fn of(example: &'static str, dir: &Path) -> Self {
        let [state, output] = ["state", "output"].map(|name| dir.join(name));
        Self { example, state, output, arguments: Vec::new() }
    }

    /// The same run with more arguments.
    pub(crate) fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Starts it; what it prints goes to `log`.
    pub(crate) fn start(&self, log: &Path) -> Process {
        let log = fs::File::create(log).unwrap();
        let child = self.command().stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        Process(child)
    }

    /// Runs it to its end.
    pub(crate) fn finish(&self) -> Ended {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut process = self.start(log.path());
        let status = process.wait(PATIENCE);
        let text = read(log.path());
        let status = status.unwrap_or_else(|| panic!("it still runs after {PATIENCE:?}:\n{text}"));
        Ended { code: status.code(), text }
    }

    fn command(&self) -> Command {
        let mut command = example(self.example);
        command.args(&self.arguments);
        command.args([OsStr::new("--state"), self.state.as_os_str()]);
        command.args([OsStr::new("--output"), self.output.as_os_str()]);
        command
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

    pub(crate) fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program as `cargo test` built it, beside the test's own executable.
fn example(example: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let name = format!("{example}{}", std::env::consts::EXE_SUFFIX);
    let program = profile.join("examples").join(name);
    assert!(is_up_to_date(&program), "{} is missing or old: {BUILD_IT}", program.display());
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}

/// `cargo test --test NAME` builds no examples; a test of an old program would prove nothing. Cargo
/// lists what the program was made of in a file beside it.
fn is_up_to_date(program: &Path) -> bool {
    let changed = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let Some(built) = changed(program) else { return false };
    let list = fs::read_to_string(program.with_extension("d")).unwrap_or_default();
    let sources = list.split_once(": ").map_or("", |(_, sources)| sources).replace("\\ ", "\0");
    sources
        .split_whitespace()
        .all(|source| changed(Path::new(&source.replace('\0', " "))).is_none_or(|at| at <= built))
}

/// Runs the program with exactly these arguments.
pub(crate) fn run(example: &str, arguments: &[&str]) -> Ended {
    let Output { status, stdout, stderr } =
        self::example(example).args(arguments).output().unwrap();
    let text = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ended { code: status.code(), text: text.concat() }
}

pub(crate) fn read(log: &Path) -> String {
    String::from_utf8_lossy(&fs::read(log).unwrap()).into_owned()
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
