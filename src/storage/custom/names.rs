//! The names of blobs. Any job id becomes parts of safe characters, and no two become the same.

use std::fmt::Write;

use crate::ids::{Attempt, CheckpointId, JobId, StoreId};
use crate::storage::stream::{Place, StreamName};

/// The most bytes of one part that stands for a job.
const PART_BYTES: usize = 200;

/// How far the number of a writer lies above the offset in the id of a record.
const OFFSET_BITS: u32 = 40;

/// The names below one job.
#[derive(Debug, Clone)]
pub(super) struct Names {
    job: String,
}

/// Which blob of which checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DataName {
    pub(super) checkpoint: CheckpointId,
    pub(super) attempt: Attempt,
    /// Counted within the checkpoint and the attempt, from 1.
    pub(super) writer: u64,
}

impl Names {
    pub(super) fn new(job: &JobId) -> Self {
        let mut text = String::new();
        let mut part = 0;
        for byte in job.as_str().bytes() {
            let before = text.len();
            if byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' {
                text.push(char::from(byte));
            } else {
                // Writing to a text does not fail.
                let _ = write!(text, "_{byte:02x}");
            }
            part += text.len() - before;
            if part > PART_BYTES - 3 {
                // A lone underscore ends a part that goes on: no escape looks like it.
                text.push_str("_/");
                part = 0;
            }
        }
        // The letter keeps the last part from being empty.
        text.push_str("_j");
        Self { job: text }
    }

    pub(super) fn roots(&self) -> String {
        format!("{}/root/", self.job)
    }

    pub(super) fn root(&self, number: u64) -> String {
        format!("{}{number:020}", self.roots())
    }

    /// The number of a root's name.
    pub(super) fn root_number(&self, name: &str) -> Option<u64> {
        name.strip_prefix(&self.roots())?.parse().ok()
    }

    pub(super) fn datas(&self) -> String {
        format!("{}/data/", self.job)
    }

    pub(super) fn data(&self, data: &DataName) -> String {
        let DataName { checkpoint, attempt, writer } = data;
        format!("{}{checkpoint:020}-{attempt:010}-{writer:08}", self.datas())
    }

    pub(super) fn streams(&self) -> String {
        format!("{}/stream/", self.job)
    }

    pub(super) fn stream(&self, place: Place, name: &StreamName) -> String {
        let id = place.checkpoint().unwrap_or_default();
        let letter = match place {
            Place::Exclusive(_) => 'e',
            Place::Shared => 's',
            Place::TaskOwned => 't',
            Place::Metadata(_) => 'm',
        };
        format!("{}{letter}{id:020}-{name}", self.streams())
    }

    /// What the name of a stream says.
    pub(super) fn stream_name(&self, text: &str) -> Option<(Place, StreamName)> {
        let (place, name) = text.strip_prefix(&self.streams())?.split_once('-')?;
        let id = CheckpointId(place.get(1..)?.parse().ok()?);
        let place = match place.get(..1)? {
            "e" => Place::Exclusive(id),
            "s" => Place::Shared,
            "t" => Place::TaskOwned,
            "m" => Place::Metadata(id),
            _ => return None,
        };
        let name = StreamName(name.parse::<StoreId>().ok()?.0);
        (self.stream(place, &name) == text).then_some((place, name))
    }

    /// What a name of data says.
    pub(super) fn data_name(&self, name: &str) -> Option<DataName> {
        let mut parts = name.strip_prefix(&self.datas())?.split('-');
        let checkpoint = CheckpointId(parts.next()?.parse().ok()?);
        let attempt = Attempt(parts.next()?.parse().ok()?);
        let writer = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some(DataName { checkpoint, attempt, writer })
    }
}

/// The id of a record: who wrote it, and where. `None` when it lies too far.
pub(super) fn record_id(writer: u64, offset: u64) -> Option<u64> {
    let fits = offset >> OFFSET_BITS == 0 && writer >> (u64::BITS - OFFSET_BITS) == 0;
    fits.then_some(writer << OFFSET_BITS | offset)
}

/// Writer and offset of a record.
pub(super) fn writer_and_offset(id: u64) -> (u64, u64) {
    (id >> OFFSET_BITS, id & ((1 << OFFSET_BITS) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_has_a_place_of_its_own_in_safe_characters() {
        let long = "x".repeat(255);
        let wide = "\u{fc}".repeat(127);
        let jobs = ["a", "A", "a/b", "a/root/1", "..", "_41", "a b", &long, &long[..200], &wide];
        let places = jobs.map(|job| Names::new(&JobId::new(job).unwrap()).roots());
        for (at, place) in places.iter().enumerate() {
            let is_safe =
                |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_/".contains(c);
            assert!(place.chars().all(is_safe), "{place}");
            assert!(place.split('/').all(|part| part.len() <= 208), "{place}");
            let inside = |other: &String| other.starts_with(place.as_str());
            assert_eq!(places.iter().filter(|other| inside(other)).count(), 1, "{at}: {place}");
        }
    }

    #[test]
    fn names_and_ids_read_back() {
        let names = Names::new(&JobId::new("job").unwrap());
        let data = DataName { checkpoint: CheckpointId(u64::MAX), attempt: Attempt(7), writer: 3 };
        assert_eq!(names.data_name(&names.data(&data)), Some(data));
        assert_eq!(names.root_number(&names.root(12)), Some(12));
        let stream = StreamName([0xab; 16]);
        for place in [Place::Exclusive(CheckpointId(9)), Place::TaskOwned] {
            assert_eq!(names.stream_name(&names.stream(place, &stream)), Some((place, stream)));
        }
        assert_eq!(names.data_name("job_j/data/1-2"), None);
        assert_eq!(record_id(3, 5).map(writer_and_offset), Some((3, 5)));
        assert_eq!(record_id(1 << 24, 0), None);
        assert_eq!(record_id(0, 1 << 40), None);
    }
}
