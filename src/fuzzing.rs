//! The bodies of the fuzz targets: arbitrary bytes through everything that reads bytes from a disk
//! (here), through configuration files (`config_file`), and as what happens to a coordinator
//! (`coordinator`).
//!
//! No input panics, and what was decoded encodes to the same bytes again, so that a record has one
//! form only. Not part of the public promises; it must never do I/O.

mod config_file;
mod coordinator;

pub use config_file::config_file;
pub use coordinator::coordinator;

use crate::ids::CheckpointId;
use crate::limits::FRAME_PAYLOAD_BYTES_MAX;
use crate::record::frame::FIXED_BYTES;
use crate::record::metadata::{CheckpointMetadata, decode_sections, encode_sections};
use crate::record::{Frame, FrameHeader, Node, codec};
use crate::state::entries::read_entries;

/// How many references sections of arbitrary bytes may turn out to use.
const REFS: usize = 4;

/// Reads `data` as a frame and as each of the payloads. Panics when a promise above is broken.
pub fn record_decode(data: &[u8]) {
    frame(data);
    if let Some(sealed) = resealed(data) {
        frame(&sealed);
    }
    payload(data);
}

fn frame(data: &[u8]) {
    if let Ok(header) = FrameHeader::decode(data) {
        let mut again = Vec::new();
        header.encode(&mut again);
        assert_eq!(data.get(..header.header_len()), Some(again.as_slice()), "{header:?}");
        assert!(header.payload_len as usize <= FRAME_PAYLOAD_BYTES_MAX, "{header:?}");
    }
    if let Ok(frame) = Frame::decode(data) {
        let len = frame.header.header_len() + frame.payload.len();
        assert_eq!(len, data.len(), "a frame is all of its bytes");
        payload(frame.payload);
    }
}

/// The same bytes with a header checksum that holds, so that what lies behind it is reached.
fn resealed(data: &[u8]) -> Option<Vec<u8>> {
    let mut sealed = data.to_vec();
    let names = data.get(FIXED_BYTES..)?;
    let names_len: usize = data.get(12..15)?.iter().map(|len| usize::from(*len)).sum();
    let checked = data.get(..FIXED_BYTES - 4)?;
    let crc = crc32fast::hash(&[checked, names.get(..names_len)?].concat());
    sealed.get_mut(FIXED_BYTES - 4..FIXED_BYTES)?.copy_from_slice(&crc.to_le_bytes());
    Some(sealed)
}

fn payload(data: &[u8]) {
    if let Some(node) = Node::decode(data) {
        assert_eq!(node.encode().ok().as_deref(), Some(data), "{node:?}");
        metadata(&node.body);
        sections(&node.body);
    }
    metadata(data);
    sections(data);
    crate::chunk::compression::fuzz(data);
    list::<u64>(data);
    list::<String>(data);
    list::<()>(data);
    list::<(CheckpointId, Option<Vec<u8>>)>(data);
    let _ = read_entries(&mut &*data, |key, value| {
        assert!(key.len() + value.len() <= data.len());
        Ok(())
    });
}

fn metadata(data: &[u8]) {
    if let Ok(metadata) = CheckpointMetadata::decode(data) {
        // A map takes its entries in any order and gives them back sorted: only the value holds.
        let again = metadata.encode().and_then(|bytes| CheckpointMetadata::decode(&bytes));
        assert_eq!(again.ok(), Some(metadata));
    }
}

fn sections(data: &[u8]) {
    for refs in 0..REFS {
        if let Ok(sections) = decode_sections(data, refs) {
            assert_eq!(encode_sections(&sections).ok().as_deref(), Some(data), "{sections:?}");
        }
    }
}

fn list<T: serde::Serialize + serde::de::DeserializeOwned>(data: &[u8]) {
    if let Ok(entries) = codec::decode_list::<T>(data) {
        let mut again = Vec::new();
        let encoded = codec::encode_list(&entries, &mut again);
        assert!(encoded.is_ok() && again == data, "a list of {} entries", entries.len());
    }
}

#[cfg(test)]
mod corpus {
    //! The committed inputs of a target.

    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    /// The corpus of `target` holds the seeds, byte for byte, and `run` finds no fault with any input
    /// in it. `TIDEGATE_WRITE_CORPUS=1` writes the seeds.
    pub(super) fn check(target: &str, seeds: &BTreeMap<String, Vec<u8>>, run: fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        for (name, bytes) in seeds {
            if std::env::var_os("TIDEGATE_WRITE_CORPUS").is_some() {
                fs::write(corpus.join(name), bytes).unwrap();
            }
            assert!(fs::read(corpus.join(name)).unwrap() == *bytes, "{name} differs");
        }
        let inputs = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path());
        let inputs: Vec<_> = inputs.map(|path| run(&fs::read(path).unwrap())).collect();
        assert!(inputs.len() >= seeds.len());
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the committed corpus is what the code writes today, and every input in it is harmless.
    //! Method: seeds are made from the frozen records; `TIDEGATE_WRITE_CORPUS=1` writes them.

    use std::collections::BTreeMap;

    use super::*;
    use crate::record::FrameKind;

    /// A valid frame of each kind, its payload alone, one cut short and one with a wrong bit.
    fn seeds() -> BTreeMap<String, Vec<u8>> {
        let mut seeds = BTreeMap::new();
        for kind in FrameKind::ALL {
            let frame = crate::record::tests::frame(*kind);
            let payload = Frame::decode(&frame).unwrap().payload.to_vec();
            let name = format!("{kind:?}").to_lowercase();
            if !payload.is_empty() {
                let body = Node::decode(&payload).map(|node| node.body);
                seeds.extend(body.map(|body| (format!("body_{name}"), body)));
                seeds.insert(format!("cut_{name}"), frame[..frame.len() - 1].to_vec());
                let mut flipped = frame.clone();
                flipped[FIXED_BYTES / 2] ^= 1;
                seeds.insert(format!("flipped_{name}"), flipped);
                seeds.insert(format!("payload_{name}"), payload);
            }
            seeds.insert(format!("frame_{name}"), frame);
        }
        let compressed = [&[0x15, 0, 0, 0, 0x1b, b'a', 1, 0, 0x50][..], b"aaaaa"].concat();
        seeds.insert("compressed_run".to_owned(), compressed);
        seeds.insert("compressed_not".to_owned(), b"\0\0\0\0as it was".to_vec());
        seeds
    }

    #[test]
    fn the_corpus_holds_what_the_code_writes_and_is_harmless() {
        corpus::check("record_decode", &seeds(), record_decode);
    }

    #[test]
    fn no_cut_and_no_flipped_bit_of_a_seed_panics() {
        for seed in seeds().values() {
            for len in 0..seed.len() {
                record_decode(&seed[..len]);
            }
            for bit in 0..seed.len() * 8 {
                let mut flipped = seed.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                record_decode(&flipped);
            }
        }
    }
}
