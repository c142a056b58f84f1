//! What a finished stream is read by. A handle is a value: it travels, and nothing in it is trusted.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::storage::stream::{Place, Realm, StreamName};

/// A finished stream, to be kept and opened later (Flink: `StreamStateHandle`).
///
/// A small stream lies in its handle; a larger one lies in the storage, and the handle says which it
/// is. Handles serialise, with a checksum: one that was changed on its way is refused when it is
/// read back. A handle never leads out of the storage that made it.
///
/// ```
/// use std::io::{Read, Write};
/// use tidegate::storage::{CheckpointStorage, CheckpointedStateScope, JobManagerCheckpointStorage};
/// use tidegate::{CheckpointId, JobId};
///
/// let job = JobManagerCheckpointStorage::new().open(&JobId::new("job")?)?;
/// let id = CheckpointId(1);
/// job.initialize_location(id)?;
/// let mut stream = job.worker().streams(id).create(CheckpointedStateScope::Exclusive)?;
/// stream.write_all(b"state")?;
/// let handle = stream.close_and_get_handle()?.expect("something was written");
/// assert_eq!(handle.state_size(), 5);
///
/// let mut text = String::new();
/// job.worker().open_state(&handle)?.read_to_string(&mut text)?;
/// assert_eq!(text, "state");
/// # Ok::<_, tidegate::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub struct StreamStateHandle {
    stored: Stored,
    bytes: Option<Arc<Vec<u8>>>,
    crc: u32,
}

/// Which stream a handle means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub(crate) realm: Realm,
    pub(crate) place: Place,
    pub(crate) name: StreamName,
    /// Bytes of the stream, as it was written.
    pub(crate) len: u64,
    /// What every checksum of its blocks begins with.
    pub(crate) seed: u64,
}

/// What is serialised; checked on the way in.
#[derive(Serialize, Deserialize)]
struct Fields {
    stream: Stored,
    bytes: Option<Vec<u8>>,
    crc: u32,
}

impl StreamStateHandle {
    pub(crate) fn new(stored: Stored, bytes: Option<Vec<u8>>) -> Self {
        let crc = checksum(&stored, bytes.as_deref());
        Self { stored, bytes: bytes.map(Arc::new), crc }
    }

    /// Bytes of the stream. Nothing is read for it.
    pub fn state_size(&self) -> u64 {
        self.stored.len
    }

    /// A text that no other stream of the storage has (Flink: `PhysicalStateHandleID`). Copies of a
    /// handle have the same.
    pub fn identity(&self) -> String {
        format!("{}{}", crate::ids::StoreId(self.stored.realm.0), self.stored.name)
    }

    /// True when the bytes lie in the handle itself, and nothing lies in the storage.
    pub fn is_inline(&self) -> bool {
        self.bytes.is_some()
    }

    pub(crate) fn stored(&self) -> &Stored {
        &self.stored
    }

    pub(crate) fn bytes(&self) -> Option<&Arc<Vec<u8>>> {
        self.bytes.as_ref()
    }

    /// Checks that nothing in it has changed.
    ///
    /// # Errors
    /// `Corrupt` when something has.
    pub(crate) fn check(&self) -> Result<()> {
        let found = checksum(&self.stored, self.bytes.as_ref().map(|bytes| bytes.as_slice()));
        let len = self.bytes.as_ref().map(|bytes| u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if found == self.crc && len.is_none_or(|len| len == self.stored.len) {
            return Ok(());
        }
        let message = format!(
            "a handle of a stream is damaged: expected checksum {:08x}, found {found:08x}",
            self.crc
        );
        Err(Error::new(ErrorKind::Corrupt, message))
    }
}

fn checksum(stored: &Stored, bytes: Option<&[u8]>) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&stored.realm.0);
    hasher.update(&stored.place.bytes());
    hasher.update(&stored.name.0);
    hasher.update(&stored.len.to_le_bytes());
    hasher.update(&stored.seed.to_le_bytes());
    hasher.update(&[u8::from(bytes.is_some())]);
    hasher.update(bytes.unwrap_or_default());
    hasher.finalize()
}

impl From<StreamStateHandle> for Fields {
    fn from(handle: StreamStateHandle) -> Self {
        let bytes = handle.bytes.map(Arc::unwrap_or_clone);
        Self { stream: handle.stored, bytes, crc: handle.crc }
    }
}

impl TryFrom<Fields> for StreamStateHandle {
    type Error = Error;

    fn try_from(fields: Fields) -> Result<Self> {
        let bytes = fields.bytes.map(Arc::new);
        let handle = Self { stored: fields.stream, bytes, crc: fields.crc };
        handle.check()?;
        Ok(handle)
    }
}

impl fmt::Display for StreamStateHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stored { place, name, len, .. } = &self.stored;
        if self.bytes.is_some() {
            return write!(f, "{len} bytes in the handle");
        }
        write!(f, "{len} bytes in ")?;
        match place {
            Place::Exclusive(id) => write!(f, "chk-{id}/{name}"),
            Place::Shared => write!(f, "shared/{name}"),
            Place::TaskOwned => write!(f, "taskowned/{name}"),
            Place::Metadata(id) => write!(f, "the metadata of checkpoint {id}"),
        }
    }
}

/// Its bytes are left out.
impl fmt::Debug for StreamStateHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamStateHandle({self})")
    }
}
