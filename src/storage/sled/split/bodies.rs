//! Chunk bodies out of the log.
//!
//! Looks places up in bulk, lets the system fetch ahead, and reads each body once, straight to where it
//! is wanted. A place may be out of date before it is read: what lives in a segment is moved and the
//! segment freed. So a body that is not where it should be is damage only when the index still says that
//! it is there.

use std::collections::{HashMap, VecDeque};
use std::fmt::Display;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::limits::FRAME_PAYLOAD_BYTES_MAX;
use crate::record::frame::{FIXED_BYTES, HEADER_BYTES_MAX};
use crate::record::{FrameFault, FrameHeader, RecordRef};
use crate::storage::access::ChunkStream;
use crate::storage::sled::log::{Place, segment_name};
use crate::storage::sled::split::read::Reader;

/// How many places are looked up at once.
const PLACES: usize = 256;

/// How much is fetched ahead of a stream.
const FETCHED_BYTES: u64 = 4 * 1024 * 1024;

/// The most that is asked for at once: systems fetch no more of what is longer.
const FETCH_BYTES: u64 = 512 * 1024;

/// How often a chunk is followed to another place.
const MOVES_MAX: u32 = 4;

/// What a stream knows of where its next chunks lie.
#[derive(Debug, Default)]
pub(crate) struct Trail {
    places: VecDeque<(u64, Place)>,
    /// How many of the first places are being fetched, and how many bytes that is.
    fetched: usize,
    fetched_bytes: u64,
    /// One of these chunks had to be waited for.
    is_cold: bool,
}

/// How a body was found.
struct Found {
    waited: bool,
    moved: bool,
}

impl Trail {
    fn pop(&mut self) -> Option<(u64, Place)> {
        let (id, place) = self.places.pop_front()?;
        if self.fetched > 0 {
            self.fetched -= 1;
            self.fetched_bytes = self.fetched_bytes.saturating_sub(place.len);
        }
        Some((id, place))
    }
}

impl Reader {
    /// Reads and checks one chunk; see [`RecordSource::chunk`](crate::storage::RecordSource::chunk).
    pub(crate) fn chunk(&self, record: &RecordRef, buffer: &mut Vec<u8>) -> Result<usize> {
        self.noted(record, self.lone_chunk(record, buffer))?;
        Ok(0)
    }

    fn lone_chunk(&self, record: &RecordRef, buffer: &mut Vec<u8>) -> Result<Found> {
        let place = self.place(record)?;
        buffer.resize(self.body_len(record, place)?, 0);
        self.read_wherever(record, place, buffer)
    }

    /// Reads and checks the next chunk of a stream; see
    /// [`RecordSource::next_chunk`](crate::storage::RecordSource::next_chunk).
    pub(crate) fn next_chunk(
        &self,
        upcoming: &[RecordRef],
        out: &mut [u8],
        stream: &mut ChunkStream,
    ) -> Result<usize> {
        let Some(record) = upcoming.first() else { return Ok(0) };
        self.noted(record, self.chunk_of(record, upcoming, out, stream))
    }

    fn chunk_of(
        &self,
        record: &RecordRef,
        upcoming: &[RecordRef],
        out: &mut [u8],
        stream: &mut ChunkStream,
    ) -> Result<usize> {
        let place = self.next_place(record, upcoming, &mut stream.trail)?;
        let len = self.body_len(record, place)?;
        if stream.trail.is_cold {
            self.fetch_ahead(&mut stream.trail);
        }
        let (body, put) = if let Some(out) = out.get_mut(..len) {
            stream.clear();
            (out, len)
        } else {
            stream.start = 0;
            stream.buffer.resize(len, 0);
            (stream.buffer.as_mut_slice(), 0)
        };
        let found = self.read_wherever(record, place, body)?;
        if found.moved {
            // What was moved was hardly alone in its segment.
            stream.trail = Trail::default();
        }
        stream.trail.is_cold |= found.waited;
        Ok(put)
    }

    /// Puts chunks in the order in which they lie; those that lie nowhere come first.
    pub(crate) fn put_in_order(&self, chunks: &mut [RecordRef]) -> Result<()> {
        let mut places = HashMap::with_capacity(chunks.len());
        for part in chunks.chunks(PLACES) {
            let ids: Vec<u64> = part.iter().map(|record| record.id).collect();
            let found = self.with_index(|kv| self.codec.read_places::<Place>(kv, &ids))?;
            places.extend(ids.into_iter().zip(found));
        }
        chunks.sort_by_key(|record| places.get(&record.id).copied().flatten());
        Ok(())
    }

