//! What the durable one of two tiers knows of the fast one, around the notes that a job leaves.
//!
//! The tier that outlives the machine must tell what the other may have completed without it. Whoever
//! opens that tier alone finds the job's own notes inside.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Attempt, CheckpointId};
use crate::record::codec;

/// No word of a job begins with it, and neither do notes with marks.
const TIERED: u8 = 0xfe;

/// The layout behind [`TIERED`].
const VERSION: u8 = 1;

/// The note.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TierNote {
    /// The newest checkpoint that the fast tier had completed when this was written.
    pub(crate) newest: CheckpointId,
    /// The newest start of the job.
    pub(crate) attempt: Attempt,
    /// The fast tier may have completed more since.
    pub(crate) is_running: bool,
    /// Above all that may have completed in an earlier fast tier and is lost with it, until a newer one
    /// completes; zero when nothing is lost.
    pub(crate) lost_after: CheckpointId,
    /// Names the fast tier.
    pub(crate) fast: String,
    /// What names the job in the names of things outside the storage.
    pub(crate) owner: String,
    /// The job's own notes.
    pub(crate) body: Option<Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    newest: u64,
    attempt: u32,
    is_running: bool,
    lost_after: u64,
    fast: String,
    owner: String,
    body: Option<Vec<u8>>,
}

impl TierNote {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let Self { newest, attempt, is_running, lost_after, fast, owner, body } = self.clone();
        let (newest, attempt, lost_after) = (newest.0, attempt.0, lost_after.0);
        let stored = Stored { newest, attempt, is_running, lost_after, fast, owner, body };
        let mut out = vec![TIERED, VERSION];
        codec::encode_into(&stored, &mut out)?;
        Ok(out)
    }

    /// Reads what lies where a job's notes lie; `None` when no note is around them.
    ///
    /// # Errors
    /// `Incompatible` when a later release wrote it; `Corrupt` when nobody did.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<Self>> {
        let Some(rest) = bytes.strip_prefix(&[TIERED]) else { return Ok(None) };
        let Some(rest) = rest.strip_prefix(&[VERSION]) else {
            let message = format!(
                "the note of the tiers has the version {:?}, this release reads {VERSION}",
                rest.first()
            );
            return Err(Error::new(ErrorKind::Incompatible, message));
        };
        let Stored { newest, attempt, is_running, lost_after, fast, owner, body } =
            codec::decode(rest).map_err(|error| error.context("the note of the tiers"))?;
        let (newest, lost_after) = (CheckpointId(newest), CheckpointId(lost_after));
        let attempt = Attempt(attempt);
        Ok(Some(Self { newest, attempt, is_running, lost_after, fast, owner, body }))
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the note reads back, and nothing else passes for one. Method: single bodies.

    use super::*;

    /// `docs/format.md` shows the layout.
    #[test]
    fn the_bytes_of_a_note_are_fixed() {
        let note = TierNote {
            newest: CheckpointId(7),
            attempt: Attempt(2),
            is_running: true,
            lost_after: CheckpointId(9),
            fast: "f".into(),
            owner: "ab".into(),
            body: Some(b"x".to_vec()),
        };
        let bytes = note.encode().unwrap();
        let expected = [
            &[0xfe, 1, 7, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1][..],
            &[9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, b'f'],
            &[2, 0, 0, 0, 0, 0, 0, 0, b'a', b'b', 1, 1, 0, 0, 0, 0, 0, 0, 0, b'x'],
        ]
        .concat();
        assert_eq!(bytes, expected);
        assert_eq!(TierNote::decode(&bytes).unwrap(), Some(note));
        for len in 2..bytes.len() {
            let cut = TierNote::decode(&bytes[..len]).unwrap_err();
            assert_eq!(cut.kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn the_notes_of_a_job_are_none_and_a_later_version_is_refused() {
        for other in [&b""[..], b"done", &[0xff, 1, 0]] {
            assert_eq!(TierNote::decode(other).unwrap(), None);
        }
        let later = TierNote::decode(&[TIERED, 2]).unwrap_err();
        assert_eq!(later.kind(), ErrorKind::Incompatible);
    }
}
