//! Gives back the space of segments of which little is still needed: a second thread copies what is
//! needed into another segment, in the background and slowly.
//!
//! A copy keeps the record's id and has a higher sequence number; the highest wins when a log is read.
//! A segment goes only when the index on disk names the copies. Whoever reads meanwhile finds a record
//! at its old or at its new place.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use crate::record::{Frame, FrameHeader, FrameKind};
use crate::storage::sled::image::chain;
use crate::storage::sled::kv::Batch;
use crate::storage::sled::log::{Place, Segment, SegmentWriter, scan_segment, segment_name};
use crate::storage::sled::split::{SplitStore, lock};
use crate::sync::{AtomicBool, Ordering};

/// After work arrives the thread waits so long for what else becomes free without its help.
const PAUSE: Duration = Duration::from_millis(50);

/// How much is copied between two looks at the clock.
const PIECE_BYTES: u64 = 1024 * 1024;

/// The thread that rewrites segments; it starts with the first checkpoint.
#[derive(Debug, Default)]
pub(super) struct Reclaimer {
    thread: Mutex<Option<Running>>,
    is_stopped: AtomicBool,
}

#[derive(Debug)]
struct Running {
    /// Says that something may have become worth rewriting.
    wake: Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Reclaimer {
    /// Starts the thread if it does not run. Without it the store works, and its log grows.
    pub(super) fn start(&self, store: &Arc<SplitStore>) {
        let mut thread = lock(&self.thread);
        if thread.is_some() || self.is_stopped() {
            return;
        }
        let (wake, woken) = bounded(1);
        let store = Arc::downgrade(store);
        let spawned = thread::Builder::new()
            .name("tidegate-reclaim".to_owned())
            .spawn(move || serve(&store, &woken));
        match spawned {
            Ok(running) => *thread = Some(Running { wake, thread: running }),
            Err(error) => tracing::warn!(%error, "the log is not rewritten"),
        }
    }

    pub(super) fn wake(&self) {
        if let Some(running) = &*lock(&self.thread) {
            // One wake that waits is enough.
            let _full = running.wake.try_send(());
        }
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    /// Stops the thread after what it copies right now.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
        let Some(Running { wake, thread }) = lock(&self.thread).take() else { return };
        drop(wake);
        // The last owner of a store may be this very thread.
        if thread.thread().id() != thread::current().id() {
            let _panicked = thread.join();
        }
    }
}

fn serve(store: &Weak<SplitStore>, woken: &Receiver<()>) {
    while woken.recv().is_ok() {
        thread::sleep(PAUSE);
        let Some(store) = store.upgrade() else { return };
        loop {
            match store.rewrite_one(true) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "a segment was not rewritten");
                    break;
                }
            }
        }
    }
}

/// A copy of a record.
pub(super) struct Copied {
    id: u64,
    place: Place,
    /// The whole frame of a node.
    frame: Option<Vec<u8>>,
}

/// The segments that copies were written to. As long as this lives none of them is freed: before the
/// copies are what is read, nothing in them is needed.
pub(super) struct Written<'a> {
    store: &'a SplitStore,
    segments: Vec<Arc<Segment>>,
}

impl Written<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Arc<Segment>> {
        self.segments.iter()
    }

    pub(super) fn add(&mut self, segment: &Arc<Segment>) {
        let mut ledger = lock(&self.store.ledger);
        let facts = ledger.segments.entry(segment.number).or_default();
        facts.pins = facts.pins.saturating_add(1);
        self.segments.push(Arc::clone(segment));
    }
}

impl Drop for Written<'_> {
    fn drop(&mut self) {
        let mut ledger = lock(&self.store.ledger);
        for segment in &self.segments {
            if let Some(facts) = ledger.segments.get_mut(&segment.number) {
                facts.pins = facts.pins.saturating_sub(1);
            }
        }
    }
}

/// What of a segment is to be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All that is needed: the segment is to be freed.
    All,
    /// What is needed and intact: the segment is damaged.
    Intact,
}

/// Copies the needed records of one segment.
pub(super) struct Copier<'a> {
    store: &'a SplitStore,
    victim: u64,
    writer: Option<SegmentWriter>,
    written: Written<'a>,
    copied: Vec<Copied>,
    is_paced: bool,
    started: Duration,
    piece: u64,
    clock: SystemClock,
}

impl SplitStore {
    /// Rewrites the segment of which least is needed, while the log is much longer than what is. False
    /// when there is nothing to do.
    ///
    /// # Errors
    /// What the disk answers; nothing is lost, and the segment stays.
    pub(super) fn rewrite_one(&self, is_paced: bool) -> Result<bool> {
        self.check_healthy()?;
        let Some(victim) = self.choose_victim() else { return Ok(false) };
        let is_empty = {
            let ledger = lock(&self.ledger);
            let records = ledger.records.as_ref();
            records.is_none_or(|records| records.in_segment(victim).records == 0)
        };
        let rewritten = self.rewrite(victim, is_paced);
        {
            let mut ledger = lock(&self.ledger);
            if let Some(facts) = ledger.segments.get_mut(&victim) {
                facts.pins = facts.pins.saturating_sub(1);
                // What cannot be copied whole is not tried again, nor what is only to be freed.
                facts.is_kept |= is_empty || !matches!(rewritten, Ok(true));
            }
        }
        self.free_segments();
        rewritten
    }

