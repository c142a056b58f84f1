//! Goal: what went into sections comes out of them, whatever the sizes. Method: a storage that
//! keeps records in a map, with chunks of a few bytes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::chunk::{SnapshotReader, SnapshotWriter};
use crate::error::{Error, Result};
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
            SnapshotReader::open(Arc::new(records), &manifest, "test".to_owned()).unwrap();
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
    let mut reader = SnapshotReader::open(Arc::new(records), &manifest, "test".to_owned()).unwrap();
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
