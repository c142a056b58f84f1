//! `_metadata`: the commit, the table, the manifests and the chunks without a file, as frames.
//!
//! The commit is the first frame, the table the second; all have the incarnation that was drawn for
//! this file. The table says how long the file is, so that one that was cut is seen when it is
//! opened.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, JobId, StoreId};
use crate::record::{FrameHeader, FrameKind, Origin, Payload, RecordRef};
use crate::storage::disk::Disk;
use crate::storage::filesystem::frames::FrameFile;
use crate::storage::filesystem::layout::ChunkFile;
use crate::storage::filesystem::sharing::SharedChunk;
use crate::storage::filesystem::table::{Entry, Table};

/// What the frames of one file have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) store: StoreId,
    pub(super) incarnation: u64,
}

impl Place {
    /// Makes the header of a new record.
    ///
    /// # Errors
    /// `Invalid` when the payload is longer than a frame may be.
    pub(super) fn header<'a>(
        &self,
        kind: FrameKind,
        id: u64,
        origin: Origin<'a>,
        payload: &[u8],
    ) -> Result<FrameHeader<'a>> {
        FrameHeader::first(kind, (self.store, self.incarnation), id, origin, Payload::of(payload))
    }
}

/// What one task wrote.
#[derive(Debug, Default)]
pub(super) struct TaskRecords {
    /// Frames that go into `_metadata`, by id.
    pub(super) inline: Vec<(u64, Vec<u8>)>,
    /// The task's data file.
    pub(super) file: Option<ChunkFile>,
    /// Frames in the data file.
    pub(super) filed: Vec<Filed>,
    /// Bytes of the data file.
    pub(super) file_len: u64,
    /// Frames in files of earlier checkpoints.
    pub(super) reused: Vec<SharedChunk>,
}

/// A frame in a task's data file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filed {
    pub(super) record: RecordRef,
    pub(super) offset: u64,
    pub(super) len: u32,
}

impl TaskRecords {
    /// What the task refers to in shared files, its own included.
    pub(super) fn shared(&self) -> impl Iterator<Item = SharedChunk> + '_ {
        let file = self.file.filter(|file| matches!(file, ChunkFile::Shared(..)));
        let shared = move |filed: &Filed| {
            let Filed { record, offset, len } = *filed;
            file.map(|file| SharedChunk { record, file, offset, len })
        };
        self.filed.iter().filter_map(shared).chain(self.reused.iter().copied())
    }
}

/// The files that the tasks refer to, each once.
fn files_of(tasks: &[TaskRecords]) -> Vec<ChunkFile> {
    let made = tasks.iter().filter_map(|task| task.file);
    let reused = tasks.iter().flat_map(|task| &task.reused).map(|chunk| chunk.file);
    made.chain(reused).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Where everything in data files lies, by id, each once.
fn entries_in_files(files: &[ChunkFile], tasks: &[TaskRecords]) -> Result<BTreeMap<u64, Entry>> {
    let mut entries = BTreeMap::new();
    let number = |file: &ChunkFile| {
        let at = files.binary_search(file).ok().and_then(|at| u32::try_from(at + 1).ok());
        at.ok_or_else(|| Error::internal("a chunk lies in a file that is not listed"))
    };
    for task in tasks {
        if let Some(file) = &task.file {
            let file = number(file)?;
            let entry = |filed: &Filed| {
                let Filed { record: RecordRef { id, .. }, offset, len } = *filed;
                (id, Entry { id, file, offset, len })
            };
            entries.extend(task.filed.iter().map(entry));
        }
        for SharedChunk { record, file, offset, len } in &task.reused {
            let (id, file) = (record.id, number(file)?);
            entries.insert(id, Entry { id, file, offset: *offset, len: *len });
        }
    }
    Ok(entries)
}

/// The beginning of a `_metadata`, before the tasks' own frames, and where all lies.
#[derive(Debug)]
pub(super) struct Composed {
    pub(super) record: RecordRef,
    /// The commit frame and the frame of the table.
    pub(super) head: Vec<u8>,
    pub(super) table: Table,
}

/// Lays out a `_metadata`: head, then the inline frames task by task.
///
/// # Errors
/// `Invalid` when something is longer than a frame may be.
pub(super) fn compose(
    place: Place,
    origin: Origin<'_>,
    [commit_id, table_id]: [u64; 2],
    commit: &[u8],
    tasks: &[TaskRecords],
) -> Result<Composed> {
    let header = place.header(FrameKind::Commit, commit_id, origin, commit)?;
    let mut head = header.frame(commit);
    let files = files_of(tasks);
    let in_files = entries_in_files(&files, tasks)?;
    let records = tasks.iter().map(|task| task.inline.len()).sum::<usize>() + in_files.len() + 1;
    let table_len = Table::encoded_len(files.len(), records);
    // Every entry has the same size, so the table's own length is known before its entries are.
    let table_header = place.header(FrameKind::Table, table_id, origin, &[])?;
    let length = |len: usize| {
        u32::try_from(len).map_err(|_| Error::invalid(format!("a record of {len} bytes")))
    };
    let mut entries: Vec<Entry> = in_files.into_values().collect();
    entries.push(Entry { id: commit_id, file: 0, offset: 0, len: length(head.len())? });
    let mut offset = to_u64(head.len() + table_header.header_len() + table_len);
    for (id, frame) in tasks.iter().flat_map(|task| &task.inline) {
        entries.push(Entry { id: *id, file: 0, offset, len: length(frame.len())? });
        offset = offset.saturating_add(to_u64(frame.len()));
    }
    entries.sort_by_key(|entry| entry.id);
    let table = Table { metadata_len: offset, files, entries };
    let payload = table.encode()?;
    let header_of_table = place.header(FrameKind::Table, table_id, origin, &payload)?;
    head.extend_from_slice(&header_of_table.frame(&payload));
    Ok(Composed { record: RecordRef::to_record(&header), head, table })
}

/// A `_metadata` that was read.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) record: RecordRef,
    pub(super) incarnation: u64,
    pub(super) table: Table,
}

