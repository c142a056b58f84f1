//! Children: this program again, in a role, with its lines on a channel.

use std::fs::File;
use std::io::{BufRead, BufReader, PipeWriter};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use crate::writer::{self, MARK, Orders, say_to};
use crate::{full, owners, power, repair};

const ROLE: &str = "TIDEGATE_CRASH_ROLE";
const ORDERS: &str = "TIDEGATE_CRASH_ORDERS";

/// Nothing that a child does takes so long: it hangs.
const PATIENCE: Duration = Duration::from_secs(100);

type Role = fn(&Orders);

/// The roles.
const ROLES: [(&str, Role); 9] = [
    ("write", writer::write_for_ever),
    ("look", writer::look),
    ("hold", owners::hold),
    ("repair", repair::repair),
    ("fill", full::fill),
    ("starve", full::starve),
    ("stage small tmpfs", full::on_tmpfs),
    ("stage small ext4", full::on_ext4),
    ("stage power", power::cut_over_and_over),
];

/// Runs the role that this process was started in, if any.
pub(crate) fn play() {
    let (Ok(role), Ok(orders)) = (std::env::var(ROLE), std::env::var(ORDERS)) else { return };
    let (_, play) = ROLES.iter().find(|(name, _)| *name == role).unwrap();
    play(&Orders::from_text(&orders));
}

/// This program again.
fn program() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["a_child_plays_its_role", "--exact", "--nocapture"]);
    command
}

/// This program again, behind another that becomes it.
pub(crate) fn program_behind(first: &[&str]) -> Command {
    let mut command = Command::new(first[0]);
    command.args(&first[1..]).arg(program().get_program()).args(program().get_args());
    command
}

/// Plays a role that is a test of its own where nothing that it mounts is seen by others, and where
/// it vanishes with the last process. Without the right to do so it is skipped.
pub(crate) fn stage(role: &str, orders: &Orders) {
    let alone = ["unshare", "--mount", "--"];
    let is_allowed = Command::new(alone[0]).args(&alone[1..]).arg("true").output();
    if !is_allowed.is_ok_and(|output| output.status.success()) {
        println!("{role}: skipped, this user cannot mount");
        return;
    }
    let mut command = program_behind(&alone);
    command.env(ROLE, role).env(ORDERS, orders.to_text());
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success(), "{role} failed:\n{text}");
    let own = text.lines().filter(|line| line.starts_with(role));
    own.for_each(|line| println!("{line}"));
}

/// A child that is killed when its test ends.
#[derive(Debug)]
pub(crate) struct Player {
    child: Child,
    lines: Receiver<String>,
    /// The child's end of the pipe, to tell what it had said at a moment.
    pipe: Option<PipeWriter>,
}

impl Player {
    /// Starts a child; what it complains of goes to a file.
    pub(crate) fn start(role: &str, orders: &Orders, complaints: &Path) -> Self {
        Self::spawn(program(), role, orders, complaints)
    }

    /// The same through a command that becomes this program.
    pub(crate) fn spawn(
        mut command: Command,
        role: &str,
        orders: &Orders,
        complaints: &Path,
    ) -> Self {
        let complaints = File::options().create(true).append(true).open(complaints).unwrap();
        let (out, pipe) = std::io::pipe().unwrap();
        command.env(ROLE, role).env(ORDERS, orders.to_text());
        command.stdin(Stdio::piped()).stdout(pipe.try_clone().unwrap()).stderr(complaints);
        let child = command.spawn().unwrap();
        // The command keeps its copy of the pipe as long as it lives.
        drop(command);
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let Some(line) = line.strip_prefix(MARK) else { continue };
                if tell.send(line.to_owned()).is_err() {
                    break;
                }
            }
        });
        Self { child, lines, pipe: Some(pipe) }
    }

    /// The next line, or `None` when the child has ended.
    pub(crate) fn hear(&mut self) -> Option<String> {
        // With the pipe open the end of the child would not be the end of its lines.
        self.pipe = None;
        self.next()
    }

    fn next(&mut self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the child hangs"),
        }
    }

    /// Every line up to the end of the child, which must be a good one.
    pub(crate) fn hear_out(&mut self) -> Vec<String> {
        let lines = std::iter::from_fn(|| self.hear()).collect();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "the child ended with {status}: {lines:?}");
        lines
    }

    /// The next line of a child that will be stopped; it must not end.
    pub(crate) fn hear_one(&mut self) -> String {
        self.next().unwrap()
    }

    /// What was said until now by a child that is stopped.
    pub(crate) fn hear_so_far(&mut self) -> Vec<String> {
        const END: &str = "so far";
        say_to(self.pipe.as_mut().unwrap(), END);
        std::iter::from_fn(|| self.next().filter(|line| line != END)).collect()
    }

    /// SIGKILL; returns what it said before.
    pub(crate) fn kill(&mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::iter::from_fn(|| self.hear()).collect()
    }

    /// Stops every thread of the child where it is.
    pub(crate) fn stop(&self) {
        self.signal("STOP");
        let tasks = format!("/proc/{}/task", self.child.id());
        let is_stopped = |task: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit(')').next().is_none_or(|rest| rest.trim_start().starts_with('T'))
        };
        while !std::fs::read_dir(&tasks).unwrap().map_while(Result::ok).all(is_stopped) {
            std::thread::yield_now();
        }
    }

    pub(crate) fn go_on(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status().unwrap();
        assert!(status.success());
    }

    /// Lets a child end that waits for it.
    pub(crate) fn release(&mut self) {
        drop(self.child.stdin.take());
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
