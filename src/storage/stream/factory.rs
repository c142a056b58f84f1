//! The streams of one checkpoint.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::ids::CheckpointId;
use crate::storage::stream::draft::Draft;
use crate::storage::stream::input::check_realm;
use crate::storage::stream::output::CheckpointStateOutputStream;
use crate::storage::stream::{
    CheckpointedStateScope, Place, Stored, StreamStateHandle, StreamStore,
};

/// Makes the streams of one checkpoint (Flink: `CheckpointStreamFactory`); many at once, from any
/// thread.
///
/// It makes no location: a stream that needs one which the coordinator did not
/// [initialise](crate::storage::JobStorage::initialize_location) fails as `NotFound`.
#[derive(Clone)]
pub struct CheckpointStreamFactory {
    store: Arc<dyn StreamStore>,
    id: CheckpointId,
}

impl CheckpointStreamFactory {
    pub(super) fn new(store: Arc<dyn StreamStore>, id: CheckpointId) -> Self {
        Self { store, id }
    }

    /// The checkpoint.
    pub fn checkpoint_id(&self) -> CheckpointId {
        self.id
    }

    /// Begins a stream (Flink: `createCheckpointStateOutputStream`).
    ///
    /// # Errors
    /// What the place answers.
    pub fn create(&self, scope: CheckpointedStateScope) -> Result<CheckpointStateOutputStream> {
        let place = Place::of(scope, self.id);
        Ok(CheckpointStateOutputStream::new(Draft::new(Arc::clone(&self.store), place)?))
    }

    /// True when [`duplicate`](Self::duplicate) makes a second stream of this one cheaply (Flink:
    /// `canFastDuplicate`).
    pub fn can_duplicate(&self, handle: &StreamStateHandle, scope: CheckpointedStateScope) -> bool {
        // Both scopes lie in the same storage.
        let _ = scope;
        self.store.can_duplicate() && self.check(handle).is_ok()
    }

    /// Makes second streams with the same bytes, each independent of its first (Flink: `duplicate`).
    /// All of them or none.
    ///
    /// # Errors
    /// `Invalid` when the storage does not, or one of the handles cannot be; `NotFound` when a stream
    /// is gone; what the place answers.
    pub fn duplicate(
        &self,
        handles: &[StreamStateHandle],
        scope: CheckpointedStateScope,
    ) -> Result<Vec<StreamStateHandle>> {
        if !self.store.can_duplicate() {
            return Err(Error::invalid("this storage does not duplicate streams; copy them"));
        }
        handles.iter().try_for_each(|handle| self.check(handle))?;
        let place = Place::of(scope, self.id);
        let mut made: Vec<StreamStateHandle> = Vec::new();
        for handle in handles {
            match self.store.duplicate(handle.stored(), place) {
                Ok(name) => {
                    let stored = Stored { place, name, ..*handle.stored() };
                    made.push(StreamStateHandle::new(stored, None));
                }
                Err(error) => {
                    for made in &made {
                        self.take_back(made);
                    }
                    return Err(error);
                }
            }
        }
        Ok(made)
    }

    fn take_back(&self, made: &StreamStateHandle) {
        if let Err(error) = self.store.remove(made.stored()) {
            tracing::warn!(%error, stream = %made, "a duplicate of a stream stays");
        }
    }

    fn check(&self, handle: &StreamStateHandle) -> Result<()> {
        handle.check()?;
        let is_metadata = matches!(handle.stored().place, Place::Metadata(_));
        if handle.is_inline() || is_metadata {
            let message = format!("{handle} cannot be duplicated; only stored state can");
            return Err(Error::invalid(message));
        }
        check_realm(&*self.store, handle)
    }
}

impl fmt::Debug for CheckpointStreamFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckpointStreamFactory").field("id", &self.id).finish_non_exhaustive()
    }
}
