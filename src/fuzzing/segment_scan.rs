//! A segment of the log: arbitrary bytes, and frames that the input describes with damage done to them.
//!
//! No input panics or is read more than a few times over; every frame that the scan reports is valid at
//! its place and of this store and segment; every frame that the damage left alone is reported.

use std::path::Path;

use crate::fuzzing::Bytes;
use crate::fuzzing::memory::MemoryFile;
use crate::ids::{Attempt, CheckpointId, StoreId};
use crate::record::{FrameHeader, FrameKind, Origin};
use crate::storage::probe::{Place, SegmentScan, scan_segment};

/// What lies behind is not read.
const BYTES_MAX: usize = 64 * 1024;
const FRAMES_MAX: usize = 64;

const STORE: StoreId = StoreId([7; 16]);
const NUMBER: u64 = 5;

/// What may stand alone or in a group.
const KINDS: [FrameKind; 8] = [
    FrameKind::Chunk,
    FrameKind::Manifest,
    FrameKind::Commit,
    FrameKind::Attempt,
    FrameKind::Drop,
    FrameKind::Finish,
    FrameKind::Pin,
    FrameKind::Chunk,
];

/// Scans `data`. Panics when a promise above is broken.
pub fn segment_scan(data: &[u8]) {
    let data = data.get(..BYTES_MAX).unwrap_or(data);
    scan(data);
    let mut bytes = Bytes::new(data, BYTES_MAX);
    let made = Made::new(&mut bytes);
    let harmed = harmed(&made.bytes, &mut bytes);
    let found = scan(&harmed);
    for (place, needed) in &made.frames {
        let is_whole = part(&made.bytes, needed) == part(&harmed, needed);
        let is_reported = found.frames.contains(place);
        assert!(is_reported || !is_whole, "{place:?} is not reported: {:?}", found.scan);
    }
    if harmed == made.bytes {
        assert!(found.scan.damage.is_empty(), "{:?}", found.scan.damage);
        assert_eq!(found.frames.len(), made.frames.len(), "{:?}", found.scan);
    }
}

fn part<'a>(bytes: &'a [u8], place: &Place) -> Option<&'a [u8]> {
    let from = usize::try_from(place.offset).ok()?;
    bytes.get(from..)?.get(..usize::try_from(place.len).ok()?)
}

struct Found {
    frames: Vec<Place>,
    scan: SegmentScan,
}

/// Scans a segment and checks what holds whatever its bytes.
fn scan(bytes: &[u8]) -> Found {
    let file = MemoryFile::new(bytes);
    let mut frames = Vec::new();
    let scanned =
        scan_segment(&file, Path::new("5.seg"), NUMBER, STORE, 0, &mut |header, place, body| {
            check(bytes, header, place, body);
            frames.push(place);
            Ok(())
        });
    let len = bytes.len() as u64;
    assert!(file.read() <= 8 * len + 64 * 1024, "{len} bytes are read {} times", file.read());
    assert!(scanned.is_ok(), "damage is no error: {scanned:?}");
    let scan = scanned.unwrap_or_default();
    assert!(scan.end <= scan.used && scan.used <= len && scan.len == len, "{scan:?}");
    let ends = frames.iter().map(|place| place.offset + place.len);
    assert_eq!(ends.max().unwrap_or(0), scan.end, "{scan:?}");
    for damage in &scan.damage {
        assert!(damage.len > 0 && damage.offset + damage.len <= scan.end, "{damage:?}");
    }
    Found { frames, scan }
}

fn check(bytes: &[u8], header: &FrameHeader<'_>, place: Place, body: Option<&[u8]>) {
    assert_eq!(place.segment, NUMBER);
    assert_eq!((header.store, header.incarnation), (STORE, NUMBER));
    assert_eq!(header.frame_len(), place.len);
    let there = part(bytes, &place).unwrap_or_default();
    assert_eq!(there.len() as u64, place.len, "{place:?} is not within the file");
    assert_eq!(FrameHeader::decode(there).as_ref(), Ok(header));
    assert_eq!(body.is_none(), header.kind == FrameKind::Chunk, "{header:?}");
    if let Some(body) = body {
        assert_eq!(there.get(header.header_len()..), Some(body));
        assert_eq!(header.check_payload(body), Ok(()), "{header:?}");
    }
}

/// A segment of known frames.
#[derive(Default)]
struct Made {
    bytes: Vec<u8>,
    /// Each with the bytes on which it depends: its own, or those of its group.
    frames: Vec<(Place, Place)>,
    /// Where frames begin that are in no group.
    begins: Vec<u32>,
    sequence: u64,
}

