//! What a user sets: where checkpoints lie, from which size on state has a file, and buffers.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::EffectiveConfig;
use crate::error::{Error, Result};
use crate::ids::JobId;
use crate::storage::StorageUri;
use crate::storage::access::{CheckpointStorage, CompletedCheckpointLocation, JobStorage};
use crate::storage::disk::Disk;
use crate::storage::filesystem::job::FileJob;
use crate::storage::filesystem::layout;
use crate::storage::filesystem::location;
use crate::storage::filesystem::pointer::resolve;
use crate::storage::filesystem::savepoint::Savepoints;
use crate::storage::filesystem::site::Sizes;
use crate::storage::remote::{Address, RemoteOptions, disk_of, is_remote};

/// Checkpoints as files under a directory, local or mounted (Flink: `FileSystemCheckpointStorage`,
/// before it `FsStateBackend`).
///
/// Each job has a directory of its own under the path, in Flink's layout: `chk-ID` with a
/// `_metadata` and the state's files, `shared` and `taskowned`. State of at most
/// [`min_file_size_threshold`](Self::min_file_size_threshold) bytes lies in `_metadata`.
///
/// What is set here wins; [`configure`](Self::configure) completes the rest. Two descriptions are
/// equal when their locations, threshold, buffer and remote options are, secrets apart.
///
/// ```
/// use tidegate::config::CheckpointConfig;
/// use tidegate::storage::{CheckpointStorage, FileSystemCheckpointStorage};
///
/// let storage = FileSystemCheckpointStorage::new("file:/var/checkpoints/")?
///     .with_file_state_size_threshold(4096)?;
/// assert_eq!(storage.location(), "file:///var/checkpoints");
///
/// let config = CheckpointConfig::builder().build()?;
/// let storage = storage.configure(&config);
/// assert_eq!(storage.min_file_size_threshold(), 4096);
/// # Ok::<_, tidegate::Error>(())
/// ```
///
/// Serialised, it is the text of its [`StorageUri`], in which other characters of a path than
/// letters, digits and `-._~/` are percent-encoded; a location given here is taken as it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "StorageUri", into = "StorageUri")]
pub struct FileSystemCheckpointStorage {
    fields: Fields,
}

/// What is set; checked on the way in.
#[derive(Debug, Clone)]
struct Fields {
    checkpoint_path: String,
    savepoint_path: Option<String>,
    threshold: Option<u32>,
    write_buffer: Option<u32>,
    create_subdir: Option<bool>,
    remote: RemoteOptions,
}

impl FileSystemCheckpointStorage {
    /// The largest threshold, in bytes (Flink: `MAX_FILE_STATE_THRESHOLD`).
    pub const MAX_FILE_STATE_THRESHOLD: i32 = 1024 * 1024;

    /// The threshold when neither this nor a configuration sets one.
    const DEFAULT_THRESHOLD: u32 = 20_480;

    /// The write buffer when neither this nor a configuration sets one.
    const DEFAULT_WRITE_BUFFER: u32 = 4_096;

    /// Checkpoints under this location, such as `file:///var/checkpoints` or
    /// `s3://bucket/checkpoints`; the parameters of a remote one are those of [`RemoteOptions`].
    /// Nothing is touched before a job is opened.
    ///
    /// # Errors
    /// `Invalid` when the location has no scheme, one that is not known or whose feature is off, no
    /// absolute path, or is a root directory; for a parameter that is unknown, wrong or a secret.
    pub fn new(checkpoint_path: impl AsRef<str>) -> Result<Self> {
        let checkpoint_path = checkpoint_path.as_ref();
        let (checkpoint_path, remote) = match Address::parse("checkpoint path", checkpoint_path)? {
            Some(address) => {
                address.require_built()?;
                (address.location(), address.options)
            }
            None => (location::check("checkpoint path", checkpoint_path)?, RemoteOptions::new()),
        };
        Ok(Self {
            fields: Fields {
                checkpoint_path,
                remote,
                savepoint_path: None,
                threshold: None,
                write_buffer: None,
                create_subdir: None,
            },
        })
    }

    /// Sets the size in bytes up to which state lies in `_metadata` and has no file (Flink:
    /// `fileStateSizeThreshold`); -1 leaves it to the configuration, or 20 480 without one.
    ///
    /// A section of at most [`INLINE_BYTES_MAX`](crate::limits::INLINE_BYTES_MAX) bytes lies there
    /// whatever the threshold.
    ///
    /// # Errors
    /// `Invalid` below -1 and above [`MAX_FILE_STATE_THRESHOLD`](Self::MAX_FILE_STATE_THRESHOLD).
    pub fn with_file_state_size_threshold(mut self, bytes: i32) -> Result<Self> {
        let most = Self::MAX_FILE_STATE_THRESHOLD;
        if bytes < -1 || bytes > most {
            return Err(Error::invalid(format!(
                "the file state size threshold is {bytes} bytes; it lies between -1 and {most}"
            )));
        }
        self.fields.threshold = u32::try_from(bytes).ok();
        Ok(self)
    }

