//! Sinks: two-phase commit in five verbs, split between the hot thread and the background.
//!
//! [`Sink::write`] and [`Sink::seal`] run on the task's thread. The other verbs belong to the
//! [`Committer`] of the same subtask, which runs in the background, one call after the other.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::ids::{Attempt, CheckpointId, TaskId};

/// One subtask of a transactional sink (Flink: `TwoPhaseCommitSinkFunction`, `SinkWriter`).
pub trait Sink<T>: Send + 'static {
    /// What [`seal`](Self::seal) hands to [`Committer::persist`].
    type Sealed: Send + 'static;

    /// The half that works in the background.
    type Committer: Committer<Sealed = Self::Sealed>;

    /// The committer of this subtask; called once, before anything else.
    ///
    /// # Errors
    /// Any error fails the attempt.
    fn committer(&self) -> Result<Self::Committer>;

    /// Takes one record into the open transaction.
    ///
    /// # Errors
    /// Any error fails the attempt.
    fn write(&mut self, item: T) -> Result<()>;

    /// Hot: closes the open transaction, which belongs to checkpoint `id` from now on. Waits for
    /// no I/O. `None` when nothing was written since the last seal.
    ///
    /// # Errors
    /// Any error fails the attempt.
    fn seal(&mut self, id: CheckpointId) -> Result<Option<Self::Sealed>>;
}

/// The background half of a [`Sink`].
pub trait Committer: Send + 'static {
    /// What the hot half sealed.
    type Sealed: Send + 'static;

    /// Makes a sealed transaction durable without making it visible; its token goes into every
    /// checkpoint until [`commit`](Self::commit) has returned.
    ///
    /// # Errors
    /// Any error fails the attempt: its records lie before the cut of later checkpoints.
    fn persist(&mut self, sealed: Self::Sealed) -> Result<Token>;

    /// Makes a transaction of this sink visible; after a restore it may be one of another subtask.
    /// Returns only when that is durable; doing it again is no error.
    ///
    /// # Errors
    /// Any error fails the attempt, and the next one tries again.
    fn commit(&mut self, token: &Token) -> Result<()>;

    /// Before the first record of an attempt, on one subtask for the whole operator: gives up every
    /// transaction of this sink, of any subtask and attempt, that is not in `held`.
    ///
    /// # Errors
    /// Any error fails the attempt.
    fn abort(&mut self, held: &[Token]) -> Result<()>;

    /// After [`abort`](Self::abort), on the same subtask: undoes every commit of a transaction that
    /// was sealed after checkpoint `to`, or of all when there is none.
    ///
    /// # Errors
    /// `Conflict` or `Invalid` when it cannot be undone; any error fails the attempt.
    fn rewind(&mut self, to: Option<CheckpointId>) -> Result<()>;
}

/// A durable transaction that waits for its commit; travels in checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The checkpoint whose barrier sealed it.
    pub checkpoint: CheckpointId,
    /// The start of the job that wrote it.
    pub attempt: Attempt,
    /// What the sink needs to commit it.
    pub bytes: Vec<u8>,
}

/// What a sink's factory is told.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SinkContext {
    /// The subtask.
    pub task: TaskId,
    /// How many subtasks the operator has.
    pub parallelism: u32,
    /// The number of this start of the job.
    pub attempt: Attempt,
    /// A stable name of this job in this store: what bears it may be given up or undone.
    pub owner: String,
}
