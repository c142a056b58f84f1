//! Reading one record from where a table says that it lies.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::ids::StoreId;
use crate::record::{Node, RecordRef};
use crate::storage::disk::Disk;
use crate::storage::filesystem::facts::Content;
use crate::storage::filesystem::frames::FrameFile;
use crate::storage::filesystem::layout::{ChunkFile, SHARED};
use crate::storage::filesystem::table::Entry;

/// Where a record lies, and what its frame must say.
#[derive(Debug)]
pub(super) struct Spot {
    pub(super) path: PathBuf,
    pub(super) store: StoreId,
    pub(super) incarnation: u64,
    pub(super) entry: Entry,
}

impl Spot {
    /// The place that the table of a `_metadata` gives: in that file itself, beside it, or in the
    /// directory of shared files above.
    pub(super) fn of(metadata: &Path, store: StoreId, content: &Content, entry: Entry) -> Self {
        let dir = metadata.parent().unwrap_or(Path::new(""));
        let (path, incarnation) = match content.table.file(&entry) {
            None => (metadata.to_path_buf(), content.incarnation),
            Some(file @ ChunkFile::Own(name)) => (dir.join(file.to_string()), name.incarnation()),
            Some(file @ ChunkFile::Shared(_, name)) => {
                let job = dir.parent().unwrap_or(dir);
                (job.join(SHARED).join(file.to_string()), name.incarnation())
            }
        };
        Self { path, store, incarnation, entry }
    }

    /// Reads and checks the record into `buffer`, which is overwritten; its payload starts at the
    /// returned offset.
    ///
    /// # Errors
    /// `Corrupt` when it is not there or not the one that is meant; what the disk answers.
    pub(super) fn read(
        &self,
        disk: &dyn Disk,
        record: &RecordRef,
        buffer: &mut Vec<u8>,
    ) -> Result<usize> {
        let Self { path, entry, .. } = self;
        let file = FrameFile::open_settled(disk, path)?
            .ok_or_else(|| Error::corrupt(path, entry.offset, "a record", "a file", "none"))?;
        let header = file.frame(entry.offset, "a record", buffer)?.header;
        let same = header.store == self.store
            && header.incarnation == self.incarnation
            && header.frame_len() == u64::from(entry.len)
            && record.matches(&header);
        if !same {
            let found = format!("record {} of {:?}", header.id, header.origin);
            return Err(file.corrupt(entry.offset, "a record", format!("{record:?}"), found));
        }
        Ok(header.header_len())
    }
}

/// The node in the payload of a record of this `_metadata`.
///
/// # Errors
/// `Corrupt` when it is none.
pub(super) fn node(metadata: &Path, payload: &[u8]) -> Result<Node> {
    Node::decode(payload).ok_or_else(|| {
        Error::corrupt(metadata, 0, "a node", "references", "fewer bytes than they need")
    })
}
