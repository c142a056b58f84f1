//! Damages a store under `Placement::Split` on disk, as a bad sector would.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use tidegate::CheckpointId;
use tidegate::inspect::{Inspector, Verdict};

/// Bytes between two places that are tried; less than a chunk has.
const STEP: usize = 1000;

/// Flips a bit in a chunk that only the newest checkpoint has, of the state of this operator. Returns the
/// number of that checkpoint and that of the one before, which stays sound like all others.
pub(crate) fn damage_newest(store: &Path, operator: &str) -> [CheckpointId; 2] {
    let log = fs::read_dir(store.join("log")).unwrap();
    let mut segments: Vec<_> = log.map(|entry| entry.unwrap().path()).collect();
    // Their names are in the order in which they were begun: what is newest lies behind.
    segments.sort();
    for segment in segments.iter().rev() {
        let bytes = fs::read(segment).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let file = OpenOptions::new().write(true).open(segment).unwrap();
        for (at, byte) in bytes.iter().enumerate().take(used).rev().step_by(STEP) {
            file.write_all_at(&[byte ^ 4], at as u64).unwrap();
            if let Some(numbers) = damaged_and_before(store, operator) {
                return numbers;
            }
            file.write_all_at(&[*byte], at as u64).unwrap();
        }
    }
    panic!("the newest checkpoint of {} has no chunk of {operator} alone", store.display());
}

fn damaged_and_before(store: &Path, operator: &str) -> Option<[CheckpointId; 2]> {
    let inspector = Inspector::open(store).ok()?;
    let verified = inspector.verify(None, None, &mut |_| {}).unwrap();
    let (newest, others) = verified.jobs.first()?.checkpoints.split_last()?;
    let task = format!("task {operator}/");
    let is_alone = newest.verdict == Verdict::Damaged
        && newest.damage.iter().any(|damage| damage.message.contains(&task))
        && others.iter().all(|other| other.verdict == Verdict::Sound);
    // Its records but for the chunk can be read.
    let shown = inspector.show(None, Some(newest.id)).ok()?;
    let mut tasks = shown.operators.iter().flat_map(|operator| &operator.subtasks);
    (is_alone && tasks.all(|task| task.damage.is_none())).then_some([newest.id, others.last()?.id])
}
