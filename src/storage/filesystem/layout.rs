//! Names and paths of one job's files; no file is touched here.
//!
//! ```text
//! BASE/JOB/attempts/N          one start of the job: who claimed N, the store id, ids seen
//! BASE/JOB/chk-ID/_metadata    the checkpoint, once it has this name
//! BASE/JOB/chk-ID/_pinned      empty: the checkpoint is pinned
//! BASE/JOB/chk-ID/NAME         one task's chunks
//! BASE/JOB/shared/ID-NAME      one task's chunks, which later checkpoints may refer to
//! BASE/JOB/taskowned/
//! BASE/JOB/finished            the job ended
//! ```
//!
//! Every name tells who may delete it: a staging name has the number of the start that makes it,
//! and a data file's name has a check over store and checkpoint that no other file has.

use std::fmt;
use std::fmt::Write;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};

use crate::ids::{Attempt, CheckpointId, JobId, StoreId};

/// The commit point of a checkpoint.
pub(in crate::storage) const METADATA: &str = "_metadata";

/// Beside the commit point of a checkpoint that is pinned; empty.
pub(super) const PINNED: &str = "_pinned";

/// The directory of chunks that several checkpoints may refer to.
pub(super) const SHARED: &str = "shared";

/// The record of a job's end.
pub(super) const FINISHED: &str = "finished";

/// The most bytes of one name that stands for a job.
const JOB_NAME_BYTES: usize = 200;

/// The directory of a job under a base, as a name that no other job has and that people can read.
///
/// Letters, digits, `-`, `_` and inner dots stay; every other byte is `%` and two digits. A long
/// name goes on in a directory below, and the part before it ends in `%`.
pub(super) fn job_dir(base: &Path, job: &JobId) -> PathBuf {
    let mut dir = base.to_path_buf();
    let mut name = String::new();
    for (at, byte) in job.as_str().bytes().enumerate() {
        if name.len() + 3 > JOB_NAME_BYTES {
            name.push('%');
            dir.push(std::mem::take(&mut name));
        }
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if plain || (byte == b'.' && at > 0 && !name.is_empty()) {
            name.push(char::from(byte));
        } else {
            // A string takes everything.
            let _ = write!(name, "%{byte:02x}");
        }
    }
    dir.push(name);
    dir
}

/// The paths of one job.
#[derive(Debug, Clone)]
pub(super) struct JobPaths {
    root: PathBuf,
}

impl JobPaths {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn attempts(&self) -> PathBuf {
        self.root.join("attempts")
    }

    pub(super) fn attempt(&self, attempt: Attempt) -> PathBuf {
        self.attempts().join(attempt.to_string())
    }

    /// Chunks that several checkpoints may refer to.
    pub(super) fn shared(&self) -> PathBuf {
        self.root.join(SHARED)
    }

    /// What belongs to tasks and to no checkpoint.
    pub(super) fn taskowned(&self) -> PathBuf {
        self.root.join("taskowned")
    }

    pub(super) fn checkpoint(&self, id: CheckpointId) -> PathBuf {
        self.root.join(format!("chk-{id}"))
    }

    pub(super) fn metadata(&self, id: CheckpointId) -> PathBuf {
        self.checkpoint(id).join(METADATA)
    }

    pub(super) fn finished(&self) -> PathBuf {
        self.root.join(FINISHED)
    }
}

/// The id in the name of a checkpoint's directory.
pub(super) fn checkpoint_of(name: &str) -> Option<CheckpointId> {
    number(name.strip_prefix("chk-")?).map(CheckpointId)
}

/// The number in the name of a claim.
pub(super) fn attempt_of(name: &str) -> Option<Attempt> {
    Some(Attempt(u32::try_from(number(name)?).ok()?))
}

/// The name under which a start of the job writes what will be called `name`.
pub(super) fn staging(name: &str, attempt: Attempt) -> String {
    format!("{name}.{attempt}.tmp")
}

/// The start that writes `staged`, when that is a staging name of `name`.
pub(super) fn staged_by(staged: &str, name: &str) -> Option<Attempt> {
    attempt_of(staged.strip_prefix(name)?.strip_prefix('.')?.strip_suffix(".tmp")?)
}

/// A number in its one spelling.
fn number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// The name of a data file: 12 random bytes and a check over them, the store and the checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DataName(pub(super) [u8; 16]);

impl DataName {
    /// A new name.
    pub(super) fn draw(store: StoreId, checkpoint: CheckpointId) -> Self {
        let mut name = random();
        let check = Self::check(&name, store, checkpoint);
        if let Some(end) = name.last_chunk_mut::<4>() {
            *end = check;
        }
        Self(name)
    }

    /// Reads a name of 32 small hexadecimal digits.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let id: StoreId = text.parse().ok()?;
        (id.to_string() == text).then_some(Self(id.0))
    }

    /// True when [`draw`](Self::draw) made it for this store and checkpoint.
    pub(super) fn is_of(&self, store: StoreId, checkpoint: CheckpointId) -> bool {
        self.0.ends_with(&Self::check(&self.0, store, checkpoint))
    }

    /// What every frame in the file repeats.
    pub(super) fn incarnation(&self) -> u64 {
        self.0.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    fn check(name: &[u8; 16], store: StoreId, checkpoint: CheckpointId) -> [u8; 4] {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&store.0);
        hasher.update(&checkpoint.0.to_le_bytes());
        hasher.update(name.get(..12).unwrap_or_default());
        hasher.finalize().to_le_bytes()
    }
}

impl fmt::Display for DataName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        StoreId(self.0).fmt(f)
    }
}

impl fmt::Debug for DataName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataName({self})")
    }
}

/// A file of chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ChunkFile {
    /// Beside the `_metadata` that refers to it.
    Own(DataName),
    /// In `shared`, written for this checkpoint.
    Shared(CheckpointId, DataName),
}

impl ChunkFile {
    pub(super) fn name(&self) -> DataName {
        match self {
            Self::Own(name) | Self::Shared(_, name) => *name,
        }
    }

    /// True when this store made it, for `checkpoint` unless it is shared.
    pub(super) fn is_of(&self, store: StoreId, checkpoint: CheckpointId) -> bool {
        match self {
            Self::Own(name) => name.is_of(store, checkpoint),
            Self::Shared(by, name) => name.is_of(store, *by),
        }
    }

    /// Reads the name of a file in `shared`.
    pub(super) fn parse_shared(text: &str) -> Option<Self> {
        let (by, name) = text.split_once('-')?;
        Some(Self::Shared(CheckpointId(number(by)?), DataName::parse(name)?))
    }
}

impl fmt::Display for ChunkFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(name) => name.fmt(f),
            Self::Shared(by, name) => write!(f, "{by}-{name}"),
        }
    }
}

/// A name that was never drawn before, of 32 small hexadecimal digits.
pub(in crate::storage) fn random_name() -> String {
    StoreId(random()).to_string()
}

/// Sixteen bytes that were never drawn before.
pub(in crate::storage) fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    for half in bytes.chunks_exact_mut(8) {
        // The standard library seeds each `RandomState` from the system.
        half.copy_from_slice(&RandomState::new().build_hasher().finish().to_le_bytes());
    }
    bytes
}
