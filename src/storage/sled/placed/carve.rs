//! Finds what an index directory holds without sled: frames by their magic, wherever they stand in its
//! files, believed by their checksums.
//!
//! Deleted frames are found as well, so only what the newest record of each job lists counts. Never
//! writes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Attempt, CheckpointId};
use crate::record::frame::{HEADER_BYTES_MAX, MAGIC};
use crate::record::{Frame, FrameHeader, FrameKind, Node, RecordRef};
use crate::storage::disk::{Disk, DiskFile};
use crate::storage::sled::index::check_record;
use crate::storage::sled::ledger::{JobFacts, Live};
use crate::storage::sled::placed::layout::{Layout, job_facts};
use crate::storage::sled::placed::rebuild::Frames;
use crate::storage::sled::placed::tail::Tail;
use crate::storage::sled::repair::Lost;

/// How much is looked at in one go.
const WINDOW_BYTES: usize = 4 << 20;

/// Bytes that are searched.
#[derive(Debug)]
enum Bytes {
    File(Arc<dyn DiskFile>),
    Memory(Vec<u8>),
}

impl Bytes {
    fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        match self {
            Self::File(file) => {
                let mut bytes = vec![0; len];
                let read = file.read_up_to_at(&mut bytes, offset);
                let read = read.map_err(|error| Error::io("read a file of sled", error))?;
                bytes.truncate(read);
                Ok(bytes)
            }
            Self::Memory(all) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(all.len());
                let to = from.saturating_add(len).min(all.len());
                Ok(all.get(from..to).unwrap_or_default().to_vec())
            }
        }
    }
}

/// A valid frame.
#[derive(Debug, Clone, Copy)]
struct Found {
    record: RecordRef,
    source: usize,
    offset: u64,
    len: usize,
}

/// The highest numbers that any frame of a job carries.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    attempt: Attempt,
    checkpoint: CheckpointId,
}

/// All valid frames of one index directory.
#[derive(Debug)]
pub(super) struct Carved {
    layout: Layout,
    sources: Vec<Bytes>,
    /// Chunks, manifests and commits by id. Another start may have given an id again.
    frames: HashMap<u64, Vec<Found>>,
    /// The newest record of each job.
    jobs: BTreeMap<String, (u64, JobFacts)>,
    seen: BTreeMap<String, Seen>,
    pub(super) sequence_max: u64,
}

/// What can be recovered.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// With the checkpoints that are whole, and those that an earlier repair could not save.
    pub(super) jobs: BTreeMap<String, JobFacts>,
    /// What is lost without a name.
    pub(super) lost: Vec<Lost>,
    /// What should live and is not whole: job, checkpoint, why.
    pub(super) live: Vec<(String, Live, String)>,
}

impl Recovered {
    /// Lists what is not whole as what cannot be read, and says what that is.
    pub(super) fn list_lost(&mut self) -> Vec<String> {
        let list = |(job, live, why): (String, Live, String)| {
            let id = live.record.checkpoint;
            let message = format!("checkpoint {id} of {job} is lost: {why}");
            let record = RecordRef::unreadable(live.record.id, id);
            self.jobs.entry(job).or_default().live.insert(id, Live { record, ..live });
            message
        };
        std::mem::take(&mut self.live).into_iter().map(list).collect()
    }
}

impl Carved {
    /// Searches every file below `dir`, and what stood at the end of sled's file before sled saw it.
    ///
    /// # Errors
    /// What the disk answers.
    pub(super) fn scan(disk: &dyn Disk, dir: &Path, layout: Layout, tail: Tail) -> Result<Self> {
        let mut carved = Self {
            layout,
            sources: Vec::new(),
            frames: HashMap::new(),
            jobs: BTreeMap::new(),
            seen: BTreeMap::new(),
            sequence_max: 0,
        };
        for path in files_below(disk, dir)? {
            let file = disk.open(&path);
            let file =
                file.map_err(|error| Error::io(format!("open {}", path.display()), error))?;
            carved.search(Bytes::File(file))?;
        }
        for segment in tail.into_segments() {
            carved.search(Bytes::Memory(segment))?;
        }
        Ok(carved)
    }

    fn search(&mut self, bytes: Bytes) -> Result<()> {
        let source = self.sources.len();
        let Layout { store, incarnation } = self.layout;
        let is_own =
            |header: &FrameHeader<'_>| header.store == store && header.incarnation == incarnation;
        each_frame(&bytes, &is_own, &mut |frame, offset, len| {
            let record = RecordRef::to_record(&frame.header);
            self.take(frame, Found { record, source, offset, len });
        })?;
        self.sources.push(bytes);
        Ok(())
    }

    fn take(&mut self, frame: &Frame<'_>, found: Found) {
        let header = &frame.header;
        self.sequence_max = self.sequence_max.max(header.sequence).max(header.id);
        let job = header.origin.job;
        if !job.is_empty() {
            let seen = self.seen.entry(job.to_owned()).or_default();
            seen.attempt = seen.attempt.max(header.origin.attempt);
            seen.checkpoint = seen.checkpoint.max(header.origin.checkpoint);
        }
        match header.kind {
            FrameKind::Chunk | FrameKind::Manifest | FrameKind::Commit => {
                self.frames.entry(header.id).or_default().push(found);
            }
            FrameKind::Job => {
                let is_newer =
                    self.jobs.get(job).is_none_or(|(sequence, _)| *sequence < header.sequence);
                if let Some(facts) = job_facts(frame.payload).ok().filter(|_| is_newer) {
                    self.jobs.insert(job.to_owned(), (header.sequence, facts));
                }
            }
            _ => {}
        }
    }

