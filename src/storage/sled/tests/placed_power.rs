//! Cuts the power under a run of a store with `Placement::Sled`: between two of its syncs each sector of
//! sled's files may be as it was at the first or as it was at the second, or at no time at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use super::*;
use crate::storage::disk::DiskFile;
use crate::storage::sled::placed::{segment_positions, watch_syncs};

const SECTOR: usize = 512;

/// States between each two syncs.
const MIXES: u64 = 3;

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn read_files(dir: &Path, below: &Path, files: &mut Files) {
    for entry in std::fs::read_dir(dir.join(below)).unwrap() {
        let entry = entry.unwrap();
        let path = below.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            read_files(dir, &path, files);
        } else if let Ok(bytes) = std::fs::read(dir.join(&path)) {
            files.insert(path, bytes);
        }
    }
}

fn files(dir: &Path) -> Files {
    let mut found = Files::new();
    read_files(dir, Path::new(""), &mut found);
    found
}

fn write_files(files: &Files, dir: &Path) {
    for (path, bytes) in files {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Committing(u64),
    Committed(u64),
    Dropping(u64),
    Dropped(u64),
}

/// What was in the files after each sync, and what had been said by then.
struct Run {
    images: Vec<Files>,
    /// Each with the number of images before it.
    events: Vec<(usize, Event)>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let dir = quick_dir();
        let images = Arc::new(Mutex::new(Vec::new()));
        let checkpoints = open(dir.path(), Placement::Sled);
        let watched = (dir.path().to_path_buf(), Arc::clone(&images));
        let watch = watch_syncs(&dir.path().join("index-1"), move || {
            watched.1.lock().unwrap().push(files(&watched.0));
        });
        images.lock().unwrap().push(files(dir.path()));
        let mut events = Vec::new();
        let mut random = Random(seed);
        for _ in 0..7 {
            let mut say = |event| events.push((images.lock().unwrap().len(), event));
            if random.below(4) == 0 {
                let pending = begin(&checkpoints, checkpoints.next_id(), 1).unwrap();
                let mut writer = pending.writer(&task(0)).unwrap();
                writer.section(&key(0), &mut |out| Ok(out.write_all(&[7; 9000])?)).unwrap();
                let _unused = writer.finish().unwrap();
            }
            let id = checkpoints.next_id();
            say(Event::Committing(id.0));
            commit_small(&checkpoints, id).unwrap();
            say(Event::Committed(id.0));
            let kept = 1 + random.below(2);
            for old in checkpoints.ids().into_iter().rev().skip(kept) {
                say(Event::Dropping(old.0));
                checkpoints.discard(&[old]).unwrap();
                say(Event::Dropped(old.0));
            }
        }
        drop(watch);
        drop(checkpoints);
        let images = std::mem::take(&mut *images.lock().unwrap());
        Self { images, events }
    }

    fn said(&self, images: usize, which: fn(Event) -> Option<u64>) -> BTreeSet<u64> {
        let before = self.events.iter().filter(|(before, _)| *before <= images);
        before.filter_map(|(_, event)| which(*event)).collect()
    }
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }
}

/// Sectors of both; a file that only one has is there or not, and what lies beyond the shorter length
/// may read as zeros.
fn mix(one: &Files, two: &Files, random: &mut Random) -> Files {
    let names: BTreeSet<&PathBuf> = one.keys().chain(two.keys()).collect();
    let mut mixed = Files::new();
    for name in names {
        match (one.get(name), two.get(name)) {
            (Some(old), Some(new)) if name.ends_with("db") => {
                mixed.insert(name.clone(), mix_bytes(old, new, random));
            }
            // Everything but sled's file is replaced as a whole.
            (old, new) => {
                let choice = if random.below(2) == 0 { old } else { new };
                if let Some(bytes) = choice {
                    mixed.insert(name.clone(), bytes.clone());
                }
            }
        }
    }
    mixed
}

fn mix_bytes(old: &[u8], new: &[u8], random: &mut Random) -> Vec<u8> {
    let len = if random.below(2) == 0 { old.len() } else { new.len() };
    // Runs of sectors, as a disk takes them in.
    let run = 1 << random.below(8);
    let mut bytes = vec![0; len];
    for at in (0..len).step_by(SECTOR * run) {
        let from = if random.below(2) == 0 { old } else { new };
        let end = len.min(at + SECTOR * run).min(from.len());
        if at < end {
            bytes[at..end].copy_from_slice(&from[at..end]);
        }
    }
    bytes
}

