//! Checkpoints in remote object stores: the layer of files over a store that has only objects.
//!
//! Owns which schemes there are, how a store is reached and with what options, and how the file system
//! storage's operations become requests. What a checkpoint is it does not know. Futures run on one
//! thread of the crate's own; no type of the store or of the runtime leaves this module. Must never
//! show a secret.
//!
//! | file | owns |
//! |---|---|
//! | `address` | schemes, and locations in their one spelling |
//! | `options` | what is set for a store beside its location, secrets apart |
//! | `connect` | from a location and options to a store |
//! | `runtime` | the thread on which futures run |
//! | `fault` | the store's errors as `io::Error`, without secrets |
//! | `client` | single requests: conditional puts, lists |
//! | `disk` | directories and files made of objects |
//! | `upload`, `download` | one object that is written, and one that is read |

mod address;
#[cfg(feature = "remote")]
mod client;
#[cfg(feature = "remote")]
mod connect;
#[cfg(feature = "remote")]
mod disk;
#[cfg(feature = "remote")]
mod download;
#[cfg(feature = "remote")]
mod fault;
mod options;
#[cfg(feature = "remote")]
mod runtime;
#[cfg(feature = "remote")]
#[cfg(test)]
mod tests;
#[cfg(feature = "remote")]
mod upload;

use std::sync::Arc;

use crate::error::Result;
use crate::storage::disk::{Disk, RealDisk};

pub(in crate::storage) use address::{Address, is_remote, shown, split_parameters};
pub use options::RemoteOptions;

/// The disk on which a checked location lies. What its own parameters set wins over `options`.
///
/// # Errors
/// `Invalid` when the scheme needs a feature that is off, or an option has a wrong value.
pub(in crate::storage) fn disk_of(
    location: &str,
    options: &RemoteOptions,
) -> Result<Arc<dyn Disk>> {
    let Some(address) = Address::parse("location", location)? else {
        return Ok(Arc::new(RealDisk));
    };
    address.kind.require_built()?;
    let options = options.completed_by(&address.options);
    #[cfg(feature = "remote")]
    return connect::connect(&address, &options);
    #[cfg(not(feature = "remote"))]
    {
        let _ = options;
        Err(crate::error::Error::internal("a remote store without the part that reaches it"))
    }
}
