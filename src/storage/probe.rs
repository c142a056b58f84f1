//! Doors for fuzz targets: records by their bytes, a log by its segments, a store on any disk. Only
//! compiled with them; it decides nothing and checks nothing.

pub(crate) use crate::storage::disk::{Disk, DiskFile};
pub(crate) use crate::storage::sled::probe::{
    Batch, Entries, Format, Kv, KvFiles, LogSettings, OpenStore, Place, SegmentScan, StoreDir,
    open_job, open_view, parse_segment_name, repair, scan_segment,
};

use crate::record::codec;
use crate::storage::stream::StreamStateHandle;
use crate::storage::{filesystem, sled};

/// Decodes bytes as one kind of record and encodes what came out; `None` when they are none.
pub(crate) type Again = fn(&[u8]) -> Option<Vec<u8>>;

/// The records whose bytes have one form only, by name.
pub(crate) fn forms() -> impl Iterator<Item = (&'static str, Again)> {
    let handle: Again = |bytes| encoded(&codec::decode::<StreamStateHandle>(bytes).ok()?);
    sled::probe::FORMS
        .iter()
        .chain(&filesystem::probe::FORMS)
        .copied()
        .chain([("stream handle", handle)])
}

/// The texts; of these several may mean the same.
pub(crate) fn texts() -> impl Iterator<Item = (&'static str, Again)> {
    sled::probe::TEXTS.iter().copied()
}

/// The bytes of a value.
pub(in crate::storage) fn encoded<T: serde::Serialize>(value: &T) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    codec::encode_into(value, &mut bytes).ok()?;
    Some(bytes)
}
