//! Loom's types in the place of the real ones.

use std::collections::VecDeque;

pub(crate) use crossbeam::utils::CachePadded;
pub(crate) use loom::sync::Arc;
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// The model has no time to spin in.
#[derive(Debug)]
pub(crate) struct Backoff;

impl Backoff {
    pub(crate) fn new() -> Self {
        Self
    }
}

/// Waits until there is something in a queue. Who spins for ever for what never comes is a deadlock
/// here, which loom reports.
pub(crate) fn await_item<T>(queue: &Queue<T>, _backoff: &Backoff) {
    let mut items = queue.items.lock().unwrap();
    while items.is_empty() {
        items = queue.filled.wait(items).unwrap();
    }
}

/// A bounded queue that is a mutex here.
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
