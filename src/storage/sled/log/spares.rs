//! Dead segments that are written again: a file that has its blocks is written and synced faster than one
//! that grows.
//!
//! A spare has a name of its own and is no part of the log. It gets its new header and base, durably,
//! before it gets its new name: under the name of a segment no other segment's header ever stands. What it
//! held before carries another incarnation and is the end of every scan.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::record::frame::HEADER_BYTES_MAX;
use crate::record::{FrameHeader, FrameKind};
use crate::storage::disk::{Disk, DiskFile};
use crate::storage::sled::log::{parse_segment_name, segment_name};

/// How many are kept.
const SPARES_MAX: usize = 2;

const EXTENSION: &str = "spare";

/// The spares of an open log.
#[derive(Debug)]
pub(crate) struct Spares {
    log: PathBuf,
    disk: Arc<dyn Disk>,
    files: Mutex<Vec<PathBuf>>,
}

/// A spare that is about to become a segment.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) len: u64,
    path: PathBuf,
}

impl Spares {
    /// Those that the last process left; what is too much is removed, and what is not the segment of its
    /// name: it was about to become another one, whose number may be given again.
    pub(crate) fn find(log: &Path, disk: &Arc<dyn Disk>) -> Self {
        let names = disk.list(log).unwrap_or_default();
        let paths = names.iter().map(|name| log.join(name));
        let (mut files, mut others): (Vec<PathBuf>, Vec<PathBuf>) = paths
            .filter(|path| path.extension().is_some_and(|extension| extension == EXTENSION))
            .partition(|path| is_what_it_was(&**disk, path));
        others.extend(files.drain(files.len().min(SPARES_MAX)..));
        for path in &others {
            remove(&**disk, path);
        }
        Self { log: log.to_owned(), disk: Arc::clone(disk), files: Mutex::new(files) }
    }

    /// The highest number of a segment that one of them was. No later segment may have it: what the
    /// spare holds behind a new beginning would be that segment's own.
    pub(crate) fn highest(&self) -> u64 {
        self.files().iter().filter_map(|path| number_of(path)).max().unwrap_or(0)
    }

    fn files(&self) -> std::sync::MutexGuard<'_, Vec<PathBuf>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a dead segment out of the log: as a spare if it is at least `len` bytes long and fewer than
    /// `most` wait, else for good.
    pub(crate) fn retire(&self, number: u64, len: u64, most: usize) {
        let path = self.log.join(segment_name(number));
        let mut files = self.files();
        let is_long = || self.disk.open(&path).and_then(|file| file.len()).is_ok_and(|l| l >= len);
        let spare = path.with_extension(EXTENSION);
        // CRASH: before the new name is durable the old one may be back; the next open finds nothing
        // in the segment that lives.
        if files.len() < most.min(SPARES_MAX)
            && is_long()
            && self.disk.rename(&path, &spare).is_ok()
        {
            files.push(spare);
            return;
        }
        drop(files);
        remove(&*self.disk, &path);
    }

    /// Removes all but so many.
    pub(crate) fn trim(&self, most: usize) {
        let surplus = {
            let mut files = self.files();
            let from = files.len().min(most);
            files.split_off(from)
        };
        for path in &surplus {
            remove(&*self.disk, path);
        }
    }

    /// A spare to be written from its beginning. Nobody else has it from here on.
    ///
    /// # Errors
    /// `Poisoned` when the log directory could not be synced: other new names in it may be lost, too.
    pub(crate) fn take(&self) -> Result<Option<Spare>> {
        let Some(path) = self.files().pop() else { return Ok(None) };
        // CRASH: the segment that it was must not come back with another one's header.
        self.disk.sync_dir(&self.log).map_err(|error| {
            let message = "syncing the log directory failed";
            Error::new(ErrorKind::Poisoned, message).with_source(error)
        })?;
        let file = self.disk.open_to_write(&path);
        let opened = file.and_then(|file| Ok((file.len()?, file)));
        if let Ok((len, file)) = opened {
            return Ok(Some(Spare { file, len, path }));
        }
        remove(&*self.disk, &path);
        Ok(None)
    }

    /// Names a spare whose new beginning is durable.
    ///
    /// # Errors
    /// What the disk answers.
    pub(crate) fn name(&self, spare: &Spare, segment: &Path) -> Result<()> {
        self.disk
            .rename(&spare.path, segment)
            .map_err(|error| Error::io(format!("make {}", segment.display()), error))
    }

