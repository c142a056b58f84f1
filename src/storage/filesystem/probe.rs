//! Doors into the file system storage for fuzz targets; it decides nothing and checks nothing.

use crate::storage::filesystem::streams::HeadFields;
use crate::storage::filesystem::table::Table;
use crate::storage::probe::Again;

/// Records that only files have.
pub(in crate::storage) const FORMS: [(&str, Again); 2] = [
    ("table", |bytes| Table::decode(bytes)?.encode().ok()),
    ("head", |bytes| Some(HeadFields::decode(bytes)?.encode())),
];
