//! Goal: a scan believes exactly what was written as frames of the segment, and says where it does not.
//! Method: segments in memory, made frame by frame, with chosen bytes changed.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::*;
use crate::error::Result;
use crate::ids::{CheckpointId, StoreId};
use crate::record::{FrameFault, FrameHeader, FrameKind, Origin, Payload};
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
    scan_since(bytes, 0)
}

fn scan_since(bytes: &[u8], known: u64) -> (Seen, SegmentScan) {
    let mut seen = Vec::new();
    let file = Bytes(Mutex::new(bytes.to_vec()));
    let mut visit = |header: &FrameHeader<'_>, place, payload: Option<&[u8]>| -> Result<()> {
        seen.push((header.kind, header.sequence, place, payload.map(<[u8]>::to_vec)));
        Ok(())
    };
    let path = Path::new("file");
    let found = scan_segment(&file, path, NUMBER, STORE, known, &mut visit).unwrap();
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

fn footer_payload(offsets: &[u32], own: u64) -> Vec<u8> {
    let mut contents = footer::Contents::default();
    contents.offsets.extend(offsets);
    contents.encode(own).unwrap()
}

/// A sealed segment of these frames, and where each of them begins.
fn sealed(frames: &[Vec<u8>]) -> (Vec<u64>, Vec<u8>) {
    let mut offsets = Vec::new();
    let mut bytes = Vec::new();
    for frame in frames {
        offsets.push(u32::try_from(bytes.len()).unwrap());
        bytes.extend_from_slice(frame);
    }
    let payload = footer_payload(&offsets, bytes.len() as u64);
    bytes.extend(frame(FrameKind::Footer, 99, &payload));
    (offsets.into_iter().map(u64::from).collect(), bytes)
}

fn checkpoint_and_drop() -> Vec<Vec<u8>> {
    vec![
        frame(FrameKind::Segment, NUMBER, &[]),
        frame(FrameKind::Chunk, 5, &frame(FrameKind::Drop, 4, b"old")),
        frame(FrameKind::Manifest, 6, b"manifest"),
        frame(FrameKind::Commit, 7, b"commit"),
    ]
}

#[test]
fn a_body_that_holds_a_frame_of_the_segment_is_not_believed_behind_damage() {
    let (offsets, mut bytes) = sealed(&checkpoint_and_drop());
    bytes[usize::try_from(offsets[1]).unwrap() + 30] ^= 1;
    let (seen, found) = scan(&bytes);
    let expected = [
        (FrameKind::Segment, NUMBER),
        (FrameKind::Manifest, 6),
        (FrameKind::Commit, 7),
        (FrameKind::Footer, 99),
    ];
    assert_eq!(kinds(&seen), expected);
    let [damage] = found.damage.as_slice() else { panic!("{found:?}") };
    assert_eq!((damage.offset, damage.len), (offsets[1], offsets[2] - offsets[1]));
    assert_eq!((damage.after, damage.before), (NUMBER, 6));
}

#[test]
fn every_damaged_frame_of_a_sealed_segment_is_named_with_its_length() {
    let (offsets, good) = sealed(&checkpoint_and_drop());
    for offset in offsets.iter().copied() {
        let mut bytes = good.clone();
        bytes[usize::try_from(offset).unwrap()] ^= 1;
        let (seen, found) = scan(&bytes);
        assert_eq!(seen.len(), offsets.len(), "{offset}: {seen:?}");
        let [damage] = found.damage.as_slice() else { panic!("{offset}: {found:?}") };
        assert_eq!((damage.offset, damage.len), (offset, good_len(&good, offset)), "{offset}");
    }
    let mut bytes = good;
    for offset in &offsets[1..3] {
        bytes[usize::try_from(*offset).unwrap()] ^= 1;
    }
    let (_, found) = scan(&bytes);
    let named: Vec<_> = found.damage.iter().map(|damage| (damage.offset, damage.before)).collect();
    assert_eq!(named, [(offsets[1], 7), (offsets[2], 7)]);
}

fn good_len(bytes: &[u8], offset: u64) -> u64 {
    FrameHeader::decode(&bytes[usize::try_from(offset).unwrap()..]).unwrap().frame_len()
}

#[test]
fn a_segment_whose_footer_is_damaged_is_read_from_frame_to_frame() {
    let (offsets, good) = sealed(&checkpoint_and_drop());
    let last = usize::try_from(offsets[3]).unwrap();
    let footer = last + usize::try_from(good_len(&good, offsets[3])).unwrap();
    for at in footer..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        let (seen, found) = scan(&bytes);
        assert_eq!(kinds(&seen).last(), Some(&(FrameKind::Commit, 7)), "{at}");
        assert!(!found.is_sealed && found.damage.is_empty(), "{at}: {found:?}");
        assert_eq!(found.end, footer as u64, "{at}");
    }
}

#[test]
fn a_footer_that_names_other_places_than_frames_is_not_followed() {
    let whole = frame(FrameKind::Segment, NUMBER, &[]);
    let own = whole.len() as u64;
    for (offsets, own) in [(vec![0, 5, 5], own), (vec![1], own), (vec![0], own + 1), (vec![], own)]
    {
        let payload = footer_payload(&offsets, own);
        let bytes = [whole.clone(), frame(FrameKind::Footer, 99, &payload)].concat();
        let (seen, found) = scan(&bytes);
        assert_eq!(kinds(&seen), [(FrameKind::Segment, NUMBER), (FrameKind::Footer, 99)]);
        assert!(!found.is_sealed, "{offsets:?}");
    }
}

