//! Promises about raw streams: their end, their handles, and what stays of them.

use std::io::{Read, Seek, SeekFrom, Write};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::record::codec;
use crate::storage::conformance::Verdict;
use crate::storage::conformance::work::{Pattern, Work, expect, expect_error};
use crate::storage::{
    CheckpointStorage, CheckpointedStateScope, JobStorage, StateInputStream, StreamCloser,
    StreamStateHandle,
};

const EXCLUSIVE: CheckpointedStateScope = CheckpointedStateScope::Exclusive;
const SHARED: CheckpointedStateScope = CheckpointedStateScope::Shared;

/// A job whose streams are judged.
pub(super) struct Streams {
    work: Work,
    most: Option<u64>,
}

impl Streams {
    pub(super) fn open(storage: &dyn CheckpointStorage) -> Result<Self> {
        let most = storage.capabilities().max_state_size();
        Ok(Self { work: Work::open(storage, "job")?, most })
    }

    pub(super) fn job(&self) -> &JobStorage {
        &self.work.job
    }

    /// A job with the location of checkpoint 1.
    fn begin(storage: &dyn CheckpointStorage) -> Result<Self> {
        let this = Self::open(storage)?;
        this.job().initialize_location(CheckpointId(1))?;
        Ok(this)
    }

    /// So many bytes, or the most that the storage takes.
    fn len(&self, len: u64) -> u64 {
        self.most.map_or(len, |most| len.min(most))
    }

    fn bytes(&self, seed: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.len(len)).unwrap_or_default()];
        Pattern::new(CheckpointId(seed), 0, 0).fill(&mut bytes);
        bytes
    }

    /// Writes a stream of checkpoint `id`, of which every byte depends on `seed`.
    fn write(
        &self,
        id: u64,
        scope: CheckpointedStateScope,
        (seed, len): (u64, u64),
    ) -> Result<StreamStateHandle> {
        let mut stream = self.job().worker().streams(CheckpointId(id)).create(scope)?;
        stream.write_all(&self.bytes(seed, len))?;
        written(stream.close_and_get_handle()?)
    }

    fn check(&self, handle: &StreamStateHandle, (seed, len): (u64, u64)) -> Result<()> {
        let wanted = self.bytes(seed, len);
        let is_right = handle.state_size() == u64::try_from(wanted.len()).unwrap_or(u64::MAX);
        expect(is_right, "a handle knows the size of its stream")?;
        let found = read(self.job().worker().open_state(handle)?)?;
        expect(found == wanted, format!("the stream of {handle} reads back"))
    }

    /// Completes checkpoint `id` with metadata.
    fn complete(&self, id: u64, bytes: &[u8]) -> Result<StreamStateHandle> {
        let mut stream = self.job().metadata_stream(CheckpointId(id))?;
        stream.write_all(bytes)?;
        stream.close_and_get_handle()
    }

    fn expect_completed(&self, ids: &[u64]) -> Result<()> {
        let found: Vec<u64> = self.job().raw_checkpoints()?.iter().map(|(id, _)| id.0).collect();
        expect(found == ids, format!("the host's checkpoints are {ids:?}; they are {found:?}"))
    }

    /// A stream that lies in the storage is gone; one in its handle has nothing to go.
    fn expect_gone(&self, handle: &StreamStateHandle, what: &str) -> Result<()> {
        if handle.is_inline() {
            return Ok(());
        }
        expect_error(self.job().open_state(handle), ErrorKind::NotFound, what)
    }
}

fn written(handle: Option<StreamStateHandle>) -> Result<StreamStateHandle> {
    handle.ok_or_else(|| Error::internal("not kept: a stream with bytes has a handle"))
}

fn read(mut stream: StateInputStream) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A stream to which nothing was written has no handle.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn nothing_written_gives_no_handle(storage: &dyn CheckpointStorage) -> Result<Verdict> {
    let streams = Streams::begin(storage)?;
    let worker = streams.job().worker();
    for scope in [EXCLUSIVE, SHARED] {
        let mut stream = worker.streams(CheckpointId(1)).create(scope)?;
        stream.write_all(&[])?;
        stream.flush()?;
        stream.sync()?;
        expect(stream.close_and_get_handle()?.is_none(), "nothing written gives no handle")?;
    }
    let nothing = worker.task_owned_stream()?.close_and_get_handle()?;
    expect(nothing.is_none(), "nothing written gives no handle to a task")?;
    Ok(Verdict::Kept)
}