    /// Removes all spares and returns how many bytes they had.
    pub(crate) fn clear(&self) -> u64 {
        let files = std::mem::take(&mut *self.files());
        let len = |path: &PathBuf| self.disk.open(path).and_then(|file| file.len()).unwrap_or(0);
        let bytes = files.iter().map(len).fold(0, u64::saturating_add);
        for path in &files {
            remove(&*self.disk, path);
        }
        bytes
    }

    /// A spare that could not be written.
    pub(crate) fn give_up(&self, spare: &Spare) {
        remove(&*self.disk, &spare.path);
    }
}

/// The number of the segment that a spare was.
fn number_of(spare: &Path) -> Option<u64> {
    parse_segment_name(spare.with_extension("seg").file_name()?.to_str()?)
}

fn is_what_it_was(disk: &dyn Disk, spare: &Path) -> bool {
    let mut bytes = vec![0; HEADER_BYTES_MAX];
    let read = disk.open(spare).and_then(|file| file.read_up_to_at(&mut bytes, 0));
    bytes.truncate(read.unwrap_or(0));
    FrameHeader::decode(&bytes).is_ok_and(|header| {
        header.kind == FrameKind::Segment && Some(header.incarnation) == number_of(spare)
    })
}

fn remove(disk: &dyn Disk, path: &Path) {
    if let Err(error) = disk.remove_file(path) {
        tracing::warn!(%error, path = %path.display(), "a segment cannot be freed");
    }
}

#[cfg(test)]
mod tests {
    //! Goal: at most two files wait to be written again, under names that are no segment's. Method: files
    //! of chosen lengths.

    use super::*;
    use crate::ids::StoreId;
    use crate::record::{Origin, Payload};
    use crate::storage::disk::RealDisk;

    fn names(log: &Path) -> Vec<String> {
        RealDisk.list(log).unwrap()
    }

    /// A spare under the name of one segment with the header of another.
    fn spare(log: &Path, named: u64, number: u64) {
        let payload = Payload::of(&[]);
        let place = (StoreId([7; 16]), number);
        let origin = Origin::default();
        let header = FrameHeader::first(FrameKind::Segment, place, number, origin, payload);
        let path = log.join(segment_name(named)).with_extension(EXTENSION);
        std::fs::write(path, header.unwrap().frame(&[])).unwrap();
    }

    #[test]
    fn two_long_segments_wait_and_others_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let spares = Spares::find(dir.path(), &disk);
        assert!(spares.take().unwrap().is_none());
        for (number, len) in [(1, 99), (2, 100), (3, 200), (4, 100)] {
            std::fs::write(dir.path().join(segment_name(number)), vec![7; len]).unwrap();
            spares.retire(number, 100, 9);
        }
        assert_eq!(names(dir.path()), ["0000000000000002.spare", "0000000000000003.spare"]);
        let spare = spares.take().unwrap().unwrap();
        assert_eq!(spare.len, 200);
        spare.file.write_all_at(b"new", 0).unwrap();
        let segment = dir.path().join(segment_name(9));
        spares.name(&spare, &segment).unwrap();
        assert_eq!(names(dir.path()), ["0000000000000002.spare", "0000000000000009.seg"]);
        assert_eq!(std::fs::read(segment).unwrap()[..4], *b"new\x07");
        let other = spares.take().unwrap().unwrap();
        spares.give_up(&other);
        assert_eq!(names(dir.path()), ["0000000000000009.seg"]);
    }

    #[test]
    fn what_the_last_process_left_is_used_or_removed() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        for number in 1..=4 {
            spare(dir.path(), number, number);
        }
        spare(dir.path(), 5, 77);
        std::fs::write(dir.path().join("6.spare"), "garbage").unwrap();
        std::fs::write(dir.path().join(segment_name(7)), "segment").unwrap();
        let spares = Spares::find(dir.path(), &disk);
        let [first, second] = ["0000000000000001.spare", "0000000000000002.spare"];
        assert_eq!(names(dir.path()), [first, second, "0000000000000007.seg"]);
        assert_eq!(spares.highest(), 2);
        assert!(spares.take().unwrap().is_some());
        assert!(spares.clear() > 80);
        assert_eq!(names(dir.path()), [second, "0000000000000007.seg"], "it is being written");
        assert!(spares.take().unwrap().is_none());
    }
}
