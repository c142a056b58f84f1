//! `export` and `import`: a checkpoint from one storage into another, read back before it counts as
//! done.
//!
//! A sled store with a log, and files here or in a remote store, are read beside a live job, without a
//! claim. Any other source, and a store that is written, is opened as its job opens it.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use serde::Serialize;

use crate::catalog::{Checkpoints, CompletedCheckpoint, ExternalCheckpoint, copy_checkpoint};
use crate::config::split_scheme;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, JobId};
use crate::inspect::location::split_checkpoint;
use crate::inspect::text::{count, plain, size};
use crate::inspect::{Inspector, StoreLocation, VerifyProgress};
use crate::record::digest;
use crate::record::metadata::CheckpointMetadata;
use crate::storage::{
    Export, Exported, RecordSource, RemoteOptions, StorePlace, StoredCheckpoint, open_uri, resolve,
    savepoint_target,
};

/// How often a source is looked at again that a live job changes while it is copied.
const LOOKS_MAX: u32 = 5;

/// A checkpoint as people name it: `STORE#ID`, a store alone for the newest one, or the directory of a
/// checkpoint or savepoint.
///
/// ```
/// use tidegate::inspect::CheckpointLocation;
///
/// let from: CheckpointLocation = "sled:///var/state#7".parse()?;
/// assert_eq!(from.to_string(), "/var/state#7");
/// # Ok::<_, tidegate::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointLocation(Place);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// Can be looked at without its job.
    Look(StoreLocation),
    /// The text of a storage that only a start of the job reads.
    Storage(String, Option<CheckpointId>),
}

/// Where a copy goes.
///
/// ```
/// use tidegate::inspect::CopyTarget;
///
/// let savepoints: CopyTarget = "file:///var/savepoints".parse()?;
/// let store: CopyTarget = "sled:///var/state".parse()?;
/// assert!(savepoints.is_directory() && !store.is_directory());
/// # Ok::<_, tidegate::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyTarget(Target);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    /// Below this location, in a directory of its own that stands alone.
    Directory(String),
    /// A storage, by its text.
    Store(String),
}

/// A checkpoint that was copied, read back, and found to be sound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CopiedCheckpoint {
    /// Where it was read.
    pub from: String,
    /// Whose it is there.
    pub from_job: String,
    /// Its number there.
    pub from_id: CheckpointId,
    /// Where it lies now: the pointer of its directory, or the storage.
    pub to: String,
    /// Whose it is now.
    pub job: String,
    /// Its number now.
    pub id: CheckpointId,
    /// The bytes of all sections.
    pub state_size: u64,
    /// Its tasks.
    pub tasks: u64,
    /// Tasks that an interrupted copy had written, and that were checked and not written again.
    pub resumed_tasks: u64,
    /// True when an earlier copy was complete, so that it was only read.
    pub was_there: bool,
    /// Records that were read back.
    pub verified_records: u64,
}

/// Copies a checkpoint to another place: into a savepoint directory that stands alone below a directory
/// or location, or into another store. `job` is needed where the source has several.
///
/// The directory may be moved. A copy into a directory that was interrupted goes on with the tasks that
/// were finished, which are read and checked first; one into a store begins anew.
///
/// ```
/// # use tidegate::catalog::{CheckpointPlan, Checkpoints};
/// # use tidegate::storage::{CheckpointStorage, SledCheckpointStorage};
/// # let directory = tempfile::tempdir().unwrap();
/// # let directory = directory.path();
/// # let storage = SledCheckpointStorage::new(directory.join("store"));
/// # let checkpoints = Checkpoints::new(storage.open(&tidegate::JobId::new("job")?)?);
/// # checkpoints.begin(checkpoints.next_id(), CheckpointPlan::new(Vec::new()))?.commit(&[])?;
/// use tidegate::inspect::{CheckpointLocation, CopyTarget, export_checkpoint};
///
/// let from = CheckpointLocation::parse(directory.join("store").as_os_str())?;
/// let to = CopyTarget::parse(directory.join("savepoints").as_os_str())?;
/// let copied = export_checkpoint(&from, None, &to, &mut |_| ())?;
/// assert!(storage.resolve_checkpoint(&copied.to)?.id() == copied.id);
/// # Ok::<_, tidegate::Error>(())
/// ```
///
/// # Errors
/// `NotFound` when there is no such checkpoint, or its job gave it up meanwhile: then nothing of the
/// copy is left. `Conflict` when a store that must be opened is in use, or another process copies the
/// same into the same directory; `Corrupt` when the source is damaged; what the storages answer.
pub fn export_checkpoint(
    from: &CheckpointLocation,
    job: Option<&str>,
    to: &CopyTarget,
    progress: &mut dyn FnMut(VerifyProgress),
) -> Result<CopiedCheckpoint> {
    copy((from, job), (to, None), progress)
}

