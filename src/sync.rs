//! The synchronisation types of the lock-free parts: real ones, or loom's under
//! `--cfg tidegate_loom`.
//!
//! Under loom the queue is a mutex around a deque, so loom proves the protocol over the queue and
//! not the queue itself, which is crossbeam's.

#[cfg(not(tidegate_loom))]
pub(crate) use real::*;

#[cfg(tidegate_loom)]
pub(crate) use model::*;

#[cfg(not(tidegate_loom))]
mod real {
    pub(crate) use std::sync::Arc;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

    pub(crate) use crossbeam::queue::ArrayQueue as Queue;
    pub(crate) use crossbeam::utils::{Backoff, CachePadded};

    /// One step of waiting until there is something in a queue: spins a little longer each time,
    /// then gives the processor away.
    pub(crate) fn await_item<T>(_queue: &Queue<T>, backoff: &Backoff) {
        backoff.snooze();
    }
}

#[cfg(tidegate_loom)]
mod model {
    use std::collections::VecDeque;

    pub(crate) use crossbeam::utils::CachePadded;
    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
    #[cfg(test)]
    pub(crate) use loom::thread;

    /// The model has no time to spin in.
    #[derive(Debug)]
    pub(crate) struct Backoff;

    impl Backoff {
        pub(crate) fn new() -> Self {
            Self
        }
    }

    /// Waits until there is something in a queue. Who spins for ever for what never comes is a
    /// deadlock here, which loom reports.
    pub(crate) fn await_item<T>(queue: &Queue<T>, _backoff: &Backoff) {
        let mut items = queue.items.lock().unwrap();
        while items.is_empty() {
            items = queue.filled.wait(items).unwrap();
        }
    }

    #[derive(Debug)]
    pub(crate) struct Queue<T> {
        items: loom::sync::Mutex<VecDeque<T>>,
        filled: loom::sync::Condvar,
        capacity: usize,
    }

    impl<T> Queue<T> {
        pub(crate) fn new(capacity: usize) -> Self {
            let items = loom::sync::Mutex::new(VecDeque::new());
            Self { items, filled: loom::sync::Condvar::new(), capacity }
        }

        pub(crate) fn push(&self, item: T) -> Result<(), T> {
            let mut items = self.items.lock().unwrap();
            if items.len() == self.capacity {
                return Err(item);
            }
            items.push_back(item);
            self.filled.notify_all();
            Ok(())
        }

        /// Puts the item in, and takes the oldest out when there is no room.
        pub(crate) fn force_push(&self, item: T) -> Option<T> {
            let mut items = self.items.lock().unwrap();
            let oldest = if items.len() == self.capacity { items.pop_front() } else { None };
            items.push_back(item);
            self.filled.notify_all();
            oldest
        }

        pub(crate) fn pop(&self) -> Option<T> {
            self.items.lock().unwrap().pop_front()
        }
    }
}
