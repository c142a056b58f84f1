//! The frame: every record in the log and in sled is one.
//!
//! A header of [`FIXED_BYTES`] bytes, the three names of its origin, then the payload. The header
//! binds the payload to the store, the segment incarnation and the origin, so that a valid frame in
//! the wrong place is seen. Two checksums: a damaged header is never believed about the length of
//! its payload.

use crc32fast::Hasher;

use crate::error::{Error, Result};
use crate::ids::{Attempt, CheckpointId, JobId, StoreId, TaskId};
use crate::limits::{FRAME_PAYLOAD_BYTES_MAX, NAME_BYTES_MAX};
use crate::record::FORMAT_VERSION;

/// Survives neither text-mode transfer nor a cleared high bit.
pub(crate) const MAGIC: [u8; 8] = [0x89, b'T', b'G', b'F', 0x0d, 0x0a, 0x1a, 0x0a];

/// The header without the names.
pub(crate) const FIXED_BYTES: usize = 88;

/// The header with the longest names.
pub(crate) const HEADER_BYTES_MAX: usize = FIXED_BYTES + 3 * NAME_BYTES_MAX;

/// Where the header's own checksum lies; it covers all before it and the names.
const HEADER_CRC_AT: usize = 84;

/// Where the header says whether the frame lies within a group.
const PLACEMENT_AT: usize = 15;

/// Of a frame that stands alone, and of one within a group.
const ALONE: u8 = 0;
const GROUPED: u8 = 1;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// What a frame's payload is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(crate) enum FrameKind {
            $($(#[$doc])* $name = $code,)*
        }

        impl FrameKind {
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$name),*];

            fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// Opens a segment; its sequence number is the segment's. No payload.
    Segment = 1,
    /// What lives in the store, at the start of a segment.
    Base = 2,
    /// A start of a job.
    Attempt = 3,
    /// A piece of a section's body.
    Chunk = 4,
    /// The sections of one task: a node over chunks.
    Manifest = 5,
    /// A completed checkpoint: a node over manifests.
    Commit = 6,
    /// Checkpoints that live no longer.
    Drop = 7,
    /// A job that ended.
    Finish = 8,
    /// Where a chunk's body lies (in sled only).
    ChunkPlace = 9,
    /// A numbered part of a frame that is too long for one value of sled.
    Part = 10,
    /// What the index knows of a job (in sled only).
    Job = 11,
    /// What the index knows of a live checkpoint (in sled only).
    Live = 12,
    /// The sequence number up to which the index is complete (in sled only).
    Applied = 13,
    /// Where the records of a checkpoint lie (in the file system storage only).
    Table = 14,
    /// The beginning of metadata that a host wrote itself (in files only).
    HostMetadata = 15,
    /// A checkpoint that retention leaves alone, or no longer.
    Pin = 16,
    /// Where the frames of a sealed segment lie; its last frame.
    Footer = 17,
    /// A small checkpoint: whole frames one behind the other, the commit last.
    Group = 18,
}

/// Where a record comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Origin<'a> {
    pub(crate) job: &'a str,
    pub(crate) operator: &'a str,
    pub(crate) state: &'a str,
    pub(crate) checkpoint: CheckpointId,
    pub(crate) attempt: Attempt,
    pub(crate) subtask: u32,
    pub(crate) index: u32,
}

impl<'a> Origin<'a> {
    /// Of what the job itself writes for a checkpoint.
    pub(crate) fn of(job: &'a JobId, checkpoint: CheckpointId, attempt: Attempt) -> Self {
        Self { job: job.as_str(), checkpoint, attempt, ..Self::default() }
    }

    /// The same for a task's state.
    pub(crate) fn within(self, task: &'a TaskId, state: &'a str, index: u32) -> Self {
        Self { operator: task.operator.as_str(), subtask: task.subtask, state, index, ..self }
    }

    /// A checksum of the names, which references repeat.
    pub(crate) fn names_crc(&self) -> u32 {
        let mut hasher = Hasher::new();
        for name in [self.job, self.operator, self.state] {
            hasher.update(&u64::try_from(name.len()).unwrap_or(u64::MAX).to_le_bytes());
            hasher.update(name.as_bytes());
        }
        hasher.finalize()
    }
}

/// All that a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader<'a> {
    pub(crate) kind: FrameKind,
    pub(crate) store: StoreId,
    pub(crate) incarnation: u64,
    pub(crate) sequence: u64,
    /// The sequence number under which the record was first written; moving it keeps the id.
    pub(crate) id: u64,
    pub(crate) origin: Origin<'a>,
    pub(crate) payload_len: u32,
    pub(crate) payload_crc: u32,
}

