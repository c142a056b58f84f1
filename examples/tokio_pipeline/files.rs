//! The sink's files: the half of the two-phase commit that blocks.
//!
//! A file is staged until a checkpoint that names it has completed: its name starts with a full stop.
//! Committed files start with `part-` and are never written to again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use tidegate::{Attempt, Error, ErrorKind, Result};
use tokio::sync::mpsc::Receiver;
use tokio::task::spawn_blocking;

use crate::input::Snapshot;

/// What the names of committed files start with.
const COMMITTED: &str = "part-";

/// The table of counts below the output directory.
const COUNTS: &str = "counts.tsv";

/// How much work waits for the disk before the sink does.
pub(crate) const WORK_MAX: usize = 8;

/// What the sink has done in the background, in this order.
pub(crate) enum Work {
    Append {
        name: String,
        bytes: Vec<u8>,
    },
    /// These are the last bytes; makes the file durable.
    Seal {
        name: String,
        bytes: Vec<u8>,
    },
    Snapshot(Box<Snapshot>),
    Commit {
        names: Vec<String>,
    },
}

/// The name of a file while it is staged; that of no other. Names are in the order in which files are
/// begun, over all attempts.
pub(crate) fn staged_name(attempt: Attempt, number: u64) -> String {
    format!(".{COMMITTED}{:010}-{number:010}", attempt.0)
}

/// What a checkpoint knows of the files.
#[derive(Debug, Default)]
pub(crate) struct KnownFiles {
    /// The staged ones that it commits.
    pub(crate) staged: BTreeSet<String>,
    /// The first one that was begun after it.
    pub(crate) next: Option<String>,
}

impl KnownFiles {
    /// As text: a name a line, that of the first later file before all others.
    pub(crate) fn encode<'a>(next: &'a str, staged: impl Iterator<Item = &'a str>) -> String {
        std::iter::once(next).chain(staged).collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn decode(text: &str) -> Self {
        let mut names = text.lines().map(str::to_owned);
        Self { next: names.next(), staged: names.collect() }
    }

    /// True for a file that was committed after this checkpoint: its lines are going to be written again.
    fn is_later(&self, committed: &str) -> bool {
        let is_at_least = |next: &String| committed >= next.trim_start_matches('.');
        committed.starts_with(COMMITTED) && self.next.as_ref().is_some_and(is_at_least)
    }
}

/// The directory that the lines go to.
#[derive(Debug)]
pub(crate) struct Files {
    directory: PathBuf,
    open: Option<File>,
}

impl Files {
    /// Brings the directory to the restored checkpoint: the files that it names are committed, all other
    /// staged ones removed, and so are those that later checkpoints have committed, when one of these could
    /// not be restored. Without a checkpoint committed files are those of another run.
    pub(crate) fn recover(directory: &Path, restored: Option<&KnownFiles>) -> Result<Self> {
        fs::create_dir_all(directory).map_err(|error| failed("make", directory, error))?;
        let files = Self { directory: directory.to_path_buf(), open: None };
        let names = files.list()?;
        if restored.is_none() && names.iter().any(|name| name.starts_with(COMMITTED)) {
            let message = format!(
                "{} holds files of a run whose state is not there: name an empty --output",
                directory.display()
            );
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let none = KnownFiles::default();
        let known = restored.unwrap_or(&none);
        // CRASH: between any two of these steps the next start repeats them all.
        files.commit(&known.staged)?;
        let is_staged = |name: &str| {
            let rest = name.strip_prefix('.');
            rest.is_some_and(|rest| rest.starts_with(COMMITTED)) && !known.staged.contains(name)
        };
        for name in names.iter().filter(|name| is_staged(name) || known.is_later(name)) {
            let path = directory.join(name);
            fs::remove_file(&path).map_err(|error| failed("remove", &path, error))?;
        }
        files.sync()?;
        Ok(files)
    }

    /// Does the work that comes, each piece on a thread that may block.
    pub(crate) async fn run(self, mut work: Receiver<Work>) -> Result<()> {
        let mut files = self;
        while let Some(next) = work.recv().await {
            let done = spawn_blocking(move || files.apply(next).map(|()| files)).await;
            files = done.map_err(|error| {
                Error::new(ErrorKind::Internal, "the sink's work panicked").with_source(error)
            })??;
        }
        Ok(())
    }

    fn apply(&mut self, work: Work) -> Result<()> {
        match work {
            Work::Append { name, bytes } => self.append(&name, &bytes).map(drop),
            Work::Seal { name, bytes } => {
                let synced = self.append(&name, &bytes)?.sync_all();
                synced.map_err(|error| failed("sync", &self.directory.join(&name), error))?;
                self.open = None;
                self.sync()
            }
            Work::Snapshot(snapshot) => {
                snapshot.acknowledge();
                Ok(())
            }
            Work::Commit { names } => {
                self.commit(&names)?;
                self.sync()
            }
        }
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<&mut File> {
        let path = self.directory.join(name);
        let mut file = match self.open.take() {
            Some(file) => file,
            None => OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&path)
                .map_err(|error| failed("create", &path, error))?,
        };
        file.write_all(bytes).map_err(|error| failed("write", &path, error))?;
        Ok(self.open.insert(file))
    }

    fn commit<'a>(&self, names: impl IntoIterator<Item = &'a String>) -> Result<()> {
        for name in names {
            let staged = self.directory.join(name);
            let committed = self.directory.join(name.trim_start_matches('.'));
            match fs::rename(&staged, &committed) {
                // CRASH: after the rename, before a checkpoint left the file out.
                Err(_) if committed.is_file() => {}
                renamed => renamed.map_err(|error| failed("rename", &staged, error))?,
            }
        }
        Ok(())
    }

    fn list(&self) -> Result<Vec<String>> {
        let cannot = |error| failed("list", &self.directory, error);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(cannot)? {
            // A name that is no text is none of ours.
            names.extend(entry.map_err(cannot)?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn sync(&self) -> Result<()> {
        sync_directory(&self.directory)
    }
}

/// Makes the table of counts durable under its name: key, tab, count.
pub(crate) fn write_counts(directory: &Path, totals: &BTreeMap<u64, u64>) -> Result<()> {
    let (temporary, path) = (directory.join(format!(".{COUNTS}.tmp")), directory.join(COUNTS));
    let write = || {
        let mut out = BufWriter::new(File::create(&temporary)?);
        for (key, count) in totals {
            writeln!(out, "{key}\t{count}")?;
        }
        out.into_inner()?.sync_all()?;
        fs::rename(&temporary, &path)
    };
    write().map_err(|error| failed("write", &path, error))?;
    sync_directory(directory)
}

fn sync_directory(directory: &Path) -> Result<()> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| failed("sync", directory, error))
}

fn failed(what: &str, path: &Path, error: std::io::Error) -> Error {
    Error::io(format!("{what} {}", path.display()), error)
}
