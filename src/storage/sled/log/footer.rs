//! The last frame of a sealed segment: where its frames lie, so that one bad frame does not hide those
//! behind it and no bytes of a body are taken for a frame. Pure but for reading it back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::{Attempt, CheckpointId, StoreId};
use crate::limits::FRAME_PAYLOAD_BYTES_MAX;
use crate::record::frame::{FIXED_BYTES, Fields};
use crate::record::{Frame, FrameKind, Origin, codec};
use crate::storage::sled::log::reader::Reader;

/// The footer's own offset, in the last bytes of the file.
const TRAILER_BYTES: usize = 8;

/// What is read at the end of a file before the length of its footer is known.
const GUESS_BYTES: u64 = 4096;

/// The highest numbers that frames of one job carry in a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JobSeen {
    pub(crate) job: String,
    pub(crate) attempt: Attempt,
    pub(crate) checkpoint: CheckpointId,
}

/// What a footer will say of the frames before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) offsets: Vec<u32>,
    /// By job.
    seen: BTreeMap<String, JobSeen>,
}

impl Contents {
    /// The same of what a footer says; `None` when that is not as it would be written.
    #[cfg(any(test, fuzzing, feature = "test-util"))]
    pub(super) fn of(offsets: Vec<u32>, jobs: Vec<JobSeen>) -> Option<Self> {
        let is_sorted = jobs.is_sorted_by(|one, next| one.job < next.job);
        let seen = jobs.into_iter().map(|seen| (seen.job.clone(), seen)).collect();
        is_sorted.then_some(Self { offsets, seen })
    }

    pub(crate) fn see(&mut self, origin: &Origin<'_>) {
        let Origin { job, attempt, checkpoint, .. } = *origin;
        if job.is_empty() {
            return;
        }
        if let Some(seen) = self.seen.get_mut(job) {
            seen.attempt = seen.attempt.max(attempt);
            seen.checkpoint = seen.checkpoint.max(checkpoint);
        } else {
            let job = job.to_owned();
            self.seen.insert(job.clone(), JobSeen { job, attempt, checkpoint });
        }
    }

    /// The payload of a footer that will lie at `own`.
    ///
    /// # Errors
    /// `Invalid` when there is too much to say for one frame.
    pub(crate) fn encode(&self, own: u64) -> Result<Vec<u8>> {
        let seen: Vec<&JobSeen> = self.seen.values().collect();
        let count = u32::try_from(self.offsets.len())
            .map_err(|_| Error::invalid("a segment of too many frames"))?;
        let mut payload = Vec::with_capacity(self.offsets.len() * 4 + 64);
        payload.extend_from_slice(&count.to_le_bytes());
        for offset in &self.offsets {
            payload.extend_from_slice(&offset.to_le_bytes());
        }
        codec::encode_list(&seen, &mut payload)?;
        payload.extend_from_slice(&own.to_le_bytes());
        Ok(payload)
    }
}

/// What a whole footer says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) sequence: u64,
    /// Where frames begin, in order. The first is 0; the footer's own is the last.
    pub(super) offsets: Vec<u64>,
}

/// The footer of a segment of `len` bytes, if it has one that is whole: it ends where the file ends.
pub(super) fn read_footer(
    reader: &mut Reader<'_>,
    len: u64,
    number: u64,
    store: StoreId,
) -> Result<Option<Footer>> {
    let Some(at) = len.checked_sub(TRAILER_BYTES as u64) else { return Ok(None) };
    // A footer is short most of the time: its trailer and all of it come with one read.
    let guess = len.saturating_sub(GUESS_BYTES);
    let (start, skip) = (guess, usize::try_from(at - guess).unwrap_or(usize::MAX));
    let tail = reader.up_to(start, skip.saturating_add(TRAILER_BYTES))?;
    let own = Fields(tail.get(skip..).unwrap_or_default()).u64();
    let longest = (FIXED_BYTES + FRAME_PAYLOAD_BYTES_MAX) as u64;
    let frame_len = len.checked_sub(own).filter(|len| *len <= longest);
    let Some(frame_len) = frame_len.and_then(|len| usize::try_from(len).ok()) else {
        return Ok(None);
    };
    let bytes = reader.up_to(own, frame_len)?;
    let Ok(Frame { header, payload }) = Frame::decode(bytes) else { return Ok(None) };
    let ours =
        header.kind == FrameKind::Footer && header.store == store && header.incarnation == number;
    Ok(ours.then(|| decode_footer(header.sequence, payload, own)).flatten())
}

pub(super) fn decode_footer(sequence: u64, payload: &[u8], own: u64) -> Option<Footer> {
    let (offsets, rest) = take_offsets(payload)?;
    let (seen, trailer) = rest.split_last_chunk::<TRAILER_BYTES>()?;
    let offsets: Vec<u64> = offsets.chain([own]).collect();
    let rises = offsets.windows(2).all(|pair| pair.first() < pair.last());
    let is_whole =
        u64::from_le_bytes(*trailer) == own && codec::decode_list::<JobSeen>(seen).is_ok();
    (is_whole && rises && offsets.first() == Some(&0)).then_some(Footer { sequence, offsets })
}

fn take_offsets(payload: &[u8]) -> Option<(impl Iterator<Item = u64>, &[u8])> {
    let (count, rest) = payload.split_first_chunk::<4>()?;
    let bytes = usize::try_from(u32::from_le_bytes(*count)).ok()?.checked_mul(4)?;
    let (offsets, rest) = rest.split_at_checked(bytes)?;
    let (offsets, _) = offsets.as_chunks::<4>();
    Some((offsets.iter().map(|offset| u64::from(u32::from_le_bytes(*offset))), rest))
}

/// The jobs of whose frames a footer with this payload tells.
pub(crate) fn footer_jobs(payload: &[u8]) -> Vec<JobSeen> {
    let jobs = take_offsets(payload)
        .and_then(|(_, rest)| rest.split_last_chunk::<TRAILER_BYTES>())
        .and_then(|(seen, _)| codec::decode_list(seen).ok());
    jobs.unwrap_or_default()
}
