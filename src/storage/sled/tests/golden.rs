//! Goal: no record that only the sled store makes changes its bytes by accident. Method: make each
//! from fixed values, or from a fixed history of a job, and compare with frozen bytes.
//!
//! If a test here fails, the layout changed: keep the old reader, raise `FORMAT_VERSION`, and only
//! then freeze the new bytes beside the old ones.

use crate::error::ErrorKind;
use crate::ids::{Attempt, JobId, StoreId};
use crate::record::{Frame, FrameHeader, FrameKind, RecordRef};
use crate::storage::filesystem::Savepoints;
use crate::storage::sled::index::IndexCodec;
use crate::storage::sled::kv::Batch;
use crate::storage::sled::ledger::{Base, BaseJob, Delta, JobFacts, Live};
use crate::storage::sled::log::Place;

use super::*;

const CODEC: IndexCodec = IndexCodec { store: StoreId([7; 16]), incarnation: 2 };

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// Key and payload of the only entry of `batch`, as hex.
fn entry(batch: &Batch, kind: FrameKind) -> (String, String) {
    let [(key, Some(value))] = batch.as_slice() else {
        panic!("{batch:?}");
    };
    let frame = Frame::decode(value).unwrap();
    assert_eq!(frame.header.kind, kind);
    (hex(key), hex(frame.payload))
}

fn made(kind: FrameKind) -> Batch {
    let mut batch = Batch::new();
    let finish = Some(b"F".to_vec());
    let checkpoint_max = CheckpointId(9);
    match kind {
        FrameKind::ChunkPlace => {
            CODEC.chunk(3, &Place { segment: 4, offset: 5, len: 6 }, &mut batch)
        }
        FrameKind::Part => CODEC.node(3, b"frame", &mut batch),
        FrameKind::Job => {
            let facts =
                JobFacts { attempt_max: Attempt(2), checkpoint_max, finish, ..JobFacts::default() };
            CODEC.job("job", &facts, &mut batch)
        }
        FrameKind::Live => {
            let mut record = RecordRef::unreadable(17, CheckpointId(8));
            record.digest = [1; 16];
            let live = Live { record, pinned: true };
            CODEC.live("job", &live, &mut batch)
        }
        _ => CODEC.applied(6, Some(7), &mut batch),
    }
    .unwrap();
    batch
}

/// Key and payload; a new kind does not compile without a line here. `None` where the record is
/// frozen with the layouts of `record` or lies elsewhere only.
fn frozen(kind: FrameKind) -> Option<(&'static str, &'static str)> {
    match kind {
        FrameKind::Segment
        | FrameKind::Base
        | FrameKind::Attempt
        | FrameKind::Chunk
        | FrameKind::Manifest
        | FrameKind::Commit
        | FrameKind::Drop
        | FrameKind::Finish
        | FrameKind::Table
        | FrameKind::HostMetadata
        | FrameKind::Pin
        | FrameKind::Footer
        | FrameKind::Group => None,
        FrameKind::ChunkPlace => {
            Some(("630000000000000003", "040000000000000005000000000000000600000000000000"))
        }
        FrameKind::Part => Some(("6e000000000000000300000000", "6672616d65")),
        FrameKind::Job => {
            Some(("6a6a6f620000000000", "02000000090000000000000001010000000000000046"))
        }
        FrameKind::Live => Some((
            "6c6a6f6200000000000000000800000000",
            concat!(
                "1100000000000000",                 // record
                "0800000000000000",                 // checkpoint
                "00000000ffffffffffffffff00000000", // attempt, subtask, index, names
                "0000000000000000",                 // payload length and checksum
                "01010101010101010101010101010101", // digest
                "01",                               // pinned
            ),
        )),
        FrameKind::Applied => Some(("61", "060000000000000007000000")),
    }
}

