//! Named blobs as files below a directory: to wrap, or to take as a pattern.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::platform;
use crate::storage::custom::{BlobReader, BlobWriter, CustomAccess};
use crate::storage::filesystem::random_name;

/// Where blobs are written before they have their names. No blob's name begins with it: it has a dot.
const UNFINISHED: &str = ".unfinished";

/// Each blob a file below a directory, local or mounted (nothing in Flink).
///
/// A storage of one's own that changes bytes on their way, to encrypt or to compress them, wraps it;
/// so does `examples/encrypted_storage`. What a killed process was writing stays in a directory
/// `.unfinished` and may be removed while nobody writes.
#[derive(Debug, Clone)]
pub struct DirectoryBlobs {
    root: PathBuf,
}

impl DirectoryBlobs {
    /// Blobs below this directory, which is made when the first one is written.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn begin(&self, name: &str) -> Result<UnfinishedBlob> {
        let target = self.root.join(name);
        let unfinished = self.root.join(UNFINISHED);
        for dir in [Some(unfinished.as_path()), target.parent()].into_iter().flatten() {
            platform::create_private_dir_all(dir).map_err(|error| failed("make", dir, error))?;
        }
        let path = unfinished.join(random_name());
        let file = platform::private_file().write(true).create_new(true).open(&path);
        let file = file.map_err(|error| failed("make", &path, error))?;
        Ok(UnfinishedBlob { file, path, target })
    }
}

fn failed(action: &str, path: &Path, error: io::Error) -> Error {
    Error::io(format!("{action} {}", path.display()), error)
}

impl CustomAccess for DirectoryBlobs {
    fn create(&self, name: &str) -> Result<Box<dyn BlobWriter>> {
        Ok(Box::new(self.begin(name)?))
    }

    fn open(&self, name: &str) -> Result<Box<dyn BlobReader>> {
        let path = self.root.join(name);
        Ok(Box::new(File::open(&path).map_err(|error| failed("open", &path, error))?))
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>> {
        let dir = self.root.join(prefix);
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| failed("list", &dir, error))?,
        };
        let name = |entry: io::Result<fs::DirEntry>| {
            let entry = entry.map_err(|error| failed("list", &dir, error))?;
            Ok(format!("{prefix}{}", entry.file_name().to_string_lossy()))
        };
        entries.map(name).collect()
    }

    fn delete(&self, name: &str) -> Result<()> {
        let path = self.root.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &path, error))
            }
            _ => Ok(()),
        }
    }

    fn publish(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        let mut blob = self.begin(name)?;
        blob.write_all(bytes).map_err(|error| failed("write", &blob.path, error))?;
        blob.sync()?;
        // CRASH: a second name for a file is made at once or not at all; the first one goes either way.
        match fs::hard_link(&blob.path, &blob.target) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            linked => linked.map_err(|error| failed("publish", &blob.target, error))?,
        }
        blob.sync_name()?;
        Ok(true)
    }
}

/// A file that has not its name yet. Dropped, it is removed.
#[derive(Debug)]
struct UnfinishedBlob {
    file: File,
    path: PathBuf,
    target: PathBuf,
}

impl UnfinishedBlob {
    fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|error| failed("sync", &self.path, error))
    }

    fn sync_name(&self) -> Result<()> {
        let synced = self.target.parent().map_or(Ok(()), platform::sync_dir);
        synced.map_err(|error| failed("sync the name of", &self.target, error))
    }
}

impl Write for UnfinishedBlob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl BlobWriter for UnfinishedBlob {
    fn finish(self: Box<Self>) -> Result<()> {
        self.sync()?;
        fs::rename(&self.path, &self.target)
            .map_err(|error| failed("name", &self.target, error))?;
        self.sync_name()
    }
}

impl Drop for UnfinishedBlob {
    fn drop(&mut self) {
        // A finished one has another name by now.
        let _ = fs::remove_file(&self.path);
    }
}
