//! Keys that were removed, for those who know a checkpoint that has them.

use crate::state::keyed_map::bucket::StoredKey;

/// Removals that are looked through for the same key.
const RECENT: usize = 64;

#[derive(Debug, Clone)]
pub(super) struct Removed {
    /// The cut before which it was removed, see `Cuts`.
    pub(super) changed: u32,
    pub(super) key: StoredKey,
}

/// Adds a removal. True when the key was not remembered so far.
pub(super) fn remember(all: &mut Vec<Removed>, removed: Removed) -> bool {
    let mut recent = all.iter_mut().rev().take(RECENT);
    if let Some(known) = recent.find(|known| known.key.parts() == removed.key.parts()) {
        known.changed = removed.changed;
        return false;
    }
    all.push(removed);
    true
}
