//! Which record of a checkpoint lies where: a pure value and its bytes.
//!
//! ```text
//! u64  bytes of the whole `_metadata`
//! u32  data files; for each: 16 bytes of its name, u64 0 when it lies beside `_metadata`, else it
//!      lies in `shared` and this is the checkpoint it was written for
//! u32  records; for each: u64 id, u32 file (0 is `_metadata`, n the n-th data file), u64 offset,
//!      u32 bytes; in the order of their ids
//! ```

use crate::error::{Error, Result};
use crate::ids::CheckpointId;
use crate::limits::LIST_ENTRIES_MAX;
use crate::record::frame::Fields;
use crate::storage::filesystem::layout::{ChunkFile, DataName};

/// Bytes of one encoded file.
const FILE_BYTES: usize = 24;

/// Bytes of one encoded entry.
const ENTRY_BYTES: usize = 24;

/// Where one record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: u64,
    /// 0 is `_metadata`, n the n-th data file.
    pub(super) file: u32,
    pub(super) offset: u64,
    pub(super) len: u32,
}

/// Where the records of one checkpoint lie.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Table {
    /// Bytes of `_metadata`.
    pub(super) metadata_len: u64,
    pub(super) files: Vec<ChunkFile>,
    /// By id, each once.
    pub(super) entries: Vec<Entry>,
}

impl Table {
    /// Bytes of the encoded table.
    pub(super) fn encoded_len(files: usize, entries: usize) -> usize {
        16_usize
            .saturating_add(files.saturating_mul(FILE_BYTES))
            .saturating_add(entries.saturating_mul(ENTRY_BYTES))
    }

    /// The table's bytes.
    ///
    /// # Errors
    /// `Invalid` when there are more files or records than a list may have.
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let count = |len: usize| {
            u32::try_from(len).ok().filter(|_| len <= LIST_ENTRIES_MAX).ok_or_else(|| {
                Error::invalid(format!("{len} records or files, the most is {LIST_ENTRIES_MAX}"))
            })
        };
        let len = Self::encoded_len(self.files.len(), self.entries.len());
        let mut out = Vec::with_capacity(len);
        out.extend_from_slice(&self.metadata_len.to_le_bytes());
        out.extend_from_slice(&count(self.files.len())?.to_le_bytes());
        for file in &self.files {
            let by = match file {
                ChunkFile::Own(_) => 0,
                ChunkFile::Shared(by, _) => by.0,
            };
            out.extend_from_slice(&file.name().0);
            out.extend_from_slice(&by.to_le_bytes());
        }
        out.extend_from_slice(&count(self.entries.len())?.to_le_bytes());
        for entry in &self.entries {
            out.extend_from_slice(&entry.id.to_le_bytes());
            out.extend_from_slice(&entry.file.to_le_bytes());
            out.extend_from_slice(&entry.offset.to_le_bytes());
            out.extend_from_slice(&entry.len.to_le_bytes());
        }
        Ok(out)
    }

    /// Reads a table that its frame's checksum has vouched for; `None` when it is none.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (metadata_len, rest) = bytes.split_first_chunk::<8>()?;
        let (files, rest) = list(rest, FILE_BYTES)?;
        let (entries, rest) = list(rest, ENTRY_BYTES)?;
        if !rest.is_empty() {
            return None;
        }
        let file = |bytes: &[u8]| {
            let mut fields = Fields(bytes);
            let name = DataName(fields.take());
            match fields.u64() {
                0 => ChunkFile::Own(name),
                by => ChunkFile::Shared(CheckpointId(by), name),
            }
        };
        let entry = |bytes: &[u8]| {
            let mut fields = Fields(bytes);
            let id = fields.u64();
            let file = u32::from_le_bytes(fields.take());
            let offset = fields.u64();
            Entry { id, file, offset, len: u32::from_le_bytes(fields.take()) }
        };
        let table = Self {
            metadata_len: u64::from_le_bytes(*metadata_len),
            files: files.chunks_exact(FILE_BYTES).map(file).collect(),
            entries: entries.chunks_exact(ENTRY_BYTES).map(entry).collect(),
        };
        let in_order = table.entries.is_sorted_by(|one, next| one.id < next.id);
        (in_order && table.entries.iter().all(|entry| table.is_possible(entry))).then_some(table)
    }

    fn is_possible(&self, entry: &Entry) -> bool {
        let end = entry.offset.checked_add(u64::from(entry.len));
        match (end, entry.file) {
            (None, _) => false,
            (Some(end), 0) => end <= self.metadata_len,
            (Some(_), file) => usize::try_from(file).is_ok_and(|file| file <= self.files.len()),
        }
    }

    /// Where the record lies, if the checkpoint has it.
    pub(super) fn find(&self, id: u64) -> Option<Entry> {
        let at = self.entries.binary_search_by_key(&id, |entry| entry.id).ok()?;
        self.entries.get(at).copied()
    }

    /// The shared files that the table refers to.
    pub(super) fn shared(&self) -> impl Iterator<Item = ChunkFile> + '_ {
        self.files.iter().copied().filter(|file| matches!(file, ChunkFile::Shared(..)))
    }

    /// The data file in which an entry lies; `None` when it lies in `_metadata`.
    pub(super) fn file(&self, entry: &Entry) -> Option<ChunkFile> {
        let at = usize::try_from(entry.file.checked_sub(1)?).ok()?;
        self.files.get(at).copied()
    }
}

/// A count, and as many pieces of `size` bytes.
fn list(bytes: &[u8], size: usize) -> Option<(&[u8], &[u8])> {
    let (count, rest) = bytes.split_first_chunk::<4>()?;
    let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
    rest.split_at_checked(count.checked_mul(size)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_reads_back_and_a_wrong_one_is_refused() {
        let own = |name| ChunkFile::Own(DataName([name; 16]));
        let entry = |id, file, offset| Entry { id, file, offset, len: 7 };
        let table = Table {
            metadata_len: 100,
            files: vec![own(1), ChunkFile::Shared(CheckpointId(7), DataName([2; 16]))],
            entries: vec![entry(1, 0, 93), entry(2, 2, 9_000), entry(5, 1, 0)],
        };
        let bytes = table.encode().unwrap();
        assert_eq!(bytes.len(), Table::encoded_len(2, 3));
        assert_eq!(Table::decode(&bytes), Some(table.clone()));
        assert_eq!(table.find(2).and_then(|e| table.file(&e)), Some(table.files[1]));
        assert_eq!(table.shared().collect::<Vec<_>>(), table.files[1..]);
        assert_eq!(table.find(3), None);
        for len in 0..bytes.len() {
            assert_eq!(Table::decode(&bytes[..len]), None, "{len} bytes");
        }
        let wrong = [
            vec![entry(1, 3, 0)],
            vec![entry(1, 0, 94)],
            vec![entry(1, 1, u64::MAX)],
            vec![entry(2, 0, 0), entry(2, 0, 0)],
        ];
        for entries in wrong {
            let bytes = Table { entries, ..table.clone() }.encode().unwrap();
            assert_eq!(Table::decode(&bytes), None);
        }
    }
}
