//! Damage to the log while nobody has it open, and what depends on the bytes that it hit.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::fuzzing::Bytes;
use crate::fuzzing::memory::{MemoryDisk, MemoryFile};
use crate::ids::StoreId;
use crate::record::{FrameKind, Node};
use crate::storage::probe::{parse_segment_name, scan_segment};

/// What went wrong, with all that is known of it.
pub(super) fn said(error: &Error) -> String {
    format!("{error:?}")
}

/// What the log has lost; checkpoints by job and number.
#[derive(Debug, Default)]
pub(super) struct Harmed {
    /// Any frame at all.
    pub(super) any: bool,
    /// Checkpoints of which some record was hit.
    pub(super) hurt: BTreeSet<(String, u64)>,
    /// Those of which the commit was.
    pub(super) commits: BTreeSet<(String, u64)>,
    /// A record that says what lives no longer or is pinned, or that a job ended.
    pub(super) drops: bool,
}

/// One frame; the bytes that it depends on are those of the frame around it, if it lies in one.
#[derive(Debug)]
struct Found {
    kind: FrameKind,
    file: PathBuf,
    range: Range<u64>,
    sequence: u64,
    job: String,
    checkpoint: u64,
    refs: Vec<u64>,
}

/// All frames of a log, by id; of several copies the newest.
fn frames(
    disk: &MemoryDisk,
    log: &Path,
    store: StoreId,
) -> Result<(BTreeMap<u64, Found>, Vec<Found>)> {
    let (mut nodes, mut others) = (BTreeMap::<u64, Found>::new(), Vec::new());
    for (path, bytes) in disk.files(log) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(number) = parse_segment_name(name) else { continue };
        let mut around = 0..0;
        let file = MemoryFile::new(&bytes);
        scan_segment(&file, &path, number, store, 0, &mut |header, place, payload| {
            let range = place.offset..place.offset + place.len;
            if range.end > around.end {
                around = range;
            }
            let node = payload.and_then(Node::decode).unwrap_or_default();
            let found = Found {
                kind: header.kind,
                file: path.clone(),
                range: around.clone(),
                sequence: header.sequence,
                job: header.origin.job.to_owned(),
                checkpoint: header.origin.checkpoint.0,
                refs: node.refs.iter().map(|reference| reference.id).collect(),
            };
            match header.kind {
                FrameKind::Chunk | FrameKind::Manifest | FrameKind::Commit => {
                    let newer = |old: &Found| old.sequence < found.sequence;
                    if nodes.get(&header.id).is_none_or(newer) {
                        nodes.insert(header.id, found);
                    }
                }
                _ => others.push(found),
            }
            Ok(())
        })?;
    }
    Ok((nodes, others))
}

/// What the log holds, a line for each frame.
pub(super) fn describe(disk: &MemoryDisk, log: &Path, store: StoreId) -> Vec<String> {
    let mut lines = Vec::new();
    for (path, bytes) in disk.files(log) {
        let file = MemoryFile::new(&bytes);
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = parse_segment_name(name).unwrap_or(0);
        let scan = scan_segment(&file, &path, number, store, 0, &mut |header, place, _| {
            let (kind, id, sequence) = (header.kind, header.id, header.sequence);
            let (job, checkpoint) = (header.origin.job, header.origin.checkpoint);
            let offset = place.offset;
            lines.push(format!("{name} {offset}: {kind:?} {id}/{sequence} {job} {checkpoint}"));
            Ok(())
        });
        lines.push(format!("{name}: {scan:?}"));
    }
    lines
}

/// Harms one segment as the input says, and tells what that hit.
///
/// # Errors
/// None that can happen: the disk is in memory.
pub(super) fn harm(
    disk: &MemoryDisk,
    log: &Path,
    store: StoreId,
    bytes: &mut Bytes<'_>,
) -> Result<Harmed> {
    let files = disk.files(log);
    let place = bytes.below(files.len());
    let Some((path, old)) = files.get(place) else { return Ok(Harmed::default()) };
    let (nodes, others) = frames(disk, log, store)?;
    let new = changed(old, bytes);
    disk.harm(path, new.as_deref());
    let is_hit =
        |found: &Found| found.file == *path && is_changed(old, new.as_deref(), &found.range);
    let mut harmed = Harmed::default();
    for found in nodes.values().chain(&others).filter(|found| is_hit(found)) {
        harmed.any = true;
        harmed.drops |= matches!(
            found.kind,
            FrameKind::Base | FrameKind::Drop | FrameKind::Pin | FrameKind::Finish
        );
    }
    for (id, commit) in nodes.iter().filter(|(_, found)| found.kind == FrameKind::Commit) {
        let key = || (commit.job.clone(), commit.checkpoint);
        if is_hit(commit) {
            harmed.commits.insert(key());
        }
        if depends(&nodes, *id, &is_hit) {
            harmed.hurt.insert(key());
        }
    }
    Ok(harmed)
}

/// Whether a record or what it refers to was hit.
fn depends(nodes: &BTreeMap<u64, Found>, id: u64, is_hit: &dyn Fn(&Found) -> bool) -> bool {
    nodes.get(&id).is_none_or(|found| {
        is_hit(found) || found.refs.iter().any(|reference| depends(nodes, *reference, is_hit))
    })
}

/// The bytes after the damage; `None` for a file that is gone.
pub(super) fn changed(old: &[u8], bytes: &mut Bytes<'_>) -> Option<Vec<u8>> {
    let mut new = old.to_vec();
    let kind = bytes.next();
    let at = usize::try_from(bytes.u32()).unwrap_or(0).checked_rem(new.len()).unwrap_or(0);
    match kind % 6 {
        0 => {
            let bits = bytes.next().max(1);
            new.get_mut(at).into_iter().for_each(|byte| *byte ^= bits);
        }
        1 => {
            let page = at / 4096 * 4096;
            let end = new.len().min(page + 4096);
            new.get_mut(page..end).unwrap_or_default().fill(0);
        }
        2 => {
            let end = new.len().min(at + 512);
            new.get_mut(at..end).unwrap_or_default().fill(0xa5);
        }
        3 => new.truncate(at),
        4 => new.resize(new.len() + at % 5000, 0xa5),
        _ => return None,
    }
    Some(new)
}

fn is_changed(old: &[u8], new: Option<&[u8]>, range: &Range<u64>) -> bool {
    let index = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
    let part = |bytes: &[u8]| bytes.get(index(range.start)..index(range.end)).map(<[u8]>::to_vec);
    new.is_none_or(|new| part(old) != part(new))
}
