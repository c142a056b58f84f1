//! Doors into the sled store for fuzz targets; it decides nothing and checks nothing.

use std::path::Path;
use std::sync::Arc;

use crate::error::Result;
use crate::ids::{JobId, StoreId};
use crate::record::{FrameHeader, codec};
use crate::storage::access::JobStorage;
use crate::storage::filesystem::Savepoints;
use crate::storage::probe::{Again, encoded};
use crate::storage::sled::directory::{
    current_text, finished_bytes, format_text, parse_current, parse_finished, parse_format,
};
use crate::storage::sled::index::{JobEntry, LiveEntry, applied_payload, parse_applied};
use crate::storage::sled::ledger::{Base, Delta};
use crate::storage::sled::owner::SledJob;
use crate::storage::sled::repair::Broken;
use crate::storage::sled::split::repair_split;
use crate::storage::sled::view::StoreView;

pub(crate) use crate::storage::sled::directory::{Format, StoreDir};
pub(crate) use crate::storage::sled::kv::{Batch, Entries, Kv, KvFiles};
use crate::storage::sled::log::probe::{footer_again, group_again};
pub(crate) use crate::storage::sled::log::{
    LogSettings, Place, SegmentScan, parse_segment_name, scan_segment,
};
pub(crate) use crate::storage::sled::owner::OpenStore;
pub(crate) use crate::storage::sled::repair::RepairReport;

/// Opens an open store for a job.
///
/// # Errors
/// What the store answers.
pub(crate) fn open_job(store: &Arc<OpenStore>, job: &JobId) -> Result<JobStorage> {
    Ok(JobStorage::new(SledJob::claim(Arc::clone(store), job)?, Savepoints::within(job)))
}

/// Repairs a store that nobody has open.
///
/// # Errors
/// What the disk answers.
pub(crate) fn repair(dir: &StoreDir, settings: LogSettings) -> Result<RepairReport> {
    let _held = dir.lock()?;
    repair_split((dir.clone(), dir.require_format()), settings, Broken::Keep, &mut |_, _| ())
}

/// Looks at a log beside its owner.
///
/// # Errors
/// What the disk answers.
pub(crate) fn open_view(dir: &StoreDir, store: StoreId) -> Result<StoreView> {
    StoreView::of_log(dir.clone(), store)
}

/// Records of the log and of the index.
pub(in crate::storage) const FORMS: [(&str, Again); 9] = [
    ("base", |bytes| Base::decode(bytes).ok()?.encode().ok()),
    ("drop", |bytes| {
        let mut again = Vec::new();
        codec::encode_list(&codec::decode_list::<u64>(bytes).ok()?, &mut again).ok()?;
        Some(again)
    }),
    ("pin", |bytes| match Delta::decode_pin(bytes).ok()? {
        Delta::Pin(record, pinned) => Some(Delta::encode_pin(record, pinned)),
        _ => None,
    }),
    ("footer", footer_again),
    ("group", group_again),
    ("place", |bytes| encoded(&codec::decode::<Place>(bytes).ok()?)),
    ("job", |bytes| encoded(&codec::decode::<JobEntry>(bytes).ok()?)),
    ("live", |bytes| encoded(&codec::decode::<LiveEntry>(bytes).ok()?)),
    ("applied", |bytes| Some(applied_payload(parse_applied(bytes)?))),
];

/// The small files.
pub(in crate::storage) const TEXTS: [(&str, Again); 3] = [
    ("FORMAT", |bytes| {
        Some(format_text(parse_format(Path::new("FORMAT"), bytes).ok()?).into_bytes())
    }),
    ("CURRENT", |bytes| {
        Some(current_text(parse_current(std::str::from_utf8(bytes).ok()?)?).into_bytes())
    }),
    ("FINISHED", |bytes| {
        let store = FrameHeader::decode(bytes).ok()?.store;
        finished_bytes(store, &parse_finished(store, bytes)?).ok()
    }),
];
