//! Goal: a store takes the space of what is retained, and no more memory, however many checkpoints it
//! has seen; what has not changed is not written again. Method: checkpoints of 64 MiB one after the
//! other through the public API, retaining 1 and then 3; allocated blocks of every file are counted
//! as soon as the store is idle. Thousands of small commits for the index. `TIDEGATE_LARGE=1` makes
//! 500 checkpoints of a few, and 100,000 commits of 1000; with `--nocapture` it says how long the
//! commits took.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "a test may panic"
)]

#[path = "support/random.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod random;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use random::Random;
use tempfile::TempDir;
use tidegate::catalog::{CheckpointPlan, Checkpoints, OperatorSpec};
use tidegate::clock::{Clock, SystemClock};
use tidegate::message::CheckpointType;
use tidegate::state::{SectionKey, SectionKind, SnapshotSink};
use tidegate::storage::{CheckpointStorage, SledCheckpointStorage};
use tidegate::{JobId, OperatorUid, TaskId};

const MIB: usize = 1 << 20;
const SEGMENT: u64 = 64 << 20;
const CHUNK: usize = 256 << 10;
const STATE: usize = 64 * MIB;
const SUBTASKS: usize = 2;

/// How long a store may take until it is idle.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes and memory are counted for the whole process: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_large() -> bool {
    std::env::var_os("TIDEGATE_LARGE").is_some_and(|asked| asked == "1")
}

/// On the disk that holds the build.
fn disk_dir() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// In memory where there is such a place.
fn quick_dir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| disk_dir())
}

fn open(dir: &Path) -> Checkpoints {
    Checkpoints::new(SledCheckpointStorage::new(dir).open(&JobId::new("job").unwrap()).unwrap())
}

fn commit(checkpoints: &Checkpoints, state: &[u8], kind: CheckpointType) {
    let operator = OperatorSpec::new(OperatorUid::new("op").unwrap(), 2);
    let mut plan = CheckpointPlan::new(vec![operator]);
    plan.kind = kind;
    let pending = checkpoints.begin(checkpoints.next_id(), plan).unwrap();
    let snapshots: Vec<_> = (0..)
        .zip(state.chunks(state.len() / SUBTASKS))
        .map(|(subtask, part)| {
            let task = TaskId { operator: OperatorUid::new("op").unwrap(), subtask };
            let mut writer = pending.writer(&task).unwrap();
            let key = SectionKey::new(SectionKind::Raw, "state");
            writer.section(&key, &mut |out| Ok(out.write_all(part)?)).unwrap();
            (task, writer.finish().unwrap())
        })
        .collect();
    pending.commit(&snapshots).unwrap();
}

/// Bytes of the blocks that the file system gave to all files below `dir`.
fn allocated(dir: &Path) -> u64 {
    let mut bytes = 0;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        // A file may be freed meanwhile.
        let Ok(meta) = entry.metadata() else { continue };
        bytes += if meta.is_dir() { allocated(&entry.path()) } else { meta.blocks() * 512 };
    }
    bytes
}

