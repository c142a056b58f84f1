//! The names of streams: random, and with a check that no name of anything else has.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{JobId, StoreId};
use crate::storage::filesystem::random;
use crate::storage::stream::Place;

/// Ends the name of a stream's file, so that it is never taken for a file of records.
const SUFFIX: &str = ".stream";

/// One job of one store: a stream of another is never taken for one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Realm(pub(crate) [u8; 16]);

impl Realm {
    pub(crate) fn new(store: StoreId, job: &JobId) -> Self {
        let mut realm = store.0;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&store.0);
        hasher.update(job.as_str().as_bytes());
        if let Some(end) = realm.last_chunk_mut::<4>() {
            *end = hasher.finalize().to_le_bytes();
        }
        Self(realm)
    }
}

/// The name of one stream: 12 random bytes, and a check over them, the realm and the place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct StreamName(pub(crate) [u8; 16]);

impl StreamName {
    /// A new name.
    pub(crate) fn draw(realm: Realm, place: Place) -> Self {
        let mut name = random();
        let check = Self::check(&name, realm, place);
        if let Some(end) = name.last_chunk_mut::<4>() {
            *end = check;
        }
        Self(name)
    }

    /// True when it was drawn for this realm and place.
    pub(crate) fn is_of(&self, realm: Realm, place: Place) -> bool {
        self.0.ends_with(&Self::check(&self.0, realm, place))
    }

    /// The name of its file.
    pub(crate) fn file(&self) -> String {
        format!("{self}{SUFFIX}")
    }

    /// Reads the name of a file, which may go on with a full stop and more.
    pub(crate) fn parse_file(text: &str) -> Option<(Self, &str)> {
        let (name, rest) = text.split_at_checked(32)?;
        let rest = rest.strip_prefix(SUFFIX)?;
        let id: StoreId = name.parse().ok()?;
        (id.to_string() == name).then_some((Self(id.0), rest))
    }

    fn check(name: &[u8; 16], realm: Realm, place: Place) -> [u8; 4] {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&realm.0);
        hasher.update(&place.bytes());
        hasher.update(name.get(..12).unwrap_or_default());
        hasher.finalize().to_le_bytes()
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        StoreId(self.0).fmt(f)
    }
}

impl fmt::Debug for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamName({self})")
    }
}
