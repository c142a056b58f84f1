//! `diff`: in what two checkpoints differ, operator by operator and state by state.
//!
//! Streams both: what is kept of a section is its length and a digest. The order of sections, and how
//! they are stored, make no difference; neither do the number, the times and the attempt.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read;

use serde::Serialize;

use crate::catalog::CompletedCheckpoint;
use crate::error::Result;
use crate::ids::{CheckpointId, OperatorUid};
use crate::inspect::VerifyProgress;
use crate::inspect::show::word;
use crate::inspect::text::{Side, Table, count, plain, size};
use crate::inspect::transfer::{CheckpointLocation, Source};
use crate::record::Digester;
use crate::record::metadata::OperatorMetadata;
use crate::state::{SectionKey, SectionKind, SnapshotSource};

/// Bytes that are read at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// In what two checkpoints differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CheckpointDiff {
    /// Where the first one was read.
    pub a: String,
    /// Its number.
    pub a_id: CheckpointId,
    /// Where the second one was read.
    pub b: String,
    /// Its number.
    pub b_id: CheckpointId,
    /// True when every operator, property and byte of state is the same.
    pub equal: bool,
    /// Properties of the job with another value, or in one of them alone, by name.
    pub properties: Vec<String>,
    /// Operators that differ, by uid.
    pub operators: Vec<OperatorDiff>,
}

/// In what an operator differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OperatorDiff {
    /// Its stable name.
    pub uid: OperatorUid,
    /// What the first checkpoint says of it; none when it has no such operator.
    pub a: Option<OperatorShape>,
    /// What the second one says of it.
    pub b: Option<OperatorShape>,
    /// States that differ, by kind and name. With another parallelism keyed state is compared by key
    /// group, whichever subtask holds it, and all else by its subtask.
    pub states: Vec<StateDiff>,
}

/// What a checkpoint says of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OperatorShape {
    /// Its subtasks.
    pub parallelism: u32,
    /// Its key groups.
    pub max_parallelism: u32,
}

/// In what a state differs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct StateDiff {
    /// What its sections hold.
    pub kind: String,
    /// Its name within the operator.
    pub name: String,
    /// Bytes in the first checkpoint.
    pub a_size: u64,
    /// Bytes in the second.
    pub b_size: u64,
    /// Sections that only the first has.
    pub only_a: u64,
    /// Sections that only the second has.
    pub only_b: u64,
    /// Sections that both have, with other bytes.
    pub changed: u64,
    /// Sections that are the same.
    pub same: u64,
}

/// A section of an operator. The subtask counts where it makes a difference.
type Key = (Option<u32>, SectionKey);

/// Length and digest of each section of an operator.
type Sections = BTreeMap<Key, (u64, [u8; 16])>;

/// Compares two checkpoints, of any storages. A job is named where a source has several.
///
/// # Errors
/// `NotFound` when there is no such checkpoint; `Corrupt` when one is damaged; what the storages answer.
pub fn diff_checkpoints(
    (a, a_job): (&CheckpointLocation, Option<&str>),
    (b, b_job): (&CheckpointLocation, Option<&str>),
    progress: &mut dyn FnMut(VerifyProgress),
) -> Result<CheckpointDiff> {
    let (one, other) = (Compared::open(a, a_job)?, Compared::open(b, b_job)?);
    let both = [&one, &other].map(|side| side.checkpoint.metadata.state_bytes);
    let total_bytes = both.iter().copied().fold(0, u64::saturating_add);
    let mut done_bytes: u64 = 0;
    let mut read = |bytes: u64| {
        done_bytes = done_bytes.saturating_add(bytes);
        progress(VerifyProgress { done_bytes, total_bytes: total_bytes.max(done_bytes) });
    };
    let uids: BTreeSet<_> = one.uids().chain(other.uids()).cloned().collect();
    let mut operators = Vec::new();
    for uid in uids {
        operators.extend(one.compare(&other, uid, &mut read)?);
    }
    let properties = one.other_properties(&other);
    Ok(CheckpointDiff {
        a: a.to_string(),
        a_id: one.checkpoint.id,
        b: b.to_string(),
        b_id: other.checkpoint.id,
        equal: properties.is_empty() && operators.is_empty(),
        properties,
        operators,
    })
}

/// One of the two.
struct Compared {
    source: Source,
    checkpoint: CompletedCheckpoint,
}

impl Compared {
    fn open(location: &CheckpointLocation, job: Option<&str>) -> Result<Self> {
        let source = location.open(job)?;
        let checkpoint = source.load()?;
        Ok(Self { source, checkpoint })
    }

    fn uids(&self) -> impl Iterator<Item = &OperatorUid> {
        self.checkpoint.metadata.operators.iter().map(|operator| &operator.uid)
    }

    fn shape(&self, uid: &OperatorUid) -> Option<OperatorShape> {
        let operators = &self.checkpoint.metadata.operators;
        let found = operators.iter().find(|operator| operator.uid == *uid)?;
        let OperatorMetadata { parallelism, max_parallelism, .. } = *found;
        Some(OperatorShape { parallelism, max_parallelism })
    }

    fn other_properties(&self, other: &Self) -> Vec<String> {
        let [one, other] = [self, other].map(|side| &side.checkpoint.metadata.properties);
        let names: BTreeSet<_> = one.keys().chain(other.keys()).collect();
        names.into_iter().filter(|name| one.get(*name) != other.get(*name)).cloned().collect()
    }

