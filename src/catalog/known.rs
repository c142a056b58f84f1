//! What commit records say that retention asks for. Each record is read once: there may be many
//! checkpoints, and retention runs after each. Bounded by the number of live checkpoints.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::catalog::{CompletedCheckpoint, Retained};
use crate::ids::CheckpointId;
use crate::message::CheckpointType;
use crate::record::RecordRef;
use crate::storage::StoredCheckpoint;

#[derive(Debug, Clone, Copy)]
struct Known {
    record: RecordRef,
    kind: CheckpointType,
    timestamp_ms: u64,
    state_bytes: u64,
}

/// What was read so far.
#[derive(Debug, Default)]
pub(super) struct KnownCheckpoints(Mutex<BTreeMap<CheckpointId, Known>>);

impl KnownCheckpoints {
    /// What retention must know of `stored`; `read` is asked for what is not known, and answers `None`
    /// for what cannot be read.
    pub(super) fn retained(
        &self,
        stored: &[StoredCheckpoint],
        mut read: impl FnMut(&StoredCheckpoint) -> Option<CompletedCheckpoint>,
    ) -> Vec<Retained> {
        let before = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut after = BTreeMap::new();
        let mut retained = Vec::with_capacity(stored.len());
        for stored in stored {
            let StoredCheckpoint { id, record, pinned } = *stored;
            let known = before.get(&id).copied().filter(|known| known.record == record);
            let known = known.or_else(|| {
                let metadata = read(stored)?.metadata;
                let (kind, timestamp_ms) = (metadata.kind, metadata.timestamp_ms);
                Some(Known { record, kind, timestamp_ms, state_bytes: metadata.state_bytes })
            });
            after.extend(known.map(|known| (id, known)));
            // What cannot be read is kept like a savepoint: somebody may still repair it.
            let (kind, timestamp_ms, state_bytes) = known
                .map_or((CheckpointType::Savepoint, 0, 0), |known| {
                    (known.kind, known.timestamp_ms, known.state_bytes)
                });
            retained.push(Retained { id, kind, pinned, timestamp_ms, state_bytes });
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = after;
        retained
    }
}

#[cfg(test)]
mod tests {
    //! Goal: no record is read twice, and nothing is remembered of what is gone. Method: count the reads.

    use super::*;
    use crate::catalog::Checkpoints;
    use crate::catalog::tests::{add, open};
    use crate::storage::JobManagerCheckpointStorage;

    #[test]
    fn each_commit_record_is_read_once() {
        let checkpoints: Checkpoints = open(&JobManagerCheckpointStorage::new());
        (1..=20).for_each(|id| add(&checkpoints, id));
        let known = KnownCheckpoints::default();
        let access = checkpoints.storage().access();
        let reads = |stored: &[StoredCheckpoint]| {
            let mut reads = 0;
            let retained = known.retained(stored, |stored| {
                reads += 1;
                CompletedCheckpoint::load(&**access, stored).ok()
            });
            assert_eq!(retained.len(), stored.len());
            assert!(retained.iter().all(|kept| kept.timestamp_ms == 1000 * kept.id.0));
            reads
        };
        let mut stored = access.stored();
        assert_eq!([reads(&stored), reads(&stored)], [20, 0]);
        let gone = stored.split_off(5);
        assert_eq!([reads(&stored), reads(&gone), reads(&gone)], [0, 15, 0]);
        assert_eq!(known.0.lock().unwrap().len(), 15);
    }

    #[test]
    fn what_cannot_be_read_is_kept_and_asked_for_again() {
        let checkpoints = open(&JobManagerCheckpointStorage::new());
        add(&checkpoints, 1);
        let known = KnownCheckpoints::default();
        let stored = checkpoints.storage().access().stored();
        for _ in 0..2 {
            let mut is_asked = false;
            let retained = known.retained(&stored, |_| {
                is_asked = true;
                None
            });
            assert!(is_asked && retained[0].kind == CheckpointType::Savepoint);
        }
    }
}
