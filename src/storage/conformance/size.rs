//! Promises about size: a maximum is kept, and without one only a chunk at a time is in memory.

use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::record::Node;
use crate::storage::CheckpointStorage;
use crate::storage::conformance::Verdict;
use crate::storage::conformance::work::{Pattern, Work, commit_node, expect, expect_error, task};

/// The most that the memory of the process grows while a state of any size is written and read.
const MEMORY_BYTES_MAX: u64 = 32 << 20;

/// A state of three times the declared maximum is refused as `Invalid`, and the job goes on.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn a_state_above_the_maximum_fails_cleanly(storage: &dyn CheckpointStorage) -> Result<Verdict> {
    let Some(most) = storage.capabilities().max_state_size() else {
        return Ok(Verdict::Skipped("the storage declares no maximum".to_owned()));
    };
    let work = Work::open(storage, "job")?;
    work.commit(1)?;
    let pending = work.begin(2)?;
    let refused = write_large(&work, 2, most.saturating_mul(3), &mut || Ok(()));
    expect_error(refused, ErrorKind::Invalid, "a state of three times the maximum")?;
    drop(pending);
    work.check_all(&[1])?;
    work.commit(3)?;
    work.check_all(&[1, 3])?;
    Ok(Verdict::Kept)
}

/// A large state is written and read in at most 32 MiB of memory: 256 MiB of state, 4 GiB with
/// `TIDEGATE_LARGE=1`. One that says that its memory grows has to write and read it all the same.
///
/// The memory is that of the whole process; what runs beside it counts too.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn a_large_state_streams_in_little_memory(storage: &dyn CheckpointStorage) -> Result<Verdict> {
    let capabilities = storage.capabilities();
    if let Some(most) = capabilities.max_state_size() {
        return Ok(Verdict::Skipped(format!("the storage takes states up to {most} bytes")));
    }
    let work = Work::open(storage, "job")?;
    work.commit(1)?;
    work.check_all(&[1])?;
    let memory = Memory::new(storage);
    let len = memory.large();
    write_large(&work, 2, len, &mut || memory.look())?;
    read_large(&work, 2, len, &mut || memory.look())?;
    work.discard(&[2])?;
    work.check_all(&[1])?;
    Ok(memory.verdict())
}

/// The memory of the process while something large is written and read.
#[derive(Debug)]
pub(super) struct Memory {
    /// Bytes before, where they count and can be measured.
    before: Option<u64>,
    is_bounded: bool,
    large: u64,
}

impl Memory {
    /// Remembers the memory of now.
    pub(super) fn new(storage: &dyn CheckpointStorage) -> Self {
        let is_bounded = storage.capabilities().is_memory_bounded();
        let is_large = std::env::var_os("TIDEGATE_LARGE").is_some_and(|asked| asked == "1");
        let large = if is_large { 4 << 30 } else { 256 << 20 };
        Self { before: resident_bytes().filter(|_| is_bounded), is_bounded, large }
    }

    /// How many bytes are large.
    pub(super) fn large(&self) -> u64 {
        self.large
    }

    /// Looks whether the memory has grown too far.
    pub(super) fn look(&self) -> Result<()> {
        let Some(before) = self.before else { return Ok(()) };
        let grown = resident_bytes().unwrap_or_default().saturating_sub(before);
        let promise = format!("{} bytes stream in {MEMORY_BYTES_MAX} bytes of memory", self.large);
        expect(grown <= MEMORY_BYTES_MAX, format!("{promise}; it grew by {grown} bytes"))
    }

    /// What came of it, when every look went well.
    pub(super) fn verdict(&self) -> Verdict {
        if self.before.is_some() {
            return Verdict::Kept;
        }
        let why = if self.is_bounded {
            "memory cannot be measured here"
        } else {
            "the storage says that its memory grows"
        };
        Verdict::Skipped(format!("{} bytes were written and read back, but {why}", self.large))
    }
}

/// Commits a checkpoint of one state, looking at the memory every few chunks.
fn write_large(work: &Work, id: u64, len: u64, look: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    let pending = work.begin(id)?;
    let mut writer = pending.writer(&task(0)?)?;
    let mut chunk = vec![0; writer.chunk_bytes()];
    let mut pattern = Pattern::new(CheckpointId(id), 0, 0);
    let mut node = Node::default();
    let mut left = len;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        chunk.truncate(most);
        pattern.fill(&mut chunk);
        node.refs.push(writer.chunk("large", 0, &chunk)?);
        left = left.saturating_sub(u64::try_from(most).unwrap_or(u64::MAX));
        if node.refs.len().is_multiple_of(16) {
            look()?;
        }
    }
    let manifest = writer.finish(&node)?;
    commit_node(&*pending, vec![manifest])?;
    look()
}

/// Reads it back and compares every byte.
fn read_large(work: &Work, id: u64, len: u64, look: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    let access = work.job.access();
    let commit = access.node(&work.record(id)?)?;
    let manifest = commit.refs.first().copied();
    let manifest = manifest.ok_or_else(|| Error::internal("not kept: the task is there"))?;
    let mut pattern = Pattern::new(CheckpointId(id), 0, 0);
    let (mut buffer, mut wanted) = (Vec::new(), Vec::new());
    let mut read = 0_u64;
    for (number, chunk) in (0_u32..).zip(&access.node(&manifest)?.refs) {
        let at = access.chunk(chunk, &mut buffer)?;
        let found = buffer.get(at..).unwrap_or_default();
        wanted.resize(found.len(), 0);
        pattern.fill(&mut wanted);
        expect(found == wanted, format!("chunk {number} of a large state reads back"))?;
        read += u64::try_from(found.len()).unwrap_or(u64::MAX);
        if number.is_multiple_of(16) {
            look()?;
        }
    }
    expect(read == len, format!("{len} bytes read back; it is {read}"))
}

/// The memory that this process occupies, where the system says so.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
