//! A storage of one's own: encrypted blobs in a directory. The cipher is a toy that keeps no secret;
//! put a real one in the place of `apply`.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidegate::storage::{BlobReader, BlobWriter, CustomAccess, StorageParameters};
use tidegate::{Error, Result};

static TEMPORARY: AtomicU64 = AtomicU64::new(0);

/// The factory: `custom:encrypted?directory=DIR&key=NUMBER`.
pub(crate) fn open(parameters: &StorageParameters) -> Result<Arc<dyn CustomAccess>> {
    let wanted = |name| move || Error::invalid(format!("the storage needs {name}"));
    let directory = parameters.get("directory").ok_or_else(wanted("directory"))?.into();
    let key = parameters.get("key").and_then(|key| key.parse().ok());
    Ok(Arc::new(Encrypted { directory, key: key.ok_or_else(wanted("key=NUMBER"))? }))
}

struct Encrypted {
    directory: PathBuf,
    key: u64,
}

/// The toy: each byte is changed by the key and its place.
fn apply(key: u64, at: u64, bytes: &mut [u8]) {
    for (at, byte) in (at..).zip(bytes) {
        *byte ^= (key ^ at).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0];
    }
}

struct Writer {
    blob: Blob,
    temporary: PathBuf,
    target: PathBuf,
}

struct Blob {
    file: File,
    key: u64,
    at: u64,
}

impl Encrypted {
    /// Begins a file beside the blobs, so that nobody lists what is not finished.
    fn begin(&self, name: &str) -> io::Result<Writer> {
        let number = TEMPORARY.fetch_add(1, Ordering::Relaxed);
        let temporary = format!("tmp/{}-{number}", std::process::id());
        let [temporary, target] = [&temporary, name].map(|name| self.directory.join(name));
        for path in [&temporary, &target] {
            fs::create_dir_all(path.parent().unwrap_or(path))?;
        }
        let file = File::create(&temporary)?;
        Ok(Writer { blob: Blob { file, key: self.key, at: 0 }, temporary, target })
    }
}

/// Makes a name durable, with the names of the two directories that the blobs of a job lie in.
fn sync_parents(target: &Path) -> io::Result<()> {
    target.ancestors().skip(1).take(3).try_for_each(|dir| File::open(dir)?.sync_all())
}

impl CustomAccess for Encrypted {
    fn create(&self, name: &str) -> Result<Box<dyn BlobWriter>> {
        Ok(Box::new(self.begin(name)?))
    }

    fn open(&self, name: &str) -> Result<Box<dyn BlobReader>> {
        let file = File::open(self.directory.join(name));
        let file = file.map_err(|error| Error::io(format!("open {name}"), error))?;
        Ok(Box::new(Blob { file, key: self.key, at: 0 }))
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>> {
        match fs::read_dir(self.directory.join(prefix)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            entries => {
                let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
                entries?.map(|entry| Ok(format!("{prefix}{}", name(entry?)))).collect()
            }
        }
    }

    fn delete(&self, name: &str) -> Result<()> {
        match fs::remove_file(self.directory.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn publish(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        let mut writer = self.begin(name)?;
        writer.write_all(bytes)?;
        writer.blob.file.sync_all()?;
        // A second name for a file is made at once or not at all.
        match fs::hard_link(&writer.temporary, &writer.target) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            linked => linked?,
        }
        sync_parents(&writer.target)?;
        Ok(true)
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut hidden = bytes.to_vec();
        apply(self.blob.key, self.blob.at, &mut hidden);
        let written = self.blob.file.write(&hidden)?;
        self.blob.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl BlobWriter for Writer {
    fn finish(self: Box<Self>) -> Result<()> {
        self.blob.file.sync_all()?;
        fs::rename(&self.temporary, &self.target)?;
        Ok(sync_parents(&self.target)?)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.temporary);
    }
}

impl Read for Blob {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(bytes)?;
        apply(self.key, self.at, bytes.get_mut(..read).unwrap_or_default());
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Blob {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = self.file.seek(to)?;
        Ok(self.at)
    }
}
