//! What is noted of a job beside its checkpoints: the word of its end, and what became of starts from
//! a checkpoint.
//!
//! Owns the layout of the one record that a storage keeps for a job and does not look into. Without
//! marks it is the word alone, as releases wrote it that knew no marks.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use serde::{Deserialize, Serialize};

use crate::catalog::{Checkpoints, SnapshotClaim};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::limits::{FINISH_BYTES_MAX, MARK_BYTES_MAX, MARKED_CHECKPOINTS_MAX};
use crate::record::{TierNote, codec};

/// No word begins with it: it is in no UTF-8 text.
const MARKED: u8 = 0xff;

/// The layout behind [`MARKED`], without a claim.
const VERSION: u8 = 1;

/// The same with a claim behind it.
const WITH_CLAIM: u8 = 2;

/// What starts of the job have found out about a completed checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointMark {
    /// Attempts in a row that went on from it and failed before a newer checkpoint completed. A kill
    /// is not among them.
    pub failures: u32,
    /// Why it is set aside; none when it is not.
    pub suspect: Option<String>,
    /// The older checkpoint that was restored in its place. What sinks had committed since is undone,
    /// so it can be restored no more.
    pub passed_for: Option<CheckpointId>,
}

/// The notes of one job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct JobNotes {
    /// What was recorded at the end of the job; none when it has not ended.
    pub(crate) word: Option<String>,
    pub(crate) marks: BTreeMap<CheckpointId, CheckpointMark>,
    /// What the job has claimed, or is about to.
    pub(crate) claim: Option<SnapshotClaim>,
}

#[derive(Serialize, Deserialize)]
struct StoredWithClaim {
    notes: Stored,
    claim: SnapshotClaim,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    word: Option<String>,
    marks: Vec<StoredMark>,
}

#[derive(Serialize, Deserialize)]
struct StoredMark {
    id: u64,
    failures: u32,
    suspect: Option<String>,
    passed_for: Option<u64>,
}

impl JobNotes {
    /// Reads the record.
    ///
    /// # Errors
    /// `Incompatible` when a later release wrote it; `Corrupt` when nobody did.
    pub(crate) fn decode(body: Option<&[u8]>) -> Result<Self> {
        let Some(body) = body else { return Ok(Self::default()) };
        // Left by a job with two tiers in the durable one.
        if let Some(note) = TierNote::decode(body)? {
            return note.body.map_or_else(|| Ok(Self::default()), |body| Self::decode_own(&body));
        }
        Self::decode_own(body)
    }

    fn decode_own(body: &[u8]) -> Result<Self> {
        let Some(rest) = body.strip_prefix(&[MARKED]) else {
            let word = Some(String::from_utf8_lossy(body).into_owned());
            return Ok(Self { word, ..Self::default() });
        };
        let wrong = |error: Error| error.context("the notes of the job");
        let (Stored { word, marks }, claim) = match rest.split_first() {
            Some((&VERSION, rest)) => (codec::decode(rest).map_err(wrong)?, None),
            Some((&WITH_CLAIM, rest)) => {
                let stored: StoredWithClaim = codec::decode(rest).map_err(wrong)?;
                (stored.notes, Some(stored.claim))
            }
            other => {
                let found = other.map(|(version, _)| version);
                let message = format!(
                    "the notes of the job have the version {found:?}, this release reads {WITH_CLAIM}"
                );
                return Err(Error::new(ErrorKind::Incompatible, message));
            }
        };
        let marks = marks.into_iter().map(|mark| {
            let StoredMark { id, failures, suspect, passed_for } = mark;
            let passed_for = passed_for.map(CheckpointId);
            (CheckpointId(id), CheckpointMark { failures, suspect, passed_for })
        });
        Ok(Self { word, marks: marks.collect(), claim })
    }

    /// As [`decode`](Self::decode), for who only looks: what cannot be read is nothing.
    pub(crate) fn lossy(body: Option<&[u8]>) -> Self {
        Self::decode(body).unwrap_or_default()
    }

    /// The record, or none when there is nothing to say.
    fn encode(&self) -> Result<Option<Vec<u8>>> {
        if self.marks.is_empty() && self.claim.is_none() {
            return Ok(self.word.as_ref().map(|word| word.as_bytes().to_vec()));
        }
        let marks = self.marks.iter().map(|(id, mark)| StoredMark {
            id: id.0,
            failures: mark.failures,
            suspect: mark.suspect.as_deref().map(shortened),
            passed_for: mark.passed_for.map(|id| id.0),
        });
        let stored = Stored { word: self.word.clone(), marks: marks.collect() };
        let mut body = vec![MARKED, if self.claim.is_some() { WITH_CLAIM } else { VERSION }];
        match self.claim.clone() {
            Some(claim) => {
                codec::encode_into(&StoredWithClaim { notes: stored, claim }, &mut body)?;
            }
            None => codec::encode_into(&stored, &mut body)?,
        }
        Ok(Some(body))
    }
}

