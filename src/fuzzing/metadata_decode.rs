//! What a commit or a manifest says: its node, its body, and the bodies of its sections; as arbitrary
//! bytes, and as descriptions of nodes that are encoded, harmed and read back.
//!
//! No input panics, what was decoded encodes to the same bytes, what was encoded decodes to the same
//! value, and no more room is made than the bytes can fill.

use std::collections::BTreeMap;

use crate::fuzzing::Bytes;
use crate::ids::{Attempt, CheckpointId, OperatorUid};
use crate::message::CheckpointType;
use crate::record::metadata::{
    CheckpointMetadata, OperatorMetadata, SectionContent, SectionMetadata, decode_sections,
    encode_sections,
};
use crate::record::node::REF_BYTES;
use crate::record::{Node, RecordRef};
use crate::state::{SectionKey, SectionKind};

/// What lies behind is not read.
const BYTES_MAX: usize = 64 * 1024;

/// How many references sections of arbitrary bytes may turn out to use.
const REFS: usize = 4;

const TYPES: [CheckpointType; 4] = [
    CheckpointType::Checkpoint,
    CheckpointType::FullCheckpoint,
    CheckpointType::Savepoint,
    CheckpointType::SyncSavepoint,
];

const SECTIONS: [SectionKind; 12] = [
    SectionKind::Keyed,
    SectionKind::Split,
    SectionKind::Union,
    SectionKind::Broadcast,
    SectionKind::Channel,
    SectionKind::Position,
    SectionKind::Tokens,
    SectionKind::Raw,
    SectionKind::Finished,
    SectionKind::Schema,
    SectionKind::KeyedDelta,
    SectionKind::Watermark,
];

/// Reads `data` as metadata, and makes metadata of it. Panics when a promise above is broken.
pub fn metadata_decode(data: &[u8]) {
    let data = data.get(..BYTES_MAX).unwrap_or(data);
    node(data);
    let mut bytes = Bytes::new(data, BYTES_MAX);
    let made = if bytes.next() & 1 == 0 { commit(&mut bytes) } else { manifest(&mut bytes) };
    let Some(encoded) = made.encode().ok() else { return };
    assert_eq!(Node::decode(&encoded).as_ref(), Some(&made));
    // What is left of the input harms what was made.
    let mut harmed = encoded.clone();
    for _ in 0..8 {
        let (at, bits) = (usize::from(bytes.u16()), bytes.next());
        if let Some(byte) = at.checked_rem(harmed.len()).and_then(|at| harmed.get_mut(at)) {
            *byte ^= bits;
        }
    }
    node(&harmed);
    let len = usize::from(bytes.u16()) % (encoded.len() + 1);
    node(encoded.get(..len).unwrap_or_default());
}

/// Reads `data` as a node and as each of the bodies.
pub(super) fn node(data: &[u8]) {
    if let Some(node) = Node::decode(data) {
        assert_eq!(node.encode().ok().as_deref(), Some(data), "{node:?}");
        assert!(node.refs.capacity() * REF_BYTES + node.body.capacity() <= data.len());
        checkpoint(&node.body);
        sections(&node.body, node.refs.len());
    }
    checkpoint(data);
    for refs in 0..REFS {
        sections(data, refs);
    }
}

fn checkpoint(data: &[u8]) {
    if let Ok(metadata) = CheckpointMetadata::decode(data) {
        let again = metadata.encode().ok();
        let (again, tasks) = (again.unwrap_or_default(), metadata.tasks());
        // A map takes its entries in any order and gives them back sorted, each once.
        assert!(again.len() <= data.len(), "{metadata:?} became longer");
        assert!(tasks <= metadata.operators.len() as u64 * u64::from(u32::MAX));
        let whole = CheckpointMetadata::decode(&again).ok().as_ref() == Some(&metadata);
        assert!(whole, "{metadata:?} does not read back");
    }
}

fn sections(data: &[u8], refs: usize) {
    if let Ok(sections) = decode_sections(data, refs) {
        assert_eq!(encode_sections(&sections).ok().as_deref(), Some(data), "{sections:?}");
        let inline = sections.iter().map(|section| match &section.content {
            SectionContent::Inline(body) => body.capacity(),
            SectionContent::Chunks(_) | SectionContent::Compressed(_) => 0,
        });
        assert!(inline.sum::<usize>() <= data.len(), "{sections:?}");
    }
}

