//! A sink of files: two-phase commit by rename.
//!
//! Owns the bytes on disk and the names; never more than what bears its own owner and operator.
//! A file is pending until its checkpoint completed: its name starts with a full stop. Committed
//! files start with `part-` and are never written to again.

mod names;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Attempt, CheckpointId};
use crate::local::file_sink::names::Names;
use crate::local::sink::{Committer, Sink, SinkContext, Token};
use crate::platform::sync_dir;
use crate::state::codec;

/// Bytes that are collected before they are written.
const BUFFER_BYTES: usize = 256 * 1024;

/// Writes each record, as the bytes that a closure makes of it, into files of one directory
/// (Flink: `FileSink`).
///
/// A file holds what one subtask took between two checkpoints, in order.
///
/// ```no_run
/// # use tidegate::local::{FileSink, SinkContext};
/// # fn open(context: &SinkContext) -> tidegate::Result<()> {
/// let sink = FileSink::new("output/lines", context, |line: &String, bytes: &mut Vec<u8>| {
///     bytes.extend_from_slice(line.as_bytes());
///     bytes.push(b'\n');
/// })?;
/// # drop(sink);
/// # Ok(())
/// # }
/// ```
pub struct FileSink<T, E> {
    directory: PathBuf,
    names: Names,
    attempt: Attempt,
    encode: E,
    open: Option<OpenFile>,
    buffer: Vec<u8>,
    /// Files begun by this subtask in this attempt.
    begun: u64,
    item: PhantomData<fn(&T)>,
}

struct OpenFile {
    file: File,
    name: String,
}

/// A file whose records belong to one checkpoint; not durable yet.
pub struct SealedFile {
    file: File,
    rest: Vec<u8>,
    pending: String,
    committed: String,
    checkpoint: CheckpointId,
    attempt: Attempt,
}

/// Persists, commits and gives up the files of a [`FileSink`].
#[derive(Debug)]
pub struct FileCommitter {
    directory: PathBuf,
    names: Names,
}

impl<T, E> fmt::Debug for FileSink<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSink").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl fmt::Debug for SealedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedFile").field("pending", &self.pending).finish_non_exhaustive()
    }
}

impl<T, E: Fn(&T, &mut Vec<u8>)> FileSink<T, E> {
    /// A subtask of a sink that writes into `directory`, which is made when it is missing.
    /// `encode` appends a record's bytes, with a separator if there is to be one.
    ///
    /// # Errors
    /// `Invalid` when the names of owner and operator are too long for a file name, or the
    /// directory cannot be made or made durable.
    pub fn new(directory: impl Into<PathBuf>, context: &SinkContext, encode: E) -> Result<Self> {
        let directory = directory.into();
        let names = Names::new(context)?;
        make_durable_dir(&directory)
            .map_err(|error| Error::io(format!("make {}", directory.display()), error))?;
        Ok(Self {
            directory,
            names,
            attempt: context.attempt,
            encode,
            open: None,
            buffer: Vec::with_capacity(BUFFER_BYTES),
            begun: 0,
            item: PhantomData,
        })
    }

    fn begin(&mut self) -> Result<()> {
        let name = self.names.pending(self.attempt, self.begun);
        let path = self.directory.join(&name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|error| Error::io(format!("create {}", path.display()), error))?;
        self.begun += 1;
        self.open = Some(OpenFile { file, name });
        Ok(())
    }
}

impl<T, E> Sink<T> for FileSink<T, E>
where
    T: 'static,
    E: Fn(&T, &mut Vec<u8>) + Send + 'static,
{
    type Sealed = SealedFile;
    type Committer = FileCommitter;

    fn committer(&self) -> Result<FileCommitter> {
        Ok(FileCommitter { directory: self.directory.clone(), names: self.names.clone() })
    }

    fn write(&mut self, item: T) -> Result<()> {
        if self.open.is_none() {
            self.begin()?;
        }
        (self.encode)(&item, &mut self.buffer);
        if self.buffer.len() < BUFFER_BYTES {
            return Ok(());
        }
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        open.file
            .write_all(&self.buffer)
            .map_err(|error| Error::io(format!("write {}", open.name), error))?;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES);
        Ok(())
    }

    fn seal(&mut self, id: CheckpointId) -> Result<Option<SealedFile>> {
        let Some(open) = self.open.take() else {
            return Ok(None);
        };
        Ok(Some(SealedFile {
            file: open.file,
            rest: std::mem::replace(&mut self.buffer, Vec::with_capacity(BUFFER_BYTES)),
            pending: open.name,
            committed: self.names.committed(self.attempt, id),
            checkpoint: id,
            attempt: self.attempt,
        }))
    }
}

