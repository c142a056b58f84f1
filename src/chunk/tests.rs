//! Goal: what went into sections comes out of them, whatever the sizes. Method: a storage that
//! keeps records in a map, with chunks of a few bytes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::chunk::{SnapshotReader, SnapshotWriter, TaskSnapshot};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Attempt, CheckpointId};
use crate::record::{Node, RecordRef};
use crate::state::{SectionKey, SectionKind, SnapshotSink, SnapshotSource};
use crate::storage::{RecordSource, RecordWriter};

const CHUNK: usize = 4096;

#[derive(Default, Clone)]
struct Records(Arc<Mutex<BTreeMap<u64, Vec<u8>>>>);

impl Records {
    fn put(&self, body: &[u8]) -> RecordRef {
        let mut map = self.0.lock().unwrap();
        let id = map.len() as u64 + 1;
        map.insert(id, body.to_vec());
        RecordRef { attempt: Attempt(1), ..RecordRef::unreadable(id, CheckpointId(1)) }
    }
}

impl RecordWriter for Records {
    fn chunk_bytes(&self) -> usize {
        CHUNK
    }

    fn chunk(&mut self, _state: &str, _index: u32, body: &[u8]) -> Result<RecordRef> {
        assert!(!body.is_empty() && body.len() <= CHUNK);
        Ok(self.put(body))
    }

    fn finish(self: Box<Self>, manifest: &Node) -> Result<RecordRef> {
        Ok(self.put(&manifest.encode()?))
    }
}

impl RecordSource for Records {
    fn node(&self, record: &RecordRef) -> Result<Node> {
        Ok(Node::decode(&self.0.lock().unwrap()[&record.id]).unwrap())
    }