/// What is wrong with what is left, if anything is.
fn judge(run: &Run, images: usize, dir: &Path) -> std::result::Result<(), String> {
    let committing = run.said(images, |event| match event {
        Event::Committing(id) => Some(id),
        _ => None,
    });
    let committed = run.said(images, |event| match event {
        Event::Committed(id) => Some(id),
        _ => None,
    });
    let dropping = run.said(images, |event| match event {
        Event::Dropping(id) => Some(id),
        _ => None,
    });
    let dropped = run.said(images, |event| match event {
        Event::Dropped(id) => Some(id),
        _ => None,
    });
    let mut fresh = BTreeSet::new();
    for round in 0..2 {
        let opened = open_on(dir, Placement::Sled, Arc::new(RealDisk));
        let checkpoints = opened.map_err(|error| format!("round {round}: {error} {error:?}"))?;
        let found: BTreeSet<u64> = ids(&checkpoints).into_iter().collect();
        let kept: BTreeSet<u64> = committed.difference(&dropping).copied().collect();
        if let Some(id) = kept.union(&fresh).find(|id| !found.contains(id)) {
            return Err(format!("round {round}: {id} is lost: {found:?}"));
        }
        for id in &found {
            if !fresh.contains(id) && (dropped.contains(id) || !committing.contains(id)) {
                return Err(format!("round {round}: {id} came from nowhere"));
            }
            match read_small(&checkpoints, CheckpointId(*id)) {
                Ok(true) => {}
                other => return Err(format!("round {round}: {id} reads as {other:?}")),
            }
        }
        let next = checkpoints.next_id();
        if found.union(&committed).any(|id| *id >= next.0) {
            return Err(format!("round {round}: {next} is given out again"));
        }
        commit_small(&checkpoints, next).map_err(|error| format!("commit: {error:?}"))?;
        fresh.insert(next.0);
    }
    Ok(())
}

#[test]
fn a_power_cut_between_any_two_syncs_of_sled_loses_nothing_announced() {
    let mut states = 0;
    for seed in 0..2 {
        let run = Run::new(seed);
        assert!(run.images.len() > 15, "{} images", run.images.len());
        for at in 1..run.images.len() {
            for number in 0..MIXES {
                let mut random = Random(seed << 32 | (at as u64) << 8 | number);
                let mixed = mix(&run.images[at - 1], &run.images[at], &mut random);
                let dir = quick_dir();
                write_files(&mixed, dir.path());
                if let Err(why) = judge(&run, at, dir.path()) {
                    panic!("seed {seed}, after sync {at}, mix {number}: {why}\n{:?}", run.events);
                }
                states += 1;
            }
        }
    }
    println!("{states} states");
}

/// The size of sled's segments.
const SEGMENT: usize = 16 << 20;

/// What a checkpoint writes that is given up: bodies without a sync of their own.
const GIVEN_UP: usize = 24 << 20;

fn give_up(checkpoints: &Checkpoints, len: usize, random: &mut Random) {
    let bytes: Vec<u8> = (0..len / 8).flat_map(|_| random.next().to_le_bytes()).collect();
    let pending = begin(checkpoints, checkpoints.next_id(), 1).unwrap();
    let mut writer = pending.writer(&task(0)).unwrap();
    writer.section(&key(0), &mut |out| Ok(out.write_all(&bytes)?)).unwrap();
    let _unused = writer.finish().unwrap();
}

/// sled's file as it was at the last sync: position and content of each segment, by offset.
#[derive(Default)]
struct Disk {
    segments: BTreeMap<u64, (u64, Vec<u8>)>,
}

fn newest(positions: impl Iterator<Item = u64>) -> BTreeSet<u64> {
    let mut positions: Vec<u64> = positions.collect();
    positions.sort_unstable();
    positions.into_iter().rev().take(2).collect()
}

