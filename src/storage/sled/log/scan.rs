//! Reads a segment frame by frame, whatever its bytes.
//!
//! Bodies of chunks are stepped over: a commit became durable after them, and restoring checks
//! them. All other payloads are checked. A sealed segment says where its frames lie, and nothing else in
//! it is believed. In any other, a frame of another store or another incarnation is the end, whatever
//! its checksum says, and behind damage the scan looks for the next frame of the segment: one bad frame
//! does not hide those after it.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::ids::StoreId;
use crate::record::frame::HEADER_BYTES_MAX;
use crate::record::{Frame, FrameFault, FrameHeader, FrameKind};
use crate::storage::disk::DiskFile;
use crate::storage::sled::log::Place;
use crate::storage::sled::log::footer::{Contents, Footer, read_footer};
use crate::storage::sled::log::group::{InnerFrame, inner_frames};
use crate::storage::sled::log::reader::Reader;

/// How many headers of a sealed segment are fetched ahead.
const HEADERS_AHEAD: usize = 16;

/// Bytes that should have been a frame and are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) file: PathBuf,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) fault: FrameFault,
    /// The sequence numbers of the valid frames around it, which whatever stood there lay between.
    pub(crate) after: u64,
    pub(crate) before: u64,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset, len, fault, .. } = self;
        write!(f, "{} at offset {offset}, {len} bytes: {fault}", file.display())
    }
}

/// What a scan found of the segment as a whole.
#[derive(Debug, Default)]
pub(crate) struct SegmentScan {
    /// The end of the last valid frame.
    pub(crate) end: u64,
    /// Damage before `end`; whatever lies behind it was never complete, or has lost its header.
    pub(crate) damage: Vec<Damage>,
    /// The first frame is valid and not of this store, or not of this segment.
    pub(crate) is_foreign: bool,
    /// The sequence number of the last valid frame.
    pub(crate) last: u64,
    /// The length up to the last byte that is not zero, if that is not `end`.
    pub(crate) used: u64,
    /// The length of the file.
    pub(crate) len: u64,
    /// It ends in a footer, which was followed.
    pub(crate) is_sealed: bool,
    /// Of its frames only the footer was looked at.
    pub(crate) is_skipped: bool,
    /// What a footer would say of a segment that has none.
    pub(crate) unsealed: Option<Contents>,
}

/// Told of each valid frame; the payload is `None` for a chunk, and for a frame that is known.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(&FrameHeader<'_>, Place, Option<&[u8]>) -> Result<()>;

/// Scans the segment `number`, which lies in `path`, for somebody who knows what all frames up to
/// `known` say, except for manifests: only the headers of such frames are checked, and of a segment that
/// was sealed by then only the footer.
///
/// # Errors
/// What the disk or `visit` answers; damage is no error here.
pub(crate) fn scan_segment(
    file: &dyn DiskFile,
    path: &Path,
    number: u64,
    store: StoreId,
    known: u64,
    visit: Visit<'_>,
) -> Result<SegmentScan> {
    let io = |error| Error::io(format!("read {}", path.display()), error);
    let len = file.len().map_err(io)?;
    let mut reader = Reader::new(file, path, len);
    let footer = read_footer(&mut reader, len, number, store)?;
    let found = SegmentScan { len, used: len, ..SegmentScan::default() };
    let mut scan = Scan { reader, path, number, store, known, found, pending: Vec::new() };
    match footer {
        Some(footer) => scan.listed(footer, visit)?,
        None => scan.walk(visit)?,
    }
    Ok(scan.found)
}

/// How many bytes a frame has.
#[derive(Clone, Copy)]
enum Room {
    UpTo(u64),
    Exactly(u64),
}

struct Scan<'a> {
    reader: Reader<'a>,
    path: &'a Path,
    number: u64,
    store: StoreId,
    known: u64,
    found: SegmentScan,
    /// Damage behind the last valid frame; a length of 0 is not known yet.
    pending: Vec<Damage>,
}

enum Step {
    /// A valid frame of so many bytes.
    Frame(u64),
    /// The search for the next frame goes on `skip` bytes further.
    Bad {
        fault: FrameFault,
        skip: u64,
        /// The lowest id in a group whose header is whole.
        lowest: Option<u64>,
    },
    Foreign,
}

impl Step {
    fn bad(fault: FrameFault, skip: u64) -> Self {
        Self::Bad { fault, skip, lowest: None }
    }
}

