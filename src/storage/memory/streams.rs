//! Streams in memory: the bytes lie in the handles, and the store lists completed metadata.

use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::storage::memory::job::Actor;
use crate::storage::stream::{
    Place, Realm, Stored, StreamLimits, StreamName, StreamSink, StreamSource, StreamStateHandle,
    StreamStore, complete, no_location, not_the_hosts, taken,
};

#[derive(Debug)]
pub(super) struct MemoryStreams {
    actor: Actor,
}

impl MemoryStreams {
    pub(super) fn new(actor: Actor) -> Self {
        Self { actor }
    }
}

impl Actor {
    /// Looks at or changes the host's checkpoints, as the newest start.
    fn with_hosted<T>(
        &self,
        change: impl FnOnce(&mut super::store::JobFacts) -> Result<T>,
    ) -> Result<T> {
        self.store.with_job(&self.job, |facts| {
            if facts.attempt_max != self.attempt {
                let (attempt, now) = (self.attempt, facts.attempt_max);
                let message = format!("this is attempt {attempt} of a job that is at {now} now");
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            change(facts)
        })
    }
}

impl StreamStore for MemoryStreams {
    fn realm(&self) -> Realm {
        Realm::new(self.actor.store.id(), &self.actor.job)
    }

    fn limits(&self) -> StreamLimits {
        StreamLimits {
            inline: usize::MAX,
            metadata_inline: Some(usize::MAX),
            buffer: 0,
            most: Some(self.actor.max_state_size),
        }
    }

    fn begin(&self, place: Place) -> Result<(StreamName, Box<dyn StreamSink>)> {
        let Place::Metadata(id) = place else {
            return Err(Error::internal("a stream in memory needs no place"));
        };
        self.actor.with_hosted(|facts| {
            if !facts.initialized.contains(&id) {
                return Err(no_location(id));
            }
            let is_complete = facts.stored().iter().any(|stored| stored.id == id);
            let is_free =
                !is_complete && !facts.hosted.contains_key(&id) && facts.writing.insert(id);
            if is_free { Ok(()) } else { Err(taken(id)) }
        })?;
        let name = StreamName::draw(self.realm(), place);
        Ok((name, Box::new(MetadataSink { actor: self.actor.clone(), id, handle: None })))
    }

    fn read(&self, stream: &Stored) -> Result<Box<dyn StreamSource>> {
        let message = format!("nothing is stored in memory beside the handles: {stream:?}");
        Err(Error::new(ErrorKind::NotFound, message))
    }

    fn remove(&self, stream: &Stored) -> Result<()> {
        let Place::Metadata(id) = stream.place else { return Ok(()) };
        self.actor.with_hosted(|facts| {
            if facts.hosted.get(&id).is_some_and(|known| known.stored() == stream) {
                facts.hosted.remove(&id);
            }
            Ok(())
        })
    }

    fn initialize(&self, id: CheckpointId) -> Result<()> {
        self.actor.with_hosted(|facts| {
            let is_complete = facts.stored().iter().any(|stored| stored.id == id);
            if is_complete || facts.hosted.contains_key(&id) {
                return Err(complete(id));
            }
            facts.checkpoint_max = facts.checkpoint_max.max(id);
            facts.initialized.insert(id);
            Ok(())
        })
    }

    fn dispose(&self, id: CheckpointId) -> Result<()> {
        self.actor.with_hosted(|facts| {
            if facts.stored().iter().any(|stored| stored.id == id) {
                return Err(not_the_hosts(id));
            }
            facts.initialized.remove(&id);
            facts.hosted.remove(&id);
            Ok(())
        })
    }

    fn completed(&self) -> Result<Vec<(CheckpointId, StreamStateHandle)>> {
        let all = |facts: &mut super::store::JobFacts| facts.hosted.clone();
        Ok(self.actor.store.with_job(&self.actor.job, all).into_iter().collect())
    }
}

/// Metadata that are being written; they are listed once they are settled.
struct MetadataSink {
    actor: Actor,
    id: CheckpointId,
    handle: Option<StreamStateHandle>,
}

impl StreamSink for MetadataSink {
    fn append(&mut self, _: &[u8]) -> Result<()> {
        Err(Error::internal("metadata in memory lie in their handle"))
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        Ok(())
    }

    fn publish(&mut self, handle: &StreamStateHandle) -> Result<()> {
        self.handle = Some(handle.clone());
        self.actor.with_hosted(|facts| {
            if facts.initialized.contains(&self.id) { Ok(()) } else { Err(taken(self.id)) }
        })
    }

    fn settle(&mut self) {
        let (id, handle) = (self.id, self.handle.take());
        self.actor
            .store
            .with_job(&self.actor.job, |facts| facts.hosted.extend(handle.map(|h| (id, h))));
    }
}

impl Drop for MetadataSink {
    fn drop(&mut self) {
        self.actor.store.with_job(&self.actor.job, |facts| facts.writing.remove(&self.id));
    }
}