    fn find(&self, record: &RecordRef) -> Option<&Found> {
        let wanted = RecordRef { digest: [0; 16], ..*record };
        self.frames.get(&record.id)?.iter().find(|found| found.record == wanted)
    }

    pub(super) fn bytes(&self, record: &RecordRef) -> Result<Vec<u8>> {
        let found = self.find(record).and_then(|found| {
            let source = self.sources.get(found.source)?;
            Some((source, found))
        });
        let (source, found) = found.ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, format!("record {} is nowhere", record.id))
        })?;
        source.read(found.offset, found.len)
    }

    pub(super) fn node(&self, record: &RecordRef) -> Result<Node> {
        check_record(&self.bytes(record)?, record, self.layout.store)
    }

    fn check(&self, commit: &RecordRef) -> std::result::Result<(), String> {
        let read = |what: &str, record: &RecordRef| {
            self.node(record).map_err(|_| format!("{what} {} is damaged or missing", record.id))
        };
        for manifest in read("its commit record", commit)?.refs {
            let chunks = read("manifest", &manifest)?.refs;
            if let Some(chunk) = chunks.iter().find(|chunk| self.find(chunk).is_none()) {
                return Err(format!("chunk {} is damaged or missing", chunk.id));
            }
        }
        Ok(())
    }

    /// True when nothing says that the directory ever held a job.
    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.seen.is_empty()
    }

    /// What lives and is whole, and what is not.
    pub(super) fn recover(&self) -> Recovered {
        let mut recovered = Recovered::default();
        for (job, seen) in &self.seen {
            let mut facts = if let Some((_, facts)) = self.jobs.get(job) {
                facts.clone()
            } else {
                let why = "no record of what lives is whole".to_owned();
                recovered.lost.push(Lost { job: Some(job.clone()), checkpoint: None, why });
                JobFacts::default()
            };
            facts.attempt_max = facts.attempt_max.max(seen.attempt);
            facts.checkpoint_max = facts.checkpoint_max.max(seen.checkpoint);
            for (id, live) in facts.live.clone().iter() {
                if live.record.is_unreadable() {
                    continue;
                }
                if let Err(why) = self.check(&live.record) {
                    facts.live.remove(*id);
                    recovered.live.push((job.clone(), live.clone(), why));
                }
            }
            recovered.jobs.insert(job.clone(), facts);
        }
        recovered
    }
}

impl Frames for Carved {
    fn node_frame(&self, record: &RecordRef) -> Result<Vec<u8>> {
        self.bytes(record)
    }

    fn chunk_frame(&self, record: &RecordRef) -> Result<Vec<u8>> {
        self.bytes(record)
    }
}

/// Shows the whole frames in `bytes` whose headers are wanted, each with its offset and its length.
fn each_frame(
    bytes: &Bytes,
    is_wanted: &dyn Fn(&FrameHeader<'_>) -> bool,
    show: &mut dyn FnMut(&Frame<'_>, u64, usize),
) -> Result<()> {
    let mut look = |offset: u64| -> Result<Option<usize>> {
        let head = bytes.read(offset, HEADER_BYTES_MAX)?;
        let Ok(header) = FrameHeader::decode(&head) else { return Ok(None) };
        if !is_wanted(&header) {
            return Ok(None);
        }
        let Ok(len) = usize::try_from(header.frame_len()) else { return Ok(None) };
        let whole = bytes.read(offset, len)?;
        let Ok(frame) = Frame::decode(&whole) else { return Ok(None) };
        show(&frame, offset, len);
        Ok(Some(len))
    };
    let mut at = 0_u64;
    loop {
        let window = bytes.read(at, WINDOW_BYTES)?;
        let mut from = 0;
        while let Some(place) = find_magic(&window, from) {
            from = match look(at.saturating_add(place as u64))? {
                Some(len) => place.saturating_add(len),
                None => place.saturating_add(1),
            };
        }
        if window.len() < WINDOW_BYTES {
            return Ok(());
        }
        // A magic may begin in the last bytes.
        let overlap = window.len() - (MAGIC.len() - 1);
        at = at.saturating_add(from.max(overlap) as u64);
    }
}

/// Of which stores the checkpoints below `dir` are, an index directory with this number. Under
/// `Placement::Split` an index has none of their records in one piece.
///
/// # Errors
/// What the disk answers.
pub(super) fn stores_of(disk: &dyn Disk, dir: &Path, number: u64) -> Result<BTreeSet<[u8; 16]>> {
    let mut stores = BTreeSet::new();
    for path in files_below(disk, dir)? {
        let file = disk.open(&path);
        let file = file.map_err(|error| Error::io(format!("open {}", path.display()), error))?;
        let kinds = [FrameKind::Chunk, FrameKind::Manifest, FrameKind::Commit];
        let is_own =
            |header: &FrameHeader<'_>| header.incarnation == number && kinds.contains(&header.kind);
        each_frame(&Bytes::File(file), &is_own, &mut |frame, _, _| {
            stores.insert(frame.header.store.0);
        })?;
    }
    Ok(stores)
}

pub(super) fn find_magic(bytes: &[u8], from: usize) -> Option<usize> {
    let (first, _) = MAGIC.split_first()?;
    let mut at = from;
    loop {
        at += bytes.get(at..)?.iter().position(|byte| byte == first)?;
        if bytes.get(at..)?.starts_with(&MAGIC) {
            return Some(at);
        }
        at += 1;
    }
}

fn files_below(disk: &dyn Disk, dir: &Path) -> Result<Vec<PathBuf>> {
    let names = match disk.list(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        names => names.map_err(|error| Error::io(format!("list {}", dir.display()), error))?,
    };
    let mut files = Vec::new();
    for name in names {
        let path = dir.join(name);
        if path.is_dir() {
            files.extend(files_below(disk, &path)?);
        } else if path.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}
