//! Doors into the log's own records for fuzz targets; it decides nothing and checks nothing.

use crate::ids::StoreId;
use crate::record::{FrameHeader, FrameKind, Origin};
use crate::storage::sled::log::footer::{Contents, decode_footer, footer_jobs};
use crate::storage::sled::log::group::inner_frames;

/// A footer that says itself where it lies; none of one that names its jobs in another order.
pub(in crate::storage::sled) fn footer_again(payload: &[u8]) -> Option<Vec<u8>> {
    let own = u64::from_le_bytes(*payload.last_chunk()?);
    let offsets = decode_footer(0, payload, own)?.offsets;
    let before = offsets.iter().take(offsets.len().saturating_sub(1));
    let before: Option<Vec<u32>> = before.map(|offset| u32::try_from(*offset).ok()).collect();
    Contents::of(before?, footer_jobs(payload))?.encode(own).ok()
}

/// A group of the segment of its first frame.
pub(in crate::storage::sled) fn group_again(payload: &[u8]) -> Option<Vec<u8>> {
    let first = FrameHeader::decode(payload).ok();
    let group = FrameHeader {
        kind: FrameKind::Group,
        store: first.map_or(StoreId([0; 16]), |first| first.store),
        incarnation: first.map_or(0, |first| first.incarnation),
        sequence: 0,
        id: 0,
        origin: Origin::default(),
        payload_len: 0,
        payload_crc: 0,
    };
    let mut again = Vec::new();
    for inner in inner_frames(&group, payload).ok()? {
        inner.header.encode_in_group(&mut again);
        again.extend_from_slice(inner.payload);
    }
    Some(again)
}