    fn choose_victim(&self) -> Option<u64> {
        if self.reclaimer.is_stopped() {
            return None;
        }
        let mut ledger = lock(&self.ledger);
        let victim = ledger.plan_rewrite()?;
        let facts = ledger.segments.get_mut(&victim)?;
        facts.pins = facts.pins.saturating_add(1);
        Some(victim)
    }

    fn rewrite(&self, victim: u64, is_paced: bool) -> Result<bool> {
        self.mark_used()?;
        let mut copier = Copier::new(self, victim, is_paced);
        let outcome = copier.copy_needed(Wanted::All);
        let (moved, segments) = copier.finish(&outcome)?;
        if !outcome? {
            return Ok(false);
        }
        // CRASH: before this is durable the copies count for nothing, after it they are as good as
        // the originals.
        self.sync_segments(segments.iter())?;
        self.move_to(moved)?;
        Ok(true)
    }

    /// From here on the copies are what is read, also by whoever opens the index on disk.
    pub(super) fn move_to(&self, copied: Vec<Copied>) -> Result<()> {
        // No change comes in between: the index then holds all up to the number that it gets.
        let _order = lock(&self.delta);
        let codec = &self.reader.codec;
        let mut batch = Batch::new();
        {
            let mut ledger = lock(&self.ledger);
            let Some(records) = &mut ledger.records else { return Ok(()) };
            for Copied { id, place, frame } in copied {
                if records.moved(id, place) {
                    match frame {
                        Some(frame) => codec.node(id, &frame, &mut batch)?,
                        None => codec.chunk(id, &place, &mut batch)?,
                    }
                }
            }
            let sequence = self.sequence.load(Ordering::Acquire);
            codec.applied(sequence, Some(ledger.checksum()), &mut batch)?;
        }
        self.reader.with_index(|kv| {
            kv.apply(batch.clone())?;
            kv.sync()
        })
    }
}

impl<'a> Copier<'a> {
    pub(super) fn new(store: &'a SplitStore, victim: u64, is_paced: bool) -> Self {
        let clock = SystemClock::new();
        Self {
            store,
            victim,
            writer: None,
            written: Written { store, segments: Vec::new() },
            copied: Vec::new(),
            is_paced,
            started: clock.now(),
            piece: 0,
            clock,
        }
    }

    /// False when something was in the way of what was wanted.
    pub(super) fn copy_needed(&mut self, wanted: Wanted) -> Result<bool> {
        let number = self.victim;
        let dir = &self.store.reader.dir;
        let path = dir.log().join(segment_name(number));
        let io = |error| Error::io(format!("read {}", path.display()), error);
        let file = dir.disk().open(&path).map_err(io)?;
        let store = self.store.reader.codec.store;
        let mut places = Vec::new();
        let scan = scan_segment(&*file, &path, number, store, 0, &mut |header, place, _| {
            if matches!(header.kind, FrameKind::Chunk | FrameKind::Manifest | FrameKind::Commit) {
                places.push((header.id, place));
            }
            Ok(())
        })?;
        if wanted == Wanted::All && !scan.damage.is_empty() {
            return Ok(false);
        }
        let mut bytes = Vec::new();
        let mut done = HashSet::new();
        for (id, place) in places {
            if self.is_paced && self.store.reclaimer.is_stopped() {
                return Ok(false);
            }
            if !self.is_needed(id) || done.contains(&id) {
                continue;
            }
            bytes.resize(usize::try_from(place.len).unwrap_or(0), 0);
            let read = file.read_up_to_at(&mut bytes, place.offset).map_err(io)?;
            match Frame::decode(bytes.get(..read).unwrap_or_default()) {
                Ok(frame) => self.copy(&frame)?,
                Err(_) if wanted == Wanted::All => return Ok(false),
                Err(_) => continue,
            }
            done.insert(id);
            self.pace(place.len);
        }
        Ok(true)
    }

    fn is_needed(&self, id: u64) -> bool {
        let ledger = lock(&self.store.ledger);
        let place = ledger.records.as_ref().and_then(|records| records.place(id));
        place.is_some_and(|place| place.segment == self.victim)
    }

    pub(super) fn copy(&mut self, frame: &Frame<'_>) -> Result<()> {
        let store = self.store;
        let mut writer = store.with_room(self.writer.take(), || {
            // Its base holds all changes so far, so that no frame of the old segment is needed for
            // those.
            let writer = store.new_segment()?;
            self.written.add(writer.segment());
            Ok(writer)
        })?;
        let header = &frame.header;
        let sequence = store.next_sequence();
        match writer.append_as(header, sequence, frame.payload, &store.writeback) {
            Ok(place) => {
                let moved = FrameHeader { sequence, incarnation: place.segment, ..*header };
                let is_node = header.kind != FrameKind::Chunk;
                let frame = is_node.then(|| moved.frame(frame.payload));
                self.copied.push(Copied { id: header.id, place, frame });
                self.writer = Some(writer);
                Ok(())
            }
            Err(error) => Err(store.give_up(writer, error)),
        }
    }

