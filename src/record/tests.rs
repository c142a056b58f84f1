//! Goal: no byte on disk changes by accident. Method: every kind of record is made from fixed
//! values and compared with bytes that were frozen when its layout was.
//!
//! If a test here fails, the layout changed: keep the old reader, raise `FORMAT_VERSION`, and only
//! then freeze the new bytes beside the old ones. The payloads that only the sled store makes are
//! frozen in its own tests.

use std::collections::BTreeMap;

use crate::ids::{Attempt, CheckpointId, OperatorUid, StoreId};
use crate::message::CheckpointType;
use crate::record::metadata::{
    CheckpointMetadata, OperatorMetadata, SectionContent, SectionMetadata, decode_sections,
    encode_sections,
};
use crate::record::{Frame, FrameHeader, FrameKind, Node, Origin, RecordRef};
use crate::state::{SectionKey, SectionKind};

/// Where the header says its kind.
const KIND_AT: usize = 10;

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

fn reference() -> RecordRef {
    RecordRef {
        id: 0x11,
        checkpoint: CheckpointId(0x22),
        attempt: Attempt(0x33),
        subtask: 0x44,
        index: 0x55,
        names_crc: 0x66,
        payload_len: 0x77,
        payload_crc: 0x88,
        digest: [0x99; 16],
    }
}

const REFERENCE: &str = concat!(
    "1100000000000000",                 // id
    "2200000000000000",                 // checkpoint
    "33000000",                         // attempt
    "44000000",                         // subtask
    "55000000",                         // index
    "66000000",                         // checksum of the names
    "77000000",                         // payload length
    "88000000",                         // payload checksum
    "99999999999999999999999999999999", // digest
);

fn sections() -> Vec<SectionMetadata> {
    let keyed = SectionKey::new(SectionKind::Keyed, "s").with_index(3);
    let inline = SectionContent::Inline(b"ab".to_vec());
    let raw = SectionKey::new(SectionKind::Raw, "r");
    vec![
        SectionMetadata { key: keyed, len: 2, content: inline },
        SectionMetadata { key: raw, len: 0x1234, content: SectionContent::Chunks(1) },
    ]
}

const SECTIONS: &str = concat!(
    "02000000",         // sections
    "27000000",         // bytes of the first
    "00000000",         // keyed
    "0100000000000000", // bytes of its name
    "73",               // name
    "03000000",         // key group
    "0200000000000000", // bytes of its body
    "00000000",         // inline
    "0200000000000000", // bytes that follow
    "6162",             // body
    "21000000",         // bytes of the second
    "07000000",         // raw
    "0100000000000000", // bytes of its name
    "72",               // name
    "00000000",         // index
    "3412000000000000", // bytes of its body
    "01000000",         // in chunks
    "01000000",         // how many
);

fn metadata() -> CheckpointMetadata {
    let uid = OperatorUid::new("op").unwrap();
    CheckpointMetadata {
        kind: CheckpointType::Savepoint,
        timestamp_ms: 1,
        duration_ms: 2,
        state_bytes: 3,
        key_hash_version: 4,
        properties: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
        operators: vec![OperatorMetadata { uid, parallelism: 5, max_parallelism: 6 }],
    }
}

const METADATA: &str = concat!(
    "02000000",         // savepoint
    "0100000000000000", // timestamp
    "0200000000000000", // duration
    "0300000000000000", // bytes of state
    "04000000",         // version of the key hash
    "0100000000000000", // properties
    "0100000000000000", // bytes of a name
    "6b",               // name
    "0100000000000000", // bytes of a value
    "76",               // value
    "0100000000000000", // operators
    "0200000000000000", // bytes of a uid
    "6f70",             // uid
    "05000000",         // parallelism
    "06000000",         // max parallelism
);

/// A frame of each kind, with the payload that this module makes for it.
pub(crate) fn frame(kind: FrameKind) -> Vec<u8> {
    let node = |body| Node { refs: vec![reference()], body }.encode().unwrap();
    let payload = match kind {
        FrameKind::Chunk => b"body".to_vec(),
        FrameKind::Manifest => node(encode_sections(&sections()).unwrap()),
        FrameKind::Commit => node(metadata().encode().unwrap()),
        _ => Vec::new(),
    };
    let header = FrameHeader {
        kind,
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
        payload_crc: crc32fast::hash(&payload),
    };
    let mut bytes = Vec::new();
    header.encode(&mut bytes);
    bytes.extend_from_slice(&payload);
    bytes
}

