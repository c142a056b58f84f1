//! Reads a segment frame by frame, whatever its bytes.
//!
//! Bodies of chunks are stepped over: a commit became durable after them, and restoring checks
//! them. All other payloads are checked. Behind damage the scan looks for the next frame of the same
//! segment, so one bad frame does not hide those after it; a frame of another store or another
//! incarnation is the end, whatever its checksum says.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::ids::StoreId;
use crate::record::frame::{HEADER_BYTES_MAX, MAGIC};
use crate::record::{Frame, FrameFault, FrameHeader, FrameKind};
use crate::storage::disk::DiskFile;
use crate::storage::sled::log::Place;
use crate::storage::sled::log::group::inner_frames;

/// What one read fetches at least.
const READ_BYTES: usize = 4096;

/// What one read fetches while looking for the next frame.
const SEARCH_BYTES: usize = 1024 * 1024;

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
}

/// Told of each valid frame; the payload is `None` for a chunk.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(&FrameHeader<'_>, Place, Option<&[u8]>) -> Result<()>;

/// Scans the segment `number`, which lies in `path`.
///
/// # Errors
/// What the disk or `visit` answers; damage is no error here.
pub(crate) fn scan_segment(
    file: &dyn DiskFile,
    path: &Path,
    number: u64,
    store: StoreId,
    visit: Visit<'_>,
) -> Result<SegmentScan> {
    let len = file.len().map_err(|error| read_error(path, error))?;
    let mut reader = Reader { file, path, bytes: Vec::new(), start: 0 };
    let mut found = SegmentScan { len, ..SegmentScan::default() };
    let mut damage: Option<Damage> = None;
    let mut offset = 0;
    while offset < len {
        match read_frame(&mut reader, offset, len, number, store)? {
            Step::Frame { header_len, frame_len } => {
                let bytes = reader.at(offset, header_len)?;
                let header = FrameHeader::decode(bytes)
                    .map_err(|fault| fault_error(path, offset, &fault))?;
                if let Some(mut damage) = damage.take() {
                    damage.len = offset - damage.offset;
                    damage.before = header.sequence;
                    found.damage.push(damage);
                }
                found.last = found.last.max(header.sequence);
                let place = Place { segment: number, offset, len: frame_len };
                if header.kind == FrameKind::Chunk {
                    visit(&header, place, None)?;
                } else {
                    let whole = usize::try_from(frame_len).unwrap_or(usize::MAX);
                    let bytes = reader.at(offset, whole)?.to_vec();
                    let header = FrameHeader::decode(&bytes)
                        .map_err(|fault| fault_error(path, offset, &fault))?;
                    let payload = bytes.get(header_len..).unwrap_or_default();
                    visit(&header, place, Some(payload))?;
                    if header.kind == FrameKind::Group {
                        found.last = found.last.max(visit_group(&header, place, payload, visit)?);
                    }
                }
                offset += frame_len;
                found.end = offset;
            }
            Step::Bad { fault, skip, lowest } => {
                damage.get_or_insert(Damage {
                    file: path.to_owned(),
                    offset,
                    len: 0,
                    fault,
                    after: lowest.map_or(found.last, |id| found.last.min(id.saturating_sub(1))),
                    before: u64::MAX,
                });
                match reader.next_magic(offset + skip, len)? {
                    Some(next) => offset = next,
                    None => break,
                }
            }
            Step::Foreign => {
                found.is_foreign = offset == 0;
                break;
            }
        }
    }
    found.used = reader.used(found.end, len)?;
    Ok(found)
}

/// Tells of the frames of a valid group, each at its own place, and returns the highest sequence
/// number.
fn visit_group(
    group: &FrameHeader<'_>,
    place: Place,
    payload: &[u8],
    visit: Visit<'_>,
) -> Result<u64> {
    let mut last = group.sequence;
    let start = place.offset + group.header_len() as u64;
    for inner in inner_frames(group, payload).unwrap_or_default() {
        last = last.max(inner.header.sequence);
        let offset = start + inner.offset as u64;
        let len = inner.header.frame_len();
        let body = (inner.header.kind != FrameKind::Chunk).then_some(inner.payload);
        visit(&inner.header, Place { segment: place.segment, offset, len }, body)?;
    }
    Ok(last)
}

enum Step {
    Frame {
        header_len: usize,
        frame_len: u64,
    },
    /// The search for the next frame goes on `skip` bytes further.
    Bad {
        fault: FrameFault,
        skip: u64,
        /// The lowest id in a group whose header is whole.
        lowest: Option<u64>,
    },
    Foreign,
}

