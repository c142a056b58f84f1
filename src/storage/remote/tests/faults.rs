//! Requests that fail: at any one the run ends, or goes on; what was announced is kept.

use crate::catalog::Checkpoints;
use crate::error::{ErrorKind, Result};
use crate::ids::{CheckpointId, JobId};
use crate::storage::CheckpointStorage;
use crate::storage::remote::fault::{Secrets, to_io};
use crate::storage::remote::tests::store::{Bucket, Fate, Op};
use crate::storage::tests::{assert_whole, commit, ids};

/// What a run announced.
#[derive(Debug, Default)]
struct Announced {
    committed: Vec<u64>,
    dropping: Vec<u64>,
    committing: Option<u64>,
}

fn run(bucket: &Bucket, said: &mut Announced) -> Result<()> {
    let checkpoints = Checkpoints::new(bucket.storage().open(&JobId::new("job")?)?);
    for _ in 0..3 {
        let id = checkpoints.next_id();
        said.committing = Some(id.0);
        commit(&checkpoints, id)?;
        said.committing = None;
        said.committed.push(id.0);
    }
    said.dropping.push(1);
    checkpoints.discard(&[CheckpointId(1)])
}

fn judge(bucket: &Bucket, said: &Announced, at: u64) {
    let checkpoints = bucket.open();
    let found = ids(&checkpoints);
    for id in &said.committed {
        assert!(found.contains(id) || said.dropping.contains(id), "{at}: {said:?}, {found:?}");
    }
    for id in found {
        let is_known = said.committed.contains(&id) || said.committing == Some(id);
        assert!(is_known, "{at}: {said:?}");
        assert_whole(&checkpoints, CheckpointId(id));
    }
    commit(&checkpoints, checkpoints.next_id()).unwrap();
}

/// Lets every request in turn meet this fate, alone or with all later ones.
fn at_every_request(fate: Fate, is_lasting: bool) {
    for at in 0.. {
        let bucket = Bucket::new();
        bucket.store.judge(move |number, _, _| {
            let is_hit = if is_lasting { number >= at } else { number == at };
            if is_hit { fate } else { Fate::Done }
        });
        let mut said = Announced::default();
        let ended = run(&bucket, &mut said);
        let is_over = bucket.store.asked() <= at;
        bucket.store.judge(|_, _, _| Fate::Done);
        if let Err(error) = ended {
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
        judge(&bucket, &said, at);
        if is_over {
            assert!(at > 20, "{at} requests");
            return;
        }
    }
}

#[test]
fn a_crash_between_any_two_requests_loses_nothing_announced() {
    at_every_request(Fate::Lost, true);
}

#[test]
fn a_request_that_fails_costs_at_most_the_checkpoint_in_progress() {
    at_every_request(Fate::Lost, false);
}

#[test]
fn a_crash_behind_any_request_loses_nothing_announced() {
    at_every_request(Fate::Unanswered, true);
}

#[test]
fn an_answer_that_is_lost_costs_at_most_the_checkpoint_in_progress() {
    at_every_request(Fate::Unanswered, false);
}

#[test]
fn an_error_says_when_no_credentials_are_set() {
    let source = "http://169.254.169.254/latest/api/token: timed out".into();
    let error = to_io(&object_store::Error::Generic { store: "S3", source }, &Secrets::default());
    assert!(error.to_string().starts_with("no credentials are set"), "{error}");
}

#[test]
fn an_error_names_the_place_and_no_secret() {
    let bucket = Bucket::new();
    bucket.store.judge(|_, op, _| if op == Op::Put { Fate::Lost } else { Fate::Done });
    let error = bucket.storage().open(&JobId::new("job").unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let shown = format!("{error} {error:?}");
    assert!(shown.contains("attempts/1") && shown.contains("SlowDown"), "{shown}");
    assert!(!shown.contains("hunter2") && !shown.contains("sig=abc"), "{shown}");
}