#[test]
fn a_writer_seals_a_segment_with_a_footer_that_a_scan_follows() {
    let file = Arc::new(Bytes(Mutex::default()));
    let segment = Segment::new(NUMBER, 0, "file".into(), Arc::clone(&file) as Arc<dyn DiskFile>);
    let head = SegmentHead {
        store: STORE,
        base: b"base",
        base_sequence: 4,
        preallocate_max: 0,
        segment_bytes: 1 << 20,
        reserved: 0,
    };
    let mut writer = SegmentWriter::new(Arc::new(segment), head).unwrap();
    let append = |writer: &mut SegmentWriter, kind, sequence, payload: &[u8]| {
        let (origin, payload) = (Origin::default(), Payload::of(payload));
        writer.append(kind, origin, sequence, payload, &Writeback::off()).unwrap();
    };
    append(&mut writer, FrameKind::Chunk, 5, &[1; 3000]);
    writer.flush().unwrap();
    append(&mut writer, FrameKind::Manifest, 6, b"manifest");
    writer.seal(8).unwrap();
    let bytes = file.0.lock().unwrap().clone();
    let (seen, found) = scan(&bytes);
    let expected = [
        (FrameKind::Segment, NUMBER),
        (FrameKind::Base, 4),
        (FrameKind::Chunk, 5),
        (FrameKind::Manifest, 6),
        (FrameKind::Footer, 8),
    ];
    assert_eq!(kinds(&seen), expected);
    assert!(found.is_sealed);
    assert_eq!((found.end, found.used), (bytes.len() as u64, bytes.len() as u64));
}

#[test]
fn of_what_is_known_only_headers_and_manifests_are_read() {
    let (_, bytes) = sealed(&checkpoint_and_drop());
    let (seen, found) = scan_since(&bytes, 7);
    let payloads: Vec<_> = seen.iter().map(|(kind, _, _, body)| (*kind, body.is_some())).collect();
    let expected = [
        (FrameKind::Segment, false),
        (FrameKind::Chunk, false),
        (FrameKind::Manifest, true),
        (FrameKind::Commit, false),
        (FrameKind::Footer, true),
    ];
    assert_eq!(payloads, expected);
    assert!(!found.is_skipped);
    let (seen, found) = scan_since(&bytes, 99);
    assert_eq!(kinds(&seen), [(FrameKind::Footer, 99)]);
    assert!(found.is_skipped && found.end == bytes.len() as u64);
}

#[test]
fn the_space_behind_the_last_byte_is_told_from_a_torn_frame() {
    let whole =
        [frame(FrameKind::Segment, NUMBER, &[]), frame(FrameKind::Drop, 5, b"drop")].concat();
    let torn = frame(FrameKind::Manifest, 6, &[9; 5000]);
    for kept in [0, 1, 50, 100, 4000] {
        for reserved in [0, 1, 5000, 3 << 20] {
            let mut bytes = [whole.as_slice(), &torn[..kept]].concat();
            let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
            bytes.resize(bytes.len() + reserved, 0);
            let (_, found) = scan(&bytes);
            assert_eq!((found.end, found.damage.len()), (whole.len() as u64, 0));
            assert_eq!(found.used, used, "{kept} {reserved}");
        }
    }
}

#[test]
fn what_a_spare_held_before_is_the_end_and_is_cut_off() {
    let own = [frame(FrameKind::Segment, NUMBER, &[]), frame(FrameKind::Drop, 5, b"drop")].concat();
    let mut before = header(FrameKind::Commit, 2, b"commit");
    before.incarnation = 1;
    let before = before.frame(b"commit");
    for torn in [0, 1, 50] {
        let bytes = [&own[..], &before[torn..], &before].concat();
        let (seen, found) = scan(&bytes);
        assert_eq!(kinds(&seen), [(FrameKind::Segment, NUMBER), (FrameKind::Drop, 5)], "{torn}");
        assert_eq!((found.end, found.damage.len()), (own.len() as u64, 0), "{torn}");
        assert!(!found.is_foreign);
        // What may be a part of a frame of its own stays.
        let used = if torn == 0 { own.len() } else { bytes.len() };
        assert_eq!(found.used, used as u64, "{torn}");
    }
}

#[test]
fn a_segment_that_was_open_is_sealed_behind_its_last_frame() {
    let mut bytes = checkpoint_and_drop().concat();
    let end = bytes.len() as u64;
    bytes.resize(bytes.len() + 9000, 0);
    let file = Bytes(Mutex::new(bytes.clone()));
    let (before, found) = scan(&bytes);
    seal_segment(&file, NUMBER, STORE, &found, 50).unwrap();
    let (seen, sealed) = scan(&file.0.lock().unwrap().clone());
    assert!(sealed.is_sealed && sealed.damage.is_empty());
    assert_eq!(kinds(&seen)[..before.len()], kinds(&before));
    assert_eq!(kinds(&seen).last(), Some(&(FrameKind::Footer, 50)));
    let jobs = footer_jobs(seen.last().unwrap().3.as_deref().unwrap());
    assert_eq!(jobs.iter().map(|job| job.checkpoint.0).collect::<Vec<_>>(), [1]);
    assert!(end < sealed.end);
}

#[test]
fn a_segment_with_damage_or_a_torn_frame_is_not_sealed() {
    let good = checkpoint_and_drop().concat();
    let mut damaged = good.clone();
    damaged[usize::try_from(good_len(&good, 0)).unwrap() + 30] ^= 1;
    let torn = [&good[..], &frame(FrameKind::Drop, 9, b"drop")[..50]].concat();
    for bytes in [damaged, torn] {
        let file = Bytes(Mutex::new(bytes.clone()));
        let (_, found) = scan(&bytes);
        assert!(!seal_segment(&file, NUMBER, STORE, &found, 50).unwrap());
        assert!(*file.0.lock().unwrap() == bytes);
    }
}