impl Disk {
    /// Takes over what a sync wrote. When sled wrote over a segment since the last one, also gives the
    /// file in which this alone came to the disk.
    fn sync(&mut self, db: &Path) -> Option<Vec<u8>> {
        let file = std::fs::File::open(db).unwrap();
        let now: BTreeMap<u64, u64> = segment_positions(&file)
            .unwrap()
            .into_iter()
            .map(|(at, offset)| (offset, at))
            .collect();
        let mut open = newest(now.values().copied());
        open.extend(newest(self.segments.values().map(|(at, _)| *at)));
        let mut fresh = BTreeMap::new();
        let mut overwritten = BTreeSet::new();
        for (offset, position) in now {
            let old = self.segments.get(&offset).map(|(at, _)| *at);
            if old == Some(position) && !open.contains(&position) {
                continue;
            }
            let mut bytes = vec![0; SEGMENT];
            let len = file.read_up_to_at(&mut bytes, offset).unwrap();
            bytes.truncate(len);
            if old.is_some_and(|old| old != position) {
                overwritten.insert(offset);
            }
            fresh.insert(offset, (position, bytes));
        }
        let torn = (!overwritten.is_empty()).then(|| {
            let mut bytes = Vec::new();
            for (offset, (_, old)) in &self.segments {
                let from = if overwritten.contains(offset) { &fresh[offset].1 } else { old };
                bytes.resize(usize::try_from(*offset).unwrap(), 0);
                bytes.extend_from_slice(from);
            }
            bytes
        });
        self.segments.append(&mut fresh);
        torn
    }
}

#[test]
fn sled_writes_over_nothing_whose_copy_could_be_lost() {
    let dir = quick_dir();
    let checkpoints = open(dir.path(), Placement::Sled);
    let index = dir.path().join("index-1");
    let mut random = Random(1);
    // Each in a segment with much that goes, so that it is moved.
    for id in 0..4 {
        let next = checkpoints.next_id();
        commit_small(&checkpoints, next).unwrap();
        assert!(id < next.0);
        give_up(&checkpoints, GIVEN_UP / 2, &mut random);
    }
    let kept = ids(&checkpoints);
    let (cuts, lost) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(Vec::new())));
    let shared = (index.clone(), kept.clone(), Arc::clone(&cuts), Arc::clone(&lost));
    let disk = Mutex::new(Disk::default());
    disk.lock().unwrap().sync(&index.join("db"));
    let watch = watch_syncs(&index, move || {
        let (index, kept, cuts, lost) = &shared;
        let Some(torn) = disk.lock().unwrap().sync(&index.join("db")) else { return };
        *cuts.lock().unwrap() += 1;
        if let Err(why) = judge_torn(index, &torn, kept) {
            lost.lock().unwrap().push(why);
        }
    });
    for _ in 0..12 {
        give_up(&checkpoints, GIVEN_UP, &mut random);
    }
    commit_small(&checkpoints, checkpoints.next_id()).unwrap();
    drop(watch);
    assert!(lost.lock().unwrap().is_empty(), "{:?}", lost.lock().unwrap());
    let cuts = *cuts.lock().unwrap();
    assert!(cuts > 0, "sled wrote over nothing");
    println!("{cuts} cuts");
}

/// Opens a store with this file of sled and reads what was kept.
fn judge_torn(index: &Path, torn: &[u8], kept: &[u64]) -> std::result::Result<(), String> {
    let (after, store) = (quick_dir(), index.parent().unwrap());
    for name in ["FORMAT", "CURRENT"] {
        std::fs::copy(store.join(name), after.path().join(name)).unwrap();
    }
    std::fs::create_dir_all(after.path().join("log")).unwrap();
    std::fs::create_dir_all(after.path().join("index-1/blobs")).unwrap();
    std::fs::copy(index.join("conf"), after.path().join("index-1/conf")).unwrap();
    std::fs::write(after.path().join("index-1/db"), torn).unwrap();
    let opened = open_on(after.path(), Placement::Sled, Arc::new(RealDisk));
    let checkpoints = opened.map_err(|error| format!("{error:?}"))?;
    for id in kept {
        match read_small(&checkpoints, CheckpointId(*id)) {
            Ok(true) => {}
            other => return Err(format!("{id} of {kept:?} reads as {other:?}")),
        }
    }
    Ok(())
}
