//! A disk in memory, and maps of an index on it: what is written, what is durable, and what a kill or a
//! power cut leaves of both. They decide nothing: what survives is their caller's choice.

mod disk;
mod file;
mod index;

pub(super) use disk::{Cut, MemoryDisk};
pub(super) use file::MemoryFile;
pub(super) use index::{IndexEnd, MemoryIndexes};
