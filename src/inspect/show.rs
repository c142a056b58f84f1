//! `show`: one checkpoint with its operators, tasks and sections.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::catalog::CompletedCheckpoint;
use crate::error::{ErrorKind, Result};
use crate::ids::{OperatorUid, TaskId};
use crate::inspect::damage::Damage;
use crate::inspect::list::CheckpointSummary;
use crate::inspect::text::{Side, Table, count, duration, plain, short, size, time};
use crate::record::RecordRef;
use crate::record::metadata::{SectionContent, SectionMetadata, decode_sections};
use crate::state::SectionKind;
use crate::storage::RecordSource;

/// One completed checkpoint in full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CheckpointDetails {
    /// The directory of the store.
    pub store: String,
    /// The job.
    pub job: String,
    /// What the checkpoint says of itself.
    #[serde(flatten)]
    pub summary: CheckpointSummary,
    /// What the job said of itself.
    pub properties: BTreeMap<String, String>,
    /// Its tasks by operator.
    #[serde(rename = "tasks")]
    pub operators: Vec<OperatorDetails>,
}

/// The tasks of one operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OperatorDetails {
    /// Its stable name.
    pub uid: OperatorUid,
    /// Bytes of the sections of all its tasks.
    pub state_size: u64,
    /// By index.
    pub subtasks: Vec<TaskDetails>,
}

/// One task's part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TaskDetails {
    /// The subtask, from 0.
    pub index: u32,
    /// Bytes of its sections.
    pub state_size: u64,
    /// In the order in which they were written.
    pub sections: Vec<SectionDetails>,
    /// Why the sections are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damage: Option<Damage>,
}

/// One section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SectionDetails {
    /// What it holds.
    #[serde(serialize_with = "as_word")]
    pub kind: SectionKind,
    /// The state's name within its operator.
    pub name: String,
    /// Key group, sending subtask or 0, as the kind says.
    pub index: u32,
    /// Bytes of its body.
    pub size: u64,
    /// Chunk records of the body; 0 when it lies in the task's manifest.
    pub chunks: u32,
}

/// Reads the manifests of a checkpoint.
pub(super) fn read_operators(
    records: &dyn RecordSource,
    checkpoint: &CompletedCheckpoint,
) -> Result<Vec<OperatorDetails>> {
    let mut operators: Vec<OperatorDetails> = Vec::new();
    for (TaskId { operator, subtask }, manifest) in checkpoint.tasks() {
        let task = read_task(records, subtask, manifest)?;
        match operators.last_mut() {
            Some(last) if last.uid == operator => {
                last.state_size = last.state_size.saturating_add(task.state_size);
                last.subtasks.push(task);
            }
            _ => operators.push(OperatorDetails {
                uid: operator,
                state_size: task.state_size,
                subtasks: vec![task],
            }),
        }
    }
    Ok(operators)
}

fn read_task(records: &dyn RecordSource, index: u32, manifest: &RecordRef) -> Result<TaskDetails> {
    let sections =
        records.node(manifest).and_then(|node| decode_sections(&node.body, node.refs.len()));
    let (sections, damage) = match sections {
        Ok(sections) => (sections.into_iter().map(SectionDetails::new).collect(), None),
        Err(error) if error.kind() == ErrorKind::Corrupt => (Vec::new(), Some(Damage::of(&error))),
        Err(error) => return Err(error),
    };
    let add = |sum: u64, section: &SectionDetails| sum.saturating_add(section.size);
    let state_size = sections.iter().fold(0, add);
    Ok(TaskDetails { index, state_size, sections, damage })
}

impl SectionDetails {
    fn new(section: SectionMetadata) -> Self {
        let chunks = match section.content {
            SectionContent::Inline(_) => 0,
            SectionContent::Chunks(count) | SectionContent::Compressed(count) => count,
        };
        let key = section.key;
        Self { kind: key.kind, name: key.state, index: key.index, size: section.len, chunks }
    }
}

pub(super) fn word(kind: SectionKind) -> &'static str {
    match kind {
        SectionKind::Keyed => "keyed",
        SectionKind::Split => "split",
        SectionKind::Union => "union",
        SectionKind::Broadcast => "broadcast",
        SectionKind::Channel => "channel",
        SectionKind::Position => "position",
        SectionKind::Tokens => "tokens",
        SectionKind::Raw => "raw",
        SectionKind::Finished => "finished",
        SectionKind::Schema => "schema",
        SectionKind::KeyedDelta => "keyed-delta",
        SectionKind::Watermark => "watermark",
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn as_word<S: serde::Serializer>(kind: &SectionKind, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(word(*kind))
}

impl fmt::Display for CheckpointDetails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { store, job, summary, properties, operators } = self;
        let state_size = summary.state_size;
        writeln!(f, "checkpoint {} of job {job} in {store}", summary.id)?;
        writeln!(f, "  type        {}", summary.kind())?;
        writeln!(f, "  attempt     {}", summary.attempt)?;
        writeln!(f, "  triggered   {}", time(summary.trigger_timestamp))?;
        writeln!(f, "  duration    {}", duration(summary.end_to_end_duration))?;
        if let Some(reason) = &summary.suspect {
            writeln!(f, "  suspect     {}", short(reason))?;
        }
        writeln!(f, "  state size  {} ({state_size} bytes)", size(state_size))?;
        if !properties.is_empty() {
            writeln!(f, "\nproperties")?;
        }
        for (name, value) in properties {
            writeln!(f, "  {} = {}", short(name), short(value))?;
        }
        writeln!(f, "\noperators")?;
        self.operator_table().fmt(f)?;
        for operator in operators {
            for task in &operator.subtasks {
                writeln!(f, "\ntask {}/{task}", operator.uid)?;
            }
        }
        Ok(())
    }
}

impl CheckpointDetails {
    fn operator_table(&self) -> Table {
        let columns = [
            ("UID", Side::Left),
            ("PARALLELISM", Side::Right),
            ("MAX PARALLELISM", Side::Right),
            ("STATE SIZE", Side::Right),
        ];
        let mut table = Table::new(2, &columns);
        for operator in &self.summary.operators {
            let details = self.operators.iter().find(|details| details.uid == operator.uid);
            table.row([
                operator.uid.to_string(),
                operator.parallelism.to_string(),
                operator.max_parallelism.to_string(),
                size(details.map_or(0, |details| details.state_size)),
            ]);
        }
        table
    }
}

impl fmt::Display for TaskDetails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(damage) = &self.damage {
            return write!(f, "{}: its manifest cannot be read: {damage}", self.index);
        }
        let sections = count(self.sections.len() as u64, "section");
        write!(f, "{}: {sections}, {}", self.index, size(self.state_size))?;
        if self.sections.is_empty() {
            return Ok(());
        }
        let columns = [
            ("KIND", Side::Left),
            ("NAME", Side::Left),
            ("INDEX", Side::Right),
            ("BYTES", Side::Right),
            ("CHUNKS", Side::Right),
        ];
        let mut table = Table::new(2, &columns);
        for section in &self.sections {
            table.row([
                word(section.kind).to_owned(),
                plain(&section.name).into_owned(),
                section.index.to_string(),
                section.size.to_string(),
                section.chunks.to_string(),
            ]);
        }
        write!(f, "\n{}", table.to_string().trim_end())
    }
}