/// A stream that is dropped or closed without a commit leaves nothing, and disturbs no other.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn a_dropped_stream_leaves_nothing(storage: &dyn CheckpointStorage) -> Result<Verdict> {
    let streams = Streams::begin(storage)?;
    let kept = streams.write(1, EXCLUSIVE, (1, 100_000))?;
    let worker = streams.job().worker();
    for scope in [EXCLUSIVE, SHARED] {
        for len in [10, 100_000] {
            let mut stream = worker.streams(CheckpointId(1)).create(scope)?;
            stream.write_all(&streams.bytes(2, len))?;
            stream.flush()?;
            drop(stream);
        }
    }
    let mut metadata = streams.job().metadata_stream(CheckpointId(1))?;
    metadata.write_all(&streams.bytes(3, 100_000))?;
    metadata.close();
    drop(metadata);
    streams.expect_completed(&[])?;
    streams.check(&kept, (1, 100_000))?;
    // What was given up is not in the way.
    let handle = streams.complete(1, b"metadata")?;
    streams.expect_completed(&[1])?;
    expect(read(streams.job().open_state(&handle)?)? == b"metadata", "metadata read back")?;
    Ok(Verdict::Kept)
}

/// A stream is committed once; after that, and after it was closed, every call is `Closed`.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn a_stream_ends_once(storage: &dyn CheckpointStorage) -> Result<Verdict> {
    let streams = Streams::begin(storage)?;
    let factory = streams.job().worker().streams(CheckpointId(1));
    for len in [10, 100_000] {
        for is_committed in [true, false] {
            let mut stream = factory.create(EXCLUSIVE)?;
            stream.write_all(&streams.bytes(1, len))?;
            if is_committed {
                let handle = written(stream.close_and_get_handle()?)?;
                stream.close();
                streams.check(&handle, (1, len))?;
            } else {
                stream.close();
                stream.close();
            }
            let write = stream.write_all(b"more").map_err(Error::from);
            expect_error(write, ErrorKind::Closed, "a write after the end")?;
            let flush = stream.flush().map_err(Error::from);
            expect_error(flush, ErrorKind::Closed, "a flush after the end")?;
            expect_error(stream.sync(), ErrorKind::Closed, "a sync after the end")?;
            let again = stream.close_and_get_handle();
            expect_error(again, ErrorKind::Closed, "a commit after the end")?;
        }
    }
    Ok(Verdict::Kept)
}

/// A stream may be closed from another thread at any moment: its commit had its handle before, or
/// fails as `Closed` and leaves nothing.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn close_from_another_thread_wins(storage: &dyn CheckpointStorage) -> Result<Verdict> {
    let streams = Streams::begin(storage)?;
    for round in 0..16_u64 {
        let id = round.saturating_add(2);
        streams.job().initialize_location(CheckpointId(id))?;
        let mut metadata = streams.job().metadata_stream(CheckpointId(id))?;
        metadata.write_all(&streams.bytes(id, 50_000))?;
        let factory = streams.job().worker().streams(CheckpointId(id));
        let mut state = factory.create(EXCLUSIVE)?;
        state.write_all(&streams.bytes(id, 50_000))?;
        let closers = [metadata.closer(), state.closer()];
        let (closed, [committed, handle]) = std::thread::scope(|scope| {
            let closing = scope.spawn(|| {
                (0..round % 4).for_each(|_| std::thread::yield_now());
                closers.each_ref().map(StreamCloser::close)
            });
            let metadata = metadata.close_and_get_handle().map(Some);
            let ends = [metadata, state.close_and_get_handle()];
            closing.join().map(|closed| (closed, ends))
        })
        .map_err(|_| Error::internal("a thread panicked"))?;
        for (closed, end) in closed.into_iter().zip([&committed, &handle]) {
            let is_closed = match end {
                Ok(_) => false,
                Err(error) if error.kind() == ErrorKind::Closed => true,
                Err(error) => return Err(Error::internal(error.to_string())),
            };
            expect(closed == is_closed, "either the close or the commit was first, for both")?;
        }
        let is_listed = streams.job().raw_checkpoints()?.iter().any(|(found, _)| found.0 == id);
        expect(is_listed == committed.is_ok(), "closed metadata are not there")?;
        if let Ok(Some(handle)) = handle {
            streams.check(&handle, (id, 50_000))?;
        }
        streams.job().dispose_location(CheckpointId(id))?;
    }
    Ok(Verdict::Kept)
}

