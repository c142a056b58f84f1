//! The last frame of a sealed segment: where its frames lie, so that one bad frame does not hide those
//! behind it and no bytes of a body are taken for a frame. Pure but for reading it back.

use crate::error::Result;
use crate::ids::StoreId;
use crate::record::frame::{FIXED_BYTES, Fields};
use crate::record::{Frame, FrameKind};
use crate::storage::sled::log::reader::Reader;

/// The footer's own offset, in the last bytes of the file.
const TRAILER_BYTES: usize = 8;

/// Where the frames of a segment begin, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Footer {
    /// The first is 0; the footer's own is the last.
    pub(super) offsets: Vec<u64>,
}

/// The payload of a footer that will lie at `own`.
pub(super) fn encode_footer(offsets: &[u32], own: u64) -> Vec<u8> {
    let mut payload = Vec::with_capacity(offsets.len() * 4 + TRAILER_BYTES);
    for offset in offsets {
        payload.extend_from_slice(&offset.to_le_bytes());
    }
    payload.extend_from_slice(&own.to_le_bytes());
    payload
}

/// The footer of a segment of `len` bytes, if it has one that is whole: it ends where the file ends.
pub(super) fn read_footer(
    reader: &mut Reader<'_>,
    len: u64,
    number: u64,
    store: StoreId,
) -> Result<Option<Footer>> {
    let Some(at) = len.checked_sub(TRAILER_BYTES as u64) else { return Ok(None) };
    let own = Fields(reader.up_to(at, TRAILER_BYTES)?).u64();
    let longest = (FIXED_BYTES + crate::limits::FRAME_PAYLOAD_BYTES_MAX) as u64;
    let frame_len = len.checked_sub(own).filter(|len| *len <= longest);
    let Some(frame_len) = frame_len.and_then(|len| usize::try_from(len).ok()) else {
        return Ok(None);
    };
    let bytes = reader.up_to(own, frame_len)?;
    let Ok(Frame { header, payload }) = Frame::decode(bytes) else { return Ok(None) };
    let ours =
        header.kind == FrameKind::Footer && header.store == store && header.incarnation == number;
    Ok(ours.then(|| decode_footer(payload, own)).flatten())
}

fn decode_footer(payload: &[u8], own: u64) -> Option<Footer> {
    let (offsets, trailer) = payload.split_last_chunk::<TRAILER_BYTES>()?;
    let (offsets, rest) = offsets.as_chunks::<4>();
    let offsets = offsets.iter().map(|offset| u64::from(u32::from_le_bytes(*offset)));
    let offsets: Vec<u64> = offsets.chain([own]).collect();
    let rises = offsets.windows(2).all(|pair| pair.first() < pair.last());
    let is_whole = u64::from_le_bytes(*trailer) == own && rest.is_empty();
    (is_whole && rises && offsets.first() == Some(&0)).then_some(Footer { offsets })
}
