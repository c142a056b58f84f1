//! The segments of an open log: who writes which, when they are durable, when they are given back.

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::storage::disk::DiskFile;
use crate::storage::sled::image::chain;
use crate::storage::sled::log::{Segment, SegmentHead, SegmentWriter, segment_name};
use crate::storage::sled::split::{IDLE_MAX, PREALLOCATE_SHARE, SplitStore, lock};
use crate::sync::Ordering;

impl SplitStore {
    /// An open segment that nobody else writes.
    pub(super) fn checkout(&self) -> Result<SegmentWriter> {
        self.check_healthy()?;
        if let Some(writer) = lock(&self.idle).pop() {
            return Ok(writer);
        }
        self.mark_used()?;
        self.new_segment()
    }

    /// The same writer while its segment has room, else one of the next segment.
    pub(super) fn with_room(
        &self,
        writer: Option<SegmentWriter>,
        next: impl FnOnce() -> Result<SegmentWriter>,
    ) -> Result<SegmentWriter> {
        match writer {
            Some(writer) if !writer.is_full() => Ok(writer),
            full => {
                full.map_or(Ok(()), |full| self.close_segment(full))?;
                next()
            }
        }
    }

    pub(super) fn new_segment(&self) -> Result<SegmentWriter> {
        let number = self.next_sequence();
        let path = self.reader.dir.log().join(segment_name(number));
        let spare = self.spares.take();
        let file = match &spare {
            Some(spare) => Arc::clone(&spare.file),
            None => self.made(&path)?,
        };
        let base = {
            let mut ledger = lock(&self.ledger);
            let base_sequence = self.next_sequence();
            let base = ledger.base(base_sequence);
            let facts = ledger.segments.entry(number).or_default();
            facts.open = true;
            (base_sequence, base)
        };
        let (base_sequence, base) = base;
        let free = self.reader.dir.disk().free_bytes(&self.reader.dir.log()).unwrap_or(0);
        let head = SegmentHead {
            store: self.reader.codec.store,
            base: &base.encode()?,
            base_sequence,
            preallocate_max: free / PREALLOCATE_SHARE,
            segment_bytes: self.settings.segment_bytes,
            reserved: spare.as_ref().map_or(0, |spare| spare.len),
        };
        let segment = Arc::new(Segment::new(number, base.as_of, path.clone(), file));
        let mut writer = SegmentWriter::new(Arc::clone(&segment), head)?;
        if let Some(spare) = spare {
            let begun = writer.flush().and_then(|()| segment.sync());
            if let Err(error) = begun.and_then(|()| self.spares.name(&spare, &path)) {
                self.spares.give_up(&spare);
                lock(&self.ledger).segments.remove(&number);
                return self.poison_on_sync_error(Err(error));
            }
            *lock(&self.log_dir_behind) = true;
        }
        Ok(writer)
    }

    fn made(&self, path: &Path) -> Result<Arc<dyn DiskFile>> {
        let io = |error| Error::io(format!("make {}", path.display()), error);
        let file = self.reader.dir.disk().create(path).map_err(io)?;
        *lock(&self.log_dir_behind) = true;
        Ok(file)
    }

    /// A new segment whose base says all that is known; it is not durable yet.
    pub(super) fn write_base(&self) -> Result<Arc<Segment>> {
        self.mark_used()?;
        let mut writer = self.new_segment()?;
        let segment = Arc::clone(writer.segment());
        if let Err(error) = writer.flush() {
            return Err(self.give_up(writer, error));
        }
        self.checkin(writer);
        Ok(segment)
    }

    pub(super) fn checkin(&self, writer: SegmentWriter) {
        if let Some(facts) = lock(&self.ledger).segments.get_mut(&writer.segment().number) {
            facts.len = writer.file_len();
        }
        let surplus = {
            let mut idle = lock(&self.idle);
            if writer.is_full() || idle.len() >= IDLE_MAX {
                Some(writer)
            } else {
                idle.push(writer);
                None
            }
        };
        if let Some(writer) = surplus
            && let Err(error) = self.close_segment(writer)
        {
            tracing::warn!(error = %chain(&error), "a segment ends untidily");
        }
    }

    /// Seals a segment; its bytes are synced by whoever still needs them.
    pub(super) fn close_segment(&self, writer: SegmentWriter) -> Result<()> {
        let number = writer.segment().number;
        self.closed(number, writer.seal(self.next_sequence()))
    }

