//! A checkpoint in progress in the fast tier; the thread that copies hears of its completion.

use std::sync::Arc;

use crate::clock::Clock;
use crate::error::Result;
use crate::ids::{CheckpointId, TaskId};
use crate::record::{Node, RecordRef};
use crate::storage::access::{PendingRecords, RecordWriter};
use crate::storage::tiered::bell::Bell;
use crate::storage::tiered::courtesy::{Courtesy, Writing};
use crate::storage::tiered::lag::LagGauge;
use crate::storage::tiered::tiers::DurableTier;
use crate::sync::{AtomicU64, Ordering};

pub(super) struct TieredPending {
    inner: Arc<dyn PendingRecords>,
    id: CheckpointId,
    // Not the tier itself: whoever still has a pending checkpoint must not keep the job from starting.
    bell: Arc<Bell>,
    gauge: Arc<LagGauge>,
    clock: Arc<dyn Clock>,
    courtesy: Courtesy,
    /// Of the chunks of all finished tasks.
    bytes: Arc<AtomicU64>,
}

impl TieredPending {
    pub(super) fn new(
        inner: Arc<dyn PendingRecords>,
        id: CheckpointId,
        durable: &DurableTier,
    ) -> Self {
        let (bell, gauge) = (Arc::clone(&durable.bell), Arc::clone(&durable.gauge));
        let (clock, courtesy) = (Arc::clone(&durable.clock), durable.courtesy.clone());
        Self { inner, id, bell, gauge, clock, courtesy, bytes: Arc::new(AtomicU64::new(0)) }
    }
}

impl PendingRecords for TieredPending {
    fn writer(&self, task: &TaskId) -> Result<Box<dyn RecordWriter>> {
        let (inner, bytes) = (self.inner.writer(task)?, Arc::clone(&self.bytes));
        Ok(Box::new(TieredWriter { inner, bytes, _writing: self.courtesy.writing() }))
    }

    fn commit(&self, node: &Node) -> Result<()> {
        let writing = self.courtesy.writing();
        self.inner.commit(node)?;
        drop(writing);
        self.gauge.completed(self.id, self.bytes.load(Ordering::Acquire), self.clock.now());
        self.bell.ring();
        Ok(())
    }
}

/// Counts what one task refers to.
struct TieredWriter {
    inner: Box<dyn RecordWriter>,
    bytes: Arc<AtomicU64>,
    _writing: Writing,
}

impl RecordWriter for TieredWriter {
    fn chunk_bytes(&self) -> usize {
        self.inner.chunk_bytes()
    }

    fn begin_section(&mut self) {
        self.inner.begin_section();
    }

    fn chunk(&mut self, state: &str, index: u32, body: &[u8]) -> Result<RecordRef> {
        self.inner.chunk(state, index, body)
    }

    fn earlier(&mut self, id: CheckpointId) -> Result<Option<Node>> {
        self.inner.earlier(id)
    }

    fn refer(&mut self, state: &str, chunk: &RecordRef) -> Result<bool> {
        self.inner.refer(state, chunk)
    }

    fn reused_bytes(&self) -> u64 {
        self.inner.reused_bytes()
    }

    fn finish(self: Box<Self>, manifest: &Node) -> Result<RecordRef> {
        let bytes = manifest.refs.iter().map(|chunk| u64::from(chunk.payload_len)).sum();
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        self.inner.finish(manifest)
    }
}
