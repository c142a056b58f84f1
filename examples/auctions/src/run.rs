//! One run from its arguments to its end.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidegate::config::{CheckpointConfig, EffectiveConfig};
use tidegate::local::{Job, JobEnd, JobListener, RestartPolicy};
use tidegate::restore::RestoreReport;
use tidegate::storage::SledCheckpointStorage;
use tidegate::{CheckpointId, Error, ErrorKind, Result};

use crate::arguments::Arguments;
use crate::faults::Faults;
use crate::flow::flow;
use crate::progress::{Watch, Watcher, say};
use crate::rate::RateLimit;
use crate::signals::StopSignal;
use crate::source::{Counters, Events};

/// The fixed name of the job in its store.
const JOB: &str = "auctions";

/// How a run ended.
pub(crate) enum Ended {
    /// The stream has ended, and every row is in the table.
    Finished,
    /// By a signal; the exit code.
    Stopped(u8),
}

/// Runs the job from wherever it stands.
pub(crate) fn run(arguments: &Arguments) -> Result<Ended> {
    let config = config(arguments)?;
    let (store, database) = (arguments.store(), arguments.output());
    make_parent(&database)?;
    let stop = StopSignal::listen()?;
    let counters = Arc::new(Counters::default());
    let rate = RateLimit::new(Some(arguments.rate).filter(|rate| *rate > 0));
    let events = Events::new(arguments.events, arguments.open_auctions, rate, &counters);
    let flow = flow(events, arguments.parallelism, database.clone(), faults(arguments))?;
    let storage = Arc::new(SledCheckpointStorage::new(&store));
    let job = Job::builder(JOB, flow, config, storage)
        .restart_policy(RestartPolicy::exponential(
            Duration::from_millis(100),
            Duration::from_secs(10),
        ))
        .listener(Arc::new(Narrator))
        .build()?;
    say(&format!(
        "checkpoints in {}, results in {}; stop it with Ctrl-C or kill -9 {}, and start it again",
        store.display(),
        database.display(),
        std::process::id()
    ));
    let line_every = arguments.line_every;
    let watch = Watch { job: job.handle(), stop: stop.clone(), counters, line_every };
    let watcher = Watcher::start(watch)?;
    let end = job.run();
    drop(watcher);
    report(end?, &stop, &database)
}

fn config(arguments: &Arguments) -> Result<EffectiveConfig> {
    let config = CheckpointConfig::builder()
        .interval(arguments.interval)
        .timeout(arguments.checkpoint_timeout)
        .unlimited_failures()
        .build()?;
    config.warnings().iter().for_each(|warning| say(&format!("warning: {warning}")));
    Ok(config)
}

fn faults(arguments: &Arguments) -> Faults {
    Faults {
        decline_every: arguments.decline_every,
        hold_every: arguments.hold_every,
        hold: arguments.checkpoint_timeout.saturating_mul(2),
    }
}

fn make_parent(database: &Path) -> Result<()> {
    match database.parent() {
        Some(parent) => fs::create_dir_all(parent)
            .map_err(|source| Error::io(format!("make {}", parent.display()), source)),
        None => Ok(()),
    }
}

fn report(end: JobEnd, stop: &StopSignal, database: &Path) -> Result<Ended> {
    match end {
        JobEnd::Finished(finished) => {
            let checkpoint = finished.checkpoint();
            finished.record("the stream has ended")?;
            say(&format!("finished with checkpoint {checkpoint}: see {}", database.display()));
            Ok(Ended::Finished)
        }
        JobEnd::AlreadyFinished { word } => {
            say(&format!("nothing to do, {word}: see {}", database.display()));
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

/// Says what happens to the job.
struct Narrator;

impl JobListener for Narrator {
    fn restored(&self, report: &RestoreReport) {
        say(&report.to_string());
    }

    fn failed(&self, id: CheckpointId, reason: tidegate::message::CheckpointFailureReason) {
        say(&format!("checkpoint {id} failed: {reason:?}"));
    }

    fn restarting(&self, error: &Error, delay: Duration) {
        say(&format!("failed: {}; starting again in {delay:?}", crate::with_causes(error)));
    }
}
