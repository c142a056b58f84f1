//! Which chunks a checkpoint may refer to instead of writing them: pure values, no file is touched.
//!
//! Offered is what the newest checkpoint that shares refers to, and only what this start of the job
//! wrote: an earlier start that does not know of its end could still remove what it wrote. A file of
//! which less than half is referred to is not offered, so that shared files hold at most twice the
//! state. An offered file stays while a checkpoint in progress may take it up.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::ids::CheckpointId;
use crate::record::RecordRef;
use crate::storage::filesystem::layout::ChunkFile;

/// A chunk in a shared file. The digest in its reference is what it is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SharedChunk {
    pub(super) record: RecordRef,
    pub(super) file: ChunkFile,
    pub(super) offset: u64,
    pub(super) len: u32,
}

/// What a new checkpoint may refer to.
#[derive(Debug, Default)]
pub(super) struct Offer {
    chunks: HashMap<([u8; 16], u32), SharedChunk>,
}

impl Offer {
    /// The chunks of those files of which at least half is referred to. `sizes` has the files that
    /// this start wrote.
    fn of(chunks: &[SharedChunk], sizes: &BTreeMap<ChunkFile, u64>) -> Self {
        let mut live = BTreeMap::<ChunkFile, u64>::new();
        let mut seen = BTreeSet::new();
        for chunk in chunks.iter().filter(|chunk| seen.insert(chunk.record.id)) {
            let bytes = live.entry(chunk.file).or_default();
            *bytes = bytes.saturating_add(u64::from(chunk.len));
        }
        let is_dense = |file: &ChunkFile| {
            let live = live.get(file).copied().unwrap_or_default();
            sizes.get(file).is_some_and(|size| live.saturating_mul(2) >= *size)
        };
        let offered = chunks.iter().filter(|chunk| is_dense(&chunk.file));
        let key = |chunk: &SharedChunk| (chunk.record.digest, chunk.record.payload_len);
        Self { chunks: offered.map(|chunk| (key(chunk), *chunk)).collect() }
    }

    /// The chunk with this content.
    pub(super) fn find(&self, digest: [u8; 16], payload_len: u32) -> Option<SharedChunk> {
        self.chunks.get(&(digest, payload_len)).copied()
    }

    fn files(&self) -> BTreeSet<ChunkFile> {
        self.chunks.values().map(|chunk| chunk.file).collect()
    }
}

/// What a job offers, and who may be about to take it up.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    newest: Option<(CheckpointId, Arc<Offer>)>,
    /// The bytes of the shared files that this start wrote and that are still there.
    sizes: BTreeMap<ChunkFile, u64>,
    /// How many checkpoints in progress were offered a file.
    pins: BTreeMap<ChunkFile, u32>,
}

impl Sharing {
    /// What a checkpoint that begins now may refer to. [`give_back`](Self::give_back) ends it.
    pub(super) fn offer(&mut self) -> Arc<Offer> {
        let offer = self.newest.as_ref().map(|(_, offer)| Arc::clone(offer)).unwrap_or_default();
        for file in offer.files() {
            let pins = self.pins.entry(file).or_default();
            *pins = pins.saturating_add(1);
        }
        offer
    }

    /// A checkpoint ended that had this offer. Gives back the files that nobody waits for any more.
    pub(super) fn give_back(&mut self, offer: &Offer) -> Vec<ChunkFile> {
        let mut free = Vec::new();
        for file in offer.files() {
            match self.pins.get_mut(&file) {
                Some(pins) if *pins > 1 => *pins -= 1,
                _ => {
                    self.pins.remove(&file);
                    free.push(file);
                }
            }
        }
        free
    }

    /// A checkpoint that shares is complete: `chunks` is all it refers to in shared files, `made`
    /// the files it wrote with their bytes.
    pub(super) fn completed(
        &mut self,
        id: CheckpointId,
        chunks: &[SharedChunk],
        made: impl IntoIterator<Item = (ChunkFile, u64)>,
    ) {
        self.sizes.extend(made);
        self.newest = Some((id, Arc::new(Offer::of(chunks, &self.sizes))));
    }

    /// A checkpoint was dropped: what it alone refers to is not offered any more.
    pub(super) fn dropped(&mut self, id: CheckpointId) {
        if self.newest.as_ref().is_some_and(|(newest, _)| *newest == id) {
            self.newest = None;
        }
    }

    /// True when no checkpoint in progress may refer to the file.
    pub(super) fn may_go(&self, file: &ChunkFile) -> bool {
        !self.pins.contains_key(file)
    }

    /// A file is gone.
    pub(super) fn forget(&mut self, file: &ChunkFile) {
        self.sizes.remove(file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::filesystem::layout::DataName;

    fn file(number: u8) -> ChunkFile {
        ChunkFile::Shared(CheckpointId(1), DataName([number; 16]))
    }

    fn chunk(id: u64, file: ChunkFile) -> SharedChunk {
        let digest = [u8::try_from(id).unwrap(); 16];
        let record = RecordRef { digest, ..RecordRef::unreadable(id, CheckpointId(1)) };
        SharedChunk { record, file, offset: 0, len: 10 }
    }

    #[test]
    fn only_files_that_are_at_least_half_in_use_are_offered() {
        let sizes = BTreeMap::from([(file(1), 20), (file(2), 21)]);
        let chunks = [chunk(1, file(1)), chunk(2, file(2)), chunk(2, file(2)), chunk(3, file(3))];
        let offer = Offer::of(&chunks, &sizes);
        assert_eq!(offer.find([1; 16], 0), Some(chunk(1, file(1))));
        assert_eq!(offer.find([1; 16], 1), None, "another length");
        assert_eq!(offer.find([2; 16], 0), None, "less than half is in use");
        assert_eq!(offer.find([3; 16], 0), None, "another start wrote it");
    }

    #[test]
    fn an_offered_file_stays_until_every_checkpoint_it_was_offered_to_has_ended() {
        let mut sharing = Sharing::default();
        sharing.completed(CheckpointId(1), &[chunk(1, file(1))], [(file(1), 10)]);
        let (one, two) = (sharing.offer(), sharing.offer());
        sharing.dropped(CheckpointId(1));
        assert!(!sharing.may_go(&file(1)));
        assert!(sharing.offer().find([1; 16], 0).is_none(), "what was dropped is not offered");
        assert!(sharing.give_back(&one).is_empty());
        assert_eq!(sharing.give_back(&two), [file(1)]);
        assert!(sharing.may_go(&file(1)));
    }
}
