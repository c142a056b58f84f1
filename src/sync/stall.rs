//! Real types at whose operations a chosen thread can be stopped for ever.
//!
//! For tests of lock-freedom only: a thread calls [`stop_at`], then works on, and is parked for good
//! just before its n-th operation on any of the types. Whatever the others then do must still end.

use std::cell::{Cell, RefCell};

thread_local! {
    /// How many operations this thread may still do; `None` for threads that are not stopped.
    static LEFT: Cell<Option<u64>> = const { Cell::new(None) };
    static TELL: RefCell<Option<Box<dyn Fn()>>> = const { RefCell::new(None) };
}

/// Stops the calling thread for ever after `operations` more operations, and calls `tell` then.
pub fn stop_at(operations: u64, tell: Box<dyn Fn()>) {
    TELL.with(|told| *told.borrow_mut() = Some(tell));
    LEFT.with(|left| left.set(Some(operations)));
}

/// The calling thread is not stopped any more.
pub fn go_on() {
    LEFT.with(|left| left.set(None));
}

/// Before each operation.
fn pass() {
    let stops = LEFT.with(|left| match left.get() {
        None => false,
        Some(0) => true,
        Some(operations) => {
            left.set(Some(operations - 1));
            false
        }
    });
    if stops {
        TELL.with(|tell| tell.borrow().iter().for_each(|tell| tell()));
        loop {
            std::thread::park();
        }
    }
}

pub(crate) mod types {
    use super::pass;

    pub(crate) use std::sync::Arc;
    pub(crate) use std::sync::atomic::Ordering;

    pub(crate) use crossbeam::utils::{Backoff, CachePadded};

    macro_rules! atomic {
        ($name:ident, $value:ty, $($method:ident)*) => {
            /// The atomic of the same name.
            #[derive(Debug, Default)]
            pub(crate) struct $name(std::sync::atomic::$name);

            #[allow(dead_code, reason = "the same face as the real type")]
            impl $name {
                pub(crate) const fn new(value: $value) -> Self {
                    Self(std::sync::atomic::$name::new(value))
                }

                pub(crate) fn load(&self, order: Ordering) -> $value {
                    pass();
                    self.0.load(order)
                }

                pub(crate) fn store(&self, value: $value, order: Ordering) {
                    pass();
                    self.0.store(value, order);
                }

                pub(crate) fn compare_exchange(
                    &self,
                    found: $value,
                    changed: $value,
                    set: Ordering,
                    fetch: Ordering,
                ) -> Result<$value, $value> {
                    pass();
                    self.0.compare_exchange(found, changed, set, fetch)
                }

                /// As std's, with a stop before every attempt.
                pub(crate) fn fetch_update(
                    &self,
                    set: Ordering,
                    fetch: Ordering,
                    mut change: impl FnMut($value) -> Option<$value>,
                ) -> Result<$value, $value> {
                    let mut found = self.load(fetch);
                    while let Some(changed) = change(found) {
                        pass();
                        match self.0.compare_exchange_weak(found, changed, set, fetch) {
                            Ok(before) => return Ok(before),
                            Err(other) => found = other,
                        }
                    }
                    Err(found)
                }

                $(pub(crate) fn $method(&self, value: $value, order: Ordering) -> $value {
                    pass();
                    self.0.$method(value, order)
                })*
            }
        };
    }

    atomic!(AtomicBool, bool, swap fetch_or fetch_and);
    atomic!(AtomicU32, u32, swap fetch_or fetch_add fetch_sub fetch_max);
    atomic!(AtomicU64, u64, swap fetch_or fetch_add fetch_sub fetch_max);

    /// As the real one.
    pub(crate) fn await_item<T>(_queue: &Queue<T>, backoff: &Backoff) {
        backoff.snooze();
    }

    /// crossbeam's bounded queue.
    #[derive(Debug)]
    pub(crate) struct Queue<T>(crossbeam::queue::ArrayQueue<T>);

    impl<T> Queue<T> {
        pub(crate) fn new(capacity: usize) -> Self {
            Self(crossbeam::queue::ArrayQueue::new(capacity))
        }

        pub(crate) fn push(&self, item: T) -> Result<(), T> {
            pass();
            let pushed = self.0.push(item);
            pass();
            pushed
        }

        pub(crate) fn force_push(&self, item: T) -> Option<T> {
            pass();
            let oldest = self.0.force_push(item);
            pass();
            oldest
        }

        pub(crate) fn pop(&self) -> Option<T> {
            pass();
            let popped = self.0.pop();
            pass();
            popped
        }
    }
}