    fn place(&self, record: &RecordRef) -> Result<Place> {
        self.with_index(|kv| self.codec.read_chunk(kv, record.id))
            .map_err(|error| self.placed(record, error))
    }

    fn next_place(
        &self,
        record: &RecordRef,
        upcoming: &[RecordRef],
        trail: &mut Trail,
    ) -> Result<Place> {
        while let Some((id, place)) = trail.pop() {
            if id == record.id {
                return Ok(place);
            }
        }
        let ids: Vec<u64> = upcoming.iter().take(PLACES).map(|record| record.id).collect();
        let places = self.with_index(|kv| self.codec.read_places(kv, &ids))?;
        let found = ids.into_iter().zip(places);
        // Asking for what is in memory costs as much as reading it: each lot shows anew that it is not.
        trail.is_cold = false;
        trail.places.extend(found.filter_map(|(id, place)| Some((id, place?))));
        match trail.pop() {
            Some((id, place)) if id == record.id => Ok(place),
            // It alone is looked for, which says what is wrong.
            _ => self.place(record),
        }
    }

    /// Asks for what the stream reads next, so that the disk works while the stream does.
    fn fetch_ahead(&self, trail: &mut Trail) {
        if trail.fetched_bytes > FETCHED_BYTES / 2 {
            return;
        }
        let mut range: Option<Place> = None;
        while trail.fetched_bytes < FETCHED_BYTES {
            let Some((_, place)) = trail.places.get(trail.fetched).copied() else { break };
            trail.fetched += 1;
            trail.fetched_bytes = trail.fetched_bytes.saturating_add(place.len);
            let longer = range.and_then(|range| joined(range, place));
            if longer.is_none() {
                self.fetch(range);
            }
            range = longer.or(Some(place));
        }
        self.fetch(range);
    }

    fn fetch(&self, range: Option<Place>) {
        let Some(range) = range else { return };
        // What cannot be opened is named when it is read.
        let path = self.dir.log().join(segment_name(range.segment));
        if let Ok(file) = self.segment_file(range.segment, &path) {
            file.will_need(range.offset, range.len);
        }
    }

    /// The length of a body whose frame lies at `place`.
    fn body_len(&self, record: &RecordRef, place: Place) -> Result<usize> {
        let headers = (FIXED_BYTES as u64)..=(HEADER_BYTES_MAX as u64);
        let body = u64::from(record.payload_len);
        let fits = place.len.checked_sub(body).is_some_and(|header| headers.contains(&header));
        let len = usize::try_from(body).ok().filter(|len| fits && *len <= FRAME_PAYLOAD_BYTES_MAX);
        len.ok_or_else(|| {
            let path = self.dir.log().join(segment_name(place.segment));
            corrupt(&path, place, format!("a frame over {body} bytes"), place.len)
        })
    }

    /// Reads a body from `place`, or from where it was moved to.
    fn read_wherever(&self, record: &RecordRef, place: Place, body: &mut [u8]) -> Result<Found> {
        let mut place = place;
        for moves in 0..MOVES_MAX {
            let error = match self.read_at(record, place, body) {
                Ok(waited) => return Ok(Found { waited, moved: moves > 0 }),
                Err(error) => error,
            };
            let now = match error.kind() {
                ErrorKind::Corrupt => self.place(record).ok().filter(|now| *now != place),
                _ => None,
            };
            place = now.ok_or(error)?;
        }
        self.read_at(record, place, body).map(|waited| Found { waited, moved: true })
    }