    fn closed(&self, number: u64, closed: Result<Arc<Segment>>) -> Result<()> {
        if let Some(facts) = lock(&self.ledger).segments.get_mut(&number) {
            facts.open = false;
            facts.len = closed.as_ref().map_or(0, |segment| segment.written());
        }
        self.writeback.request(&closed?);
        Ok(())
    }

    /// Bytes of all segments, those that are still written included.
    pub(super) fn log_bytes(&self) -> u64 {
        let log = self.reader.dir.log();
        let disk = self.reader.dir.disk();
        let numbers: Vec<u64> = lock(&self.ledger).segments.keys().copied().collect();
        let len = |number: u64| disk.open(&log.join(segment_name(number)))?.len();
        numbers.into_iter().map(|number| len(number).unwrap_or(0)).fold(0, u64::saturating_add)
    }

    /// Looks how long the segments are that an earlier process wrote, once it is known what is needed
    /// in them.
    pub(super) fn measure_segments(&self) {
        let log = self.reader.dir.log();
        let mut ledger = lock(&self.ledger);
        if ledger.records.is_none() {
            return;
        }
        for (number, facts) in ledger.segments.range_mut(..=self.earlier) {
            let file = self.reader.dir.disk().open(&log.join(segment_name(*number)));
            // One that cannot be measured is not rewritten; whoever reads it will say why.
            facts.len = file.and_then(|file| file.len()).unwrap_or(0);
        }
    }

    /// Ends a segment that failed with `error`, which is what the caller has to know.
    pub(super) fn give_up(&self, writer: SegmentWriter, error: Error) -> Error {
        let number = writer.segment().number;
        if let Err(second) = self.closed(number, writer.close()) {
            tracing::warn!(error = %chain(&second), "a segment ends untidily");
        }
        error
    }

    /// Makes segments durable, and the directory if it has new ones.
    pub(super) fn sync_segments<'a>(
        &self,
        segments: impl Iterator<Item = &'a Arc<Segment>> + Clone,
    ) -> Result<()> {
        for segment in segments.clone() {
            self.poison_on_sync_error(segment.sync())?;
        }
        {
            // Whoever finds the directory synced must not be ahead of the sync.
            let mut is_behind = lock(&self.log_dir_behind);
            if *is_behind {
                self.reader.dir.disk().sync_dir(&self.reader.dir.log()).map_err(|error| {
                    self.poisoned.store(true, Ordering::Release);
                    self.reader.dir.note_poisoned();
                    Error::new(ErrorKind::Poisoned, "syncing the log directory failed")
                        .with_source(error)
                })?;
                *is_behind = false;
            }
        }
        // A base counts once the name of its segment is durable, too.
        let mut ledger = lock(&self.ledger);
        for segment in segments {
            if let Some(facts) = ledger.segments.get_mut(&segment.number) {
                facts.durable_base = Some(segment.base_as_of);
            }
        }
        Ok(())
    }

    /// Makes segments durable that no commit needed: after an orderly close all of the log is.
    pub(super) fn sync_unneeded(&self) -> Result<()> {
        let behind: Vec<u64> = {
            let ledger = lock(&self.ledger);
            let own = ledger.segments.range(self.earlier.saturating_add(1)..);
            own.filter(|(_, facts)| facts.durable_base.is_none())
                .map(|(number, _)| *number)
                .collect()
        };
        for number in behind {
            let path = self.reader.dir.log().join(segment_name(number));
            let synced = self.reader.dir.disk().open(&path).and_then(|file| file.sync_data());
            synced.map_err(|error| Error::io(format!("sync {}", path.display()), error))?;
        }
        Ok(())
    }

    /// Takes segments out of the log that nothing needs.
    pub(super) fn free_segments(&self) {
        let segment_bytes = self.settings.segment_bytes;
        let (frees, spares) = {
            let mut ledger = lock(&self.ledger);
            let frees = ledger.plan_frees();
            for number in &frees {
                ledger.segments.remove(number);
            }
            (frees, ledger.spares_allowed(segment_bytes))
        };
        if let Some(spares) = spares {
            self.spares.trim(spares);
        }
        // CRASH: what is not removed any more is found without live records by the next open.
        for number in frees {
            self.reader.forget(number);
            self.spares.retire(number, segment_bytes, spares.unwrap_or(0));
        }
        self.reclaimer.wake();
    }
}
