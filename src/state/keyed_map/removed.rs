//! Keys that were removed, for those who know a checkpoint that has them.

use crate::state::keyed_map::bucket::StoredKey;

/// Removals that are looked through for the same key.
const RECENT: usize = 64;

/// Adds a removal. True when the key was not remembered so far.
pub(super) fn remember(all: &mut Vec<StoredKey>, removed: StoredKey) -> bool {
    let mut recent = all.iter_mut().rev().take(RECENT);
    if let Some(known) = recent.find(|known| known.parts() == removed.parts()) {
        known.changed = removed.changed;
        return false;
    }
    all.push(removed);
    true
}
