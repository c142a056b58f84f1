//! Every kind of damage at every kind of place: the store opens or names the file, what does not
//! depend on the damage is whole, what does is `Corrupt`, and nothing that was dropped comes back.

use std::collections::BTreeSet;
use std::fs;

use super::*;
use crate::error::ErrorKind;
use crate::inspect::Inspector;
use crate::record::FrameKind;
use crate::storage::filesystem::Savepoints;
use crate::storage::sled::directory::StoreDir;
use crate::storage::sled::log::{parse_segment_name, scan_segment};

/// The checkpoints that live in [`Store`]; those below were dropped.
pub(super) const LIVE: [u64; 2] = [3, 4];

/// One large segment, the same with each checkpoint in one frame, or checkpoints that span small ones.
pub(super) const SIZES: [LogSettings; 3] = [
    LogSettings { segment_bytes: 1 << 20, ..SETTINGS },
    LogSettings { segment_bytes: 1 << 20, small_commit_bytes: 128 * 1024, ..SETTINGS },
    SETTINGS,
];

/// How the process ended that wrote the store.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Ending {
    Closed,
    Killed,
    /// And nothing else knows what the log has lost.
    KilledWithoutIndex,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Harm {
    FlipFirst,
    FlipLast,
    ZeroPage,
    Truncate,
    Delete,
    Swap,
    Duplicate,
    GarbageTail,
    OlderCopy,
}

pub(super) const HARMS: [Harm; 9] = [
    Harm::FlipFirst,
    Harm::FlipLast,
    Harm::ZeroPage,
    Harm::Truncate,
    Harm::Delete,
    Harm::Swap,
    Harm::Duplicate,
    Harm::GarbageTail,
    Harm::OlderCopy,
];

/// A frame of the log.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) file: PathBuf,
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) kind: FrameKind,
    pub(super) checkpoint: u64,
}

/// A store as it was after two checkpoints, and in the end.
pub(super) struct Store {
    pub(super) older: TempDir,
    dir: TempDir,
}

impl Store {
    pub(super) fn new(ending: Ending, settings: LogSettings) -> Self {
        let (older, dir, work) = (quick_dir(), quick_dir(), quick_dir());
        let disk = Arc::new(RealDisk);
        let store = OpenStore::open_with(work.path(), Some(Placement::Split), disk, settings);
        let name = JobId::new("job").unwrap();
        let job = SledJob::claim(Arc::new(store.unwrap()), &name).unwrap();
        let checkpoints = Checkpoints::new(JobStorage::new(job, Savepoints::within(&name)));
        for id in 1..=4 {
            commit_small(&checkpoints, CheckpointId(id)).unwrap();
            let old: Vec<_> = checkpoints.ids().into_iter().rev().skip(2).collect();
            checkpoints.discard(&old).unwrap();
            if id == 2 {
                image(work.path(), older.path());
            }
        }
        // The index has written what it knows when it answers again.
        assert!(read_small(&checkpoints, CheckpointId(4)).unwrap());
        if ending == Ending::Closed {
            drop(checkpoints);
            image(work.path(), dir.path());
        } else {
            image(work.path(), dir.path());
        }
        if ending == Ending::KilledWithoutIndex {
            fs::remove_dir_all(dir.path().join("index-1")).unwrap();
        }
        Self { older, dir }
    }

    pub(super) fn copy(&self) -> TempDir {
        let copy = quick_dir();
        image(self.dir.path(), copy.path());
        copy
    }

    /// All frames, with paths below the store.
    pub(super) fn frames(&self) -> Vec<Found> {
        let disk = Arc::new(RealDisk);
        let store = StoreDir::new(self.dir.path(), disk).require_format().unwrap().store;
        let mut frames = Vec::new();
        for path in segments(self.dir.path()) {
            let name = path.file_name().unwrap().to_str().unwrap();
            let number = parse_segment_name(name).unwrap();
            let file = RealDisk.open(&path).unwrap();
            let file_below = PathBuf::from("log").join(name);
            let scan = scan_segment(&*file, &path, number, store, 0, &mut |header, place, _| {
                frames.push(Found {
                    file: file_below.clone(),
                    offset: place.offset,
                    len: place.len,
                    kind: header.kind,
                    checkpoint: header.origin.checkpoint.0,
                });
                Ok(())
            });
            assert!(scan.unwrap().damage.is_empty());
        }
        frames.sort_by(|a, b| (&a.file, a.offset).cmp(&(&b.file, b.offset)));
        frames
    }
}

