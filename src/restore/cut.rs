//! Some of the entries of a section, in a row, as if they were a section of their own.

use std::io::{self, Read};
use std::ops::Range;

use crate::error::{Error, ErrorKind};
use crate::limits::STATE_ENTRY_BYTES_MAX;

/// How much of a skipped entry is read at once.
const SKIP_BYTES: usize = 8 * 1024;

/// Where in a section of entries its reader stands. What it reads from is given to each call.
#[derive(Debug)]
pub(super) struct EntryCut {
    /// Entries to step over, then entries to pass on.
    skip: u32,
    pass: u32,
    /// What is left of the length of the entry at hand.
    head: Vec<u8>,
    /// Bytes that are left of its rest.
    left: u64,
}

impl EntryCut {
    pub(super) fn new(items: &Range<u32>) -> Self {
        let pass = items.end.saturating_sub(items.start);
        Self { skip: items.start, pass, head: Vec::new(), left: 0 }
    }

    /// Puts the next bytes into `out` and returns how many; none at the end of the last entry.
    pub(super) fn read(&mut self, body: &mut dyn Read, out: &mut [u8]) -> io::Result<usize> {
        while self.skip > 0 {
            self.next_entry(body)?;
            self.head.clear();
            self.skip_entry(body)?;
            self.skip = self.skip.saturating_sub(1);
        }
        if out.is_empty() {
            return Ok(0);
        }
        if self.head.is_empty() && self.left == 0 {
            if self.pass == 0 {
                return Ok(0);
            }
            self.next_entry(body)?;
            self.pass = self.pass.saturating_sub(1);
        }
        if !self.head.is_empty() {
            let taken = self.head.len().min(out.len());
            for (to, from) in out.iter_mut().zip(self.head.drain(..taken)) {
                *to = from;
            }
            return Ok(taken);
        }
        let read = self.read_left(body, out)?;
        Ok(read)
    }

    /// Reads the length of the next entry.
    fn next_entry(&mut self, body: &mut dyn Read) -> io::Result<()> {
        let mut length = [0; 4];
        body.read_exact(&mut length).map_err(named)?;
        let claimed = u32::from_le_bytes(length);
        if usize::try_from(claimed).is_ok_and(|claimed| claimed > STATE_ENTRY_BYTES_MAX) {
            return Err(damaged("an entry claims too many bytes").into());
        }
        self.head.clear();
        self.head.extend_from_slice(&length);
        self.left = u64::from(claimed);
        Ok(())
    }

    fn skip_entry(&mut self, body: &mut dyn Read) -> io::Result<()> {
        let mut buffer = [0; SKIP_BYTES];
        while self.left > 0 {
            self.read_left(body, &mut buffer)?;
        }
        Ok(())
    }

    fn read_left(&mut self, body: &mut dyn Read, out: &mut [u8]) -> io::Result<usize> {
        let most = out.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = body.read(out.get_mut(..most).unwrap_or_default())?;
        if read == 0 && most > 0 {
            return Err(damaged("its last entry is cut off").into());
        }
        self.left = self.left.saturating_sub(u64::try_from(read).unwrap_or(u64::MAX));
        Ok(read)
    }
}

/// An end within a length is damage; what the storage answers is passed on.
fn named(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged("it has fewer entries than its key says").into(),
        _ => error,
    }
}

fn damaged(why: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("a section of entries is damaged: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Piece<'a>(EntryCut, &'a [u8]);

    impl Read for Piece<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            self.0.read(&mut self.1, out)
        }
    }

    fn cut(bytes: &[u8], items: Range<u32>) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Piece(EntryCut::new(&items), bytes).read_to_end(&mut out)?;
        Ok(out)
    }

    /// Goal: a range of entries is passed on byte for byte. Method: all ranges of a few entries of
    /// different lengths, read as a whole and byte by byte.
    #[test]
    fn every_range_of_entries_is_passed_on_as_it_was() {
        let entries: Vec<Vec<u8>> = [0_usize, 1, 9_000, 20]
            .map(|len| [&u32::try_from(len).unwrap().to_le_bytes()[..], &vec![7; len]].concat())
            .to_vec();
        let all = entries.concat();
        for from in 0..=4_u32 {
            for to in from..=4 {
                let expected = entries[from as usize..to as usize].concat();
                assert_eq!(cut(&all, from..to).unwrap(), expected, "{from}..{to}");
                let mut slow = Piece(EntryCut::new(&(from..to)), &all);
                let (mut bytes, mut byte) = (Vec::new(), [0]);
                while slow.read(&mut byte).unwrap() > 0 {
                    bytes.extend(byte);
                }
                assert_eq!(bytes, expected, "{from}..{to} byte by byte");
            }
        }
    }

    #[test]
    fn sections_that_end_early_or_claim_too_much_are_damaged() {
        let whole = [2_u8, 0, 0, 0, 5, 5];
        assert!(cut(&whole, 0..2).is_err() && cut(&whole, 1..2).is_err());
        assert!(cut(&whole[..5], 0..1).is_err() && cut(&whole[..3], 0..1).is_err());
        assert!(cut(&[255; 8], 0..1).is_err());
        let error = Error::from(cut(&whole, 1..2).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}