    /// Rests as long as the last piece took, so that checkpoints find the disk free.
    fn pace(&mut self, bytes: u64) {
        self.piece += bytes;
        if self.is_paced && self.piece >= PIECE_BYTES {
            let took = self.clock.now().saturating_sub(self.started);
            thread::sleep(took.min(PAUSE));
            self.started = self.clock.now();
            self.piece = 0;
        }
    }

    /// Hands the segment back and says what was copied where.
    pub(super) fn finish<T>(mut self, outcome: &Result<T>) -> Result<(Vec<Copied>, Written<'a>)> {
        if let Some(mut writer) = self.writer.take() {
            if outcome.is_ok()
                && let Err(error) = writer.flush()
            {
                return Err(self.store.give_up(writer, error));
            }
            self.store.checkin(writer);
        }
        Ok((self.copied, self.written))
    }
}

#[cfg(test)]
mod tests {
    //! Goal: copies are kept before anybody reads them. Method: a rewrite whose steps are taken one by
    //! one, over segments of two chunks, and space is given back in between. `Placement::Split`.

    use super::*;
    use crate::ids::{Attempt, CheckpointId, JobId, OperatorUid, StoreId, TaskId};
    use crate::limits::CHUNK_BYTES;
    use crate::message::CheckpointType;
    use crate::record::{Node, RecordRef};
    use crate::storage::disk::RealDisk;
    use crate::storage::sled::backend::{Actor, Backend, Change};
    use crate::storage::sled::directory::StoreDir;
    use crate::storage::sled::log::LogSettings;
    use crate::storage::sled::split::Purpose;

    const SETTINGS: LogSettings = LogSettings {
        segment_bytes: 2 * CHUNK_BYTES as u64,
        is_synced_early: false,
        small_commit_bytes: 0,
        is_rewritten: false,
    };

    /// A checkpoint of one task, and its chunks.
    fn commit(store: &Arc<SplitStore>) -> Vec<RecordRef> {
        let actor = Actor { job: JobId::new("job").unwrap(), attempt: Attempt(1) };
        store.change(&actor, Change::Attempt).unwrap();
        let id = CheckpointId(1);
        let pending = Arc::clone(store).begin(&actor, id, CheckpointType::Checkpoint).unwrap();
        let task = TaskId { operator: OperatorUid::new("operator").unwrap(), subtask: 0 };
        let mut writer = pending.writer(&task).unwrap();
        let chunk = |index: u8| vec![index; CHUNK_BYTES];
        let chunks =
            (0..8).map(|index| writer.chunk("state", index.into(), &chunk(index)).unwrap());
        let refs: Vec<_> = chunks.collect();
        let manifest = Node { refs: refs.clone(), body: Vec::new() };
        let manifest = writer.finish(&manifest).unwrap();
        pending.commit(&Node { refs: vec![manifest], body: Vec::new() }).unwrap();
        refs
    }

    #[test]
    fn what_was_copied_is_kept_when_space_is_given_back_before_it_is_read() {
        let keep = tempfile::tempdir().unwrap();
        let dir = StoreDir::new(keep.path(), Arc::new(RealDisk));
        std::fs::create_dir_all(dir.log()).unwrap();
        let store = SplitStore::open(dir, StoreId([7; 16]), SETTINGS, Purpose::Use).unwrap();
        let store = Arc::new(store);
        let chunks = commit(&store);
        let place = |chunk: &RecordRef| {
            let ledger = lock(&store.ledger);
            ledger.records.as_ref().unwrap().place(chunk.id).unwrap().segment
        };
        let mut victims: Vec<u64> = chunks.iter().map(place).collect();
        victims.dedup();
        assert!(victims.len() > 2, "{victims:?}");
        let mut rewrites = Vec::new();
        for number in &victims {
            let mut copier = Copier::new(&store, *number, false);
            let outcome = copier.copy_needed(Wanted::All);
            let (moved, written) = copier.finish(&outcome).unwrap();
            store.sync_segments(written.iter()).unwrap();
            rewrites.push((moved, written));
            store.free_segments();
        }
        for (moved, written) in rewrites {
            store.move_to(moved).unwrap();
            drop(written);
            store.free_segments();
        }
        let mut buffer = Vec::new();
        for (index, chunk) in (0..).zip(&chunks) {
            assert!(!victims.contains(&place(chunk)));
            store.chunk(chunk, &mut buffer).unwrap();
            assert!(buffer.len() == CHUNK_BYTES && buffer.iter().all(|byte| *byte == index));
        }
    }
}
