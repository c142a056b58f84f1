//! One copy: chunk for chunk as they are, compressed or not, so that each record has its twin in the
//! other tier.
//!
//! What the last copy and this checkpoint have in common is not even read: it is referred to.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::catalog::CompletedCheckpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, TaskId};
use crate::record::metadata::{SectionMetadata, decode_sections};
use crate::record::{Node, RecordRef};
use crate::storage::{
    DurableTier, PendingRecords, RecordSource, RecordWriter, StoredCheckpoint, Tiers,
};

/// How often a copy that stands back looks whether a checkpoint is still written.
const COURTESY_STEP: Duration = Duration::from_millis(2);

/// The last copy: where in the manifest of each task the chunks of the fast tier have their twins.
#[derive(Debug)]
pub(super) struct Last {
    id: CheckpointId,
    tasks: BTreeMap<TaskId, BTreeMap<u64, usize>>,
}

/// What a copy works with.
#[derive(Clone, Copy)]
pub(super) struct Work<'a> {
    pub(super) tiers: &'a Weak<Tiers>,
    pub(super) durable: &'a DurableTier,
    pub(super) last: Option<&'a Last>,
    /// Set when the fast tier gives an error.
    pub(super) failed: &'a Cell<bool>,
}

/// How far a copy is, in bytes of chunks.
#[derive(Debug, Default)]
struct Progress {
    done: u64,
    written: u64,
    /// For how long it stood back.
    stood_back: Duration,
}

impl Work<'_> {
    /// Copies a checkpoint. Gives where its chunks lie, and the bytes that were written.
    ///
    /// # Errors
    /// What the tiers answer; `Closed` when nobody runs the job any more.
    pub(super) fn copy(self, stored: &StoredCheckpoint) -> Result<(Last, u64)> {
        let commit = self.read(|fast| fast.node(&stored.record))?;
        let checkpoint = self.read(|fast| CompletedCheckpoint::load(fast, stored))?;
        let pending = self.durable.access().begin(stored.id, checkpoint.metadata.kind)?;
        let mut last = Last { id: stored.id, tasks: BTreeMap::new() };
        let (mut progress, mut manifests) = (Progress::default(), Vec::new());
        for (task, manifest) in checkpoint.tasks() {
            let node = self.read(|fast| fast.node(manifest))?;
            let copied = self.copy_task(&*pending, (stored.id, &task), &node, &mut progress);
            let context = || format!("checkpoint {}, task {task}", stored.id);
            manifests.push(copied.map_err(|error| error.context(context()))?);
            let places = node.refs.iter().zip(0..).map(|(chunk, at)| (chunk.id, at));
            last.tasks.insert(task, places.collect());
        }
        let node = Node { refs: manifests, body: commit.body };
        self.stand_back(&mut progress)?;
        // CRASH: what was written is garbage of a checkpoint in progress; the next start copies again.
        self.durable.publish(stored.id, || pending.commit(&node))?;
        Ok((last, progress.written))
    }

    fn copy_task(
        self,
        pending: &dyn PendingRecords,
        (id, task): (CheckpointId, &TaskId),
        node: &Node,
        progress: &mut Progress,
    ) -> Result<RecordRef> {
        let mut writer = pending.writer(task)?;
        let twins = self.twins(&mut *writer, task)?;
        let (mut refs, mut buffer) = (Vec::with_capacity(node.refs.len()), Vec::new());
        let mut chunks = node.refs.iter();
        for section in decode_sections(&node.body, node.refs.len())? {
            writer.begin_section();
            for chunk in chunks.by_ref().take(section.content.chunks()) {
                let key = &section.key;
                let twin =
                    twins.get(&chunk.id).filter(|twin| twin.payload_crc == chunk.payload_crc);
                let referred = match twin {
                    Some(twin) if writer.refer(&key.state, twin)? => Some(*twin),
                    _ => None,
                };
                refs.push(match referred {
                    Some(twin) => twin,
                    None => self.copy_chunk(&mut *writer, &section, chunk, &mut buffer)?,
                });
                progress.done = progress.done.saturating_add(chunk.payload_len.into());
                if referred.is_none() {
                    progress.written = progress.written.saturating_add(chunk.payload_len.into());
                    self.durable.gauge.copying(id, progress.done);
                    self.breathe(chunk.payload_len)?;
                    self.stand_back(progress)?;
                }
            }
        }
        let reused = writer.reused_bytes();
        progress.written = progress.written.saturating_sub(reused);
        writer.finish(&Node { refs, body: node.body.clone() })
    }

    fn copy_chunk(
        self,
        writer: &mut dyn RecordWriter,
        section: &SectionMetadata,
        chunk: &RecordRef,
        buffer: &mut Vec<u8>,
    ) -> Result<RecordRef> {
        let at = self.read(|fast| fast.chunk(chunk, buffer))?;
        let body = buffer.get(at..).unwrap_or_default();
        writer.chunk(&section.key.state, section.key.index, body)
    }

    /// The chunks of the last copy that may be referred to, by their ids in the fast tier.
    fn twins(
        self,
        writer: &mut dyn RecordWriter,
        task: &TaskId,
    ) -> Result<BTreeMap<u64, RecordRef>> {
        let places = self.last.and_then(|last| Some((last.id, last.tasks.get(task)?)));
        let Some((id, places)) = places else { return Ok(BTreeMap::new()) };
        let Some(earlier) = writer.earlier(id)? else { return Ok(BTreeMap::new()) };
        let twin = |(chunk, at): (&u64, &usize)| Some((*chunk, *earlier.refs.get(*at)?));
        Ok(places.iter().filter_map(twin).collect())
    }

    /// Leaves the disks to others for as long as the pace says.
    fn breathe(self, bytes: u32) -> Result<()> {
        let nanos = |rate: u64| u64::from(bytes).saturating_mul(1_000_000_000) / rate.max(1);
        let pause = self.durable.pace.bytes_per_second.map_or(0, nanos);
        let goes_on = if pause > 0 {
            self.durable.bell.pause(Duration::from_nanos(pause))
        } else {
            !self.durable.bell.is_aborted()
        };
        if goes_on { Ok(()) } else { Err(closed()) }
    }

    /// Lets checkpoints go first that are being written to the fast tier.
    fn stand_back(self, progress: &mut Progress) -> Result<()> {
        let most = self.durable.pace.courtesy;
        while self.durable.courtesy.is_asked() && progress.stood_back < most {
            if !self.durable.bell.pause(COURTESY_STEP) {
                return Err(closed());
            }
            progress.stood_back += COURTESY_STEP;
        }
        Ok(())
    }

    /// One operation on the fast tier, which is given back before the durable one is waited for.
    fn read<T>(self, read: impl FnOnce(&dyn RecordSource) -> Result<T>) -> Result<T> {
        let tiers = self.tiers.upgrade().ok_or_else(closed)?;
        let fast = Arc::clone(tiers.fast());
        read(&*fast).inspect_err(|_| self.failed.set(true))
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "nobody runs the job any more")
}
