//! Arbitrary bytes through everything that reads records: frames, the payloads of all kinds, entries of
//! the index, small files.
//!
//! No input panics, and what was decoded encodes to the same bytes again, so that a record has one
//! form only.

use crate::fuzzing::metadata_decode::node;
use crate::ids::CheckpointId;
use crate::limits::FRAME_PAYLOAD_BYTES_MAX;
use crate::record::frame::FIXED_BYTES;
use crate::record::{Frame, FrameHeader, codec};
use crate::state::entries::read_entries;
use crate::storage::probe;

/// Reads `data` as a frame and as each of the payloads. Panics when a promise above is broken.
pub fn record_decode(data: &[u8]) {
    frame(data);
    if let Some(sealed) = resealed(data) {
        frame(&sealed);
    }
    payload(data);
    text(data);
}

fn frame(data: &[u8]) {
    if let Ok(header) = FrameHeader::decode(data) {
        let mut again = Vec::new();
        if FrameHeader::is_in_group(data) {
            header.encode_in_group(&mut again);
        } else {
            header.encode(&mut again);
        }
        assert_eq!(data.get(..header.header_len()), Some(again.as_slice()), "{header:?}");
        assert!(header.payload_len as usize <= FRAME_PAYLOAD_BYTES_MAX, "{header:?}");
    }
    if let Ok(frame) = Frame::decode(data) {
        let len = frame.header.header_len() + frame.payload.len();
        assert_eq!(len, data.len(), "a frame is all of its bytes");
        payload(frame.payload);
    }
}

/// The same bytes with checksums that hold, so that what lies behind them is reached.
fn resealed(data: &[u8]) -> Option<Vec<u8>> {
    let mut sealed = data.to_vec();
    let names_len: usize = data.get(12..15)?.iter().map(|len| usize::from(*len)).sum();
    let payload = data.get(FIXED_BYTES + names_len..)?;
    let len = u32::try_from(payload.len()).ok()?;
    let crcs = [len, crc32fast::hash(payload)].map(u32::to_le_bytes).concat();
    sealed.get_mut(FIXED_BYTES - 12..FIXED_BYTES - 4)?.copy_from_slice(&crcs);
    let names = data.get(FIXED_BYTES..FIXED_BYTES + names_len)?;
    let checked = sealed.get(..FIXED_BYTES - 4)?;
    let crc = crc32fast::hash(&[checked, names].concat());
    sealed.get_mut(FIXED_BYTES - 4..FIXED_BYTES)?.copy_from_slice(&crc.to_le_bytes());
    Some(sealed)
}

fn payload(data: &[u8]) {
    node(data);
    for (name, again) in probe::forms() {
        if let Some(again) = again(data) {
            assert!(again == data, "{name}: {data:?} became {again:?}");
        }
    }
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

/// A small file, as it is and as a body to which its checksum is added.
fn text(data: &[u8]) {
    let crc = crc32fast::hash(data);
    let sealed = [data, format!("crc {crc:08x}\n").as_bytes()].concat();
    for (name, again) in probe::texts() {
        for data in [data, &sealed] {
            if let Some(first) = again(data) {
                assert!(
                    again(&first).as_ref() == Some(&first),
                    "{name}: {data:?} became {first:?}"
                );
            }
        }
    }
}

fn list<T: serde::Serialize + serde::de::DeserializeOwned>(data: &[u8]) {
    if let Ok(entries) = codec::decode_list::<T>(data) {
        let room = entries.capacity() * size_of::<T>();
        assert!(room <= 64 * (data.len() + size_of::<T>()), "{room} bytes for {}", data.len());
        let mut again = Vec::new();
        let encoded = codec::encode_list(&entries, &mut again);
        assert!(encoded.is_ok() && again == data, "a list of {} entries", entries.len());
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the committed corpus is what the code writes today, and every input in it is harmless.
    //! Method: seeds are made from the frozen records; `TIDEGATE_WRITE_CORPUS=1` writes them.

    use std::collections::BTreeMap;

    use super::*;
    use crate::fuzzing::corpus;
    use crate::record::{FrameKind, Node};

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
