//! One commit: what the tasks of a checkpoint wrote, and how the commit frame comes behind it.
//!
//! Records that were written to segments were synced before. Small ones are still in memory: they go
//! into one Group frame with the commit frame, whose one checksum makes all of them count or none.

use std::collections::HashSet;
use std::ops::Range;

use crate::error::{Error, Result};
use crate::ids::{CheckpointId, TaskId};
use crate::record::{FrameHeader, FrameKind, Node, Origin, Payload, RecordRef};
use crate::storage::sled::backend::Actor;
use crate::storage::sled::index::IndexCodec;
use crate::storage::sled::kv::Batch;
use crate::storage::sled::log::{Place, SegmentWriter};
use crate::storage::sled::records::{Children, Records};
use crate::storage::sled::split::SplitStore;

/// A record that has no place in the log yet.
#[derive(Debug)]
pub(super) struct SmallRecord {
    pub(super) kind: FrameKind,
    pub(super) state: String,
    pub(super) record: RecordRef,
    pub(super) body: Vec<u8>,
}

impl SmallRecord {
    pub(super) fn payload(&self) -> Payload<'_> {
        Payload::known(&self.body, self.record.payload_crc)
    }
}

/// A record at its place.
#[derive(Debug)]
pub(super) struct PlacedRecord {
    pub(super) id: u64,
    pub(super) place: Place,
    /// The whole frame of a manifest.
    pub(super) frame: Option<Vec<u8>>,
}

/// What one task gave to its checkpoint.
#[derive(Debug)]
pub(super) struct TaskRecords {
    pub(super) task: TaskId,
    pub(super) manifest: RecordRef,
    /// All that the manifest refers to, written by this checkpoint or not.
    pub(super) refs: Vec<RecordRef>,
    pub(super) small: Vec<SmallRecord>,
    pub(super) placed: Vec<PlacedRecord>,
}

/// A checkpoint that is whole but for its commit frame.
#[derive(Debug)]
pub(super) struct CommitRequest {
    pub(super) id: CheckpointId,
    pub(super) manifests: Box<[u64]>,
    /// The payload of the commit frame.
    pub(super) payload: Vec<u8>,
    pub(super) tasks: Vec<TaskRecords>,
}

/// Where the frames of a commit lie.
#[derive(Debug)]
pub(super) struct CommitWritten {
    pub(super) record: RecordRef,
    commit: PlacedRecord,
    small: Vec<PlacedRecord>,
}

impl SplitStore {
    /// Appends the commit frame, with what is still in memory; nothing is durable yet.
    pub(super) fn write_commit(
        &self,
        writer: &mut SegmentWriter,
        actor: &Actor,
        commit: &CommitRequest,
        sequence: u64,
    ) -> Result<CommitWritten> {
        let origin = Origin::of(&actor.job, commit.id, actor.attempt);
        let (kind, payload) = (FrameKind::Commit, Payload::of(&commit.payload));
        if commit.tasks.iter().all(|task| task.small.is_empty()) {
            let (header, place) =
                writer.append(kind, origin, sequence, payload, &self.writeback)?;
            let frame = Some(header.frame(payload.bytes()));
            let commit = PlacedRecord { id: sequence, place, frame };
            let record = RecordRef::to_record(&header);
            return Ok(CommitWritten { record, commit, small: Vec::new() });
        }
        let place = (self.reader.codec.store, writer.segment().number);
        let header = FrameHeader::first(kind, place, sequence, origin, payload)?;
        let record = RecordRef::to_record(&header);
        let mut group = Vec::new();
        let mut add = |header: &FrameHeader<'_>, payload: &[u8]| {
            let from = group.len();
            header.encode_in_group(&mut group);
            group.extend_from_slice(payload);
            from..group.len()
        };
        let mut inner = Vec::new();
        for task in &commit.tasks {
            for small in &task.small {
                let origin = origin.within(&task.task, &small.state, small.record.index);
                let id = small.record.id;
                let header = FrameHeader::first(small.kind, place, id, origin, small.payload())?;
                inner.push((id, small.kind, add(&header, &small.body)));
            }
        }
        let small_count = inner.len();
        inner.push((sequence, kind, add(&header, payload.bytes())));
        let lowest = inner.iter().map(|(id, ..)| *id).fold(sequence, u64::min);
        let (kind, outer) = (FrameKind::Group, Payload::of(&group));
        let outer = FrameHeader::first(kind, place, lowest, origin, outer)?;
        let outer = writer.append_as(&outer, self.next_sequence(), &group, &self.writeback)?;
        let mut placed = inner.into_iter().map(|(id, kind, range)| PlacedRecord {
            id,
            place: within(outer, group.len(), &range),
            frame: match kind {
                FrameKind::Chunk => None,
                _ => Some(group.get(range).unwrap_or_default().to_vec()),
            },
        });
        let small = placed.by_ref().take(small_count).collect();
        let commit = placed.next().ok_or_else(|| Error::internal("a group has no commit"))?;
        Ok(CommitWritten { record, commit, small })
    }
}

