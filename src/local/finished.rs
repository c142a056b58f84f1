//! A job that has finished: its final state, and the record that it is done.

use std::fmt;

use crate::engine::{Engine, JobStatus};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::local::job::JobInner;
use crate::local::node::NodeSpec;
use crate::restore::RestorePolicy;
use crate::state::{IntoState, StateKey, StateScope, StateValue};

/// The state in which a job finished.
pub struct Finished {
    engine: Box<Engine>,
    checkpoint: CheckpointId,
    operators: Vec<NodeSpec>,
}

impl fmt::Debug for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Finished").field("checkpoint", &self.checkpoint).finish_non_exhaustive()
    }
}

impl Finished {
    pub(super) fn open(job: &JobInner, checkpoint: CheckpointId) -> Result<Self> {
        let engine = Box::new(job.open_engine(RestorePolicy::Latest)?);
        // A checkpoint that was on its way may have completed since; nothing lies between the two.
        let Some(checkpoint) = engine.restored().filter(|newest| *newest >= checkpoint) else {
            return Err(Error::internal(format!(
                "the job finished with checkpoint {checkpoint}, but the store gives {:?}",
                engine.restored()
            )));
        };
        let operators = job.nodes.iter().map(|node| node.spec().clone()).collect();
        Ok(Self { engine, checkpoint, operators })
    }

    /// The newest checkpoint, taken after the last record.
    pub fn checkpoint(&self) -> CheckpointId {
        self.checkpoint
    }

    /// Visits every entry of a keyed map in the final checkpoint, by subtask and key group, and within
    /// it by (hash, encoded key). One subtask's entries are in memory at a time.
    ///
    /// # Errors
    /// `NotFound` when there is no such operator; `Incompatible` when an entry has other types; what
    /// `visit` or the storage returned.
    pub fn keyed_state<K: StateKey, V: StateValue>(
        &self,
        operator: &str,
        state: impl IntoState<K, V>,
        mut visit: impl FnMut(K, V) -> Result<()>,
    ) -> Result<()> {
        let state = state.into_state();
        let node = self.operators.iter().find(|node| node.uid.as_str() == operator);
        let Some(node) = node else {
            let message = format!("there is no operator {operator:?}");
            return Err(Error::new(ErrorKind::NotFound, message));
        };
        let max = self.engine.max_parallelism(&node.uid).unwrap_or(node.parallelism);
        for task in node.tasks() {
            let mut scope = StateScope::new(task.subtask, node.parallelism, max);
            let map = scope.keyed_map(state.clone())?;
            let mut source = self.engine.task_state(&task)?;
            while let Some(key) = source.next_section()? {
                if key.state == state.name() {
                    scope.restore(&key, source.body())?;
                }
            }
            map.take_each(&mut visit)?;
        }
        Ok(())
    }

    /// Writes the record that this job is done, with a word to its next start, then gives up the
    /// checkpoints as the configuration says of a finished job: all of them, in every mode. The record
    /// outlives them. Until this is called everything is kept, and the next start finishes again.
    ///
    /// CRASH: after the record the next start finds the job finished; checkpoints that are still there
    /// only take space.
    ///
    /// # Errors
    /// What the storage returned.
    pub fn record(self, word: &str) -> Result<()> {
        self.engine.record_finish(word)?;
        if let Err(error) = self.engine.end(JobStatus::Finished) {
            tracing::warn!(%error, "the checkpoints of a finished job are kept");
        }
        Ok(())
    }
}
