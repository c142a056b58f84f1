//! What a completed checkpoint says of itself, and a task of its sections.
//!
//! One file per version of the layout; an old one is never edited.

mod v1;

pub(crate) use v1::{
    CheckpointMetadata, OperatorMetadata, SectionContent, SectionMetadata, decode_sections,
    encode_sections,
};