impl Made {
    fn new(bytes: &mut Bytes<'_>) -> Self {
        let mut made = Self { sequence: NUMBER, ..Self::default() };
        for _ in 0..bytes.below(FRAMES_MAX) {
            let kind = bytes.next();
            if kind >= 200 {
                made.group(bytes);
            } else {
                let frame = made.frame(bytes, kind);
                made.push(&frame.alone());
            }
        }
        // What comes behind the last frame of this segment's own.
        match bytes.next() % 5 {
            0 => {}
            1 => made.bytes.resize(made.bytes.len() + usize::from(bytes.u16()) % 20_000, 0),
            2 => {
                let (garbage, len) = (bytes.next(), usize::from(bytes.next()));
                made.bytes.resize(made.bytes.len() + len, garbage);
            }
            3 => made.foreign(bytes),
            _ => made.footer(),
        }
        made
    }

    /// The next frame, of any length; a few span reads of the scan.
    fn frame(&mut self, bytes: &mut Bytes<'_>, kind: u8) -> Given {
        let kind = KINDS.get(usize::from(kind % 8)).copied().unwrap_or(FrameKind::Chunk);
        self.sequence += 1 + u64::from(bytes.next() % 4);
        let len = match bytes.next() {
            len @ 0..=199 => usize::from(len),
            len => usize::from(len - 198) * 197,
        };
        let (names, payload) = (bytes.next(), vec![bytes.next(); len]);
        Given { kind, store: STORE, incarnation: NUMBER, sequence: self.sequence, names, payload }
    }

    fn place(&self, len: usize) -> Place {
        Place { segment: NUMBER, offset: self.bytes.len() as u64, len: len as u64 }
    }

    /// Appends a frame that is in no group.
    fn push(&mut self, frame: &[u8]) {
        let place = self.place(frame.len());
        self.frames.push((place, place));
        self.begins.push(u32::try_from(self.bytes.len()).unwrap_or(u32::MAX));
        self.bytes.extend_from_slice(frame);
    }

    fn group(&mut self, bytes: &mut Bytes<'_>) {
        let (mut payload, mut inner) = (Vec::new(), Vec::new());
        let first = self.sequence + 1;
        for _ in 0..bytes.below(5) {
            let kind = bytes.next();
            let frame = self.frame(bytes, kind).grouped();
            inner.push((payload.len(), frame.len()));
            payload.extend(frame);
        }
        self.sequence += 1;
        let frame = Given { sequence: self.sequence, payload, ..Given::own(FrameKind::Group) };
        let head = frame.header(first).header_len();
        let frame = frame.alone_as(first);
        let around = self.place(frame.len());
        self.push(&frame);
        for (at, len) in inner {
            let offset = around.offset + (head + at) as u64;
            self.frames.push((Place { segment: NUMBER, offset, len: len as u64 }, around));
        }
    }

    /// Closes the segment in order; one without frames stays as it is.
    fn footer(&mut self) {
        let own = self.bytes.len() as u64;
        let begins = self.begins.iter().flat_map(|offset| offset.to_le_bytes());
        let count = u32::try_from(self.begins.len()).unwrap_or(u32::MAX).to_le_bytes();
        // No job is named: its numbers are in the frames.
        let payload = count.into_iter().chain(begins).chain([0; 4]).chain(own.to_le_bytes());
        let payload: Vec<u8> = payload.collect();
        self.sequence += 1;
        if own > 0 {
            let sequence = self.sequence;
            self.push(&Given { sequence, payload, ..Given::own(FrameKind::Footer) }.alone());
        }
    }

    /// A valid frame that is none of this segment, and a copy of one that is: the first ends the log.
    fn foreign(&mut self, bytes: &mut Bytes<'_>) {
        let mut other = Given { payload: vec![1; 40], ..Given::own(FrameKind::Commit) };
        if bytes.next() & 1 == 0 {
            other.store = StoreId([8; 16]);
        } else {
            other.incarnation += 1;
        }
        let copy = self.frames.first().and_then(|(place, _)| part(&self.bytes, place));
        let copy = copy.unwrap_or_default().to_vec();
        self.bytes.extend(other.alone());
        self.bytes.extend(copy);
    }
}

/// What a frame is made of.
struct Given {
    kind: FrameKind,
    store: StoreId,
    incarnation: u64,
    sequence: u64,
    /// Chooses the names.
    names: u8,
    payload: Vec<u8>,
}

impl Given {
    fn own(kind: FrameKind) -> Self {
        let (store, incarnation, payload) = (STORE, NUMBER, Vec::new());
        Self { kind, store, incarnation, sequence: NUMBER, names: 0, payload }
    }

