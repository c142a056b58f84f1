//! The store's directory: its paths, its lock and its two small files.
//!
//! ```text
//! LOCK      held by the owning process
//! FORMAT    tidegate, format version, store id, placement
//! CURRENT   the live index directory, and whether it was closed in order
//! FINISHED  under `Placement::Sled`: a copy of the finish records, readable without sled
//! OPENING   while an index is opened
//! POISONED  after a sync failed, until the log was synced again
//! index-N/  sled
//! log/      segments
//! lost/     what a repair could not read
//! ```
//!
//! FORMAT is written last when a store is made and never changed: a directory with a log and
//! without FORMAT is not a store.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::StoreId;
use crate::limits::{FREE_BYTES_MIN, SMALL_FILE_BYTES_MAX};
use crate::record::{FORMAT_VERSION, Frame, FrameHeader, FrameKind, Origin, Payload, codec};
use crate::storage::disk::Disk;
use crate::storage::sled::Placement;
use crate::storage::sled::kv::{Kv, KvFiles, SledFiles};

const FORMAT_MAGIC: &str = "tidegate store";

/// Files without content: their names say something to the next open. They are not made durable: what
/// they say is of this run of the machine.
const OPENING: &str = "OPENING";
const POISONED: &str = "POISONED";

/// What FORMAT says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) store: StoreId,
    pub(crate) placement: Placement,
}

/// What CURRENT says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Current {
    /// The number of the live index directory.
    pub(crate) index: u64,
    /// Segments with numbers up to this one are durable whatever became of the last process.
    pub(crate) synced: u64,
    pub(crate) clean: Option<Clean>,
}

/// What an orderly close leaves to be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Clean {
    /// The sequence number up to which the store was used.
    pub(crate) sequence: u64,
    /// The checksum of what was known; without it all is read.
    pub(crate) facts: Option<u32>,
}

/// A store's lock while it is held.
#[derive(Debug)]
pub(crate) struct StoreLock(Option<File>);

impl Drop for StoreLock {
    fn drop(&mut self) {
        // Closing alone would leave the lock to a child that this process is starting just now: the
        // child has a copy of the file until it becomes another program.
        let _ = self.0.as_ref().map(File::unlock);
    }
}

/// The directory of one store.
#[derive(Debug, Clone)]
pub(crate) struct StoreDir {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    index_files: Arc<dyn KvFiles>,
}

impl StoreDir {
    pub(crate) fn new(path: &Path, disk: Arc<dyn Disk>) -> Self {
        Self { path: path.to_owned(), disk, index_files: Arc::new(SledFiles) }
    }

