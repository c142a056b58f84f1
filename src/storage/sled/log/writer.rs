//! Appends frames to one open segment through one reused buffer.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::StoreId;
use crate::limits::{WRITE_BUFFER_BYTES, WRITEBACK_BYTES};
use crate::record::{FrameHeader, FrameKind, Origin, Payload};
use crate::storage::sled::log::footer::Contents;
use crate::storage::sled::log::{Place, Segment, Writeback};

/// A payload of so many bytes goes to the file from where it lies: a copy would cost more than a call.
const DIRECT_BYTES: usize = 128 * 1024;

/// Preallocation starts with this many bytes and doubles.
const PREALLOCATE_FIRST: u64 = 1024 * 1024;

/// What the first frames of a segment say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SegmentHead<'a> {
    pub(crate) store: StoreId,
    pub(crate) base: &'a [u8],
    /// The sequence number of the base frame.
    pub(crate) base_sequence: u64,
    /// The most bytes to reserve ahead of the data.
    pub(crate) preallocate_max: u64,
    /// The length at which the segment is full.
    pub(crate) segment_bytes: u64,
    /// Bytes that the file has already.
    pub(crate) reserved: u64,
}

/// The one writer of an open segment.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    segment: Arc<Segment>,
    store: StoreId,
    buffer: Vec<u8>,
    /// Where the buffer goes in the file.
    flushed: u64,
    /// Up to where a sync was asked for.
    requested: u64,
    preallocated: u64,
    preallocate_max: u64,
    segment_bytes: u64,
    /// A part of a frame may lie behind what was flushed.
    is_torn: bool,
    /// What the footer will say; none when a frame lies where it cannot say so.
    contents: Option<Contents>,
}

impl SegmentWriter {
    /// Opens a segment: its header and base frame stand in the buffer, nothing is written yet.
    ///
    /// # Errors
    /// `Invalid` when the base is too long for a frame.
    pub(crate) fn new(segment: Arc<Segment>, head: SegmentHead<'_>) -> Result<Self> {
        let mut writer = Self {
            store: head.store,
            buffer: Vec::with_capacity(WRITE_BUFFER_BYTES + WRITE_BUFFER_BYTES / 2),
            flushed: 0,
            requested: 0,
            preallocated: head.reserved,
            preallocate_max: head.preallocate_max,
            segment_bytes: head.segment_bytes,
            is_torn: false,
            contents: Some(Contents::default()),
            segment,
        };
        let number = writer.segment.number;
        let origin = Origin::default();
        writer.buffered(FrameKind::Segment, origin, number, Payload::of(&[]))?;
        writer.buffered(FrameKind::Base, origin, head.base_sequence, Payload::of(head.base))?;
        Ok(writer)
    }

    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// The offset of the next frame.
    pub(crate) fn end(&self) -> u64 {
        self.flushed + self.buffer.len() as u64
    }

    /// Bytes of the file, reserved ones included.
    pub(crate) fn file_len(&self) -> u64 {
        self.end().max(self.preallocated)
    }

    /// True when the segment is as long as segments get.
    pub(crate) fn is_full(&self) -> bool {
        self.end() >= self.segment_bytes
    }

