//! What a program says of a state when it registers it.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Result;
use crate::state::format::{Bincode, Decode, Format, StateCodec};
use crate::state::schema::{Migration, Reader, Schema};

/// The schema version of a state that names none.
const VERSION: u32 = 1;

/// A state's name, schema version, codec and migrations (Flink: `StateDescriptor`).
///
/// A plain name does where the defaults are right: version 1, bincode, no migration. `K` is the type of
/// keys, `()` where there are none.
///
/// ```
/// use tidegate::state::{StateDescriptor, StateScope};
///
/// let mut scope = StateScope::new(0, 1, 128);
/// let counts = StateDescriptor::new("counts")
///     .version(2)
///     // Version 1 counted in 32 bits.
///     .migrate(1, |old: u32| Ok(u64::from(old)));
/// let counts = scope.keyed_map::<String, u64>(counts)?;
/// counts.insert(&"a".to_string(), 1)?;
/// # Ok::<_, tidegate::Error>(())
/// ```
#[must_use]
pub struct StateDescriptor<K, V, C = Bincode> {
    name: String,
    version: u32,
    codec: Arc<C>,
    migrations: BTreeMap<u32, Migration<V>>,
    key: PhantomData<fn(&K)>,
}

impl<K, V, C> fmt::Debug for StateDescriptor<K, V, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateDescriptor")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl<K, V> StateDescriptor<K, V> {
    /// A state of schema version 1, encoded with [`Bincode`].
    pub fn new(name: impl Into<String>) -> Self {
        Self::with_codec(name, Bincode)
    }
}

impl<K, V, C: StateCodec> StateDescriptor<K, V, C> {
    /// A state of schema version 1, encoded with `codec`.
    pub fn with_codec(name: impl Into<String>, codec: C) -> Self {
        Self {
            name: name.into(),
            version: VERSION,
            codec: Arc::new(codec),
            migrations: BTreeMap::new(),
            key: PhantomData,
        }
    }

    /// The schema version; to be raised whenever the type of the values changes. 1 unless set.
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }
}

impl<K, V, C> StateDescriptor<K, V, C>
where
    K: DeserializeOwned + 'static,
    V: 'static,
    C: StateCodec,
{
    /// Values of schema version `from` had the type `Old` and the same codec and keys; `migrate` makes
    /// them what they are now (Flink: `TypeSerializerSnapshot`). An error of it fails the start.
    pub fn migrate<Old, F>(mut self, from: u32, migrate: F) -> Self
    where
        Old: DeserializeOwned + 'static,
        F: Fn(Old) -> Result<V> + Send + Sync + 'static,
    {
        let codec = Arc::clone(&self.codec);
        let schema = Schema::of::<K, Old>(from, codec.name().into(), codec.is_json());
        let decode = Arc::new(move |bytes: &[u8]| migrate(codec.decode(bytes)?));
        self.migrations.insert(from, Migration { schema, decode });
        self
    }
}

/// A descriptor without the type of its codec.
pub struct BoundState<V> {
    pub(crate) name: String,
    pub(crate) schema: Schema,
    pub(crate) format: Format<V>,
    pub(crate) reader: Reader<V>,
}

impl<V> BoundState<V> {
    /// The name of the state.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Decodes values of the type that the program has.
    pub(crate) fn decoder(&self) -> Decode<V> {
        Arc::clone(&self.reader.current)
    }

    /// Decodes values of the sections behind the schema in `body`.
    pub(crate) fn decoder_of(&self, body: &mut dyn Read) -> Result<Decode<V>> {
        self.reader.decoder(&self.name, &self.schema, &Schema::read(body)?)
    }
}

impl<V> Clone for BoundState<V> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            schema: self.schema.clone(),
            format: self.format.clone(),
            reader: self.reader.clone(),
        }
    }
}

impl<K, V> IntoState<K, V> for BoundState<V> {
    fn into_state(self) -> BoundState<V> {
        self
    }
}

impl<V> fmt::Debug for BoundState<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundState").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What names a state at its registration: a name, or a [`StateDescriptor`].
pub trait IntoState<K, V> {
    /// The descriptor without the type of its codec.
    fn into_state(self) -> BoundState<V>;
}

impl<K, V, C> IntoState<K, V> for StateDescriptor<K, V, C>
where
    K: Serialize + DeserializeOwned + 'static,
    V: Serialize + DeserializeOwned + 'static,
    C: StateCodec,
{
    fn into_state(self) -> BoundState<V> {
        let Self { name, version, codec, migrations, .. } = self;
        let schema = Schema::of::<K, V>(version, codec.name().into(), codec.is_json());
        let format = Format::of::<K, C>(&codec);
        let reader = Reader { current: Arc::clone(&format.decode), migrations };
        BoundState { name, schema, format, reader }
    }
}

impl<K, V> IntoState<K, V> for &str
where
    K: Serialize + DeserializeOwned + 'static,
    V: Serialize + DeserializeOwned + 'static,
{
    fn into_state(self) -> BoundState<V> {
        StateDescriptor::<K, V>::new(self).into_state()
    }
}
