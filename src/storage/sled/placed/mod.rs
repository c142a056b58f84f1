//! `Placement::Sled`: everything lies in sled, chunk bodies in a ring of reused slots.
//!
//! There is no log: sled's own is the truth. Bodies, manifests and the commit record go in as they come;
//! at commit they are synced, then the job's record with all that lives is written and synced: that is
//! the commit point. A slot is used again only after the drop of its last checkpoint was synced.

mod carve;
mod engine;
mod full;
mod layout;
mod open;
mod pending;
mod rebuild;
mod repair;
mod space;
mod tail;

use std::sync::{Arc, Mutex};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, StoreId};
use crate::message::CheckpointType;
use crate::record::{Frame, FrameKind, Node, Origin, RecordRef};
use crate::storage::access::{Hold, PendingRecords, nothing_to_pin};
use crate::storage::sled::backend::{Actor, Backend, Change, JobView, OpenReport};
use crate::storage::sled::directory::{Clean, Current, StoreDir};
use crate::storage::sled::image::chain;
use crate::storage::sled::index::{IndexCodec, check_record};
use crate::storage::sled::kv::{Batch, Kv};
use crate::storage::sled::ledger::{JobFacts, Ledger, Live};
use crate::storage::sled::split::lock;
use crate::sync::{AtomicU64, Ordering};

#[cfg(test)]
pub(crate) use engine::watch_syncs;
pub(crate) use repair::{check_empty, repair_placed};
#[cfg(test)]
pub(crate) use tail::positions as segment_positions;

pub(crate) use full::open_placed;

use carve::Carved;
use engine::Engine;
use layout::{Layout, body_key, clear, node_key, slots_key};
use pending::PlacedPending;
use space::Space;
use tail::Tail;

/// Slots that are emptied in one call.
const SLOTS_PER_CALL: usize = 256;

/// The open store.
#[derive(Debug)]
pub(crate) struct PlacedStore {
    dir: StoreDir,
    layout: Layout,
    engine: Engine,
    sequence: AtomicU64,
    ledger: Mutex<Ledger>,
    space: Mutex<Space>,
    /// Slots are laid out.
    growing: Mutex<()>,
    /// Commits and other changes one after the other.
    delta: Mutex<()>,
    /// Bytes of all chunks that lived when it was opened.
    live_bytes: u64,
    /// What stands in sled's file, once sled has failed and somebody reads.
    beside: Mutex<Option<Arc<Carved>>>,
    report: OpenReport,
}

impl PlacedStore {
    fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// A record and its frame.
    fn frame(
        &self,
        kind: FrameKind,
        origin: Origin<'_>,
        payload: &[u8],
    ) -> Result<(RecordRef, Vec<u8>)> {
        let header = self.layout.header(kind, self.next_sequence(), origin, payload)?;
        Ok((RecordRef::to_record(&header), header.frame(payload)))
    }

    /// Adds what is known of a job to a change.
    fn job_batch(&self, job: &str, facts: &JobFacts, batch: &mut Batch) -> Result<()> {
        let sequence = self.next_sequence();
        self.layout.job(job, facts, sequence, batch)?;
        let Layout { store, incarnation } = self.layout;
        IndexCodec { store, incarnation }.applied(sequence, None, batch)
    }

    /// Makes a change of what is known of a job durable, then known.
    fn set_job(&self, job: &str, facts: JobFacts) -> Result<()> {
        let mut batch = Batch::new();
        self.job_batch(job, &facts, &mut batch)?;
        self.engine.apply(batch)?;
        self.engine.sync()?;
        *lock(&self.ledger).job(job) = facts;
        Ok(())
    }

    fn facts(&self, job: &str) -> JobFacts {
        lock(&self.ledger).jobs.get(job).cloned().unwrap_or_default()
    }

    fn copy_finished(&self) -> Result<()> {
        let finished: Vec<_> = {
            let ledger = lock(&self.ledger);
            let jobs = ledger.jobs.iter();
            jobs.filter_map(|(job, facts)| Some((job.clone(), facts.finish.clone()?))).collect()
        };
        self.dir.write_finished(self.layout.store, &finished)
    }

