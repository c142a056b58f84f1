//! Makes an index directory anew of what lives, from frames wherever they are found.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::StoreId;
use crate::record::{Frame, FrameHeader, Node, RecordRef};
use crate::storage::sled::directory::{Current, StoreDir};
use crate::storage::sled::index::IndexCodec;
use crate::storage::sled::kv::{Batch, Kv};
use crate::storage::sled::ledger::JobFacts;
use crate::storage::sled::placed::engine::Engine;
use crate::storage::sled::placed::layout::{Layout, body_key, lay_out, node_key};
use crate::storage::sled::placed::space::Space;

/// A new index takes a quarter more than the bodies, and so much.
const SPARE_BYTES: u64 = 16 << 20;

/// Where frames come from.
pub(super) trait Frames {
    fn node_frame(&self, record: &RecordRef) -> Result<Vec<u8>>;
    fn chunk_frame(&self, record: &RecordRef) -> Result<Vec<u8>>;
}

/// Fills a new index directory with these jobs and makes it the live one. Older ones stay where they are.
///
/// # Errors
/// What the frames, sled or the disk answer; the live index is as it was then.
pub(super) fn rebuild(
    dir: &StoreDir,
    store: StoreId,
    jobs: &BTreeMap<String, JobFacts>,
    frames: &dyn Frames,
    sequence: u64,
) -> Result<()> {
    check_space(dir, jobs, frames)?;
    let number = dir.indexes()?.into_iter().max().unwrap_or(0).saturating_add(1);
    let (path, disk) = (dir.index(number), dir.disk());
    let filled = fill(&path, Layout { store, incarnation: number }, jobs, frames, sequence);
    let named = filled.and_then(|()| {
        disk.sync_dir(dir.path()).map_err(|error| Error::io("sync the store", error))
    });
    if let Err(error) = named {
        let _left = disk.remove_dir_all(&path);
        return Err(error);
    }
    dir.write_current(Current { index: number, synced: 0, clean: None })?;
    Ok(())
}

/// What sled leaves behind when it runs out of space takes space until the process ends.
fn check_space(
    dir: &StoreDir,
    jobs: &BTreeMap<String, JobFacts>,
    frames: &dyn Frames,
) -> Result<()> {
    let node = |record: &RecordRef| -> Result<Node> {
        let bytes = frames.node_frame(record)?;
        let node = Frame::decode(&bytes).ok().and_then(|frame| Node::decode(frame.payload));
        node.ok_or_else(ends_early)
    };
    let mut chunks = HashMap::new();
    for live in jobs.values().flat_map(|facts| facts.live.values()) {
        if live.record.is_unreadable() {
            continue;
        }
        for manifest in node(&live.record)?.refs {
            let refs = node(&manifest)?.refs.into_iter();
            chunks.extend(refs.map(|chunk| (chunk.id, u64::from(chunk.payload_len))));
        }
    }
    let live: u64 = chunks.values().sum();
    let needed = live.saturating_add(live / 4).saturating_add(SPARE_BYTES);
    let free = dir.disk().free_bytes(dir.path()).unwrap_or(u64::MAX);
    if free < needed {
        let path = dir.path().display();
        let message = format!("{free} bytes are free in {path}: a new index takes {needed}");
        return Err(Error::new(ErrorKind::Full, message));
    }
    Ok(())
}

fn ends_early() -> Error {
    Error::new(ErrorKind::Corrupt, "the references of a record end early")
}

fn fill(
    path: &Path,
    layout: Layout,
    jobs: &BTreeMap<String, JobFacts>,
    frames: &dyn Frames,
    mut sequence: u64,
) -> Result<()> {
    let engine = Engine::open(path)?;
    let mut filling = Filling { layout, engine, space: Space::default(), placed: HashMap::new() };
    for facts in jobs.values() {
        for live in facts.live.values().filter(|live| !live.record.is_unreadable()) {
            filling.checkpoint(frames, &live.record)?;
        }
    }
    let engine = filling.engine;
    engine.sync()?;
    // CRASH: before the job records are there CURRENT names another directory, and this one is found
    // to hold nothing.
    let mut batch = Batch::new();
    for (job, facts) in jobs {
        sequence = sequence.saturating_add(1);
        layout.job(job, facts, sequence, &mut batch)?;
    }
    let Layout { store, incarnation } = layout;
    IndexCodec { store, incarnation }.applied(sequence, None, &mut batch)?;
    engine.apply(batch)?;
    engine.close()
}

struct Filling {
    layout: Layout,
    engine: Engine,
    space: Space,
    /// By the ids of chunks.
    placed: HashMap<u64, u32>,
}

impl Filling {
    fn checkpoint(&mut self, frames: &dyn Frames, commit: &RecordRef) -> Result<()> {
        for manifest in self.record(frames, commit)?.refs {
            let chunks = self.record(frames, &manifest)?.refs;
            let slots: Result<Vec<u32>> =
                chunks.iter().map(|chunk| self.chunk(frames, chunk)).collect();
            let mut batch = Batch::new();
            self.layout.slots(manifest.id, &slots?, &mut batch)?;
            self.engine.apply(batch)?;
        }
        Ok(())
    }

    fn record(&mut self, frames: &dyn Frames, record: &RecordRef) -> Result<Node> {
        let bytes = frames.node_frame(record)?;
        let node = Frame::decode(&bytes).ok().and_then(|frame| Node::decode(frame.payload));
        let value = self.own(&bytes, record)?;
        self.engine.apply(vec![(node_key(record.id), Some(value))])?;
        node.ok_or_else(ends_early)
    }

    fn chunk(&mut self, frames: &dyn Frames, record: &RecordRef) -> Result<u32> {
        if let Some(slot) = self.placed.get(&record.id) {
            return Ok(*slot);
        }
        let slot = loop {
            if let Some(slot) = self.space.take() {
                break slot;
            }
            let slots = self.space.grow()?;
            self.engine.each(lay_out(slots.clone()))?;
            self.space.laid_out(slots);
        };
        let value = self.own(&frames.chunk_frame(record)?, record)?;
        let answer = self.engine.put(body_key(slot), value)?;
        self.engine.wait(&answer)?;
        self.placed.insert(record.id, slot);
        Ok(slot)
    }

    /// The same frame as one of this index.
    fn own(&self, bytes: &[u8], record: &RecordRef) -> Result<Vec<u8>> {
        let corrupt = |why: String| {
            let message = format!("record {} is damaged", record.id);
            Error::new(ErrorKind::Corrupt, message).with_source(why)
        };
        let frame = Frame::decode(bytes).map_err(|fault| corrupt(fault.to_string()))?;
        if frame.header.store != self.layout.store || !record.matches(&frame.header) {
            return Err(corrupt(format!("it is of {:?}", frame.header.origin)));
        }
        let incarnation = self.layout.incarnation;
        Ok(FrameHeader { incarnation, ..frame.header }.frame(frame.payload))
    }
}
