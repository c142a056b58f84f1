//! Whatever hosts, tasks and users do, in any order: the promises of the coordinator hold.
//!
//! Method: random operations on one coordinator; a model that knows nothing of its policy follows
//! the events and checks what must be true of every run.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const MOST_TASKS: u32 = 3;

/// One thing that somebody does.
#[derive(Debug, Clone, Copy)]
enum Action {
    Submit(CheckpointType),
    /// By one of the last ids, counted back from the newest.
    Acknowledge(u64, u32),
    AcknowledgeAll(u64),
    Decline(u64, u32),
    Abort(u64),
    /// The oldest commit that was handed out ends.
    FinishCommit(bool),
    Pass(u64),
    Suspend,
    Start,
    StopPeriodic,
    Limit(u32),
}

fn action() -> impl Strategy<Value = Action> {
    let kind = prop_oneof![
        4 => Just(CheckpointType::Checkpoint),
        1 => Just(CheckpointType::FullCheckpoint),
        2 => Just(CheckpointType::Savepoint),
        1 => Just(CheckpointType::SyncSavepoint),
    ];
    let (back, task) = (|| 0..5_u64, || 0..=MOST_TASKS);
    prop_oneof![
        4 => kind.prop_map(Action::Submit),
        6 => (back(), task()).prop_map(|(back, task)| Action::Acknowledge(back, task)),
        6 => back().prop_map(Action::AcknowledgeAll),
        2 => (back(), task()).prop_map(|(back, task)| Action::Decline(back, task)),
        1 => back().prop_map(Action::Abort),
        6 => prop::bool::weighted(0.8).prop_map(Action::FinishCommit),
        6 => (0..400_u64).prop_map(Action::Pass),
        1 => Just(Action::Suspend),
        2 => Just(Action::Start),
        1 => Just(Action::StopPeriodic),
        1 => (1..4_u32).prop_map(Action::Limit),
    ]
}

/// What is known of one coordinator from its events alone.
struct Model {
    core: Coordinator<(CheckpointId, u32)>,
    handle: CoordinatorHandle<(CheckpointId, u32)>,
    now: Duration,
    newest: u64,
    in_flight: BTreeSet<CheckpointId>,
    commits: Vec<CheckpointId>,
    /// Accepted states that have not come out.
    inside: BTreeSet<(CheckpointId, u32)>,
    outcomes: BTreeMap<CheckpointId, bool>,
    announced: Option<CheckpointId>,
    /// False between a failure of the job or a suspension and the next start.
    may_start: bool,
    handles: Vec<TriggerHandle>,
}

impl Model {
    fn new(settings: CoordinatorSettings) -> Self {
        let wake: WakeHook = Arc::new(|| {});
        let core = Coordinator::new(settings, MOST_TASKS, id(1), None, wake).unwrap();
        let handle = core.handle();
        Self {
            core,
            handle,
            now: Duration::ZERO,
            newest: 0,
            in_flight: BTreeSet::new(),
            commits: Vec::new(),
            inside: BTreeSet::new(),
            outcomes: BTreeMap::new(),
            announced: None,
            may_start: true,
            handles: Vec::new(),
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Submit(kind) => self.handles.push(self.handle.submit(kind)),
            Action::Acknowledge(back, task) => self.acknowledge(back, task),
            Action::AcknowledgeAll(back) => {
                (0..MOST_TASKS).for_each(|task| self.acknowledge(back, task));
            }
            Action::Decline(back, task) => {
                let reason = Reason::CheckpointDeclined;
                _ = self.handle.decline(self.back(back), task, reason);
            }
            Action::Abort(back) => _ = self.handle.abort(self.back(back), Reason::IoException),
            Action::FinishCommit(succeeds) => self.finish_commit(succeeds),
            Action::Pass(ms) => self.now += Duration::from_millis(ms),
            Action::Suspend => {
                self.core.suspend(Reason::JobFailoverRegion);
                self.drain();
                self.may_start = false;
            }
            Action::Start => {
                self.core.start_periodic(self.now, Duration::from_millis(50));
                self.may_start = true;
            }
            Action::StopPeriodic => self.core.stop_periodic(),
            Action::Limit(max_concurrent) => {
                let changed =
                    CoordinatorSettings { max_concurrent, ..self.core.settings().clone() };
                self.core.update_settings(changed, self.now).unwrap();
            }
        }
        self.core.step(self.now, 0);
        self.drain();
    }