    fn drop_live(&self, job: &str, ids: &[CheckpointId]) -> Result<()> {
        let mut facts = self.facts(job);
        let (mut gone, mut dropped) = (Batch::new(), Vec::new());
        for id in ids {
            let Some(record) = facts.droppable(*id)? else { continue };
            facts.live.remove(*id);
            gone.push((node_key(record.id), None));
            if record.is_unreadable() {
                continue;
            }
            for manifest in self.node(&record)?.refs {
                dropped.push(self.node(&manifest)?.refs);
                gone.push((node_key(manifest.id), None));
                gone.push((slots_key(manifest.id), None));
            }
        }
        if gone.is_empty() {
            return Ok(());
        }
        // CRASH: before this is durable the checkpoints live on, and their records are untouched; after
        // it the next open removes what is left of the records.
        self.set_job(job, facts)?;
        self.engine.each(gone)?;
        let mut space = lock(&self.space);
        for chunks in &dropped {
            space.remove(job, chunks);
        }
        Ok(())
    }

    fn pin(&self, job: &str, id: CheckpointId, pinned: bool) -> Result<()> {
        let mut facts = self.facts(job);
        let live = facts.live.remove(id).ok_or_else(|| nothing_to_pin(id))?;
        if live.pinned == pinned {
            return Ok(());
        }
        facts.live.insert(id, Live { pinned, ..live });
        // CRASH: before this is durable the checkpoint is as it was.
        self.set_job(job, facts)
    }

    /// Empties the slots that nobody needs any more. What cannot be emptied stays out of use until the
    /// next open.
    fn reclaim(&self) {
        let slots = lock(&self.space).unneeded();
        for slots in slots.chunks(SLOTS_PER_CALL) {
            if let Err(error) = self.engine.each(clear(slots, self.next_sequence())) {
                tracing::warn!(error = %chain(&error), "slots cannot be emptied");
                return;
            }
            lock(&self.space).give_free(slots.iter().copied());
        }
    }

    /// A slot for a body.
    fn take_slot(&self) -> Result<u32> {
        loop {
            if let Some(slot) = lock(&self.space).take() {
                return Ok(slot);
            }
            // One after the other: a slot is the last one until those behind it are there.
            let _growing = lock(&self.growing);
            if let Some(slot) = lock(&self.space).take() {
                return Ok(slot);
            }
            let slots = lock(&self.space).grow()?;
            self.engine.each(layout::lay_out(slots.clone()))?;
            lock(&self.space).laid_out(slots);
        }
    }

    /// What sled says, or when it has failed what stands in its file.
    fn read(&self, key: Vec<u8>, record: &RecordRef, buffer: Vec<u8>) -> Result<Option<Vec<u8>>> {
        match self.engine.read(key, buffer) {
            Err(error) if !self.engine.is_durable() => {
                let mut beside = lock(&self.beside);
                if beside.is_none() {
                    tracing::warn!(error = %chain(&error), "sled's file is read without sled");
                    let path = self.dir.index(self.layout.incarnation);
                    let disk = &**self.dir.disk();
                    let carved = Carved::scan(disk, &path, self.layout, Tail::default())?;
                    *beside = Some(Arc::new(carved));
                }
                let carved = beside.clone();
                drop(beside);
                carved.ok_or(error)?.bytes(record).map(Some)
            }
            read => read,
        }
    }

    fn node_bytes(&self, record: &RecordRef) -> Result<Vec<u8>> {
        let bytes = self.read(node_key(record.id), record, Vec::new())?;
        bytes.ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, format!("record {} is not in the store", record.id))
        })
    }

    fn lone_chunk(&self, record: &RecordRef, buffer: &mut Vec<u8>) -> Result<usize> {
        let corrupt = |why: String| corrupt_chunk(record, why);
        let slot = lock(&self.space).slot(record.id);
        let slot = slot.ok_or_else(|| corrupt("the store has no place for it".to_owned()))?;
        let body = self.read(body_key(slot), record, std::mem::take(buffer))?;
        *buffer = body.ok_or_else(|| corrupt("its body is missing".to_owned()))?;
        check_chunk(buffer, record, self.layout.store)
    }
}

impl Backend for PlacedStore {
    fn store(&self) -> StoreId {
        self.layout.store
    }

    fn report(&self) -> &OpenReport {
        &self.report
    }

