//! Who is told of a checkpoint, and who has to acknowledge it (Flink:
//! `DefaultCheckpointPlanCalculator`).
//!
//! Owns the rule about tasks that have finished or do not run yet. Knows nothing of a checkpoint.

use crate::error::{Error, ErrorKind, Result};
use crate::message::CheckpointFailureReason;

/// Whether a task can take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskState {
    /// It takes part.
    Running,
    /// It does not run yet, or not any more without having finished: nothing can start.
    NotRunning,
    /// It has processed all its input and is gone.
    Finished,
}

/// How the subtasks of two operators are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PlanEdge {
    /// From every subtask to every subtask.
    AllToAll {
        /// The operator upstream, by its place in the list.
        from: usize,
    },
    /// From each subtask to those at the same place.
    Pointwise {
        /// The operator upstream, by its place in the list.
        from: usize,
    },
}

/// One operator of a job, as a plan sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanVertex {
    /// The state of each subtask.
    pub subtasks: Vec<TaskState>,
    /// Where its input comes from; a source has none.
    pub inputs: Vec<PlanEdge>,
}

/// Who takes part in a checkpoint; tasks are (operator, subtask).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TriggerPlan {
    /// They are sent the barrier.
    pub trigger: Vec<(usize, usize)>,
    /// They acknowledge, and are told the outcome.
    pub wait: Vec<(usize, usize)>,
    /// They count as having acknowledged.
    pub finished: Vec<(usize, usize)>,
}

/// Plans a checkpoint: the barrier goes to every running task above which none runs.
///
/// ```
/// use tidegate::coordinator::{PlanEdge, PlanVertex, TaskState::{Finished, Running}, plan_trigger};
///
/// let source = PlanVertex { subtasks: vec![Finished, Finished], inputs: vec![] };
/// let inputs = vec![PlanEdge::AllToAll { from: 0 }];
/// let sink = PlanVertex { subtasks: vec![Running], inputs };
/// let plan = plan_trigger(&[source, sink], true).unwrap();
/// assert_eq!(plan.trigger, [(1, 0)]);
/// ```
///
/// # Errors
/// `NotAllRequiredTasksRunning` when a task is not running, when one has finished and that is not
/// `allowed`, and when all have.
pub fn plan_trigger(
    vertices: &[PlanVertex],
    after_tasks_finish: bool,
) -> std::result::Result<TriggerPlan, CheckpointFailureReason> {
    let mut plan = TriggerPlan { trigger: Vec::new(), wait: Vec::new(), finished: Vec::new() };
    for (operator, vertex) in vertices.iter().enumerate() {
        for (subtask, state) in vertex.subtasks.iter().enumerate() {
            let task = (operator, subtask);
            match state {
                TaskState::NotRunning => {
                    return Err(CheckpointFailureReason::NotAllRequiredTasksRunning);
                }
                TaskState::Finished => plan.finished.push(task),
                TaskState::Running => {
                    plan.wait.push(task);
                    if !has_running_input(vertices, vertex, subtask) {
                        plan.trigger.push(task);
                    }
                }
            }
        }
    }
    if plan.wait.is_empty() || !(after_tasks_finish || plan.finished.is_empty()) {
        return Err(CheckpointFailureReason::NotAllRequiredTasksRunning);
    }
    Ok(plan)
}

fn has_running_input(vertices: &[PlanVertex], vertex: &PlanVertex, subtask: usize) -> bool {
    let below = vertex.subtasks.len();
    vertex.inputs.iter().any(|edge| {
        let (PlanEdge::AllToAll { from } | PlanEdge::Pointwise { from }) = *edge;
        let upstream = vertices.get(from).map_or(&[][..], |vertex| &vertex.subtasks);
        let above = upstream.len();
        let connected = match edge {
            PlanEdge::AllToAll { .. } => 0..above,
            // One reads several, or several read one.
            PlanEdge::Pointwise { .. } if above >= below => {
                subtask * above / below..(subtask + 1) * above / below
            }
            PlanEdge::Pointwise { .. } => {
                let one = subtask * above / below;
                one..one + 1
            }
        };
        upstream.get(connected).is_some_and(|tasks| tasks.contains(&TaskState::Running))
    })
}

/// The states of a coordinator's tasks, with their counts.
#[derive(Debug)]
pub(super) struct TaskStates {
    states: Box<[TaskState]>,
    not_running: u32,
    finished: u32,
}

impl TaskStates {
    /// All running.
    pub(super) fn new(tasks: u32) -> Self {
        let tasks = usize::try_from(tasks).unwrap_or(usize::MAX);
        Self { states: vec![TaskState::Running; tasks].into(), not_running: 0, finished: 0 }
    }

