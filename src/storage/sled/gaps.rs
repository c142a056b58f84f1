//! Where in a log frames are missing: found damage, and the ends of segments. It names a file and an
//! offset for a record that no frame holds any more. Pure; it repairs nothing.

use std::path::PathBuf;

use crate::error::Error;

/// A place between two valid frames, or behind the last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) file: PathBuf,
    pub(crate) offset: u64,
    /// The sequence number of the frame before.
    pub(crate) after: u64,
    /// The sequence number of the frame behind; the largest number at the end of a segment.
    pub(crate) before: u64,
}

/// All gaps of a log.
#[derive(Debug, Default)]
pub(crate) struct Gaps(Vec<Gap>);

impl Gaps {
    pub(crate) fn new(gaps: Vec<Gap>) -> Self {
        Self(gaps)
    }

    /// The damage of a record that is missing. Sequence numbers rise within a segment: it lay in the
    /// gap whose neighbours enclose its number, and of several the nearest behind a lower number. A
    /// record of a group has waited in memory: it may have lain behind higher numbers.
    pub(crate) fn error(&self, record: u64) -> Option<Error> {
        let enclosing = self.0.iter().filter(|gap| gap.after < record && record < gap.before);
        let later = || self.0.iter().min_by_key(|gap| gap.after);
        let gap = enclosing.max_by_key(|gap| gap.after).or_else(later)?;
        let expected = format!("record {record}");
        Some(Error::corrupt(&gap.file, gap.offset, "a record", expected, "no valid frame"))
    }
}

#[cfg(test)]
mod tests {
    //! Goal: a missing record is looked for where it lay. Method: two segments with gaps.

    use super::*;

    fn gap(file: &str, offset: u64, after: u64, before: u64) -> Gap {
        Gap { file: file.into(), offset, after, before }
    }

    #[test]
    fn a_missing_record_lay_in_the_nearest_gap_around_its_number_or_in_a_later_one() {
        let gaps = Gaps::new(vec![
            gap("one", 10, 3, 6),
            gap("one", 90, 9, u64::MAX),
            gap("two", 50, 20, u64::MAX),
        ]);
        let place = |record| {
            let error = gaps.error(record)?;
            let corruption = error.corruption().unwrap();
            Some((corruption.file.display().to_string(), corruption.offset))
        };
        assert_eq!(place(2), Some(("one".to_owned(), 10)));
        assert_eq!(place(4), Some(("one".to_owned(), 10)));
        assert_eq!(place(7), Some(("one".to_owned(), 10)));
        assert_eq!(place(12), Some(("one".to_owned(), 90)));
        assert_eq!(place(22), Some(("two".to_owned(), 50)));
    }
}