    fn chunk(&self, record: &RecordRef, buffer: &mut Vec<u8>) -> Result<usize> {
        *buffer = [b"head", self.0.lock().unwrap()[&record.id].as_slice()].concat();
        Ok(4)
    }
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

fn key(index: u32) -> SectionKey {
    SectionKey::new(SectionKind::Raw, "s").with_index(index)
}

const SIZES: [usize; 9] = [0, 1, 2048, 2049, 4095, 4096, 4097, 8192, 20_000];

fn written(step: usize) -> (Records, RecordRef) {
    let records = Records::default();
    let mut writer = SnapshotWriter::new(Box::new(records.clone()));
    for (index, size) in (0..).zip(SIZES) {
        let body = bytes(size);
        let write = &mut |out: &mut dyn std::io::Write| {
            for part in body.chunks(step) {
                out.write_all(part)?;
            }
            Ok(())
        };
        writer.section(&key(index), write).unwrap();
    }
    let snapshot = writer.finish().unwrap();
    assert_eq!(snapshot.state_bytes(), SIZES.iter().sum::<usize>() as u64);
    (records, snapshot.manifest)
}

#[test]
fn sections_of_any_size_come_back_however_they_were_written() {
    for step in [1, 7, 4096, 100_000] {
        let (records, manifest) = written(step);
        let mut reader =
            SnapshotReader::open(Arc::new(records), (None, &manifest), "test".to_owned()).unwrap();
        for (index, size) in (0..).zip(SIZES) {
            assert_eq!(reader.next_section().unwrap(), Some(key(index)));
            let mut body = Vec::new();
            reader.body().read_to_end(&mut body).unwrap();
            assert!(body == bytes(size), "{size} bytes in steps of {step}");
        }
        assert_eq!(reader.next_section().unwrap(), None);
    }
}

#[test]
fn unread_and_half_read_sections_are_skipped() {
    let (records, manifest) = written(100);
    let mut reader =
        SnapshotReader::open(Arc::new(records), (None, &manifest), "test".to_owned()).unwrap();
    while reader.next_section().unwrap() != Some(key(7)) {}
    reader.body().read_exact(&mut [0; 100]).unwrap();
    assert_eq!(reader.next_section().unwrap(), Some(key(8)));
    let mut body = Vec::new();
    reader.body().read_to_end(&mut body).unwrap();
    assert_eq!(body, bytes(20_000));
}

#[test]
fn a_failed_section_fails_the_snapshot() {
    let mut writer = SnapshotWriter::new(Box::new(Records::default()));
    let failed = writer.section(&key(0), &mut |_| Err(Error::invalid("no")));
    assert!(failed.is_err());
    assert!(writer.section(&key(1), &mut |_| Ok(())).is_err());
    assert!(writer.finish().is_err());
}

#[test]
fn a_section_key_is_used_once() {
    let mut writer = SnapshotWriter::new(Box::new(Records::default()));
    writer.section(&key(0), &mut |_| Ok(())).unwrap();
    assert!(writer.section(&key(0), &mut |_| Ok(())).is_err());
}

/// Bytes that lz4 makes shorter, and bytes that it does not.
fn parts() -> [Vec<u8>; 2] {
    let mut word = 0x2545_f491_4f6c_dd1d_u64;
    let mut noise = || {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        word.to_le_bytes()[0]
    };
    [b"abcd".repeat(5000), (0..20_000).map(|_| noise()).collect()]
}

fn compressed(parts: &[Vec<u8>]) -> (Records, TaskSnapshot) {
    let records = Records::default();
    let writer = SnapshotWriter::new(Box::new(records.clone()));
    let mut writer = writer.compressing().unwrap();
    for (index, part) in (0..).zip(parts) {
        writer.section(&key(index), &mut |out| Ok(out.write_all(part)?)).unwrap();
    }
    (records, writer.finish().unwrap())
}

fn read_all(records: &Records, manifest: &RecordRef) -> Result<Vec<Vec<u8>>> {
    let records = Arc::new(records.clone());
    let mut reader = SnapshotReader::open(records, (None, manifest), "test".to_owned())?;
    let mut bodies = Vec::new();
    while reader.next_section()?.is_some() {
        let mut body = Vec::new();
        reader.body().read_to_end(&mut body)?;
        bodies.push(body);
    }
    Ok(bodies)
}

#[test]
fn compressed_sections_come_back_and_count_as_what_is_stored() {
    let all: Vec<_> = SIZES.map(bytes).into_iter().chain(parts()).collect();
    let (records, snapshot) = compressed(&all);
    assert!(read_all(&records, &snapshot.manifest).unwrap() == all);
    let state: usize = all.iter().map(Vec::len).sum();
    let measured = snapshot.measurements();
    assert_eq!(measured.state_bytes, state as u64);
    // What repeats is shorter by far; the noise has a few bytes more.
    assert!(measured.checkpointed_bytes < state as u64 - 50_000, "{measured:?}");
    assert!(measured.checkpointed_bytes > 20_000, "{measured:?}");
}

#[test]
fn damage_in_a_compressed_chunk_is_an_error_or_is_found_by_its_length() {
    let (records, snapshot) = compressed(&parts());
    let chunks: Vec<u64> = records.0.lock().unwrap().keys().copied().collect();
    for id in chunks.into_iter().filter(|id| *id != snapshot.manifest.id) {
        let good = records.0.lock().unwrap()[&id].clone();
        let lengths = [0, 1, 3, u32::MAX];
        let mut bad: Vec<Vec<u8>> = lengths
            .map(|len| [len.to_le_bytes().as_slice(), &good[4..]].concat())
            .into_iter()
            .filter(|bad| *bad != good)
            .collect();
        bad.extend([0, 3, 4, good.len() - 1].map(|len| good[..len].to_vec()));
        for bad in bad {
            records.0.lock().unwrap().insert(id, bad);
            let error = read_all(&records, &snapshot.manifest).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "chunk {id}");
        }
        records.0.lock().unwrap().insert(id, good);
    }
    assert!(read_all(&records, &snapshot.manifest).is_ok());
}
