//! Version 1 of the metadata: the bodies of commit and manifest nodes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::OperatorUid;
use crate::message::CheckpointType;
use crate::record::codec;
use crate::state::SectionKey;

/// The body of a commit node; its references are the manifests, task by task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CheckpointMetadata {
    pub(crate) kind: CheckpointType,
    /// Wall time of the trigger.
    pub(crate) timestamp_ms: u64,
    /// From the trigger to the last acknowledgement.
    pub(crate) duration_ms: u64,
    /// Bytes of all sections, however they are stored.
    pub(crate) state_bytes: u64,
    /// Version of the key hash, see `state::key_group`.
    pub(crate) key_hash_version: u32,
    /// What the job says of itself.
    pub(crate) properties: BTreeMap<String, String>,
    /// In the order of the job's plan.
    pub(crate) operators: Vec<OperatorMetadata>,
}

/// One operator; its tasks' manifests are the next `parallelism` references of the commit node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OperatorMetadata {
    pub(crate) uid: OperatorUid,
    pub(crate) parallelism: u32,
    pub(crate) max_parallelism: u32,
}

impl CheckpointMetadata {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        codec::encode_into(self, &mut out)?;
        Ok(out)
    }

    pub(crate) fn decode(body: &[u8]) -> Result<Self> {
        codec::decode(body)
    }

    /// How many manifests the operators have together.
    pub(crate) fn tasks(&self) -> u64 {
        self.operators.iter().map(|operator| u64::from(operator.parallelism)).sum()
    }
}

/// One section of a task's snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SectionMetadata {
    pub(crate) key: SectionKey,
    /// Bytes of the body.
    pub(crate) len: u64,
    pub(crate) content: SectionContent,
}

/// Where a section's body is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SectionContent {
    /// Here.
    Inline(Vec<u8>),
    /// In this many of the manifest's references, after those of the sections before.
    Chunks(u32),
    /// The same, each chunk in compressed form.
    Compressed(u32),
}

impl SectionContent {
    /// How many of the manifest's references are this section's.
    pub(crate) fn chunks(&self) -> usize {
        match self {
            Self::Inline(_) => 0,
            Self::Chunks(count) | Self::Compressed(count) => {
                usize::try_from(*count).unwrap_or(usize::MAX)
            }
        }
    }
}

/// The body of a manifest node.
///
/// # Errors
/// `Invalid` when there are too many sections.
pub(crate) fn encode_sections(sections: &[SectionMetadata]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    codec::encode_list(sections, &mut out)?;
    Ok(out)
}

/// Reads a manifest's body and checks that its sections use `refs` references, no more, no less.
///
/// # Errors
/// `Corrupt` when they do not.
pub(crate) fn decode_sections(body: &[u8], refs: usize) -> Result<Vec<SectionMetadata>> {
    let sections: Vec<SectionMetadata> = codec::decode_list(body)?;
    let mut used = 0_u64;
    for section in &sections {
        used = used.saturating_add(section.content.chunks() as u64);
        if let SectionContent::Inline(body) = &section.content
            && body.len() as u64 != section.len
        {
            let (len, found) = (section.len, body.len());
            let message = format!("a section of {len} bytes has {found}");
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
    }
    if used != refs as u64 {
        let message = format!("a manifest of {refs} chunks has sections over {used}");
        return Err(Error::new(ErrorKind::Corrupt, message));
    }
    Ok(sections)
}
