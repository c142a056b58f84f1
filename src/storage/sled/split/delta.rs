//! Changes of what lives: durable frames, in their order in time.
//!
//! Whoever wants a change puts it into a queue. One of those who wait writes all that is queued and
//! syncs once, so that several jobs share a sync; the others are told how that went, and none of them
//! waits for a later one. The facts learn of a change after it is durable, the index after that and
//! without anybody waiting for it.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, JobId};
use crate::limits::FRAME_PAYLOAD_BYTES_MAX;
use crate::record::{FrameKind, Origin, Payload, RecordRef, codec};
use crate::storage::access::nothing_to_pin;
use crate::storage::sled::backend::{Actor, check_commit};
use crate::storage::sled::image::chain;
use crate::storage::sled::index::IndexCodec;
use crate::storage::sled::kv::Batch;
use crate::storage::sled::ledger::{Delta, Ledger, Live};
use crate::storage::sled::log::SegmentWriter;
use crate::storage::sled::records::Unneeded;
use crate::storage::sled::split::commit::{CommitRequest, CommitWritten};
use crate::storage::sled::split::offers::Offered;
use crate::storage::sled::split::{SplitStore, lock};

/// The longest payload of a change. A group adds the small records of a checkpoint and their headers.
const CHANGE_BYTES_MAX: usize = FRAME_PAYLOAD_BYTES_MAX - 1024 * 1024;

/// What somebody wants to be changed.
#[derive(Debug)]
pub(super) enum Wish {
    Attempt,
    /// Unknown ids are left out.
    Drop(Vec<CheckpointId>),
    /// Retention leaves this one alone, or no longer.
    Pin(CheckpointId, bool),
    Finish(Option<Vec<u8>>),
    Commit(CommitRequest),
}

impl Wish {
    /// Beside what a commit may bring along its frame fits into a group.
    fn check_len(&self) -> Result<()> {
        let len = match self {
            Self::Attempt | Self::Pin(..) => 0,
            Self::Drop(ids) => ids.len().saturating_mul(12),
            Self::Finish(body) => body.as_ref().map_or(0, Vec::len),
            Self::Commit(commit) => commit.payload.len(),
        };
        if len > CHANGE_BYTES_MAX {
            let message = format!("a change of {len} bytes, the most is {CHANGE_BYTES_MAX}");
            return Err(Error::invalid(message));
        }
        Ok(())
    }
}

/// Changes that wait, and whether one of those who want them writes.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<Waiting>,
    /// Somebody has written.
    written: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    tickets: Vec<Arc<Ticket>>,
    is_written: bool,
}

/// The turn of one of those who wait; it ends when this is dropped, whatever became of it.
struct Turn<'a>(&'a Queue);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).is_written = false;
        self.0.written.notify_all();
    }
}

/// A change in the queue.
#[derive(Debug)]
struct Ticket {
    actor: Actor,
    wish: Wish,
    outcome: Mutex<Option<Result<()>>>,
}

/// Changes that are written together. None of them is left without an outcome.
struct Chosen(Vec<Arc<Ticket>>);

impl Drop for Chosen {
    fn drop(&mut self) {
        for ticket in &self.0 {
            let mut outcome = lock(&ticket.outcome);
            outcome.get_or_insert_with(|| Err(Error::internal("a change came to no end")));
        }
    }
}

/// A change whose frames are written.
struct Written {
    ticket: Arc<Ticket>,
    sequence: u64,
    detail: Detail,
}

enum Detail {
    Nothing,
    /// The live checkpoints among those that were named.
    Drop(Vec<(CheckpointId, RecordRef)>),
    Commit(CommitWritten),
}

impl Ticket {
    fn job(&self) -> &JobId {
        &self.actor.job
    }

    fn settle(&self, outcome: Result<()>) {
        *lock(&self.outcome) = Some(outcome);
    }
}

