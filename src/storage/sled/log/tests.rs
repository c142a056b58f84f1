//! Goal: a scan believes exactly what was written as frames of the segment, and says where it does not.
//! Method: segments in memory, made frame by frame, with chosen bytes changed.

use std::io;
use std::path::Path;
use std::sync::Mutex;

use super::*;
use crate::error::Result;
use crate::ids::{CheckpointId, StoreId};
use crate::record::{FrameFault, FrameHeader, FrameKind, Origin};
use crate::storage::disk::DiskFile;

const STORE: StoreId = StoreId([7; 16]);
const NUMBER: u64 = 3;

/// A file in memory.
#[derive(Debug)]
struct Bytes(Mutex<Vec<u8>>);

impl DiskFile for Bytes {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut all = self.0.lock().unwrap();
        let from = usize::try_from(offset).unwrap();
        let longest = all.len().max(from + bytes.len());
        all.resize(longest, 0);
        all[from..from + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn read_up_to_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let all = self.0.lock().unwrap();
        let from = usize::try_from(offset).unwrap().min(all.len());
        let read = bytes.len().min(all.len() - from);
        bytes[..read].copy_from_slice(&all[from..from + read]);
        Ok(read)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }

    fn preallocate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
}

fn header(kind: FrameKind, sequence: u64, payload: &[u8]) -> FrameHeader<'static> {
    let checkpoint = CheckpointId(1);
    FrameHeader {
        kind,
        store: STORE,
        incarnation: NUMBER,
        sequence,
        id: sequence,
        origin: Origin { job: "job", checkpoint, ..Origin::default() },
        payload_len: u32::try_from(payload.len()).unwrap(),
        payload_crc: crc32fast::hash(payload),
    }
}

fn frame(kind: FrameKind, sequence: u64, payload: &[u8]) -> Vec<u8> {
    header(kind, sequence, payload).frame(payload)
}

fn inner(kind: FrameKind, sequence: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    header(kind, sequence, payload).encode_in_group(&mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

/// A scan of these bytes: kind, sequence number, place and payload of every frame, and the rest.
type Seen = Vec<(FrameKind, u64, Place, Option<Vec<u8>>)>;

fn scan(bytes: &[u8]) -> (Seen, SegmentScan) {
    let mut seen = Vec::new();
    let file = Bytes(Mutex::new(bytes.to_vec()));
    let mut visit = |header: &FrameHeader<'_>, place, payload: Option<&[u8]>| -> Result<()> {
        seen.push((header.kind, header.sequence, place, payload.map(<[u8]>::to_vec)));
        Ok(())
    };
    let found = scan_segment(&file, Path::new("file"), NUMBER, STORE, &mut visit).unwrap();
    (seen, found)
}

fn kinds(seen: &Seen) -> Vec<(FrameKind, u64)> {
    seen.iter().map(|(kind, sequence, ..)| (*kind, *sequence)).collect()
}

/// A segment with a group between two frames: where the group begins, and all bytes.
fn grouped(inner_frames: &[Vec<u8>]) -> (usize, Vec<u8>) {
    let mut bytes = frame(FrameKind::Segment, NUMBER, &[]);
    let at = bytes.len();
    bytes.extend(frame(FrameKind::Group, 9, &inner_frames.concat()));
    bytes.extend(frame(FrameKind::Attempt, 10, &[]));
    (at, bytes)
}

fn small_checkpoint() -> Vec<Vec<u8>> {
    vec![
        inner(FrameKind::Chunk, 5, b"chunk"),
        inner(FrameKind::Manifest, 6, b"manifest"),
        inner(FrameKind::Commit, 8, b"commit"),
    ]
}

#[test]
fn the_frames_of_a_group_are_told_of_at_their_own_places() {
    let (at, bytes) = grouped(&small_checkpoint());
    let (seen, found) = scan(&bytes);
    let expected = [
        (FrameKind::Segment, NUMBER),
        (FrameKind::Group, 9),
        (FrameKind::Chunk, 5),
        (FrameKind::Manifest, 6),
        (FrameKind::Commit, 8),
        (FrameKind::Attempt, 10),
    ];
    assert_eq!(kinds(&seen), expected);
    assert!(found.damage.is_empty(), "{found:?}");
    for (kind, sequence, place, payload) in &seen[2..5] {
        let from = usize::try_from(place.offset).unwrap();
        let len = usize::try_from(place.len).unwrap();
        let stored = &bytes[from..from + len];
        let read = crate::record::Frame::decode(stored).unwrap();
        assert_eq!((read.header.kind, read.header.sequence), (*kind, *sequence));
        assert!(from > at && place.segment == NUMBER);
        let body = (*kind != FrameKind::Chunk).then(|| read.payload.to_vec());
        assert_eq!(*payload, body);
    }
}

#[test]
fn a_group_with_any_wrong_bit_counts_for_nothing_and_the_next_frame_is_found() {
    let (at, good) = grouped(&small_checkpoint());
    let end = good.len() - frame(FrameKind::Attempt, 10, &[]).len();
    for bit in at * 8..end * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let (seen, found) = scan(&bytes);
        assert_eq!(kinds(&seen), [(FrameKind::Segment, NUMBER), (FrameKind::Attempt, 10)], "{bit}");
        let [damage] = found.damage.as_slice() else { panic!("{bit}: {found:?}") };
        assert_eq!((damage.offset, damage.len), (at as u64, (end - at) as u64), "{bit}");
    }
}

