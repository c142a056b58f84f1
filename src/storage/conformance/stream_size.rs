//! The promise about the size of a stream: a maximum is kept, and without one the stream takes little
//! memory.

use std::io::{Read, Write};

use crate::error::{ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::storage::conformance::Verdict;
use crate::storage::conformance::size::Memory;
use crate::storage::conformance::streams::Streams;
use crate::storage::conformance::work::{Pattern, expect, expect_error};
use crate::storage::{CheckpointStorage, CheckpointedStateScope, JobStorage, StreamStateHandle};

const PART_BYTES: usize = 256 * 1024;

/// A stream of three times the declared maximum fails as `Invalid` at its commit and leaves nothing.
/// Without a maximum one of 256 MiB, 4 GiB with `TIDEGATE_LARGE=1`, is written and read in at most 32
/// MiB of memory, unless the storage says that its memory grows.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn a_large_stream_fits_or_fails_cleanly(storage: &dyn CheckpointStorage) -> Result<Verdict> {
    let streams = Streams::open(storage)?;
    let job = streams.job();
    let id = CheckpointId(1);
    job.initialize_location(id)?;
    if let Some(most) = storage.capabilities().max_state_size() {
        let too_large = write(job, id, most.saturating_mul(3), &mut || Ok(()));
        expect_error(too_large, ErrorKind::Invalid, "a stream of three times the maximum")?;
        let handle = write(job, id, most, &mut || Ok(()))?;
        read(job, &handle, most, &mut || Ok(()))?;
        return Ok(Verdict::Kept);
    }
    let memory = Memory::new(storage);
    let len = memory.large();
    let handle = write(job, id, len, &mut || memory.look())?;
    read(job, &handle, len, &mut || memory.look())?;
    job.discard_state(&handle)?;
    Ok(memory.verdict())
}

fn write(
    job: &JobStorage,
    id: CheckpointId,
    len: u64,
    look: &mut dyn FnMut() -> Result<()>,
) -> Result<StreamStateHandle> {
    let mut stream = job.worker().streams(id).create(CheckpointedStateScope::Exclusive)?;
    let mut pattern = Pattern::new(id, 0, 0);
    let mut part = vec![0; PART_BYTES];
    let mut left = len;
    while left > 0 {
        part.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        pattern.fill(&mut part);
        stream.write_all(&part)?;
        left = left.saturating_sub(u64::try_from(part.len()).unwrap_or(u64::MAX));
        look()?;
    }
    let handle = stream.close_and_get_handle()?;
    look()?;
    handle.ok_or_else(|| crate::error::Error::internal("not kept: a large stream has a handle"))
}

fn read(
    job: &JobStorage,
    handle: &StreamStateHandle,
    len: u64,
    look: &mut dyn FnMut() -> Result<()>,
) -> Result<()> {
    let mut input = job.open_state(handle)?;
    let mut pattern = Pattern::new(CheckpointId(1), 0, 0);
    let (mut part, mut wanted) = (vec![0; PART_BYTES], vec![0; PART_BYTES]);
    let mut left = len;
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(usize::MAX).min(PART_BYTES);
        part.truncate(now);
        wanted.truncate(now);
        input.read_exact(&mut part)?;
        pattern.fill(&mut wanted);
        expect(part == wanted, format!("a large stream reads back, {left} bytes before its end"))?;
        left = left.saturating_sub(u64::try_from(now).unwrap_or(u64::MAX));
        look()?;
    }
    expect(input.read(&mut [0; 1])? == 0, "a large stream ends where it ended")
}
