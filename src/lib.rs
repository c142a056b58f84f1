//! Periodic, consistent, exactly-once checkpoints for a stream processor that runs in one process.

pub mod catalog;
mod chunk;
pub mod clock;
pub mod config;
pub mod coordinator;
mod error;
mod ids;
pub mod limits;
pub mod message;
pub mod state;
pub mod storage;
mod sync;

pub use error::{Corruption, Error, ErrorKind, Result};
pub use ids::{Attempt, CheckpointId, JobId, OperatorUid, StoreId, TaskId};
mod platform;
mod record;
