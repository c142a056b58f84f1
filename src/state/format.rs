//! How the keys and values of one state become bytes: a codec, bound to their types.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Result;
use crate::state::codec;

/// Encodes the values of a state (Flink: `TypeSerializer`).
///
/// bincode unless another one is given with [`StateDescriptor::with_codec`](crate::state::StateDescriptor::with_codec). The name
/// is stored with every state; one that was written with another codec is refused.
pub trait StateCodec: Send + Sync + 'static {
    /// What the codec is called in checkpoints; at most 255 bytes.
    fn name(&self) -> &str;

    /// True when each value is JSON text: then tools show entries without the program.
    fn is_json(&self) -> bool;

    /// Appends the encoding of `value`.
    ///
    /// # Errors
    /// Any error fails the checkpoint.
    fn encode<T: Serialize>(&self, value: &T, out: &mut Vec<u8>) -> Result<()>;

    /// Decodes a value that fills `bytes` exactly.
    ///
    /// # Errors
    /// `Incompatible` when they are no `T`; any error fails the start.
    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T>;
}

/// bincode with fixed-width little-endian integers: small, fast, and not to be read without the type.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bincode;

impl StateCodec for Bincode {
    fn name(&self) -> &'static str {
        "bincode"
    }

    fn is_json(&self) -> bool {
        false
    }

    fn encode<T: Serialize>(&self, value: &T, out: &mut Vec<u8>) -> Result<()> {
        codec::encode_into(value, out)
    }

    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T> {
        codec::decode(bytes)
    }
}

/// JSON text, for those who want to look inside: `tidegate show STORE ID --state UID/NAME`. Several times
/// larger and slower than [`Bincode`].
///
/// JSON has no number that is not finite: a float that is none is stored as `null`, which an `Option`
/// reads as `None` and a plain float refuses at the restore. Values that may have one need `Bincode`.
#[cfg(feature = "json")]
#[derive(Debug, Clone, Copy, Default)]
pub struct Json;

#[cfg(feature = "json")]
impl StateCodec for Json {
    fn name(&self) -> &'static str {
        "json"
    }

    fn is_json(&self) -> bool {
        true
    }

    fn encode<T: Serialize>(&self, value: &T, out: &mut Vec<u8>) -> Result<()> {
        serde_json::to_writer(out, value).map_err(|error| {
            let name = std::any::type_name::<T>();
            crate::error::Error::invalid(format!("cannot encode a {name} as JSON"))
                .with_source(error)
        })
    }

    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T> {
        serde_json::from_slice(bytes).map_err(|error| {
            let name = std::any::type_name::<T>();
            let message = format!("the stored JSON is no {name}");
            crate::error::Error::new(crate::error::ErrorKind::Incompatible, message)
                .with_source(error)
        })
    }
}

type Encode<T> = Arc<dyn Fn(&T, &mut Vec<u8>) -> Result<()> + Send + Sync>;
pub(crate) type Decode<T> = Arc<dyn Fn(&[u8]) -> Result<T> + Send + Sync>;
type Convert = Arc<dyn Fn(&[u8], &mut Vec<u8>) -> Result<()> + Send + Sync>;

/// A codec for one kind of value.
pub(crate) struct Format<V> {
    pub(crate) codec: Arc<str>,
    /// From the encoding of a key in memory, which is bincode's, to the stored one; `None` when it is the
    /// same.
    pub(crate) store_key: Option<Convert>,
    /// The way back.
    pub(crate) load_key: Option<Convert>,
    pub(crate) encode: Encode<V>,
    pub(crate) decode: Decode<V>,
}

impl<V> Clone for Format<V> {
    fn clone(&self) -> Self {
        Self {
            codec: Arc::clone(&self.codec),
            store_key: self.store_key.clone(),
            load_key: self.load_key.clone(),
            encode: Arc::clone(&self.encode),
            decode: Arc::clone(&self.decode),
        }
    }
}

impl<V> fmt::Debug for Format<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Format").field("codec", &self.codec).finish_non_exhaustive()
    }
}

impl<V> Format<V> {
    /// A stored key as it lies in memory.
    pub(crate) fn loaded_key<'a>(
        &self,
        stored: &'a [u8],
        scratch: &'a mut Vec<u8>,
    ) -> Result<&'a [u8]> {
        let Some(load) = &self.load_key else { return Ok(stored) };
        scratch.clear();
        load(stored, scratch)?;
        Ok(scratch)
    }
}

impl<V: Serialize + DeserializeOwned + 'static> Format<V> {
    /// This codec for values of this type and keys of type `K`.
    pub(crate) fn of<K, C>(codec: &Arc<C>) -> Self
    where
        K: Serialize + DeserializeOwned + 'static,
        C: StateCodec,
    {
        // Keys lie in memory as bincode writes them.
        let is_bincode = codec.name() == Bincode.name();
        let (of_key, to_key) = (Arc::clone(codec), Arc::clone(codec));
        let store_key: Convert =
            Arc::new(move |key, out| of_key.encode(&codec::decode::<K>(key)?, out));
        let load_key: Convert =
            Arc::new(move |stored, out| codec::encode_into(&to_key.decode::<K>(stored)?, out));
        let (encoder, decoder) = (Arc::clone(codec), Arc::clone(codec));
        Self {
            codec: codec.name().into(),
            store_key: (!is_bincode).then_some(store_key),
            load_key: (!is_bincode).then_some(load_key),
            encode: Arc::new(move |value, out| encoder.encode(value, out)),
            decode: Arc::new(move |bytes| decoder.decode(bytes)),
        }
    }
}