/// Whose commit the first frame of a `_metadata` says it is.
///
/// # Errors
/// `NotFound` when there is no such file, `Corrupt` when it does not begin with a commit.
pub(super) fn identify(disk: &dyn Disk, path: &Path) -> Result<(StoreId, JobId, CheckpointId)> {
    let file = open(disk, path)?;
    let mut buffer = Vec::new();
    let what = "the commit";
    let header = file.frame(0, what, &mut buffer)?.header;
    let job = JobId::new(header.origin.job).ok().filter(|_| header.kind == FrameKind::Commit);
    let job = job.ok_or_else(|| {
        let found = format!("a {:?} of {:?}", header.kind, header.origin);
        file.corrupt(0, what, "the commit of a job's checkpoint", found)
    })?;
    Ok((header.store, job, header.origin.checkpoint))
}

fn open(disk: &dyn Disk, path: &Path) -> Result<FrameFile> {
    FrameFile::open(disk, path)?.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("{} does not exist", path.display()))
    })
}

/// Reads the commit and the table of a `_metadata` and checks that they belong together, to this
/// job and to this checkpoint.
///
/// # Errors
/// `Corrupt` when they do not, `Incompatible` when a newer release wrote them.
pub(super) fn load(
    disk: &dyn Disk,
    path: &Path,
    store: StoreId,
    job: &JobId,
    id: CheckpointId,
) -> Result<Loaded> {
    let file = open(disk, path)?;
    let mut buffer = Vec::new();
    let commit = file.frame(0, "the commit", &mut buffer)?;
    let header = commit.header;
    let origin = header.origin;
    let wanted =
        Origin { job: job.as_str(), checkpoint: id, attempt: origin.attempt, ..Origin::default() };
    if header.kind != FrameKind::Commit || header.store != store || origin != wanted {
        let expected = format!("the commit of {wanted:?} in store {store}");
        let found = format!("a {:?} of {origin:?} in store {}", header.kind, header.store);
        return Err(file.corrupt(0, "the commit", expected, found));
    }
    let (record, incarnation, at) =
        (RecordRef::to_record(&header), header.incarnation, header.frame_len());
    let attempt = origin.attempt;
    let what = "the table of records";
    let frame = file.frame(at, what, &mut buffer)?;
    let header = frame.header;
    let same = header.kind == FrameKind::Table
        && header.store == store
        && header.incarnation == incarnation
        && header.origin == Origin { attempt, ..wanted };
    if !same {
        let found = format!("a {:?} of {:?}", header.kind, header.origin);
        return Err(file.corrupt(at, what, "the table of this commit", found));
    }
    let ours = |table: &Table| table.files.iter().all(|name| name.is_of(store, id));
    let table = Table::decode(frame.payload)
        .filter(ours)
        .ok_or_else(|| file.corrupt(at, what, "a table", "something else"))?;
    if table.metadata_len != file.len() {
        let expected = format!("{} bytes", table.metadata_len);
        return Err(file.corrupt(at, "_metadata", expected, format!("{} bytes", file.len())));
    }
    Ok(Loaded { record, incarnation, table })
}

fn to_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
