//! What a checkpoint may refer to instead of writing it: what the newest completed one of its job
//! refers to.
//!
//! A checkpoint in progress holds the record that it was offered, so that nothing below it is given
//! back before the checkpoint ends, however early the older one is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::Result;
use crate::ids::{CheckpointId, TaskId};
use crate::record::RecordRef;
use crate::storage::sled::backend::Actor;
use crate::storage::sled::image::chain;
use crate::storage::sled::kv::Batch;
use crate::storage::sled::share::Offer;
use crate::storage::sled::split::commit::{CommitRequest, CommitWritten};
use crate::storage::sled::split::{SplitStore, lock};

/// What one completed checkpoint offers.
#[derive(Debug)]
pub(super) struct Offered {
    /// Its commit record.
    pub(super) record: RecordRef,
    pub(super) chunks: Offer,
    pub(super) manifests: BTreeMap<TaskId, RecordRef>,
}

impl SplitStore {
    /// What a checkpoint of this job that begins now may refer to, held until
    /// [`let_go`](Self::let_go) of its record: what the completed checkpoint `of` refers to, or the newest.
    /// Nothing when it cannot be read: then all is written.
    pub(super) fn take_offer(
        &self,
        actor: &Actor,
        of: Option<CheckpointId>,
    ) -> Option<Arc<Offered>> {
        let held = self.hold_live(actor.job.as_str(), of)?;
        let known = lock(&self.offers).get(&actor.job).cloned();
        if let Some(known) = known.filter(|known| known.record == held) {
            return Some(known);
        }
        match self.read_offer(&held) {
            Ok(offered) => {
                let offered = Arc::new(offered);
                if of.is_none() {
                    lock(&self.offers).insert(actor.job.clone(), Arc::clone(&offered));
                }
                Some(offered)
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "nothing of an older checkpoint is shared");
                if self.let_go(held.id) {
                    self.free_segments();
                }
                None
            }
        }
    }

    /// The commit record of the job's newest live checkpoint, or of this one, which one more needs from
    /// now on.
    fn hold_live(&self, job: &str, of: Option<CheckpointId>) -> Option<RecordRef> {
        let has_live = lock(&self.ledger).jobs.get(job).is_some_and(|facts| !facts.live.is_empty());
        if !has_live || !self.knows_records() {
            return None;
        }
        let mut ledger = lock(&self.ledger);
        let all = &ledger.jobs.get(job)?.live;
        let record = match of {
            Some(id) => all.get(&id)?.record,
            None => all.last_key_value()?.1.record,
        };
        let records = ledger.records.as_mut()?;
        if !records.is_whole(record.id) {
            return None;
        }
        records.retain(record.id);
        Some(record)
    }

    /// Makes known what lives where, if it is not and can be.
    fn knows_records(&self) -> bool {
        if lock(&self.ledger).records.is_some() {
            return true;
        }
        let _order = lock(&self.delta);
        let loaded = self.load_records();
        if let Err(error) = &loaded {
            tracing::warn!(error = %chain(error), "nothing can be shared or held");
        }
        loaded.is_ok()
    }

    /// One less needs a commit record. True when segments may have become free.
    pub(super) fn let_go(&self, record: u64) -> bool {
        let mut batch = Batch::new();
        Self::forget_record(&mut lock(&self.ledger), record, &mut batch);
        let is_free = !batch.is_empty();
        if is_free {
            self.tell_index(Ok(batch));
        }
        is_free
    }

    fn read_offer(&self, record: &RecordRef) -> Result<Offered> {
        let (mut chunks, mut manifests) = (Offer::default(), BTreeMap::new());
        for manifest in self.reader.node(record)?.refs {
            let (task, node) = self.reader.manifest(&manifest)?;
            node.refs.iter().for_each(|chunk| chunks.add(chunk));
            manifests.insert(task, manifest);
        }
        Ok(Offered { record: *record, chunks, manifests })
    }
}

impl Offered {
    /// What a checkpoint that is complete now refers to.
    pub(super) fn by(commit: &CommitRequest, written: &CommitWritten) -> Self {
        let (mut chunks, mut manifests) = (Offer::default(), BTreeMap::new());
        for task in &commit.tasks {
            task.refs.iter().for_each(|chunk| chunks.add(chunk));
            manifests.insert(task.task.clone(), task.manifest);
        }
        Self { record: written.record, chunks, manifests }
    }
}

/// Somebody reads a checkpoint.
#[derive(Debug)]
pub(super) struct Held {
    store: Arc<SplitStore>,
    record: u64,
}

impl Held {
    pub(super) fn take(store: Arc<SplitStore>, commit: &RecordRef) -> Option<Self> {
        if !store.knows_records() {
            return None;
        }
        {
            let mut ledger = lock(&store.ledger);
            let records = ledger.records.as_mut()?;
            records.place(commit.id)?;
            records.retain(commit.id);
        }
        Some(Self { store, record: commit.id })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.store.let_go(self.record) {
            self.store.free_segments();
        }
    }
}
