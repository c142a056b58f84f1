//! What tasks write into checkpoints and read back, in the sections that `local` uses as well.

use std::collections::BTreeMap;
use std::io::Read;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::catalog::OperatorSpec;
use crate::error::{Error, Result};
use crate::ids::TaskId;
use crate::sim::plan::{Plan, Record, Tallies, Tally};
use crate::sim::world::Token;
use crate::state::{
    FrozenScope, KeyedMap, ListState, SectionKey, SectionKind, SnapshotSink, SnapshotSource,
    StateScope, codec, read_entries, write_entry,
};

/// The records on their way to a task, by input channel, in order.
pub(super) type InFlight = BTreeMap<u32, Vec<Record>>;

/// A task's part of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) content: Content,
    pub(super) in_flight: InFlight,
}

/// What the state in a task's part of a checkpoint means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    Position(u64),
    Keyed(Tallies),
    Sum(Tally),
    Tokens(Vec<Token>),
}

/// What is about to be written.
#[derive(Debug)]
pub(super) enum Sections {
    Position(u64),
    States(FrozenScope),
    Tokens(Vec<Token>),
}

impl Sections {
    pub(super) fn write(self, in_flight: &InFlight, sink: &mut dyn SnapshotSink) -> Result<()> {
        self.write_state(sink)?;
        let mut entry = Vec::new();
        for (channel, records) in in_flight {
            let key = SectionKey::new(SectionKind::Channel, "in-flight").with_index(*channel);
            sink.section(&key, &mut |out| {
                records.iter().try_for_each(|record| write_entry(&mut entry, &[], record, out))
            })?;
        }
        Ok(())
    }

    fn write_state(self, sink: &mut dyn SnapshotSink) -> Result<()> {
        match self {
            Self::Position(position) => write_value(SectionKind::Position, &position, sink),
            Self::States(scope) => scope.write(sink),
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

fn write_value<T: Serialize>(
    kind: SectionKind,
    value: &T,
    sink: &mut dyn SnapshotSink,
) -> Result<()> {
    let mut bytes = Vec::new();
    codec::encode_into(value, &mut bytes)?;
    sink.section(&SectionKey::new(kind, "value"), &mut |out| Ok(out.write_all(&bytes)?))
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

    /// The answer is what was on its way.
    pub(super) fn restore(&self, source: &mut dyn SnapshotSource) -> Result<InFlight> {
        read_sections(source, &mut |key, body| self.scope.restore(key, body))
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

/// What one subtask without keys counted: the real scope with its one list.
#[derive(Debug)]
pub(super) struct SumState {
    pub(super) scope: StateScope,
    pub(super) list: ListState<Tally>,
}

impl SumState {
    pub(super) fn new(subtask: u32) -> Result<Self> {
        let mut scope = StateScope::new(subtask, 1, 1);
        let list = scope.list_state("sums")?;
        Ok(Self { scope, list })
    }

    /// The answer is what was on its way.
    pub(super) fn restore(&self, source: &mut dyn SnapshotSource) -> Result<InFlight> {
        read_sections(source, &mut |key, body| self.scope.restore(key, body))
    }

    /// Of all items: with another parallelism a subtask is given those of several, or none.
    pub(super) fn sum(&self) -> Tally {
        let mut sum = Tally::default();
        for tally in self.list.to_vec() {
            sum.merge(&tally);
        }
        sum
    }
}

/// Reads a task's part as what its place in the job makes of it.
pub(super) fn read_part(
    plan: &Plan,
    task: &TaskId,
    source: &mut dyn SnapshotSource,
) -> Result<Part> {
    let stages = &plan.stages;
    let stage = stages.iter().position(|stage| stage.uid == task.operator).unwrap_or_default();
    let (content, in_flight) = if stage == 0 {
        let (position, in_flight) = read_value(SectionKind::Position, source)?;
        (Content::Position(position), in_flight)
    } else if stage + 1 == stages.len() {
        let (tokens, in_flight) = read_tokens(source)?;
        (Content::Tokens(tokens), in_flight)
    } else if plan.is_by_key(stage) {
        let spec = stages.get(stage).ok_or_else(|| Error::internal("a task without a stage"))?;
        let keyed = KeyedState::new(spec, task.subtask)?;
        let in_flight = keyed.restore(source)?;
        (Content::Keyed(keyed.tallies()?), in_flight)
    } else {
        let sums = SumState::new(task.subtask)?;
        let in_flight = sums.restore(source)?;
        (Content::Sum(sums.sum()), in_flight)
    };
    Ok(Part { content, in_flight })
}

fn read_value<T: DeserializeOwned>(
    kind: SectionKind,
    source: &mut dyn SnapshotSource,
) -> Result<(T, InFlight)> {
    let mut value = None;
    let in_flight = read_sections(source, &mut |key, body| {
        check_kind(key, kind)?;
        let mut bytes = Vec::new();
        body.read_to_end(&mut bytes)?;
        value = Some(codec::decode(&bytes)?);
        Ok(())
    })?;
    let value = value.ok_or_else(|| Error::internal(format!("a task without a {kind:?}")))?;
    Ok((value, in_flight))
}

fn read_tokens(source: &mut dyn SnapshotSource) -> Result<(Vec<Token>, InFlight)> {
    let mut tokens = Vec::new();
    let in_flight = read_sections(source, &mut |key, body| {
        check_kind(key, SectionKind::Tokens)?;
        read_entries(body, |_, token| {
            tokens.push(codec::decode(token)?);
            Ok(())
        })
    })?;
    Ok((tokens, in_flight))
}

/// Reads all sections: those of channels itself, the others with `read_state`.
fn read_sections(
    source: &mut dyn SnapshotSource,
    read_state: &mut dyn FnMut(&SectionKey, &mut dyn Read) -> Result<()>,
) -> Result<InFlight> {
    let mut in_flight = InFlight::new();
    while let Some(key) = source.next_section()? {
        if key.kind != SectionKind::Channel {
            read_state(&key, source.body())?;
            continue;
        }
        let mut records = Vec::new();
        read_entries(source.body(), |_, record| {
            records.push(codec::decode(record)?);
            Ok(())
        })?;
        // With another parallelism, those of several old subtasks.
        in_flight.entry(key.index).or_default().append(&mut records);
    }
    Ok(in_flight)
}

fn check_kind(key: &SectionKey, kind: SectionKind) -> Result<()> {
    if key.kind == kind {
        return Ok(());
    }
    Err(Error::internal(format!("section {key:?} instead of one of kind {kind:?}")))
}
