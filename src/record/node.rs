//! Nodes: records that refer to other records.
//!
//! A commit refers to task manifests and a manifest to chunks. References lie outside the opaque
//! body, so the store follows them without knowing what the body means. A reference repeats the
//! origin that it expects: a record that is valid but not the one that was meant is found out.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::{Attempt, CheckpointId};
use crate::limits::LIST_ENTRIES_MAX;
use crate::record::frame::{Fields, FrameHeader};

/// Bytes of one encoded reference.
pub(crate) const REF_BYTES: usize = 56;

/// Names a record by its store-unique id and by what it must turn out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct RecordRef {
    pub(crate) id: u64,
    pub(crate) checkpoint: CheckpointId,
    pub(crate) attempt: Attempt,
    pub(crate) subtask: u32,
    pub(crate) index: u32,
    pub(crate) names_crc: u32,
    pub(crate) payload_len: u32,
    pub(crate) payload_crc: u32,
    /// What the payload is known by when it is offered for reuse; zero when it is not offered.
    pub(crate) digest: [u8; 16],
}

impl RecordRef {
    /// The reference to the record that `header` opens.
    pub(crate) fn to_record(header: &FrameHeader<'_>) -> Self {
        let origin = &header.origin;
        Self {
            id: header.id,
            checkpoint: origin.checkpoint,
            attempt: origin.attempt,
            subtask: origin.subtask,
            index: origin.index,
            names_crc: origin.names_crc(),
            payload_len: header.payload_len,
            payload_crc: header.payload_crc,
            digest: [0; 16],
        }
    }

    /// Stands for a record of which only the id is known; it matches no header.
    pub(crate) fn unreadable(id: u64, checkpoint: CheckpointId) -> Self {
        Self {
            id,
            checkpoint,
            attempt: Attempt(0),
            subtask: u32::MAX,
            index: u32::MAX,
            names_crc: 0,
            payload_len: 0,
            payload_crc: 0,
            digest: [0; 16],
        }
    }

    /// True for what [`unreadable`](Self::unreadable) makes.
    pub(crate) fn is_unreadable(&self) -> bool {
        *self == Self::unreadable(self.id, self.checkpoint)
    }

    /// True when `header` opens the record that this reference means.
    pub(crate) fn matches(&self, header: &FrameHeader<'_>) -> bool {
        let mut found = Self::to_record(header);
        found.digest = self.digest;
        found == *self
    }

    /// The same reference whether or not its record is offered for reuse.
    pub(crate) fn undigested(&self) -> Self {
        Self { digest: [0; 16], ..*self }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.checkpoint.0.to_le_bytes());
        let words = [
            self.attempt.0,
            self.subtask,
            self.index,
            self.names_crc,
            self.payload_len,
            self.payload_crc,
        ];
        for word in words {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&self.digest);
    }

    fn decode(bytes: &[u8]) -> Self {
        let mut fields = Fields(bytes);
        Self {
            id: fields.u64(),
            checkpoint: CheckpointId(fields.u64()),
            attempt: Attempt(fields.u32()),
            subtask: fields.u32(),
            index: fields.u32(),
            names_crc: fields.u32(),
            payload_len: fields.u32(),
            payload_crc: fields.u32(),
            digest: fields.take(),
        }
    }
}

/// References and a body that only the layer above understands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Node {
    pub(crate) refs: Vec<RecordRef>,
    pub(crate) body: Vec<u8>,
}

impl Node {
    /// The payload of a manifest or commit frame: count, references, body.
    ///
    /// # Errors
    /// `Invalid` when there are more references than a node may have.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let count = u32::try_from(self.refs.len())
            .ok()
            .filter(|_| self.refs.len() <= LIST_ENTRIES_MAX)
            .ok_or_else(|| {
                let found = self.refs.len();
                Error::invalid(format!("{found} references, the most is {LIST_ENTRIES_MAX}"))
            })?;
        let mut out = Vec::with_capacity(4 + self.refs.len() * REF_BYTES + self.body.len());
        out.extend_from_slice(&count.to_le_bytes());
        for reference in &self.refs {
            reference.encode(&mut out);
        }
        out.extend_from_slice(&self.body);
        Ok(out)
    }

    /// Reads a payload that its frame's checksum has vouched for.
    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let (count, rest) = payload.split_first_chunk::<4>()?;
        let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
        let (refs, body) = rest.split_at_checked(count.checked_mul(REF_BYTES)?)?;
        let refs = refs.chunks_exact(REF_BYTES).map(RecordRef::decode).collect();
        Some(Self { refs, body: body.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_reads_back_and_a_wrong_count_is_refused() {
        let reference = RecordRef {
            id: 1,
            checkpoint: CheckpointId(2),
            attempt: Attempt(3),
            subtask: 4,
            index: 5,
            names_crc: 6,
            payload_len: 7,
            payload_crc: 8,
            digest: [9; 16],
        };
        let node = Node { refs: vec![reference; 3], body: b"body".to_vec() };
        let mut bytes = node.encode().unwrap();
        assert_eq!(bytes.len(), 4 + 3 * REF_BYTES + 4);
        assert_eq!(Node::decode(&bytes), Some(node));
        bytes[0] = 255;
        bytes[3] = 255;
        assert_eq!(Node::decode(&bytes), None);
    }
}
