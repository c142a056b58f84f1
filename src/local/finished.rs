//! A job that has finished: its final state, and the record that it is done.

use std::fmt;

use crate::engine::{Engine, JobStatus};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, TaskId};
use crate::local::job::JobInner;
use crate::restore::RestorePolicy;
use crate::state::{SectionKind, StateKey, StateValue, codec, read_entries};

/// The state in which a job finished.
pub struct Finished {
    engine: Box<Engine>,
    checkpoint: CheckpointId,
    tasks: Vec<TaskId>,
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
        let tasks = job.nodes.iter().flat_map(|node| node.spec().tasks()).collect();
        Ok(Self { engine, checkpoint, tasks })
    }

    /// The newest checkpoint, taken after the last record.
    pub fn checkpoint(&self) -> CheckpointId {
        self.checkpoint
    }

    /// Visits every entry of a keyed map in the final checkpoint, streaming: by subtask and key
    /// group, and within it by (hash, encoded key).
    ///
    /// # Errors
    /// `NotFound` when there is no such operator; `Incompatible` when an entry has other types; what
    /// `visit` or the storage returned.
    pub fn keyed_state<K: StateKey, V: StateValue>(
        &self,
        operator: &str,
        state: &str,
        mut visit: impl FnMut(K, V) -> Result<()>,
    ) -> Result<()> {
        let mut known = false;
        for task in self.tasks.iter().filter(|task| task.operator.as_str() == operator) {
            known = true;
            let mut source = self.engine.task_state(task)?;
            while let Some(key) = source.next_section()? {
                if key.kind == SectionKind::Keyed && key.state == state {
                    read_entries(source.body(), |key, value| {
                        visit(codec::decode(key)?, codec::decode(value)?)
                    })?;
                }
            }
        }
        if known {
            return Ok(());
        }
        Err(Error::new(ErrorKind::NotFound, format!("there is no operator {operator:?}")))
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