    fn back(&self, back: u64) -> CheckpointId {
        id(self.newest.saturating_sub(back))
    }

    fn acknowledge(&mut self, back: u64, task: u32) {
        let checkpoint = self.back(back);
        let state = (checkpoint, task);
        match self.handle.acknowledge(checkpoint, task, state) {
            Acknowledged::Accepted => assert!(self.inside.insert(state), "{state:?} twice"),
            Acknowledged::Duplicate(back) => {
                assert!(back == state && self.in_flight.contains(&checkpoint));
            }
            Acknowledged::Late(back) | Acknowledged::Unknown(back) => assert_eq!(back, state),
        }
    }

    fn finish_commit(&mut self, succeeds: bool) {
        if !self.commits.is_empty() {
            let result = succeeds.then_some(()).ok_or(Reason::FinalizeCheckpointFailure);
            self.handle.commit_finished(self.commits.remove(0), result);
        }
    }

    fn drain(&mut self) {
        while let Some(event) = self.core.next_event() {
            self.follow(event);
        }
        let counts = self.handle.counts();
        assert_eq!(counts.in_progress, u64::try_from(self.in_flight.len()).unwrap());
        assert_eq!(counts.total, counts.in_progress + counts.completed + counts.failed);
    }

    fn follow(&mut self, event: Event<(CheckpointId, u32)>) {
        match event {
            Event::Trigger { barrier, kind, .. } => {
                assert!(self.may_start, "{kind} started while the job does not run");
                assert_eq!(barrier.id.0, self.newest + 1, "ids follow each other");
                self.newest += 1;
                let settings = self.core.settings();
                let most = usize::try_from(settings.max_concurrent).unwrap();
                let is_forced = kind.is_savepoint() && !settings.unaligned;
                assert!(is_forced || self.in_flight.len() < most, "too many in flight");
                self.in_flight.insert(barrier.id);
            }
            Event::Commit(commit) => {
                let tasks = commit.acknowledged.iter().map(|(task, _)| *task);
                assert!(tasks.eq(0..MOST_TASKS), "every task once");
                for (task, state) in commit.acknowledged {
                    assert_eq!(state, (commit.id, task));
                    assert!(self.inside.remove(&state));
                }
                self.commits.push(commit.id);
            }
            Event::Discard { id, task, state } => {
                assert_eq!(state, (id, task));
                assert!(self.inside.remove(&state), "{state:?} came out twice");
            }
            Event::Completed { id, .. } => self.end(id, true),
            Event::Aborted { id, .. } => self.end(id, false),
            Event::Notify(Notification::Completed { id }) => {
                assert!(self.announced < Some(id), "announcements go up");
                self.announced = Some(id);
            }
            Event::Notify(Notification::Aborted { latest_completed, .. }) => {
                assert_eq!(latest_completed, self.announced);
            }
            Event::JobFailed { .. } => self.may_start = false,
            Event::Notify(_) | Event::Rejected { .. } => {}
        }
    }

    fn end(&mut self, id: CheckpointId, completed: bool) {
        assert!(self.in_flight.remove(&id), "{id} ended without being in flight");
        assert_eq!(self.outcomes.insert(id, completed), None, "{id} ended twice");
    }

    /// Everything ends, and everybody was told the truth.
    fn finish(mut self) {
        self.handle.shutdown();
        self.act(Action::Pass(0));
        while !self.commits.is_empty() {
            self.act(Action::FinishCommit(true));
        }
        assert!(self.in_flight.is_empty() && self.inside.is_empty());
        for handle in &self.handles {
            let completed = match handle.try_outcome().unwrap() {
                CheckpointOutcome::Completed(id) => Some((id, true)),
                CheckpointOutcome::Failed { id, .. } => id.map(|id| (id, false)),
            };
            if let Some((id, completed)) = completed {
                assert_eq!(self.outcomes.get(&id), Some(&completed));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn every_run_keeps_the_promises(
        actions in prop::collection::vec(action(), 1..120),
        max_concurrent in 1..4_u32,
        tolerable_failures in prop::option::of(0..3_u32),
        unaligned in any::<bool>(),
    ) {
        let mut model = Model::new(CoordinatorSettings {
            period: Some(Duration::from_millis(100)),
            min_pause: Duration::from_millis(30),
            tolerable_failures,
            unaligned,
            ..manual(max_concurrent)
        });
        for action in actions {
            model.act(action);
        }
        model.finish();
    }
}