    pub(super) fn set(&mut self, task: u32, state: TaskState) -> Result<()> {
        let place = usize::try_from(task).unwrap_or(usize::MAX);
        let Some(known) = self.states.get_mut(place) else {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no task {task}")));
        };
        let before = std::mem::replace(known, state);
        for (counted, count) in [
            (TaskState::NotRunning, &mut self.not_running),
            (TaskState::Finished, &mut self.finished),
        ] {
            *count = *count + u32::from(state == counted) - u32::from(before == counted);
        }
        Ok(())
    }

    /// The rule of [`plan_trigger`], by counts.
    pub(super) fn can_start(&self, after_tasks_finish: bool) -> bool {
        let finished = usize::try_from(self.finished).unwrap_or(usize::MAX);
        self.not_running == 0
            && finished < self.states.len()
            && (after_tasks_finish || finished == 0)
    }

    pub(super) fn finished(&self) -> u32 {
        self.finished
    }

    pub(super) fn has_finished(&self, task: u32) -> bool {
        let place = usize::try_from(task).unwrap_or(usize::MAX);
        self.states.get(place) == Some(&TaskState::Finished)
    }
}

#[cfg(test)]
mod tests {
    use super::TaskState::{Finished, NotRunning, Running};
    use super::*;

    fn source(subtasks: &[TaskState]) -> PlanVertex {
        PlanVertex { subtasks: subtasks.to_vec(), inputs: Vec::new() }
    }

    fn all_to_all(subtasks: &[TaskState], from: &[usize]) -> PlanVertex {
        let inputs = from.iter().map(|&from| PlanEdge::AllToAll { from }).collect();
        PlanVertex { subtasks: subtasks.to_vec(), inputs }
    }

    fn pointwise(subtasks: &[TaskState], from: usize) -> PlanVertex {
        PlanVertex { subtasks: subtasks.to_vec(), inputs: vec![PlanEdge::Pointwise { from }] }
    }

    fn triggered(vertices: &[PlanVertex]) -> Vec<(usize, usize)> {
        plan_trigger(vertices, true).unwrap().trigger
    }

    /// Flink: `DefaultCheckpointPlanCalculatorTest.testComputeAllRunningGraph`.
    #[test]
    fn while_all_run_the_sources_are_told_and_everybody_answers() {
        let job = [source(&[Running; 2]), all_to_all(&[Running; 3], &[0])];
        let plan = plan_trigger(&job, false).unwrap();
        assert_eq!(plan.trigger, [(0, 0), (0, 1)]);
        assert_eq!(plan.wait, [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]);
        assert!(plan.finished.is_empty());
    }

    /// Flink: `testAllToAllEdgeWithSomeSourcesFinished`.
    #[test]
    fn behind_an_exchange_a_task_is_told_only_when_nothing_runs_before_it() {
        let below = all_to_all(&[Running; 2], &[0]);
        let job = [source(&[Finished, Running]), below.clone()];
        assert_eq!(triggered(&job), [(0, 1)]);
        assert_eq!(plan_trigger(&job, true).unwrap().finished, [(0, 0)]);
        assert_eq!(triggered(&[source(&[Finished; 2]), below]), [(1, 0), (1, 1)]);
    }

    /// Flink: `testOneToOneEdgeWithSomeSourcesFinished`.
    #[test]
    fn behind_a_pointwise_edge_only_the_connected_tasks_count() {
        let job = [source(&[Finished, Running]), pointwise(&[Running; 2], 0)];
        assert_eq!(triggered(&job), [(0, 1), (1, 0)]);
        let job = [source(&[Finished, Finished, Running, Running]), pointwise(&[Running; 2], 0)];
        assert_eq!(triggered(&job), [(0, 2), (0, 3), (1, 0)]);
        let job = [source(&[Finished, Running]), pointwise(&[Running; 4], 0)];
        assert_eq!(triggered(&job), [(0, 1), (1, 0), (1, 1)]);
    }

    /// Flink: `testComputeWithMultipleInputs`, `testComputeWithMultipleLevels`.
    #[test]
    fn several_inputs_and_levels_combine() {
        let job = [
            source(&[Finished]),
            source(&[Running]),
            all_to_all(&[Running], &[0]),
            all_to_all(&[Running], &[1, 2]),
        ];
        assert_eq!(triggered(&job), [(1, 0), (2, 0)]);
    }

    /// Flink: `testPlanCalculationWhenOneTaskNotRunning`.
    #[test]
    fn without_one_task_there_is_no_plan() {
        let refused = Err(CheckpointFailureReason::NotAllRequiredTasksRunning);
        let job = [source(&[Running, NotRunning]), all_to_all(&[Running], &[0])];
        assert_eq!(plan_trigger(&job, true), refused);
        assert_eq!(plan_trigger(&[source(&[Finished])], true), refused);
        let job = [source(&[Finished, Running])];
        assert_eq!(plan_trigger(&job, false), refused);
        assert!(plan_trigger(&job, true).is_ok());
    }
}
