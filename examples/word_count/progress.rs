//! One thread beside the job: shows how far it is and hands on the request to stop.

use std::io::{IsTerminal, Write, stderr, stdout};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use tidegate::clock::{Clock, SystemClock};
use tidegate::coordinator::HotPause;
use tidegate::local::JobHandle;
use tidegate::{Error, Result};

use crate::signals::StopSignal;
use crate::source::ReadSoFar;

/// How often a stop is looked for and the line on a terminal is drawn.
const TICK: Duration = Duration::from_millis(100);

/// How often a line is printed where there is no terminal.
const PLAIN_LINE_EVERY: Duration = Duration::from_secs(3);

/// How long a stop waits for its last checkpoint.
const STOP_DEADLINE: Duration = Duration::from_secs(60);

/// Prints a line; a reader that has gone away is no reason to stop.
pub(crate) fn say(line: &str) {
    let _ = writeln!(stdout(), "{line}");
}

/// What the watcher looks at.
pub(crate) struct Watch {
    pub(crate) job: JobHandle,
    pub(crate) stop: StopSignal,
    pub(crate) read: Vec<Arc<ReadSoFar>>,
    pub(crate) total_bytes: u64,
    pub(crate) total_lines: u64,
}

/// The watching thread; ends when this is dropped.
pub(crate) struct Watcher {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    pub(crate) fn start(watch: Watch) -> Result<Self> {
        let (end, ended) = channel();
        let thread = std::thread::Builder::new()
            .name("word_count-watch".into())
            .spawn(move || watch.run(&ended))
            .map_err(|source| Error::io("start a thread", source))?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.end.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Watch {
    fn run(&self, ended: &Receiver<()>) {
        let clock = SystemClock::new();
        let bar = stderr().is_terminal().then(|| bar(self.total_bytes));
        let mut next_line = PLAIN_LINE_EVERY;
        let mut stopping = false;
        let (_, lines_at_start) = self.read_so_far();
        while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            if !stopping && self.stop.code().is_some() {
                stopping = true;
                self.job.shutdown(STOP_DEADLINE);
            }
            let (bytes, lines) = self.read_so_far();
            let lines_of_this_run = lines.saturating_sub(lines_at_start);
            let reading = || self.reading(lines, lines_of_this_run, clock.now());
            if let Some(bar) = &bar {
                bar.set_position(bytes);
                bar.set_prefix(reading());
                bar.set_message(self.checkpoints());
            } else if clock.now() >= next_line {
                next_line += PLAIN_LINE_EVERY;
                let [bytes, total] = [bytes, self.total_bytes].map(HumanBytes);
                let (reading, checkpoints) = (reading(), self.checkpoints());
                let _ = writeln!(stderr(), "{bytes} of {total}, {reading}, {checkpoints}");
            }
        }
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
    }

    fn read_so_far(&self) -> (u64, u64) {
        let sum = |part: fn(&ReadSoFar) -> u64| self.read.iter().map(|read| part(read)).sum();
        let bytes = sum(|read| read.bytes.load(Ordering::Relaxed));
        (bytes, sum(|read| read.lines.load(Ordering::Relaxed)))
    }

    fn reading(&self, lines: u64, lines_of_this_run: u64, elapsed: Duration) -> String {
        let rate = u128::from(lines_of_this_run) * 1000 / elapsed.as_millis().max(1);
        format!("{lines} of {} lines, {rate} lines/s", self.total_lines)
    }

    fn checkpoints(&self) -> String {
        let job = self.job.progress();
        let last = job.last_completed.map(|_| {
            let (duration, statistics) = (job.last_duration, self.job.statistics());
            let HotPause { p50, p99, max, .. } = statistics.summary.hot_pause;
            let bytes = statistics.latest.completed.as_ref();
            let (written, all) =
                bytes.map_or((0, 0), |last| (last.checkpointed_bytes, last.state_bytes));
            format!(
                ", the last in {duration:.1?} with {written} of {all} bytes written; hot pause \
                 {p50:.1?}, p99 {p99:.1?}, max {max:.1?}"
            )
        });
        let (completed, failed) = (job.completed, job.failed);
        format!("checkpoints: {completed} completed, {failed} failed{}", last.unwrap_or_default())
    }
}

fn bar(total_bytes: u64) -> ProgressBar {
    let bar = ProgressBar::new(total_bytes);
    let style =
        ProgressStyle::with_template("{bar:16} {bytes} of {total_bytes}, {prefix}\n{wide_msg}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}