    /// The same directory with an index that is not in sled.
    #[cfg(any(test, fuzzing, feature = "test-util"))]
    pub(crate) fn with_index_files(self, index_files: Arc<dyn KvFiles>) -> Self {
        Self { index_files, ..self }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    pub(crate) fn index(&self, number: u64) -> PathBuf {
        self.path.join(format!("index-{number}"))
    }

    /// Where a repair puts what it cannot read.
    pub(crate) fn lost(&self) -> PathBuf {
        self.path.join("lost")
    }

    /// Opens an index, or makes it.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be opened.
    pub(crate) fn open_index(&self, number: u64) -> Result<Arc<dyn Kv>> {
        self.index_files.open(&self.index(number))
    }

    fn io(&self, action: &str, error: std::io::Error) -> Error {
        Error::io(format!("{action} {}", self.path.display()), error)
    }

    /// Refuses to begin what needs space where there is next to none.
    ///
    /// # Errors
    /// `Full`.
    pub(crate) fn check_space(&self) -> Result<()> {
        // Where nobody can tell, the writes will.
        let free = self.disk.free_bytes(&self.path).unwrap_or(u64::MAX);
        if free >= FREE_BYTES_MIN {
            return Ok(());
        }
        let path = self.path.display();
        let message = format!("{free} bytes are free in {path}: too few for a checkpoint");
        Err(Error::new(ErrorKind::Full, message))
    }

    /// Makes the directory if it is missing and takes its lock, which dropping it or the process's
    /// end gives back.
    ///
    /// # Errors
    /// `Conflict` when another process holds it.
    pub(crate) fn lock(&self) -> Result<StoreLock> {
        if self.path.exists() && !self.path.is_dir() {
            let message = format!("{} is not a directory", self.path.display());
            return Err(Error::invalid(message));
        }
        self.disk.create_dir_all(&self.path).map_err(|error| self.io("make", error))?;
        let file = self.disk.lock_file(&self.path.join("LOCK"));
        let Some(file) = file.map_err(|error| self.io("lock", error))? else {
            return Ok(StoreLock(None));
        };
        match file.try_lock() {
            Ok(()) => Ok(StoreLock(Some(file))),
            Err(TryLockError::WouldBlock) => {
                let message = format!("another process has {} open", self.path.display());
                Err(Error::new(ErrorKind::Conflict, message))
            }
            Err(TryLockError::Error(error)) => Err(self.io("lock", error)),
        }
    }

    /// Reads FORMAT; `None` when there is none.
    ///
    /// # Errors
    /// `Corrupt` when it cannot be understood, `Incompatible` when a newer release wrote it.
    pub(crate) fn read_format(&self) -> Result<Option<Format>> {
        let path = self.path.join("FORMAT");
        let bytes = self.disk.read_small(&path).map_err(|error| self.io("read", error))?;
        bytes.map(|bytes| parse_format(&path, &bytes)).transpose()
    }

    /// Reads FORMAT, which must be there.
    ///
    /// # Errors
    /// `NotFound` when the directory holds no store.
    pub(crate) fn require_format(&self) -> Result<Format> {
        self.read_format()?.ok_or_else(|| {
            let message = format!("{} holds no tidegate store", self.path.display());
            Error::new(ErrorKind::NotFound, message)
        })
    }

    /// Makes a new store of an empty directory.
    ///
    /// # Errors
    /// `Invalid` when the directory holds something else.
    pub(crate) fn create(&self, format: Format) -> Result<()> {
        let io = |error| self.io("make a store in", error);
        let ours = |name: &str| {
            matches!(name, "LOCK" | "log" | "lost" | "FORMAT.tmp" | "CURRENT" | "CURRENT.tmp")
                || matches!(name, OPENING | POISONED)
                || name.starts_with("index-")
        };
        let names = self.disk.list(&self.path).map_err(io)?;
        if let Some(name) = names.iter().find(|name| !ours(name)) {
            let path = self.path.display();
            let message = format!("{path} is neither empty nor a tidegate store: it has {name}");
            return Err(Error::invalid(message));
        }
        let log = self.log();
        let segments = match self.disk.list(&log) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            listed => listed.map_err(io)?,
        };
        if !segments.is_empty() {
            let message = format!("{} has a log and no FORMAT", self.path.display());
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        self.disk.create_dir_all(&log).map_err(io)?;
        // CRASH: before this the directory is empty but for the lock and an empty log, and the
        // next start makes the store anew.
        self.write_format(format)
    }

    /// Puts FORMAT in the place of one that is damaged or missing, durably.
    ///
    /// # Errors
    /// What the disk answers.
    pub(crate) fn write_format(&self, format: Format) -> Result<()> {
        self.disk
            .replace_small(&self.path.join("FORMAT"), format_text(format).as_bytes())
            .map_err(|error| self.io("write FORMAT in", error))
    }

    /// Reads CURRENT; `None` when it is missing or cannot be understood, which costs a rebuild.
    pub(crate) fn read_current(&self) -> Option<Current> {
        let bytes = self.disk.read_small(&self.path.join("CURRENT")).ok().flatten()?;
        parse_current(std::str::from_utf8(&bytes).ok()?)
    }

    /// Replaces CURRENT, durably.
    ///
    /// # Errors
    /// What the disk answers.
    pub(crate) fn write_current(&self, current: Current) -> Result<()> {
        self.disk
            .replace_small(&self.path.join("CURRENT"), current_text(current).as_bytes())
            .map_err(|error| self.io("write CURRENT in", error))
    }

    /// Reads the copy of the finish records that a store without a log keeps: job and body.
    /// Damage counts as none; sled has the originals.
    pub(crate) fn read_finished(&self, store: StoreId) -> Vec<(String, Vec<u8>)> {
        let bytes = self.disk.read_small(&self.path.join("FINISHED")).ok().flatten();
        bytes.and_then(|bytes| parse_finished(store, &bytes)).unwrap_or_default()
    }

    /// Replaces the copy of the finish records, durably.
    ///
    /// # Errors
    /// What the disk answers; `Invalid` when the records are too long.
    pub(crate) fn write_finished(
        &self,
        store: StoreId,
        finished: &[(String, Vec<u8>)],
    ) -> Result<()> {
        let bytes = finished_bytes(store, finished)?;
        if bytes.len() > SMALL_FILE_BYTES_MAX {
            let (len, most) = (bytes.len(), SMALL_FILE_BYTES_MAX);
            let message = format!("FINISHED would have {len} bytes, the most is {most}");
            return Err(Error::invalid(message));
        }
        self.disk
            .replace_small(&self.path.join("FINISHED"), &bytes)
            .map_err(|error| self.io("write FINISHED in", error))
    }

    /// Notes that an index is being opened; true when the last one who did never came to an end.
    pub(crate) fn begin_opening(&self) -> bool {
        let made = self.disk.create(&self.path.join(OPENING));
        made.is_err_and(|error| error.kind() == std::io::ErrorKind::AlreadyExists)
    }

    /// Whether an index was being opened by somebody who never came to an end.
    pub(crate) fn is_opening(&self) -> bool {
        self.has_note(OPENING)
    }

    pub(crate) fn end_opening(&self) {
        self.remove_note(OPENING);
    }

    /// Notes that a sync failed: the page cache may hold what the disk does not.
    pub(crate) fn note_poisoned(&self) {
        // CRASH: without the note the next open believes the page cache, as it does after any kill.
        if let Err(error) = self.disk.create(&self.path.join(POISONED))
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            tracing::warn!(%error, "that a sync failed cannot be noted");
        }
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.has_note(POISONED)
    }

