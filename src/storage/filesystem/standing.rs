//! A completed checkpoint that is read where it lies, whoever looks after it: nothing is claimed,
//! nothing is changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::ids::{JobId, StoreId};
use crate::record::{Node, RecordRef};
use crate::storage::access::{RecordSource, StoredCheckpoint};
use crate::storage::disk::Disk;
use crate::storage::filesystem::claimed::SnapshotDir;
use crate::storage::filesystem::facts::Content;
use crate::storage::filesystem::metadata;
use crate::storage::filesystem::read::{self, Spot};
use crate::storage::remote::RemoteOptions;

/// A checkpoint in its directory. Its own files lie beside its `_metadata`, shared ones in the
/// directory above, so that the whole may be moved.
#[derive(Debug)]
pub(super) struct StandingCheckpoint {
    disk: Arc<dyn Disk>,
    metadata: PathBuf,
    store: StoreId,
    job: JobId,
    stored: StoredCheckpoint,
    content: Content,
}

impl StandingCheckpoint {
    /// Reads the commit and the table of this `_metadata`, whatever it is called.
    ///
    /// # Errors
    /// `NotFound` when there is no such file, `Corrupt` when it is none or damaged.
    pub(super) fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<Self> {
        let (store, job, id) = metadata::identify(&*disk, path)?;
        let metadata::Loaded { record, incarnation, table } =
            metadata::load(&*disk, path, store, &job, id)?;
        Ok(Self {
            disk,
            metadata: path.to_path_buf(),
            store,
            job,
            stored: StoredCheckpoint { id, record, pinned: false },
            content: Content { incarnation, table },
        })
    }

    /// Where its `_metadata` lies.
    pub(super) fn dir(&self) -> &Path {
        self.metadata.parent().unwrap_or(&self.metadata)
    }

    /// Its directory, for who claims it and reaches it so.
    pub(super) fn snapshot_dir(
        &self,
        pointer: &str,
        reached: &RemoteOptions,
    ) -> Option<SnapshotDir> {
        SnapshotDir::of(&self.metadata, (pointer, reached), self.store, self.stored.id)
    }

    /// The job that took it.
    pub(super) fn job(&self) -> &JobId {
        &self.job
    }

    pub(super) fn stored(&self) -> StoredCheckpoint {
        self.stored
    }

    fn read(&self, record: &RecordRef, buffer: &mut Vec<u8>) -> Result<usize> {
        let entry = self.content.table.find(record.id).ok_or_else(|| {
            let expected = format!("record {}", record.id);
            Error::corrupt(&self.metadata, 0, "a record", expected, "no such record")
        })?;
        let spot = Spot::of(&self.metadata, self.store, &self.content, entry);
        spot.read(&*self.disk, record, buffer)
    }
}

impl RecordSource for StandingCheckpoint {
    fn node(&self, record: &RecordRef) -> Result<Node> {
        let mut buffer = Vec::new();
        let at = self.read(record, &mut buffer)?;
        read::node(&self.metadata, buffer.get(at..).unwrap_or_default())
    }

    fn chunk(&self, record: &RecordRef, buffer: &mut Vec<u8>) -> Result<usize> {
        self.read(record, buffer)
    }
}
