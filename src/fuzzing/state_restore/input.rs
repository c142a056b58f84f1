//! Sections as an input describes them, and a store of some.

use std::collections::BTreeMap;
use std::io::Read;

use crate::error::{Error, Result};
use crate::ids::CheckpointId;
use crate::state::{SectionBody, SectionKey, SectionKind, SnapshotSink, SnapshotSource};

pub(super) type Sections = Vec<(SectionKey, Vec<u8>)>;

/// The states that an input may name, with the kind that each has; no scope has the last one.
pub(super) const STATES: [(&str, SectionKind); 7] = [
    ("words", SectionKind::Keyed),
    ("json", SectionKind::Keyed),
    ("value", SectionKind::Keyed),
    ("split", SectionKind::Split),
    ("union", SectionKind::Union),
    ("rules", SectionKind::Broadcast),
    ("other", SectionKind::Raw),
];

pub(super) const KINDS: [SectionKind; 12] = [
    SectionKind::Schema,
    SectionKind::Keyed,
    SectionKind::KeyedDelta,
    SectionKind::Split,
    SectionKind::Union,
    SectionKind::Broadcast,
    SectionKind::Raw,
    SectionKind::Channel,
    SectionKind::Position,
    SectionKind::Tokens,
    SectionKind::Finished,
    SectionKind::Watermark,
];

/// Set in the first byte: the subtask is one of two.
pub(super) const HALF: u8 = 1;
/// Set in the first byte: later checkpoints refer to the one of the input.
pub(super) const BASE: u8 = 2;

/// An index from here on counts from the end of all numbers.
const INDEX_END: u16 = 0xfff0;

/// What an input says: a byte of flags, then sections.
pub(super) struct Input {
    pub(super) is_half: bool,
    pub(super) has_base: bool,
    pub(super) sections: Sections,
}

impl Input {
    /// Each section is six bytes, which are state, kind, index and length, and its body. A kind that is
    /// none is that of the state.
    pub(super) fn new(data: &[u8]) -> Self {
        let (flags, mut rest) = data.split_first().unwrap_or((&0, &[]));
        let mut sections = Sections::new();
        while let Some(([state, kind, index @ .., low, high], behind)) =
            rest.split_first_chunk::<6>()
        {
            let (name, own) = STATES
                .get(usize::from(*state) % STATES.len())
                .copied()
                .unwrap_or(("other", SectionKind::Raw));
            let kind = KINDS.get(usize::from(*kind)).copied().unwrap_or(own);
            let len = usize::from(u16::from_le_bytes([*low, *high])).min(behind.len());
            let (body, behind) = behind.split_at_checked(len).unwrap_or_default();
            let index = u16::from_le_bytes(*index);
            let key = SectionKey::new(kind, name).with_index(match index.checked_sub(INDEX_END) {
                Some(beyond) => u32::MAX - 15 + u32::from(beyond),
                None => u32::from(index),
            });
            sections.push((key, body.to_vec()));
            rest = behind;
        }
        Self { is_half: flags & HALF != 0, has_base: flags & BASE != 0, sections }
    }
}

/// Gives sections back.
pub(super) struct Source<'s> {
    left: std::slice::Iter<'s, (SectionKey, Vec<u8>)>,
    body: &'s [u8],
}

impl<'s> Source<'s> {
    pub(super) fn new(sections: &'s Sections) -> Self {
        Self { left: sections.iter(), body: &[] }
    }
}

impl SnapshotSource for Source<'_> {
    fn next_section(&mut self) -> Result<Option<SectionKey>> {
        Ok(self.left.next().map(|(key, body)| {
            self.body = body;
            key.clone()
        }))
    }

    fn body(&mut self) -> &mut dyn Read {
        &mut self.body
    }
}

/// Completed checkpoints.
#[derive(Default)]
pub(super) struct Store(pub(super) BTreeMap<CheckpointId, Sections>);

/// One that is being written, and what it may refer to.
pub(super) struct Writing<'s> {
    store: &'s Store,
    pub(super) sections: Sections,
}

impl<'s> Writing<'s> {
    pub(super) fn new(store: &'s Store) -> Self {
        Self { store, sections: Sections::new() }
    }

    fn find(&self, key: &SectionKey, from: CheckpointId) -> Option<&'s [u8]> {
        let mut sections = self.store.0.get(&from)?.iter();
        sections.find(|(known, _)| known == key).map(|(_, body)| body.as_slice())
    }

    fn put(&mut self, key: &SectionKey, body: Vec<u8>) {
        assert!(self.sections.iter().all(|(known, _)| known != key), "{key:?} is there twice");
        self.sections.push((key.clone(), body));
    }
}

impl SnapshotSink for Writing<'_> {
    fn section(&mut self, key: &SectionKey, body: SectionBody<'_>) -> Result<()> {
        let mut bytes = Vec::new();
        body(&mut bytes)?;
        self.put(key, bytes);
        Ok(())
    }

    fn can_reuse(&mut self, key: &SectionKey, from: CheckpointId) -> Result<bool> {
        Ok(self.find(key, from).is_some())
    }

    fn reuse(&mut self, key: &SectionKey, from: CheckpointId) -> Result<()> {
        let body = self.find(key, from).ok_or_else(|| Error::internal("nobody offers it"))?;
        self.put(key, body.to_vec());
        Ok(())
    }
}
