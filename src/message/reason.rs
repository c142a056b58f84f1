//! Why a checkpoint failed or a request was refused, by Flink's names.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $flink:literal $pre_flight:literal $counted:literal,)*) => {
        /// Why a checkpoint failed or a request was refused (Flink: `CheckpointFailureReason`).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum CheckpointFailureReason {
            $($(#[$doc])* $name,)*
        }

        impl CheckpointFailureReason {
            /// All reasons.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Flink's name of the constant.
            pub fn flink_name(self) -> &'static str {
                match self {
                    $(Self::$name => $flink,)*
                }
            }

            /// True when the reason arises before any task was told of the checkpoint.
            pub fn is_pre_flight(self) -> bool {
                match self {
                    $(Self::$name => $pre_flight,)*
                }
            }

            /// True when the failure counts against the tolerable number.
            pub fn is_counted(self) -> bool {
                match self {
                    $(Self::$name => $counted,)*
                }
            }
        }
    };
}

reasons! {
    /// Periodic checkpoints are switched off.
    PeriodicSchedulerShutdown = "PERIODIC_SCHEDULER_SHUTDOWN" true false,
    /// A thousand requests wait already.
    TooManyCheckpointRequests = "TOO_MANY_CHECKPOINT_REQUESTS" true false,
    /// The last completion is younger than the minimum pause.
    MinimumTimeBetweenCheckpoints = "MINIMUM_TIME_BETWEEN_CHECKPOINTS" true false,
    /// A task that must take part is not running.
    NotAllRequiredTasksRunning = "NOT_ALL_REQUIRED_TASKS_RUNNING" true false,
    /// A blocking output cannot be part of a savepoint.
    BlockingOutputExist = "BLOCKING_OUTPUT_EXIST" true false,
    /// Reading or writing failed before the tasks were told.
    IoException = "IO_EXCEPTION" true true,
    /// The background part of a snapshot failed.
    CheckpointAsyncException = "CHECKPOINT_ASYNC_EXCEPTION" false true,
    /// The timeout passed.
    CheckpointExpired = "CHECKPOINT_EXPIRED" false true,
    /// A task declined.
    CheckpointDeclined = "CHECKPOINT_DECLINED" false true,
    /// Writing the metadata failed.
    FinalizeCheckpointFailure = "FINALIZE_CHECKPOINT_FAILURE" false true,
    /// Another subtask's failure broke the shared channel state.
    ChannelStateSharedStreamException = "CHANNEL_STATE_SHARED_STREAM_EXCEPTION" false false,
    /// A newer checkpoint completed first.
    CheckpointSubsumed = "CHECKPOINT_SUBSUMED" false false,
    /// A task was not ready.
    CheckpointDeclinedTaskNotReady = "CHECKPOINT_DECLINED_TASK_NOT_READY" false false,
    /// A task was closing.
    CheckpointDeclinedTaskClosing = "CHECKPOINT_DECLINED_TASK_CLOSING" false false,
    /// A task saw the barrier of a newer checkpoint first.
    CheckpointDeclinedSubsumed = "CHECKPOINT_DECLINED_SUBSUMED" false false,
    /// A task upstream gave the checkpoint up.
    CheckpointDeclinedOnCancellationBarrier =
        "CHECKPOINT_DECLINED_ON_CANCELLATION_BARRIER" false false,
    /// An input ended before its barrier.
    CheckpointDeclinedInputEndOfStream = "CHECKPOINT_DECLINED_INPUT_END_OF_STREAM" false false,
    /// The coordinator was shut down.
    CheckpointCoordinatorShutdown = "CHECKPOINT_COORDINATOR_SHUTDOWN" false false,
    /// The coordinator was suspended: the job is not running.
    CheckpointCoordinatorSuspend = "CHECKPOINT_COORDINATOR_SUSPEND" false false,
    /// The job is restarting.
    JobFailoverRegion = "JOB_FAILOVER_REGION" false false,
    /// A task failed.
    TaskFailure = "TASK_FAILURE" false false,
    /// A task failed while it took its snapshot.
    TaskCheckpointFailure = "TASK_CHECKPOINT_FAILURE" false false,
    /// A task is not known to the coordinator.
    UnknownTaskCheckpointNotificationFailure =
        "UNKNOWN_TASK_CHECKPOINT_NOTIFICATION_FAILURE" false false,
    /// The trigger failed for another reason.
    TriggerCheckpointFailure = "TRIGGER_CHECKPOINT_FAILURE" false false,
    /// More bytes of records were on their way than an unaligned checkpoint may contain. Not one of
    /// Flink's reasons.
    InFlightDataTooLarge = "IN_FLIGHT_DATA_TOO_LARGE" false true,
}

impl fmt::Display for CheckpointFailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.flink_name())
    }
}

#[cfg(test)]
mod tests {
    use super::CheckpointFailureReason as Reason;

    #[test]
    fn there_are_twenty_four_reasons_of_flink_and_one_more_and_six_count() {
        assert_eq!(Reason::ALL.len(), 25);
        assert_eq!(Reason::ALL.iter().filter(|reason| reason.is_counted()).count(), 6);
        assert_eq!(Reason::ALL.iter().filter(|reason| reason.is_pre_flight()).count(), 6);
    }
}
