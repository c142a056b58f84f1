//! Streams over blobs: one blob for each stored stream. The newest root names the metadata that a
//! host completed, so that they count all at once and an earlier start completes none.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, BufWriter, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::ids::CheckpointId;
use crate::storage::custom::job::{Actor, lock};
use crate::storage::custom::{BlobReader, BlobWriter};
use crate::storage::sizes::{BUFFER_BYTES, INLINE_BYTES};
use crate::storage::stream::{
    Place, Realm, Stored, StreamLimits, StreamName, StreamSink, StreamSource, StreamStateHandle,
    StreamStore, complete, no_location, not_the_hosts, taken,
};

/// What this start knows of the host's checkpoints.
#[derive(Debug, Default)]
pub(super) struct Hosting {
    initialized: BTreeSet<CheckpointId>,
    /// Metadata that are being written.
    writing: BTreeSet<CheckpointId>,
}

pub(super) struct CustomStreams {
    actor: Arc<Actor>,
}

impl CustomStreams {
    pub(super) fn new(actor: Arc<Actor>) -> Self {
        Self { actor }
    }
}

impl fmt::Debug for CustomStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CustomStreams").field("job", &self.actor.job).finish_non_exhaustive()
    }
}

impl Actor {
    fn realm(&self) -> Realm {
        Realm::new(self.roots.store(), &self.job)
    }

    fn is_hosted(&self, id: CheckpointId) -> bool {
        self.roots.root().hosted.iter().any(|(hosted, _)| *hosted == id)
    }

    /// Takes a host's metadata out of the newest root.
    fn forget_hosted(&self, id: CheckpointId) -> Result<()> {
        self.roots.change(self.attempt, &|root| {
            root.hosted.retain(|(hosted, _)| *hosted != id);
            Ok(())
        })
    }

    /// The blobs of streams that go with checkpoints, those that are `wanted` left out.
    fn streams(&self, wanted: impl Fn(Place, &StreamName) -> bool) -> Result<Vec<String>> {
        let listed = self.blobs.list(&self.names.streams())?;
        let is_unwanted = |name: &String| {
            self.names.stream_name(name).is_some_and(|(place, stream)| !wanted(place, &stream))
        };
        Ok(listed.into_iter().filter(is_unwanted).collect())
    }

    /// Removes the streams of checkpoints that are no longer there.
    ///
    /// # Errors
    /// What the blobs answer to a listing.
    pub(super) fn drop_streams(&self, ids: &[CheckpointId]) -> Result<()> {
        let hosted = self.roots.root().hosted;
        let is_hosted = |id: CheckpointId| hosted.iter().any(|(hosted, _)| *hosted == id);
        let goes = |id: CheckpointId| ids.contains(&id) && !is_hosted(id);
        let wanted = |place: Place, _: &StreamName| !place.checkpoint().is_some_and(goes);
        self.remove(self.streams(wanted)?);
        Ok(())
    }

    /// Removes what earlier starts left of checkpoints that are not complete, and gives the highest
    /// checkpoint that has a stream.
    ///
    /// # Errors
    /// What the blobs answer to a listing.
    pub(super) fn clean_streams(&self) -> Result<CheckpointId> {
        let root = self.roots.root();
        let is_live = |id: CheckpointId| root.live.iter().any(|(live, _)| *live == id);
        let hosted = |id: CheckpointId| root.hosted.iter().find(|(hosted, _)| *hosted == id);
        let highest = std::cell::Cell::new(CheckpointId::default());
        let wanted = |place: Place, name: &StreamName| {
            highest.set(highest.get().max(place.checkpoint().unwrap_or_default()));
            match place {
                Place::Exclusive(id) => is_live(id) || hosted(id).is_some(),
                Place::Metadata(id) => hosted(id).is_some_and(|(_, stored)| stored.name == *name),
                Place::Shared | Place::TaskOwned => true,
            }
        };
        self.remove(self.streams(wanted)?);
        Ok(highest.get())
    }
}

impl StreamStore for CustomStreams {
    fn realm(&self) -> Realm {
        self.actor.realm()
    }

    fn limits(&self) -> StreamLimits {
        StreamLimits {
            inline: INLINE_BYTES,
            metadata_inline: None,
            buffer: BUFFER_BYTES,
            most: self.actor.max_state_size,
        }
    }

    fn begin(&self, place: Place) -> Result<(StreamName, Box<dyn StreamSink>)> {
        let actor = &self.actor;
        if let Place::Metadata(id) = place {
            let mut hosting = lock(&actor.hosting);
            if actor.is_hosted(id) || hosting.writing.contains(&id) {
                return Err(taken(id));
            }
            if !hosting.initialized.contains(&id) {
                return Err(no_location(id));
            }
            hosting.writing.insert(id);
        }
        let name = StreamName::draw(actor.realm(), place);
        let mut sink = BlobSink {
            actor: Arc::clone(actor),
            place,
            name,
            out: None,
            progress: Progress::Begun,
        };
        let out = actor.blobs.create(&actor.names.stream(place, &name))?;
        sink.out = Some(BufWriter::with_capacity(BUFFER_BYTES, out));
        Ok((name, Box::new(sink)))
    }

