//! The state of a job at a checkpoint: a function of job, checkpoint and subtask, of which most stays
//! the same from one checkpoint to the next.

use tidegate::catalog::{Checkpoints, PendingCheckpoint};
use tidegate::state::{SectionKey, SectionKind, SnapshotSink, SnapshotSource};
use tidegate::{CheckpointId, OperatorUid, Result, TaskId};

pub(crate) const SUBTASKS: u32 = 2;

/// What changes as a whole: as long as a chunk.
const BLOCK_BYTES: usize = 256 * 1024;

/// One in so many checkpoints changes a block.
const CHANGES_ONE_IN: u64 = 4;

/// One in so many checkpoints has no blocks at all, so that it is a small one.
const SMALL_ONE_IN: u64 = 3;

/// splitmix64.
pub(crate) fn mix(seed: u64) -> u64 {
    let x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn hash(words: &[u64]) -> u64 {
    words.iter().fold(0, |seed, word| mix(seed ^ word))
}

fn job_number(job: &str) -> u64 {
    hash(&job.bytes().map(u64::from).collect::<Vec<_>>())
}

pub(crate) fn task(subtask: u32) -> TaskId {
    TaskId { operator: OperatorUid::new("op").unwrap(), subtask }
}

fn key(index: u32) -> SectionKey {
    SectionKey::new(SectionKind::Raw, "state").with_index(index)
}

/// What one subtask says of itself, then its blocks.
fn sections(job: &str, id: CheckpointId, subtask: u32) -> Vec<Vec<u8>> {
    let job = job_number(job);
    let own = format!("{job} {id} {subtask}").into_bytes();
    if hash(&[job, id.0]).is_multiple_of(SMALL_ONE_IN) {
        return vec![own];
    }
    let mut blocks = Vec::new();
    for block in 0..=u64::from(subtask) * 2 {
        let seed = hash(&[job, u64::from(subtask), block]);
        let is_change = |at: &u64| hash(&[seed, *at]).is_multiple_of(CHANGES_ONE_IN);
        let changed = (1..=id.0).rev().find(is_change).unwrap_or(0);
        let mut word = hash(&[seed, changed, 1]);
        for _ in 0..BLOCK_BYTES / 8 {
            word = mix(word);
            blocks.extend_from_slice(&word.to_le_bytes());
        }
    }
    vec![own, blocks]
}

/// Writes the state of every subtask, all at the same time.
pub(crate) fn write(
    pending: &PendingCheckpoint,
    job: &str,
    id: CheckpointId,
) -> Result<Vec<(TaskId, tidegate::catalog::TaskSnapshot)>> {
    let mut writers = Vec::new();
    for subtask in 0..SUBTASKS {
        let mut writer = pending.writer(&task(subtask))?;
        for (index, bytes) in (0..).zip(sections(job, id, subtask)) {
            writer.section(&key(index), &mut |out| Ok(out.write_all(&bytes)?))?;
        }
        writers.push((task(subtask), writer));
    }
    writers.into_iter().map(|(task, writer)| Ok((task, writer.finish()?))).collect()
}

/// Reads a checkpoint whole and says what is wrong with it.
pub(crate) fn check(
    checkpoints: &Checkpoints,
    job: &str,
    id: CheckpointId,
) -> std::result::Result<(), String> {
    let error = |error: tidegate::Error| format!("{error:?}");
    for subtask in 0..SUBTASKS {
        let mut reader = checkpoints.read_task(id, &task(subtask)).map_err(error)?;
        for (index, bytes) in (0..).zip(sections(job, id, subtask)) {
            let found = reader.next_section().map_err(error)?;
            if found != Some(key(index)) {
                return Err(format!("subtask {subtask}: section {found:?} instead of {index}"));
            }
            let mut body = Vec::new();
            reader.body().read_to_end(&mut body).map_err(|error| format!("{error:?}"))?;
            if body != bytes {
                return Err(format!("subtask {subtask}: section {index} has other bytes"));
            }
        }
        if let Some(more) = reader.next_section().map_err(error)? {
            return Err(format!("subtask {subtask}: a section {more:?} too many"));
        }
    }
    Ok(())
}