    /// Appends a frame; `sequence` is also the record's id.
    ///
    /// # Errors
    /// `Invalid` when the payload is too long; what the disk answers otherwise. After an error the
    /// writer must be given up with [`close`](Self::close).
    pub(crate) fn append<'a>(
        &mut self,
        kind: FrameKind,
        origin: Origin<'a>,
        sequence: u64,
        payload: Payload<'_>,
        writeback: &Writeback,
    ) -> Result<(FrameHeader<'a>, Place)> {
        let place = (self.store, self.segment.number);
        let header = FrameHeader::first(kind, place, sequence, origin, payload)?;
        let place = if payload.bytes().len() < DIRECT_BYTES {
            self.framed(&header, payload.bytes())
        } else {
            self.direct(&header, payload.bytes())?
        };
        self.pass_on(writeback)?;
        Ok((header, place))
    }

    /// Hands a frame to the file, with all that was appended before it.
    fn direct(&mut self, header: &FrameHeader<'_>, payload: &[u8]) -> Result<Place> {
        let (start, before) = (self.end(), self.buffer.len());
        self.note(start, &header.origin);
        header.encode(&mut self.buffer);
        let end = start + header.frame_len();
        self.preallocate(end);
        // CRASH: a header without its whole payload is the end of the segment.
        let written = self.write_at(&self.buffer, self.flushed);
        let written = written.and_then(|()| self.write_at(payload, self.end()));
        if written.is_err() {
            self.buffer.truncate(before);
            self.is_torn = true;
        }
        written?;
        self.buffer.clear();
        self.flushed = end;
        self.segment.wrote(end);
        Ok(Place { segment: self.segment.number, offset: start, len: header.frame_len() })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.segment
            .file()
            .write_all_at(bytes, offset)
            .map_err(|error| Error::io(format!("write {}", self.segment.path().display()), error))
    }

    /// Appends a record that lies elsewhere, too: what its header says stays, but for the place and
    /// the sequence number.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub(crate) fn append_as(
        &mut self,
        header: &FrameHeader<'_>,
        sequence: u64,
        payload: &[u8],
        writeback: &Writeback,
    ) -> Result<Place> {
        let incarnation = self.segment.number;
        let place = self.framed(&FrameHeader { incarnation, sequence, ..*header }, payload);
        self.pass_on(writeback)?;
        Ok(place)
    }

    /// Writes a full buffer, and has a long stretch synced early.
    fn pass_on(&mut self, writeback: &Writeback) -> Result<()> {
        if self.buffer.len() >= WRITE_BUFFER_BYTES {
            self.flush()?;
        }
        if self.flushed - self.requested >= WRITEBACK_BYTES {
            self.requested = self.flushed;
            writeback.request(&self.segment);
        }
        Ok(())
    }

    fn buffered<'a>(
        &mut self,
        kind: FrameKind,
        origin: Origin<'a>,
        sequence: u64,
        payload: Payload<'_>,
    ) -> Result<(FrameHeader<'a>, Place)> {
        let place = (self.store, self.segment.number);
        let header = FrameHeader::first(kind, place, sequence, origin, payload)?;
        let place = self.framed(&header, payload.bytes());
        Ok((header, place))
    }

    fn framed(&mut self, header: &FrameHeader<'_>, payload: &[u8]) -> Place {
        let offset = self.end();
        self.note(offset, &header.origin);
        header.encode(&mut self.buffer);
        self.buffer.extend_from_slice(payload);
        Place { segment: self.segment.number, offset, len: header.frame_len() }
    }

    fn note(&mut self, offset: u64, origin: &Origin<'_>) {
        let offset = u32::try_from(offset).ok();
        self.contents = self.contents.take().zip(offset).map(|(mut contents, offset)| {
            contents.offsets.push(offset);
            contents.see(origin);
            contents
        });
    }

    /// Hands everything appended so far to the file.
    ///
    /// # Errors
    /// What the disk answers.
    pub(crate) fn flush(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let end = self.end();
        self.preallocate(end);
        self.write_at(&self.buffer, self.flushed)?;
        self.buffer.clear();
        self.flushed = end;
        self.segment.wrote(end);
        Ok(())
    }

    /// Keeps reserved space ahead of `end`. It only saves time: a failure is no error here, the
    /// write itself will tell.
    fn preallocate(&mut self, end: u64) {
        if end <= self.preallocated {
            return;
        }
        let longest = self.segment_bytes.max(end);
        let wanted = (self.preallocated * 2).max(PREALLOCATE_FIRST).max(end).min(longest);
        if wanted <= self.preallocate_max && self.segment.file().preallocate(wanted).is_ok() {
            self.preallocated = wanted;
        } else {
            self.preallocate_max = 0;
        }
    }

    /// Ends the segment with a footer that has this sequence number. Nothing becomes durable here.
    ///
    /// # Errors
    /// What the disk answers; the segment is closed all the same.
    pub(crate) fn seal(mut self, sequence: u64) -> Result<Arc<Segment>> {
        let flushed = self.flush();
        let mut is_torn = self.is_torn || flushed.is_err();
        if let (Ok(()), Some(contents)) = (&flushed, self.contents.take()) {
            let payload = contents.encode(self.end())?;
            self.buffered(FrameKind::Footer, Origin::default(), sequence, Payload::of(&payload))?;
            // CRASH: with a part of its footer the segment is as one that was never sealed.
            is_torn = self.flush().is_err();
        }
        self.cut(is_torn)?;
        flushed?;
        Ok(self.segment)
    }

    /// Ends the segment at its last whole frame. Nothing becomes durable here.
    ///
    /// # Errors
    /// What the disk answers; the segment is closed all the same.
    pub(crate) fn close(mut self) -> Result<Arc<Segment>> {
        let flushed = self.flush();
        self.cut(self.is_torn || flushed.is_err())?;
        flushed?;
        Ok(self.segment)
    }

    /// Ends the segment at `end`, where it ended before, whatever was appended since: durably, so that
    /// nothing of it counts later.
    ///
    /// # Errors
    /// `Poisoned` when it may count.
    pub(crate) fn take_back(self, end: u64) -> Result<Arc<Segment>> {
        let (end, file) = (end.min(self.flushed), self.segment.file());
        file.set_len(end).and_then(|()| file.sync_data()).map_err(|error| {
            let message = format!("shortening {} failed", self.segment.path().display());
            Error::new(ErrorKind::Poisoned, message).with_source(error)
        })?;
        self.segment.wrote(end);
        Ok(self.segment)
    }

    fn cut(&self, is_torn: bool) -> Result<()> {
        if self.preallocated > self.flushed || is_torn {
            // CRASH: before the cut the segment ends in zeros or a torn frame, which the scan
            // takes for its end.
            self.segment.file().set_len(self.flushed).map_err(|error| {
                Error::io(format!("shorten {}", self.segment.path().display()), error)
            })?;
        }
        Ok(())
    }
}
