//! Where the checkpoints are, and what lies there of an earlier run.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate::catalog::{CheckpointInfo, Checkpoints};
use tidegate::config::EffectiveConfig;
use tidegate::inspect::{finish_word, saved_jobs};
use tidegate::message::CheckpointType;
use tidegate::storage::{
    CheckpointStorage, Placement, SledCheckpointStorage, StorageUri, register_storage, storage_of,
};
use tidegate::{Error, ErrorKind, JobId, Result};

use crate::Failure;
use crate::arguments::{Arguments, Place};
use crate::encrypted;
use crate::flow::READ;

/// The fixed name of the job in its storage.
pub(crate) const JOB: &str = "word_count";

/// The property under which checkpoints carry the identity of the input.
pub(crate) const INPUT: &str = "input";

/// What is known of the saved run.
#[derive(Debug)]
pub(crate) struct Saved {
    /// True when it ended and needs nothing more.
    pub(crate) finished: bool,
    /// The identity of its input; the word of a finished run is just this.
    pub(crate) input: String,
    /// How many sources read; none when its checkpoints are gone.
    pub(crate) sources: Option<u32>,
}

/// Where the checkpoints are.
#[derive(Debug)]
pub(crate) struct State {
    storage: Arc<dyn CheckpointStorage>,
    /// The directory of a sled store, which is looked at without being opened.
    store: Option<PathBuf>,
}

impl State {
    /// What `--storage` names, or the store under `--state`.
    ///
    /// # Errors
    /// `Invalid` when the text is wrong, or arguments contradict each other.
    pub(crate) fn of(arguments: &Arguments, config: &EffectiveConfig) -> Result<Self> {
        let Some(text) = &arguments.storage else {
            let dir = arguments.state_dir();
            let storage = Arc::new(sled(&dir, arguments.placement));
            return Ok(Self { storage, store: Some(dir) });
        };
        if let Some(place) = arguments.placement {
            return Err(Error::invalid(format!(
                "--placement is for the store under --state; with --storage write it into the URI: \
                 sled:///DIR?placement={}",
                placement(place)
            )));
        }
        if let Some(dir) = arguments.state.as_ref().filter(|dir| !is_free(dir)) {
            return Err(Error::invalid(format!(
                "--storage is used instead of --state, but {} is no empty directory: leave one of \
                 them out",
                dir.display()
            )));
        }
        register_storage("encrypted", encrypted::open)?;
        let uri: StorageUri = text.parse()?;
        let store = match &uri {
            StorageUri::Sled { directory, .. } => Some(directory.clone()),
            _ => None,
        };
        Ok(Self { storage: storage_of(config, Some(uri.storage()?))?, store })
    }

    pub(crate) fn storage(&self) -> Arc<dyn CheckpointStorage> {
        Arc::clone(&self.storage)
    }

    /// True when a later process can go on from what lies here.
    pub(crate) fn is_durable(&self) -> bool {
        self.storage.capabilities().is_durable()
    }

    /// Looks at what an earlier run left: at a sled store without touching it, into any other storage
    /// by opening it, which is a start of the job.
    pub(crate) fn look(&self) -> Result<Option<Saved>, Failure> {
        match &self.store {
            Some(dir) => Ok(look_at_store(dir)?),
            None => look_into(&*self.storage),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.store {
            Some(dir) => dir.display().fmt(f),
            None => f.write_str(&self.storage.location()),
        }
    }
}

/// The storage in the state directory.
fn sled(dir: &Path, place: Option<Place>) -> SledCheckpointStorage {
    let storage = SledCheckpointStorage::new(dir);
    match place {
        None => storage,
        Some(place) => storage.with_placement(placement(place)),
    }
}

fn placement(place: Place) -> Placement {
    match place {
        Place::Split => Placement::Split,
        Place::Sled => Placement::Sled,
    }
}

/// True for a directory that is empty or not there.
fn is_free(dir: &Path) -> bool {
    match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

fn look_at_store(dir: &Path) -> Result<Option<Saved>> {
    if let Some(input) = finish_word(dir, &JobId::new(JOB)?)? {
        return Ok(Some(Saved { finished: true, input, sources: None }));
    }
    let (mine, others): (Vec<_>, Vec<_>) =
        saved_jobs(dir)?.into_iter().partition(|saved| saved.job == JOB);
    if let Some(saved) = mine.first() {
        return Ok(saved.newest.as_ref().and_then(understand));
    }
    let others: Vec<_> = others.into_iter().map(|other| other.job).collect();
    if others.is_empty() {
        return Ok(None);
    }
    let message = format!(
        "{} holds the state of {}, not of {JOB}: name another --state",
        dir.display(),
        others.join(", ")
    );
    Err(Error::new(ErrorKind::Conflict, message))
}

fn look_into(storage: &dyn CheckpointStorage) -> Result<Option<Saved>, Failure> {
    // What the text names is asked for here for the first time.
    let opened = storage.open(&JobId::new(JOB)?).map_err(|error| match error.kind() {
        ErrorKind::Invalid | ErrorKind::NotFound => Failure::Usage(error),
        _ => Failure::Run(error),
    })?;
    let checkpoints = Checkpoints::new(opened);
    if let Some(input) = checkpoints.finish() {
        return Ok(Some(Saved { finished: true, input, sources: None }));
    }
    let mut damaged = None;
    for id in checkpoints.ids().into_iter().rev() {
        match checkpoints.info(id) {
            Ok(info) if info.kind == CheckpointType::Savepoint => {}
            Ok(info) => return Ok(understand(&info)),
            Err(error) if error.kind() == ErrorKind::Corrupt => damaged = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    damaged.map_or(Ok(None), |error| Err(error.into()))
}

fn understand(newest: &CheckpointInfo) -> Option<Saved> {
    let read = newest.operators.iter().find(|operator| operator.uid.as_str() == READ);
    Some(Saved {
        finished: false,
        input: newest.properties.get(INPUT)?.clone(),
        sources: read.map(|read| read.parallelism),
    })
}