/// Code and payload of each kind; a new kind does not compile without a line here. `None` where the
/// store makes the payload.
fn frozen(kind: FrameKind) -> (u8, Option<String>) {
    let node = |body: &str| Some(format!("01000000{REFERENCE}{body}"));
    match kind {
        FrameKind::Segment => (1, Some(String::new())),
        FrameKind::Base => (2, None),
        FrameKind::Attempt => (3, Some(String::new())),
        FrameKind::Chunk => (4, Some("626f6479".to_owned())),
        FrameKind::Manifest => (5, node(SECTIONS)),
        FrameKind::Commit => (6, node(METADATA)),
        FrameKind::Drop => (7, None),
        FrameKind::Finish => (8, None),
        FrameKind::ChunkPlace => (9, None),
        FrameKind::Part => (10, None),
        FrameKind::Job => (11, None),
        FrameKind::Live => (12, None),
        FrameKind::Applied => (13, None),
        FrameKind::Table => (14, None),
        FrameKind::HostMetadata => (15, None),
        FrameKind::Pin => (16, None),
        FrameKind::Footer => (17, None),
        FrameKind::Group => (18, None),
    }
}

#[test]
fn the_bytes_of_every_kind_of_record_are_frozen() {
    for kind in FrameKind::ALL {
        let bytes = frame(*kind);
        let (code, payload) = frozen(*kind);
        assert_eq!(bytes[KIND_AT], code, "{kind:?}");
        let read = Frame::decode(&bytes).unwrap();
        assert_eq!(read.header.kind, *kind);
        if let Some(payload) = payload {
            assert_eq!(hex(read.payload), payload, "{kind:?}");
        }
    }
}

#[test]
fn what_was_frozen_reads_back() {
    let frame = frame(FrameKind::Manifest);
    let node = Node::decode(Frame::decode(&frame).unwrap().payload).unwrap();
    assert_eq!(node.refs, [reference()]);
    assert_eq!(decode_sections(&node.body, node.refs.len()).unwrap(), sections());
    let encoded = metadata().encode().unwrap();
    assert_eq!(CheckpointMetadata::decode(&encoded).unwrap(), metadata());
}

#[test]
fn the_bytes_of_a_compressed_section_are_frozen() {
    let key = SectionKey::new(SectionKind::Raw, "r");
    let content = SectionContent::Compressed(2);
    let sections = [SectionMetadata { key, len: 0x1234, content }];
    let body = encode_sections(&sections).unwrap();
    let hex = body.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let tail = concat!("3412000000000000", "02000000", "02000000");
    assert!(hex.ends_with(tail), "{hex}");
    assert_eq!(decode_sections(&body, 2).unwrap(), sections);
    assert!(decode_sections(&body, 1).is_err());
}

#[test]
fn sections_over_another_number_of_chunks_are_refused() {
    let body = encode_sections(&sections()).unwrap();
    assert!(decode_sections(&body, 0).is_err());
    assert!(decode_sections(&body, 2).is_err());
}

#[test]
fn the_numbers_of_section_kinds_and_checkpoint_types_are_frozen() {
    let kinds = [
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
    for (code, kind) in (0_u32..).zip(kinds) {
        assert_eq!(number(&kind), code, "{kind:?}");
    }
    let types = [
        CheckpointType::Checkpoint,
        CheckpointType::FullCheckpoint,
        CheckpointType::Savepoint,
        CheckpointType::SyncSavepoint,
    ];
    for (code, kind) in (0_u32..).zip(types) {
        assert_eq!(number(&kind), code, "{kind:?}");
    }
}

fn number<T: serde::Serialize>(kind: &T) -> u32 {
    let mut bytes = Vec::new();
    crate::record::codec::encode_into(kind, &mut bytes).unwrap();
    u32::from_le_bytes(bytes.try_into().unwrap())
}