    pub(crate) fn end_poisoned(&self) {
        self.remove_note(POISONED);
    }

    fn has_note(&self, note: &str) -> bool {
        let names = self.disk.list(&self.path).unwrap_or_default();
        names.iter().any(|name| name == note)
    }

    fn remove_note(&self, name: &str) {
        if let Err(error) = self.disk.remove_file(&self.path.join(name))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, name, "a note cannot be removed");
        }
    }

    /// The numbers of all index directories.
    pub(crate) fn indexes(&self) -> Result<Vec<u64>> {
        let names = self.disk.list(&self.path).map_err(|error| self.io("list", error))?;
        Ok(names.iter().filter_map(|name| name.strip_prefix("index-")?.parse().ok()).collect())
    }
}

pub(super) fn format_text(format: Format) -> String {
    let Format { store, placement } = format;
    let body =
        format!("{FORMAT_MAGIC}\nversion {FORMAT_VERSION}\nstore {store}\nplacement {placement}\n");
    format!("{body}crc {:08x}\n", crc32fast::hash(body.as_bytes()))
}

pub(super) fn current_text(current: Current) -> String {
    let clean = current.clean.map(|Clean { sequence, facts }| {
        let facts = facts.map(|facts| format!("facts {facts:08x}\n")).unwrap_or_default();
        format!("clean {sequence}\n{facts}")
    });
    let Current { index, synced, .. } = current;
    let body = format!("index {index}\nsynced {synced}\n{}", clean.unwrap_or_default());
    format!("{body}crc {:08x}\n", crc32fast::hash(body.as_bytes()))
}

pub(super) fn finished_bytes(store: StoreId, finished: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut payload = Vec::new();
    codec::encode_list(finished, &mut payload)?;
    let header = FrameHeader::first(
        FrameKind::Finish,
        (store, 0),
        0,
        Origin::default(),
        Payload::of(&payload),
    )?;
    Ok(header.frame(&payload))
}

pub(super) fn parse_finished(store: StoreId, bytes: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let frame = Frame::decode(bytes).ok()?;
    let header = &frame.header;
    let ours = header.kind == FrameKind::Finish && header.store == store;
    codec::decode_list(frame.payload).ok().filter(|_| ours)
}

pub(super) fn parse_format(path: &Path, bytes: &[u8]) -> Result<Format> {
    let foreign = |found: &str| Error::corrupt(path, 0, "FORMAT", "a tidegate store", found);
    let text = std::str::from_utf8(bytes).map_err(|_| foreign("bytes that are not text"))?;
    let mut lines = text.lines();
    if lines.next() != Some(FORMAT_MAGIC) {
        return Err(foreign(&format!("{:?}", text.lines().next().unwrap_or_default())));
    }
    let mut field = |name: &str| {
        let line = lines.next().unwrap_or_default();
        let value = line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' '));
        value.map(str::to_owned).ok_or_else(|| foreign(&format!("{line:?} for {name}")))
    };
    let version = field("version")?;
    if version != FORMAT_VERSION.to_string() {
        let message = format!(
            "{} has format version {version}; this release reads {FORMAT_VERSION}",
            path.display()
        );
        return Err(Error::new(ErrorKind::Incompatible, message));
    }
    check_format(path, text)?;
    let store = field("store")?.parse().map_err(|_| foreign("a wrong store id"))?;
    let placement = Placement::from_str(&field("placement")?)
        .map_err(|error| Error::new(ErrorKind::Incompatible, error.to_string()))?;
    Ok(Format { store, placement })
}