/// The position of a stream is what was written to it, before and after a flush.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn a_position_counts_what_was_written(storage: &dyn CheckpointStorage) -> Result<Verdict> {
    let streams = Streams::begin(storage)?;
    let mut stream = streams.job().worker().streams(CheckpointId(1)).create(EXCLUSIVE)?;
    let bytes = streams.bytes(1, 150_000);
    let mut position = 0;
    for (number, part) in bytes.chunks(bytes.len().div_ceil(40).max(1)).enumerate() {
        expect(stream.position() == position, "the position counts before a write")?;
        stream.write_all(part)?;
        position += u64::try_from(part.len()).unwrap_or(u64::MAX);
        expect(stream.position() == position, "the position counts after a write")?;
        if number.is_multiple_of(3) {
            stream.flush()?;
        } else if number.is_multiple_of(7) {
            stream.sync()?;
        }
        expect(stream.position() == position, "the position counts after a flush")?;
    }
    let handle = written(stream.close_and_get_handle()?)?;
    expect(handle.state_size() == position, "the size is the last position")?;
    streams.check(&handle, (1, 150_000))?;
    Ok(Verdict::Kept)
}

/// Sixteen threads write streams of one checkpoint at once, of all sizes; each reads back.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn sixteen_threads_write_streams_at_once(storage: &dyn CheckpointStorage) -> Result<Verdict> {
    let streams = Streams::begin(storage)?;
    let sizes = [1, 100, 20_480, 20_481, 65_536, 65_537, 200_000];
    let run = |thread: u64| -> Result<Vec<_>> {
        let scope = if thread.is_multiple_of(2) { EXCLUSIVE } else { SHARED };
        let write = |(number, len)| {
            let content = (thread * 100 + number, len);
            Ok((streams.write(1, scope, content)?, content))
        };
        (0..).zip(sizes).map(write).collect()
    };
    let written = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16).map(|thread| scope.spawn(move || run(thread))).collect();
        let panicked = |_| Err(Error::internal("a writer panicked"));
        let joined = threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked));
        joined.collect::<Result<Vec<_>>>()
    })?;
    let mut identities = std::collections::BTreeSet::new();
    for (handle, content) in written.iter().flatten() {
        streams.check(handle, *content)?;
        expect(identities.insert(handle.identity()), "each stream has an identity of its own")?;
    }
    Ok(Verdict::Kept)
}

/// A handle is the same after it was serialised and, where the storage is durable, opens its stream
/// at the next start too.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn a_handle_outlives_its_process(storage: &dyn CheckpointStorage) -> Result<Verdict> {
    let streams = Streams::begin(storage)?;
    let mut saved = Vec::new();
    for (seed, (scope, len)) in (1..).zip([(EXCLUSIVE, 10), (EXCLUSIVE, 90_000), (SHARED, 90_000)])
    {
        let handle = streams.write(1, scope, (seed, len))?;
        let mut bytes = Vec::new();
        codec::encode_into(&handle, &mut bytes)?;
        saved.push((bytes, handle, (seed, len)));
    }
    let metadata = streams.complete(1, &streams.bytes(9, 80_000))?;
    let check = |streams: &Streams| -> Result<()> {
        for (bytes, handle, content) in &saved {
            let again: StreamStateHandle = codec::decode(bytes)?;
            let same = again == *handle && again.identity() == handle.identity();
            expect(same, "a handle survives its serialisation")?;
            streams.check(&again, *content)?;
        }
        let listed = streams.job().raw_checkpoints()?;
        expect(listed == [(CheckpointId(1), metadata.clone())], "the metadata are listed")?;
        streams.check(&metadata, (9, 80_000))
    };
    check(&streams)?;
    drop(streams);
    let streams = Streams::open(storage)?;
    check(&streams)?;
    let next = streams.job().access().next_checkpoint_id().0;
    expect(next > 1, format!("the id of a host's checkpoint is not given again; next is {next}"))?;
    streams.work.check_all(&[])?;
    Ok(Verdict::Kept)
}

