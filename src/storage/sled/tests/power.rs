//! Cuts the power under a run of two jobs after every operation of its disk, and opens what may be
//! left: every legal state is a fate for each operation that was not durable.
//!
//! `TIDEGATE_SEEDS=FROM..TO` chooses the seeds; each is a run of its own, and more states at each cut.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

use tempfile::TempDir;

use super::*;
use crate::state::SnapshotSink;
use crate::storage::filesystem::Savepoints;
use crate::storage::tests::{Fate, PowerDisk};
use crate::storage::{CheckpointStorage, SledCheckpointStorage};

const JOBS: [&str; 2] = ["a", "b"];

/// The seeds that are run when nobody asks for others.
const SEEDS: Range<u64> = 0..2;

/// States with random fates at each cut, by default and with chosen seeds.
const RANDOM_STATES: [u64; 2] = [1, 4];

/// splitmix64.
#[derive(Debug, Clone)]
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

/// What the run knew of one job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Said {
    attempts: u32,
    /// Asked to be committed.
    committing: BTreeSet<u64>,
    committed: BTreeSet<u64>,
    dropping: BTreeSet<u64>,
    dropped: BTreeSet<u64>,
    pinning: BTreeSet<u64>,
    pinned: BTreeSet<u64>,
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Started,
    Committing(u64),
    Committed(u64),
    Dropping(u64),
    Dropped(u64),
    /// About to be pinned, or to lose its pin.
    Pinning(u64),
    Pinned(u64, bool),
}

/// A run with its disk, what it said, and what its index was when it was closed.
struct Run {
    disk: PowerDisk,
    /// Each with its job and the number of operations before it.
    events: Vec<(usize, usize, Event)>,
    /// Each with the number of operations before it.
    indexes: Vec<(usize, PathBuf)>,
    dir: TempDir,
    copies: TempDir,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let first_kill = usize::from(seed & 1 == 1);
        let dir = quick_dir();
        let disk = PowerDisk::new(dir.path());
        let (events, indexes) = (Vec::new(), Vec::new());
        let mut run = Self { disk, events, indexes, dir, copies: quick_dir() };
        for phase in 0..4 {
            let is_killed = phase % 2 == first_kill;
            run.phase(phase, is_killed, &mut random);
        }
        run
    }

    fn say(&mut self, job: usize, event: Event) {
        self.events.push((self.disk.operations(), job, event));
    }

    /// Opens, commits, drops; ends in order or as if the process were killed. The third start finds no
    /// index, the second and the fourth find what a kill or a close left.
    fn phase(&mut self, phase: usize, is_killed: bool, random: &mut Random) {
        let path = self.dir.path().to_path_buf();
        if phase == 2 {
            for (_, copy) in &self.indexes {
                let _removed = std::fs::remove_dir_all(path.join(copy.file_name().unwrap()));
            }
        }
        let disk = Arc::new(self.disk.clone());
        // Some checkpoints lie in one frame, some in several, and some tasks' parts in both.
        let settings = LogSettings { small_commit_bytes: 6 * 1024, ..SETTINGS };
        let store = OpenStore::open_with(&path, Some(Placement::Split), disk, settings);
        let store = Arc::new(store.unwrap());
        let mut jobs = Vec::new();
        for (job, name) in JOBS.iter().enumerate() {
            let name = JobId::new(*name).unwrap();
            let access = SledJob::claim(Arc::clone(&store), &name).unwrap();
            jobs.push(Checkpoints::new(JobStorage::new(access, Savepoints::within(&name))));
            self.say(job, Event::Started);
        }
        drop(store);
        for (job, checkpoints) in jobs.iter().enumerate() {
            self.believe(job, checkpoints);
        }
        if is_killed {
            self.disk.end_at_a_sync(15 + random.below(30));
        }
        for _ in 0..3 {
            let job = random.below(JOBS.len());
            let done = self.step(job, &jobs[job], random);
            assert!(done.is_ok() || is_killed, "{done:?}");
        }
        self.disk.turn(is_killed);
        drop(jobs);
        self.disk.turn(false);
        if !is_killed {
            self.keep_index(&path);
        }
    }

    /// What a start has seen stays as it saw it, whatever had been under way when the last one ended.
    fn believe(&mut self, job: usize, checkpoints: &Checkpoints) {
        let found = ids(checkpoints);
        for id in self.said(usize::MAX)[job].committing.clone() {
            let is_there = found.contains(&id);
            let event = if is_there { Event::Committed(id) } else { Event::Dropped(id) };
            self.say(job, event);
        }
    }

    fn step(&mut self, job: usize, checkpoints: &Checkpoints, random: &mut Random) -> Result<()> {
        if random.below(4) == 0 {
            // A checkpoint that fails leaves frames that no commit names.
            let pending = begin(checkpoints, checkpoints.next_id(), 1)?;
            let mut writer = pending.writer(&task(0))?;
            writer.section(&key(0), &mut |out| Ok(out.write_all(&[7; 9000])?))?;
            let _unused = writer.finish()?;
        }
        let id = checkpoints.next_id();
        self.say(job, Event::Committing(id.0));
        commit_small(checkpoints, id)?;
        self.say(job, Event::Committed(id.0));
        let kept = 1 + random.below(2);
        self.pin(job, checkpoints, id)?;
        let mut old: Vec<_> = checkpoints.ids().into_iter().rev().skip(kept).collect();
        old.retain(|id| !checkpoints.info(*id).unwrap().pinned);
        for id in &old {
            self.say(job, Event::Dropping(id.0));
        }
        checkpoints.discard(&old)?;
        for id in &old {
            self.say(job, Event::Dropped(id.0));
        }
        Ok(())
    }

    /// Pins this checkpoint where the one before is not pinned, and takes that one's pin back.
    fn pin(&mut self, job: usize, checkpoints: &Checkpoints, id: CheckpointId) -> Result<()> {
        let mut before = checkpoints.ids();
        before.retain(|id| checkpoints.info(*id).unwrap().pinned);
        let pinned = before.is_empty();
        for id in if pinned { vec![id] } else { before } {
            self.say(job, Event::Pinning(id.0));
            if pinned { checkpoints.pin(id) } else { checkpoints.unpin(id) }?;
            self.say(job, Event::Pinned(id.0, pinned));
        }
        Ok(())
    }

    fn keep_index(&mut self, path: &Path) {
        let closed = self.disk.last_link("CURRENT.tmp").unwrap();
        let to = self.copies.path().join(self.indexes.len().to_string());
        for entry in std::fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            if name.to_str().unwrap().starts_with("index-") {
                let to = to.join(name);
                image(&entry.path(), &to);
                self.indexes.push((closed, to));
            }
        }
    }

    /// What it had said when the power went after `cut` operations.
    fn said(&self, cut: usize) -> [Said; 2] {
        let mut said = [Said::default(), Said::default()];
        for (_, job, event) in self.events.iter().filter(|(before, ..)| *before <= cut) {
            let said = &mut said[*job];
            match event {
                Event::Started => said.attempts += 1,
                Event::Committing(id) => {
                    // A number of which nothing reached the disk may be given again.
                    said.dropped.remove(id);
                    said.committing.insert(*id);
                }
                Event::Committed(id) => drop(said.committed.insert(*id)),
                Event::Dropping(id) => drop(said.dropping.insert(*id)),
                Event::Dropped(id) => drop(said.dropped.insert(*id)),
                Event::Pinning(id) => drop(said.pinning.insert(*id)),
                Event::Pinned(id, pinned) => {
                    said.pinning.remove(id);
                    if *pinned {
                        said.pinned.insert(*id);
                    } else {
                        said.pinned.remove(id);
                    }
                }
            }
        }
        said
    }
}

