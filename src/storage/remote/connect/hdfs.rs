//! A Hadoop file system.

use std::sync::Arc;

use hdfs_native_object_store::HdfsObjectStoreBuilder;

use crate::error::{Error, Result};
use crate::storage::remote::address::Address;
use crate::storage::remote::connect::{Connected, refused};
use crate::storage::remote::runtime;

/// What is set beyond the host comes from Hadoop's own configuration files.
pub(super) fn connect(address: &Address) -> Result<Connected> {
    let runtime = runtime::handle().map_err(|error| Error::io("start a thread", error))?;
    let store = HdfsObjectStoreBuilder::new()
        .with_url(&address.root)
        .with_io_runtime(runtime)
        .build()
        .map_err(|error| refused(address, &error, &[]))?;
    // Its uploads are written in order, from their start to their end.
    Ok(Connected {
        store: Arc::new(store),
        parts: None,
        has_directories: true,
        secrets: Vec::new(),
    })
}