fn commit(bytes: &mut Bytes<'_>) -> Node {
    let kind = TYPES.get(bytes.below(4)).copied().unwrap_or(CheckpointType::Checkpoint);
    let properties = (0..bytes.below(4)).map(|_| (name(bytes), name(bytes)));
    let properties: BTreeMap<_, _> = properties.collect();
    let mut operators = Vec::new();
    for _ in 0..bytes.below(4) {
        let uid = OperatorUid::new(name(bytes));
        let (parallelism, max_parallelism) = (u32::from(bytes.u16()), bytes.u32());
        operators.extend(uid.ok().map(|uid| OperatorMetadata {
            uid,
            parallelism,
            max_parallelism,
        }));
    }
    let metadata = CheckpointMetadata {
        kind,
        timestamp_ms: u64::from(bytes.u32()),
        duration_ms: u64::from(bytes.u32()),
        state_bytes: u64::from(bytes.u32()) << 32,
        key_hash_version: bytes.u32(),
        properties,
        operators,
    };
    let body = metadata.encode().unwrap_or_default();
    assert!(CheckpointMetadata::decode(&body).ok() == Some(metadata));
    Node { refs: references(bytes), body }
}

fn manifest(bytes: &mut Bytes<'_>) -> Node {
    let mut sections = Vec::new();
    let mut used = 0;
    for _ in 0..bytes.below(8) {
        let kind = SECTIONS.get(bytes.below(8)).copied().unwrap_or(SectionKind::Raw);
        let key = SectionKey::new(kind, name(bytes)).with_index(bytes.u32());
        let (len, content) = if bytes.next() & 1 == 0 {
            let body: Vec<u8> = (0..bytes.next()).map(|_| bytes.next()).collect();
            (body.len() as u64, SectionContent::Inline(body))
        } else {
            let chunks = u32::from(bytes.next() % 4);
            used += chunks as usize;
            let len = u64::from(bytes.u32());
            if chunks & 1 == 0 {
                (len, SectionContent::Chunks(chunks))
            } else {
                (len, SectionContent::Compressed(chunks))
            }
        };
        sections.push(SectionMetadata { key, len, content });
    }
    let body = encode_sections(&sections).unwrap_or_default();
    assert!(decode_sections(&body, used).ok().as_ref() == Some(&sections));
    assert!(decode_sections(&body, used + 1).is_err());
    Node { refs: references(bytes), body }
}

fn references(bytes: &mut Bytes<'_>) -> Vec<RecordRef> {
    let reference = |bytes: &mut Bytes<'_>| RecordRef {
        id: u64::from(bytes.u32()),
        checkpoint: CheckpointId(u64::from(bytes.u16())),
        attempt: Attempt(u32::from(bytes.next())),
        subtask: u32::from(bytes.next()),
        index: bytes.u32(),
        names_crc: bytes.u32(),
        payload_len: bytes.u32(),
        payload_crc: bytes.u32(),
        digest: [bytes.next(); 16],
    };
    (0..bytes.below(5)).map(|_| reference(bytes)).collect()
}

fn name(bytes: &mut Bytes<'_>) -> String {
    let len = bytes.below(12);
    (0..len).map(|_| char::from(bytes.next())).collect()
}

#[cfg(test)]
mod tests {
    //! Goal: the committed corpus is what the code writes today, and every input in it is harmless.
    //! Method: seeds are made from the frozen records, and by hand for what is made of bytes.

    use super::*;
    use crate::fuzzing::corpus;
    use crate::record::{Frame, FrameKind};

    fn seeds() -> BTreeMap<String, Vec<u8>> {
        let mut seeds = BTreeMap::new();
        for (name, kind) in [("commit", FrameKind::Commit), ("manifest", FrameKind::Manifest)] {
            let frame = crate::record::tests::frame(kind);
            let payload = Frame::decode(&frame).unwrap().payload.to_vec();
            seeds.insert(format!("body_{name}"), Node::decode(&payload).unwrap().body);
            seeds.insert(format!("node_{name}"), payload);
        }
        seeds.insert("made_commit".to_owned(), (0..120).map(|byte| byte * 2).collect());
        seeds.insert("made_manifest".to_owned(), (0..120).map(|byte| byte * 2 + 1).collect());
        seeds
    }

    #[test]
    fn the_corpus_holds_what_the_code_writes_and_is_harmless() {
        corpus::check("metadata_decode", &seeds(), metadata_decode);
    }

    #[test]
    fn no_cut_and_no_flipped_bit_of_a_seed_does_harm() {
        for seed in seeds().values() {
            for len in 0..seed.len() {
                metadata_decode(&seed[..len]);
            }
            for bit in 0..seed.len() * 8 {
                let mut flipped = seed.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                metadata_decode(&flipped);
            }
        }
    }
}
