//! The threads for what must not hold records up: writing snapshots, persisting, committing.
//!
//! Each task is bound to one thread, so its work is done in the order in which it was given.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::error::{Error, Result};
use crate::ids::TaskId;
use crate::local::node::TaskEvent;
use crate::sync::{AtomicBool, Ordering};

/// The most threads of one attempt.
const THREADS_MAX: usize = 4;

/// Work items that wait for one thread.
const QUEUED_MAX: usize = 64;

/// One piece of work; an error or a panic fails the attempt.
pub(super) struct Job {
    pub(super) task: TaskId,
    pub(super) run: Work,
}

pub(super) type Work = Box<dyn FnOnce() -> Result<()> + Send>;

pub(super) struct Background {
    lanes: Vec<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
    stopped: Arc<AtomicBool>,
}

impl Background {
    pub(super) fn start(tasks: usize, events: &Sender<TaskEvent>) -> Result<Self> {
        let stopped = Arc::new(AtomicBool::new(false));
        let mut pool = Self { lanes: Vec::new(), threads: Vec::new(), stopped };
        for index in 0..tasks.clamp(1, THREADS_MAX) {
            let (lane, jobs) = bounded(QUEUED_MAX);
            let events = events.clone();
            let stopped = Arc::clone(&pool.stopped);
            let thread = std::thread::Builder::new()
                .name(format!("tidegate-io-{index}"))
                .spawn(move || work(&jobs, &events, &stopped))
                .map_err(|error| Error::io("start a background thread", error))?;
            pool.lanes.push(lane);
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    /// The lane of the task with this number.
    pub(super) fn lane(&self, task: usize) -> Result<Sender<Job>> {
        let index = task.checked_rem(self.lanes.len()).unwrap_or_default();
        self.lanes.get(index).cloned().ok_or_else(|| Error::internal("no background thread"))
    }

    /// Ends the threads; work that has not begun is dropped. All tasks must have ended.
    pub(super) fn stop(&mut self) {
        // ORDERING: pairs with the load in `work`; the flag alone is passed.
        self.stopped.store(true, Ordering::Release);
        self.lanes.clear();
        for thread in self.threads.drain(..) {
            // A panic was turned into an event within the thread.
            let _ = thread.join();
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop();
    }
}

fn work(jobs: &Receiver<Job>, events: &Sender<TaskEvent>, stopped: &AtomicBool) {
    for job in jobs {
        if stopped.load(Ordering::Acquire) {
            continue;
        }
        if let Err(error) = guard(&job.task, job.run) {
            let _ = events.send(TaskEvent::Failed { error, collateral: false });
        }
    }
}

/// Runs a user's code; a panic becomes an error, and every error names the task.
pub(super) fn guard<R>(task: &TaskId, run: impl FnOnce() -> Result<R>) -> Result<R> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|error| error.context(format!("task {task}"))),
        Err(panic) => {
            let text = panic
                .downcast_ref::<&str>()
                .map(ToString::to_string)
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            Err(Error::internal(format!("task {task} panicked: {text}")))
        }
    }
}
