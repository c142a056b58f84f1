//! The two threads of the engine as steps: what the coordinator asks for, and the commits.

use std::time::Duration;

use crate::catalog::TaskSnapshot;
use crate::clock::Clock;
use crate::coordinator::{Commit, Event};
use crate::error::ErrorKind;
use crate::ids::CheckpointId;
use crate::message::{CheckpointFailureReason, Notification};
use crate::sim::actor::Mail;
use crate::sim::attempt::Attempt;
use crate::sim::harness::{Harness, Step, Stop, broken};
use crate::sim::options::Breakage;
use crate::sim::snapshot::read_part;

impl Attempt {
    /// Lets the coordinator do what is due, and does what it asks for.
    pub(super) fn step_coordinator(&mut self, h: &mut Harness) -> Step {
        self.coordinator.step(h.now(), h.clock.wall_ms());
        while let Some(event) = self.coordinator.next_event() {
            self.handle(event, h)?;
        }
        let counts = self.handle.counts();
        let in_flight = u64::try_from(h.judge.in_flight()).unwrap_or(u64::MAX);
        let ended = counts.completed + counts.failed;
        if counts.in_progress != in_flight || counts.total != in_flight + ended {
            return broken("the counts are true", format!("{counts:?}, in flight {in_flight}"));
        }
        Ok(())
    }

    fn handle(&mut self, event: Event<TaskSnapshot>, h: &mut Harness) -> Step {
        match event {
            Event::Trigger { barrier, kind, .. } => {
                h.trace.note(format!("{kind} {} is triggered", barrier.id));
                h.counts.triggered += 1;
                let forced = kind.is_savepoint() && !h.plan.mode.overtakes();
                h.judge.triggered(barrier.id, kind, h.plan.settings.max_concurrent, forced)?;
                self.barriers.insert(barrier.id, barrier);
                self.active.insert(barrier.id, None);
                for source in self.actors.iter_mut().filter(|actor| actor.is_source()) {
                    h.crash_point("between two triggers")?;
                    if h.disturb(h.plan.faults.lose_trigger) {
                        h.trace.note(format!("a trigger of {} is lost", barrier.id));
                    } else {
                        source.send(Mail::Trigger(barrier));
                    }
                }
            }
            Event::Commit(commit) => {
                if h.is_broken(Breakage::AnnounceBeforeCommit) {
                    self.handle.commit_finished(commit.id, Ok(()));
                }
                let ready_at = h.now() + Duration::from_micros(h.random.below(10_000));
                self.commits.push_back((ready_at, commit));
            }
            Event::Completed { id, kind, .. } => {
                h.trace.note(format!("{id} is complete"));
                h.counts.completed += 1;
                h.counts.savepoints += u64::from(kind.is_savepoint());
                self.ended(id, true, h)?;
            }
            Event::Aborted { id, reason, declined_by, .. } => {
                h.trace.note(format!("{id} failed: {reason}"));
                h.counts.failed += 1;
                h.counts.declined += u64::from(declined_by.is_some());
                match reason {
                    CheckpointFailureReason::CheckpointExpired => h.counts.expired += 1,
                    CheckpointFailureReason::FinalizeCheckpointFailure => {
                        h.counts.commits_failed += 1;
                    }
                    _ => {}
                }
                self.ended(id, false, h)?;
            }
            Event::Notify(notification) => self.notify(notification, h)?,
            Event::Rejected { kind, reason } => {
                h.trace.note(format!("a {kind} is refused: {reason}"));
                h.counts.rejected += 1;
            }
            Event::JobFailed { reason } => {
                h.trace.note(format!("the job is beyond its tolerance: {reason}"));
                self.failing = true;
                self.coordinator.suspend(CheckpointFailureReason::JobFailoverRegion);
            }
            // What no commit names is garbage in every storage.
            _ => {}
        }
        Ok(())
    }

