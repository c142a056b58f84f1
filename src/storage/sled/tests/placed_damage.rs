//! Every kind of damage at every kind of place of a store under `Placement::Sled`: it opens or says what
//! is wrong, a repair saves all that does not depend on the damage, nothing that was dropped comes back,
//! nothing is ever wrong, and a second repair finds nothing to do.

use std::collections::BTreeSet;
use std::fs;

use super::*;
use crate::error::ErrorKind;
use crate::record::frame::MAGIC;
use crate::record::{Frame, FrameHeader, FrameKind};
use crate::storage::sled::repair::{Broken, RepairReport, repair};

/// The checkpoints that live in [`Store`]; those below were dropped.
const LIVE: [u64; 2] = [3, 4];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Ending {
    Closed,
    Killed,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Harm {
    Flip,
    ZeroPage,
    Truncate,
    Delete,
    Swap,
    Duplicate,
    GarbageTail,
    OlderCopy,
}

const HARMS: [Harm; 8] = [
    Harm::Flip,
    Harm::ZeroPage,
    Harm::Truncate,
    Harm::Delete,
    Harm::Swap,
    Harm::Duplicate,
    Harm::GarbageTail,
    Harm::OlderCopy,
];

/// A valid frame in sled's file, as a copy of it stands there.
#[derive(Debug, Clone, PartialEq)]
struct Found {
    offset: usize,
    len: usize,
    kind: FrameKind,
    checkpoint: u64,
    sequence: u64,
    id: u64,
}

/// A store as it was after two checkpoints, and in the end.
struct Store {
    older: TempDir,
    dir: TempDir,
}

/// What every checkpoint has, what this one has, and something short.
fn sections(id: u64) -> [Vec<u8>; 3] {
    [
        body(CheckpointId(1000), 0, 9000),
        body(CheckpointId(id), 0, 5000),
        body(CheckpointId(id), 1, 9),
    ]
}

fn commit_sections(checkpoints: &Checkpoints) -> CheckpointId {
    let id = checkpoints.next_id();
    let pending = begin(checkpoints, id, 1).unwrap();
    let mut writer = pending.writer(&task(0)).unwrap();
    for (index, bytes) in (0..).zip(sections(id.0)) {
        writer.section(&key(index), &mut |out| Ok(out.write_all(&bytes)?)).unwrap();
    }
    pending.commit(&[(task(0), writer.finish().unwrap())]).unwrap();
    id
}

fn read_sections(checkpoints: &Checkpoints, id: u64) -> Result<bool> {
    let mut reader = checkpoints.read_task(CheckpointId(id), &task(0))?;
    for bytes in sections(id) {
        let mut found = Vec::new();
        reader.next_section()?;
        reader.body().read_to_end(&mut found)?;
        if found != bytes {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Store {
    fn new(ending: Ending) -> Self {
        let (older, dir, work) = (quick_dir(), quick_dir(), quick_dir());
        let checkpoints = open(work.path(), Placement::Sled);
        for round in 1..=4 {
            commit_sections(&checkpoints);
            let old: Vec<_> = checkpoints.ids().into_iter().rev().skip(2).collect();
            checkpoints.discard(&old).unwrap();
            if round == 2 {
                image(work.path(), older.path());
            }
        }
        if ending == Ending::Closed {
            drop(checkpoints);
            image(work.path(), dir.path());
        } else {
            image(work.path(), dir.path());
        }
        Self { older, dir }
    }

    fn copy(&self) -> TempDir {
        let copy = quick_dir();
        image(self.dir.path(), copy.path());
        copy
    }
}

fn frames(bytes: &[u8]) -> Vec<Found> {
    let mut frames = Vec::new();
    let mut at = 0;
    while let Some(place) = bytes[at..].windows(8).position(|window| window == MAGIC) {
        at += place;
        let len = FrameHeader::decode(&bytes[at..]).ok().map(|header| header.frame_len());
        let len = len.and_then(|len| usize::try_from(len).ok()).unwrap_or(usize::MAX);
        let whole = bytes.get(at..at.saturating_add(len));
        if let Some(Ok(frame)) = whole.map(Frame::decode) {
            let FrameHeader { kind, origin, sequence, id, .. } = frame.header;
            let checkpoint = origin.checkpoint.0;
            frames.push(Found { offset: at, len, kind, checkpoint, sequence, id });
        }
        at += 8;
    }
    frames
}

/// The last copy of each kind of frame of each checkpoint, and of the newest records of the job.
fn targets(frames: &[Found]) -> Vec<usize> {
    let mut seen = BTreeSet::new();
    let places = frames.iter().enumerate().rev();
    places.filter(|(_, f)| seen.insert((f.kind as u8, f.checkpoint))).map(|(at, _)| at).collect()
}

/// Harms a file of bytes; returns which of them are no longer what and where they were.
fn harm(
    harm: Harm,
    bytes: &mut Vec<u8>,
    frame: &Found,
    next: Option<&Found>,
    older: &[u8],
) -> Option<(usize, usize)> {
    let (from, to) = (frame.offset, frame.offset + frame.len);
    match harm {
        Harm::Flip => {
            bytes[to - 1] ^= 4;
            Some((to - 1, to))
        }
        Harm::ZeroPage => {
            let page = from / 4096 * 4096;
            let end = bytes.len().min(page + 4096);
            bytes[page..end].fill(0);
            Some((page, end))
        }
        Harm::Truncate => {
            bytes.truncate(from);
            Some((from, usize::MAX))
        }
        Harm::Swap => {
            let next = next?;
            bytes[from..next.offset + next.len].rotate_left(frame.len);
            Some((from, next.offset + next.len))
        }
        Harm::Duplicate => {
            let again = bytes[from..to].to_vec();
            bytes.splice(to..to, again);
            Some((to, usize::MAX))
        }
        Harm::GarbageTail => {
            bytes.extend([0xa5; 3000]);
            Some((usize::MAX, usize::MAX))
        }
        Harm::OlderCopy => {
            *bytes = older.to_vec();
            Some((0, usize::MAX))
        }
        Harm::Delete => None,
    }
}

fn repaired(dir: &Path, broken: Broken) -> RepairReport {
    repair(dir, broken, &mut |_, _| ()).unwrap()
}

/// Opens what is left, repairs it, opens it again. `saved` are the checkpoints that do not depend on
/// the damage; `is_known` says that the newest record of what lives is whole.
fn judge(dir: &Path, saved: &[u64], is_known: bool) {
    let allowed = |id: u64| LIVE.contains(&id) || !is_known;
    match open_on(dir, Placement::Sled, Arc::new(RealDisk)) {
        Ok(checkpoints) => {
            for id in ids(&checkpoints) {
                assert!(allowed(id), "{id} came back");
                match read_sections(&checkpoints, id) {
                    Ok(is_right) => assert!(is_right, "{id} holds something else"),
                    Err(error) => {
                        assert!(!saved.contains(&id), "{id} does not depend on it: {error:?}");
                        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
                    }
                }
            }
        }
        Err(error) => {
            let kinds = [ErrorKind::Corrupt, ErrorKind::Unavailable];
            assert!(kinds.contains(&error.kind()), "{error:?}");
            assert!(error.to_string().contains("tidegate repair"), "{error}");
        }
    }
    let first = repaired(dir, Broken::Keep);
    let whole = first.recovered.get("job").cloned().unwrap_or_default();
    for id in saved {
        let is_whole = whole.contains(&CheckpointId(*id)) || !is_known;
        assert!(is_whole, "{id} was not saved: {first:?}");
    }
    for (_, to) in &first.moved {
        assert!(to.exists(), "{to:?} was to be kept");
    }
    let second = repaired(dir, Broken::Keep);
    assert_eq!(second.recovered, first.recovered);
    assert!(second.moved.is_empty(), "{second:?}");

    let checkpoints = open(dir, Placement::Sled);
    for id in ids(&checkpoints) {
        assert!(allowed(id), "{id} came back");
        match read_sections(&checkpoints, id) {
            Ok(is_right) => assert!(is_right, "{id} holds something else"),
            Err(error) => {
                assert!(!whole.contains(&CheckpointId(id)), "{id}: {error:?}");
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
            }
        }
    }
    drop(checkpoints);
    let third = repaired(dir, Broken::Drop);
    assert_eq!(third.recovered.get("job").cloned().unwrap_or_default(), whole);
    assert_eq!(third.dropped.len(), second.lost.len());
    let checkpoints = open(dir, Placement::Sled);
    assert_eq!(checkpoints.ids(), whole);
    let next = commit_sections(&checkpoints);
    assert!(next.0 > LIVE[1] || !is_known, "{next} is given out again");
    drop(checkpoints);
    assert!(read_sections(&open(dir, Placement::Sled), next.0).unwrap());
}

fn matrix(ending: Ending) {
    let store = Store::new(ending);
    let whole = fs::read(store.dir.path().join("index-1/db")).unwrap();
    let older = fs::read(store.older.path().join("index-1/db")).unwrap();
    let frames = frames(&whole);
    let records = frames.iter().filter(|frame| frame.kind == FrameKind::Job);
    let newest = records.map(|frame| frame.sequence).max().unwrap();
    let mut cases = 0;
    for (place, target) in targets(&frames).into_iter().enumerate() {
        for kind in HARMS {
            let is_everywhere = [Harm::Delete, Harm::GarbageTail, Harm::OlderCopy].contains(&kind);
            if is_everywhere && place > 0 {
                continue;
            }
            let copy = store.copy();
            let path = copy.path().join("index-1/db");
            let mut bytes = whole.clone();
            let frame = &frames[target];
            let (from, to) = if kind == Harm::Delete {
                fs::remove_file(&path).unwrap();
                (0, usize::MAX)
            } else {
                let next = frames.get(target + 1);
                let Some(range) = harm(kind, &mut bytes, frame, next, &older) else { continue };
                fs::write(&path, bytes).unwrap();
                range
            };
            let is_hit = |found: &&Found| found.offset < to && found.offset + found.len > from;
            let is_gone = |checkpoint: u64| {
                frames.iter().filter(is_hit).any(|found| found.checkpoint == checkpoint)
            };
            // All refer to the first one's chunk.
            let is_saved = |id: &u64| !is_gone(*id) && !is_gone(1);
            let saved: Vec<u64> = LIVE.into_iter().filter(is_saved).collect();
            let is_newest = |found: &&Found| {
                found.kind == FrameKind::Job && found.sequence == newest && !is_hit(found)
            };
            let is_known = frames.iter().any(|found| is_newest(&found));
            let case = format!("{ending:?} {kind:?} {frame:?}");
            let judged = std::panic::catch_unwind(|| judge(copy.path(), &saved, is_known));
            assert!(judged.is_ok(), "{case}");
            cases += 1;
        }
    }
    assert!(cases > 40, "{cases}");
}

#[test]
fn damage_in_the_file_of_a_closed_sled_is_named_and_a_repair_saves_the_rest() {
    matrix(Ending::Closed);
}

#[test]
fn damage_in_the_file_of_a_killed_sled_is_named_and_a_repair_saves_the_rest() {
    matrix(Ending::Killed);
}

#[test]
fn a_page_of_zeros_never_takes_both_records_of_what_lives() {
    let store = Store::new(Ending::Killed);
    let whole = fs::read(store.dir.path().join("index-1/db")).unwrap();
    let frames = frames(&whole);
    let jobs: Vec<_> = frames.iter().filter(|frame| frame.kind == FrameKind::Job).collect();
    let newest = jobs.iter().map(|frame| frame.sequence).max().unwrap();
    let copies: Vec<_> = jobs.iter().filter(|frame| frame.sequence == newest).collect();
    assert!(copies.len() >= 2, "{jobs:?}");
    for page in (0..whole.len()).step_by(4096) {
        let is_hit = |f: &&&&Found| f.offset < page + 4096 && f.offset + f.len > page;
        assert!(copies.iter().filter(is_hit).count() < copies.len(), "page at {page}");
    }
}

/// The files beside sled's: what becomes of them is no reason to lose anything.
#[test]
fn damage_in_format_or_current_loses_nothing_or_is_named() {
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change); 6] = [
        ("flip", |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }),
        ("zero", |bytes| bytes.fill(0)),
        ("truncate", |bytes| bytes.truncate(bytes.len() / 2)),
        ("swap", |bytes| {
            let half = bytes.len() / 2;
            bytes.rotate_left(half);
        }),
        ("duplicate", |bytes| bytes.extend(bytes.clone())),
        ("garbage tail", |bytes| bytes.extend([0xa5; 3000])),
    ];
    for ending in [Ending::Closed, Ending::Killed] {
        let store = Store::new(ending);
        for file in ["FORMAT", "CURRENT"] {
            for (name, change) in changes {
                let copy = store.copy();
                let path = copy.path().join(file);
                let mut bytes = fs::read(&path).unwrap();
                change(&mut bytes);
                fs::write(&path, bytes).unwrap();
                match open_on(copy.path(), Placement::Sled, Arc::new(RealDisk)) {
                    Ok(checkpoints) => {
                        assert_eq!(ids(&checkpoints), LIVE, "{ending:?} {name} {file}");
                        for id in LIVE {
                            assert!(read_sections(&checkpoints, id).unwrap());
                        }
                    }
                    Err(error) => {
                        let is_named = error.to_string().contains("FORMAT")
                            || error.kind() == ErrorKind::Incompatible;
                        assert!(file == "FORMAT" && is_named, "{ending:?} {name} {error:?}");
                    }
                }
            }
        }
        let copy = store.copy();
        fs::remove_file(copy.path().join("CURRENT")).unwrap();
        assert_eq!(ids(&open(copy.path(), Placement::Sled)), LIVE, "{ending:?}");
    }
}

#[test]
fn an_older_copy_of_a_closed_store_is_not_believed() {
    let store = Store::new(Ending::Closed);
    let copy = store.copy();
    fs::remove_dir_all(copy.path().join("index-1")).unwrap();
    image(&store.older.path().join("index-1"), &copy.path().join("index-1"));
    let error = open_on(copy.path(), Placement::Sled, Arc::new(RealDisk)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert!(error.to_string().contains("tidegate repair"), "{error}");
    let report = repaired(copy.path(), Broken::Keep);
    assert_eq!(report.recovered["job"], [CheckpointId(1), CheckpointId(2)]);
    assert_eq!(report.lost.len(), 1, "{report:?}");
}

/// sled reads the segment that it wrote to last when it opens, and of the others only what is asked for.
#[test]
fn a_damaged_body_ends_no_reading_but_its_own() {
    const LEN: usize = 12 << 20;
    let dir = quick_dir();
    let checkpoints = open(dir.path(), Placement::Sled);
    let write = |checkpoints: &Checkpoints, id: u64, content: u64| {
        let pending = begin(checkpoints, CheckpointId(id), 1).unwrap();
        let mut writer = pending.writer(&task(0)).unwrap();
        let bytes = body(CheckpointId(content), 0, LEN);
        writer.section(&key(0), &mut |out| Ok(out.write_all(&bytes)?)).unwrap();
        let snapshot = writer.finish().unwrap();
        pending.commit(&[(task(0), snapshot)]).unwrap();
        usize::try_from(snapshot.measurements().checkpointed_bytes).unwrap()
    };
    // The second one shares what the first wrote, and knows the digests.
    let written = [(1, 1), (2, 1), (3, 2), (4, 3)].map(|(id, of)| write(&checkpoints, id, of));
    assert_eq!(written, [LEN, 0, LEN, LEN]);
    let read = |checkpoints: &Checkpoints, id: u64, content: u64| -> Result<bool> {
        let mut reader = checkpoints.read_task(CheckpointId(id), &task(0))?;
        let mut found = Vec::new();
        reader.next_section()?;
        reader.body().read_to_end(&mut found)?;
        Ok(found == body(CheckpointId(content), 0, LEN))
    };
    drop(checkpoints);
    drop(open(dir.path(), Placement::Sled));
    let path = dir.path().join("index-1/db");
    let mut bytes = fs::read(&path).unwrap();
    let is_own = |found: &&Found| found.kind == FrameKind::Chunk && found.checkpoint == 1;
    let own = frames(&bytes).into_iter().find(|found| is_own(&found)).unwrap();
    bytes[own.offset + own.len - 1] ^= 4;
    fs::write(&path, bytes).unwrap();
    let checkpoints = open(dir.path(), Placement::Sled);
    let error = read(&checkpoints, 2, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert!(read(&checkpoints, 3, 2).unwrap() && read(&checkpoints, 4, 3).unwrap());
    let written = write(&checkpoints, 5, 1);
    assert!(written > 0 && written < LEN, "what is sound is shared, and nothing else: {written}");
    assert!(read(&checkpoints, 5, 1).unwrap());
}

#[test]
fn a_store_that_lost_a_checkpoint_opens_with_the_others_and_keeps_what_is_left() {
    for ending in [Ending::Closed, Ending::Killed] {
        let store = Store::new(ending);
        let copy = store.copy();
        let path = copy.path().join("index-1/db");
        let mut bytes = fs::read(&path).unwrap();
        let is_own = |found: &&Found| found.kind == FrameKind::Chunk && found.checkpoint == LIVE[1];
        for found in frames(&bytes).iter().filter(is_own) {
            bytes[found.offset + found.len - 1] ^= 4;
        }
        fs::write(&path, bytes).unwrap();
        let checkpoints = open(copy.path(), Placement::Sled);
        assert_eq!(ids(&checkpoints), LIVE, "{ending:?}");
        let error = read_sections(&checkpoints, LIVE[1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
        assert!(read_sections(&checkpoints, LIVE[0]).unwrap());
        assert!(copy.path().join("lost/index-1/db").exists());
        let next = commit_sections(&checkpoints);
        assert!(next.0 > LIVE[1]);
        drop(checkpoints);
        assert!(read_sections(&open(copy.path(), Placement::Sled), next.0).unwrap());
    }
}