    fn jobs(&self) -> Vec<String> {
        lock(&self.ledger).jobs.keys().cloned().collect()
    }

    fn job(&self, job: &str) -> JobView {
        lock(&self.ledger).jobs.get(job).map(JobView::from).unwrap_or_default()
    }

    fn change(&self, actor: &Actor, change: Change<'_>) -> Result<()> {
        let job = actor.job.as_str();
        let order = lock(&self.delta);
        let mut facts = self.facts(job);
        match change {
            Change::Drop(ids) => {
                self.drop_live(job, ids)?;
                drop(order);
                self.reclaim();
                return Ok(());
            }
            Change::Pin(id, pinned) => return self.pin(job, id, pinned),
            Change::Attempt => {
                // A job that cannot write may still read, and sled does not outlive a full disk.
                self.dir.check_space()?;
                facts.attempt_max = facts.attempt_max.max(actor.attempt);
            }
            Change::Finish(None) => {
                facts.finish = None;
                lock(&self.ledger).job(job).finish = None;
                // CRASH: before this nothing has changed; after it sled still says that the job
                // ended, and whoever opens the store sees that.
                self.copy_finished()?;
            }
            Change::Finish(Some(body)) => {
                facts.finish = Some(body.to_vec());
                self.set_job(job, facts)?;
                // CRASH: before this the end is known to sled alone.
                return self.copy_finished();
            }
        }
        self.set_job(job, facts)
    }

    fn begin(
        self: Arc<Self>,
        actor: &Actor,
        id: CheckpointId,
        kind: CheckpointType,
    ) -> Result<Arc<dyn PendingRecords>> {
        let job = actor.job.as_str();
        self.dir.check_space()?;
        {
            let _order = lock(&self.delta);
            let mut facts = self.facts(job);
            facts.checkpoint_max = facts.checkpoint_max.max(id);
            // sled writes its log in order: if a body of this checkpoint is there after a crash,
            // so is its id, and no other checkpoint gets it.
            let mut batch = Batch::new();
            self.job_batch(job, &facts, &mut batch)?;
            self.engine.apply(batch)?;
            *lock(&self.ledger).job(job) = facts;
        }
        Ok(Arc::new(Arc::new(PlacedPending::new(self, actor.clone(), id, kind))))
    }

    fn node(&self, record: &RecordRef) -> Result<Node> {
        check_record(&self.node_bytes(record)?, record, self.layout.store)
    }

    fn chunk(&self, record: &RecordRef, buffer: &mut Vec<u8>) -> Result<usize> {
        let read = self.lone_chunk(record, buffer);
        if read.as_ref().is_err_and(|error| error.kind() == ErrorKind::Corrupt) {
            lock(&self.space).note_damaged(record.id);
        }
        read
    }

    fn hold(self: Arc<Self>, _: &RecordRef) -> Option<Hold> {
        let start = lock(&self.space).begin();
        Some(Box::new(Held { store: self, start }))
    }

    fn close(&self) -> Result<()> {
        self.engine.close()?;
        let facts = Some(lock(&self.ledger).checksum());
        let sequence = self.sequence.load(Ordering::Acquire);
        let (index, clean) = (self.layout.incarnation, Some(Clean { sequence, facts }));
        self.dir.write_current(Current { index, synced: 0, clean })
    }
}

fn corrupt_chunk(record: &RecordRef, why: String) -> Error {
    let message = format!("chunk {} is damaged", record.id);
    Error::new(ErrorKind::Corrupt, message).with_source(why)
}

/// Where the body of a chunk begins in its frame.
fn check_chunk(bytes: &[u8], record: &RecordRef, store: StoreId) -> Result<usize> {
    let frame = Frame::decode(bytes).map_err(|fault| corrupt_chunk(record, fault.to_string()))?;
    if frame.header.store != store || !record.matches(&frame.header) {
        let why = format!("its body is of {:?}", frame.header.origin);
        return Err(corrupt_chunk(record, why));
    }
    Ok(frame.header.header_len())
}

/// Somebody reads: no slot is emptied meanwhile.
struct Held {
    store: Arc<PlacedStore>,
    start: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        lock(&self.store.space).end(self.start);
        self.store.reclaim();
    }
}