/// Where a frame lies that stands in the payload of another.
fn within(outer: Place, payload_len: usize, range: &Range<usize>) -> Place {
    let payload = outer.offset + outer.len.saturating_sub(payload_len as u64);
    let offset = payload + range.start as u64;
    Place { segment: outer.segment, offset, len: range.len() as u64 }
}

impl CommitRequest {
    /// # Errors
    /// `Internal` when a manifest is missing; `Invalid` when the commit is too long for a frame.
    pub(super) fn new(id: CheckpointId, node: &Node, mut tasks: Vec<TaskRecords>) -> Result<Self> {
        let wanted: HashSet<u64> = node.refs.iter().map(|record| record.id).collect();
        tasks.retain(|task| wanted.contains(&task.manifest.id));
        if tasks.len() != node.refs.len() {
            let (found, wanted) = (tasks.len(), node.refs.len());
            let message = format!("{found} of {wanted} manifests were written");
            return Err(Error::internal(message));
        }
        let payload = node.encode()?;
        let manifests = node.refs.iter().map(|record| record.id).collect();
        Ok(Self { id, manifests, payload, tasks })
    }

    fn placed<'a>(
        task: &'a TaskRecords,
        written: &'a CommitWritten,
    ) -> impl Iterator<Item = &'a PlacedRecord> {
        let is_own = |placed: &&PlacedRecord| task.small.iter().any(|s| s.record.id == placed.id);
        task.placed.iter().chain(written.small.iter().filter(is_own))
    }

    /// Notes what the checkpoint needs; it is live from now on.
    pub(super) fn note(&self, written: &CommitWritten, records: &mut Records) {
        for task in &self.tasks {
            for placed in Self::placed(task, written) {
                if placed.id == task.manifest.id {
                    let ids = task.refs.iter().map(|record| record.id).collect();
                    records.add_node(placed.id, placed.place, Children::Chunks(ids));
                } else {
                    records.add_chunk(placed.id, placed.place);
                }
            }
        }
        let commit = &written.commit;
        records.add_node(commit.id, commit.place, Children::Manifests(self.manifests.clone()));
        records.retain(commit.id);
    }

    /// The index entries of what was written.
    pub(super) fn index(
        &self,
        written: &CommitWritten,
        codec: &IndexCodec,
        batch: &mut Batch,
    ) -> Result<()> {
        let tasks = self.tasks.iter().flat_map(|task| &task.placed);
        for placed in tasks.chain(&written.small).chain([&written.commit]) {
            match &placed.frame {
                Some(frame) => codec.node(placed.id, frame, batch)?,
                None => codec.chunk(placed.id, &placed.place, batch)?,
            }
        }
        Ok(())
    }
}
