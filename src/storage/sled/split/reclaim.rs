//! Gives back the space of segments of which little is still needed: a second thread copies what is
//! needed into another segment, in the background and slowly.
//!
//! A copy keeps the record's id and has a higher sequence number; the highest wins when a log is read.
//! A segment goes only when the index on disk names the copies. Whoever reads meanwhile finds a record
//! at its old or at its new place.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind, Result};
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
                if self.reader.check_movable().is_ok() {
                    facts.pins = facts.pins.saturating_sub(1);
                }
                // What cannot be copied whole is not tried again, nor what is only to be freed.
                facts.is_kept |= match &rewritten {
                    Ok(is_copied) => is_empty || !is_copied,
                    Err(error) => error.kind() == ErrorKind::Corrupt,
                };
            }
        }
        self.free_segments();
        rewritten
    }

    fn choose_victim(&self) -> Option<u64> {
        if self.reclaimer.is_stopped() || self.reader.check_movable().is_err() {
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
    ///
    /// # Errors
    /// `Unavailable` when whoever opens the index on disk would not find the copies: what they were made
    /// of has to stay.
    pub(super) fn move_to(&self, copied: Vec<Copied>) -> Result<()> {
        self.reader.check_movable()?;
        self.name_copies(copied)?;
        self.reader.with_index(|kv| kv.sync())?;
        self.reader.check_movable()
    }

    fn name_copies(&self, copied: Vec<Copied>) -> Result<()> {
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
        self.reader.with_index(|kv| kv.apply(batch.clone()))
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
        let mut places = BTreeMap::new();
        let scan = scan_segment(&*file, &path, number, store, 0, &mut |header, place, _| {
            if matches!(header.kind, FrameKind::Chunk | FrameKind::Manifest | FrameKind::Commit) {
                places.insert(place.offset, (header.id, place));
            }
            Ok(())
        })?;
        match wanted {
            Wanted::All if !scan.damage.is_empty() => return Ok(false),
            Wanted::All => {}
            Wanted::Intact => {
                // The scan does not believe what lies in a damaged group; a chunk of it may be whole.
                let ledger = lock(&self.store.ledger);
                let known = ledger.records.as_ref().map(|records| records.chunks_in(number));
                let known = known.unwrap_or_default().into_iter();
                places.extend(known.map(|(id, place)| (place.offset, (id, place))));
            }
        }
        let mut bytes = Vec::new();
        let mut done = HashSet::new();
        for (id, place) in places.into_values() {
            if self.is_paced && self.store.reclaimer.is_stopped() {
                return Ok(false);
            }
            if !self.is_needed(id) || done.contains(&id) {
                continue;
            }
            bytes.resize(usize::try_from(place.len).unwrap_or(0), 0);
            let read = file.read_up_to_at(&mut bytes, place.offset).map_err(io)?;
            match Frame::decode(bytes.get(..read).unwrap_or_default()) {
                Ok(frame) if frame.header.id == id && frame.header.incarnation == number => {
                    self.copy(&frame)?;
                }
                _ if wanted == Wanted::All => return Ok(false),
                _ => continue,
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

    use std::path::Path;

    use super::*;
    use crate::ids::{Attempt, CheckpointId, JobId, OperatorUid, StoreId, TaskId};
    use crate::limits::CHUNK_BYTES;
    use crate::message::CheckpointType;
    use crate::record::{Node, RecordRef};
    use crate::storage::disk::RealDisk;
    use crate::storage::sled::backend::{Actor, Backend, Change};
    use crate::storage::sled::directory::StoreDir;
    use crate::storage::sled::kv::{Entries, Kv, KvFiles, SledFiles};
    use crate::storage::sled::log::LogSettings;
    use crate::storage::sled::split::Purpose;
    use crate::storage::sled::tests::image;
    use crate::storage::tests::{FailDisk, Fault};

    const SETTINGS: LogSettings = LogSettings {
        segment_bytes: 2 * CHUNK_BYTES as u64,
        is_synced_early: false,
        small_commit_bytes: 0,
        is_rewritten: false,
    };

    fn open(dir: StoreDir) -> Arc<SplitStore> {
        std::fs::create_dir_all(dir.log()).unwrap();
        let store = SplitStore::open(dir, StoreId([7; 16]), SETTINGS, Purpose::Use).unwrap();
        Arc::new(store)
    }

    fn actor() -> Actor {
        Actor { job: JobId::new("job").unwrap(), attempt: Attempt(1) }
    }

    /// A checkpoint of one task over chunks that each repeat a byte; the chunks.
    fn commit(store: &Arc<SplitStore>, id: u64, chunks: &[u8]) -> Vec<RecordRef> {
        if store.job("job").attempt_max < Attempt(1) {
            store.change(&actor(), Change::Attempt).unwrap();
        }
        let (id, kind) = (CheckpointId(id), CheckpointType::Checkpoint);
        let pending = Arc::clone(store).begin(&actor(), id, kind).unwrap();
        let task = TaskId { operator: OperatorUid::new("operator").unwrap(), subtask: 0 };
        let mut writer = pending.writer(&task).unwrap();
        let chunk = |(index, byte): (u32, &u8)| {
            writer.chunk("state", index, &vec![*byte; CHUNK_BYTES]).unwrap()
        };
        let refs: Vec<_> = (0..).zip(chunks).map(chunk).collect();
        let manifest = Node { refs: refs.clone(), body: Vec::new() };
        let manifest = writer.finish(&manifest).unwrap();
        pending.commit(&Node { refs: vec![manifest], body: Vec::new() }).unwrap();
        refs
    }

    fn assert_read(store: &SplitStore, chunks: &[RecordRef], bytes: &[u8]) {
        let mut buffer = Vec::new();
        for (chunk, expected) in chunks.iter().zip(bytes) {
            store.chunk(chunk, &mut buffer).unwrap();
            assert!(buffer.len() == CHUNK_BYTES && buffer.iter().all(|byte| byte == expected));
        }
    }

    fn segment_of(store: &SplitStore, chunk: &RecordRef) -> u64 {
        lock(&store.ledger).records.as_ref().unwrap().place(chunk.id).unwrap().segment
    }

    const CHUNKS: [u8; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

    #[test]
    fn what_was_copied_is_kept_when_space_is_given_back_before_it_is_read() {
        let keep = tempfile::tempdir().unwrap();
        let store = open(StoreDir::new(keep.path(), Arc::new(RealDisk)));
        let chunks = commit(&store, 1, &CHUNKS);
        let mut victims: Vec<u64> = chunks.iter().map(|chunk| segment_of(&store, chunk)).collect();
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
        assert!(chunks.iter().all(|chunk| !victims.contains(&segment_of(&store, chunk))));
        assert_read(&store, &chunks, &CHUNKS);
    }

    #[test]
    fn a_segment_is_tried_again_after_the_disk_was_full() {
        let keep = tempfile::tempdir().unwrap();
        let disk = FailDisk::new(Fault::Full, 0, true);
        disk.mend();
        let store = open(StoreDir::new(keep.path(), Arc::new(disk.clone())));
        commit(&store, 1, &CHUNKS);
        let mixed = [0, 11, 2, 13, 4, 15, 6, 17];
        let chunks = commit(&store, 2, &mixed);
        store.change(&actor(), Change::Drop(&[CheckpointId(1)])).unwrap();
        disk.fill();
        for _ in 0..5 {
            assert_eq!(store.rewrite_one(false).unwrap_err().kind(), ErrorKind::Full);
        }
        disk.mend();
        assert!(store.rewrite_one(false).unwrap());
        assert_read(&store, &chunks, &mixed);
    }

    /// An index that fails when it is told to.
    #[derive(Debug)]
    struct Failing {
        kv: Arc<dyn Kv>,
        fails: Arc<AtomicBool>,
    }

    impl Failing {
        fn asked(&self) -> Result<&dyn Kv> {
            if self.fails.load(Ordering::SeqCst) {
                return Err(Error::new(ErrorKind::Unavailable, "the index fails"));
            }
            Ok(&*self.kv)
        }
    }

    impl Kv for Failing {
        fn get_many(&self, keys: Vec<Vec<u8>>) -> Result<Vec<Option<Vec<u8>>>> {
            self.asked()?.get_many(keys)
        }

        fn scan_prefix(&self, prefix: &[u8]) -> Result<Entries> {
            self.asked()?.scan_prefix(prefix)
        }

        fn last_key(&self, prefix: &[u8]) -> Result<Option<Vec<u8>>> {
            self.asked()?.last_key(prefix)
        }

        fn apply(&self, batch: Batch) -> Result<()> {
            self.asked()?.apply(batch)
        }

        fn sync(&self) -> Result<()> {
            self.asked()?.sync()
        }

        fn is_durable(&self) -> bool {
            self.asked().is_ok()
        }

        fn is_in_files(&self) -> bool {
            true
        }

        fn close(&self) -> Result<()> {
            self.kv.close()
        }
    }

    #[derive(Debug)]
    struct FailingFiles(Arc<AtomicBool>);

    impl KvFiles for FailingFiles {
        fn open(&self, dir: &Path) -> Result<Arc<dyn Kv>> {
            let kv = SledFiles.open(dir)?;
            Ok(Arc::new(Failing { kv, fails: Arc::clone(&self.0) }))
        }
    }

    #[test]
    fn what_was_moved_after_the_index_failed_is_found_by_the_next_open() {
        let (keep, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let fails = Arc::new(AtomicBool::new(false));
        let dir = StoreDir::new(keep.path(), Arc::new(RealDisk));
        let store = open(dir.with_index_files(Arc::new(FailingFiles(Arc::clone(&fails)))));
        let chunks = commit(&store, 1, &CHUNKS);
        store.reader.index().sync().unwrap();
        fails.store(true, Ordering::SeqCst);
        let victim = segment_of(&store, &chunks[0]);
        assert!(store.rewrite(victim, false).unwrap());
        store.free_segments();
        assert!(!keep.path().join("log").join(segment_name(victim)).exists());
        assert_read(&store, &chunks, &CHUNKS);
        image(keep.path(), killed.path());
        let again = open(StoreDir::new(killed.path(), Arc::new(RealDisk)));
        assert_read(&again, &chunks, &CHUNKS);
    }
}