/// Copies a checkpoint or savepoint into a store, where it is the newest completed one of `job`, or of
/// the job that it is of. `from_job` is needed where the source has several.
///
/// # Errors
/// As [`export_checkpoint`]; `Invalid` when the store ends with this process.
pub fn import_checkpoint(
    from: &CheckpointLocation,
    from_job: Option<&str>,
    store: &str,
    job: Option<&str>,
    progress: &mut dyn FnMut(VerifyProgress),
) -> Result<CopiedCheckpoint> {
    let to = CopyTarget(Target::Store(store.to_owned()));
    copy((from, from_job), (&to, job), progress)
}

impl CheckpointLocation {
    /// Reads an argument; one that is not UTF-8 is a path.
    ///
    /// # Errors
    /// `Invalid` when it names no place.
    pub fn parse(argument: &OsStr) -> Result<Self> {
        match argument.to_str() {
            Some(text) => text.parse(),
            None => Ok(Self(Place::Look(StoreLocation::parse(argument)?))),
        }
    }

    /// True when it names no checkpoint, but the newest in a place.
    fn is_newest(&self) -> bool {
        match &self.0 {
            Place::Look(location) => location.checkpoint().is_none(),
            Place::Storage(_, id) => id.is_none(),
        }
    }

    pub(super) fn open(&self, job: Option<&str>) -> Result<Source> {
        match &self.0 {
            Place::Look(location) => {
                let found = Inspector::at(location)?.find(job, location.checkpoint())?;
                let (job, stored, records) = found;
                Ok(Source { job, stored, records, again: Some(location.clone()) })
            }
            Place::Storage(text, id) => {
                let job = job.ok_or_else(|| {
                    Error::invalid(format!("{text} is read as its job reads it: name the job"))
                })?;
                let checkpoints = Checkpoints::new(open_uri(text)?.open(&JobId::new(job)?)?);
                let stored = checkpoints.storage().access().stored();
                let found = match id {
                    Some(id) => stored.iter().find(|stored| stored.id == *id),
                    None => stored.last(),
                };
                let stored = *found.ok_or_else(|| {
                    Error::new(ErrorKind::NotFound, format!("{self} is no completed checkpoint"))
                })?;
                let records = checkpoints.source(stored.id);
                Ok(Source { job: job.to_owned(), stored, records, again: None })
            }
        }
    }
}

impl FromStr for CheckpointLocation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_local = split_scheme(text).is_none_or(|(scheme, _)| {
            ["sled", "file"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
        });
        if is_local || StorePlace::is_remote(text) {
            return Ok(Self(Place::Look(text.parse()?)));
        }
        // Of two tiers one may be such that only the job reads it.
        if let Ok(tiers) = text.parse() {
            return Ok(Self(Place::Look(tiers)));
        }
        let (store, id) = split_checkpoint(text)?;
        open_uri(store)?;
        Ok(Self(Place::Storage(store.to_owned(), id)))
    }
}

impl fmt::Display for CheckpointLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Look(location) => location.fmt(f),
            Place::Storage(text, id) => {
                f.write_str(text)?;
                id.map_or(Ok(()), |id| write!(f, "#{id}"))
            }
        }
    }
}

impl CopyTarget {
    /// Reads an argument: a path, `file:///path` or a place in a remote store for a directory below which a
    /// savepoint gets its own, or another storage; a path that holds a sled store is that store.
    ///
    /// # Errors
    /// `Invalid` when it names no place.
    pub fn parse(argument: &OsStr) -> Result<Self> {
        let text = argument.to_str().ok_or_else(|| {
            Error::invalid(format!("{} is no text", Path::new(argument).display()))
        })?;
        text.parse()
    }

    /// True when a savepoint directory is made.
    pub fn is_directory(&self) -> bool {
        matches!(self.0, Target::Directory(_))
    }
}