/// Why bytes are not the frame that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameFault {
    #[error("only {0} bytes")]
    Short(usize),
    #[error("no frame")]
    Magic,
    #[error("header checksum {found:08x} instead of {expected:08x}")]
    HeaderChecksum { expected: u32, found: u32 },
    #[error("format version {0}")]
    Version(u8),
    #[error("frame kind {0}")]
    Kind(u8),
    #[error("header length {0}")]
    HeaderLength(u16),
    #[error("a reserved byte of {0}")]
    Reserved(u8),
    #[error("names that are not UTF-8")]
    Names,
    #[error("a payload of {0} bytes")]
    PayloadLength(u32),
    #[error("a frame of {found} bytes instead of {expected}")]
    Length { expected: u64, found: u64 },
    #[error("a frame of another store or segment")]
    Foreign,
    #[error("a group that frames do not fill")]
    Group,
    #[error("a frame of a group without its group")]
    Grouped,
    #[error("payload checksum {found:08x} instead of {expected:08x}")]
    PayloadChecksum { expected: u32, found: u32 },
    #[error("a payload that is none of its kind")]
    Payload,
}

/// A header and its payload, both checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) header: FrameHeader<'a>,
    pub(crate) payload: &'a [u8],
}

/// The bytes of a record with their checksum, so that nobody takes it twice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Payload<'a> {
    bytes: &'a [u8],
    crc: u32,
}

impl<'a> Payload<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, crc: crc32fast::hash(bytes) }
    }

    /// Bytes of which the checksum was taken before.
    pub(crate) fn known(bytes: &'a [u8], crc: u32) -> Self {
        Self { bytes, crc }
    }

    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub(crate) fn crc(&self) -> u32 {
        self.crc
    }
}

impl<'a> FrameHeader<'a> {
    /// The header of a record over `payload`, written for the first time: `id` is its sequence number.
    ///
    /// # Errors
    /// `Invalid` when the payload is longer than any reader takes.
    pub(crate) fn first(
        kind: FrameKind,
        (store, incarnation): (StoreId, u64),
        id: u64,
        origin: Origin<'a>,
        payload: Payload<'_>,
    ) -> Result<Self> {
        let Payload { bytes, crc: payload_crc } = payload;
        let fits = bytes.len() <= FRAME_PAYLOAD_BYTES_MAX;
        let payload_len = u32::try_from(bytes.len()).ok().filter(|_| fits).ok_or_else(|| {
            let (len, most) = (bytes.len(), FRAME_PAYLOAD_BYTES_MAX);
            Error::invalid(format!("a record of {len} bytes, the most is {most}"))
        })?;
        let sequence = id;
        Ok(Self { kind, store, incarnation, sequence, id, origin, payload_len, payload_crc })
    }

    /// Bytes of the header, names included.
    pub(crate) fn header_len(&self) -> usize {
        let origin = &self.origin;
        FIXED_BYTES + origin.job.len() + origin.operator.len() + origin.state.len()
    }

    /// Bytes of the whole frame.
    pub(crate) fn frame_len(&self) -> u64 {
        u64::try_from(self.header_len()).unwrap_or(u64::MAX) + u64::from(self.payload_len)
    }