/// Which of the operations that are not durable survive.
#[derive(Debug, Clone, Copy)]
enum Mode {
    Nothing,
    Everything,
    OnlyTheLast,
    AllButTheFirst,
    Random(u64),
}

impl Mode {
    fn all(random_states: u64) -> impl Iterator<Item = Self> {
        let extremes = [Self::Nothing, Self::Everything, Self::OnlyTheLast, Self::AllButTheFirst];
        extremes.into_iter().chain((0..random_states).map(Self::Random))
    }

    fn fates(self, pending: &[usize], random: &mut Random) -> BTreeMap<usize, Fate> {
        let survives = |is| if is { Fate::Survives } else { Fate::IsLost };
        let fate = |(place, number): (usize, &usize)| {
            let fate = match self {
                Self::Nothing => Fate::IsLost,
                Self::Everything => Fate::Survives,
                Self::OnlyTheLast => survives(place + 1 == pending.len()),
                Self::AllButTheFirst => survives(place != 0),
                Self::Random(_) => match random.below(6) {
                    0 | 1 => Fate::Survives,
                    2 => Fate::IsLost,
                    3 => Fate::IsShort,
                    _ => Fate::IsTorn(random.next()),
                },
            };
            (*number, fate)
        };
        pending.iter().enumerate().map(fate).collect()
    }

    /// What is left of sled: the last closed index, or by chance none, an older one, or garbage.
    fn index(self, run: &Run, cut: usize, random: &mut Random, to: &Path) {
        let closed: Vec<_> = run.indexes.iter().filter(|(before, _)| *before <= cut).collect();
        let choice = match self {
            Self::Random(_) => random.below(closed.len() + 2),
            _ => closed.len(),
        };
        match choice.checked_sub(1) {
            None => {}
            Some(place) if place < closed.len() => {
                let from = &closed[place].1;
                image(from, &to.join(from.file_name().unwrap()));
            }
            Some(_) => {
                let index = to.join("index-1");
                std::fs::create_dir_all(&index).unwrap();
                std::fs::write(index.join("db"), vec![0xa5; 50_000]).unwrap();
            }
        }
    }
}