    fn ended(&mut self, id: CheckpointId, completed: bool, h: &mut Harness) -> Step {
        if !h.is_broken(Breakage::AnnounceBeforeCommit) {
            self.barriers.remove(&id);
            self.active.remove(id);
        }
        let sources = self.actors.iter().filter(|actor| actor.is_source());
        let mut cuts = sources.map(|source| source.cut_after_end);
        if completed
            && self.holds_all.is_none()
            && cuts.all(|cut| cut.is_some_and(|cut| cut <= id))
            && h.judge.holds_no_records(id)
        {
            self.holds_all = Some(id);
        }
        h.judge.ended(id, completed)
    }

    fn notify(&mut self, notification: Notification, h: &mut Harness) -> Step {
        h.crash_point("before a notification")?;
        h.trace.note(format!("{notification:?}"));
        h.judge.notified(notification)?;
        for actor in &mut self.actors {
            actor.send(Mail::News(notification));
        }
        Ok(())
    }

    /// Makes the oldest checkpoint that waits for it durable, then gives up the surplus.
    pub(super) fn commit(&mut self, h: &mut Harness) -> Step {
        let Some((_, commit)) = self.commits.pop_front() else { return Ok(()) };
        let id = commit.id;
        h.crash_point("before a commit")?;
        let fails = h.disturb(h.plan.faults.fail_commit);
        // A failed commit may turn out to be durable.
        let is_done = !fails || h.random.chance(3000);
        let committed = is_done && self.make_durable(commit, h)?;
        h.trace.note(format!("commit of {id}: durable {committed}, fails {fails}"));
        h.crash_point("between a commit and its report")?;
        let succeeded = committed && !fails;
        h.counts.commits_unsure += u64::from(committed && fails);
        if !h.is_broken(Breakage::AnnounceBeforeCommit) {
            let reason = CheckpointFailureReason::FinalizeCheckpointFailure;
            self.handle.commit_finished(id, succeeded.then_some(()).ok_or(reason));
        }
        if succeeded {
            h.crash_point("between a commit and retention")?;
            self.subsume(h)?;
        }
        Ok(())
    }

    /// False when a newer checkpoint is durable already.
    fn make_durable(&mut self, commit: Commit<TaskSnapshot>, h: &mut Harness) -> Step<bool> {
        let id = commit.id;
        let barrier = self.barriers.get(&id).copied();
        let pending = barrier.map(|barrier| self.active.pending(&barrier)).transpose()?.flatten();
        let Some(pending) = pending else {
            return broken("what is committed has records", format!("{id}"));
        };
        let named = |(index, snapshot): (u32, TaskSnapshot)| {
            let task = self.tasks.get(usize::try_from(index).ok()?)?;
            Some((task.clone(), snapshot))
        };
        let snapshots: Vec<_> = commit.acknowledged.into_iter().filter_map(named).collect();
        let newest = self.checkpoints.ids().last().copied();
        match pending.commit(&snapshots) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Conflict && newest > Some(id) => {
                return Ok(false);
            }
            Err(error) => return Err(Stop::from(error)),
        }
        h.judge.durable(id);
        h.crash_point("behind a commit")?;
        self.read_back(id, h)?;
        Ok(true)
    }

    fn read_back(&self, id: CheckpointId, h: &mut Harness) -> Step {
        self.checkpoints.verify(id, &mut |_| {})?;
        for (index, task) in (0..).zip(&self.tasks) {
            let mut reader = self.checkpoints.read_task(id, task)?;
            let part = read_part(&h.plan, task, &mut reader)?;
            h.judge.read(id, index, &part)?;
        }
        Ok(())
    }

    fn subsume(&mut self, h: &mut Harness) -> Step {
        let before = self.checkpoints.ids();
        let mut savepoints = Vec::new();
        for id in &before {
            if self.checkpoints.info(*id)?.kind.is_savepoint() {
                savepoints.push(*id);
            }
        }
        let retained = h.plan.retained;
        let subsumed = self.checkpoints.subsume(retained)?;
        if h.is_broken(Breakage::DropNewest) {
            self.checkpoints.discard(&before.last().copied().into_iter().collect::<Vec<_>>())?;
        }
        h.judge.retained(&before, &savepoints, &self.checkpoints.ids(), retained)?;
        for id in subsumed {
            h.trace.note(format!("{id} is subsumed"));
            for actor in &mut self.actors {
                actor.send(Mail::News(Notification::Subsumed { id }));
            }
        }
        Ok(())
    }
}