    /// Appends the header to `out`. Names longer than `NAME_BYTES_MAX` never get here: `ids` and
    /// the sections' keys are checked where they are made.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        self.encode_at(ALONE, out);
    }

    /// The same for a frame in the payload of a group. It says so: when the group's own header is
    /// lost, its frames count for nothing.
    pub(crate) fn encode_in_group(&self, out: &mut Vec<u8>) {
        self.encode_at(GROUPED, out);
    }

    fn encode_at(&self, placement: u8, out: &mut Vec<u8>) {
        let start = out.len();
        let byte = |len: usize| u8::try_from(len).unwrap_or(u8::MAX);
        let origin = &self.origin;
        out.extend_from_slice(&MAGIC);
        let length = u16::try_from(self.header_len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&[self.kind as u8, FORMAT_VERSION]);
        let lengths = [origin.job, origin.operator, origin.state].map(|name| byte(name.len()));
        out.extend_from_slice(&lengths);
        out.push(placement);
        out.extend_from_slice(&self.store.0);
        for word in [self.incarnation, self.sequence, self.id, origin.checkpoint.0] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        let words =
            [origin.attempt.0, origin.subtask, origin.index, self.payload_len, self.payload_crc];
        for word in words {
            out.extend_from_slice(&word.to_le_bytes());
        }
        let mut hasher = Hasher::new();
        hasher.update(out.get(start..).unwrap_or_default());
        for name in [origin.job, origin.operator, origin.state] {
            hasher.update(name.as_bytes());
        }
        out.extend_from_slice(&hasher.finalize().to_le_bytes());
        for name in [origin.job, origin.operator, origin.state] {
            out.extend_from_slice(name.as_bytes());
        }
    }

    /// The whole frame over `payload`, whose length and checksum this header has.
    pub(crate) fn frame(&self, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.header_len() + payload.len());
        self.encode(&mut bytes);
        bytes.extend_from_slice(payload);
        bytes
    }

    /// Reads and checks a header; its payload is not looked at.
    pub(crate) fn decode(bytes: &'a [u8]) -> std::result::Result<Self, FrameFault> {
        let Some((fixed, names)) = bytes.split_at_checked(FIXED_BYTES) else {
            return Err(if MAGIC.starts_with(bytes.get(..8).unwrap_or(bytes)) {
                FrameFault::Short(bytes.len())
            } else {
                FrameFault::Magic
            });
        };
        let mut fields = Fields(fixed);
        if fields.take::<8>() != MAGIC {
            return Err(FrameFault::Magic);
        }
        let header_len = u16::from_le_bytes(fields.take());
        let [kind, version, job_len, operator_len, state_len, reserved] = fields.take::<6>();
        let names_len = [job_len, operator_len, state_len].map(usize::from);
        let names_total = names_len.iter().sum::<usize>();
        if usize::from(header_len) != FIXED_BYTES + names_total {
            return Err(FrameFault::HeaderLength(header_len));
        }
        let Some(names) = names.get(..names_total) else {
            return Err(FrameFault::Short(bytes.len()));
        };
        let mut hasher = Hasher::new();
        hasher.update(fixed.get(..HEADER_CRC_AT).unwrap_or_default());
        hasher.update(names);
        let found = hasher.finalize();
        let store = StoreId(fields.take());
        let [incarnation, sequence, id, checkpoint] = [(); 4].map(|()| fields.u64());
        let [attempt, subtask, index, payload_len, payload_crc, expected] =
            [(); 6].map(|()| fields.u32());
        if expected != found {
            return Err(FrameFault::HeaderChecksum { expected, found });
        }
        if version != FORMAT_VERSION {
            return Err(FrameFault::Version(version));
        }
        if reserved > GROUPED {
            return Err(FrameFault::Reserved(reserved));
        }
        let kind = FrameKind::from_code(kind).ok_or(FrameFault::Kind(kind))?;
        if usize::try_from(payload_len).map_or(true, |len| len > FRAME_PAYLOAD_BYTES_MAX) {
            return Err(FrameFault::PayloadLength(payload_len));
        }
        let names = std::str::from_utf8(names).map_err(|_| FrameFault::Names)?;
        let [job_len, operator_len, _] = names_len;
        let (job, rest) = names.split_at_checked(job_len).ok_or(FrameFault::Names)?;
        let (operator, state) = rest.split_at_checked(operator_len).ok_or(FrameFault::Names)?;
        let origin = Origin {
            job,
            operator,
            state,
            checkpoint: CheckpointId(checkpoint),
            attempt: Attempt(attempt),
            subtask,
            index,
        };
        Ok(Self { kind, store, incarnation, sequence, id, origin, payload_len, payload_crc })
    }

    /// True when the header at the front of `bytes` says that its frame lies within a group.
    pub(crate) fn is_in_group(bytes: &[u8]) -> bool {
        bytes.get(PLACEMENT_AT) == Some(&GROUPED)
    }

    /// Checks a payload against this header.
    pub(crate) fn check_payload(&self, payload: &[u8]) -> std::result::Result<(), FrameFault> {
        let found = crc32fast::hash(payload);
        if found == self.payload_crc && u32::try_from(payload.len()) == Ok(self.payload_len) {
            return Ok(());
        }
        Err(FrameFault::PayloadChecksum { expected: self.payload_crc, found })
    }
}

impl<'a> Frame<'a> {
    /// Reads and checks a frame that is exactly `bytes`.
    pub(crate) fn decode(bytes: &'a [u8]) -> std::result::Result<Self, FrameFault> {
        let header = FrameHeader::decode(bytes)?;
        let payload = bytes.get(header.header_len()..).unwrap_or_default();
        if u32::try_from(payload.len()) != Ok(header.payload_len) {
            return Err(FrameFault::Short(bytes.len()));
        }
        header.check_payload(payload)?;
        Ok(Self { header, payload })
    }
}

