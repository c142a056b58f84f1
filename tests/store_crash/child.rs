//! Children: this program again, in a role, with its lines on a channel.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use crate::writer::{self, MARK, Orders};

const ROLE: &str = "TIDEGATE_CRASH_ROLE";
const ORDERS: &str = "TIDEGATE_CRASH_ORDERS";

/// Nothing that a child does takes so long: it hangs.
const PATIENCE: Duration = Duration::from_secs(100);

/// The roles.
const ROLES: [(&str, fn(&Orders)); 2] = [("write", writer::write_for_ever), ("look", writer::look)];

/// Runs the role that this process was started in, if any.
pub(crate) fn play() {
    let (Ok(role), Ok(orders)) = (std::env::var(ROLE), std::env::var(ORDERS)) else { return };
    let (_, play) = ROLES.iter().find(|(name, _)| *name == role).unwrap();
    play(&Orders::from_text(&orders));
}

/// A child that is killed when its test ends.
#[derive(Debug)]
pub(crate) struct Player {
    child: Child,
    lines: Receiver<String>,
}

impl Player {
    /// Starts a child; what it complains of goes to a file.
    pub(crate) fn start(role: &str, orders: &Orders, complaints: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["a_child_plays_its_role", "--exact", "--nocapture"]);
        Self::spawn(command, role, orders, complaints)
    }

    pub(crate) fn spawn(
        mut command: Command,
        role: &str,
        orders: &Orders,
        complaints: &Path,
    ) -> Self {
        let complaints = File::options().create(true).append(true).open(complaints).unwrap();
        command.env(ROLE, role).env(ORDERS, orders.to_text());
        let streams = command.stdout(Stdio::piped()).stderr(complaints);
        let mut child = streams.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let Some(line) = line.strip_prefix(MARK) else { continue };
                if tell.send(line.to_owned()).is_err() {
                    break;
                }
            }
        });
        Self { child, lines }
    }

    /// The next line, or `None` when the child has ended.
    pub(crate) fn hear(&mut self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the child hangs"),
        }
    }

    /// SIGKILL; returns what it said before.
    pub(crate) fn kill(&mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::iter::from_fn(|| self.hear()).collect()
    }

    /// How it ended, once it has no more to say.
    pub(crate) fn end(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
