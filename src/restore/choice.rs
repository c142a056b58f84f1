//! Facts in, decision out: which completed checkpoint a start restores.
//!
//! INVARIANT: where there are checkpoints that a job goes on from, the answer is one of them or an
//! error, never nothing.

use crate::catalog::CheckpointMark;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::message::CheckpointType;
use crate::restore::SkippedCheckpoint;

/// A completed checkpoint and what earlier starts found out about it.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) id: CheckpointId,
    pub(crate) mark: CheckpointMark,
}

/// What is restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice<T> {
    pub(crate) restored: Option<(CheckpointId, T)>,
    /// Newer ones that were passed over, newest first.
    pub(crate) skipped: Vec<SkippedCheckpoint>,
}

/// True when another checkpoint may serve instead of the one that gave this error.
pub(crate) fn is_lost(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Corrupt | ErrorKind::NotFound)
}

/// Walks from the newest candidate to the first that `read` can read, past at most `max`. `candidates`
/// come oldest first. A plain savepoint is the user's: none is taken that is newer than everything else.
///
/// # Errors
/// `Corrupt` when there are checkpoints and none can be restored, naming each; the first other error of
/// `read`.
pub(crate) fn fall_back<T>(
    candidates: &[Candidate],
    max: u32,
    mut read: impl FnMut(CheckpointId) -> Result<(CheckpointType, T)>,
) -> Result<Choice<T>> {
    let mut skipped: Vec<SkippedCheckpoint> = Vec::new();
    let most = usize::try_from(max).unwrap_or(usize::MAX);
    for candidate in candidates.iter().rev() {
        let id = candidate.id;
        let reason = match (&candidate.mark.suspect, candidate.mark.passed_for) {
            (Some(reason), _) => reason.clone(),
            (None, Some(to)) => format!("it was passed over for checkpoint {to}"),
            (None, None) => match read(id) {
                Ok((CheckpointType::Savepoint, _)) if skipped.is_empty() => continue,
                Ok((_, found)) if skipped.len() <= most => {
                    return Ok(Choice { restored: Some((id, found)), skipped });
                }
                Ok(_) => break,
                Err(error) if is_lost(error.kind()) => error.to_string(),
                Err(error) => return Err(error.context(unreadable(id))),
            },
        };
        skipped.push(SkippedCheckpoint { id, reason });
    }
    if skipped.is_empty() {
        return Ok(Choice { restored: None, skipped });
    }
    last_resort(candidates, most, &skipped, read)
}

/// The last one that can be restored is never set aside: what is suspect for how its starts ended is
/// taken when nothing else is left.
fn last_resort<T>(
    candidates: &[Candidate],
    most: usize,
    skipped: &[SkippedCheckpoint],
    mut read: impl FnMut(CheckpointId) -> Result<(CheckpointType, T)>,
) -> Result<Choice<T>> {
    for (at, SkippedCheckpoint { id, .. }) in
        skipped.iter().enumerate().take(most.saturating_add(1))
    {
        let mark = candidates.iter().find(|candidate| candidate.id == *id).map(|found| &found.mark);
        if !mark.is_some_and(|mark| mark.suspect.is_some() && mark.passed_for.is_none()) {
            continue;
        }
        match read(*id) {
            Ok((_, found)) => {
                let skipped = skipped.iter().take(at).cloned().collect();
                return Ok(Choice { restored: Some((*id, found)), skipped });
            }
            Err(error) if is_lost(error.kind()) => {}
            Err(error) => return Err(error.context(unreadable(*id))),
        }
    }
    let names = skipped.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let message = format!(
        "none of the completed checkpoints can be restored, and at most {most} may be passed over: \
         {names}"
    );
    Err(Error::new(ErrorKind::Corrupt, message))
}

fn unreadable(id: CheckpointId) -> String {
    format!("checkpoint {id} cannot be restored")
}

