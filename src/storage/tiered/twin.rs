//! Which of the two tiers a record lies in, and the copy of one that is damaged.
//!
//! A reference into the durable tier has the highest bit of its id set while it is outside of that
//! tier. INVARIANT: no storage numbers its records that high; they are numbered one by one.

use crate::error::{Error, ErrorKind, Result};
use crate::record::{Node, RecordRef};
use crate::storage::access::JobAccess;
use crate::storage::tiered::tiers::Tiers;

/// The bit.
const DURABLE: u64 = 1 << 63;

/// True for a reference into the durable tier.
pub(super) fn is_durable(record: &RecordRef) -> bool {
    record.id & DURABLE != 0
}

/// The reference as it is outside of the durable tier.
pub(super) fn outside(record: &RecordRef) -> RecordRef {
    RecordRef { id: record.id | DURABLE, ..*record }
}

/// The reference as the durable tier gave it.
pub(super) fn inside(record: &RecordRef) -> RecordRef {
    RecordRef { id: record.id & !DURABLE, ..*record }
}

/// A node of the durable tier as it is outside.
pub(super) fn node_outside(node: Node) -> Node {
    Node { refs: node.refs.iter().map(outside).collect(), body: node.body }
}

/// True when another copy may be whole.
pub(super) fn is_lost(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound)
}

/// The same content by length, checksum, task and names; ids and starts differ between tiers.
fn is_equal(one: &RecordRef, other: &RecordRef) -> bool {
    let content = |record: &RecordRef| {
        let RecordRef { subtask, index, names_crc, payload_len, payload_crc, .. } = *record;
        (subtask, index, names_crc, payload_len, payload_crc)
    };
    content(one) == content(other)
}

impl Tiers {
    /// The copy in the durable tier of a node in the fast one, as it is outside; `None` where none is
    /// known.
    ///
    /// # Errors
    /// What the durable tier answers.
    pub(super) fn twin_node(&self, record: &RecordRef) -> Result<Option<Node>> {
        let durable: &dyn JobAccess = &*self.durable.access;
        for (here, there) in self.in_both() {
            if here == *record {
                return durable.node(&there).map(|node| Some(node_outside(node)));
            }
            let Ok(commit) = self.fast.node(&here) else { continue };
            let Some(at) = commit.refs.iter().position(|manifest| manifest == record) else {
                continue;
            };
            let Some(manifest) = durable.node(&there)?.refs.get(at).copied() else { continue };
            return durable.node(&manifest).map(|node| Some(node_outside(node)));
        }
        Ok(None)
    }

    /// The copy in the durable tier of a chunk in the fast one, as it is inside; `None` where none is
    /// known. What refers to the chunk must be whole in the fast tier.
    ///
    /// # Errors
    /// What the durable tier answers.
    pub(super) fn twin_chunk(&self, record: &RecordRef) -> Result<Option<RecordRef>> {
        let durable: &dyn JobAccess = &*self.durable.access;
        for (here, there) in self.in_both() {
            let Ok(commit) = self.fast.node(&here) else { continue };
            let copies = durable.node(&there)?.refs;
            for (manifest, copy) in commit.refs.iter().zip(&copies) {
                // All chunks of a manifest are of one task.
                if manifest.subtask != record.subtask {
                    continue;
                }
                let Ok(found) = self.fast.node(manifest) else { continue };
                let Some(at) = found.refs.iter().position(|chunk| chunk == record) else {
                    continue;
                };
                let twin = durable.node(copy)?.refs.get(at).copied();
                if let Some(twin) = twin.filter(|twin| is_equal(twin, record)) {
                    return Ok(Some(twin));
                }
            }
        }
        Ok(None)
    }

    /// The commit records of checkpoints that both tiers have, newest first.
    fn in_both(&self) -> Vec<(RecordRef, RecordRef)> {
        let copies = self.durable.access.stored();
        let copy = |id| copies.iter().find(|copy| copy.id == id).map(|copy| copy.record);
        let stored = self.fast.stored();
        stored.iter().rev().filter_map(|here| Some((here.record, copy(here.id)?))).collect()
    }
}
