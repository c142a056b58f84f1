//! What the content of a chunk is known by.

/// The first half of the content's BLAKE3 hash. Two chunks of different content do not have the same
/// one, by accident or by intent.
pub(crate) fn digest(content: &[u8]) -> [u8; 16] {
    let hash = blake3::hash(content);
    hash.as_bytes().first_chunk().copied().unwrap_or_default()
}

/// The same of content that comes in parts.
#[derive(Default)]
pub(crate) struct Digester(blake3::Hasher);

impl Digester {
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(&self) -> [u8; 16] {
        self.0.finalize().as_bytes().first_chunk().copied().unwrap_or_default()
    }
}
