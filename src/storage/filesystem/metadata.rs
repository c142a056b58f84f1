//! `_metadata`: the commit, the table, the manifests and the chunks without a file, as frames.
//!
//! The commit is the first frame, the table the second; all have the incarnation that was drawn for
//! this file. The table says how long the file is, so that one that was cut is seen when it is
//! opened.

use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, JobId, StoreId};
use crate::limits::FRAME_PAYLOAD_BYTES_MAX;
use crate::record::{FrameHeader, FrameKind, Origin, RecordRef};
use crate::storage::disk::Disk;
use crate::storage::filesystem::frames::FrameFile;
use crate::storage::filesystem::layout::DataName;
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
        let payload_len = u32::try_from(payload.len())
            .ok()
            .filter(|_| payload.len() <= FRAME_PAYLOAD_BYTES_MAX)
            .ok_or_else(|| {
                let (len, most) = (payload.len(), FRAME_PAYLOAD_BYTES_MAX);
                Error::invalid(format!("a record of {len} bytes, the most is {most}"))
            })?;
        Ok(FrameHeader {
            kind,
            store: self.store,
            incarnation: self.incarnation,
            sequence: id,
            id,
            origin,
            payload_len,
            payload_crc: crc32fast::hash(payload),
        })
    }
}

/// What one task wrote.
#[derive(Debug, Default)]
pub(super) struct TaskRecords {
    /// Frames that go into `_metadata`, by id.
    pub(super) inline: Vec<(u64, Vec<u8>)>,
    /// The task's data file.
    pub(super) file: Option<DataName>,
    /// Frames in the data file: id, offset, bytes.
    pub(super) filed: Vec<(u64, u64, u32)>,
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
    let files: Vec<DataName> = tasks.iter().filter_map(|task| task.file).collect();
    let records = tasks.iter().map(|task| task.inline.len() + task.filed.len()).sum::<usize>() + 1;
    let table_len = Table::encoded_len(files.len(), records);
    // Every entry has the same size, so the table's own length is known before its entries are.
    let table_header = place.header(FrameKind::Table, table_id, origin, &[])?;
    let length = |len: usize| {
        u32::try_from(len).map_err(|_| Error::invalid(format!("a record of {len} bytes")))
    };
    let mut entries = vec![Entry { id: commit_id, file: 0, offset: 0, len: length(head.len())? }];
    let mut offset = to_u64(head.len() + table_header.header_len() + table_len);
    let mut file = 0_u32;
    for task in tasks {
        file += u32::from(task.file.is_some());
        let in_its_file = task.filed.iter().map(|(id, offset, len)| Entry {
            id: *id,
            file,
            offset: *offset,
            len: *len,
        });
        entries.extend(in_its_file);
        for (id, frame) in &task.inline {
            entries.push(Entry { id: *id, file: 0, offset, len: length(frame.len())? });
            offset = offset.saturating_add(to_u64(frame.len()));
        }
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
    let file = FrameFile::open(disk, path)?.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("{} does not exist", path.display()))
    })?;
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
