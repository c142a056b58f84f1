//! What a task's snapshot is made of: sections of bytes, each with a key that finds its way home.
//!
//! Owns the traits between a user's state and whatever stores it, the typed handles and the key
//! groups. Must never know how bytes are stored.

mod broadcast;
pub(crate) mod codec;
mod descriptor;
pub(crate) mod entries;
mod expiring;
mod fixint;
mod format;
mod key_group;
mod keyed_map;
mod list;
mod murmur;
pub(crate) mod schema;
mod scope;
mod section;
mod shape;
mod sizes;
pub(crate) mod stored;
mod timers;
mod value_state;

pub use broadcast::BroadcastState;
pub use descriptor::{BoundState, IntoState, StateDescriptor};
pub(crate) use entries::{append_entry, read_entries, write_entry};
pub use expiring::{Expiring, ExpiringMap, TimeToLive};
#[cfg(feature = "json")]
pub use format::Json;
pub use format::{Bincode, StateCodec};
pub(crate) use key_group::encoded_key_owner;
pub use key_group::{
    HASH_SEED, HASH_VERSION, default_max_parallelism, key_group, key_group_owner, key_group_range,
    key_hash, key_owner,
};
pub use keyed_map::{KeyedMap, StateKey, StateValue};
pub use list::ListState;
pub use scope::{FrozenScope, StateScope};
pub use section::{SectionBody, SectionKey, SectionKind, SnapshotSink, SnapshotSource, Stateful};
pub use sizes::StateSize;
pub(crate) use timers::TimerSet;
pub use timers::{Fired, TimeDomain, Timers};
pub use value_state::ValueState;
