//! How far a simulation goes, and what it breaks on purpose.

/// The bounds of a simulation; within them the seed decides.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SimOptions {
    /// The most records of one source.
    pub records_max: u64,
    /// The most steps during which the job is disturbed; zero gives the undisturbed run.
    pub disturbed_steps_max: u64,
    /// How many steps the job may take to end once nothing disturbs it any more.
    pub quiet_steps_max: u64,
    /// How many of the last events a failure carries.
    pub trace_events: usize,
    /// A fault of the job itself, to see that the simulation notices.
    #[doc(hidden)]
    pub breakage: Option<Breakage>,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            records_max: 250,
            disturbed_steps_max: 6000,
            quiet_steps_max: 60_000,
            trace_events: 80,
            breakage: None,
        }
    }
}

/// A fault that somebody could build into a host.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Breakage {
    /// A snapshot of a sink leaves its oldest token out.
    LoseOneToken,
    /// A commit is reported, and so announced, before it is done.
    AnnounceBeforeCommit,
    /// A task with several inputs cuts at the first barrier.
    CutAtFirstBarrier,
    /// A sink gives its transaction up with the checkpoint that sealed it.
    AbortWithCheckpoint,
    /// A restart leaves the transactions that its checkpoint does not hold as they are.
    KeepOldTransactions,
    /// A source says that it stands one record further on.
    SkipOneRecord,
    /// Each start counts checkpoints from 1 again.
    ReuseIds,
    /// Retention gives up the newest checkpoint, too.
    DropNewest,
    /// One checkpoint more than permitted may be in flight.
    OneMoreInFlight,
    /// A restore leaves the records out that were on their way.
    DropInFlight,
    /// A restore brings the records on their way twice.
    ReplayTwice,
    /// The log misses the last record before each barrier.
    LogTooLittle,
    /// A barrier overtakes records on an edge that cannot be unaligned.
    OvertakeEverywhere,
    /// With another parallelism, every subtask takes all records that were on their way.
    ReplayEverywhere,
    /// A sink forgets what it sealed at a cut that was given up later.
    ForgetSealed,
}
