//! A storage of one's own: blobs that another storage keeps, encrypted on their way. The cipher is a
//! toy that keeps no secret; put a real one in the place of `apply`.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use tidegate::storage::{BlobReader, BlobWriter, CustomAccess, DirectoryBlobs, StorageParameters};
use tidegate::{Error, Result};

/// The factory: `custom:encrypted?directory=DIR&key=NUMBER`.
pub(crate) fn open(parameters: &StorageParameters) -> Result<Arc<dyn CustomAccess>> {
    let wanted = |name| move || Error::invalid(format!("the storage needs {name}"));
    let directory = parameters.get("directory").ok_or_else(wanted("directory"))?;
    let key = parameters.get("key").and_then(|key| key.parse().ok());
    let inner = DirectoryBlobs::new(directory);
    Ok(Arc::new(Encrypted { inner, key: key.ok_or_else(wanted("key=NUMBER"))? }))
}

struct Encrypted<A> {
    inner: A,
    key: u64,
}

/// The toy: each byte is changed by the key and its place.
fn apply(key: u64, at: u64, bytes: &mut [u8]) {
    for (at, byte) in (at..).zip(bytes) {
        *byte ^= (key ^ at).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0];
    }
}

/// A blob on its way in or out, and how far it has come.
struct Blob<B> {
    inner: B,
    key: u64,
    at: u64,
}

impl<A: CustomAccess> CustomAccess for Encrypted<A> {
    fn create(&self, name: &str) -> Result<Box<dyn BlobWriter>> {
        Ok(Box::new(Blob { inner: self.inner.create(name)?, key: self.key, at: 0 }))
    }

    fn open(&self, name: &str) -> Result<Box<dyn BlobReader>> {
        Ok(Box::new(Blob { inner: self.inner.open(name)?, key: self.key, at: 0 }))
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>> {
        self.inner.list(prefix)
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.inner.delete(name)
    }

    fn publish(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        let mut hidden = bytes.to_vec();
        apply(self.key, 0, &mut hidden);
        self.inner.publish(name, &hidden)
    }
}

impl Write for Blob<Box<dyn BlobWriter>> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut hidden = bytes.to_vec();
        apply(self.key, self.at, &mut hidden);
        let written = self.inner.write(&hidden)?;
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl BlobWriter for Blob<Box<dyn BlobWriter>> {
    fn finish(self: Box<Self>) -> Result<()> {
        self.inner.finish()
    }
}

impl Read for Blob<Box<dyn BlobReader>> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        apply(self.key, self.at, bytes.get_mut(..read).unwrap_or_default());
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Blob<Box<dyn BlobReader>> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = self.inner.seek(to)?;
        Ok(self.at)
    }
}
