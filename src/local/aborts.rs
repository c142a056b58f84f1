//! Checkpoints that were given up before their barrier came to a task.

use std::collections::BTreeSet;

use crate::ids::CheckpointId;

/// How many are remembered.
const REMEMBERED_MAX: usize = 1024;

/// The newest such checkpoints, up to a number: one that is forgotten would be cut in vain.
#[derive(Debug, Default)]
pub(super) struct Aborts(BTreeSet<CheckpointId>);

impl Aborts {
    pub(super) fn remember(&mut self, id: CheckpointId) {
        self.0.insert(id);
        while self.0.len() > REMEMBERED_MAX {
            self.0.pop_first();
        }
    }

    /// The barrier of `id` is there: whether that was given up. Older ones are forgotten.
    pub(super) fn take(&mut self, id: CheckpointId) -> bool {
        let is_aborted = self.0.contains(&id);
        self.0 = self.0.split_off(&id.next());
        is_aborted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_aborts_are_remembered_and_the_oldest_forgotten() {
        let mut aborts = Aborts::default();
        for id in 1..=REMEMBERED_MAX as u64 + 5 {
            aborts.remember(CheckpointId(id));
        }
        assert!(!aborts.take(CheckpointId(5)), "the oldest");
        assert!(aborts.take(CheckpointId(7)));
        assert!(!aborts.take(CheckpointId(7)), "once");
        assert!(aborts.take(CheckpointId(REMEMBERED_MAX as u64 + 5)));
        assert_eq!(aborts.0.len(), 0);
    }
}