/// Fixed-size fields from the front of a slice; zeros once it is used up.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl Fields<'_> {
    pub(crate) fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk::<N>() {
            Some((field, rest)) => {
                self.0 = rest;
                *field
            }
            None => [0; N],
        }
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the header's bytes never change by accident, and no single wrong byte is believed.

    use super::*;

    fn header(payload: &[u8]) -> FrameHeader<'static> {
        FrameHeader {
            kind: FrameKind::Chunk,
            store: StoreId(*b"0123456789abcdef"),
            incarnation: 7,
            sequence: 9,
            id: 8,
            origin: Origin {
                job: "job",
                operator: "op",
                state: "s",
                checkpoint: CheckpointId(5),
                attempt: Attempt(2),
                subtask: 3,
                index: 4,
            },
            payload_len: u32::try_from(payload.len()).unwrap(),
            payload_crc: crc32fast::hash(payload),
        }
    }

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        header(payload).encode(&mut bytes);
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn the_bytes_of_a_frame_are_frozen() {
        let hex: String =
            frame(b"body").iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        let expected = concat!(
            "895447460d0a1a0a",                 // magic
            "5e00",                             // header length 94
            "0401",                             // kind, version
            "03020100",                         // name lengths, reserved
            "30313233343536373839616263646566", // store
            "0700000000000000",                 // incarnation
            "0900000000000000",                 // sequence
            "0800000000000000",                 // id
            "0500000000000000",                 // checkpoint
            "02000000",                         // attempt
            "03000000",                         // subtask
            "04000000",                         // index
            "04000000",                         // payload length
            "b20ba8db",                         // payload checksum
            "0c4a4ae3",                         // header checksum
            "6a6f62",                           // job
            "6f70",                             // operator
            "73",                               // state
            "626f6479",                         // payload
        );
        assert_eq!(hex, expected);
    }

    #[test]
    fn a_frame_reads_back() {
        let bytes = frame(b"body");
        let read = Frame::decode(&bytes).unwrap();
        assert_eq!(read.header, header(b"body"));
        assert_eq!(read.payload, b"body");
        assert_eq!(read.header.frame_len(), bytes.len() as u64);
    }

    #[test]
    fn a_frame_of_a_group_differs_in_its_mark_and_its_checksum() {
        let (mut alone, mut grouped) = (Vec::new(), Vec::new());
        header(b"").encode(&mut alone);
        header(b"").encode_in_group(&mut grouped);
        assert_eq!(FrameHeader::decode(&alone), FrameHeader::decode(&grouped));
        let differs = |at: &usize| alone[*at] != grouped[*at];
        let differing: Vec<usize> = (0..alone.len()).filter(differs).collect();
        assert_eq!(differing, [15, 84, 85, 86, 87]);
        assert_eq!((alone[15], grouped[15]), (0, 1));
        assert!(FrameHeader::is_in_group(&grouped) && !FrameHeader::is_in_group(&alone));
    }

    #[test]
    fn no_frame_is_made_that_no_reader_would_take() {
        let first = |payload: &[u8]| {
            FrameHeader::first(
                FrameKind::Chunk,
                (StoreId([7; 16]), 3),
                9,
                Origin::default(),
                Payload::of(payload),
            )
        };
        let header = first(b"body").unwrap();
        assert_eq!((header.sequence, header.id, header.incarnation), (9, 9, 3));
        assert!(Frame::decode(&header.frame(b"body")).is_ok());
        let error = first(&vec![0; FRAME_PAYLOAD_BYTES_MAX + 1]).unwrap_err();
        assert_eq!(error.kind(), crate::error::ErrorKind::Invalid);
    }

    #[test]
    fn any_flipped_bit_is_found() {
        let good = frame(b"body");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::decode(&bad).is_err(), "bit {bit} was believed");
        }
    }

    #[test]
    fn any_shorter_or_longer_frame_is_refused() {
        let mut bytes = frame(b"body");
        for len in 0..bytes.len() {
            assert!(Frame::decode(&bytes[..len]).is_err(), "{len} bytes were believed");
        }
        bytes.push(0);
        assert!(Frame::decode(&bytes).is_err());
    }

    #[test]
    fn every_kind_has_a_code_of_its_own() {
        for kind in FrameKind::ALL {
            assert_eq!(FrameKind::from_code(*kind as u8), Some(*kind));
        }
    }
}
