//! Whole checkpoints through the public API.

use std::path::Path;

use tidegate::catalog::{CheckpointPlan, Checkpoints, OperatorSpec};
use tidegate::message::CheckpointType;
use tidegate::state::{SectionKey, SectionKind, SnapshotSink, SnapshotSource};
use tidegate::storage::{CheckpointStorage, Placement, SledCheckpointStorage};
use tidegate::{CheckpointId, JobId, OperatorUid, TaskId};

use crate::common::{MIB, drain};

/// How many subtasks write a large checkpoint.
pub(crate) const SUBTASKS: u32 = 4;

pub(crate) fn open_job(dir: &Path, placement: Placement, job: &str) -> Checkpoints {
    let storage = SledCheckpointStorage::new(dir).with_placement(placement);
    Checkpoints::new(storage.open(&JobId::new(job).unwrap()).unwrap())
}

pub(crate) fn open(dir: &Path, placement: Placement) -> Checkpoints {
    open_job(dir, placement, "bench")
}

fn task(subtask: u32) -> TaskId {
    TaskId { operator: OperatorUid::new("op").unwrap(), subtask }
}

fn plan(parallelism: u32, kind: CheckpointType) -> CheckpointPlan {
    let operator = OperatorSpec::new(OperatorUid::new("op").unwrap(), parallelism);
    let mut plan = CheckpointPlan::new(vec![operator]);
    plan.kind = kind;
    plan
}

/// One subtask for each fourth of the state, each on a thread of its own, until the commit returned.
pub(crate) fn write(checkpoints: &Checkpoints, state: &[u8], kind: CheckpointType) -> CheckpointId {
    let id = checkpoints.next_id();
    let pending = checkpoints.begin(id, plan(SUBTASKS, kind)).unwrap();
    let write = |subtask: u32, part: &[u8]| {
        let mut writer = pending.writer(&task(subtask)).unwrap();
        let key = SectionKey::new(SectionKind::Raw, "state");
        writer.section(&key, &mut |out| Ok(out.write_all(part)?)).unwrap();
        (task(subtask), writer.finish().unwrap())
    };
    let snapshots: Vec<_> = std::thread::scope(|scope| {
        let write = &write;
        let parts = (0..).zip(state.chunks(state.len() / SUBTASKS as usize));
        let threads: Vec<_> = parts.map(|(n, part)| scope.spawn(move || write(n, part))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    pending.commit(&snapshots).unwrap();
    id
}

/// A checkpoint of one subtask, on this thread.
pub(crate) fn write_small(checkpoints: &Checkpoints, state: &[u8]) {
    let id = checkpoints.next_id();
    let pending = checkpoints.begin(id, plan(1, CheckpointType::Checkpoint)).unwrap();
    let mut writer = pending.writer(&task(0)).unwrap();
    let key = SectionKey::new(SectionKind::Raw, "state");
    writer.section(&key, &mut |out| Ok(out.write_all(state)?)).unwrap();
    pending.commit(&[(task(0), writer.finish().unwrap())]).unwrap();
}

/// Two threads stream every section back and give every byte to a sink.
pub(crate) fn read(checkpoints: &Checkpoints, id: CheckpointId) -> usize {
    let read_half = |half: u32| {
        let mut buffer = vec![0; MIB];
        let mut read = 0;
        for subtask in (half..SUBTASKS).step_by(2) {
            let mut reader = checkpoints.read_task(id, &task(subtask)).unwrap();
            while reader.next_section().unwrap().is_some() {
                read += drain(&mut buffer, |buffer| reader.body().read(buffer).unwrap());
            }
        }
        read
    };
    std::thread::scope(|scope| {
        let threads = [0, 1].map(|half| scope.spawn(move || read_half(half)));
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}
