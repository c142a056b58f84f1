//! Changes of what lives: one frame each, durable, in their order in time.

use std::sync::Arc;

use crate::error::Result;
use crate::ids::CheckpointId;
use crate::record::{FrameKind, Origin, RecordRef, codec};
use crate::storage::access::nothing_to_pin;
use crate::storage::sled::backend::Actor;
use crate::storage::sled::image::chain;
use crate::storage::sled::index::{self, IndexCodec};
use crate::storage::sled::kv::Batch;
use crate::storage::sled::ledger::{Delta, Ledger};
use crate::storage::sled::log::Place;
use crate::storage::sled::split::{SplitStore, lock};

impl SplitStore {
    /// Appends one frame that changes what lives, and makes it durable. The caller holds `delta`
    /// and ends with `settle_delta`.
    pub(super) fn append_delta(
        &self,
        kind: FrameKind,
        origin: &Origin<'_>,
        payload: &[u8],
    ) -> Result<(RecordRef, Place)> {
        let mut writer = self.checkout()?;
        let segment = Arc::clone(writer.segment());
        let sequence = {
            let mut ledger = lock(&self.ledger);
            let sequence = self.next_sequence();
            // A base that another thread takes from here on does not claim to contain this.
            ledger.delta_in_progress = Some(sequence);
            let facts = ledger.segments.entry(segment.number).or_default();
            facts.delta_max = facts.delta_max.max(sequence);
            sequence
        };
        let appended = writer
            .append(kind, origin, sequence, payload, &self.writeback)
            .and_then(|appended| writer.flush().map(|()| appended));
        match appended {
            Ok(appended) => {
                self.checkin(writer);
                // After a failed sync nobody can tell whether the frame is durable: the store is
                // poisoned, and `delta_in_progress` stays, so no base claims to know.
                self.sync_segments(std::iter::once(&segment))?;
                Ok(appended)
            }
            Err(error) => {
                let error = self.give_up(writer, error);
                self.settle_delta(|_| ());
                Err(error)
            }
        }
    }

    /// Ends `append_delta`: `change` brings the facts up to date.
    pub(super) fn settle_delta<R>(&self, change: impl FnOnce(&mut Ledger) -> R) -> R {
        let mut ledger = lock(&self.ledger);
        ledger.delta_in_progress = None;
        change(&mut ledger)
    }

    /// The index entries of checkpoints that are about to be forgotten.
    pub(super) fn removals(&self, job: &str, live: &[(CheckpointId, RecordRef)]) -> Batch {
        let mut batch = Batch::new();
        for (id, record) in live {
            if let Err(error) = self.removal(job, *id, record, &mut batch) {
                // What stays behind in the index is never asked for, and goes with its rebuild.
                tracing::warn!(error = %chain(&error), %id, "the index keeps a dropped checkpoint");
            }
        }
        batch
    }

    pub(super) fn removal(
        &self,
        job: &str,
        id: CheckpointId,
        record: &RecordRef,
        batch: &mut Batch,
    ) -> Result<()> {
        let kv = self.reader.index();
        IndexCodec::remove_live(&*kv, job, id, batch)?;
        let commit = self.reader.node(record)?;
        for manifest in &commit.refs {
            for chunk in self.reader.node(manifest)?.refs {
                batch.push((index::chunk_key(chunk.id), None));
            }
            IndexCodec::remove_node(&*kv, manifest.id, batch)?;
        }
        IndexCodec::remove_node(&*kv, record.id, batch)
    }

    pub(super) fn drop_live(&self, actor: &Actor, ids: &[CheckpointId]) -> Result<()> {
        let job = actor.job.as_str();
        let live: Vec<_> = {
            let ledger = lock(&self.ledger);
            let Some(facts) = ledger.jobs.get(job) else {
                return Ok(());
            };
            let found = |id: &CheckpointId| {
                facts.droppable(*id).map(|record| Some((*id, record?))).transpose()
            };
            ids.iter().filter_map(found).collect::<Result<_>>()?
        };
        if live.is_empty() {
            return Ok(());
        }
        let mut batch = self.removals(job, &live);
        let records: Vec<u64> = live.iter().map(|(_, record)| record.id).collect();
        let mut payload = Vec::new();
        codec::encode_list(&records, &mut payload)?;
        let sequence = self.delta_frame(FrameKind::Drop, actor, &payload)?;
        // CRASH: the drop is durable; the index on disk is behind and is rebuilt.
        self.settle_delta(|ledger| {
            for (id, _) in &live {
                ledger.remove_live(job, *id);
            }
        });
        self.applied(sequence, &mut batch)?;
        self.reader.with_index(|kv| kv.apply(batch.clone()))?;
        self.free_segments();
        Ok(())
    }

    /// Pins a live checkpoint, or takes the pin back. The caller holds `delta`.
    pub(super) fn pin_live(&self, actor: &Actor, id: CheckpointId, pinned: bool) -> Result<()> {
        let job = actor.job.as_str();
        let found = lock(&self.ledger).jobs.get(job).and_then(|facts| facts.live.get(&id).cloned());
        let mut live = found.ok_or_else(|| nothing_to_pin(id))?;
        if live.pinned == pinned {
            return Ok(());
        }
        live.pinned = pinned;
        let payload = Delta::encode_pin(live.record.id, pinned);
        let sequence = self.delta_frame(FrameKind::Pin, actor, &payload)?;
        // CRASH: the pin is durable; the index on disk is behind and is rebuilt.
        self.settle_delta(|ledger| ledger.pin(job, id, pinned));
        let mut batch = Batch::new();
        self.reader.codec.live(job, &live, &mut batch)?;
        self.applied(sequence, &mut batch)?;
        self.reader.with_index(|kv| kv.apply(batch.clone()))
    }

    /// Returns the sequence number of the frame.
    pub(super) fn delta_frame(
        &self,
        kind: FrameKind,
        actor: &Actor,
        payload: &[u8],
    ) -> Result<u64> {
        let origin =
            Origin { job: actor.job.as_str(), attempt: actor.attempt, ..Origin::default() };
        Ok(self.append_delta(kind, &origin, payload)?.0.id)
    }

    /// Says in `batch` that the index then holds every delta up to this one. The caller holds `delta`
    /// and has settled this one.
    pub(super) fn applied(&self, sequence: u64, batch: &mut Batch) -> Result<()> {
        let facts = lock(&self.ledger).checksum().ok();
        self.reader.codec.applied(sequence, facts, batch)
    }

    /// Brings the index entry of a job up to date.
    pub(super) fn index_job(&self, job: &str, sequence: u64) -> Result<()> {
        let facts = lock(&self.ledger).job(job).clone();
        let mut batch = Batch::new();
        self.reader.codec.job(job, &facts, &mut batch)?;
        self.applied(sequence, &mut batch)?;
        self.reader.with_index(|kv| kv.apply(batch.clone()))
    }
}
