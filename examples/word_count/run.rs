//! One run from its arguments to its end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate::config::{CheckpointConfig, EffectiveConfig};
use tidegate::local::{Finished, Job, JobEnd, JobListener, Progress};
use tidegate::restore::{RestorePolicy, RestoreReport};
use tidegate::{CheckpointId, Error, ErrorKind, Result};

use crate::Failure;
use crate::arguments::{Arguments, command_to_start_over};
use crate::flow::{COUNT, flow};
use crate::input::Input;
use crate::output;
use crate::plan::{Plan, plan};
use crate::progress::{Watch, Watcher, say};
use crate::rate::RateLimit;
use crate::signals::StopSignal;
use crate::source::{FileSource, ReadSoFar};
use crate::state::{INPUT, JOB, State};
use crate::words::Bytes;

/// How long a run over the default files takes.
const DEFAULT_SECONDS: u64 = 10;

/// How a run ended.
pub(crate) enum Ended {
    /// The outputs are complete.
    Finished,
    /// By a signal; the exit code.
    Stopped(u8),
}

/// Does what the arguments ask for.
pub(crate) fn run(arguments: &Arguments) -> Result<Ended, Failure> {
    let config = config(arguments).map_err(Failure::Usage)?;
    config.warnings().iter().for_each(|warning| say(&format!("warning: {warning}")));
    let state = State::of(arguments, &config).map_err(Failure::Usage)?;
    let input = Input::open(&arguments.input).map_err(Failure::Usage)?;
    let output = arguments.output_dir();
    let mut sources = arguments.parallelism;
    let mut policy = arguments.policy();
    match decide(arguments, &input, &state)? {
        Plan::Nothing => return finished_before(&state, &output),
        Plan::GoOn { sources: saved } => sources = saved.unwrap_or(sources),
        Plan::StartOver(reason) => {
            say(&format!("starting over: {reason}"));
            if state.look()?.is_none() {
                // No state refers to what lies there, so no start could ever need it.
                output::remove_lines(&output)?;
            }
            policy = RestorePolicy::Fresh;
        }
    }
    introduce(arguments, &input, &state);
    Ok(count(arguments, config, &input, &state, (policy, sources))?)
}

fn decide(arguments: &Arguments, input: &Input, state: &State) -> Result<Plan, Failure> {
    let policy = arguments.policy();
    if policy == RestorePolicy::Fresh {
        let option = if arguments.fresh { "--fresh" } else { "--restore fresh" };
        return Ok(Plan::StartOver(format!("{option} was given")));
    }
    match state.look()? {
        // One checkpoint is asked for: the job says what is wrong with it.
        Some(saved) if !goes_on(&policy) => Ok(Plan::GoOn { sources: saved.sources }),
        Some(saved) => Ok(plan(&saved, input, state)?),
        None => Ok(Plan::GoOn { sources: None }),
    }
}

/// True when the newest state that serves is what the run is about.
fn goes_on(policy: &RestorePolicy) -> bool {
    matches!(policy, RestorePolicy::Latest | RestorePolicy::Fallback { .. })
}

fn config(arguments: &Arguments) -> Result<EffectiveConfig> {
    let timeout = arguments.alignment_timeout;
    CheckpointConfig::builder()
        .interval(arguments.interval)
        .unlimited_failures()
        .mode(arguments.mode.into())
        .unaligned(arguments.unaligned || timeout.is_some())
        .aligned_timeout(timeout.unwrap_or_default())
        .build()
}