fn read_frame(
    reader: &mut Reader<'_>,
    offset: u64,
    len: u64,
    incarnation: u64,
    store: StoreId,
) -> Result<Step> {
    let bytes = reader.up_to(offset, HEADER_BYTES_MAX)?;
    let header = match FrameHeader::decode(bytes) {
        Ok(header) => header,
        Err(fault) => return Ok(Step::Bad { fault, skip: 1, lowest: None }),
    };
    if header.store != store || header.incarnation != incarnation {
        return Ok(Step::Foreign);
    }
    if FrameHeader::is_in_group(bytes) {
        let skip = header.frame_len().min(len - offset);
        return Ok(Step::Bad { fault: FrameFault::Grouped, skip, lowest: None });
    }
    let (header_len, frame_len) = (header.header_len(), header.frame_len());
    let lowest = (header.kind == FrameKind::Group).then_some(header.id);
    if frame_len > len - offset {
        let short = usize::try_from(len - offset).unwrap_or(usize::MAX);
        // The header is valid, so its length is believed: nothing lies behind its payload.
        let fault = FrameFault::Short(short);
        return Ok(Step::Bad { fault, skip: len - offset, lowest: None });
    }
    if header.kind != FrameKind::Chunk {
        let whole = usize::try_from(frame_len).unwrap_or(usize::MAX);
        let bytes = reader.at(offset, whole)?;
        if let Err(fault) = check_payload(bytes) {
            return Ok(Step::Bad { fault, skip: frame_len, lowest });
        }
    }
    Ok(Step::Frame { header_len, frame_len })
}

/// A group counts as a whole or not at all.
fn check_payload(bytes: &[u8]) -> Result<(), FrameFault> {
    let Frame { header, payload } = Frame::decode(bytes)?;
    if header.kind == FrameKind::Group {
        inner_frames(&header, payload)?;
    }
    Ok(())
}

/// A window on the file.
struct Reader<'a> {
    file: &'a dyn DiskFile,
    path: &'a Path,
    bytes: Vec<u8>,
    start: u64,
}

impl Reader<'_> {
    /// Up to `len` bytes at `offset`; fewer at the end of the file.
    fn up_to(&mut self, offset: u64, len: usize) -> Result<&[u8]> {
        if !self.holds(offset, len) {
            self.fill(offset, len.max(READ_BYTES))?;
        }
        let from = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        let bytes = self.bytes.get(from..).unwrap_or_default();
        Ok(bytes.get(..len).unwrap_or(bytes))
    }

    /// Exactly `len` bytes at `offset`.
    fn at(&mut self, offset: u64, len: usize) -> Result<&[u8]> {
        let path = self.path;
        let bytes = self.up_to(offset, len)?;
        if bytes.len() < len {
            return Err(Error::corrupt(path, offset, "a frame", len, bytes.len()));
        }
        Ok(bytes)
    }

    fn holds(&self, offset: u64, len: usize) -> bool {
        let end = self.start + self.bytes.len() as u64;
        offset >= self.start && offset.saturating_add(len as u64) <= end
    }

    fn fill(&mut self, offset: u64, len: usize) -> Result<()> {
        self.bytes.resize(len, 0);
        let read = self
            .file
            .read_up_to_at(&mut self.bytes, offset)
            .map_err(|error| read_error(self.path, error))?;
        self.bytes.truncate(read);
        self.start = offset;
        Ok(())
    }

    /// The end of the last byte behind `from` that is not zero, or `from`.
    fn used(&mut self, from: u64, len: u64) -> Result<u64> {
        let (mut offset, mut used) = (from, from);
        while offset < len {
            self.fill(offset, SEARCH_BYTES)?;
            if self.bytes.is_empty() {
                break;
            }
            if let Some(at) = self.bytes.iter().rposition(|byte| *byte != 0) {
                used = offset + at as u64 + 1;
            }
            offset += self.bytes.len() as u64;
        }
        Ok(used)
    }

    /// The offset of the next magic at or behind `from`.
    fn next_magic(&mut self, from: u64, len: u64) -> Result<Option<u64>> {
        let mut offset = from;
        while offset < len {
            self.fill(offset, SEARCH_BYTES)?;
            if self.bytes.len() < MAGIC.len() {
                return Ok(None);
            }
            if let Some(at) = find_magic(&self.bytes) {
                return Ok(Some(offset + at as u64));
            }
            // A magic may straddle two reads.
            offset += (self.bytes.len() - (MAGIC.len() - 1)) as u64;
        }
        Ok(None)
    }
}

fn find_magic(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let rest = bytes.get(from..)?;
        let at = rest.iter().position(|byte| *byte == MAGIC[0])?;
        if rest.get(at..)?.starts_with(&MAGIC) {
            return Some(from + at);
        }
        from += at + 1;
    }
}

fn read_error(path: &Path, error: std::io::Error) -> Error {
    Error::io(format!("read {}", path.display()), error)
}

fn fault_error(path: &Path, offset: u64, fault: &FrameFault) -> Error {
    Error::corrupt(path, offset, "a frame", "a valid header", fault)
}
