//! The command line `tidegate`: arguments in, text or JSON out.
//!
//! An embedder with storages or names of its own can call [`run`] from a program of its own.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::error::ErrorKind as ClapError;
use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::CheckpointId;
use crate::inspect::damage::chain;
use crate::inspect::{Inspector, StoreLocation, VerifyProgress, check_config};
use crate::limits::CONFIG_FILE_BYTES_MAX;

mod change;
mod entries;
mod simulate;
mod transfer;

use entries::StateName;

/// It is done, and the answer is yes where there was a question.
pub const EXIT_OK: u8 = 0;
/// The answer is no: damage was found, or two checkpoints differ.
pub const EXIT_NO: u8 = 1;
/// Wrong usage or bad input: no such store, job, checkpoint or file, or a wrong value in a file.
pub const EXIT_USAGE: u8 = 2;
/// It could not run: an I/O error, or the store is in use.
pub const EXIT_FAILED: u8 = 3;

const EXIT_CODES: &str = "Exit codes: 0 ok; 1 damage was found, or is left, or two checkpoints differ; 2 wrong usage, no such store, \
                          job, checkpoint or file, or a wrong configuration or case; 3 could not run";

/// Looks at tidegate checkpoint stores, configurations and policies; changes a store by delete, pin,
/// unpin, gc, repair and import alone, and copies a checkpoint with export.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Lists the jobs of a store and their completed checkpoints
    List(Common),
    /// Shows one checkpoint with its operators, tasks and sections
    Show(Show),
    /// Reads everything that checkpoints depend on and reports damage
    Verify(WithId),
    #[command(flatten)]
    Change(change::Change),
    #[command(flatten)]
    Transfer(transfer::Transfer),
    /// Looks at configuration files
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Shows what the coordinator does with a checkpoint policy, case by case
    Simulate(simulate::Simulate),
}

#[derive(Debug, Subcommand)]
enum ConfigVerb {
    /// Shows what a Flink configuration comes to: each value, where it is from, every warning
    Check {
        /// A config.yaml or flink-conf.yaml
        file: PathBuf,

        /// Prints one JSON object: times in milliseconds, sizes in bytes
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct Common {
    #[arg(
        help = "A directory, sled:///path, file:///path or s3://bucket/path; STORE#ID names a checkpoint in it"
    )]
    #[arg(value_parser = OsStringValueParser::new().try_map(|text| StoreLocation::parse(&text)))]
    store: StoreLocation,

    /// The job, where the store has several
    #[arg(long, value_name = "NAME")]
    job: Option<String>,

    /// Prints one JSON object: times in milliseconds, sizes in bytes
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct WithId {
    #[command(flatten)]
    common: Common,

    /// The checkpoint [default: the newest to show, all to verify; named to delete, pin or unpin]
    id: Option<u64>,
}

#[derive(Debug, Args)]
struct Show {
    #[command(flatten)]
    which: WithId,

    /// Prints the entries of this keyed state as JSON, one a line, when its codec is JSON; exit code 1 when
    /// only the program itself can read them
    #[arg(long, value_name = "UID/NAME", value_parser = |text: &str| StateName::parse(text))]
    state: Option<StateName>,
}

/// What is printed, and what the answer is.
struct Answer {
    text: String,
    code: u8,
}

/// Runs one command: `arguments` begin with the program's name, reports go to `out`, what went
/// wrong to `err`; `progress` allows a progress bar on the terminal behind standard error. Returns
/// the exit code of the process.
///
/// ```
/// use tidegate::inspect::cli::{EXIT_USAGE, run};
///
/// let (mut out, mut err) = (Vec::new(), Vec::new());
/// let code = run(["tidegate", "list", "/nowhere"], &mut out, &mut err, false);
/// assert_eq!(code, EXIT_USAGE);
/// assert_eq!(err, b"error: /nowhere holds no tidegate store\n");
/// ```
pub fn run<A: Into<OsString> + Clone>(
    arguments: impl IntoIterator<Item = A>,
    out: &mut dyn Write,
    err: &mut dyn Write,
    progress: bool,
) -> u8 {
    let answer = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => answer(&arguments.verb, progress, out),
        Err(error) => match error.kind() {
            ClapError::DisplayHelp | ClapError::DisplayVersion => {
                Ok(Answer { text: error.to_string(), code: EXIT_OK })
            }
            _ => {
                // Nobody is left to tell when this fails too.
                let _ = write!(err, "{error}");
                return EXIT_USAGE;
            }
        },
    };
    match answer.and_then(|answer| print(&answer, out)) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(err, "error: {}", chain(&error));
            exit_code(&error)
        }
    }
}