    /// True when the disk had to be waited for.
    fn read_at(&self, record: &RecordRef, place: Place, body: &mut [u8]) -> Result<bool> {
        let path = self.dir.log().join(segment_name(place.segment));
        let file = self.segment_file(place.segment, &path)?;
        let mut header = [0; HEADER_BYTES_MAX];
        let header_len =
            usize::try_from(place.len).unwrap_or(usize::MAX).saturating_sub(body.len());
        let header = header.get_mut(..header_len).unwrap_or_default();
        let read = file
            .read_parts_at(header, body, place.offset)
            .map_err(|error| Error::io(format!("read {}", path.display()), error))?;
        let found = header.get(..read.len).unwrap_or(header);
        let found = FrameHeader::decode(found)
            .and_then(|found| {
                let is_whole = read.len == header_len.saturating_add(body.len());
                let is_whole = is_whole && found.frame_len() == place.len;
                if !is_whole {
                    return Err(FrameFault::Short(read.len));
                }
                found.check_payload(body)?;
                Ok(found)
            })
            .map_err(|fault| corrupt(&path, place, "a valid frame", fault))?;
        let ours = found.store == self.codec.store && found.incarnation == place.segment;
        if !ours || !record.matches(&found) {
            let found = format!("record {} of {:?}", found.id, found.origin);
            return Err(corrupt(&path, place, format!("record {}", record.id), found));
        }
        Ok(read.waited)
    }
}

/// Both places as one, when one follows the other and they are not too long together.
fn joined(range: Place, place: Place) -> Option<Place> {
    let len = range.len.checked_add(place.len)?;
    let follows = range.segment == place.segment
        && range.offset.checked_add(range.len) == Some(place.offset)
        && len <= FETCH_BYTES;
    follows.then_some(Place { len, ..range })
}

fn corrupt(path: &Path, place: Place, expected: impl Display, found: impl Display) -> Error {
    Error::corrupt(path, place.offset, "a record", expected, found)
}

#[cfg(test)]
mod tests {
    //! Goal: a stream of chunks gives back what was written wherever it lies by then, and nothing else.
    //! Method: segments of bare frames and an index in memory, changed under an open stream.

    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::ids::{Attempt, CheckpointId, StoreId};
    use crate::record::{FrameKind, Origin};
    use crate::storage::disk::RealDisk;
    use crate::storage::sled::directory::StoreDir;
    use crate::storage::sled::index::IndexCodec;
    use crate::storage::sled::kv::{Batch, Kv, MemoryKv};

    const STORE: StoreId = StoreId([7; 16]);
    const CODEC: IndexCodec = IndexCodec { store: STORE, incarnation: 1 };
    const CHUNKS: u64 = 5;

    struct Log {
        dir: tempfile::TempDir,
        kv: Arc<MemoryKv>,
        reader: Reader,
    }

    fn body(id: u64) -> Vec<u8> {
        (0..1000 + id).map(|at| u8::try_from((at * id) % 251).unwrap()).collect()
    }

