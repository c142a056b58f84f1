//! The frame at the start of a `_metadata` that a host wrote: which stream follows.
//!
//! Its kind is its own, so that nobody takes it for a commit of the crate's. The payload is the name
//! (16), the seed (8) and the length (8); the blocks follow.

use std::path::Path;

use crate::error::{Error, Result};
use crate::ids::{Attempt, CheckpointId, JobId, StoreId};
use crate::record::frame::Fields;
use crate::record::{FrameKind, Origin};
use crate::storage::disk::Disk;
use crate::storage::filesystem::frames::FrameFile;
use crate::storage::filesystem::metadata;
use crate::storage::stream::{Place, Realm, Stored, StreamName, StreamStateHandle};

/// Where a frame says its kind.
const KIND_AT: usize = 10;

/// Bytes of the payload.
const PAYLOAD_BYTES: usize = 32;

/// The payload.
pub(in crate::storage::filesystem) struct HeadFields {
    name: StreamName,
    seed: u64,
    len: u64,
}

impl HeadFields {
    pub(in crate::storage::filesystem) fn encode(&self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(PAYLOAD_BYTES);
        payload.extend_from_slice(&self.name.0);
        payload.extend_from_slice(&self.seed.to_le_bytes());
        payload.extend_from_slice(&self.len.to_le_bytes());
        payload
    }

    pub(in crate::storage::filesystem) fn decode(payload: &[u8]) -> Option<Self> {
        let mut fields = Fields(payload);
        let name = StreamName(fields.take());
        let fields = Self { name, seed: fields.u64(), len: fields.u64() };
        (payload.len() == PAYLOAD_BYTES).then_some(fields)
    }
}

/// The frame.
///
/// # Errors
/// None that can happen: the payload is short.
pub(super) fn encode(
    store: StoreId,
    job: &JobId,
    id: CheckpointId,
    attempt: Attempt,
    stored: &Stored,
) -> Result<Vec<u8>> {
    let Stored { name, seed, len, .. } = *stored;
    let payload = HeadFields { name, seed, len }.encode();
    let origin = Origin { job: job.as_str(), checkpoint: id, attempt, ..Origin::default() };
    let place = metadata::Place { store, incarnation: 0 };
    Ok(place.header(FrameKind::HostMetadata, 0, origin, &payload)?.frame(&payload))
}

/// Reads the head of a `_metadata`: the host's handle and where its blocks begin; `None` when the file
/// is no host's.
///
/// # Errors
/// `Corrupt` when it is a host's and damaged; what the disk answers.
pub(in crate::storage::filesystem) fn host_metadata(
    disk: &dyn Disk,
    path: &Path,
    store: StoreId,
    job: &JobId,
    id: CheckpointId,
) -> Result<Option<(StreamStateHandle, u64)>> {
    let read = |error| Error::io(format!("read {}", path.display()), error);
    let mut start = [0; KIND_AT + 1];
    disk.open(path).map_err(read)?.read_up_to_at(&mut start, 0).map_err(read)?;
    if start.last() != Some(&(FrameKind::HostMetadata as u8)) {
        return Ok(None);
    }
    let what = "the head of a host's metadata";
    let Some(file) = FrameFile::open(disk, path)? else { return Ok(None) };
    let mut buffer = Vec::new();
    let frame = file.frame(0, what, &mut buffer)?;
    let (header, payload) = (frame.header, frame.payload);
    let origin = header.origin;
    let wanted =
        Origin { job: job.as_str(), checkpoint: id, attempt: origin.attempt, ..Origin::default() };
    let (realm, place) = (Realm::new(store, job), Place::Metadata(id));
    let ours = header.kind == FrameKind::HostMetadata && header.store == store && origin == wanted;
    let fields =
        HeadFields::decode(payload).filter(|fields| ours && fields.name.is_of(realm, place));
    let Some(HeadFields { name, seed, len }) = fields else {
        let expected = format!("metadata of checkpoint {id} of job {job}");
        let found = format!("a {:?} of {origin:?}", header.kind);
        return Err(file.corrupt(0, what, expected, found));
    };
    let stored = Stored { realm, place, name, len, seed };
    Ok(Some((StreamStateHandle::new(stored, None), header.frame_len())))
}
