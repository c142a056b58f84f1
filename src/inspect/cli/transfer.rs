//! The verbs between two places: `export`, `import` and `diff`.

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Subcommand};
use indicatif::ProgressBar;

use super::{Answer, EXIT_NO, EXIT_OK, show_progress};
use crate::error::Result;
use crate::inspect::{
    CheckpointLocation, CopyTarget, VerifyProgress, diff_checkpoints, export_checkpoint,
    import_checkpoint,
};

const FROM: &str = "STORE#ID, a store alone for its newest checkpoint, or a checkpoint's directory";

/// One of the verbs.
#[derive(Debug, Subcommand)]
pub(super) enum Transfer {
    /// Copies a checkpoint into a savepoint directory that stands alone, or into another store; goes on
    /// with a copy into a directory that was interrupted
    Export(Export),
    /// Copies a checkpoint or savepoint into a store, as the newest one of its job
    Import(Import),
    /// Compares two checkpoints of any storages; exit code 1 when they differ
    Diff(Diff),
}

#[derive(Debug, Args)]
pub(super) struct Export {
    #[arg(help = FROM, value_name = "STORE#ID")]
    #[arg(value_parser = OsStringValueParser::new().try_map(|text| CheckpointLocation::parse(&text)))]
    from: CheckpointLocation,

    #[arg(
        help = "A directory, file:///path or s3://bucket/path below which the savepoint gets its directory, or another store"
    )]
    #[arg(value_parser = OsStringValueParser::new().try_map(|text| CopyTarget::parse(&text)))]
    to: CopyTarget,

    /// The job, where the store has several
    #[arg(long, value_name = "NAME")]
    job: Option<String>,

    /// Prints one JSON object: sizes in bytes
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Import {
    #[arg(help = FROM)]
    #[arg(value_parser = OsStringValueParser::new().try_map(|text| CheckpointLocation::parse(&text)))]
    from: CheckpointLocation,

    /// A directory, which is a sled store, or the text of a storage
    store: String,

    /// Whose it becomes [default: the job that took it]
    #[arg(long, value_name = "NAME")]
    job: Option<String>,

    /// Whose it is, where FROM has several jobs
    #[arg(long, value_name = "NAME")]
    from_job: Option<String>,

    /// Prints one JSON object: sizes in bytes
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Diff {
    #[arg(help = FROM, value_name = "A#ID")]
    #[arg(value_parser = OsStringValueParser::new().try_map(|text| CheckpointLocation::parse(&text)))]
    a: CheckpointLocation,

    #[arg(help = "The same", value_name = "B#ID")]
    #[arg(value_parser = OsStringValueParser::new().try_map(|text| CheckpointLocation::parse(&text)))]
    b: CheckpointLocation,

    /// The job, where the stores have several
    #[arg(long, value_name = "NAME")]
    job: Option<String>,

    /// Another job of B
    #[arg(long, value_name = "NAME")]
    b_job: Option<String>,

    /// Prints one JSON object: sizes in bytes
    #[arg(long)]
    json: bool,
}

impl Transfer {
    /// What the progress bar says.
    pub(super) fn doing(&self) -> &'static str {
        match self {
            Self::Export(_) | Self::Import(_) => "copying",
            Self::Diff(_) => "comparing",
        }
    }

    pub(super) fn answer(&self, bar: Option<&ProgressBar>) -> Result<Answer> {
        let mut show = |progress: VerifyProgress| show_progress(bar, progress);
        let answer = self.run(&mut show);
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        answer
    }

    fn run(&self, show: &mut dyn FnMut(VerifyProgress)) -> Result<Answer> {
        match self {
            Self::Export(Export { from, to, job, json }) => {
                let copied = export_checkpoint(from, job.as_deref(), to, show)?;
                Answer::of(&copied, *json, EXIT_OK)
            }
            Self::Import(Import { from, store, job, from_job, json }) => {
                let (job, from_job) = (job.as_deref(), from_job.as_deref());
                let copied = import_checkpoint(from, from_job, store, job, show)?;
                Answer::of(&copied, *json, EXIT_OK)
            }
            Self::Diff(Diff { a, b, job, b_job, json }) => {
                let jobs = [job, if b_job.is_some() { b_job } else { job }];
                let [a_job, b_job] = jobs.map(Option::as_deref);
                let diff = diff_checkpoints((a, a_job), (b, b_job), show)?;
                Answer::of(&diff, *json, if diff.equal { EXIT_OK } else { EXIT_NO })
            }
        }
    }
}
