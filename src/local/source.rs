//! Sources: where records come from, and how to come back to a position.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Result;

/// What travels through an exchange between threads; nothing has to be implemented by hand.
///
/// Records are encodable so that they can become part of a checkpoint while they are on their way.
pub trait Exchange: Serialize + DeserializeOwned + Clone + Send + 'static {}
impl<T: Serialize + DeserializeOwned + Clone + Send + 'static> Exchange for T {}

/// One subtask of a source: yields records and says where it stands.
///
/// A restart within the process goes on with the same object after a [`seek`](Self::seek), also
/// when it panicked before.
pub trait Source: Send + 'static {
    /// What it yields.
    type Item: Clone + Send + 'static;

    /// Names the next record to yield; stored with every checkpoint.
    type Position: Serialize + DeserializeOwned + Send + 'static;

    /// Hot: where the next record will come from.
    fn position(&self) -> Self::Position;

    /// Goes to a position of this source, of any run.
    ///
    /// # Errors
    /// Any error fails the attempt; `Incompatible` when the input is not the one of then.
    fn seek(&mut self, position: Self::Position) -> Result<()>;

    /// The next record. Must not block for long: barriers wait meanwhile. Return
    /// [`Next::Wait`] instead.
    ///
    /// # Errors
    /// Any error fails the attempt; the job restarts under its policy.
    fn next(&mut self) -> Result<Next<Self::Item>>;
}

/// The answer of a [`Source`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next<T> {
    /// A record.
    Item(T),
    /// No record now; ask again after at most this time.
    Wait(Duration),
    /// No record with this event time, in milliseconds, or an earlier one comes any more from this
    /// subtask (Flink: `Watermark`). One below an earlier one changes nothing. It may be passed on up to
    /// a millisecond late, behind records that came after it; of several in a row the last one counts.
    Watermark(u64),
    /// No record ever again. The subtask goes on to take part in checkpoints.
    End,
}
