//! The streams of one job as files.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::ids::CheckpointId;
use crate::storage::disk::DiskFile;
use crate::storage::filesystem::layout::METADATA;
use crate::storage::filesystem::output::failed;
use crate::storage::filesystem::streams::garbage::garbage_of;
use crate::storage::filesystem::streams::head::host_metadata;
use crate::storage::filesystem::streams::home::StreamHome;
use crate::storage::filesystem::streams::sink::{FileSink, check_free};
use crate::storage::stream::{
    Place, Realm, Stored, StreamLimits, StreamName, StreamSink, StreamSource, StreamStateHandle,
    StreamStore, not_the_hosts, taken,
};

/// Bytes that are copied at a time where a file cannot have a second name.
const COPY_BYTES: usize = 64 * 1024;

#[derive(Debug, Clone)]
pub(in crate::storage::filesystem) struct StreamFiles {
    home: Arc<dyn StreamHome>,
}

impl StreamFiles {
    pub(in crate::storage::filesystem) fn new(home: Arc<dyn StreamHome>) -> Self {
        Self { home }
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        match self.home.disk().remove_file(path) {
            Err(error) if is_missing(&error) => Ok(()),
            other => other.map_err(|error| failed("remove", path, error)),
        }
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        match self.home.disk().sync_dir(dir) {
            Err(error) if is_missing(&error) => Ok(()),
            other => other.map_err(|error| failed("sync", dir, error)),
        }
    }

    fn begin_metadata(&self, id: CheckpointId) -> Result<(StreamName, Box<dyn StreamSink>)> {
        let home = &self.home;
        let reservation = Reservation::take(home, id)?;
        let _order = home.order();
        check_free(&**home, id, &home.paths().metadata(id))?;
        let (name, sink) = FileSink::metadata(Arc::clone(home), id)?;
        Ok((name, Box::new(MetadataSink { sink, reservation, handle: None })))
    }

