//! What a task's acknowledgement says of itself.

pub use crate::message::TaskStatistics;

/// State that knows how it was taken.
pub trait Measured {
    /// The measurements of the subtask that acknowledged.
    fn statistics(&self) -> TaskStatistics;
}
