//! Reading one frame of a file: every length is checked before it is believed, then both checksums.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::record::frame::HEADER_BYTES_MAX;
use crate::record::{Frame, FrameFault, FrameHeader};
use crate::storage::disk::{Disk, DiskFile};

/// A file of frames, open for reading.
#[derive(Debug)]
pub(super) struct FrameFile {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    len: u64,
}

impl FrameFile {
    /// Opens a file; `None` when there is none.
    ///
    /// # Errors
    /// What the disk answers.
    pub(super) fn open(disk: &dyn Disk, path: &Path) -> Result<Option<Self>> {
        Self::of(path, disk.open(path))
    }

    /// The same for a file that nobody writes any more.
    ///
    /// # Errors
    /// What the disk answers.
    pub(super) fn open_settled(disk: &dyn Disk, path: &Path) -> Result<Option<Self>> {
        Self::of(path, disk.open_settled(path))
    }

    fn of(path: &Path, file: io::Result<Arc<dyn DiskFile>>) -> Result<Option<Self>> {
        let failed = |error| Error::io(format!("read {}", path.display()), error);
        let file = match file {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed)?,
        };
        let len = file.len().map_err(failed)?;
        Ok(Some(Self { path: path.to_path_buf(), file, len }))
    }

    /// Bytes of the file.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Wrong bytes in this file.
    pub(super) fn corrupt(
        &self,
        offset: u64,
        what: &'static str,
        expected: impl std::fmt::Display,
        found: impl std::fmt::Display,
    ) -> Error {
        Error::corrupt(&self.path, offset, what, expected, found)
    }

    /// Reads and checks the frame at `offset` into `buffer`, which is overwritten.
    ///
    /// # Errors
    /// `Corrupt` when there is no whole frame, `Incompatible` when a newer release wrote it.
    pub(super) fn frame<'a>(
        &self,
        offset: u64,
        what: &'static str,
        buffer: &'a mut Vec<u8>,
    ) -> Result<Frame<'a>> {
        let header_max = u64::try_from(HEADER_BYTES_MAX).unwrap_or(u64::MAX);
        let there = self.len.saturating_sub(offset);
        self.read(offset, there.min(header_max), buffer)?;
        let len = FrameHeader::decode(buffer)
            .map_err(|fault| self.fault(offset, what, &fault))?
            .frame_len();
        if len > there {
            let found = format!("{there} up to the end of the file");
            return Err(self.corrupt(offset, what, format!("{len} bytes"), found));
        }
        self.read(offset, len, buffer)?;
        Frame::decode(buffer).map_err(|fault| self.fault(offset, what, &fault))
    }

    /// Reads `len` bytes, of which the file has as many.
    fn read(&self, offset: u64, len: u64, buffer: &mut Vec<u8>) -> Result<()> {
        let len = usize::try_from(len).map_err(|_| Error::invalid(format!("{len} bytes")))?;
        buffer.clear();
        buffer.resize(len, 0);
        let read = match self.file.read_up_to_at(buffer, offset) {
            // An object may be removed while it is open.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(self.corrupt(offset, "file", "a file", "none"));
            }
            read => {
                read.map_err(|error| Error::io(format!("read {}", self.path.display()), error))?
            }
        };
        if read != len {
            let found = format!("{read} bytes");
            return Err(self.corrupt(offset, "file", format!("{len} bytes"), found));
        }
        Ok(())
    }

    fn fault(&self, offset: u64, what: &'static str, fault: &FrameFault) -> Error {
        match fault {
            FrameFault::Version(_) => {
                let message = format!("{} has {fault}", self.path.display());
                Error::new(ErrorKind::Incompatible, message)
            }
            FrameFault::HeaderChecksum { expected, found } => {
                let [expected, found] = [expected, found].map(|crc| format!("header {crc:08x}"));
                self.corrupt(offset, what, expected, found)
            }
            FrameFault::PayloadChecksum { expected, found } => {
                let [expected, found] = [expected, found].map(|crc| format!("payload {crc:08x}"));
                self.corrupt(offset, what, expected, found)
            }
            other => self.corrupt(offset, what, "a whole frame", other),
        }
    }
}