    fn read(&self, stream: &Stored) -> Result<Box<dyn StreamSource>> {
        let name = self.actor.names.stream(stream.place, &stream.name);
        let reader = self.actor.blobs.open(&name)?;
        Ok(Box::new(BlobSource { reader, name }))
    }

    fn remove(&self, stream: &Stored) -> Result<()> {
        if let Place::Metadata(id) = stream.place {
            let hosted = self.actor.roots.root().hosted;
            if hosted.iter().any(|(_, stored)| stored == stream) {
                self.actor.forget_hosted(id)?;
            }
        }
        self.actor.blobs.delete(&self.actor.names.stream(stream.place, &stream.name))
    }

    fn initialize(&self, id: CheckpointId) -> Result<()> {
        let actor = &self.actor;
        actor.roots.change(actor.attempt, &|root| {
            let is_complete = root.live.iter().any(|(live, _)| *live == id)
                || root.hosted.iter().any(|(hosted, _)| *hosted == id);
            if is_complete {
                return Err(complete(id));
            }
            root.checkpoint_max = root.checkpoint_max.max(id);
            Ok(())
        })?;
        lock(&actor.hosting).initialized.insert(id);
        Ok(())
    }

    fn dispose(&self, id: CheckpointId) -> Result<()> {
        let actor = &self.actor;
        if actor.is_live(id) {
            return Err(not_the_hosts(id));
        }
        if actor.is_hosted(id) {
            actor.forget_hosted(id)?;
        }
        lock(&actor.hosting).initialized.remove(&id);
        // CRASH: nobody knows the blobs any more, and the next start removes them.
        actor.drop_streams(&[id])
    }

    fn completed(&self) -> Result<Vec<(CheckpointId, StreamStateHandle)>> {
        let mut hosted = self.actor.roots.root().hosted;
        let hosting = lock(&self.actor.hosting);
        // What the root names may still be taken back by its writer.
        hosted.retain(|(id, _)| !hosting.writing.contains(id));
        hosted.sort_by_key(|(id, _)| *id);
        let handle = |stored| StreamStateHandle::new(stored, None);
        Ok(hosted.into_iter().map(|(id, stored)| (id, handle(stored))).collect())
    }
}

/// One stream as a blob while it is written.
struct BlobSink {
    actor: Arc<Actor>,
    place: Place,
    name: StreamName,
    out: Option<BufWriter<Box<dyn BlobWriter>>>,
    progress: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Begun,
    /// The blob may be there, and the newest root may name it.
    Published,
    Settled,
}

impl BlobSink {
    fn out(&mut self) -> Result<&mut BufWriter<Box<dyn BlobWriter>>> {
        self.out.as_mut().ok_or_else(|| Error::internal("a finished blob is written to"))
    }
}

impl StreamSink for BlobSink {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.out()?.write_all(bytes)?)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(self.out()?.flush()?)
    }

    /// A blob is durable once it is finished, and not before.
    fn sync(&mut self) -> Result<()> {
        self.flush()
    }

    fn publish(&mut self, handle: &StreamStateHandle) -> Result<()> {
        self.flush()?;
        let Some(out) = self.out.take() else {
            return Err(Error::internal("a blob is finished twice"));
        };
        self.progress = Progress::Published;
        let (out, _) = out.into_parts();
        out.finish()?;
        let Place::Metadata(id) = self.place else { return Ok(()) };
        let stored = *handle.stored();
        self.actor.roots.change(self.actor.attempt, &|root| {
            let others = root.hosted.iter().find(|(hosted, _)| *hosted == id);
            let is_live = root.live.iter().any(|(live, _)| *live == id);
            if is_live || others.is_some_and(|(_, other)| *other != stored) {
                return Err(taken(id));
            }
            root.hosted.retain(|(hosted, _)| *hosted != id);
            root.hosted.push((id, stored));
            Ok(())
        })
    }

    fn settle(&mut self) {
        self.progress = Progress::Settled;
    }
}

impl Drop for BlobSink {
    fn drop(&mut self) {
        if let Some(out) = self.out.take() {
            // What is buffered goes nowhere.
            drop(out.into_parts());
        }
        if self.progress == Progress::Published {
            let (actor, place) = (&self.actor, self.place);
            let hosted = actor.roots.root().hosted;
            if let Some((id, _)) = hosted.iter().find(|(_, stored)| stored.name == self.name)
                && let Err(error) = actor.forget_hosted(*id)
            {
                tracing::warn!(%error, %id, "metadata that were given up may still be named");
            }
            actor.remove([actor.names.stream(place, &self.name)]);
        }
        if let Place::Metadata(id) = self.place {
            lock(&self.actor.hosting).writing.remove(&id);
        }
    }
}

struct BlobSource {
    reader: Box<dyn BlobReader>,
    name: String,
}

impl StreamSource for BlobSource {
    fn read_up_to_at(&mut self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let reader = &mut self.reader;
        reader.seek(SeekFrom::Start(offset))?;
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match reader.read(rest) {
                Ok(0) => break,
                Ok(read) => done = done.saturating_add(read),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn len(&mut self) -> io::Result<u64> {
        self.reader.seek(SeekFrom::End(0))
    }

    fn place(&self) -> (PathBuf, u64) {
        (PathBuf::from(&self.name), 0)
    }
}
