//! Wakes the thread that drives a coordinator: one way to make a [`WakeHook`].

use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

use crate::coordinator::shared::WakeHook;

/// A wake-up for one thread, with std's parking and no mutex.
///
/// The thread calls [`bind`](Self::bind) once, then [`wait`](Self::wait) whenever it has nothing to
/// do. A wake-up that comes before is not lost.
#[derive(Debug, Clone, Default)]
pub struct Signal(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    raised: std::sync::atomic::AtomicBool,
    thread: OnceLock<Thread>,
}

impl Signal {
    /// A signal that nobody waits for yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The hook to give to a coordinator.
    pub fn hook(&self) -> WakeHook {
        let signal = self.clone();
        Arc::new(move || signal.raise())
    }

    /// Raises the signal: the next or current wait ends.
    pub fn raise(&self) {
        use std::sync::atomic::{Ordering, fence};
        self.0.raised.store(true, Ordering::Release);
        // ORDERING: with the fence in `bind`, either this sees the thread or the thread's first wait
        // sees the signal.
        fence(Ordering::SeqCst);
        if let Some(thread) = self.0.thread.get() {
            thread.unpark();
        }
    }

    /// Makes the calling thread the one that waits; only the first call counts.
    pub fn bind(&self) {
        use std::sync::atomic::{Ordering, fence};
        let _ = self.0.thread.set(std::thread::current());
        fence(Ordering::SeqCst);
    }

    /// Parks the bound thread until the signal is raised or `timeout` has passed; it may also return
    /// early. `None` waits without a limit.
    pub fn wait(&self, timeout: Option<Duration>) {
        use std::sync::atomic::Ordering;
        if self.0.raised.swap(false, Ordering::AcqRel) {
            return;
        }
        match timeout {
            Some(timeout) => std::thread::park_timeout(timeout),
            None => std::thread::park(),
        }
        self.0.raised.swap(false, Ordering::AcqRel);
    }
}
