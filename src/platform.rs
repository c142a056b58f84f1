//! What differs by platform, in one file: space ahead of a file, free space, private permissions,
//! directory syncs, positioned I/O and the bytes of
//! paths.
//!
//! Linux carries every promise of the crate. Elsewhere a call that the system lacks does nothing
//! and says so in its documentation.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// Makes a rename, creation or removal in `path` durable. Does nothing on Windows, which has no
/// such call.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(path)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Makes one directory, for the owner alone on Unix; it must not be there.
pub(crate) fn create_private_dir(path: &Path) -> io::Result<()> {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "permissions are set on Unix only"))]
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Makes a directory and its missing parents, for the owner alone on Unix, and makes each durable.
pub(crate) fn create_private_dir_all(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_private_dir_all(parent)?;
    match create_private_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        other => other,
    }?;
    sync_dir(parent)
}

/// Options that make new files readable by the owner alone, on Unix.
pub(crate) fn private_file() -> OpenOptions {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "permissions are set on Unix only"))]
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Has what is in the page cache of a file read from the disk the next time, where that can be asked for.
pub(crate) fn discard_cache(file: &File) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{Advice, fadvise};
        fadvise(file, 0, None, Advice::DontNeed)?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
    Ok(())
}

/// Reserves blocks for the first `len` bytes and lets the file grow to that length. Does nothing
/// where the system or the file system has no such call.
pub(crate) fn preallocate(file: &File, len: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::io::Errno;
        match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, len) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (file, len);
        Ok(())
    }
}

/// Bytes that this process may still write under `path`; `u64::MAX` where nobody can tell.
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    #[cfg(unix)]
    {
        let space = rustix::fs::statvfs(path)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        Ok(u64::MAX)
    }
}

/// The bytes of a path: its own on Unix, elsewhere its text with what is no Unicode replaced.
pub(crate) fn path_bytes(path: &Path) -> Cow<'_, [u8]> {
    #[cfg(unix)]
    return Cow::Borrowed(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()));
    #[cfg(not(unix))]
    return Cow::Owned(path.to_string_lossy().into_owned().into_bytes());
}

/// The path of such bytes; `None` when this system has no such path.
pub(crate) fn path_of_bytes(bytes: Vec<u8>) -> Option<PathBuf> {
    #[cfg(unix)]
    let path = Some(<OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes));
    #[cfg(not(unix))]
    let path = String::from_utf8(bytes).ok().map(OsString::from);
    path.map(PathBuf::from)
}

/// Writes all of `bytes` at `offset`.
pub(crate) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::write_all_at(file, bytes, offset);
    #[cfg(windows)]
    {
        let (mut bytes, mut offset) = (bytes, offset);
        while !bytes.is_empty() {
            let written = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
            bytes = bytes.get(written..).unwrap_or_default();
            offset += written as u64;
        }
        Ok(())
    }
}

/// Reads at `offset` until `bytes` is full or the file ends; returns how many bytes were read.
pub(crate) fn read_up_to_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let at = offset.saturating_add(done as u64);
        #[cfg(unix)]
        let read = std::os::unix::fs::FileExt::read_at(file, rest, at);
        #[cfg(windows)]
        let read = std::os::windows::fs::FileExt::seek_read(file, rest, at);
        match read {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Reads at `offset` into `head`, then into `body`, until both are full or the file ends. One call to
/// the system where it has one for both.
pub(crate) fn read_parts_at(
    file: &File,
    head: &mut [u8],
    body: &mut [u8],
    offset: u64,
) -> io::Result<PartsRead> {
    let head_len = head.len();
    let mut read = PartsRead::default();
    #[cfg(target_os = "linux")]
    {
        use rustix::io::{Errno, ReadWriteFlags, preadv, preadv2};

        let mut parts = [io::IoSliceMut::new(head), io::IoSliceMut::new(body)];
        let found = match preadv2(file, &mut parts, offset, ReadWriteFlags::NOWAIT) {
            Err(Errno::AGAIN) => {
                read.waited = true;
                preadv(file, &mut parts, offset)
            }
            // File systems without such reads.
            Err(_) => preadv(file, &mut parts, offset),
            found => found,
        };
        match found {
            Err(Errno::INTR) => {}
            found => read.len = found?,
        }
    }
    // What that call left out, which had to be waited for unless the file ends there.
    if read.len < head_len {
        let rest = head.get_mut(read.len..).unwrap_or_default();
        read.len += read_up_to_at(file, rest, offset.saturating_add(read.len as u64))?;
    }
    let done = read.len.checked_sub(head_len);
    if let Some(rest) = done.and_then(|done| body.get_mut(done..)).filter(|rest| !rest.is_empty()) {
        read.waited = true;
        read.len += read_up_to_at(file, rest, offset.saturating_add(read.len as u64))?;
    }
    Ok(read)
}

/// What [`read_parts_at`] read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PartsRead {
    /// Bytes of both parts.
    pub(crate) len: usize,
    /// The bytes were not in memory, as far as the system says so.
    pub(crate) waited: bool,
}

/// Asks the system to fetch these bytes of a file in the background. Does nothing where it cannot be
/// asked.
pub(crate) fn will_need(file: &File, offset: u64, len: u64) {
    #[cfg(target_os = "linux")]
    {
        // Only a hint: a read that finds nothing fetched fetches it.
        let _refused = rustix::fs::fadvise(
            file,
            offset,
            std::num::NonZeroU64::new(len),
            rustix::fs::Advice::WillNeed,
        );
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, offset, len);
}