fn shortened(reason: &str) -> String {
    let mut end = reason.len().min(MARK_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    reason.get(..end).unwrap_or_default().to_owned()
}

impl Checkpoints {
    /// Records durably that the job ended, with a word to its next start. The record outlives the
    /// checkpoints.
    ///
    /// # Errors
    /// `Invalid` when the word has more than [`FINISH_BYTES_MAX`] bytes; `Incompatible` when a later
    /// release wrote the record that is there; what the storage answers.
    pub fn record_finish(&self, word: &str) -> Result<()> {
        if word.len() > FINISH_BYTES_MAX {
            let len = word.len();
            let message = format!("a word of {len} bytes, the most is {FINISH_BYTES_MAX}");
            return Err(Error::invalid(message));
        }
        self.write_notes(true, |notes| notes.word = Some(word.to_owned()))
    }

    /// Forgets that the job ended.
    ///
    /// # Errors
    /// `Incompatible` when a later release wrote the record that is there; what the storage answers.
    pub fn clear_finish(&self) -> Result<()> {
        self.write_notes(true, |notes| notes.word = None)
    }

    /// What [`record_finish`](Self::record_finish) recorded.
    pub fn finish(&self) -> Option<String> {
        JobNotes::lossy(self.storage().access().finish().as_deref()).word
    }

    /// What starts of the job have found out about its checkpoints, of those that are still there.
    ///
    /// # Errors
    /// `Incompatible` when a later release wrote it.
    pub fn marks(&self) -> Result<BTreeMap<CheckpointId, CheckpointMark>> {
        let mut marks = JobNotes::decode(self.storage().access().finish().as_deref())?.marks;
        let ids = self.ids();
        marks.retain(|id, _| ids.binary_search(id).is_ok());
        Ok(marks)
    }

    /// Changes the marks durably; nothing is written when they stay as they are.
    pub(crate) fn change_marks(
        &self,
        change: impl FnOnce(&mut BTreeMap<CheckpointId, CheckpointMark>),
    ) -> Result<()> {
        self.write_notes(false, |notes| change(&mut notes.marks))
    }

    /// What the job has claimed, or is about to.
    pub(crate) fn claim_note(&self) -> Result<Option<SnapshotClaim>> {
        Ok(JobNotes::decode(self.storage().access().finish().as_deref())?.claim)
    }

    /// Notes a claim durably.
    pub(crate) fn note_claim(&self, claim: Option<&SnapshotClaim>) -> Result<()> {
        self.write_notes(false, |notes| notes.claim = claim.cloned())
    }

    fn write_notes(&self, always: bool, change: impl FnOnce(&mut JobNotes)) -> Result<()> {
        let _noting = self.noting.lock().unwrap_or_else(PoisonError::into_inner);
        let access = self.storage().access();
        let before = JobNotes::decode(access.finish().as_deref())?;
        let mut after = before.clone();
        change(&mut after);
        let ids = self.ids();
        after
            .marks
            .retain(|id, mark| ids.binary_search(id).is_ok() && *mark != CheckpointMark::default());
        while after.marks.len() > MARKED_CHECKPOINTS_MAX {
            after.marks.pop_first();
        }
        if !always && after == before {
            return Ok(());
        }
        match after.encode()? {
            Some(body) => access.record_finish(&body),
            None => access.clear_finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: marks and the word of an end share one record and do not disturb each other. Method: all
    //! through a storage in memory, and single bodies.

    use super::*;
    use crate::catalog::ClaimStage;
    use crate::catalog::tests::{add, open};
    use crate::storage::{JobManagerCheckpointStorage, RemoteOptions, SnapshotDir};

    fn suspect(reason: &str) -> CheckpointMark {
        CheckpointMark { suspect: Some(reason.into()), ..CheckpointMark::default() }
    }

    #[test]
    fn a_body_of_a_release_without_marks_is_its_word() {
        for word in ["", "done", "ende \u{fc}ber alles"] {
            let notes = JobNotes::decode(Some(word.as_bytes())).unwrap();
            assert_eq!(notes.word.as_deref(), Some(word));
            assert!(notes.marks.is_empty());
            assert_eq!(notes.encode().unwrap().unwrap(), word.as_bytes());
        }
        assert_eq!(JobNotes::decode(None).unwrap(), JobNotes::default());
        assert_eq!(JobNotes::default().encode().unwrap(), None);
    }

    /// `docs/format.md` shows the layout.
    #[test]
    fn the_bytes_of_marks_are_fixed() {
        let mark = CheckpointMark { failures: 2, suspect: Some("x".into()), passed_for: None };
        let marks = BTreeMap::from([(CheckpointId(7), mark)]);
        let notes = JobNotes { word: None, marks, claim: None };
        let body = notes.encode().unwrap().unwrap();
        let expected = [
            &[0xff, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0][..],
            &[7, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, b'x', 0],
        ]
        .concat();
        assert_eq!(body, expected);
        assert_eq!(JobNotes::decode(Some(&body)).unwrap(), notes);
        for len in 2..body.len() {
            let cut = JobNotes::decode(body.get(..len)).unwrap_err();
            assert_eq!(cut.kind(), ErrorKind::Corrupt);
        }
    }

    /// `docs/format.md` shows the layout.
    #[test]
    fn the_bytes_of_a_claim_are_fixed() {
        let reached = RemoteOptions::new();
        let dir = SnapshotDir { pointer: "p".into(), store: [9; 16], id: 7, reached };
        let claim = SnapshotClaim { asked: "a".into(), dir, id: 8, stage: ClaimStage::Taken };
        let notes = JobNotes { claim: Some(claim), ..JobNotes::default() };
        let body = notes.encode().unwrap().unwrap();
        let text = |byte| [1, 0, 0, 0, 0, 0, 0, 0, byte];
        let number = |number: u64| number.to_le_bytes();
        let expected = [
            &[0xff, 2, 0][..],
            &number(0),
            &text(b'a'),
            &text(b'p'),
            &[9; 16],
            &number(7),
            &number(8),
            &[1, 0, 0, 0],
        ]
        .concat();
        assert_eq!(body, expected);
        assert_eq!(JobNotes::decode(Some(&body)).unwrap(), notes);
        for len in 2..body.len() {
            let cut = JobNotes::decode(body.get(..len)).unwrap_err();
            assert_eq!(cut.kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn notes_of_a_later_release_are_refused_and_not_overwritten() {
        let checkpoints = open(&JobManagerCheckpointStorage::new());
        checkpoints.storage().access().record_finish(&[MARKED, 3, 0]).unwrap();
        assert_eq!(checkpoints.marks().unwrap_err().kind(), ErrorKind::Incompatible);
        let refused = checkpoints.record_finish("done").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Incompatible);
        assert_eq!(checkpoints.finish(), None);
    }

    #[test]
    fn marks_outlive_an_opening_the_word_and_not_their_checkpoint() {
        let storage = JobManagerCheckpointStorage::new();
        let checkpoints = open(&storage);
        (1..=3).for_each(|id| add(&checkpoints, id));
        let change = |id, mark| {
            checkpoints.change_marks(|marks| drop(marks.insert(CheckpointId(id), mark))).unwrap();
        };
        change(1, suspect("a"));
        change(2, suspect("b"));
        change(9, suspect("of none"));
        checkpoints.record_finish("done").unwrap();
        drop(checkpoints);
        let checkpoints = open(&storage);
        let ids = |checkpoints: &Checkpoints| {
            checkpoints.marks().unwrap().keys().map(|id| id.0).collect::<Vec<_>>()
        };
        assert_eq!(
            (checkpoints.finish().as_deref(), ids(&checkpoints)),
            (Some("done"), vec![1, 2])
        );
        checkpoints.clear_finish().unwrap();
        assert_eq!((checkpoints.finish(), ids(&checkpoints)), (None, vec![1, 2]));
        checkpoints.discard(&[CheckpointId(1)]).unwrap();
        assert_eq!(ids(&checkpoints), [2]);
        checkpoints.change_marks(|marks| drop(marks.remove(&CheckpointId(2)))).unwrap();
        assert_eq!(checkpoints.storage().access().finish(), None, "nothing is left to say");
    }

    #[test]
    fn a_long_reason_is_cut_between_two_characters() {
        let long = "\u{fc}".repeat(MARK_BYTES_MAX);
        assert_eq!(shortened(&format!("x{long}")).len(), MARK_BYTES_MAX - 1);
        assert_eq!(shortened("short"), "short");
    }
}