/// What is discarded is gone, and nothing else; once more is no error.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn discarding_a_stream_removes_exactly_its_own(
    storage: &dyn CheckpointStorage,
) -> Result<Verdict> {
    let streams = Streams::begin(storage)?;
    let job = streams.job();
    let write = |seed| Ok((streams.write(1, EXCLUSIVE, (seed, 50_000))?, (seed, 50_000)));
    let written = (1..=6).map(write).collect::<Result<Vec<_>>>()?;
    let (gone, kept) = written.split_at(3);
    for (handle, _) in gone {
        job.discard_state(handle)?;
        job.discard_state(handle)?;
        streams.expect_gone(handle, "a discarded stream")?;
    }
    for (handle, content) in kept {
        streams.check(handle, *content)?;
        let refused = job.worker().discard_task_owned(handle);
        expect_error(refused, ErrorKind::Invalid, "a task that discards a checkpoint's stream")?;
    }
    job.dispose_location(CheckpointId(1))?;
    job.dispose_location(CheckpointId(1))?;
    for (handle, _) in kept {
        streams.expect_gone(handle, "a stream of a disposed checkpoint")?;
        job.discard_state(handle)?;
    }
    Ok(Verdict::Kept)
}

/// Metadata are there once their stream is committed, all of them, zero bytes included, and are
/// written once.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn metadata_are_visible_once_closed(storage: &dyn CheckpointStorage) -> Result<Verdict> {
    let streams = Streams::begin(storage)?;
    let job = streams.job();
    let mut stream = job.metadata_stream(CheckpointId(1))?;
    let other = job.metadata_stream(CheckpointId(1));
    expect_error(other, ErrorKind::Conflict, "metadata that are being written")?;
    let bytes = streams.bytes(1, 70_000);
    stream.write_all(&bytes)?;
    stream.sync()?;
    streams.expect_completed(&[])?;
    let handle = stream.close_and_get_handle()?;
    expect(job.raw_checkpoints()? == [(CheckpointId(1), handle.clone())], "it is listed")?;
    expect(read(job.open_state(&handle)?)? == bytes, "metadata read back")?;
    expect_error(stream.close_and_get_handle(), ErrorKind::Closed, "a second commit")?;
    let again = job.metadata_stream(CheckpointId(1));
    expect_error(again, ErrorKind::Conflict, "metadata that are there")?;
    let again = job.initialize_location(CheckpointId(1));
    expect_error(again, ErrorKind::Conflict, "the location of a complete checkpoint")?;
    let nowhere = job.metadata_stream(CheckpointId(5));
    expect_error(nowhere, ErrorKind::NotFound, "metadata without a location")?;
    job.initialize_location(CheckpointId(2))?;
    job.initialize_location(CheckpointId(2))?;
    let empty = job.metadata_stream(CheckpointId(2))?.close_and_get_handle()?;
    expect(empty.state_size() == 0, "metadata of zero bytes have no bytes")?;
    expect(read(job.open_state(&empty)?)?.is_empty(), "metadata of zero bytes read back")?;
    streams.expect_completed(&[1, 2])?;
    job.dispose_location(CheckpointId(1))?;
    streams.expect_completed(&[2])?;
    Ok(Verdict::Kept)
}

/// Metadata of an earlier start of the job are refused once there is a later one.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn an_older_attempt_completes_no_metadata(storage: &dyn CheckpointStorage) -> Result<Verdict> {
    let _other = Work::open(storage, "other")?;
    let earlier = Streams::begin(storage)?;
    let mut stream = earlier.job().metadata_stream(CheckpointId(1))?;
    stream.write_all(b"late")?;
    drop(earlier);
    let now = Streams::open(storage)?;
    let late = stream.close_and_get_handle();
    expect_error(late, ErrorKind::Conflict, "metadata of an earlier start")?;
    now.expect_completed(&[])?;
    let next = now.job().access().next_checkpoint_id();
    now.job().initialize_location(next)?;
    now.complete(next.0, b"now")?;
    now.expect_completed(&[next.0])?;
    Ok(Verdict::Kept)
}

/// A shared stream, and one that a task owns, outlive the checkpoint beside which they were written,
/// and the start of the job.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn shared_and_task_owned_streams_outlive_checkpoints(
    storage: &dyn CheckpointStorage,
) -> Result<Verdict> {
    let streams = Streams::begin(storage)?;
    let shared = streams.write(1, SHARED, (1, 60_000))?;
    let exclusive = streams.write(1, EXCLUSIVE, (2, 60_000))?;
    let mut stream = streams.job().worker().task_owned_stream()?;
    stream.write_all(&streams.bytes(3, 60_000))?;
    let owned = written(stream.close_and_get_handle()?)?;
    streams.complete(1, b"metadata")?;
    streams.job().dispose_location(CheckpointId(1))?;
    streams.expect_gone(&exclusive, "an exclusive stream of a disposed checkpoint")?;
    streams.check(&shared, (1, 60_000))?;
    streams.check(&owned, (3, 60_000))?;
    drop(streams);
    let streams = Streams::open(storage)?;
    streams.check(&shared, (1, 60_000))?;
    streams.check(&owned, (3, 60_000))?;
    let worker = streams.job().worker();
    let refused = worker.discard_task_owned(&shared);
    expect_error(refused, ErrorKind::Invalid, "a task that discards a shared stream")?;
    worker.discard_task_owned(&owned)?;
    worker.discard_task_owned(&owned)?;
    streams.expect_gone(&owned, "a discarded task-owned stream")?;
    streams.job().discard_state(&shared)?;
    streams.expect_gone(&shared, "a discarded shared stream")?;
    Ok(Verdict::Kept)
}

