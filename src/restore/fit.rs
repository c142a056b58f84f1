//! Facts in, decision out: whether a checkpoint fits the operators of a job, and what each is given.

use crate::catalog::OperatorSpec;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::restore::{OperatorReport, OperatorRestore};

/// An operator of a checkpoint.
#[derive(Debug, Clone)]
pub(crate) struct StoredOperator {
    pub(crate) spec: OperatorSpec,
    /// Bytes of all its sections.
    pub(crate) bytes: u64,
}

/// A checkpoint that fits.
#[derive(Debug)]
pub(crate) struct Fit {
    /// The operators of the job, with the max parallelism that holds from now on.
    pub(crate) operators: Vec<OperatorSpec>,
    /// The operators of the job in their order, then those that only the checkpoint has.
    pub(crate) reports: Vec<OperatorReport>,
}

/// Matches the operators of a checkpoint with those of the job.
///
/// # Errors
/// `Incompatible` when an operator with state has left the job and that is not allowed, or has another
/// max parallelism than was set, or one below its subtasks. Names all that do not fit.
pub(crate) fn check_fit(
    id: CheckpointId,
    stored: &[StoredOperator],
    job: &[OperatorSpec],
    allow_non_restored_state: bool,
) -> Result<Fit> {
    let mut problems = Vec::new();
    let (mut operators, mut reports) = (Vec::new(), Vec::new());
    for new in job {
        let Some(old) = stored.iter().find(|old| old.spec.uid == new.uid) else {
            operators.push(new.clone());
            reports.push(OperatorReport::new(new.uid.clone(), OperatorRestore::New, 0));
            continue;
        };
        problems.extend(max_problem(id, &old.spec, new));
        operators.push(new.clone().adopting(old.spec.max_parallelism));
        let how = if old.bytes == 0 { OperatorRestore::Empty } else { OperatorRestore::Restored };
        reports.push(OperatorReport::new(new.uid.clone(), how, old.bytes));
    }
    for old in stored {
        let uid = &old.spec.uid;
        if job.iter().any(|new| new.uid == *uid) {
            continue;
        }
        if old.bytes > 0 && !allow_non_restored_state {
            problems.push(format!(
                "checkpoint {id} has state of {uid}, which the job lacks; allow_non_restored_state \
                 leaves it behind"
            ));
        }
        reports.push(OperatorReport::new(uid.clone(), OperatorRestore::Skipped, old.bytes));
    }
    if problems.is_empty() {
        return Ok(Fit { operators, reports });
    }
    Err(Error::new(ErrorKind::Incompatible, problems.join("; ")))
}

fn max_problem(id: CheckpointId, old: &OperatorSpec, new: &OperatorSpec) -> Option<String> {
    let (uid, max) = (&old.uid, old.max_parallelism);
    if new.is_max_parallelism_set() && new.max_parallelism != max {
        return Some(format!(
            "checkpoint {id} has {uid} with a max parallelism of {max}, the job sets {}",
            new.max_parallelism
        ));
    }
    (new.parallelism > max).then(|| {
        format!(
            "checkpoint {id} has {uid} with a max parallelism of {max}, which is below the \
             parallelism of {} in the job",
            new.parallelism
        )
    })
}

#[cfg(test)]
mod tests {
    //! Goal: state goes to the operator of its uid or the start is refused by name. Method: tables.

    use super::*;
    use crate::ids::OperatorUid;

    fn spec(uid: &str, parallelism: u32) -> OperatorSpec {
        OperatorSpec::new(OperatorUid::new(uid).unwrap(), parallelism)
    }

    fn stored(uid: &str, parallelism: u32, bytes: u64) -> StoredOperator {
        StoredOperator { spec: spec(uid, parallelism), bytes }
    }

    fn fit(stored: &[StoredOperator], job: &[OperatorSpec], allow: bool) -> Result<Fit> {
        check_fit(CheckpointId(1), stored, job, allow)
    }

    fn how(fit: &Fit) -> Vec<(&str, OperatorRestore, u64)> {
        let line = |report: &'_ OperatorReport| (report.how, report.bytes);
        fit.reports
            .iter()
            .map(|report| (report.uid.as_str(), line(report).0, line(report).1))
            .collect()
    }

    /// Flink: `CheckpointStateRestoreTest.testNonRestoredState`,
    /// `CheckpointCoordinatorRestoringTest.testStateRecoveryWhenTopologyChange*`
    #[test]
    fn state_follows_the_uid_wherever_its_operator_stands() {
        use OperatorRestore::{Empty, New, Restored};
        let old = [stored("a", 2, 5), stored("b", 1, 0)];
        let found = fit(&old, &[spec("c", 1), spec("b", 1), spec("a", 3)], false).unwrap();
        assert_eq!(how(&found), [("c", New, 0), ("b", Empty, 0), ("a", Restored, 5)]);
    }

    /// Flink: `CheckpointMetadataLoadingTest.testNonRestoredState*`
    #[test]
    fn state_without_a_home_is_refused_or_left_behind_as_the_option_says() {
        let (old, job) = ([stored("a", 1, 9), stored("b", 1, 1)], [spec("b", 1)]);
        let refused = fit(&old, &job, false).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Incompatible);
        let text = refused.to_string();
        assert!(text.contains("state of a") && text.contains("allow_non_restored_state"), "{text}");
        let found = fit(&old, &job, true).unwrap();
        assert_eq!(how(&found)[1], ("a", OperatorRestore::Skipped, 9));
        assert_eq!(found.operators.len(), 1);
    }

    #[test]
    fn an_operator_without_state_may_leave() {
        let found = fit(&[stored("a", 1, 0)], &[spec("b", 1)], false).unwrap();
        assert_eq!(how(&found)[1], ("a", OperatorRestore::Skipped, 0));
    }

    /// Flink: `CheckpointMetadataLoadingTest.testMaxParallelismMismatch`
    #[test]
    fn a_derived_max_parallelism_adopts_that_of_the_checkpoint_and_a_set_one_must_be_equal() {
        let old = [stored("a", 2, 1)];
        let max = |job: OperatorSpec| {
            Ok::<_, Error>(fit(&old, &[job], false)?.operators[0].max_parallelism)
        };
        assert_eq!(spec("a", 100).max_parallelism, 256);
        assert_eq!(max(spec("a", 100)).unwrap(), 128);
        assert_eq!(max(spec("a", 2).with_max_parallelism(128)).unwrap(), 128);
        for (job, other) in [
            (spec("a", 2).with_max_parallelism(256), "sets 256"),
            (spec("a", 129), "parallelism of 129"),
            (spec("a", 129).with_max_parallelism(256), "sets 256"),
        ] {
            let refused = max(job).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Incompatible);
            let text = refused.to_string();
            assert!(text.contains("max parallelism of 128") && text.contains(other), "{text}");
        }
    }

    #[test]
    fn all_that_does_not_fit_is_named_at_once() {
        let old = [stored("a", 1, 1), stored("b", 1, 1)];
        let text = fit(&old, &[spec("b", 200)], false).unwrap_err().to_string();
        assert!(text.contains("state of a") && text.contains("has b"), "{text}");
    }
}
