//! What came of a case: its events, what they add up to, and how both look.
//!
//! Owns values only, for people (`Display`) and programs (`Serialize`). An event serialises as
//! recorded runs of Flink have it, key for key. Never decides anything.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};

use super::case::PolicyCase;
use crate::coordinator::RequestKind;
use crate::ids::CheckpointId;
use crate::inspect::text::{count, plain};
use crate::message::CheckpointFailureReason;

/// A case and what came of it; prints itself as text. Its serialised form can be read back as a
/// [`PolicyCase`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SimulatedPolicy {
    /// What was simulated, defaults filled in.
    #[serde(flatten)]
    pub case: PolicyCase,
    /// What happened, in order.
    pub events: Vec<PolicyEvent>,
    /// What it adds up to.
    pub summary: PolicySummary,
}

/// One thing that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PolicyEvent {
    /// When, in milliseconds from the start of the case.
    pub at_ms: u64,
    /// What.
    #[serde(flatten)]
    pub what: PolicyEventKind,
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum PolicyEventKind {
    /// A checkpoint or savepoint started.
    Triggered {
        /// Its id.
        id: CheckpointId,
        /// Who asked; serialises as `periodic`, `checkpoint` or `savepoint`.
        #[serde(serialize_with = "kind_name")]
        kind: RequestKind,
    },
    /// It is durable.
    Completed {
        /// Its id.
        id: CheckpointId,
    },
    /// A task declined it.
    Declined {
        /// Its id.
        id: CheckpointId,
    },
    /// Its timeout passed.
    Expired {
        /// Its id.
        id: CheckpointId,
    },
    /// A newer checkpoint completed first.
    Subsumed {
        /// Its id.
        id: CheckpointId,
    },
    /// A request did not become a checkpoint.
    Rejected {
        /// Who asked.
        #[serde(serialize_with = "kind_name")]
        kind: RequestKind,
        /// Why not; serialises as Flink's name in lower case.
        #[serde(serialize_with = "reason_name")]
        reason: CheckpointFailureReason,
    },
    /// The job is beyond its tolerable failures; the simulation ends.
    JobFailed,
}

/// What the events of a case add up to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
#[non_exhaustive]
pub struct PolicySummary {
    /// What became of checkpoints and savepoints.
    pub checkpoints: PolicyCounts,
    /// How many requests were refused, by Flink's reason in lower case.
    pub rejections: BTreeMap<String, u64>,
    /// The longest time in milliseconds from one completion to the next, savepoints included; none
    /// with fewer than two.
    pub longest_gap_ms: Option<u64>,
    /// True when the job did not survive its failures.
    pub job_failed: bool,
}

/// What became of checkpoints and savepoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
#[non_exhaustive]
pub struct PolicyCounts {
    /// Started.
    pub triggered: u64,
    /// Durable.
    pub completed: u64,
    /// Declined by a task.
    pub declined: u64,
    /// Over their timeout.
    pub expired: u64,
    /// Overtaken by a newer one.
    pub subsumed: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn kind_name<S: Serializer>(kind: &RequestKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(kind)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn reason_name<S: Serializer>(
    reason: &CheckpointFailureReason,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&lower(*reason))
}

fn lower(reason: CheckpointFailureReason) -> String {
    reason.flink_name().to_lowercase()
}

impl PolicySummary {
    pub(super) fn of(events: &[PolicyEvent]) -> Self {
        let mut summary = Self::default();
        let mut last_completed_ms = None;
        for PolicyEvent { at_ms, what } in events {
            let counts = &mut summary.checkpoints;
            match *what {
                PolicyEventKind::Triggered { .. } => counts.triggered += 1,
                PolicyEventKind::Completed { .. } => {
                    counts.completed += 1;
                    let gap_ms = last_completed_ms.map(|last| at_ms.saturating_sub(last));
                    summary.longest_gap_ms = summary.longest_gap_ms.max(gap_ms);
                    last_completed_ms = Some(*at_ms);
                }
                PolicyEventKind::Declined { .. } => counts.declined += 1,
                PolicyEventKind::Expired { .. } => counts.expired += 1,
                PolicyEventKind::Subsumed { .. } => counts.subsumed += 1,
                PolicyEventKind::Rejected { reason, .. } => {
                    *summary.rejections.entry(lower(reason)).or_default() += 1;
                }
                PolicyEventKind::JobFailed => summary.job_failed = true,
            }
        }
        summary
    }
}

impl PolicyEventKind {
    /// Its name, the checkpoint, who asked, and why, as far as it has them.
    fn columns(
        self,
    ) -> (&'static str, Option<CheckpointId>, Option<RequestKind>, Option<CheckpointFailureReason>)
    {
        match self {
            Self::Triggered { id, kind } => ("triggered", Some(id), Some(kind), None),
            Self::Completed { id } => ("completed", Some(id), None, None),
            Self::Declined { id } => ("declined", Some(id), None, None),
            Self::Expired { id } => ("expired", Some(id), None, None),
            Self::Subsumed { id } => ("subsumed", Some(id), None, None),
            Self::Rejected { kind, reason } => ("rejected", None, Some(kind), Some(reason)),
            Self::JobFailed => ("job failed", None, None, None),
        }
    }
}

impl fmt::Display for SimulatedPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PolicyCase { case, config, first_trigger_ms, until_ms, .. } = &self.case;
        writeln!(f, "case {}, {until_ms} ms", plain(case))?;
        let concurrent = config.max_concurrent;
        let tolerable = config
            .tolerable_failures
            .map_or("any number of".to_owned(), |failures| failures.to_string());
        writeln!(
            f,
            "  policy: period {} ms from {first_trigger_ms} ms on, pause {} ms, timeout {} ms, \
             {concurrent} at once, {tolerable} tolerable failures, {}\n",
            config.period_ms(),
            config.min_pause_ms,
            config.timeout_ms,
            if config.unaligned { "unaligned" } else { "aligned" },
        )?;
        self.timeline(f)?;
        write!(f, "{}", self.summary)
    }
}

