//! What a user writes for a storage of their own: named blobs.

use std::io::{Read, Seek, Write};

use crate::error::Result;

/// Named blobs in one place: all that a storage of the user's own has to give.
///
/// A name has parts between slashes, like a relative path: each part has at most 208 bytes of
/// `a-z`, `0-9`, `-` and `_`, and never begins with a slash. A name is written once and never again
/// after it was deleted, except by [`publish`](Self::publish). A blob is never changed.
///
/// All methods may be called by several threads at once, and block.
pub trait CustomAccess: Send + Sync {
    /// Begins a blob. Nobody can open or list it before [`finish`](BlobWriter::finish).
    ///
    /// # Errors
    /// `Full` or `Unavailable` as the place answers.
    fn create(&self, name: &str) -> Result<Box<dyn BlobWriter>>;

    /// Opens a finished blob.
    ///
    /// # Errors
    /// `NotFound` when there is none of this name; `Unavailable` as the place answers.
    fn open(&self, name: &str) -> Result<Box<dyn BlobReader>>;

    /// The whole names of all finished blobs that begin with `prefix`, which ends in a slash, in
    /// any order. A blob that was finished before the call is in it.
    ///
    /// # Errors
    /// `Unavailable` as the place answers.
    fn list(&self, prefix: &str) -> Result<Vec<String>>;

    /// Removes a blob; one that is not there is no error.
    ///
    /// # Errors
    /// `Unavailable` as the place answers.
    fn delete(&self, name: &str) -> Result<()>;

    /// Makes a small blob of `bytes` at once: whole, durable, and only when there is none of this
    /// name. True when it was made; false when there was one, which stays. Of several that publish
    /// one name at once, in whatever processes, one gets true.
    ///
    /// # Errors
    /// `Full` or `Unavailable` as the place answers; the blob may be there then.
    fn publish(&self, name: &str, bytes: &[u8]) -> Result<bool>;
}

/// A blob that is being written. Dropped without [`finish`](Self::finish) it leaves nothing.
pub trait BlobWriter: Write + Send {
    /// Makes the blob durable and visible under its name.
    ///
    /// # Errors
    /// `Full` or `Unavailable` as the place answers.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// A blob that is being read, from any position.
pub trait BlobReader: Read + Seek + Send {}

impl<T: Read + Seek + Send> BlobReader for T {}
