//! The file layer under the sled store's log and under the file system storage: every call that can
//! fail or be cut short.
//!
//! The real one is std; tests put others in its place. sled does its own I/O and is not under it.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::limits::SMALL_FILE_BYTES_MAX;
use crate::platform::{self, PartsRead};

/// Directories and whole small files.
pub(crate) trait Disk: Debug + Send + Sync {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Makes one directory, which must not be there.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes a file, which must not be there.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file to be written again.
    fn open_to_write(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// The names in a directory, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// A small file's bytes, or `None` when there is no such file.
    fn read_small(&self, path: &Path) -> io::Result<Option<Vec<u8>>>;
    /// Puts `bytes` in the place of a small file, durably: all of them or none.
    fn replace_small(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Gives a file its final name, in the place of one that has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name, which no file may have.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Cuts a file off behind its first `len` bytes.
    fn truncate(&self, path: &Path, len: u64) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// The one path by which two names of a directory are known to be the same.
    fn identity(&self, dir: &Path) -> io::Result<PathBuf> {
        dir.canonicalize()
    }
    /// Whether a file is written under a staging name and renamed: it is there before it is finished.
    fn stages(&self) -> bool {
        true
    }
    /// `NotFound` for a directory that is not there, where making a file in it would not say so.
    fn check_dir(&self, dir: &Path) -> io::Result<()> {
        let _ = dir;
        Ok(())
    }
    /// Makes an empty file, which must not be there.
    fn create_empty(&self, path: &Path) -> io::Result<()> {
        self.create(path).map(drop)
    }
    /// Opens a file that nobody writes any more and that is read again and again.
    fn open_settled(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.open(path)
    }
    /// Makes a whole file at once, durably, where no file is staged.
    fn put(&self, path: &Path, parts: &[&[u8]], how: Put) -> io::Result<()> {
        let _ = (path, parts, how);
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Keeps a file of this name from being made by who may be about to, where there is no staging
    /// file that could be taken from them. A file that is there stays.
    fn fence(&self, path: &Path) -> io::Result<()> {
        let _ = path;
        Ok(())
    }
    /// Gives a finished file its final name; where nothing is staged, no file may have it.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.rename(from, to)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
    /// The file whose lock keeps other processes out, made if it is missing; `None` on a disk that no
    /// other process sees.
    fn lock_file(&self, path: &Path) -> io::Result<Option<File>> {
        let mut options = platform::private_file();
        options.read(true).write(true).create(true).truncate(false).open(path).map(Some)
    }
}

/// What becomes of a file that has the name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    /// There must be none.
    New,
    /// It is replaced.
    Again,
}

/// One open file.
pub(crate) trait DiskFile: Debug + Send + Sync {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Reads until `bytes` is full or the file ends.
    fn read_up_to_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// The same into two buffers, one behind the other.
    fn read_parts_at(
        &self,
        head: &mut [u8],
        body: &mut [u8],
        offset: u64,
    ) -> io::Result<PartsRead> {
        let mut read = PartsRead { len: self.read_up_to_at(head, offset)?, waited: false };
        if read.len == head.len() {
            read.len += self.read_up_to_at(body, offset.saturating_add(read.len as u64))?;
        }
        Ok(read)
    }
    /// Says that these bytes are read soon; they are fetched meanwhile where the system can.
    fn will_need(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }
    fn sync_data(&self) -> io::Result<()>;
    /// Makes a file that was written from its start to its end whole and durable.
    fn finish(&self) -> io::Result<()> {
        self.sync_data()
    }
    fn set_len(&self, len: u64) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    /// Reserves the first `len` bytes; the file may grow to that length.
    fn preallocate(&self, len: u64) -> io::Result<()>;
    /// The next reads come from the disk, and not from what the machine believes to be there.
    fn discard_cache(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The machine's file system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        platform::create_private_dir_all(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        platform::create_private_dir(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = platform::private_file().read(true).write(true).create_new(true).open(path)?;
        Ok(Arc::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(File::open(path)?))
    }

    fn open_to_write(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(File::options().read(true).write(true).open(path)?))
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        File::options().write(true).open(path)?.set_len(len)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = fs::read_dir(dir)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn read_small(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut bytes = Vec::new();
        file.take(SMALL_FILE_BYTES_MAX as u64).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn replace_small(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temporary = path.with_extension("tmp");
        let mut options = platform::private_file();
        let mut file = options.write(true).create(true).truncate(true).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        // CRASH: before the rename the old file stands and the temporary one is overwritten next
        // time; after it the new one stands.
        fs::rename(&temporary, path)?;
        path.parent().map_or(Ok(()), platform::sync_dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        platform::sync_dir(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        platform::free_bytes(dir)
    }
}

impl DiskFile for File {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        platform::write_all_at(self, bytes, offset)
    }

    fn read_up_to_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        platform::read_up_to_at(self, bytes, offset)
    }

    fn read_parts_at(
        &self,
        head: &mut [u8],
        body: &mut [u8],
        offset: u64,
    ) -> io::Result<PartsRead> {
        platform::read_parts_at(self, head, body, offset)
    }

    fn will_need(&self, offset: u64, len: u64) {
        platform::will_need(self, offset, len);
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        platform::preallocate(self, len)
    }

    fn discard_cache(&self) -> io::Result<()> {
        platform::discard_cache(self)
    }
}