/// Streams of a completed checkpoint of the crate's stay with it, and go with it.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn streams_go_with_the_checkpoint_of_the_crate(
    storage: &dyn CheckpointStorage,
) -> Result<Verdict> {
    let streams = Streams::open(storage)?;
    let pending = streams.work.begin(1)?;
    streams.job().initialize_location(CheckpointId(1))?;
    let stream = streams.write(1, EXCLUSIVE, (1, 60_000))?;
    streams.work.commit_begun(&*pending, 1)?;
    drop((pending, streams));
    let streams = Streams::open(storage)?;
    streams.work.check_all(&[1])?;
    streams.check(&stream, (1, 60_000))?;
    let refused = streams.job().dispose_location(CheckpointId(1));
    expect_error(refused, ErrorKind::Conflict, "a host that disposes of the crate's checkpoint")?;
    streams.work.discard(&[1])?;
    streams.expect_gone(&stream, "a stream of a discarded checkpoint")?;
    streams.work.check_all(&[])?;
    Ok(Verdict::Kept)
}

/// A read after a seek gives the bytes of that place.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn a_seek_lands_on_the_right_byte(storage: &dyn CheckpointStorage) -> Result<Verdict> {
    let streams = Streams::begin(storage)?;
    let content = (1, 200_000);
    let handle = streams.write(1, EXCLUSIVE, content)?;
    let bytes = streams.bytes(content.0, content.1);
    let len = handle.state_size();
    let mut input = streams.job().worker().open_state(&handle)?;
    let places = [0, len / 2, 65_535, 65_536, 131_071, 1, len.saturating_sub(1), len, len + 5];
    for at in places {
        let from = bytes.get(usize::try_from(at).unwrap_or(usize::MAX)..).unwrap_or_default();
        for to in [SeekFrom::Start(at), SeekFrom::Current(0)] {
            expect(input.seek(to)? == at, "a seek says where it is")?;
        }
        let mut found = Vec::new();
        (&mut input).take(10).read_to_end(&mut found)?;
        let wanted = from.get(..10).unwrap_or(from);
        expect(found == wanted, format!("the bytes at {at} are read after a seek"))?;
    }
    let last = bytes.last().copied().into_iter().collect::<Vec<u8>>();
    input.seek(SeekFrom::End(-1))?;
    expect(read(input)? == last, "a seek from the end lands on the last byte")?;
    Ok(Verdict::Kept)
}

/// A handle of which any bit was changed is refused, when it is read back or when it is opened.
///
/// # Errors
/// The first thing that does not hold, or what the storage answers.
pub fn a_changed_handle_is_refused(storage: &dyn CheckpointStorage) -> Result<Verdict> {
    let streams = Streams::begin(storage)?;
    for len in [40, 60_000] {
        let handle = streams.write(1, SHARED, (1, len))?;
        let mut bytes = Vec::new();
        codec::encode_into(&handle, &mut bytes)?;
        // All of a handle without the bytes of a large stream, which are alike.
        for bit in 0..bytes.len().min(300) * 8 {
            let mut changed = bytes.clone();
            if let Some(byte) = changed.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
            let opened = codec::decode::<StreamStateHandle>(&changed)
                .and_then(|handle| streams.job().open_state(&handle));
            expect(opened.is_err(), format!("a handle with bit {bit} changed is refused"))?;
        }
        streams.check(&handle, (1, len))?;
    }
    let other = Work::open(storage, "other")?;
    let foreign = streams.write(1, SHARED, (1, 60_000))?;
    if !foreign.is_inline() {
        let opened = other.job.open_state(&foreign);
        expect_error(opened, ErrorKind::Invalid, "a handle of another job")?;
        let discarded = other.job.discard_state(&foreign);
        expect_error(discarded, ErrorKind::Invalid, "a handle of another job")?;
        streams.check(&foreign, (1, 60_000))?;
    }
    Ok(Verdict::Kept)
}