    /// Copies the bytes of a file into a new one of another place.
    pub(super) fn copy(&self, from: &Path, to: Place) -> Result<StreamName> {
        let file = self.home.disk().open(from).map_err(|error| failed("open", from, error))?;
        let (name, mut sink) = FileSink::create(Arc::clone(&self.home), to)?;
        let mut buffer = vec![0; COPY_BYTES];
        let mut offset = 0;
        loop {
            let read = file
                .read_up_to_at(&mut buffer, offset)
                .map_err(|error| failed("read", from, error))?;
            let bytes = buffer.get(..read).unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            sink.append(bytes)?;
            offset = offset.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        }
        sink.finish_copy()?;
        Ok(name)
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The right to write a checkpoint's metadata, which one stream has at a time.
#[derive(Debug)]
struct Reservation {
    home: Arc<dyn StreamHome>,
    id: CheckpointId,
}

impl Reservation {
    fn take(home: &Arc<dyn StreamHome>, id: CheckpointId) -> Result<Self> {
        let mut hosted = home.hosted();
        if hosted.completed.contains_key(&id) || !hosted.writing.insert(id) {
            return Err(taken(id));
        }
        Ok(Self { home: Arc::clone(home), id })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.home.hosted().writing.remove(&self.id);
    }
}

/// Metadata that are being written; they are listed once they are settled.
struct MetadataSink {
    sink: FileSink,
    reservation: Reservation,
    handle: Option<StreamStateHandle>,
}

impl StreamSink for MetadataSink {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.sink.append(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        self.sink.flush()
    }

    fn sync(&mut self) -> Result<()> {
        self.sink.sync()
    }

    fn publish(&mut self, handle: &StreamStateHandle) -> Result<()> {
        self.handle = Some(handle.clone());
        self.sink.publish(handle)
    }

    fn settle(&mut self) {
        self.sink.settle();
        let Reservation { home, id } = &self.reservation;
        home.hosted().completed.insert(*id, self.handle.take());
    }
}

impl StreamStore for StreamFiles {
    fn realm(&self) -> Realm {
        self.home.realm()
    }

    fn limits(&self) -> StreamLimits {
        let sizes = self.home.sizes();
        StreamLimits {
            inline: sizes.all_inline.map_or(sizes.threshold, |_| usize::MAX),
            metadata_inline: None,
            buffer: sizes.buffer,
            most: sizes.all_inline,
        }
    }

    fn begin(&self, place: Place) -> Result<(StreamName, Box<dyn StreamSink>)> {
        if let Place::Metadata(id) = place {
            return self.begin_metadata(id);
        }
        let (name, sink) = FileSink::create(Arc::clone(&self.home), place)?;
        Ok((name, Box::new(sink)))
    }

    fn read(&self, stream: &Stored) -> Result<Box<dyn StreamSource>> {
        let path = self.home.file(stream.place, &stream.name);
        let file = self.home.disk().open(&path).map_err(|error| failed("open", &path, error))?;
        let base = match stream.place {
            Place::Metadata(id) => {
                let (disk, home) = (self.home.disk(), &self.home);
                let head = host_metadata(&**disk, &path, home.store(), home.job(), id)?;
                let same = head.filter(|(handle, _)| handle.stored() == stream);
                let expected = "the metadata of the handle";
                let base = same.map(|(_, base)| base);
                base.ok_or_else(|| Error::corrupt(&path, 0, "_metadata", expected, "others"))?
            }
            _ => 0,
        };
        Ok(Box::new(FileSource { path, file, base }))
    }

    fn remove(&self, stream: &Stored) -> Result<()> {
        let path = self.home.file(stream.place, &stream.name);
        let Place::Metadata(id) = stream.place else { return self.remove_file(&path) };
        let _order = self.home.order();
        let known = self.home.hosted().completed.get(&id).cloned().flatten();
        if known.is_some_and(|known| known.stored() == stream) {
            self.home.check_newest()?;
            self.remove_file(&path)?;
            // CRASH: before this is durable the metadata may come back whole.
            self.sync_dir(&self.home.dir(stream.place))?;
            self.home.hosted().completed.remove(&id);
        }
        Ok(())
    }

    fn initialize(&self, id: CheckpointId) -> Result<()> {
        self.home.make_location(id)
    }

    fn dispose(&self, id: CheckpointId) -> Result<()> {
        let home = &*self.home;
        let _order = home.order();
        home.check_newest()?;
        if home.is_live(id) {
            return Err(not_the_hosts(id));
        }
        home.release_location(id)?;
        let dir = home.paths().checkpoint(id);
        if home.hosted().completed.contains_key(&id) {
            self.remove_file(&dir.join(METADATA))?;
            // CRASH: before this is durable the checkpoint may come back whole, for none of its
            // streams is touched; after it they are removed by the next start.
            self.sync_dir(&dir)?;
            home.hosted().completed.remove(&id);
        }
        let names = match home.disk().list(&dir) {
            Err(error) if is_missing(&error) => return Ok(()),
            other => other.map_err(|error| failed("list", &dir, error))?,
        };
        let mut outcome = Ok(());
        for name in garbage_of(&names, home.realm(), id, None) {
            outcome = outcome.and(self.remove_file(&dir.join(name)));
        }
        outcome.and(home.remove_location(id))
    }

    fn completed(&self) -> Result<Vec<(CheckpointId, StreamStateHandle)>> {
        let hosted = self.home.hosted();
        let handles = hosted.completed.iter();
        Ok(handles.filter_map(|(id, handle)| Some((*id, handle.clone()?))).collect())
    }

    fn can_duplicate(&self) -> bool {
        true
    }

    fn duplicate(&self, stream: &Stored, to: Place) -> Result<StreamName> {
        let from = self.home.file(stream.place, &stream.name);
        let name = StreamName::draw(self.home.realm(), to);
        let target = self.home.file(to, &name);
        match self.home.disk().hard_link(&from, &target) {
            Ok(()) => {
                let synced = self.sync_dir(&self.home.dir(to));
                if synced.is_err() {
                    self.remove_file(&target)?;
                }
                synced.map(|()| name)
            }
            // Either of the two may be missing, or the file system has no second names.
            Err(_) => self.copy(&from, to),
        }
    }
}

/// A stream's file while it is read.
#[derive(Debug)]
struct FileSource {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    base: u64,
}

impl StreamSource for FileSource {
    fn read_up_to_at(&mut self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_up_to_at(bytes, self.base.saturating_add(offset))
    }

    fn len(&mut self) -> io::Result<u64> {
        Ok(self.file.len()?.saturating_sub(self.base))
    }

    fn place(&self) -> (PathBuf, u64) {
        (self.path.clone(), self.base)
    }
}
