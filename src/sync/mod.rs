//! The synchronisation types of the lock-free parts: real ones, loom's under `--cfg tidegate_loom`,
//! or ones at which a thread can be stopped for ever under `--cfg tidegate_stall`.
//!
//! Under loom the queue is a mutex around a deque, and a thread is stopped before and after a call of
//! the queue but not within: what is shown is the protocol over the queue and not the queue itself,
//! which is crossbeam's.

#[cfg(not(any(tidegate_loom, tidegate_stall)))]
pub(crate) use real::*;

#[cfg(tidegate_loom)]
mod model;
#[cfg(tidegate_loom)]
pub(crate) use model::*;

#[cfg(tidegate_stall)]
pub mod stall;
#[cfg(tidegate_stall)]
pub(crate) use stall::types::*;

#[cfg(not(any(tidegate_loom, tidegate_stall)))]
mod real {
    pub(crate) use std::sync::Arc;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

    pub(crate) use crossbeam::queue::ArrayQueue as Queue;
    pub(crate) use crossbeam::utils::CachePadded;
}
