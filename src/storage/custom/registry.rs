//! The names under which this process knows storages of the user's own. A name is given once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::storage::StorageCapabilities;
use crate::storage::custom::CustomAccess;

/// What the factory of a storage is told: the parameters of its text form.
pub type StorageParameters = BTreeMap<String, String>;

/// Opens a place for blobs. A closure is one.
pub trait CustomStorageFactory: Send + Sync {
    /// Opens the place that the parameters name; called once for each job.
    ///
    /// # Errors
    /// `Invalid` when the parameters are wrong; `Unavailable` as the place answers.
    fn open(&self, parameters: &StorageParameters) -> Result<Arc<dyn CustomAccess>>;

    /// What the place can hold and for how long: anything, for good.
    fn capabilities(&self, _parameters: &StorageParameters) -> StorageCapabilities {
        StorageCapabilities::new()
    }
}

impl<F> CustomStorageFactory for F
where
    F: Fn(&StorageParameters) -> Result<Arc<dyn CustomAccess>> + Send + Sync,
{
    fn open(&self, parameters: &StorageParameters) -> Result<Arc<dyn CustomAccess>> {
        self(parameters)
    }
}

type Factories = BTreeMap<String, Arc<dyn CustomStorageFactory>>;

static FACTORIES: Mutex<Factories> = Mutex::new(BTreeMap::new());

fn factories() -> MutexGuard<'static, Factories> {
    FACTORIES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a storage known to this process by a name, for
/// [`CustomCheckpointStorage`](crate::storage::CustomCheckpointStorage) and `custom:NAME`.
///
/// # Errors
/// `Invalid` when the name is empty or starts with a slash; `Conflict` when it is taken.
pub fn register_storage(
    name: impl Into<String>,
    factory: impl CustomStorageFactory + 'static,
) -> Result<()> {
    let name = name.into();
    if name.is_empty() || name.starts_with('/') {
        return Err(Error::invalid(format!("{name:?} is no name for a storage")));
    }
    let mut factories = factories();
    if factories.contains_key(&name) {
        let message = format!("a storage named {name:?} is registered already");
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    factories.insert(name, Arc::new(factory));
    Ok(())
}

/// The factory of a name.
///
/// # Errors
/// `NotFound` with the names that there are.
pub(super) fn factory(name: &str) -> Result<Arc<dyn CustomStorageFactory>> {
    let factories = factories();
    factories.get(name).map(Arc::clone).ok_or_else(|| {
        let known: Vec<&str> = factories.keys().map(String::as_str).collect();
        let known = match known.as_slice() {
            [] => "none is".to_owned(),
            known => format!("there are {}", known.join(", ")),
        };
        let message = format!("no storage named {name:?} is registered in this process; {known}");
        Error::new(ErrorKind::NotFound, message)
    })
}
