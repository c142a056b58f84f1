//! Goal: tokens are kept until their commit has returned. Method: the background half alone, with the
//! calls that a task makes of it; a subsumed checkpoint is one of whose end it is never told.

use crossbeam::channel::unbounded;

use super::*;
use crate::error::ErrorKind;
use crate::ids::{Attempt, OperatorUid};

/// Writes down which checkpoints it committed; fails at one of them.
#[derive(Default)]
struct Commits {
    done: Vec<u64>,
    fails_at: Option<u64>,
}

impl Committer for Commits {
    type Sealed = u64;

    fn persist(&mut self, sealed: u64) -> Result<Token> {
        let checkpoint = CheckpointId(sealed);
        Ok(Token { checkpoint, attempt: Attempt(1), bytes: Vec::new() })
    }

    fn commit(&mut self, token: &Token) -> Result<()> {
        if self.fails_at == Some(token.checkpoint.0) {
            return Err(Error::new(ErrorKind::Unavailable, "a planned failure"));
        }
        self.done.push(token.checkpoint.0);
        Ok(())
    }

    fn abort(&mut self, _: &[Token]) -> Result<()> {
        unreachable!("only a start gives anything up")
    }

    fn rewind(&mut self, _: Option<CheckpointId>) -> Result<()> {
        unreachable!("only a start undoes anything")
    }
}

fn pending(committer: Commits) -> (Pending<Commits>, crossbeam::channel::Receiver<TaskEvent>) {
    let (events, told) = unbounded();
    let task = TaskId { operator: OperatorUid::new("sink").unwrap(), subtask: 0 };
    (Pending { committer, tokens: Vec::new(), task, events }, told)
}

impl Pending<Commits> {
    fn seal(&mut self, id: u64) {
        self.persist(CheckpointId(id), id).unwrap();
    }

    fn waiting(&self) -> Vec<u64> {
        self.tokens.iter().map(|token| token.checkpoint.0).collect()
    }
}

#[test]
fn what_a_subsumed_checkpoint_sealed_is_committed_with_the_one_that_completed() {
    let (mut pending, told) = pending(Commits::default());
    for id in [1, 2, 3] {
        pending.seal(id);
    }
    assert_eq!(pending.waiting(), [1, 2, 3], "each of them carries all before it");
    pending.commit_up_to(CheckpointId(2)).unwrap();
    assert_eq!(pending.committer.done, [1, 2]);
    assert_eq!(pending.waiting(), [3]);
    let told = told.try_recv().unwrap();
    assert!(matches!(told, TaskEvent::Committed { id: CheckpointId(2), .. }), "{told:?}");
}

#[test]
fn a_token_whose_commit_has_not_returned_is_carried_on() {
    let (mut pending, told) = pending(Commits { fails_at: Some(2), ..Commits::default() });
    for id in [1, 2] {
        pending.seal(id);
    }
    pending.commit_up_to(CheckpointId(2)).unwrap_err();
    assert!(pending.waiting().contains(&2));
    assert!(told.try_recv().is_err(), "not everything is committed");
    pending.seal(3);
    pending.committer.fails_at = None;
    pending.commit_up_to(CheckpointId(3)).unwrap();
    assert!(pending.committer.done.ends_with(&[2, 3]));
    assert!(pending.waiting().is_empty());
}

#[test]
fn a_token_of_another_checkpoint_is_refused() {
    let (mut pending, _told) = pending(Commits::default());
    let error = pending.persist(CheckpointId(2), 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(pending.waiting().is_empty());
}