/// Waits until the files below `dir` have at most this many bytes.
fn assert_shrinks(dir: &Path, most: f64, what: &str) {
    let clock = SystemClock::new();
    while allocated(dir) as f64 > most {
        let found = allocated(dir);
        assert!(clock.now() < PATIENCE, "{what}: {found} bytes, at most {most} are promised");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Resident memory of this process.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    kib.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Bytes that this process handed to the system so far.
fn written() -> u64 {
    let counts = fs::read_to_string("/proc/self/io").unwrap();
    let count = counts.lines().find_map(|line| line.strip_prefix("wchar: "));
    count.unwrap().parse().unwrap()
}

/// State whose chunks are told apart by a version each.
struct State {
    bytes: Vec<u8>,
    versions: Vec<u64>,
    random: Random,
}

impl State {
    fn new() -> Self {
        let mut random = Random::new(1);
        let bytes = (0..STATE / 8).flat_map(|_| random.next().to_le_bytes()).collect();
        Self { bytes, versions: vec![0; STATE / CHUNK], random }
    }

    fn change_chunk(&mut self, chunk: usize, version: u64) {
        self.versions[chunk] = version;
        for page in self.bytes[chunk * CHUNK..][..CHUNK].chunks_mut(4096) {
            page[..8].copy_from_slice(&version.to_le_bytes());
        }
    }

    /// Changes everything, or a tenth in places all over.
    fn change(&mut self, version: u64, kind: CheckpointType) {
        let chunks = STATE / CHUNK;
        if kind == CheckpointType::FullCheckpoint {
            (0..chunks).for_each(|chunk| self.change_chunk(chunk, version));
        }
        for _ in 0..chunks / 10 {
            let chunk = self.random.below(chunks as u64);
            self.change_chunk(usize::try_from(chunk).unwrap(), version);
        }
    }
}

/// Bytes of all chunks that these checkpoints have, shared ones once.
fn live_bytes(kind: CheckpointType, retained: &[Vec<u64>]) -> f64 {
    if kind == CheckpointType::FullCheckpoint {
        return (retained.len() * STATE) as f64;
    }
    let chunks = retained.iter().flat_map(|versions| versions.iter().enumerate());
    let distinct: std::collections::BTreeSet<_> = chunks.collect();
    (distinct.len() * CHUNK) as f64
}

/// Commits `rounds` checkpoints retaining 1, then as many retaining 3.
fn churn(kind: CheckpointType, rounds: u64, factor: f64) {
    let _alone = alone();
    let dir = disk_dir();
    let checkpoints = open(dir.path());
    let mut state = State::new();
    let mut version = 0;
    let mut memories = Vec::new();
    let mut retained = Vec::new();
    for retain in [1, 3] {
        let mut times = Vec::new();
        for _ in 0..rounds {
            version += 1;
            state.change(version, kind);
            let clock = SystemClock::new();
            commit(&checkpoints, &state.bytes, kind);
            times.push(clock.now());
            checkpoints.subsume(retain).unwrap();
            retained.push(state.versions.clone());
            memories.push(memory());
            let dropped = retained.len().saturating_sub(retain);
            retained.drain(..dropped);
            let live = live_bytes(kind, &retained);
            let most = factor * live + 4.0 * SEGMENT as f64;
            assert_shrinks(dir.path(), most, &format!("{kind:?} {version} retaining {retain}"));
        }
        times.sort();
        let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
        println!("{kind:?} retaining {retain}: commits took {median:?}, at most {longest:?}");
    }
    // The first rounds fill buffers and caches.
    let (early, late) = (memories[memories.len() / 4], memories[memories.len() - 1]);
    println!("{kind:?}: {} MiB of memory, then {} MiB", early >> 20, late >> 20);
    assert!(late < early + (32 << 20), "{memories:?}");
}

#[test]
fn full_checkpoints_take_the_space_of_those_that_are_retained() {
    churn(CheckpointType::FullCheckpoint, if is_large() { 500 } else { 6 }, 1.1);
}

#[test]
fn incremental_checkpoints_take_little_more_than_what_is_retained() {
    churn(CheckpointType::Checkpoint, if is_large() { 500 } else { 6 }, 1.5);
}

#[test]
fn the_index_stays_small_however_many_commits_there_were() {
    let _alone = alone();
    let dir = quick_dir();
    let checkpoints = open(dir.path());
    let mut state = vec![7; 1024];
    for round in 0..if is_large() { 100_000_u64 } else { 1000 } {
        state[..8].copy_from_slice(&round.to_le_bytes());
        commit(&checkpoints, &state, CheckpointType::Checkpoint);
        checkpoints.subsume(3).unwrap();
    }
    let indexes = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let indexes = indexes.filter(|path| path.to_str().unwrap().contains("/index-"));
    let bytes: u64 = indexes.map(|path| allocated(&path)).sum();
    println!("the index has {} KiB", bytes >> 10);
    assert!(bytes > 0, "there is no index");
    assert!(bytes < 64 << 20, "{bytes}");
    assert_shrinks(dir.path(), 5.0 * SEGMENT as f64, "small checkpoints");
}

#[test]
fn what_has_not_changed_is_not_written_again() {
    let _alone = alone();
    let dir = disk_dir();
    let checkpoints = open(dir.path());
    let mut random = Random::new(2);
    let total = 256 * MIB;
    let mut state: Vec<u8> = (0..total / 8).flat_map(|_| random.next().to_le_bytes()).collect();
    let write = |state: &[u8]| {
        let before = written();
        commit(&checkpoints, state, CheckpointType::Checkpoint);
        checkpoints.subsume(1).unwrap();
        (written() - before) as f64 / total as f64
    };
    let all = write(&state);
    assert!((1.0..1.03).contains(&all), "{all} bytes were written for each");
    for place in [7 * MIB + 4567, total - total / 100] {
        for byte in &mut state[place..][..total / 100] {
            *byte ^= 0xa5;
        }
        let changed = write(&state);
        println!("one percent changed: {changed:.5} bytes were written for each");
        assert!(changed > 0.01 && changed < 0.02, "{changed} bytes were written for each");
        let unchanged = write(&state);
        println!("nothing changed: {unchanged:.5} bytes were written for each");
        assert!(unchanged < 0.005, "{unchanged} bytes were written for each");
    }
}
