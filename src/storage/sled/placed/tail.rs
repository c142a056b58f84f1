//! The end of sled's file as it was before sled saw it. When sled meets damage there it overwrites what
//! is behind it, whole records included.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Result};
use crate::record::{Frame, FrameHeader, FrameKind};
use crate::storage::disk::{Disk, DiskFile};
use crate::storage::sled::kv::SledSettings;
use crate::storage::sled::placed::carve::find_magic;
use crate::storage::sled::placed::engine::DB;
use crate::storage::sled::placed::layout::Layout;

/// sled judges by its last two segments which of the others to believe; one more may be begun, and one
/// header may be damaged.
const SEGMENTS: usize = 4;

/// The header of a segment of sled: checksum (4), and its position in the log (8) with another (8), each
/// with all bits but the highest inverted.
const SLED_HEADER_BYTES: usize = 20;

const INVERTED: u64 = 0x7fff_ffff_ffff_ffff;

/// The segments with the highest positions in sled's log.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// By their offsets in the file.
    segments: BTreeMap<u64, Vec<u8>>,
}

/// The newest job records in a tail.
#[derive(Debug, Default)]
pub(super) struct Newest {
    pub(super) jobs: BTreeMap<String, u64>,
    pub(super) sequence_max: u64,
}

impl Tail {
    /// Reads the end of sled's file in `dir`; nothing when there is none.
    ///
    /// # Errors
    /// What the disk answers.
    pub(super) fn read(disk: &dyn Disk, dir: &Path) -> Result<Self> {
        let io = |error| Error::io(format!("read {}", dir.join(DB).display()), error);
        let file = match disk.open(&dir.join(DB)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            file => file.map_err(io)?,
        };
        let size = SledSettings::BODIES.segment_bytes;
        let mut positions = positions(&*file).map_err(io)?;
        positions.sort_unstable();
        let mut segments = BTreeMap::new();
        for (_, offset) in positions.into_iter().rev().take(SEGMENTS) {
            let mut bytes = vec![0; size];
            let read = file.read_up_to_at(&mut bytes, offset).map_err(io)?;
            bytes.truncate(read);
            segments.insert(offset, bytes);
        }
        Ok(Self { segments })
    }

    /// Which job records it has, and the highest sequence number of all.
    pub(super) fn newest(&self, layout: Layout) -> Newest {
        let mut newest = Newest::default();
        for bytes in self.segments.values() {
            let mut from = 0;
            while let Some(at) = find_magic(bytes, from) {
                from = at + 1;
                let rest = bytes.get(at..).unwrap_or_default();
                let Ok(header) = FrameHeader::decode(rest) else { continue };
                let Layout { store, incarnation } = layout;
                if header.store != store || header.incarnation != incarnation {
                    continue;
                }
                let len = usize::try_from(header.frame_len()).unwrap_or(usize::MAX);
                newest.sequence_max = newest.sequence_max.max(header.sequence);
                if header.kind != FrameKind::Job {
                    continue;
                }
                if rest.get(..len).is_some_and(|frame| Frame::decode(frame).is_ok()) {
                    let known = newest.jobs.entry(header.origin.job.to_owned()).or_default();
                    *known = header.sequence.max(*known);
                }
            }
        }
        newest
    }

    pub(super) fn is_empty(&self) -> bool {
        self.segments.values().all(Vec::is_empty)
    }

    /// Puts back what stood there.
    ///
    /// # Errors
    /// What the disk answers.
    pub(super) fn write_back(&self, dir: &Path) -> Result<()> {
        let io = |error| Error::io(format!("write {}", dir.join(DB).display()), error);
        let file = std::fs::File::options().write(true).open(dir.join(DB)).map_err(io)?;
        for (offset, bytes) in &self.segments {
            DiskFile::write_all_at(&file, bytes, *offset).map_err(io)?;
        }
        file.sync_all().map_err(io)
    }

    pub(super) fn into_segments(self) -> impl Iterator<Item = Vec<u8>> {
        self.segments.into_values()
    }
}

/// Where in sled's log the segments of a file stand, each with its offset.
pub(crate) fn positions(file: &dyn DiskFile) -> std::io::Result<Vec<(u64, u64)>> {
    let mut positions = Vec::new();
    for offset in (0..file.len()?).step_by(SledSettings::BODIES.segment_bytes) {
        let mut header = [0; SLED_HEADER_BYTES];
        file.read_up_to_at(&mut header, offset)?;
        positions.push((position(&header), offset));
    }
    Ok(positions)
}

/// Where in sled's log the newest segment of a file stands that has a whole header.
pub(super) fn newest_position(file: &dyn DiskFile) -> std::io::Result<u64> {
    let positions = positions(file)?.into_iter().map(|(position, _)| position);
    Ok(positions.filter(|position| *position != u64::MAX).max().unwrap_or(0))
}

/// Where in sled's log a segment stands; a damaged header may stand anywhere.
fn position(header: &[u8; SLED_HEADER_BYTES]) -> u64 {
    let Some((checksum, rest)) = header.split_first_chunk::<4>() else { return 0 };
    if rest.iter().all(|byte| *byte == 0) {
        return 0;
    }
    let expected = u32::from_le_bytes(*checksum) ^ u32::MAX;
    let position = rest.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    if crc32fast::hash(rest) == expected { position ^ INVERTED } else { u64::MAX }
}