impl FromStr for CopyTarget {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some((scheme, _)) = split_scheme(text) {
            if scheme.eq_ignore_ascii_case("file") || StorePlace::is_remote(text) {
                return Ok(Self(Target::Directory(savepoint_target(text)?)));
            }
            open_uri(text)?;
            return Ok(Self(Target::Store(text.to_owned())));
        }
        if text.is_empty() || text.contains('\0') {
            return Err(Error::invalid("the target of a copy names no place"));
        }
        if Path::new(text).join("FORMAT").exists() {
            return Ok(Self(Target::Store(text.to_owned())));
        }
        let path = std::path::absolute(text)
            .map_err(|error| Error::io(format!("make {text} an absolute path"), error))?;
        Ok(Self(Target::Directory(savepoint_target(&format!("file://{}", path.display()))?)))
    }
}

/// A checkpoint that is copied or compared.
pub(super) struct Source {
    pub(super) job: String,
    pub(super) stored: StoredCheckpoint,
    pub(super) records: Arc<dyn RecordSource>,
    /// Where to look again; a live job may give it up or move what it lies in.
    again: Option<StoreLocation>,
}

impl Source {
    /// Looks for the same checkpoint again; `None` when nobody can have changed it.
    fn look_again(&self) -> Result<Option<Self>> {
        let Some(location) = &self.again else { return Ok(None) };
        let id = self.stored.id;
        let gone = || {
            let message = format!("checkpoint {id} was given up by its job while it was copied");
            Error::new(ErrorKind::NotFound, message)
        };
        let found = Inspector::at(location).and_then(|look| look.find(Some(&self.job), Some(id)));
        match found {
            Ok((job, stored, records)) if stored.record == self.stored.record => {
                Ok(Some(Self { job, stored, records, again: self.again.clone() }))
            }
            Ok(_) => Err(gone()),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(gone().with_source(error)),
            Err(error) => Err(error),
        }
    }

    pub(super) fn load(&self) -> Result<CompletedCheckpoint> {
        CompletedCheckpoint::load(&*self.records, &self.stored)
    }

    /// Sixteen bytes that stand for this checkpoint and no other.
    fn exported(&self) -> Result<Exported> {
        let StoredCheckpoint { id, record, .. } = self.stored;
        let mut bytes = self.records.node(&record)?.encode()?;
        for number in [id.0, record.id, u64::from(record.attempt.0)] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(self.job.as_bytes());
        let (job, attempt) = (JobId::new(self.job.as_str())?, record.attempt);
        Ok(Exported { job, id, attempt, identity: digest(&bytes) })
    }
}

/// Bytes that were read for the copy, then read back.
struct Meter<'a> {
    done_bytes: u64,
    total_bytes: u64,
    progress: &'a mut dyn FnMut(VerifyProgress),
}

impl Meter<'_> {
    fn add(&mut self, bytes: u64) {
        self.done_bytes = self.done_bytes.saturating_add(bytes);
        let total_bytes = self.total_bytes.max(self.done_bytes);
        (self.progress)(VerifyProgress { done_bytes: self.done_bytes, total_bytes });
    }
}

/// What one try to copy came to.
struct Done {
    to: String,
    job: String,
    id: CheckpointId,
    resumed_tasks: u64,
    was_there: bool,
    verified_records: u64,
}

fn copy(
    (from, from_job): (&CheckpointLocation, Option<&str>),
    (to, job): (&CopyTarget, Option<&str>),
    progress: &mut dyn FnMut(VerifyProgress),
) -> Result<CopiedCheckpoint> {
    // Said once: what is gone cannot say it again.
    let (mut source, metadata, exported) = begin(from, from_job)?;
    let total_bytes = metadata.state_bytes.saturating_mul(2);
    let mut before = None;
    let mut looks = 0;
    let done = loop {
        let mut meter = Meter { done_bytes: 0, total_bytes, progress: &mut *progress };
        let tried = match &to.0 {
            Target::Directory(base) => into_directory(&source, (base, &exported), &mut meter),
            Target::Store(text) => into_store(&source, text, job, &mut meter),
        };
        let error = match tried {
            Ok(done) => break done,
            Err(error) => error,
        };
        // What is lost twice at the same place is damage.
        let text = error.to_string();
        looks += 1;
        if !is_lost(&error) || looks > LOOKS_MAX || before.as_ref() == Some(&text) {
            return Err(error);
        }
        before = Some(text);
        source = match source.look_again() {
            Ok(Some(again)) => again,
            Ok(None) => return Err(error),
            Err(gone) => {
                forget(&exported, to);
                return Err(gone);
            }
        };
    };
    let Done { to, job, id, resumed_tasks, was_there, verified_records } = done;
    Ok(CopiedCheckpoint {
        from: from.to_string(),
        from_job: source.job,
        from_id: source.stored.id,
        to,
        job,
        id,
        state_size: metadata.state_bytes,
        tasks: metadata.tasks(),
        resumed_tasks,
        was_there,
        verified_records,
    })
}

