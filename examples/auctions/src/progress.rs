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
use crate::source::Counters;

/// How often a stop is looked for and the line on a terminal is drawn, at least.
const TICK: Duration = Duration::from_millis(100);

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
    pub(crate) counters: Arc<Counters>,
    /// How often a line is printed where there is no terminal.
    pub(crate) line_every: Duration,
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
            .name("auctions-watch".into())
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
        let bar = stderr().is_terminal().then(bar);
        let tick = TICK.min(self.line_every);
        let mut next_line = self.line_every;
        let mut stopping = false;
        while ended.recv_timeout(tick) == Err(RecvTimeoutError::Timeout) {
            if !stopping && self.stop.code().is_some() {
                stopping = true;
                self.job.shutdown(STOP_DEADLINE);
            }
            let now = clock.now();
            if let Some(bar) = &bar {
                bar.set_message(self.line(now));
            } else if now >= next_line {
                next_line = now + self.line_every;
                let _ = writeln!(stderr(), "{}", self.line(now));
            }
        }
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
    }

    fn line(&self, elapsed: Duration) -> String {
        let events = self.counters.position.load(Ordering::Relaxed);
        let given = self.counters.given.load(Ordering::Relaxed);
        let rate = u128::from(given) * 1000 / elapsed.as_millis().max(1);
        let (job, statistics) = (self.job.progress(), self.job.statistics());
        let (completed, failed) = (job.completed, job.failed);
        let last = statistics.latest.completed.as_ref().map(|last| {
            let [full, incremental] = [last.state_bytes, last.checkpointed_bytes].map(HumanBytes);
            let took = last.end_to_end_duration().unwrap_or_default();
            let HotPause { p50, max, .. } = statistics.summary.hot_pause;
            format!(
                ", the last is {}: {full} in full, {incremental} incremental, in {took:.1?}; \
                 hot pause {p50:.1?}, max {max:.1?}",
                last.id
            )
        });
        let last = last.unwrap_or_default();
        format!(
            "{events} events, {rate} events/s; checkpoints: {completed} completed, {failed} \
             failed{last}"
        )
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
        bar.set_style(style);
    }
    bar
}
