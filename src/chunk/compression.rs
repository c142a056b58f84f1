//! Chunks in compressed form: the length of what was compressed, in four bytes, then lz4; or a length
//! of 0, then the bytes as they were, when lz4 does not make them shorter.
//!
//! Equal bytes have equal forms, so that compressed chunks are shared like others. Without the feature
//! `lz4` nothing is compressed and no compressed chunk is read.

use crate::error::{Error, ErrorKind, Result};
use crate::limits::FRAME_PAYLOAD_BYTES_MAX;

/// Bytes in front of each compressed chunk.
pub(super) const PREFIX_BYTES: usize = 4;

/// No byte of lz4 stands for more bytes than these.
const EXPANSION_MAX: usize = 255;

/// Puts chunks into compressed form.
pub(super) struct Compressor {
    buffer: Vec<u8>,
    table: lz4::Table,
}

impl Compressor {
    /// # Errors
    /// `Invalid` without the feature `lz4`.
    pub(super) fn new() -> Result<Self> {
        if cfg!(feature = "lz4") {
            return Ok(Self { buffer: Vec::new(), table: lz4::new_table() });
        }
        Err(Error::invalid("snapshots are compressed only with the feature `lz4` of tidegate"))
    }

    /// The compressed form of a chunk.
    pub(super) fn form(&mut self, body: &[u8]) -> &[u8] {
        let len = self.compress(body).unwrap_or_else(|| {
            self.buffer.clear();
            self.buffer.extend_from_slice(&[0; PREFIX_BYTES]);
            self.buffer.extend_from_slice(body);
            self.buffer.len()
        });
        self.buffer.get(..len).unwrap_or_default()
    }

    /// Compresses into the buffer and returns the length of the form; `None` when that does not make
    /// the chunk shorter.
    fn compress(&mut self, body: &[u8]) -> Option<usize> {
        let raw_len = u32::try_from(body.len()).ok()?;
        let most = PREFIX_BYTES.saturating_add(lz4::longest(body.len()));
        if self.buffer.len() < most {
            self.buffer.resize(most, 0);
        }
        let (prefix, out) = self.buffer.split_first_chunk_mut::<PREFIX_BYTES>()?;
        *prefix = raw_len.to_le_bytes();
        let len = lz4::compress(body, out, &mut self.table)?;
        (len < body.len()).then(|| PREFIX_BYTES.saturating_add(len))
    }
}

/// Whether compressed chunks can be read.
///
/// # Errors
/// `Incompatible` without the feature `lz4`.
pub(super) fn check_readable() -> Result<()> {
    if cfg!(feature = "lz4") {
        return Ok(());
    }
    let message = "compressed snapshots are read only with the feature `lz4` of tidegate";
    Err(Error::new(ErrorKind::Incompatible, message))
}

/// Bytes out of their compressed form, which may not be more than `most`, into `out`.
///
/// # Errors
/// `Corrupt` when the form is not one of so many bytes; `Incompatible` without the feature `lz4`.
pub(super) fn restore(form: &[u8], most: u64, out: &mut Vec<u8>) -> Result<()> {
    let damaged = |why: String| {
        Error::new(ErrorKind::Corrupt, "a compressed chunk is damaged").with_source(why)
    };
    let Some((raw_len, rest)) = form.split_first_chunk::<PREFIX_BYTES>() else {
        return Err(damaged(format!("it has {} bytes", form.len())));
    };
    let raw_len = u32::from_le_bytes(*raw_len);
    let is_compressed = raw_len > 0;
    let len = if is_compressed { u64::from(raw_len) } else { rest.len() as u64 };
    if len > most || len > FRAME_PAYLOAD_BYTES_MAX as u64 {
        return Err(damaged(format!("it holds {len} bytes where {most} are left")));
    }
    if is_compressed {
        return decompress(rest, raw_len, out);
    }
    out.clear();
    out.extend_from_slice(rest);
    Ok(())
}

fn decompress(packed: &[u8], raw_len: u32, out: &mut Vec<u8>) -> Result<()> {
    check_readable()?;
    let damaged = |why: String| {
        Error::new(ErrorKind::Corrupt, "a compressed chunk is damaged").with_source(why)
    };
    let len = usize::try_from(raw_len).unwrap_or(usize::MAX);
    if len > packed.len().saturating_mul(EXPANSION_MAX) {
        return Err(damaged(format!("{} bytes cannot hold {raw_len}", packed.len())));
    }
    out.resize(len, 0);
    let read = lz4::decompress(packed, out).map_err(damaged)?;
    if read != len {
        return Err(damaged(format!("it holds {read} bytes and claims {raw_len}")));
    }
    Ok(())
}