/// Under a wrong store id a whole log would be another store's.
fn check_format(path: &Path, text: &str) -> Result<()> {
    let body: String = text.split_inclusive('\n').take(4).collect();
    let expected = format!("crc {:08x}", crc32fast::hash(body.as_bytes()));
    match text.lines().nth(4).unwrap_or("nothing") {
        found if found == expected => Ok(()),
        found => Err(Error::corrupt(path, body.len() as u64, "FORMAT", expected, found)),
    }
}

pub(super) fn parse_current(text: &str) -> Option<Current> {
    let (body, crc) = text.trim_end().rsplit_once('\n')?;
    let crc = u32::from_str_radix(crc.strip_prefix("crc ")?, 16).ok()?;
    if crc32fast::hash(format!("{body}\n").as_bytes()) != crc {
        return None;
    }
    let field = |name: &str| {
        let line = body.lines().find(|line| line.split(' ').next() == Some(name));
        line.and_then(|line| line.split_once(' ')).map(|(_, value)| value)
    };
    let index = field("index")?.parse().ok()?;
    // All of the log is synced when it is not said.
    let synced = field("synced").and_then(|synced| synced.parse().ok()).unwrap_or(0);
    let clean = field("clean").and_then(|clean| clean.parse().ok());
    let facts = field("facts").and_then(|facts| u32::from_str_radix(facts, 16).ok());
    let clean = clean.map(|sequence| Clean { sequence, facts });
    Some(Current { index, synced, clean })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::disk::RealDisk;

    fn dir() -> (tempfile::TempDir, StoreDir) {
        let temporary = tempfile::tempdir().unwrap();
        let dir = StoreDir::new(temporary.path(), Arc::new(RealDisk));
        (temporary, dir)
    }

    #[test]
    fn format_and_current_read_back() {
        let (_keep, dir) = dir();
        let format = Format { store: StoreId([7; 16]), placement: Placement::Sled };
        dir.create(format).unwrap();
        assert_eq!(dir.require_format().unwrap(), format);
        let clean = |facts| Some(Clean { sequence: 99, facts });
        for clean in [None, clean(None), clean(Some(0x00ab_cdef))] {
            let current = Current { index: 3, synced: 7, clean };
            dir.write_current(current).unwrap();
            assert_eq!(dir.read_current(), Some(current));
        }
    }

    #[test]
    fn a_foreign_or_newer_format_is_refused_by_name() {
        let (keep, dir) = dir();
        std::fs::write(keep.path().join("FORMAT"), "something else\n").unwrap();
        assert_eq!(dir.read_format().unwrap_err().kind(), ErrorKind::Corrupt);
        std::fs::write(keep.path().join("FORMAT"), "tidegate store\nversion 9\n").unwrap();
        let error = dir.read_format().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible);
        assert!(error.to_string().contains("version 9"));
    }

    #[test]
    fn a_flipped_bit_in_format_is_damage_and_so_is_a_missing_checksum() {
        let (keep, dir) = dir();
        let format = Format { store: StoreId([7; 16]), placement: Placement::Split };
        dir.create(format).unwrap();
        let path = keep.path().join("FORMAT");
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            let is_read = dir.read_format().is_ok_and(|read| read == Some(format));
            assert!(!is_read, "byte {at}");
        }
        let cut: String = String::from_utf8(whole).unwrap().split_inclusive('\n').take(4).collect();
        std::fs::write(&path, cut).unwrap();
        assert_eq!(dir.require_format().unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_directory_with_other_files_does_not_become_a_store() {
        let (keep, dir) = dir();
        std::fs::write(keep.path().join("thesis.tex"), "x").unwrap();
        let format = Format { store: StoreId([7; 16]), placement: Placement::Split };
        assert_eq!(dir.create(format).unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[test]
    fn an_open_that_never_ended_is_noticed_once() {
        let (_keep, dir) = dir();
        assert!(!dir.begin_opening());
        assert!(dir.begin_opening());
        dir.end_opening();
        assert!(!dir.begin_opening());
    }

    #[test]
    fn the_lock_is_exclusive() {
        let (_keep, dir) = dir();
        let _held = dir.lock().unwrap();
        assert_eq!(dir.lock().unwrap_err().kind(), ErrorKind::Conflict);
    }
}