impl Committer for FileCommitter {
    type Sealed = SealedFile;

    fn persist(&mut self, mut sealed: SealedFile) -> Result<Token> {
        let durable = sealed
            .file
            .write_all(&sealed.rest)
            .and_then(|()| sealed.file.sync_all())
            .and_then(|()| sync_dir(&self.directory));
        durable.map_err(|error| Error::io(format!("make {} durable", sealed.pending), error))?;
        let mut bytes = Vec::new();
        codec::encode_into(&(&sealed.pending, &sealed.committed), &mut bytes)?;
        Ok(Token { checkpoint: sealed.checkpoint, attempt: sealed.attempt, bytes })
    }

    fn commit(&mut self, token: &Token) -> Result<()> {
        let (pending, committed) = self.names.of_token(token)?;
        let (from, to) = (self.directory.join(&pending), self.directory.join(&committed));
        match fs::rename(&from, &to) {
            Ok(()) => {}
            // CRASH: after the rename, before the commit was known: it is there already.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !to.exists() {
                    return Err(Error::corrupt(
                        &to,
                        0,
                        "an output file",
                        format_args!("{pending} or {committed}"),
                        "neither",
                    ));
                }
            }
            Err(error) => return Err(Error::io(format!("rename {}", from.display()), error)),
        }
        self.sync()
    }

    fn abort(&mut self, held: &[Token]) -> Result<()> {
        let held = held
            .iter()
            .map(|token| self.names.of_token(token).map(|(pending, _)| pending))
            .collect::<Result<BTreeSet<_>>>()?;
        let all = self.list()?;
        if let Some(foreign) = all.iter().find(|name| self.names.is_foreign(name)) {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "{} holds {foreign}, which another job or another store has committed: name an \
                     empty directory for the output, or remove the part- files there",
                    self.directory.display()
                ),
            ));
        }
        let given_up = all.iter().filter(|name| self.names.is_pending(name));
        self.remove(given_up.filter(|name| !held.contains(*name)))
    }

    fn rewind(&mut self, to: Option<CheckpointId>) -> Result<()> {
        let to = to.unwrap_or(CheckpointId(0));
        let all = self.list()?;
        self.remove(all.iter().filter(|name| self.names.checkpoint(name).is_some_and(|id| id > to)))
    }
}

impl FileCommitter {
    fn list(&self) -> Result<Vec<String>> {
        let cannot = |error| Error::io(format!("list {}", self.directory.display()), error);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(cannot)? {
            // A name that is no text is none of ours.
            names.extend(entry.map_err(cannot)?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn remove<'a>(&self, names: impl Iterator<Item = &'a String>) -> Result<()> {
        let mut removed = false;
        for name in names {
            let path = self.directory.join(name);
            fs::remove_file(&path)
                .map_err(|error| Error::io(format!("remove {}", path.display()), error))?;
            removed = true;
        }
        if removed { self.sync() } else { Ok(()) }
    }

    fn sync(&self) -> Result<()> {
        sync_dir(&self.directory)
            .map_err(|error| Error::io(format!("sync {}", self.directory.display()), error))
    }
}

/// Makes a directory with its parents, durably.
fn make_durable_dir(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    sync_dir(path)?;
    // CRASH: an earlier process may have died between making a directory and syncing its parent,
    // so all of them are synced. Those that may not be opened were not made by this user.
    for parent in path.ancestors().skip(1) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        match sync_dir(parent) {
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
