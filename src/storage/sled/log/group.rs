//! Reads the frames within a group.
//!
//! A group is one frame whose payload is whole frames; its one payload checksum makes them count
//! together or not at all. Pure; it knows no file.

use crate::record::{Frame, FrameFault, FrameHeader, FrameKind};

/// A frame within a group.
#[derive(Debug)]
pub(super) struct InnerFrame<'a> {
    pub(super) header: FrameHeader<'a>,
    pub(super) payload: &'a [u8],
    /// Where it lies in the group's payload.
    pub(super) offset: usize,
}

/// The frames that `payload` is made of, in their order.
///
/// # Errors
/// `Group` when it is anything but whole frames of the group's own segment, each marked as part of
/// a group and of a kind that a group may hold.
pub(super) fn inner_frames<'a>(
    group: &FrameHeader<'_>,
    payload: &'a [u8],
) -> Result<Vec<InnerFrame<'a>>, FrameFault> {
    let mut frames = Vec::new();
    let mut offset = 0;
    while let Some(rest) = payload.get(offset..).filter(|rest| !rest.is_empty()) {
        let header = FrameHeader::decode(rest)?;
        let len = usize::try_from(header.frame_len()).map_err(|_| FrameFault::Group)?;
        let bytes = rest.get(..len).ok_or(FrameFault::Group)?;
        let Frame { header, payload } = Frame::decode(bytes)?;
        let ours = header.store == group.store && header.incarnation == group.incarnation;
        if !ours || !FrameHeader::is_in_group(bytes) || !may_hold(header.kind) {
            return Err(FrameFault::Group);
        }
        frames.push(InnerFrame { header, payload, offset });
        offset += len;
    }
    Ok(frames)
}

fn may_hold(kind: FrameKind) -> bool {
    matches!(
        kind,
        FrameKind::Attempt
            | FrameKind::Chunk
            | FrameKind::Manifest
            | FrameKind::Commit
            | FrameKind::Drop
            | FrameKind::Finish
            | FrameKind::Pin
    )
}