    fn header(id: u64, segment: u64, sequence: u64, body: &[u8]) -> FrameHeader<'static> {
        FrameHeader {
            kind: FrameKind::Chunk,
            store: STORE,
            incarnation: segment,
            sequence,
            id,
            origin: Origin {
                job: "job",
                operator: "op",
                state: "s",
                checkpoint: CheckpointId(1),
                attempt: Attempt(1),
                ..Origin::default()
            },
            payload_len: u32::try_from(body.len()).unwrap(),
            payload_crc: crc32fast::hash(body),
        }
    }

    impl Log {
        /// All chunks in one segment.
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("log")).unwrap();
            let kv = Arc::new(MemoryKv::default());
            let index: Arc<dyn Kv> = Arc::clone(&kv) as _;
            let store = StoreDir::new(dir.path(), Arc::new(RealDisk));
            let this = Self { dir, kv, reader: Reader::new(store, CODEC, index) };
            this.write(100);
            this
        }

        fn path(&self, segment: u64) -> std::path::PathBuf {
            self.dir.path().join("log").join(segment_name(segment))
        }

        /// Writes every chunk into this segment and tells the index.
        fn write(&self, segment: u64) {
            let mut bytes = Vec::new();
            let mut batch = Batch::new();
            for id in 1..=CHUNKS {
                let body = body(id);
                let frame = header(id, segment, segment + id, &body).frame(&body);
                let (offset, len) = (bytes.len() as u64, frame.len() as u64);
                CODEC.chunk(id, &Place { segment, offset, len }, &mut batch).unwrap();
                bytes.extend_from_slice(&frame);
            }
            fs::write(self.path(segment), bytes).unwrap();
            self.kv.apply(batch).unwrap();
        }

        fn free(&self, segment: u64) {
            fs::remove_file(self.path(segment)).unwrap();
            self.reader.forget(segment);
        }
    }

    fn refs() -> Vec<RecordRef> {
        (1..=CHUNKS).map(|id| RecordRef::to_record(&header(id, 100, id, &body(id)))).collect()
    }

    /// Reads the first chunk of `upcoming`, through the buffer or straight into `out`.
    fn next(log: &Log, upcoming: &[RecordRef], stream: &mut ChunkStream, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        let put = log.reader.next_chunk(upcoming, &mut out, stream).unwrap();
        out.truncate(put);
        out.extend_from_slice(stream.rest());
        out
    }

    #[test]
    fn chunks_read_back_in_any_order_with_and_without_a_buffer() {
        let (log, refs) = (Log::new(), refs());
        for len in [0, 1004, 5000] {
            let mut stream = ChunkStream::default();
            for at in [0, 1, 3, 2, 2, 4, 0] {
                assert_eq!(next(&log, &refs[at..], &mut stream, len), body(at as u64 + 1));
            }
        }
        for record in &refs {
            let mut buffer = vec![1; 7000];
            let start = log.reader.chunk(record, &mut buffer).unwrap();
            assert_eq!(buffer[start..], body(record.id));
        }
    }

    #[test]
    fn a_chunk_that_was_moved_under_a_stream_is_found_where_it_went() {
        type Free = fn(&Log);
        let frees: [(&str, Free); 3] = [
            ("removed", |log| log.free(100)),
            ("used again under another name", |log| {
                fs::rename(log.path(100), log.path(300)).unwrap();
                fs::write(log.path(300), vec![0; 9000]).unwrap();
            }),
            ("half written over", |log| {
                let mut bytes = fs::read(log.path(100)).unwrap();
                bytes[1500..].fill(3);
                fs::write(log.path(100), bytes).unwrap();
            }),
        ];
        for (name, free) in frees {
            let (log, refs) = (Log::new(), refs());
            let mut stream = ChunkStream::default();
            assert_eq!(next(&log, &refs, &mut stream, 0), body(1), "{name}");
            log.write(200);
            free(&log);
            assert_eq!(next(&log, &refs[1..], &mut stream, 0), body(2), "{name}");
            log.write(400);
            log.free(200);
            for at in 2..refs.len() {
                assert_eq!(
                    next(&log, &refs[at..], &mut stream, 2000),
                    body(at as u64 + 1),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn damage_where_the_index_says_that_a_chunk_lies_is_damage() {
        let (log, refs) = (Log::new(), refs());
        let good = fs::read(log.path(100)).unwrap();
        let frame_len = good.len() / refs.len();
        let read = || log.reader.chunk(&refs[0], &mut Vec::new()).map_err(|error| error.kind());
        for at in (0..frame_len - 10).step_by(7) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(log.path(100), bad).unwrap();
            assert_eq!(read(), Err(ErrorKind::Corrupt), "byte {at}");
        }
        for len in [0, 50, 500, frame_len - 10] {
            fs::write(log.path(100), &good[..len]).unwrap();
            assert_eq!(read(), Err(ErrorKind::Corrupt), "{len} bytes");
        }
        fs::write(log.path(100), &good).unwrap();
        assert_eq!(read(), Ok(0));
        log.free(100);
        let error = log.reader.chunk(&refs[0], &mut Vec::new()).unwrap_err();
        assert_eq!(error.corruption().unwrap().file, log.path(100));
    }

    #[test]
    fn chunks_are_put_in_the_order_in_which_they_lie() {
        let (log, refs) = (Log::new(), refs());
        let lost = RecordRef { id: 99, ..refs[0] };
        let mut chunks = vec![refs[3], refs[0], lost, refs[4], refs[1]];
        log.reader.put_in_order(&mut chunks).unwrap();
        assert_eq!(chunks, [lost, refs[0], refs[1], refs[3], refs[4]]);
    }

    #[test]
    fn another_chunk_or_a_wrong_length_is_refused_before_a_byte_is_taken() {
        let (log, refs) = (Log::new(), refs());
        let wrong = [
            RecordRef { id: 2, ..refs[0] },
            RecordRef { payload_len: 2000, ..refs[0] },
            RecordRef { payload_len: u32::MAX, ..refs[0] },
            RecordRef { payload_len: 0, ..refs[0] },
            RecordRef { id: 77, ..refs[0] },
            RecordRef { checkpoint: CheckpointId(9), ..refs[0] },
        ];
        for record in wrong {
            let mut stream = ChunkStream::default();
            let error = log.reader.next_chunk(&[record], &mut [0; 4000], &mut stream).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{record:?}");
        }
    }
}