impl SimulatedPolicy {
    /// Line by line, because there may be a million.
    fn timeline(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const TIME: &str = "TIME MS";
        let last_ms = self.events.last().map_or(0, |event| event.at_ms).to_string();
        let time_width = last_ms.len().max(TIME.len());
        let id_width = self.summary.checkpoints.triggered.to_string().len().max(2);
        writeln!(
            f,
            "  {TIME:>time_width$}  {:<10}  {:>id_width$}  {:<10}  REASON",
            "EVENT", "ID", "KIND"
        )?;
        for PolicyEvent { at_ms, what } in &self.events {
            let (event, id, kind, reason) = what.columns();
            let id = id.map_or_else(String::new, |id| id.to_string());
            let kind = kind.map_or_else(String::new, |kind| kind.to_string());
            let reason = reason.map_or_else(String::new, lower);
            let line = format!(
                "  {at_ms:>time_width$}  {event:<10}  {id:>id_width$}  {kind:<10}  {reason}"
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        writeln!(f)
    }
}

impl fmt::Display for PolicySummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PolicyCounts { triggered, completed, declined, expired, subsumed } = self.checkpoints;
        writeln!(
            f,
            "  checkpoints: {triggered} triggered, {completed} completed, {declined} declined, \
             {expired} expired, {subsumed} subsumed"
        )?;
        for (reason, rejected) in &self.rejections {
            writeln!(f, "  rejected: {} by {reason}", count(*rejected, "request"))?;
        }
        match self.longest_gap_ms {
            Some(gap_ms) => writeln!(f, "  longest gap between two completions: {gap_ms} ms")?,
            None => writeln!(f, "  longest gap between two completions: none")?,
        }
        writeln!(f, "  job: {}", if self.job_failed { "failed" } else { "survived" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(events: &[(u64, PolicyEventKind)]) -> PolicySummary {
        let event = |&(at_ms, what)| PolicyEvent { at_ms, what };
        PolicySummary::of(&events.iter().map(event).collect::<Vec<_>>())
    }

    const ID: CheckpointId = CheckpointId(1);

    #[test]
    fn every_event_is_counted_where_it_belongs() {
        use PolicyEventKind as Kind;
        let rejected = |reason| Kind::Rejected { kind: RequestKind::Periodic, reason };
        let pause = CheckpointFailureReason::MinimumTimeBetweenCheckpoints;
        let many = CheckpointFailureReason::TooManyCheckpointRequests;
        let found = summary(&[
            (1, Kind::Triggered { id: ID, kind: RequestKind::Periodic }),
            (2, Kind::Completed { id: ID }),
            (3, Kind::Declined { id: ID }),
            (3, Kind::Declined { id: ID }),
            (4, Kind::Expired { id: ID }),
            (5, Kind::Subsumed { id: ID }),
            (6, rejected(pause)),
            (7, rejected(many)),
            (8, rejected(pause)),
            (9, Kind::JobFailed),
        ]);
        let counts =
            PolicyCounts { triggered: 1, completed: 1, declined: 2, expired: 1, subsumed: 1 };
        assert_eq!(found.checkpoints, counts);
        let rejections =
            [("minimum_time_between_checkpoints", 2), ("too_many_checkpoint_requests", 1)];
        let rejections = rejections.map(|(reason, count)| (reason.to_owned(), count));
        assert_eq!(found.rejections, BTreeMap::from(rejections));
        assert_eq!((found.longest_gap_ms, found.job_failed), (None, true));
    }

    #[test]
    fn the_longest_gap_is_between_two_completions_and_not_before_the_first() {
        let completed = |at_ms| (at_ms, PolicyEventKind::Completed { id: ID });
        assert_eq!(summary(&[]).longest_gap_ms, None);
        assert_eq!(summary(&[completed(900)]).longest_gap_ms, None);
        assert_eq!(summary(&[completed(900), completed(900)]).longest_gap_ms, Some(0));
        let found = summary(&[completed(900), completed(1000), completed(1300), completed(1400)]);
        assert_eq!(found.longest_gap_ms, Some(300));
    }
}
