//! Seals a segment that nobody closed.

use crate::error::{Error, Result};
use crate::ids::StoreId;
use crate::record::{FrameHeader, FrameKind, Origin, Payload};
use crate::storage::disk::DiskFile;
use crate::storage::sled::log::SegmentScan;

/// Ends a segment at its last valid frame with a footer of this sequence number; nothing becomes durable.
/// False when something else than reserved space or what a spare held before stands behind that frame, or
/// there is damage: who looks for what was lost may want it.
///
/// # Errors
/// What the disk answers.
pub(crate) fn seal_segment(
    file: &dyn DiskFile,
    number: u64,
    store: StoreId,
    scan: &SegmentScan,
    sequence: u64,
) -> Result<bool> {
    let Some(contents) = scan.unsealed.as_ref().filter(|_| scan.used == scan.end && scan.end > 0)
    else {
        return Ok(false);
    };
    let payload = contents.encode(scan.end)?;
    let (kind, place) = (FrameKind::Footer, (store, number));
    let header =
        FrameHeader::first(kind, place, sequence, Origin::default(), Payload::of(&payload))?;
    // CRASH: with a part of the footer the segment is as one that was never sealed.
    let sealed =
        file.set_len(scan.end).and_then(|()| file.write_all_at(&header.frame(&payload), scan.end));
    sealed.map_err(|error| Error::io(format!("seal segment {number}"), error))?;
    Ok(true)
}
