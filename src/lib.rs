//! Periodic, consistent, exactly-once checkpoints for a stream processor that runs in one process.

pub mod barrier;
pub mod catalog;
mod chunk;
pub mod clock;
pub mod config;
pub mod coordinator;
pub mod engine;
mod error;
#[cfg(any(test, fuzzing, feature = "test-util"))]
#[doc(hidden)]
pub mod fuzzing;
mod ids;
pub mod inspect;
pub mod limits;
pub mod local;
pub mod message;
mod platform;
mod record;
pub mod restore;
pub mod state;
pub mod storage;
mod sync;
pub mod task;

pub use error::{Corruption, Error, ErrorKind, Result};
pub use ids::{Attempt, CheckpointId, JobId, OperatorUid, StoreId, TaskId};