fn usize_of(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

/// Harms a file around a frame; returns which of its bytes are no longer what and where they were.
pub(super) fn harm(
    harm: Harm,
    frame: &Found,
    next: Option<&Found>,
    dir: &Path,
    older: &Path,
) -> Option<(u64, u64)> {
    let path = dir.join(&frame.file);
    let mut bytes = fs::read(&path).unwrap();
    let (from, to) = (frame.offset, frame.offset + frame.len);
    let range = match harm {
        Harm::FlipFirst => {
            bytes[usize_of(from) + 41] ^= 4;
            (from, to)
        }
        Harm::FlipLast => {
            bytes[usize_of(to) - 1] ^= 4;
            (from, to)
        }
        Harm::ZeroPage => {
            let page = from / 4096 * 4096;
            let end = bytes.len().min(usize_of(page) + 4096);
            bytes[usize_of(page)..end].fill(0);
            (page, end as u64)
        }
        Harm::Truncate => {
            bytes.truncate(usize_of(from));
            (from, u64::MAX)
        }
        Harm::Delete => {
            fs::remove_file(&path).unwrap();
            return Some((0, u64::MAX));
        }
        Harm::Swap => {
            let next = next.filter(|next| next.file == frame.file)?;
            bytes[usize_of(from)..usize_of(next.offset + next.len)]
                .rotate_left(usize_of(frame.len));
            (from, next.offset + next.len)
        }
        Harm::Duplicate => {
            let again = bytes[usize_of(from)..usize_of(to)].to_vec();
            bytes.splice(usize_of(to)..usize_of(to), again);
            (to, u64::MAX)
        }
        Harm::GarbageTail => {
            bytes.extend([0xa5; 3000]);
            (u64::MAX, u64::MAX)
        }
        Harm::OlderCopy => {
            let old = fs::read(older.join(&frame.file)).ok()?;
            let same = old.iter().zip(&bytes).take_while(|(old, new)| old == new).count();
            bytes = old;
            (same as u64, u64::MAX)
        }
    };
    fs::write(&path, bytes).unwrap();
    Some(range)
}

/// Opens what is left and compares. `lost` are the frames that are not what and where they were.
fn judge(dir: &Path, ending: Ending, harm: Harm, lost: &[&Found]) {
    let is_lost = |id: u64| lost.iter().any(|frame| frame.checkpoint == id);
    let is_commit_lost =
        |id: u64| lost.iter().any(|f| f.checkpoint == id && f.kind == FrameKind::Commit);
    let is_drop_lost =
        lost.iter().any(|frame| matches!(frame.kind, FrameKind::Drop | FrameKind::Base));
    let is_known = ending != Ending::KilledWithoutIndex;
    let moved = matches!(harm, Harm::Swap | Harm::Duplicate);
    let verified = Inspector::open(dir).unwrap().verify(None, None, &mut |_| ()).unwrap();
    let is_hit = LIVE.iter().any(|id| is_lost(*id));
    // A log that is scanned finds a frame that was moved.
    let is_found = !is_hit || moved || !verified.sound;
    let at_the_end = LIVE.iter().any(|id| is_commit_lost(*id)) && ending != Ending::Closed;
    assert!(is_found || at_the_end, "verify finds nothing");

    let checkpoints = open(dir, Placement::Split);
    let found = ids(&checkpoints);
    for id in LIVE {
        let may_miss = !is_known && is_commit_lost(id);
        assert!(found.contains(&id) || may_miss, "{id} is forgotten without a word: {found:?}");
    }
    for id in found {
        assert!(LIVE.contains(&id) || (!is_known && is_drop_lost), "{id} came back");
        match read_small(&checkpoints, CheckpointId(id)) {
            Ok(is_right) => assert!(is_right, "{id} holds something else"),
            Err(error) => {
                assert!(
                    is_lost(id) || !LIVE.contains(&id),
                    "{id} does not depend on the damage: {error} {error:?}"
                );
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{id}: {error}");
                let is_gone = lost.iter().any(|frame| !dir.join(&frame.file).exists());
                let is_placed = error.corruption().is_some() || !LIVE.contains(&id);
                assert!(is_placed || is_gone, "{id}: no place: {error:?}");
            }
        }
    }
    let next = checkpoints.next_id();
    assert!(next.0 > LIVE[1] || !is_known, "{next} is given out again");
    assert!(checkpoints.attempt().0 > 1 || !is_known);
    commit_small(&checkpoints, next).unwrap();
    drop(checkpoints);
    let checkpoints = open(dir, Placement::Split);
    assert!(read_small(&checkpoints, next).unwrap());
}

/// The frames that are harmed: of each kind the newest of the newest checkpoint, of the older one, of
/// a dropped one, and of none.
fn targets(frames: &[Found]) -> Vec<usize> {
    let mut seen = BTreeSet::new();
    let places = frames.iter().enumerate().rev();
    places.filter(|(_, f)| seen.insert((f.kind as u8, f.checkpoint))).map(|(at, _)| at).collect()
}

fn matrix(ending: Ending) {
    let mut cases = 0;
    for settings in SIZES {
        let store = Store::new(ending, settings);
        let frames = store.frames();
        for target in targets(&frames) {
            for kind in HARMS {
                let copy = store.copy();
                let (frame, next) = (&frames[target], frames.get(target + 1));
                let harmed = harm(kind, frame, next, copy.path(), store.older.path());
                let Some((from, to)) = harmed else { continue };
                let is_hit = |found: &&Found| {
                    found.file == frame.file && found.offset < to && found.offset + found.len > from
                };
                let lost: Vec<_> = frames.iter().filter(is_hit).collect();
                let case = format!("{ending:?} {kind:?} {frame:?} of {settings:?}");
                let judged = std::panic::catch_unwind(|| judge(copy.path(), ending, kind, &lost));
                assert!(judged.is_ok(), "{case}");
                cases += 1;
            }
        }
    }
    assert!(cases > 100, "{cases}");
}

#[test]
fn damage_in_the_log_of_a_closed_store_is_named_and_the_rest_is_whole() {
    matrix(Ending::Closed);
}

#[test]
fn damage_in_the_log_of_a_killed_store_is_named_and_the_rest_is_whole() {
    matrix(Ending::Killed);
}

#[test]
fn damage_in_the_log_is_never_believed_without_an_index_either() {
    matrix(Ending::KilledWithoutIndex);
}

/// The files beside the log, whole: what stands in them, what stands in them after the harm, and
/// their older copy.
#[test]
fn damage_in_any_other_file_loses_nothing_or_is_named() {
    type Change = fn(&mut Vec<u8>, &[u8]);
    let changes: [(&str, Change); 9] = [
        ("flip early", |bytes, _| bytes[20] ^= 1),
        ("flip in the middle", |bytes, _| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }),
        ("flip last", |bytes, _| *bytes.last_mut().unwrap() ^= 1),
        ("zero", |bytes, _| {
            let end = bytes.len().min(4096);
            bytes[..end].fill(0);
        }),
        ("zero the end", |bytes, _| {
            let from = bytes.len().saturating_sub(4096) / 4096 * 4096;
            bytes[from..].fill(0);
        }),
        ("truncate", |bytes, _| bytes.truncate(bytes.len() / 2)),
        ("swap", |bytes, _| {
            let half = bytes.len() / 2;
            bytes.rotate_left(half);
        }),
        ("garbage tail", |bytes, _| bytes.extend([0xa5; 3000])),
        ("older copy", |bytes, older| *bytes = older.to_vec()),
    ];
    for ending in [Ending::Closed, Ending::Killed] {
        let store = Store::new(ending, SETTINGS);
        let mut files = vec![PathBuf::from("FORMAT"), PathBuf::from("CURRENT")];
        for entry in fs::read_dir(store.dir.path().join("index-1")).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                files.push(PathBuf::from("index-1").join(entry.file_name()));
            }
        }
        for file in files {
            for (name, change) in changes {
                let copy = store.copy();
                let path = copy.path().join(&file);
                let mut bytes = fs::read(&path).unwrap();
                if bytes.len() < 30 && name == "flip early" {
                    continue;
                }
                let older = fs::read(store.older.path().join(&file)).unwrap_or_default();
                change(&mut bytes, &older);
                fs::write(&path, bytes).unwrap();
                let case = format!("{ending:?} {name} {}", file.display());
                let opened = open_on(copy.path(), Placement::Split, Arc::new(RealDisk));
                let checkpoints = match opened {
                    Ok(checkpoints) => checkpoints,
                    Err(error) => {
                        let kind = error.kind();
                        let is_named =
                            error.to_string().contains("FORMAT") || kind == ErrorKind::Incompatible;
                        assert!(file.ends_with("FORMAT") && is_named, "{case}: {error:?}");
                        continue;
                    }
                };
                assert_eq!(ids(&checkpoints), LIVE, "{case}");
                for id in LIVE {
                    assert!(read_small(&checkpoints, CheckpointId(id)).unwrap(), "{case}: {id}");
                }
                let next = checkpoints.next_id();
                assert_eq!((next.0, checkpoints.attempt().0), (5, 2), "{case}");
                commit_small(&checkpoints, next).unwrap();
            }
        }
    }
}

#[test]
fn a_lost_format_beside_a_log_is_named() {
    let store = Store::new(Ending::Closed, SETTINGS);
    fs::remove_file(store.dir.path().join("FORMAT")).unwrap();
    let error = open_on(store.dir.path(), Placement::Split, Arc::new(RealDisk)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("FORMAT"), "{error}");
}