#[test]
fn keys_and_values_of_the_index_are_frozen() {
    for kind in FrameKind::ALL {
        if let Some((key, payload)) = frozen(*kind) {
            let (found_key, found) = entry(&made(*kind), *kind);
            assert_eq!((found_key.as_str(), found.as_str()), (key, payload), "{kind:?}");
        }
    }
}

#[test]
fn the_payload_of_a_pin_is_frozen() {
    for (pinned, payload) in [(true, "011100000000000000"), (false, "001100000000000000")] {
        let encoded = Delta::encode_pin(17, pinned);
        assert_eq!(hex(&encoded), payload);
        assert_eq!(Delta::decode_pin(&encoded).unwrap(), Delta::Pin(17, pinned));
    }
    for wrong in [&[][..], &[1; 8], &[2, 0, 0, 0, 0, 0, 0, 0, 0], &[1; 10]] {
        assert_eq!(Delta::decode_pin(wrong).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn the_payload_of_a_base_is_frozen() {
    let job = BaseJob {
        job: "job".to_owned(),
        attempt_max: Attempt(2),
        checkpoint_max: CheckpointId(9),
        finish: Some(b"F".to_vec()),
        live: vec![(CheckpointId(8), 17)],
        pinned: vec![17],
    };
    let base = Base { as_of: 6, jobs: vec![job] };
    let payload = concat!(
        "0600000000000000", // deltas up to here are contained
        "01000000",         // jobs
        "49000000",         // bytes of the first
        "0300000000000000", // bytes of its name
        "6a6f62",           // name
        "02000000",         // attempt
        "0900000000000000", // checkpoint
        "01",               // ended
        "0100000000000000", // bytes of the finish record
        "46",               // finish record
        "0100000000000000", // live checkpoints
        "0800000000000000", // checkpoint
        "1100000000000000", // its commit record
        "0100000000000000", // pinned checkpoints
        "1100000000000000", // commit record
    );
    assert_eq!(hex(&base.encode().unwrap()), payload);
}

#[test]
fn the_payloads_of_drop_and_finish_frames_are_frozen() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = Arc::new(OpenStore::open(dir.path(), None, Arc::new(RealDisk)).unwrap());
        let job = SledJob::claim(store, &JobId::new("job").unwrap()).unwrap();
        let checkpoints = Checkpoints::new(JobStorage::new(
            Arc::clone(&job),
            Savepoints::within(&JobId::new("job").unwrap()),
        ));
        commit(&checkpoints, CheckpointId(1)).unwrap();
        job.drop_checkpoints(&[CheckpointId(1)]).unwrap();
        job.record_finish(b"F").unwrap();
        job.clear_finish().unwrap();
    }
    let frames = log_frames(dir.path());
    let payloads = |kind: FrameKind| {
        let of_kind = frames.iter().filter(move |frame| frame.0 == kind);
        of_kind.map(|frame| hex(&frame.2)).collect::<Vec<_>>()
    };
    let (_, commit_id, _) = frames.iter().find(|frame| frame.0 == FrameKind::Commit).unwrap();
    let dropped = format!("0100000008000000{}", hex(&commit_id.to_le_bytes()));
    assert_eq!(payloads(FrameKind::Drop), [dropped]);
    assert_eq!(payloads(FrameKind::Finish), ["0146", "00"]);
    assert_eq!(payloads(FrameKind::Attempt), [""]);
}

/// Kind, id and payload of every frame in the log, in the order of the segments.
fn log_frames(dir: &Path) -> Vec<(FrameKind, u64, Vec<u8>)> {
    let mut frames = Vec::new();
    for segment in segments(dir) {
        let bytes = std::fs::read(segment).unwrap();
        let mut at = 0;
        while let Ok(header) = FrameHeader::decode(&bytes[at..]) {
            let end = at + usize::try_from(header.frame_len()).unwrap();
            let frame = Frame::decode(&bytes[at..end]).unwrap();
            frames.push((header.kind, header.id, frame.payload.to_vec()));
            at = end;
        }
    }
    frames
}