#[test]
fn a_group_that_frames_do_not_fill_counts_for_nothing() {
    let commit = inner(FrameKind::Commit, 8, b"commit");
    let mut of_other = header(FrameKind::Commit, 8, b"");
    of_other.incarnation = 4;
    let mut other = Vec::new();
    of_other.encode_in_group(&mut other);
    let mut wrong_sum = inner(FrameKind::Chunk, 5, b"chunk");
    *wrong_sum.last_mut().unwrap() ^= 1;
    let cases = [
        vec![commit.clone(), vec![0]],
        vec![commit[..commit.len() - 1].to_vec()],
        vec![other],
        vec![frame(FrameKind::Commit, 8, b"commit")],
        vec![wrong_sum],
        vec![inner(FrameKind::Group, 8, &commit)],
        vec![inner(FrameKind::Base, 8, &[])],
    ];
    for inner_frames in cases {
        let (_, bytes) = grouped(&inner_frames);
        let (seen, found) = scan(&bytes);
        assert_eq!(kinds(&seen), [(FrameKind::Segment, NUMBER), (FrameKind::Attempt, 10)]);
        assert_eq!(found.damage.len(), 1, "{found:?}");
    }
}

#[test]
fn a_group_that_the_file_cuts_off_counts_for_nothing() {
    let (at, good) = grouped(&small_checkpoint());
    let end = good.len() - frame(FrameKind::Attempt, 10, &[]).len();
    for len in at..end {
        let (seen, found) = scan(&good[..len]);
        assert_eq!(kinds(&seen), [(FrameKind::Segment, NUMBER)], "{len}");
        assert_eq!((found.end, found.damage.len()), (at as u64, 0), "{len}");
    }
}

#[test]
fn a_frame_of_a_group_does_not_count_without_it() {
    let mut bytes = frame(FrameKind::Segment, NUMBER, &[]);
    let at = bytes.len() as u64;
    bytes.extend(inner(FrameKind::Commit, 8, b"commit"));
    bytes.extend(frame(FrameKind::Attempt, 10, &[]));
    let (seen, found) = scan(&bytes);
    assert_eq!(kinds(&seen), [(FrameKind::Segment, NUMBER), (FrameKind::Attempt, 10)]);
    let [damage] = found.damage.as_slice() else { panic!("{found:?}") };
    assert_eq!((damage.offset, &damage.fault), (at, &FrameFault::Grouped));
}