    fn header(&self, id: u64) -> FrameHeader<'static> {
        let names = ["", "a", "operator", "a longer name of some state"];
        let name = |bits: u8| names.get(usize::from(bits & 3)).copied().unwrap_or_default();
        FrameHeader {
            kind: self.kind,
            store: self.store,
            incarnation: self.incarnation,
            sequence: self.sequence,
            id,
            origin: Origin {
                job: name(self.names),
                operator: name(self.names >> 2),
                state: name(self.names >> 4),
                checkpoint: CheckpointId(u64::from(self.names)),
                attempt: Attempt(1),
                subtask: 0,
                index: 0,
            },
            payload_len: u32::try_from(self.payload.len()).unwrap_or(0),
            payload_crc: crc32fast::hash(&self.payload),
        }
    }

    fn alone_as(&self, id: u64) -> Vec<u8> {
        self.header(id).frame(&self.payload)
    }

    fn alone(&self) -> Vec<u8> {
        self.alone_as(self.sequence)
    }

    fn grouped(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.header(self.sequence).encode_in_group(&mut bytes);
        bytes.extend_from_slice(&self.payload);
        bytes
    }
}

/// Damage in place, so that a frame that is not touched is where it was.
fn harmed(whole: &[u8], bytes: &mut Bytes<'_>) -> Vec<u8> {
    let mut harmed = whole.to_vec();
    for _ in 0..bytes.below(8) {
        let end = harmed.len();
        let at = usize::try_from(bytes.u32()).unwrap_or(0).checked_rem(end).unwrap_or(0);
        let (from, to) = match bytes.next() % 4 {
            0 => {
                let bits = bytes.next();
                harmed.get_mut(at).into_iter().for_each(|byte| *byte ^= bits);
                continue;
            }
            1 => (at / 512 * 512, at / 512 * 512 + 512),
            2 => (at, at + usize::from(bytes.u16()) % 5000),
            _ => {
                harmed.truncate(at);
                continue;
            }
        };
        let value = bytes.next();
        harmed.get_mut(from..to.min(end)).unwrap_or_default().fill(value);
    }
    harmed
}

#[cfg(test)]
mod tests {
    //! Goal: the committed corpus keeps every promise, and a scan of bytes that are all the beginnings
    //! of frames is not longer than others. Method: inputs by hand.

    use std::collections::BTreeMap;

    use super::*;
    use crate::fuzzing::corpus;
    use crate::record::frame::MAGIC;

    /// Frames of every kind and many lengths, then `end`; the harm follows.
    fn frames(count: u8, end: &[u8], harm: &[u8]) -> Vec<u8> {
        let mut input = vec![count];
        for number in 0..count {
            input.extend([number, 1, number.wrapping_mul(71), number, number]);
        }
        [&input, end, harm].concat()
    }

    fn seeds() -> BTreeMap<String, Vec<u8>> {
        let group = [200, 3, 0, 1, 90, 1, 1, 1, 1, 80, 2, 2, 2, 1, 70, 3, 3];
        let groups = |end: &[u8]| [&[3], &group[..], &[1, 1, 60, 0, 9], &group, end].concat();
        let seeds = [
            ("frames", frames(20, &[0], &[])),
            ("reserved_space", frames(9, &[1, 200, 70], &[])),
            ("garbage_tail", frames(9, &[2, 0xa5, 250], &[])),
            ("frames_of_another_store", frames(9, &[3, 0], &[])),
            ("old_frames_behind", frames(9, &[3, 1], &[])),
            ("sealed", frames(9, &[4], &[])),
            ("groups", groups(&[0])),
            ("sealed_groups", groups(&[4])),
            ("harmed_group", groups(&[0, 1, 200, 0, 0, 0, 0, 255])),
            ("flipped_bits", frames(30, &[0], &[3, 1, 0, 0, 0, 0, 80, 1, 3, 0, 0, 0, 128])),
            (
                "flipped_bits_in_sealed",
                frames(30, &[4], &[2, 1, 0, 0, 0, 0, 80, 1, 3, 0, 0, 0, 128]),
            ),
            ("zeroed_sectors", frames(30, &[0], &[2, 0, 1, 0, 0, 1, 0, 0, 9, 0, 0, 1, 0])),
            ("cut_off", frames(30, &[0], &[1, 0, 3, 0, 0, 3])),
            ("only_magics", MAGIC.repeat(600)),
            ("nothing", Vec::new()),
        ];
        seeds.map(|(name, input)| (name.to_owned(), input)).into()
    }

    #[test]
    fn the_corpus_keeps_every_promise() {
        corpus::check("segment_scan", &seeds(), segment_scan);
    }
}