/// Whether checkpoint `id` may be set aside: something else can be restored then.
///
/// # Errors
/// As [`fall_back`], but for what is lost.
pub(crate) fn can_spare(
    id: CheckpointId,
    candidates: &[Candidate],
    max: u32,
    mut read: impl FnMut(CheckpointId) -> Result<CheckpointType>,
) -> Result<bool> {
    let mut without = candidates.to_vec();
    for candidate in without.iter_mut().filter(|candidate| candidate.id == id) {
        candidate.mark.suspect = Some(String::new());
        candidate.mark.passed_for = Some(id);
    }
    match fall_back(&without, max, |id| Ok((read(id)?, ()))) {
        Ok(choice) => Ok(choice.restored.is_some_and(|(to, ())| {
            let is_suspect = |other: &Candidate| other.id == to && other.mark.suspect.is_some();
            to < id && !candidates.iter().any(is_suspect)
        })),
        Err(error) if is_lost(error.kind()) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A checkpoint by its number or as the newest, with nothing in its place.
///
/// # Errors
/// `NotFound` when it is not there; `Conflict` when another was restored in its place: sinks have undone
/// what it takes for committed.
pub(crate) fn check_exact(id: CheckpointId, candidates: &[Candidate]) -> Result<()> {
    let Some(found) = candidates.iter().find(|candidate| candidate.id == id) else {
        let message = format!("there is no completed checkpoint {id} to restore");
        return Err(Error::new(ErrorKind::NotFound, message));
    };
    let Some(to) = found.mark.passed_for else { return Ok(()) };
    let message = format!(
        "checkpoint {id} was passed over for checkpoint {to}, and sinks may have undone what they \
         committed between the two: it can be restored no more"
    );
    Err(Error::new(ErrorKind::Conflict, message))
}

#[cfg(test)]
mod tests {
    //! Goal: a start takes the newest checkpoint that it may and can, and says why no newer one. Method:
    //! tables of facts.

    use super::*;

    const LOST: ErrorKind = ErrorKind::Corrupt;

    /// Checkpoint, what reading it gives, and how it was marked.
    type Fact = (u64, Result<CheckpointType, ErrorKind>, Mark);

    #[derive(Clone, Copy)]
    enum Mark {
        None,
        Suspect,
        Passed,
    }

    fn candidates(facts: &[Fact]) -> Vec<Candidate> {
        let mark = |mark| match mark {
            Mark::None => CheckpointMark::default(),
            Mark::Suspect => {
                CheckpointMark { suspect: Some("it fails".into()), ..CheckpointMark::default() }
            }
            Mark::Passed => CheckpointMark {
                suspect: Some("it was bad".into()),
                passed_for: Some(CheckpointId(1)),
                ..CheckpointMark::default()
            },
        };
        let candidate = |fact: &Fact| Candidate { id: CheckpointId(fact.0), mark: mark(fact.2) };
        facts.iter().map(candidate).collect()
    }

    fn read(facts: &[Fact], id: CheckpointId) -> Result<CheckpointType> {
        let (_, found, _) = facts.iter().find(|fact| fact.0 == id.0).unwrap();
        found.map_err(|kind| Error::new(kind, format!("no {id}")))
    }

    fn choose(max: u32, facts: &[Fact]) -> Result<(Option<u64>, Vec<u64>)> {
        let read = |id| Ok((read(facts, id)?, ()));
        let Choice { restored, skipped } = fall_back(&candidates(facts), max, read)?;
        let skipped = skipped.iter().map(|skipped| skipped.id.0).collect();
        Ok((restored.map(|(id, ())| id.0), skipped))
    }

    const GOOD: Result<CheckpointType, ErrorKind> = Ok(CheckpointType::Checkpoint);
    const PLAIN: Result<CheckpointType, ErrorKind> = Ok(CheckpointType::Savepoint);
    const BAD: Result<CheckpointType, ErrorKind> = Err(LOST);

    #[test]
    fn the_newest_that_can_be_read_is_restored() {
        use Mark::None as No;
        assert_eq!(choose(3, &[]).unwrap(), (None, vec![]));
        assert_eq!(choose(0, &[(1, GOOD, No), (2, GOOD, No)]).unwrap(), (Some(2), vec![]));
        let damaged = [(1, GOOD, No), (2, GOOD, No), (5, BAD, No)];
        assert_eq!(choose(3, &damaged).unwrap(), (Some(2), vec![5]));
        let missing = Err(ErrorKind::NotFound);
        let damaged = [(1, GOOD, No), (2, missing, No), (5, BAD, No)];
        assert_eq!(choose(2, &damaged).unwrap(), (Some(1), vec![5, 2]));
    }

    #[test]
    fn only_so_many_are_passed_over_and_an_error_names_each() {
        use Mark::None as No;
        let facts = [(1, GOOD, No), (2, BAD, No), (5, BAD, Mark::Suspect)];
        assert_eq!(choose(2, &facts).unwrap().0, Some(1));
        let error = choose(1, &facts).unwrap_err();
        assert_eq!(error.kind(), LOST);
        let text = error.to_string();
        assert!(
            text.contains("checkpoint 5: it fails") && text.contains("checkpoint 2: no 2"),
            "{text}"
        );
        assert!(choose(0, &[(1, GOOD, No), (2, BAD, No)]).is_err());
    }

    #[test]
    fn only_what_is_damaged_or_missing_is_passed_over() {
        use Mark::None as No;
        for kind in [
            ErrorKind::Unavailable,
            ErrorKind::Incompatible,
            ErrorKind::Conflict,
            ErrorKind::Full,
            ErrorKind::Poisoned,
            ErrorKind::Invalid,
            ErrorKind::Internal,
        ] {
            let error = choose(3, &[(1, GOOD, No), (2, Err(kind), No)]).unwrap_err();
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().contains("checkpoint 2"), "{error}");
        }
    }

    #[test]
    fn where_nothing_can_be_restored_the_start_fails() {
        use Mark::None as No;
        assert!(choose(9, &[(2, BAD, No)]).is_err());
        assert!(choose(9, &[(1, BAD, No), (2, BAD, No), (3, BAD, Mark::Passed)]).is_err());
        // It can be read, but sinks have gone back behind it.
        assert!(choose(9, &[(1, BAD, No), (2, GOOD, Mark::Passed)]).is_err());
    }

    #[test]
    fn a_savepoint_is_fallen_back_to_and_never_gone_on_from_first() {
        use Mark::None as No;
        assert_eq!(choose(3, &[(1, PLAIN, No)]).unwrap(), (None, vec![]));
        let newest = [(1, GOOD, No), (2, PLAIN, No)];
        assert_eq!(choose(3, &newest).unwrap(), (Some(1), vec![]));
        let between = [(1, GOOD, No), (2, PLAIN, No), (3, BAD, No), (4, PLAIN, No)];
        assert_eq!(choose(3, &between).unwrap(), (Some(2), vec![3]));
    }

    #[test]
    fn what_is_set_aside_is_taken_when_nothing_else_is_left() {
        use Mark::{None as No, Passed, Suspect};
        let facts = [(1, GOOD, No), (2, GOOD, Suspect)];
        assert_eq!(choose(3, &facts).unwrap(), (Some(1), vec![2]));
        let facts = [(1, BAD, No), (2, GOOD, Suspect), (3, GOOD, Passed)];
        assert_eq!(choose(3, &facts).unwrap(), (Some(2), vec![3]));
    }

    #[test]
    fn the_last_that_can_be_restored_is_not_spared() {
        use Mark::{None as No, Passed, Suspect};
        let spare = |id, max, facts: &[Fact]| {
            can_spare(CheckpointId(id), &candidates(facts), max, |id| read(facts, id))
        };
        assert!(spare(2, 3, &[(1, GOOD, No), (2, GOOD, No)]).unwrap());
        assert!(spare(2, 3, &[(1, PLAIN, No), (2, GOOD, No)]).unwrap());
        assert!(!spare(2, 3, &[(2, GOOD, No)]).unwrap());
        assert!(!spare(2, 3, &[(1, BAD, No), (2, GOOD, No)]).unwrap());
        let others = [(1, GOOD, Suspect), (2, GOOD, No), (3, GOOD, Passed)];
        assert!(!spare(2, 3, &others).unwrap());
        assert!(!spare(2, 0, &[(1, GOOD, No), (2, GOOD, No)]).unwrap());
        let away = [(1, Err(ErrorKind::Unavailable), No), (2, GOOD, No)];
        assert_eq!(spare(2, 3, &away).unwrap_err().kind(), ErrorKind::Unavailable);
    }

    #[test]
    fn a_checkpoint_by_its_number_must_be_there_and_not_passed_over() {
        let facts = [(1, GOOD, Mark::None), (2, GOOD, Mark::Suspect), (3, GOOD, Mark::Passed)];
        let exact = |id| check_exact(CheckpointId(id), &candidates(&facts));
        assert!(exact(1).is_ok() && exact(2).is_ok());
        assert_eq!(exact(4).unwrap_err().kind(), ErrorKind::NotFound);
        let refused = exact(3).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        assert!(refused.to_string().contains("passed over for checkpoint 1"), "{refused}");
    }
}