    /// Sets the buffer in bytes through which a file is written (Flink: `writeBufferSize`); -1
    /// leaves it to the configuration, or 4 096 without one. A buffer smaller than the threshold is
    /// as large as that.
    ///
    /// # Errors
    /// `Invalid` below -1, and for 0.
    pub fn with_write_buffer_size(mut self, bytes: i32) -> Result<Self> {
        if bytes < -1 || bytes == 0 {
            return Err(Error::invalid(format!(
                "the write buffer has {bytes} bytes; at least 1 is needed, or -1 for the default"
            )));
        }
        self.fields.write_buffer = u32::try_from(bytes).ok();
        Ok(self)
    }

    /// Sets where savepoints go.
    ///
    /// # Errors
    /// `Invalid` as for [`new`](Self::new).
    pub fn with_savepoint_path(mut self, savepoint_path: impl AsRef<str>) -> Result<Self> {
        let path = location::check("savepoint path", savepoint_path.as_ref())?;
        self.fields.savepoint_path = Some(path);
        Ok(self)
    }

    /// Sets whether each job has a directory of its own under the path (Flink:
    /// `execution.checkpointing.create-subdir`). Without one the path is of one job alone, and
    /// another is refused.
    #[must_use]
    pub fn with_create_subdir(mut self, create: bool) -> Self {
        self.fields.create_subdir = Some(create);
        self
    }

    /// Sets how a remote store is reached, in the place of what was set before and of the location's
    /// own parameters; what the options leave unset stays. Savepoints and pointers in a remote store are reached in the same way. Has no
    /// effect on files.
    #[must_use]
    pub fn with_remote_options(mut self, options: &RemoteOptions) -> Self {
        self.fields.remote = self.fields.remote.completed_by(options);
        self
    }

    /// A copy in which the configuration completes what was not set (Flink: `configure`).
    #[must_use]
    pub fn configure(&self, config: &EffectiveConfig) -> Self {
        let Fields {
            checkpoint_path,
            savepoint_path,
            threshold,
            write_buffer,
            create_subdir,
            remote,
        } = self.fields.clone();
        let threshold = threshold.unwrap_or(config.data_inline_threshold());
        let asked = u32::try_from(config.asked().write_buffer_size()).unwrap_or_default();
        let savepoint_dir = || config.savepoint_dir().map(str::to_owned);
        Self {
            fields: Fields {
                checkpoint_path,
                savepoint_path: savepoint_path.or_else(savepoint_dir),
                threshold: Some(threshold),
                write_buffer: Some(write_buffer.unwrap_or(asked).max(threshold)),
                create_subdir: Some(create_subdir.unwrap_or(config.is_create_subdir())),
                remote,
            },
        }
    }

    /// How a remote store is reached.
    pub fn remote_options(&self) -> &RemoteOptions {
        &self.fields.remote
    }

    /// The location, as `file:///path` or `s3://bucket/path` (Flink: `getCheckpointPath`).
    pub fn checkpoint_path(&self) -> &str {
        &self.fields.checkpoint_path
    }

    /// Where savepoints go, if it was set (Flink: `getSavepointPath`).
    pub fn savepoint_path(&self) -> Option<&str> {
        self.fields.savepoint_path.as_deref()
    }

    /// The size in bytes up to which state has no file (Flink: `getMinFileSizeThreshold`).
    pub fn min_file_size_threshold(&self) -> u32 {
        self.fields.threshold.unwrap_or(Self::DEFAULT_THRESHOLD)
    }

    /// The write buffer in bytes (Flink: `getWriteBufferSize`): before
    /// [`configure`](Self::configure) as it was set, after it at least the threshold. Files are
    /// always written through the larger of the two.
    pub fn write_buffer_size(&self) -> u32 {
        self.fields.write_buffer.unwrap_or(Self::DEFAULT_WRITE_BUFFER)
    }

    /// True when each job has a directory of its own.
    pub fn is_create_subdir(&self) -> bool {
        self.fields.create_subdir.unwrap_or(true)
    }

