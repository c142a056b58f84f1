//! Records that are written twice at once: with the job's checkpoints, and as a savepoint beside.
//!
//! The savepoint that a job stops with is what its next start goes on from, so the job's own storage
//! has it too. Must never complete the job's own before the other is complete.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::ids::TaskId;
use crate::record::{Node, RecordRef};
use crate::storage::access::{PendingRecords, RecordWriter};

/// The manifest in the savepoint, by the one in the job's storage.
type Manifests = Arc<Mutex<BTreeMap<u64, RecordRef>>>;

/// A checkpoint in progress in two places.
pub(super) struct TeePending {
    own: Arc<dyn PendingRecords>,
    beside: Arc<dyn PendingRecords>,
    manifests: Manifests,
}

fn lock(manifests: &Manifests) -> MutexGuard<'_, BTreeMap<u64, RecordRef>> {
    manifests.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TeePending {
    pub(super) fn new(own: Arc<dyn PendingRecords>, beside: Arc<dyn PendingRecords>) -> Self {
        Self { own, beside, manifests: Manifests::default() }
    }
}

impl PendingRecords for TeePending {
    fn writer(&self, task: &TaskId) -> Result<Box<dyn RecordWriter>> {
        Ok(Box::new(TeeWriter {
            own: self.own.writer(task)?,
            beside: self.beside.writer(task)?,
            chunks: Vec::new(),
            manifests: Arc::clone(&self.manifests),
        }))
    }

    fn commit(&self, node: &Node) -> Result<()> {
        let beside = {
            let manifests = lock(&self.manifests);
            let beside = |own: &RecordRef| {
                manifests
                    .get(&own.id)
                    .copied()
                    .ok_or_else(|| Error::internal(format!("manifest {} was not written", own.id)))
            };
            node.refs.iter().map(beside).collect::<Result<Vec<_>>>()?
        };
        self.beside.commit(&Node { refs: beside, body: node.body.clone() })?;
        // CRASH: a savepoint is there that the job does not know of; it goes on from what it knows.
        self.own.commit(node)
    }
}

struct TeeWriter {
    own: Box<dyn RecordWriter>,
    beside: Box<dyn RecordWriter>,
    /// The chunks in the savepoint, in order.
    chunks: Vec<RecordRef>,
    manifests: Manifests,
}

impl RecordWriter for TeeWriter {
    fn chunk_bytes(&self) -> usize {
        self.own.chunk_bytes()
    }

    fn begin_section(&mut self) {
        self.beside.begin_section();
        self.own.begin_section();
    }

    fn chunk(&mut self, state: &str, index: u32, body: &[u8]) -> Result<RecordRef> {
        self.chunks.push(self.beside.chunk(state, index, body)?);
        self.own.chunk(state, index, body)
    }

    fn finish(self: Box<Self>, manifest: &Node) -> Result<RecordRef> {
        let Self { own, beside, chunks, manifests } = *self;
        let beside = beside.finish(&Node { refs: chunks, body: manifest.body.clone() })?;
        let own = own.finish(manifest)?;
        lock(&manifests).insert(own.id, beside);
        Ok(own)
    }
}
