//! The checkpoints that tasks may write to at the moment.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::catalog::{CheckpointPlan, Checkpoints, OperatorSpec, PendingCheckpoint};
use crate::error::Result;
use crate::ids::CheckpointId;
use crate::message::Barrier;

/// A checkpoint that was triggered.
#[derive(Debug, Clone)]
struct Started {
    /// Where a savepoint goes that names its place.
    target: Option<Arc<str>>,
    pending: Arc<OnceLock<Result<PendingCheckpoint, Arc<crate::error::Error>>>>,
}

/// Hands each task the records of the checkpoint that a barrier names, and of no other.
///
/// The storage is told of a checkpoint by the first task that writes, in its background half: a
/// trigger does no I/O. The table is locked for a look-up only, and never by an acknowledgement.
#[derive(Debug)]
pub(crate) struct ActiveCheckpoints {
    checkpoints: Checkpoints,
    operators: Vec<OperatorSpec>,
    properties: BTreeMap<String, String>,
    compression: bool,
    active: Mutex<BTreeMap<CheckpointId, Started>>,
}

impl ActiveCheckpoints {
    pub(crate) fn new(
        checkpoints: Checkpoints,
        operators: Vec<OperatorSpec>,
        properties: BTreeMap<String, String>,
    ) -> Self {
        let (compression, active) = (false, Mutex::default());
        Self { checkpoints, operators, properties, compression, active }
    }

    /// The same; with `compression` chunks are compressed.
    pub(crate) fn with_compression(self, compression: bool) -> Self {
        Self { compression, ..self }
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<CheckpointId, Started>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A checkpoint was triggered.
    pub(crate) fn insert(&self, id: CheckpointId, target: Option<Arc<str>>) {
        self.table().insert(id, Started { target, pending: Arc::default() });
    }

    /// A checkpoint ended: what tasks write for it from now on is garbage.
    pub(crate) fn remove(&self, id: CheckpointId) {
        self.table().remove(&id);
    }

    /// Where a savepoint will be found that is written beside the job's checkpoints.
    pub(crate) fn external_pointer(&self, id: CheckpointId) -> Option<String> {
        let started = self.table().get(&id).cloned()?;
        let pending = started.pending.get()?.as_ref().ok()?;
        pending.external_pointer().map(str::to_owned)
    }

    /// The records of the checkpoint, or `None` when it has ended.
    ///
    /// # Errors
    /// What the storage answered to the first task that asked.
    pub(crate) fn pending(&self, barrier: &Barrier) -> Result<Option<PendingCheckpoint>> {
        let Some(started) = self.table().get(&barrier.id).cloned() else { return Ok(None) };
        let pending = started.pending.get_or_init(|| {
            let plan = CheckpointPlan {
                kind: barrier.options.kind,
                timestamp_ms: barrier.timestamp_ms,
                properties: self.properties.clone(),
                savepoint_target: started.target.as_deref().map(str::to_owned),
                compression: self.compression,
                ..CheckpointPlan::new(self.operators.clone())
            };
            self.checkpoints.begin(barrier.id, plan).map_err(Arc::new)
        });
        match pending {
            Ok(pending) => Ok(Some(pending.clone())),
            Err(error) => {
                let kind = error.kind();
                let message = format!("checkpoint {} cannot start", barrier.id);
                Err(crate::error::Error::new(kind, message).with_source(Arc::clone(error)))
            }
        }
    }
}