fn answer(verb: &Verb, progress: bool, out: &mut dyn Write) -> Result<Answer> {
    match verb {
        Verb::List(common) => {
            if common.store.checkpoint().is_some() {
                return Err(Error::invalid("list takes a store, not a checkpoint; see show"));
            }
            let listing = common.open()?.list(common.job.as_deref())?;
            common.answer(&listing, EXIT_OK)
        }
        Verb::Show(Show { which: WithId { common, id }, state }) => {
            let id = common.checkpoint(*id)?;
            let inspector = common.open()?;
            if let Some(state) = state {
                let of = (common.job.as_deref(), id);
                return Ok(Answer::silent(state.print(&inspector, of, common.json, out)?));
            }
            let details = inspector.show(common.job.as_deref(), id)?;
            common.answer(&details, EXIT_OK)
        }
        Verb::Verify(WithId { common, id }) => {
            let id = common.checkpoint(*id)?;
            let inspector = common.open()?;
            let bar = progress.then(|| progress_bar("verifying"));
            let verified = inspector.verify(common.job.as_deref(), id, &mut |progress| {
                show_progress(bar.as_ref(), progress);
            });
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
            let verified = verified?;
            common.answer(&verified, if verified.sound { EXIT_OK } else { EXIT_NO })
        }
        Verb::Change(change) => change.answer(progress.then(|| progress_bar("checking"))),
        Verb::Transfer(transfer) => {
            transfer.answer(progress.then(|| progress_bar(transfer.doing())).as_ref())
        }
        Verb::Config(ConfigVerb::Check { file, json }) => {
            let report = check_config(&read_config(file)?);
            Answer::of(&report.map_err(|error| error.context(file.display()))?, *json, EXIT_OK)
        }
        // Its report may be long: it is printed case by case.
        Verb::Simulate(cases) => cases.print(out).map(|()| Answer::silent(EXIT_OK)),
    }
}

impl Common {
    fn open(&self) -> Result<Inspector> {
        Inspector::at(&self.store)
    }

    fn checkpoint(&self, id: Option<u64>) -> Result<Option<CheckpointId>> {
        match (self.store.checkpoint(), id.map(CheckpointId)) {
            (Some(_), Some(_)) => Err(Error::invalid("the checkpoint is named twice")),
            (named, None) => Ok(named),
            (None, id) => Ok(id),
        }
    }

    fn answer<R: Serialize + ToString>(&self, report: &R, code: u8) -> Result<Answer> {
        Answer::of(report, self.json, code)
    }
}

impl Answer {
    fn of<R: Serialize + ToString>(report: &R, json: bool, code: u8) -> Result<Self> {
        let mut text = if json {
            serde_json::to_string_pretty(report)
                .map_err(|error| Error::internal("the report has no JSON").with_source(error))?
        } else {
            report.to_string()
        };
        if !text.ends_with('\n') {
            text.push('\n');
        }
        Ok(Self { text, code })
    }

    /// For a verb that has printed its report already.
    fn silent(code: u8) -> Self {
        Self { text: String::new(), code }
    }
}

/// A configuration as text, as far as one can be long.
fn read_config(file: &Path) -> Result<String> {
    let doing = || format!("read {}", file.display());
    let opened = File::open(file).map_err(|error| Error::io(doing(), error))?;
    let most = u64::try_from(CONFIG_FILE_BYTES_MAX).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    // One byte more than is allowed shows that there are too many.
    let mut opened = opened.take(most.saturating_add(1));
    opened.read_to_end(&mut bytes).map_err(|error| Error::io(doing(), error))?;
    String::from_utf8(bytes)
        .map_err(|_| Error::invalid(format!("{} is not UTF-8 text", file.display())))
}

fn show_progress(bar: Option<&ProgressBar>, progress: VerifyProgress) {
    let Some(bar) = bar else { return };
    if bar.length() != Some(progress.total_bytes) {
        bar.set_length(progress.total_bytes);
    }
    bar.set_position(progress.done_bytes);
}

fn progress_bar(doing: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    let style = "{bar:24} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
    match ProgressStyle::with_template(&format!("{doing} {style}")) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn print(answer: &Answer, out: &mut dyn Write) -> Result<u8> {
    printed(out.write_all(answer.text.as_bytes()).and_then(|()| out.flush()))?;
    Ok(answer.code)
}

/// What printing came to; false when the reader is gone. One that has seen enough, as in
/// `tidegate list | head -1`, is no failure.
fn printed(result: io::Result<()>) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => {
            Err(Error::new(ErrorKind::Unavailable, "cannot print the report").with_source(error))
        }
    }
}

fn exit_code(error: &Error) -> u8 {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref());
    let refused = |cause: &io::Error| cause.kind() == io::ErrorKind::PermissionDenied;
    match error.kind() {
        ErrorKind::Corrupt => EXIT_NO,
        // Whoever may not read a store has named the right one.
        ErrorKind::Invalid if cause.is_some_and(refused) => EXIT_FAILED,
        ErrorKind::Invalid | ErrorKind::NotFound => EXIT_USAGE,
        _ => EXIT_FAILED,
    }
}
