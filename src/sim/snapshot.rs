//! What tasks write into checkpoints and read back, in the sections that `local` uses as well.

use crate::catalog::{OperatorSpec, SnapshotReader};
use crate::error::{Error, Result};
use crate::ids::TaskId;
use crate::sim::plan::{Tallies, Tally};
use crate::sim::world::Token;
use crate::state::{
    FrozenScope, KeyedMap, SectionKey, SectionKind, SnapshotSink, SnapshotSource, StateScope,
    codec, read_entries, write_entry,
};

/// What a task's part of a checkpoint means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    Position(u64),
    Keyed(Tallies),
    Tokens(Vec<Token>),
}

/// What is about to be written.
#[derive(Debug)]
pub(super) enum Sections {
    Position(u64),
    Keyed(FrozenScope),
    Tokens(Vec<Token>),
}

impl Sections {
    pub(super) fn write(self, sink: &mut dyn SnapshotSink) -> Result<()> {
        match self {
            Self::Position(position) => {
                let mut bytes = Vec::new();
                codec::encode_into(&position, &mut bytes)?;
                let key = SectionKey::new(SectionKind::Position, "position");
                sink.section(&key, &mut |out| Ok(out.write_all(&bytes)?))
            }
            Self::Keyed(scope) => scope.write(sink),
            Self::Tokens(tokens) => {
                let mut entry = Vec::new();
                let key = SectionKey::new(SectionKind::Tokens, "tokens");
                sink.section(&key, &mut |out| {
                    tokens.iter().try_for_each(|token| write_entry(&mut entry, &[], token, out))
                })
            }
        }
    }
}

/// The keyed state of one subtask: the real scope with its one map.
#[derive(Debug)]
pub(super) struct KeyedState {
    pub(super) scope: StateScope,
    pub(super) map: KeyedMap<u64, Tally>,
}

impl KeyedState {
    pub(super) fn new(spec: &OperatorSpec, subtask: u32) -> Result<Self> {
        let mut scope = StateScope::new(subtask, spec.parallelism, spec.max_parallelism);
        let map = scope.keyed_map("tallies")?;
        Ok(Self { scope, map })
    }

    pub(super) fn restore(&self, reader: &mut SnapshotReader) -> Result<()> {
        while let Some(key) = reader.next_section()? {
            self.scope.restore(&key, reader.body())?;
        }
        Ok(())
    }

    pub(super) fn tallies(&self) -> Result<Tallies> {
        let mut tallies = Tallies::new();
        self.map.for_each(|key, tally| {
            tallies.insert(key, tally.clone());
            Ok(())
        })?;
        Ok(tallies)
    }
}

/// Reads a task's part as what its place in the job makes of it.
pub(super) fn read_content(
    stages: &[OperatorSpec],
    task: &TaskId,
    mut reader: SnapshotReader,
) -> Result<Content> {
    let stage = stages.iter().position(|stage| stage.uid == task.operator).unwrap_or_default();
    if stage == 0 {
        return read_position(&mut reader).map(Content::Position);
    }
    if stage + 1 == stages.len() {
        return read_tokens(&mut reader).map(Content::Tokens);
    }
    let spec = stages.get(stage).ok_or_else(|| Error::internal("a task without a stage"))?;
    let keyed = KeyedState::new(spec, task.subtask)?;
    keyed.restore(&mut reader)?;
    keyed.tallies().map(Content::Keyed)
}

fn read_position(reader: &mut SnapshotReader) -> Result<u64> {
    let mut position = None;
    while let Some(key) = reader.next_section()? {
        check_kind(&key, SectionKind::Position)?;
        let mut bytes = Vec::new();
        reader.body().read_to_end(&mut bytes)?;
        position = Some(codec::decode(&bytes)?);
    }
    position.ok_or_else(|| Error::internal("a source without a position"))
}

fn read_tokens(reader: &mut SnapshotReader) -> Result<Vec<Token>> {
    let mut tokens = Vec::new();
    while let Some(key) = reader.next_section()? {
        check_kind(&key, SectionKind::Tokens)?;
        read_entries(reader.body(), |_, token| {
            tokens.push(codec::decode(token)?);
            Ok(())
        })?;
    }
    Ok(tokens)
}

fn check_kind(key: &SectionKey, kind: SectionKind) -> Result<()> {
    if key.kind == kind {
        return Ok(());
    }
    Err(Error::internal(format!("section {key:?} instead of one of kind {kind:?}")))
}
