//! Goal: the log takes the space of what is retained, however little of each old segment still
//! lives. Method: checkpoints of two mebibytes in chunks of 16 KiB over segments of 256 KiB, so that a
//! few dozen rounds do what thousands do to a real store; allocated blocks are counted as soon as
//! the store is idle. `tests/store_space.rs` has the real sizes.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use super::*;
use crate::catalog::{CheckpointPlan, OperatorSpec};
use crate::clock::{Clock, SystemClock};
use crate::ids::OperatorUid;
use crate::message::CheckpointType;

const SEGMENT: u64 = 256 * 1024;
const SECTION: usize = 16 * 1024;
const SECTIONS: u32 = 64;
const SUBTASKS: u32 = 2;

/// How long a store may take until it is idle.
const PATIENCE: Duration = Duration::from_secs(60);

/// A version of each section of each subtask.
type Versions = [[u64; SECTIONS as usize]; SUBTASKS as usize];

fn section(subtask: usize, index: usize, version: u64) -> Vec<u8> {
    let mut word = version << 32 | (subtask << 16 | index) as u64;
    let bytes = (0..SECTION / 8).flat_map(|_| {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
        word.to_le_bytes()
    });
    bytes.collect()
}

fn commit_versions(checkpoints: &Checkpoints, versions: &Versions, kind: CheckpointType) {
    let operator = OperatorSpec::new(OperatorUid::new("op").unwrap(), SUBTASKS);
    let mut plan = CheckpointPlan::new(vec![operator]);
    plan.kind = kind;
    let pending = checkpoints.begin(checkpoints.next_id(), plan).unwrap();
    let mut snapshots = Vec::new();
    for (subtask, versions) in versions.iter().enumerate() {
        let task = task(u32::try_from(subtask).unwrap());
        let mut writer = pending.writer(&task).unwrap();
        for (index, version) in versions.iter().enumerate() {
            let bytes = section(subtask, index, *version);
            let key = key(u32::try_from(index).unwrap());
            writer.section(&key, &mut |out| Ok(out.write_all(&bytes)?)).unwrap();
        }
        snapshots.push((task, writer.finish().unwrap()));
    }
    pending.commit(&snapshots).unwrap();
}

fn assert_versions(checkpoints: &Checkpoints, id: CheckpointId, versions: &Versions) {
    for (subtask, versions) in versions.iter().enumerate() {
        let task = task(u32::try_from(subtask).unwrap());
        let mut reader = checkpoints.read_task(id, &task).unwrap();
        for (index, version) in versions.iter().enumerate() {
            assert!(reader.next_section().unwrap().is_some());
            let mut found = Vec::new();
            reader.body().read_to_end(&mut found).unwrap();
            assert!(found == section(subtask, index, *version), "{id} {task} {index}");
        }
    }
}

/// Bytes of all sections of these checkpoints, shared ones once.
fn live_bytes(retained: &[Versions], kind: CheckpointType) -> u64 {
    if kind == CheckpointType::FullCheckpoint {
        return retained.len() as u64 * u64::from(SUBTASKS * SECTIONS) * SECTION as u64;
    }
    let mut live = BTreeSet::new();
    for versions in retained {
        let all = versions.iter().enumerate();
        let all = all.flat_map(|(subtask, versions)| {
            versions.iter().enumerate().map(move |(index, version)| (subtask, index, *version))
        });
        live.extend(all);
    }
    live.len() as u64 * SECTION as u64
}

/// Bytes of the blocks that the file system gave to the segments.
fn log_blocks(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir.join("log")).unwrap().flatten();
    // A segment may be freed meanwhile.
    entries.flat_map(|entry| entry.metadata()).map(|meta| meta.blocks() * 512).sum()
}

fn assert_shrinks(dir: &Path, most: u64, what: &str) {
    let clock = SystemClock::new();
    while log_blocks(dir) > most {
        let found = log_blocks(dir);
        assert!(clock.now() < PATIENCE, "{what}: {found} bytes, at most {most} are promised");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Commits `rounds` checkpoints of which each changes every `step`th section, on average, and
/// retains 1, then 3. The log has at most `percent` of what is retained, and four segments.
fn churn(kind: CheckpointType, rounds: u64, step: u64, percent: u64) {
    let dir = quick_dir();
    let settings = LogSettings { segment_bytes: SEGMENT, ..LogSettings::default() };
    let open = || {
        let disk = Arc::new(RealDisk);
        let store = OpenStore::open_with(dir.path(), Some(Placement::Split), disk, settings);
        let job = SledJob::claim(Arc::new(store.unwrap()), &JobId::new("job").unwrap()).unwrap();
        Checkpoints::new(JobStorage::new(job, Savepoints::within(&JobId::new("job").unwrap())))
    };
    let mut checkpoints = open();
    let mut versions: Versions = [[0; SECTIONS as usize]; SUBTASKS as usize];
    let mut random = 1_u64;
    let mut version = 0;
    let mut retained = Vec::new();
    for retain in [1, 3] {
        for _ in 0..rounds {
            version += 1;
            for section in versions.iter_mut().flatten() {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                if (random >> 33).is_multiple_of(step) {
                    *section = version;
                }
            }
            commit_versions(&checkpoints, &versions, kind);
            checkpoints.subsume(retain).unwrap();
            retained.push(versions);
            let dropped = retained.len().saturating_sub(retain);
            retained.drain(..dropped);
            let most = live_bytes(&retained, kind) * percent / 100 + 4 * SEGMENT;
            assert_shrinks(dir.path(), most, &format!("{kind:?} {version} retaining {retain}"));
            if version % 16 == 0 {
                // What was moved is found again, in the order of a log that moved it.
                drop(checkpoints);
                checkpoints = open();
            }
        }
        let ids = checkpoints.ids();
        assert_eq!(ids.len(), retained.len());
        for (id, versions) in ids.iter().zip(&retained) {
            assert_versions(&checkpoints, *id, versions);
        }
    }
}

#[test]
fn full_checkpoints_leave_the_space_of_what_is_retained() {
    churn(CheckpointType::FullCheckpoint, 24, 1, 110);
}

#[test]
fn sections_that_change_all_over_leave_the_space_of_little_more_than_what_is_retained() {
    churn(CheckpointType::Checkpoint, 40, 10, 150);
}

#[test]
fn sections_that_hardly_ever_change_leave_no_segments_for_ever() {
    churn(CheckpointType::Checkpoint, 40, 100, 150);
}