#[cfg(feature = "lz4")]
mod lz4 {
    //! The block format of lz4.

    use lz4_flex::block;

    pub(super) use block::{CompressTable as Table, get_maximum_output_size as longest};

    /// One kind of table, whatever the length: equal bytes are compressed equally.
    pub(super) fn new_table() -> Table {
        Table::large()
    }

    pub(super) fn compress(body: &[u8], out: &mut [u8], table: &mut Table) -> Option<usize> {
        block::compress_into_with_table(body, out, table).ok()
    }

    pub(super) fn decompress(packed: &[u8], out: &mut [u8]) -> Result<usize, String> {
        block::decompress_into(packed, out).map_err(|error| error.to_string())
    }
}

#[cfg(not(feature = "lz4"))]
mod lz4 {
    //! Stands where nothing is compressed.

    pub(super) struct Table;

    pub(super) fn new_table() -> Table {
        Table
    }

    pub(super) fn longest(_: usize) -> usize {
        0
    }

    pub(super) fn compress(_: &[u8], _: &mut [u8], _: &mut Table) -> Option<usize> {
        None
    }

    pub(super) fn decompress(_: &[u8], _: &mut [u8]) -> Result<usize, String> {
        Err("lz4 is not built in".to_owned())
    }
}

/// Takes arbitrary bytes for a compressed chunk and panics when reading it breaks a promise.
#[cfg(any(test, fuzzing, feature = "test-util"))]
pub(crate) fn fuzz(form: &[u8]) {
    /// The longest chunk that is taken apart, so that an input takes little time.
    const MOST: u64 = 1 << 20;

    let mut out = Vec::new();
    if restore(form, MOST, &mut out).is_ok() {
        assert!(out.len() as u64 <= MOST, "{} bytes", out.len());
        if let Ok(mut compressor) = Compressor::new() {
            let form = compressor.form(&out).to_vec();
            let mut again = Vec::new();
            assert!(restore(&form, out.len() as u64, &mut again).is_ok() && again == out);
        }
    }
}

#[cfg(all(test, feature = "lz4"))]
mod tests {
    //! Goal: what was compressed comes back, equal chunks have equal forms, and no wrong byte is worse
    //! than an error.

    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut word = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = || {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            word.to_le_bytes()[3]
        };
        (0..len).map(|_| next()).collect()
    }

    fn text(len: usize) -> Vec<u8> {
        b"the same again ".iter().copied().cycle().take(len).collect()
    }

    #[test]
    fn chunks_come_back_and_are_never_longer_than_by_their_prefix() {
        let mut compressor = Compressor::new().unwrap();
        for len in [0, 1, 5, 100, 4096, 65_535, 65_536, 200_000] {
            for body in [noise(len), text(len), vec![0; len]] {
                let form = compressor.form(&body).to_vec();
                assert!(form.len() <= body.len() + PREFIX_BYTES);
                let mut out = vec![9; 77];
                restore(&form, len as u64, &mut out).unwrap();
                assert!(out == body, "{len} bytes");
                assert!(Compressor::new().unwrap().form(&body) == form, "{len} bytes");
                if len > 0 {
                    assert!(restore(&form, len as u64 - 1, &mut out).is_err());
                }
            }
        }
        assert!(compressor.form(&text(4096)).len() < 200);
        let stored = compressor.form(&noise(4096)).to_vec();
        assert_eq!(stored, [[0; 4].as_slice(), &noise(4096)].concat());
    }

    #[test]
    fn a_claim_of_too_many_bytes_allocates_nothing() {
        let form = [u32::MAX.to_le_bytes().as_slice(), &[0; 100]].concat();
        let mut out = Vec::new();
        let error = restore(&form, u64::MAX, &mut out).unwrap_err();
        assert_eq!((error.kind(), out.capacity()), (ErrorKind::Corrupt, 0));
    }

    #[test]
    fn no_cut_and_no_flipped_bit_panics() {
        let form = Compressor::new().unwrap().form(&[text(300), noise(50)].concat()).to_vec();
        for len in 0..form.len() {
            fuzz(&form[..len]);
        }
        for bit in 0..form.len() * 8 {
            let mut flipped = form.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fuzz(&flipped);
        }
    }
}