/// What is wrong with what is left, if anything is.
fn judge(dir: &Path, said: &[Said; 2]) -> std::result::Result<(), String> {
    let storage = SledCheckpointStorage::new(dir);
    let mut fresh = [Vec::new(), Vec::new()];
    for round in 0..2 {
        let mut open = Vec::new();
        for name in JOBS {
            let access = storage.open(&JobId::new(name).unwrap());
            let access = access.map_err(|error| format!("round {round}: {error} {error:?}"))?;
            open.push(Checkpoints::new(access));
        }
        for (job, checkpoints) in open.iter().enumerate() {
            let (said, fresh) = (&said[job], &mut fresh[job]);
            judge_job(checkpoints, said, fresh)
                .map_err(|why| format!("round {round}, job {}: {why}", JOBS[job]))?;
            if checkpoints.attempt().0 <= said.attempts + round {
                return Err(format!("attempt {}", checkpoints.attempt()));
            }
        }
    }
    Ok(())
}

fn judge_job(
    checkpoints: &Checkpoints,
    said: &Said,
    fresh: &mut Vec<u64>,
) -> std::result::Result<(), String> {
    let found = ids(checkpoints);
    let kept = said.committed.iter();
    let kept = kept.filter(|id| !said.dropping.contains(id) && !said.dropped.contains(id));
    if let Some(id) = kept.chain(fresh.iter()).find(|id| !found.contains(id)) {
        return Err(format!("{id} is lost: {found:?}"));
    }
    for id in &found {
        if !said.committing.contains(id) && !fresh.contains(id) {
            return Err(format!("{id} appeared"));
        }
        if said.dropped.contains(id) && !fresh.contains(id) {
            return Err(format!("{id} came back"));
        }
        match read_small(checkpoints, CheckpointId(*id)) {
            Ok(true) if !said.pinning.contains(id) => {
                let is_pinned = checkpoints.info(CheckpointId(*id)).unwrap().pinned;
                if is_pinned != said.pinned.contains(id) {
                    return Err(format!("{id} is pinned: {is_pinned}"));
                }
            }
            Ok(true) => {}
            Ok(false) => return Err(format!("{id} holds something else")),
            Err(error) => return Err(format!("{id} cannot be read: {error} {error:?}")),
        }
    }
    let next = checkpoints.next_id();
    if found.iter().chain(&said.committed).any(|id| *id >= next.0) {
        return Err(format!("{next} is given out again: {found:?}"));
    }
    commit_small(checkpoints, next).map_err(|error| format!("commit {next}: {error:?}"))?;
    fresh.push(next.0);
    Ok(())
}

/// Judges the states of one seed and returns how many there were.
fn cut_everywhere(seed: u64, random_states: u64) -> usize {
    let run = Run::new(seed);
    let (mut states, hasher) = (HashSet::new(), RandomState::new());
    for cut in 0..=run.disk.operations() {
        let said = run.said(cut);
        let pending = run.disk.pending(cut);
        for mode in Mode::all(random_states) {
            let number = if let Mode::Random(number) = mode { number } else { 0 };
            let mut random = Random(seed << 32 | (cut as u64) << 8 | number);
            let remains = run.disk.remains(cut, &mode.fates(&pending, &mut random));
            let is_random = matches!(mode, Mode::Random(_));
            if !states.insert(hasher.hash_one((&remains, &said, is_random))) {
                continue;
            }
            let dir = quick_dir();
            remains.write(dir.path());
            mode.index(&run, cut, &mut random, dir.path());
            if let Err(why) = judge(dir.path(), &said) {
                panic!("TIDEGATE_SEEDS={seed}..{}: cut {cut}, {mode:?}: {why}\n{said:?}", seed + 1);
            }
        }
    }
    states.len()
}

#[test]
fn a_power_cut_after_any_operation_loses_nothing_announced() {
    let chosen = std::env::var("TIDEGATE_SEEDS").ok();
    let seeds = chosen.as_ref().map_or(SEEDS, |text| {
        let (from, to) = text.split_once("..").unwrap();
        from.trim().parse().unwrap()..to.trim().parse().unwrap()
    });
    let random_states = RANDOM_STATES[usize::from(chosen.is_some())];
    let mut waiting: Vec<u64> = seeds.rev().collect();
    // Two seeds at once: a state waits for the disk and for sled's threads.
    while !waiting.is_empty() {
        let pair: Vec<u64> = [waiting.pop(), waiting.pop()].into_iter().flatten().collect();
        std::thread::scope(|scope| {
            let judged = pair.iter().map(|seed| {
                let seed = *seed;
                (seed, scope.spawn(move || cut_everywhere(seed, random_states)))
            });
            for (seed, judged) in judged.collect::<Vec<_>>() {
                let states = judged.join().unwrap_or_else(|why| std::panic::resume_unwind(why));
                println!("seed {seed}: {states} states");
                assert!(states > 100, "seed {seed}: {states} states");
            }
        });
    }
}

#[test]
fn a_run_covers_what_a_cut_must_fall_into() {
    for seed in SEEDS {
        let run = Run::new(seed);
        let dropped = run.said(usize::MAX).iter().map(|said| said.dropped.len()).sum::<usize>();
        assert!(dropped > 0 && run.indexes.len() > 1, "seed {seed}");
        let log = segments(run.dir.path()).len();
        let made = run.disk.made(".seg");
        assert!(made > log && log > 1, "seed {seed}: {log} of {made} segments are left");
    }
}
