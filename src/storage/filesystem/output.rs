//! Writing files: through one buffer, durable at the end; and giving a whole one its name.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::storage::disk::{Disk, DiskFile, Put};

/// How often a name is drawn before a directory counts as full of them, as in Flink.
const CREATE_TRIES: u32 = 10;

/// Makes something under a drawn name that nothing has, and gives back what `draw` said of it.
///
/// # Errors
/// `Unavailable` when ten drawn names were all taken, or what `make` answers.
pub(super) fn at_a_free_name<N, T>(
    mut draw: impl FnMut() -> (N, PathBuf),
    make: impl Fn(&Path) -> io::Result<T>,
) -> Result<(N, PathBuf, T)> {
    let mut tried = 1;
    loop {
        let (name, path) = draw();
        match make(&path) {
            Ok(done) => return Ok((name, path, done)),
            Err(error) if is_taken(&error) && tried < CREATE_TRIES => tried += 1,
            Err(error) => return Err(failed("make", &path, error)),
        }
    }
}

/// A file that is written from its start to its end.
#[derive(Debug)]
pub(super) struct Output {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    buffer: Vec<u8>,
    capacity: usize,
    /// Bytes handed to the disk.
    written: u64,
}

impl Output {
    fn new(path: &Path, file: Arc<dyn DiskFile>, capacity: usize) -> Self {
        let buffer = Vec::with_capacity(capacity);
        Self { path: path.to_path_buf(), file, buffer, capacity, written: 0 }
    }

    /// Makes a file under a name that no file has, and gives back what `draw` said of it.
    ///
    /// # Errors
    /// `Unavailable` when ten drawn names were all taken, or what the disk answers.
    pub(super) fn create<T>(
        disk: &dyn Disk,
        capacity: usize,
        draw: impl FnMut() -> (T, PathBuf),
    ) -> Result<(T, Self)> {
        let (name, path, file) = at_a_free_name(draw, |path| disk.create(path))?;
        Ok((name, Self::new(&path, file, capacity)))
    }

    /// Where the next byte goes.
    pub(super) fn position(&self) -> u64 {
        self.written.saturating_add(u64::try_from(self.buffer.len()).unwrap_or(u64::MAX))
    }

    /// Writes bytes; those that fill the buffer by themselves are not copied.
    ///
    /// # Errors
    /// What the disk answers.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if self.buffer.len().saturating_add(bytes.len()) > self.capacity {
            let buffer = std::mem::take(&mut self.buffer);
            self.write(&buffer)?;
            self.buffer = buffer;
            self.buffer.clear();
        }
        if bytes.len() >= self.capacity {
            return self.write(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Hands every byte to the disk.
    ///
    /// # Errors
    /// What the disk answers.
    pub(super) fn flush(&mut self) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        self.write(&buffer)?;
        buffer.clear();
        self.buffer = buffer;
        Ok(())
    }

    /// Makes every byte so far durable. The file's name may not be yet.
    ///
    /// # Errors
    /// What the disk answers.
    pub(super) fn sync(&mut self) -> Result<()> {
        self.flush()?;
        self.file.sync_data().map_err(|error| failed("sync", &self.path, error))
    }

    /// Puts bytes in the place of the first ones.
    ///
    /// # Errors
    /// What the disk answers.
    pub(super) fn replace_start(&mut self, bytes: &[u8]) -> Result<()> {
        self.flush()?;
        self.file.write_all_at(bytes, 0).map_err(|error| failed("write", &self.path, error))
    }

    /// Makes the whole file durable. Its name may not be yet.
    ///
    /// # Errors
    /// What the disk answers.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.flush()?;
        self.file.finish().map_err(|error| failed("finish", &self.path, error))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.file
            .write_all_at(bytes, self.written)
            .map_err(|error| failed("write", &self.path, error))?;
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.written = self.written.saturating_add(len);
        Ok(())
    }
}

/// How far a publication came that failed.
#[derive(Debug)]
pub(super) enum Unpublished {
    /// The name is not given, and never will be.
    Certain(Error),
    /// Nobody can tell whether the name is given once the machine starts again.
    Uncertain(Error),
}

impl Unpublished {
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Certain(error) | Self::Uncertain(error) => error,
        }
    }
}

/// Writes a file under a staging name in the same directory and, once it is durable and `check`
/// agrees, gives it its own name, durably: all of it or nothing. In the place of one that has the name,
/// unless nothing is staged and it must be new.
///
/// # Errors
/// What the disk or `check` answers, and how far it came.
pub(super) fn publish(
    disk: &dyn Disk,
    (dir, how): (&Path, Put),
    [staging, name]: [&str; 2],
    parts: &[&[u8]],
    check: impl FnOnce() -> Result<()>,
) -> Result<(), Unpublished> {
    let [staging, target] = [staging, name].map(|name| dir.join(name));
    if !disk.stages() {
        return publish_at_once(disk, &target, how, parts, check);
    }
    // CRASH: from here to the rename a part of the staging file is there; its name says whose it is,
    // and the next start removes it.
    if let Err(error) = stage(disk, &staging, parts).and_then(|()| check()) {
        if let Err(error) = disk.remove_file(&staging) {
            tracing::debug!(%error, file = %staging.display(), "a staging file stays");
        }
        return Err(Unpublished::Certain(error));
    }
    // CRASH: after the rename, before the sync, either name may be found after a power cut; the
    // bytes under both are whole.
    let named = disk.rename(&staging, &target).map_err(|error| {
        let gone = error.kind() == io::ErrorKind::NotFound;
        let error = failed("publish", &target, error);
        // A later start fences an earlier one by removing what it has staged.
        if gone { Unpublished::Certain(error) } else { Unpublished::Uncertain(error) }
    });
    named?;
    disk.sync_dir(dir).map_err(|error| Unpublished::Uncertain(failed("sync", dir, error)))
}

/// The same where a file is there at once or not at all.
fn publish_at_once(
    disk: &dyn Disk,
    target: &Path,
    how: Put,
    parts: &[&[u8]],
    check: impl FnOnce() -> Result<()>,
) -> Result<(), Unpublished> {
    check().map_err(Unpublished::Certain)?;
    // CRASH: from here on the file may be there, whole.
    disk.put(target, parts, how).map_err(|error| {
        let is_refused = is_taken(&error);
        let error = failed("publish", target, error);
        // A later start fences an earlier one by taking the name.
        if is_refused { Unpublished::Certain(error) } else { Unpublished::Uncertain(error) }
    })
}

fn stage(disk: &dyn Disk, path: &Path, parts: &[&[u8]]) -> Result<()> {
    /// Small parts go together; large ones are written as they are.
    const BUFFER: usize = 64 * 1024;
    let file = match disk.create(path) {
        Err(error) if is_taken(&error) => {
            // Left over by a publication of the same start that failed.
            disk.remove_file(path).map_err(|error| failed("remove", path, error))?;
            disk.create(path)
        }
        other => other,
    };
    let file = file.map_err(|error| failed("make", path, error))?;
    let mut output = Output::new(path, file, BUFFER);
    for part in parts {
        output.append(part)?;
    }
    output.finish()
}

pub(super) fn is_taken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AlreadyExists
}

pub(super) fn failed(action: &str, path: &Path, error: io::Error) -> Error {
    Error::io(format!("{action} {}", path.display()), error)
}
