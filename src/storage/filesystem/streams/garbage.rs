//! What of the streams in a directory may go. Only names decide; no file is opened.

use std::collections::BTreeSet;

use crate::ids::{Attempt, CheckpointId};
use crate::storage::disk::Disk;
use crate::storage::filesystem::layout::{JobPaths, staged_by};
use crate::storage::filesystem::survey;
use crate::storage::stream::{Place, Realm, StreamName};

/// The exclusive streams of a checkpoint's directory that may go: all of them, or only the partial ones
/// of starts before `partial_before`.
pub(in crate::storage::filesystem) fn garbage_of(
    names: &[String],
    realm: Realm,
    id: CheckpointId,
    partial_before: Option<Attempt>,
) -> BTreeSet<String> {
    let place = Place::Exclusive(id);
    names.iter().filter(|name| may_go(name, realm, place, partial_before)).cloned().collect()
}

fn may_go(name: &str, realm: Realm, place: Place, partial_before: Option<Attempt>) -> bool {
    let Some((stream, rest)) = StreamName::parse_file(name) else { return false };
    let staged = staged_by(name, &stream.file());
    if !stream.is_of(realm, place) || (staged.is_none() && !rest.is_empty()) {
        return false;
    }
    partial_before.is_none_or(|before| staged.is_some_and(|by| by < before))
}

/// Removes partial streams of earlier starts that belong to no checkpoint. What cannot be removed is
/// tried again by the next start.
pub(in crate::storage::filesystem) fn clean_common(
    disk: &dyn Disk,
    paths: &JobPaths,
    realm: Realm,
    attempt: Attempt,
) {
    for (dir, place) in
        [paths.shared(), paths.taskowned()].into_iter().zip([Place::Shared, Place::TaskOwned])
    {
        let names = disk.list(&dir).unwrap_or_default();
        for name in names.iter().filter(|name| may_go(name, realm, place, Some(attempt))) {
            let path = dir.join(name);
            survey::warn(survey::remove(disk, &path));
        }
    }
}