    /// In what the operator differs, if it does.
    fn compare(
        &self,
        other: &Self,
        uid: OperatorUid,
        read: &mut dyn FnMut(u64),
    ) -> Result<Option<OperatorDiff>> {
        let (a, b) = (self.shape(&uid), other.shape(&uid));
        let parallelism = |shape: Option<OperatorShape>| shape.map(|shape| shape.parallelism);
        let is_rescaled = parallelism(a) != parallelism(b);
        let one = self.sections(&uid, is_rescaled, read)?;
        let states = differences(&one, &other.sections(&uid, is_rescaled, read)?);
        let is_same = a == b && states.is_empty();
        Ok((!is_same).then_some(OperatorDiff { uid, a, b, states }))
    }

    fn sections(
        &self,
        uid: &OperatorUid,
        is_rescaled: bool,
        read: &mut dyn FnMut(u64),
    ) -> Result<Sections> {
        let mut sections = Sections::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        for (task, _) in self.checkpoint.tasks().filter(|(task, _)| task.operator == *uid) {
            let mut reader = self.checkpoint.open_task(&self.source.records, &task)?;
            while let Some(key) = reader.next_section()? {
                let content = fingerprint(reader.body(), &mut buffer, read)?;
                let is_anywhere = is_rescaled && key.kind == SectionKind::Keyed;
                sections.insert(((!is_anywhere).then_some(task.subtask), key), content);
            }
        }
        Ok(sections)
    }
}

/// The length of a body, and its digest.
fn fingerprint(
    body: &mut dyn Read,
    buffer: &mut [u8],
    read: &mut dyn FnMut(u64),
) -> Result<(u64, [u8; 16])> {
    let mut digester = Digester::default();
    let mut len: u64 = 0;
    loop {
        let count = body.read(buffer)?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
            return Ok((len, digester.finish()));
        };
        digester.take(bytes);
        len = len.saturating_add(bytes.len() as u64);
        read(bytes.len() as u64);
    }
}

/// The states whose sections are not all the same.
fn differences(a: &Sections, b: &Sections) -> Vec<StateDiff> {
    let mut states: BTreeMap<(SectionKind, &str), StateDiff> = BTreeMap::new();
    let keys: BTreeSet<_> = a.keys().chain(b.keys()).collect();
    for key in keys {
        let (kind, name) = (key.1.kind, key.1.state.as_str());
        let state = states.entry((kind, name)).or_insert_with(|| StateDiff {
            kind: word(kind).to_owned(),
            name: name.to_owned(),
            ..StateDiff::default()
        });
        let (one, other) = (a.get(key), b.get(key));
        let len = |found: Option<&(u64, _)>| found.map_or(0, |(len, _)| *len);
        state.a_size = state.a_size.saturating_add(len(one));
        state.b_size = state.b_size.saturating_add(len(other));
        let counter = match (one, other) {
            (Some(_), None) => &mut state.only_a,
            (None, Some(_)) => &mut state.only_b,
            (one, other) if one == other => &mut state.same,
            _ => &mut state.changed,
        };
        *counter = counter.saturating_add(1);
    }
    let differs = |state: &StateDiff| state.only_a > 0 || state.only_b > 0 || state.changed > 0;
    states.into_values().filter(differs).collect()
}

impl fmt::Display for CheckpointDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "a: checkpoint {} in {}", self.a_id, plain(&self.a))?;
        writeln!(f, "b: checkpoint {} in {}", self.b_id, plain(&self.b))?;
        if self.equal {
            return writeln!(f, "they are EQUAL");
        }
        let operators = count(self.operators.len() as u64, "operator");
        let properties = self.properties.len();
        writeln!(f, "they DIFFER in {operators} and {properties} of the job's properties")?;
        for name in &self.properties {
            writeln!(f, "\nproperty {}", plain(name))?;
        }
        self.operators.iter().try_for_each(|operator| write!(f, "\n{operator}"))
    }
}

impl fmt::Display for OperatorDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uid = plain(self.uid.as_str());
        match (self.a, self.b) {
            (Some(a), Some(b)) if a == b => writeln!(f, "operator {uid}: {a}")?,
            (Some(a), Some(b)) => writeln!(f, "operator {uid}: {a} in a, {b} in b")?,
            (Some(a), None) => writeln!(f, "operator {uid}: {a}, only in a")?,
            (None, Some(b)) => writeln!(f, "operator {uid}: {b}, only in b")?,
            (None, None) => writeln!(f, "operator {uid}")?,
        }
        if self.states.is_empty() {
            return Ok(());
        }
        let columns = [
            ("KIND", Side::Left),
            ("NAME", Side::Left),
            ("SIZE IN A", Side::Right),
            ("SIZE IN B", Side::Right),
            ("ONLY A", Side::Right),
            ("ONLY B", Side::Right),
            ("CHANGED", Side::Right),
            ("SAME", Side::Right),
        ];
        let mut table = Table::new(2, &columns);
        for state in &self.states {
            table.row([
                state.kind.clone(),
                plain(&state.name).into_owned(),
                size(state.a_size),
                size(state.b_size),
                state.only_a.to_string(),
                state.only_b.to_string(),
                state.changed.to_string(),
                state.same.to_string(),
            ]);
        }
        table.fmt(f)
    }
}

impl fmt::Display for OperatorShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "parallelism {} of {}", self.parallelism, self.max_parallelism)
    }
}