/// Runs the job from wherever it stands.
fn count(
    arguments: &Arguments,
    config: EffectiveConfig,
    input: &Input,
    state: &State,
    (policy, sources): (RestorePolicy, u32),
) -> Result<Ended> {
    let output = arguments.output_dir();
    let stop = StopSignal::listen()?;
    let rate = Arc::new(RateLimit::new(rate(arguments, input)));
    let read: Vec<_> = (0..sources).map(|_| Arc::new(ReadSoFar::default())).collect();
    let sources = FileSource::all(input, &rate, &read);
    let lines = output::lines_dir(&output);
    let flow = flow(sources, arguments.parallelism, lines, arguments.slow_sink)?;
    let job = Job::builder(JOB, flow, config, state.storage())
        .restore_policy(policy)
        .expect_property(INPUT, input.identity())
        .listener(Arc::new(Narrator::new(&output)))
        .build()?;
    let watcher = Watcher::start(Watch {
        job: job.handle(),
        stop: stop.clone(),
        read,
        total_bytes: input.bytes(),
        total_lines: input.lines(),
    })?;
    let end = job.run();
    drop(watcher);
    match end? {
        JobEnd::Finished(finished) => {
            finish(finished, input, &output)?;
            Ok(Ended::Finished)
        }
        JobEnd::Suspended { checkpoint } => {
            match checkpoint {
                Some(id) => say(&format!("stopped; checkpoint {id} is kept")),
                None => say("stopped before the first checkpoint"),
            }
            Ok(Ended::Stopped(stop.code().unwrap_or(1)))
        }
        end => Err(Error::new(ErrorKind::Internal, format!("the job has an unknown end: {end:?}"))),
    }
}

/// Everything is committed. CRASH: between any two of these steps the next start repeats the rest.
fn finish(finished: Finished, input: &Input, output: &Path) -> Result<()> {
    let mut counts = BTreeMap::new();
    finished.keyed_state(COUNT, COUNT, |word: Bytes, count: u64| {
        counts.insert(word.0, count);
        Ok(())
    })?;
    output::write_counts(output, &counts)?;
    let checkpoint = finished.checkpoint();
    finished.record(&input.identity())?;
    let words: u64 = counts.values().sum();
    say(&format!(
        "finished with checkpoint {checkpoint}: {words} words, {} of them distinct, in {}",
        counts.len(),
        output.display()
    ));
    Ok(())
}

fn finished_before(state: &State, output: &Path) -> Result<Ended, Failure> {
    let counts = output::counts_path(output);
    if !counts.is_file() {
        let message = format!(
            "the run in {state} has finished, but {} is not there; --fresh counts again",
            counts.display()
        );
        return Err(Failure::Run(Error::new(ErrorKind::NotFound, message)));
    }
    say(&format!("the run in {state} has finished already: {}", counts.display()));
    Ok(Ended::Finished)
}

/// The limit on lines per second; without one given, a run over the default files lasts.
fn rate(arguments: &Arguments, input: &Input) -> Option<u64> {
    let paced = || input.is_default.then(|| input.lines().div_ceil(DEFAULT_SECONDS).max(1));
    arguments.rate.or_else(paced)
}

fn introduce(arguments: &Arguments, input: &Input, state: &State) {
    say(&format!(
        "reading {} lines of {} files; checkpoints in {state}, results in {}",
        input.lines(),
        input.files.len(),
        arguments.output_dir().display()
    ));
    say(&format!("  kill it:  kill -9 {}", std::process::id()));
    if state.is_durable() {
        say(&format!("  go on:    {}", arguments.command_to_go_on()));
    } else {
        // Nobody will know the lines of this run as theirs.
        say(&format!("  again:    {}", command_to_start_over()));
    }
}

/// Says what happens to the job.
struct Narrator {
    output: PathBuf,
    has_old_counts: AtomicBool,
}

impl Narrator {
    fn new(output: &Path) -> Self {
        Self { output: output.to_path_buf(), has_old_counts: AtomicBool::new(true) }
    }
}

impl JobListener for Narrator {
    fn restored(&self, report: &RestoreReport) {
        say(&report.to_string());
    }

    fn completed(&self, _: CheckpointId, _: &Progress) {
        // By now the sink has found the output directory to be this run's own. A table of counts
        // there is from a run before; this one writes it again at its end.
        if self.has_old_counts.swap(false, Ordering::Relaxed)
            && let Err(error) = output::remove_counts(&self.output)
        {
            say(&format!("warning: {}", crate::with_causes(&error)));
        }
    }

    fn restarting(&self, error: &Error, delay: Duration) {
        say(&format!("failed: {}; starting again in {delay:?}", crate::with_causes(error)));
    }
}