    /// The description as text, without the secrets of its options.
    pub fn to_uri(&self) -> StorageUri {
        let Fields {
            checkpoint_path,
            savepoint_path,
            threshold,
            write_buffer,
            create_subdir,
            remote,
        } = self.fields.clone();
        if is_remote(&checkpoint_path) {
            return StorageUri::Remote {
                location: checkpoint_path,
                options: remote.without_secrets(),
                threshold,
                write_buffer,
                savepoint_path,
                create_subdir,
            };
        }
        let directory = location::path(&checkpoint_path);
        StorageUri::File { directory, threshold, write_buffer, savepoint_path, create_subdir }
    }

    /// Where the files of a job lie.
    pub(super) fn job_dir(&self, job: &JobId) -> PathBuf {
        let base = location::path(&self.fields.checkpoint_path);
        if self.is_create_subdir() { layout::job_dir(&base, job) } else { base }
    }

    pub(super) fn open_on(&self, job: &JobId, disk: Arc<dyn Disk>) -> Result<JobStorage> {
        let size = |bytes: u32| usize::try_from(bytes).unwrap_or(usize::MAX);
        let threshold = size(self.min_file_size_threshold());
        let buffer = size(self.write_buffer_size()).max(threshold);
        let sizes = Sizes { threshold, buffer, all_inline: None };
        let path = self.fields.savepoint_path.as_deref();
        let savepoints = Savepoints::at(job, path, sizes, &self.fields.remote)?;
        let access = Arc::new(FileJob::open(disk, &self.job_dir(job), job, sizes)?);
        Ok(JobStorage::new(access, savepoints))
    }
}

impl CheckpointStorage for FileSystemCheckpointStorage {
    fn location(&self) -> String {
        self.fields.checkpoint_path.clone()
    }

    fn open(&self, job: &JobId) -> Result<JobStorage> {
        self.open_on(job, disk_of(&self.fields.checkpoint_path, &self.fields.remote)?)
    }

    fn resolve_checkpoint(&self, pointer: &str) -> Result<CompletedCheckpointLocation> {
        resolve(pointer, &self.fields.remote)
    }

    fn configured(&self, config: &EffectiveConfig) -> Option<Arc<dyn CheckpointStorage>> {
        Some(Arc::new(self.configure(config)))
    }

    fn to_uri(&self) -> Option<StorageUri> {
        Some(Self::to_uri(self))
    }
}

impl PartialEq for FileSystemCheckpointStorage {
    fn eq(&self, other: &Self) -> bool {
        let parts = |this: &Self| {
            let fields = &this.fields;
            (
                fields.checkpoint_path.clone(),
                fields.savepoint_path.clone(),
                fields.threshold,
                fields.write_buffer,
                fields.remote.without_secrets(),
            )
        };
        parts(self) == parts(other)
    }
}

impl Eq for FileSystemCheckpointStorage {}

impl fmt::Display for FileSystemCheckpointStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (threshold, buffer) = (self.min_file_size_threshold(), self.write_buffer_size());
        write!(
            f,
            "{}, state of at most {threshold} bytes in _metadata, a write buffer of {buffer} bytes",
            self.fields.checkpoint_path
        )
    }
}

impl From<FileSystemCheckpointStorage> for StorageUri {
    fn from(storage: FileSystemCheckpointStorage) -> Self {
        storage.to_uri()
    }
}

impl TryFrom<StorageUri> for FileSystemCheckpointStorage {
    type Error = Error;

    fn try_from(uri: StorageUri) -> Result<Self> {
        let (location, remote, threshold, write_buffer, savepoint_path, create_subdir) = match uri {
            StorageUri::File {
                directory,
                threshold,
                write_buffer,
                savepoint_path,
                create_subdir,
            } => {
                let directory = directory.to_str().ok_or_else(|| {
                    Error::invalid(format!("the directory {} is no text", directory.display()))
                })?;
                let location = location::of_path("checkpoint path", directory)?;
                let none = RemoteOptions::new();
                (location, none, threshold, write_buffer, savepoint_path, create_subdir)
            }
            StorageUri::Remote {
                location,
                options,
                threshold,
                write_buffer,
                savepoint_path,
                create_subdir,
            } => (location, options, threshold, write_buffer, savepoint_path, create_subdir),
            uri => return Err(Error::invalid(format!("{uri} is no file system"))),
        };
        let number = |bytes: Option<u32>| {
            bytes.map_or(Ok(-1), |bytes| {
                i32::try_from(bytes).map_err(|_| Error::invalid(format!("{bytes} bytes")))
            })
        };
        let mut storage = Self::new(location)?
            .with_remote_options(&remote)
            .with_file_state_size_threshold(number(threshold)?)?
            .with_write_buffer_size(number(write_buffer)?)?;
        // A configuration's directory was checked there, and may be of another file system.
        storage.fields.savepoint_path = savepoint_path;
        storage.fields.create_subdir = create_subdir;
        Ok(storage)
    }
}