impl SplitStore {
    /// Makes a change durable; returns when it is, or never will be.
    ///
    /// # Errors
    /// `Invalid` when it is too long for a frame, which concerns nobody else; what the disk answers,
    /// which everybody is told whose change was to be written with it.
    pub(super) fn change_durably(&self, actor: &Actor, wish: Wish) -> Result<()> {
        wish.check_len()?;
        let ticket = Ticket { actor: actor.clone(), wish, outcome: Mutex::default() };
        let ticket = Arc::new(ticket);
        let mut waiting = lock(&self.changes.state);
        waiting.tickets.push(Arc::clone(&ticket));
        loop {
            if let Some(outcome) = lock(&ticket.outcome).take() {
                return outcome;
            }
            if waiting.is_written {
                let woken = self.changes.written.wait(waiting);
                waiting = woken.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            waiting.is_written = true;
            drop(waiting);
            let turn = Turn(&self.changes);
            {
                let _order = lock(&self.delta);
                self.write_waiting();
            }
            drop(turn);
            waiting = lock(&self.changes.state);
        }
    }

    /// Writes what waits, at most one change of each job: its order among them is that of time. The
    /// caller holds `delta`.
    fn write_waiting(&self) {
        let mut chosen = Chosen(Vec::new());
        lock(&self.changes.state).tickets.retain(|ticket| {
            let is_later = chosen.0.iter().any(|other| other.job() == ticket.job());
            if !is_later {
                chosen.0.push(Arc::clone(ticket));
            }
            is_later
        });
        chosen.0.retain(|ticket| match self.admit(ticket) {
            Ok(true) => true,
            other => {
                ticket.settle(other.map(|_| ()));
                false
            }
        });
        if chosen.0.is_empty() {
            return;
        }
        match self.write_frames(&chosen.0) {
            Ok(written) => {
                let batch = self.learn(&written);
                self.tell_index(batch);
                for Written { ticket, .. } in &written {
                    ticket.settle(Ok(()));
                }
            }
            Err(error) => {
                for ticket in &chosen.0 {
                    let again = Error::new(error.kind(), chain(&error));
                    ticket.settle(Err(again));
                }
            }
        }
    }

    /// Whether there is anything to change, and may be.
    fn admit(&self, ticket: &Ticket) -> Result<bool> {
        match &ticket.wish {
            Wish::Attempt | Wish::Finish(_) => Ok(true),
            Wish::Drop(ids) => {
                let is_live = !self.droppable(&ticket.actor, ids)?.is_empty();
                if is_live {
                    self.load_records()?;
                }
                Ok(is_live)
            }
            Wish::Pin(id, pinned) => {
                let ledger = lock(&self.ledger);
                let facts = ledger.jobs.get(ticket.job().as_str());
                let live = facts.and_then(|facts| facts.live.get(id));
                Ok(live.ok_or_else(|| nothing_to_pin(*id))?.pinned != *pinned)
            }
            Wish::Commit(commit) => {
                let ledger = lock(&self.ledger);
                let facts = ledger.jobs.get(ticket.job().as_str());
                check_commit(&ticket.actor, commit.id, facts).map(|()| true)
            }
        }
    }

    /// Appends the frames of all changes to one segment and syncs it: the commit point.
    fn write_frames(&self, tickets: &[Arc<Ticket>]) -> Result<Vec<Written>> {
        let mut writer = self.checkout()?;
        let segment = Arc::clone(writer.segment());
        {
            let mut ledger = lock(&self.ledger);
            // A base that another thread takes from here on does not claim to contain these.
            ledger.delta_in_progress = Some(self.next_sequence());
        }
        let written: Result<Vec<_>> =
            tickets.iter().map(|ticket| self.write_one(&mut writer, ticket)).collect();
        let written = written.and_then(|written| writer.flush().map(|()| written));
        match written {
            Ok(written) => {
                self.checkin(writer);
                // After a failed sync nobody can tell which frames are durable: the store is
                // poisoned, and `delta_in_progress` stays, so no base claims to know.
                self.sync_segments(std::iter::once(&segment))?;
                Ok(written)
            }
            Err(error) => {
                let error = self.give_up(writer, error);
                lock(&self.ledger).delta_in_progress = None;
                Err(error)
            }
        }
    }

    fn write_one(&self, writer: &mut SegmentWriter, ticket: &Arc<Ticket>) -> Result<Written> {
        let actor = &ticket.actor;
        let origin =
            Origin { job: actor.job.as_str(), attempt: actor.attempt, ..Origin::default() };
        let sequence = self.next_sequence();
        let mut frame = |kind, payload: &[u8]| {
            let payload = Payload::of(payload);
            writer.append(kind, origin, sequence, payload, &self.writeback).map(|_| ())
        };
        let detail = match &ticket.wish {
            Wish::Attempt => {
                frame(FrameKind::Attempt, &[])?;
                Detail::Nothing
            }
            Wish::Finish(body) => {
                let payload =
                    body.as_ref().map_or(vec![0], |body| [&[1], body.as_slice()].concat());
                frame(FrameKind::Finish, &payload)?;
                Detail::Nothing
            }
            Wish::Pin(id, pinned) => {
                let record = {
                    let ledger = lock(&self.ledger);
                    let live = ledger.jobs.get(actor.job.as_str());
                    live.and_then(|facts| facts.live.get(id)).map(|live| live.record.id)
                };
                let record = record.ok_or_else(|| nothing_to_pin(*id))?;
                frame(FrameKind::Pin, &Delta::encode_pin(record, *pinned))?;
                Detail::Nothing
            }
            Wish::Drop(ids) => {
                let live = self.droppable(actor, ids)?;
                let records: Vec<u64> = live.iter().map(|(_, record)| record.id).collect();
                let mut payload = Vec::new();
                codec::encode_list(&records, &mut payload)?;
                frame(FrameKind::Drop, &payload)?;
                Detail::Drop(live)
            }
            Wish::Commit(commit) => {
                Detail::Commit(self.write_commit(writer, actor, commit, sequence)?)
            }
        };
        let mut ledger = lock(&self.ledger);
        let facts = ledger.segments.entry(writer.segment().number).or_default();
        facts.delta_max = facts.delta_max.max(sequence);
        Ok(Written { ticket: Arc::clone(ticket), sequence, detail })
    }

    /// The live checkpoints among these.
    ///
    /// # Errors
    /// `Conflict` when one of them is pinned.
    fn droppable(
        &self,
        actor: &Actor,
        ids: &[CheckpointId],
    ) -> Result<Vec<(CheckpointId, RecordRef)>> {
        let ledger = lock(&self.ledger);
        let Some(facts) = ledger.jobs.get(actor.job.as_str()) else { return Ok(Vec::new()) };
        let found =
            |id: &CheckpointId| facts.droppable(*id).map(|record| Some((*id, record?))).transpose();
        ids.iter().filter_map(found).collect()
    }

    /// Brings the facts up to date, and says what the index has to learn.
    fn learn(&self, written: &[Written]) -> Result<Batch> {
        let codec = &self.reader.codec;
        let mut batch = Batch::new();
        let offers = written.iter().filter_map(|Written { ticket, detail, .. }| {
            match (&ticket.wish, detail) {
                (Wish::Commit(commit), Detail::Commit(done)) => {
                    Some((ticket.job().clone(), Arc::new(Offered::by(commit, done))))
                }
                _ => None,
            }
        });
        let offers: Vec<_> = offers.collect();
        let mut ledger = lock(&self.ledger);
        ledger.delta_in_progress = None;
        let mut sequence = 0;
        for Written { ticket, sequence: reached, detail } in written {
            let job = ticket.job().as_str();
            sequence = sequence.max(*reached);
            match (&ticket.wish, detail) {
                (Wish::Attempt, _) => {
                    let facts = ledger.job(job);
                    facts.attempt_max = facts.attempt_max.max(ticket.actor.attempt);
                }
                (Wish::Pin(id, pinned), _) => {
                    ledger.pin(job, *id, *pinned);
                    let live = ledger.job(job).live.get(id).cloned();
                    live.map_or(Ok(()), |live| codec.live(job, &live, &mut batch))?;
                }
                (Wish::Finish(body), _) => ledger.job(job).finish.clone_from(body),
                (_, Detail::Drop(live)) => {
                    for (id, record) in live {
                        ledger.remove_live(job, *id);
                        Self::forget_record(&mut ledger, record.id, &mut batch);
                        IndexCodec::live_gone(job, *id, &mut batch);
                    }
                }
                (Wish::Commit(commit), Detail::Commit(done)) => {
                    let live = Live { record: done.record, pinned: false };
                    if let Some(records) = &mut ledger.records {
                        commit.note(done, records);
                    }
                    ledger.add_live(job, commit.id, live.clone());
                    commit.index(done, codec, &mut batch)?;
                    codec.live(job, &live, &mut batch)?;
                }
                (Wish::Drop(_) | Wish::Commit(_), _) => {}
            }
            codec.job(job, ledger.job(job), &mut batch)?;
        }
        codec.applied(sequence, Some(ledger.checksum()), &mut batch)?;
        // Whoever finds a checkpoint in the ledger finds what it offers, too: the index may not have it.
        lock(&self.offers).extend(offers);
        Ok(batch)
    }

    /// One less needs this record; the index forgets what nothing needs any more.
    pub(super) fn forget_record(ledger: &mut Ledger, id: u64, batch: &mut Batch) {
        let Some(records) = &mut ledger.records else { return };
        index_forgets(&records.release(id), batch);
    }

    /// CRASH: the changes are durable; the index on disk is behind and is brought up by the next open.
    pub(super) fn tell_index(&self, batch: Result<Batch>) {
        let told = batch.and_then(|batch| self.reader.tell(batch));
        if let Err(error) = told {
            tracing::error!(error = %chain(&error), "a durable change is not in the index");
        }
    }

    /// Makes known what the live checkpoints depend on, if it is not yet. The caller holds `delta`.
    pub(super) fn load_records(&self) -> Result<()> {
        if lock(&self.ledger).records.is_some() {
            return Ok(());
        }
        let live: Vec<u64> = {
            let ledger = lock(&self.ledger);
            let live = ledger.jobs.values().flat_map(|facts| facts.live.values());
            live.map(|live| live.record.id).collect()
        };
        let mut records = self.reader.with_index(|kv| {
            let records = self.reader.codec.read_records(kv)?;
            // What an index in files lacks the log may hold: it must not be taken for free.
            if kv.is_in_files() && !live.iter().all(|id| records.is_whole(*id)) {
                let message = "the index lacks records of live checkpoints";
                return Err(Error::new(ErrorKind::Corrupt, message));
            }
            Ok(records)
        })?;
        for id in live {
            records.retain(id);
        }
        // An index that was rolled forward keeps records of what was dropped.
        let mut batch = Batch::new();
        index_forgets(&records.take_unneeded(), &mut batch);
        lock(&self.ledger).records = Some(records);
        self.measure_segments();
        if !batch.is_empty() {
            self.tell_index(Ok(batch));
        }
        Ok(())
    }
}

fn index_forgets(unneeded: &Unneeded, batch: &mut Batch) {
    let Unneeded { nodes, chunks } = unneeded;
    for (id, len) in nodes {
        IndexCodec::node_gone(*id, *len, batch);
    }
    for id in chunks {
        IndexCodec::chunk_gone(*id, batch);
    }
}