/// Opens what is copied. When a live job gives up its newest checkpoint meanwhile, it has a newer one.
fn begin(
    from: &CheckpointLocation,
    job: Option<&str>,
) -> Result<(Source, CheckpointMetadata, Exported)> {
    let mut looks = 0;
    loop {
        let tried = from.open(job).and_then(|source| {
            let loaded = source.load().and_then(|found| Ok((found.metadata, source.exported()?)));
            match loaded {
                Ok((metadata, exported)) => Ok((source, metadata, exported)),
                Err(error) if is_lost(&error) => source.look_again().and(Err(error)),
                Err(error) => Err(error),
            }
        });
        match tried {
            Err(error)
                if error.kind() == ErrorKind::NotFound && from.is_newest() && looks < LOOKS_MAX =>
            {
                looks += 1;
            }
            done => return done,
        }
    }
}

/// True when a live job may have given it up, or moved it.
fn is_lost(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound)
}

fn into_directory(
    source: &Source,
    (base, exported): (&str, &Exported),
    meter: &mut Meter<'_>,
) -> Result<Done> {
    let opened = Export::below(base, exported)?;
    let (id, resumed_tasks, pointer, was_there) = match opened {
        Export::Complete(pointer) => (source.stored.id, 0, pointer, true),
        Export::Open(pending, pointer) => {
            let mut add = |bytes| {
                meter.add(bytes);
                Ok(())
            };
            let copied = copy_checkpoint(&source.records, &source.stored, &*pending, &mut add)?;
            (copied.checkpoint.id, copied.resumed_tasks, pointer, false)
        }
    };
    let found = ExternalCheckpoint::new(resolve(&pointer, &RemoteOptions::default())?);
    let report = found.verify(&mut |bytes| meter.add(bytes))?;
    let (job, verified_records) = (source.job.clone(), report.records);
    Ok(Done { to: pointer, job, id, resumed_tasks, was_there, verified_records })
}

fn into_store(
    source: &Source,
    text: &str,
    job: Option<&str>,
    meter: &mut Meter<'_>,
) -> Result<Done> {
    let storage = open_uri(text)?;
    if !storage.capabilities().is_durable() {
        return Err(Error::invalid(format!("{text} ends with this process, and the copy with it")));
    }
    let job = job.unwrap_or(&source.job).to_owned();
    let checkpoints = Checkpoints::new(storage.open(&JobId::new(job.as_str())?)?);
    let mut add = |bytes| {
        meter.add(bytes);
        Ok(())
    };
    let info = checkpoints.import_records(&source.records, &source.stored, &mut add)?;
    let id = info.id;
    let report = checkpoints.verify(id, &mut |bytes| meter.add(bytes)).inspect_err(|_| {
        if let Err(error) = checkpoints.discard(&[id]) {
            tracing::warn!(%error, %id, "a copy that is damaged stays");
        }
    })?;
    Ok(Done {
        to: text.to_owned(),
        job,
        id,
        resumed_tasks: 0,
        was_there: false,
        verified_records: report.records,
    })
}

/// Removes what was copied of a checkpoint that is gone.
fn forget(exported: &Exported, to: &CopyTarget) {
    let Target::Directory(base) = &to.0 else { return };
    match Export::below(base, exported) {
        Ok(Export::Open(pending, _)) => pending.discard(),
        Ok(Export::Complete(_)) => {}
        Err(error) => tracing::warn!(%error, "a part of a copy stays"),
    }
}

impl fmt::Display for CopiedCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, job) = (plain(&self.from), plain(&self.from_job));
        let (to, id, now) = (plain(&self.to), self.id, plain(&self.job));
        if self.was_there {
            writeln!(f, "checkpoint {} of {job} in {from} was copied before", self.from_id)?;
        } else {
            writeln!(f, "checkpoint {} of {job} in {from} is copied", self.from_id)?;
        }
        writeln!(f, "  to       checkpoint {id} of {now} in {to}")?;
        writeln!(f, "  state    {}, {}", size(self.state_size), count(self.tasks, "task"))?;
        if self.resumed_tasks > 0 {
            let tasks = count(self.resumed_tasks, "task");
            writeln!(
                f,
                "  resumed  {tasks} of an interrupted copy, checked and not written again"
            )?;
        }
        writeln!(f, "  checked  {} read back", count(self.verified_records, "record"))
    }
}