impl Scan<'_> {
    /// From frame to frame, with a search behind damage.
    fn walk(&mut self, visit: Visit<'_>) -> Result<()> {
        let len = self.found.len;
        let mut offset = 0;
        let (mut contents, mut offsets) = (Contents::default(), Vec::new());
        let mut noted = |header: &FrameHeader<'_>, place, payload: Option<&[u8]>| {
            contents.see(&header.origin);
            visit(header, place, payload)
        };
        while offset < len {
            match self.frame(offset, Room::UpTo(len - offset), &mut noted)? {
                Step::Frame(frame_len) => {
                    offsets.extend(u32::try_from(offset));
                    offset += frame_len;
                    self.found.end = offset;
                }
                Step::Bad { fault, skip, lowest } => {
                    self.damaged(offset, 0, fault, lowest);
                    let found = self.reader.next_magic(offset + skip, len)?;
                    let Some(next) = found.next else {
                        // The bytes that were stepped over are of a frame that is not whole.
                        self.found.used = found.used;
                        if found.used <= offset + skip {
                            self.found.used = self.reader.used(self.found.end, offset + skip)?;
                        }
                        break;
                    };
                    offset = next;
                }
                Step::Foreign => {
                    self.found.is_foreign = offset == 0;
                    if offset > 0 && self.pending.is_empty() {
                        // A spare's bytes of before.
                        self.found.used = offset;
                    }
                    break;
                }
            }
        }
        contents.offsets = offsets;
        let is_whole = self.found.damage.is_empty() && !self.found.is_foreign;
        self.found.unsealed = is_whole.then_some(contents);
        Ok(())
    }

    /// The frames that a footer names, and nothing else.
    fn listed(&mut self, footer: Footer, visit: Visit<'_>) -> Result<()> {
        self.found.is_sealed = true;
        self.found.end = self.found.len;
        let Footer { sequence, mut offsets } = footer;
        if sequence <= self.known {
            self.found.is_skipped = true;
            offsets.drain(..offsets.len().saturating_sub(1));
        }
        let ends: Vec<u64> = offsets.iter().skip(1).copied().chain([self.found.len]).collect();
        for (place, (&offset, end)) in offsets.iter().zip(ends).enumerate() {
            if let Some(later) = offsets.get(place + HEADERS_AHEAD) {
                self.reader.will_need(*later, HEADER_BYTES_MAX as u64);
            }
            let room = end - offset;
            match self.frame(offset, Room::Exactly(room), visit)? {
                Step::Frame(_) => {}
                Step::Bad { fault, lowest, .. } => self.damaged(offset, room, fault, lowest),
                Step::Foreign => self.damaged(offset, room, FrameFault::Foreign, None),
            }
        }
        Ok(())
    }

    fn damaged(&mut self, offset: u64, len: u64, fault: FrameFault, lowest: Option<u64>) {
        // Where its end is not known, damage goes on up to the next valid frame.
        if self.pending.last().is_some_and(|last| last.len == 0) {
            return;
        }
        let last = self.found.last;
        let after = lowest.map_or(last, |id| last.min(id.saturating_sub(1)));
        let file = self.path.to_owned();
        self.pending.push(Damage { file, offset, len, fault, after, before: u64::MAX });
    }

    /// Looks at the frame at `offset` and tells of it if it is valid.
    fn frame(&mut self, offset: u64, room: Room, visit: Visit<'_>) -> Result<Step> {
        let bytes = self.reader.up_to(offset, HEADER_BYTES_MAX)?;
        let header = match FrameHeader::decode(bytes) {
            Ok(header) => header,
            Err(fault) => return Ok(Step::bad(fault, 1)),
        };
        if header.store != self.store || header.incarnation != self.number {
            return Ok(Step::Foreign);
        }
        let len = header.frame_len();
        let place = Place { segment: self.number, offset, len };
        let sequence = header.sequence;
        match room {
            Room::UpTo(room) if len > room => {
                // The header is valid, so its length is believed: nothing lies behind its payload.
                let short = usize::try_from(room).unwrap_or(usize::MAX);
                return Ok(Step::bad(FrameFault::Short(short), room));
            }
            Room::Exactly(room) if len != room => {
                return Ok(Step::bad(FrameFault::Length { expected: room, found: len }, room));
            }
            _ if FrameHeader::is_in_group(bytes) => {
                return Ok(Step::bad(FrameFault::Grouped, len));
            }
            _ if header.kind == FrameKind::Chunk || is_known(&header, self.known) => {
                visit(&header, place, None)?;
                self.valid(offset, sequence, sequence);
                return Ok(Step::Frame(len));
            }
            _ => {}
        }
        let lowest = (header.kind == FrameKind::Group).then_some(header.id);
        let whole = usize::try_from(len).unwrap_or(usize::MAX);
        let bytes = self.reader.at(offset, whole)?;
        let (frame, inner) = match checked(bytes) {
            Ok(checked) => checked,
            Err(fault) => return Ok(Step::Bad { fault, skip: len, lowest }),
        };
        visit(&frame.header, place, Some(frame.payload))?;
        let mut last = sequence;
        let start = offset + frame.header.header_len() as u64;
        for InnerFrame { header, payload, offset } in inner {
            last = last.max(header.sequence);
            let len = header.frame_len();
            let place = Place { segment: self.number, offset: start + offset as u64, len };
            visit(&header, place, (header.kind != FrameKind::Chunk).then_some(payload))?;
        }
        self.valid(offset, sequence, last);
        Ok(Step::Frame(len))
    }

    /// Notes a valid frame at `offset`, and with it the end of the damage before it.
    fn valid(&mut self, offset: u64, first: u64, last: u64) {
        for mut damage in self.pending.drain(..) {
            if damage.len == 0 {
                damage.len = offset - damage.offset;
            }
            damage.before = first;
            self.found.damage.push(damage);
        }
        self.found.last = self.found.last.max(last);
    }
}

/// The commit over a manifest may come much later than the manifest: that is never known.
fn is_known(header: &FrameHeader<'_>, known: u64) -> bool {
    let may_be_news = matches!(header.kind, FrameKind::Manifest | FrameKind::Footer);
    header.sequence <= known && !may_be_news
}

/// A frame that is exactly `bytes`, and the frames in it: a group counts as a whole or not at all.
fn checked(bytes: &[u8]) -> Result<(Frame<'_>, Vec<InnerFrame<'_>>), FrameFault> {
    let frame = Frame::decode(bytes)?;
    let is_group = frame.header.kind == FrameKind::Group;
    let inner = if is_group { inner_frames(&frame.header, frame.payload)? } else { Vec::new() };
    Ok((frame, inner))
}
