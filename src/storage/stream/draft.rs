//! A stream that is being written: bytes held back until it is clear that they need a place.
//!
//! Every way out but a commit removes what was made. What lies beyond the storage's maximum is
//! counted and not kept.

use std::fmt;
use std::sync::Arc as Shared;

use crate::error::{Error, Result};
use crate::storage::filesystem::random;
use crate::storage::stream::blocks::BlockWriter;
use crate::storage::stream::decision::Decision;
use crate::storage::stream::{
    Place, Stored, StreamLimits, StreamName, StreamSink, StreamStateHandle, StreamStore,
};
use crate::sync::Arc;

pub(super) struct Draft {
    store: Shared<dyn StreamStore>,
    place: Place,
    limits: StreamLimits,
    decision: Arc<Decision>,
    /// Bytes written so far.
    position: u64,
    seed: u64,
    name: StreamName,
    /// What no block holds yet.
    held: Vec<u8>,
    made: Made,
}

/// What the storage has of a stream.
enum Made {
    Nothing,
    /// A place, reserved for metadata, without bytes.
    Reserved(Box<dyn StreamSink>),
    Blocks(BlockWriter),
}

impl Draft {
    /// # Errors
    /// `Conflict` for metadata when there is one already.
    pub(super) fn new(store: Shared<dyn StreamStore>, place: Place) -> Result<Self> {
        let limits = store.limits();
        let seed = random().first_chunk::<8>().map_or(0, |seed| u64::from_le_bytes(*seed));
        let (name, made) = if matches!(place, Place::Metadata(_)) {
            let (name, sink) = store.begin(place)?;
            (name, Made::Reserved(sink))
        } else {
            (StreamName::draw(store.realm(), place), Made::Nothing)
        };
        let decision = Arc::new(Decision::new());
        let held = Vec::new();
        Ok(Self { store, place, limits, decision, position: 0, seed, name, held, made })
    }

    pub(super) fn decision(&self) -> &Arc<Decision> {
        &self.decision
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The most bytes that stay in the handle; `None` when none do.
    fn inline(&self) -> Option<usize> {
        match self.place {
            Place::Metadata(_) => self.limits.metadata_inline,
            _ => Some(self.limits.inline),
        }
    }

    fn is_inline(&self) -> bool {
        self.inline().is_some_and(|most| self.position <= u64::try_from(most).unwrap_or(u64::MAX))
    }

    fn is_above_maximum(&self) -> bool {
        self.limits.most.is_some_and(|most| self.position > most)
    }

    /// Runs one step of an open stream; an error ends the stream.
    fn step<T>(&mut self, step: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let outcome = self.decision.check_open().and_then(|()| step(self));
        if outcome.is_err() {
            self.close();
        }
        outcome
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.step(|this| this.accept(bytes))
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        self.step(|this| match this.stored_so_far()? {
            Some(blocks) => blocks.sink().flush(),
            None => Ok(()),
        })
    }

    pub(super) fn sync(&mut self) -> Result<()> {
        self.step(|this| match this.stored_so_far()? {
            Some(blocks) => blocks.sink().sync(),
            None => Ok(()),
        })
    }

    /// Gives up what was written, unless it is committed.
    pub(super) fn close(&mut self) {
        self.decision.close();
        if !self.decision.is_committed() {
            self.made = Made::Nothing;
        }
        self.held = Vec::new();
    }

    fn accept(&mut self, bytes: &[u8]) -> Result<()> {
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.position = self.position.saturating_add(len);
        if self.is_above_maximum() {
            self.held = Vec::new();
            self.made = Made::Nothing;
            return Ok(());
        }
        if let Made::Blocks(blocks) = &mut self.made {
            return blocks.append(bytes);
        }
        let most = self.limits.buffer.max(self.inline().unwrap_or_default());
        if self.held.len().saturating_add(bytes.len()) <= most {
            self.held.extend_from_slice(bytes);
            return Ok(());
        }
        let blocks = self.blocks()?;
        blocks.append(bytes)
    }

    /// The stream in its place, with all that was held back.
    fn blocks(&mut self) -> Result<&mut BlockWriter> {
        let made = match std::mem::replace(&mut self.made, Made::Nothing) {
            Made::Blocks(blocks) => blocks,
            Made::Reserved(sink) => BlockWriter::new(sink, self.seed),
            Made::Nothing => {
                let (name, sink) = self.store.begin(self.place)?;
                self.name = name;
                BlockWriter::new(sink, self.seed)
            }
        };
        self.made = Made::Blocks(made);
        let Made::Blocks(blocks) = &mut self.made else {
            return Err(Error::internal("a stream lost its place"));
        };
        let held = std::mem::take(&mut self.held);
        blocks.append(&held)?;
        Ok(blocks)
    }

    /// The stream in its place, when it will not lie in its handle.
    fn stored_so_far(&mut self) -> Result<Option<&mut BlockWriter>> {
        let is_stored = !self.is_inline() && !self.is_above_maximum();
        if is_stored { self.blocks().map(Some) } else { Ok(None) }
    }

    /// Commits: `None` when nothing was written and the place needs nothing.
    ///
    /// # Errors
    /// `Closed` when it was committed or closed before, or is closed meanwhile; `Invalid` above the
    /// maximum; or what the storage answers. Nothing is left then.
    pub(super) fn commit(&mut self) -> Result<Option<StreamStateHandle>> {
        self.decision.check_open().inspect_err(|_| self.close())?;
        let prepared = self.prepare();
        // CRASH: what was published lies in the storage and nobody has its handle.
        let decided = prepared.and_then(|handle| self.decision.commit().map(|()| handle));
        match decided {
            Ok(handle) => {
                match std::mem::replace(&mut self.made, Made::Nothing) {
                    Made::Nothing => {}
                    Made::Reserved(mut sink) => sink.settle(),
                    Made::Blocks(mut blocks) => blocks.sink().settle(),
                }
                Ok(handle)
            }
            Err(error) => {
                self.close();
                Err(error)
            }
        }
    }

    fn prepare(&mut self) -> Result<Option<StreamStateHandle>> {
        if let Some(most) = self.limits.most.filter(|most| self.position > *most) {
            let size = self.position;
            return Err(Error::invalid(format!(
                "a stream has {size} bytes, the most in this storage is {most}; raise the maximum or \
                 keep checkpoints in another storage"
            )));
        }
        let is_metadata = matches!(self.place, Place::Metadata(_));
        if self.position == 0 && !is_metadata {
            return Ok(None);
        }
        if self.is_inline() {
            let bytes = std::mem::take(&mut self.held);
            let handle = StreamStateHandle::new(self.stored(), Some(bytes));
            if let Made::Reserved(sink) = &mut self.made {
                sink.publish(&handle)?;
            }
            return Ok(Some(handle));
        }
        let blocks = self.blocks()?;
        blocks.finish()?;
        // The name is final once the stream has its place.
        let handle = StreamStateHandle::new(self.stored(), None);
        let Made::Blocks(blocks) = &mut self.made else {
            return Err(Error::internal("a stream lost its place"));
        };
        blocks.sink().publish(&handle)?;
        Ok(Some(handle))
    }

    fn stored(&self) -> Stored {
        let (realm, place, name) = (self.store.realm(), self.place, self.name);
        Stored { realm, place, name, len: self.position, seed: self.seed }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Stream");
        out.field("place", &self.place).field("position", &self.position);
        out.field("decision", &self.decision).finish_non_exhaustive()
    }
}
