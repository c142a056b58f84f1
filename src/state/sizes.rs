//! How large states are.

use serde::Serialize;

/// The size of one state of a subtask. State lies in memory in this version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StateSize {
    /// Its name within the operator.
    pub name: String,
    /// Keys or items.
    pub entries: u64,
    /// Bytes of the tables, without what keys above 22 bytes and values hold on the heap.
    pub memory_bytes: u64,
    /// Bytes of entries that were copied so far because they changed while a checkpoint was being
    /// written: what checkpoints cost in memory, given back as they are written.
    pub copied_bytes: u64,
}
