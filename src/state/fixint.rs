//! Writes what bincode writes with fixed-width little-endian integers, inlined into what is encoded.
//!
//! Only the way there: bytes are read by bincode. Must never differ from it in a byte; what it refuses
//! is refused here, and why is bincode's to say.

use std::fmt;

use serde::Serialize;
use serde::ser::{
    Error, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

/// Where the bytes go.
pub(super) trait Target {
    /// # Errors
    /// When there is no room.
    fn put(&mut self, bytes: &[u8]) -> Result<(), Refused>;
}

impl Target for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

/// The value has no encoding, or there is no room for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value has no encoding")
    }
}

impl std::error::Error for Refused {}

impl Error for Refused {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

/// Appends the encoding of `value`.
///
/// # Errors
/// When it has none, or the target has no room; a part of it may have been put there.
#[inline]
pub(super) fn put<S: Serialize + ?Sized>(
    value: &S,
    target: &mut impl Target,
) -> Result<(), Refused> {
    value.serialize(Fixint(target))
}

struct Fixint<'t, T>(&'t mut T);

impl<T: Target> Fixint<'_, T> {
    #[inline]
    fn length(&mut self, length: usize) -> Result<(), Refused> {
        self.0.put(&(length as u64).to_le_bytes())
    }

    #[inline]
    fn variant(self, index: u32) -> Result<Self, Refused> {
        self.0.put(&index.to_le_bytes())?;
        Ok(self)
    }
}

macro_rules! plain {
    ($($method:ident: $type:ty),*) => {$(
        #[inline]
        fn $method(self, value: $type) -> Result<(), Refused> {
            self.0.put(&value.to_le_bytes())
        }
    )*};
}

impl<T: Target> Serializer for Fixint<'_, T> {
    type Ok = ();
    type Error = Refused;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    plain!(
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_i128: i128, serialize_u8: u8, serialize_u16: u16, serialize_u32: u32,
        serialize_u64: u64, serialize_u128: u128, serialize_f32: f32, serialize_f64: f64
    );

    #[inline]
    fn serialize_bool(self, value: bool) -> Result<(), Refused> {
        self.0.put(&[u8::from(value)])
    }

    #[inline]
    fn serialize_char(self, value: char) -> Result<(), Refused> {
        self.0.put(value.encode_utf8(&mut [0; 4]).as_bytes())
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), Refused> {
        self.serialize_bytes(value.as_bytes())
    }

    #[inline]
    fn serialize_bytes(mut self, value: &[u8]) -> Result<(), Refused> {
        self.length(value.len())?;
        self.0.put(value)
    }

    #[inline]
    fn serialize_none(self) -> Result<(), Refused> {
        self.0.put(&[0])
    }

    #[inline]
    fn serialize_some<S: Serialize + ?Sized>(self, value: &S) -> Result<(), Refused> {
        self.0.put(&[1])?;
        value.serialize(self)
    }

    #[inline]
    fn serialize_unit(self) -> Result<(), Refused> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Refused> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
    ) -> Result<(), Refused> {
        self.variant(index).map(drop)
    }

    #[inline]
    fn serialize_newtype_struct<S: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &S,
    ) -> Result<(), Refused> {
        value.serialize(self)
    }

    #[inline]
    fn serialize_newtype_variant<S: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &S,
    ) -> Result<(), Refused> {
        value.serialize(self.variant(index)?)
    }

    #[inline]
    fn serialize_seq(mut self, length: Option<usize>) -> Result<Self, Refused> {
        self.length(length.ok_or(Refused)?)?;
        Ok(self)
    }

    #[inline]
    fn serialize_tuple(self, _: usize) -> Result<Self, Refused> {
        Ok(self)
    }

    #[inline]
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Refused> {
        Ok(self)
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Refused> {
        self.variant(index)
    }

    #[inline]
    fn serialize_map(self, length: Option<usize>) -> Result<Self, Refused> {
        self.serialize_seq(length)
    }

    #[inline]
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Refused> {
        Ok(self)
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Refused> {
        self.variant(index)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }
}

/// One after the other, with nothing between.
macro_rules! sequence {
    ($($trait:ident: $($method:ident($($name:ty)?)),+;)*) => {$(
        impl<T: Target> $trait for Fixint<'_, T> {
            type Ok = ();
            type Error = Refused;

            $(#[inline]
            fn $method<S: Serialize + ?Sized>(
                &mut self,
                $(_: $name,)?
                value: &S,
            ) -> Result<(), Refused> {
                value.serialize(Fixint(&mut *self.0))
            })+

            #[inline]
            fn end(self) -> Result<(), Refused> {
                Ok(())
            }
        }
    )*};
}

sequence!(
    SerializeSeq: serialize_element();
    SerializeTuple: serialize_element();
    SerializeTupleStruct: serialize_field();
    SerializeTupleVariant: serialize_field();
    SerializeMap: serialize_key(), serialize_value();
    SerializeStruct: serialize_field(&'static str);
    SerializeStructVariant: serialize_field(&'static str);
);

#[cfg(test)]
mod tests {
    //! Goal: not a byte differs from bincode's. Method: values of every kind that serde knows, with
    //! random content, through both.

    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Serializer;

    use super::*;

    fn bincode(value: &impl Serialize) -> Option<Vec<u8>> {
        let config = bincode::config::standard().with_little_endian().with_fixed_int_encoding();
        bincode::serde::encode_to_vec(value, config).ok()
    }

    fn own(value: &impl Serialize) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        put(value, &mut bytes).ok().map(|()| bytes)
    }

    #[derive(Debug, Clone, Serialize)]
    struct Unit;

    #[derive(Debug, Clone, Serialize)]
    struct Newtype(u16);

    #[derive(Debug, Clone, Serialize)]
    struct Pair(i8, char);

    #[derive(Debug, Clone, Serialize)]
    enum Kind {
        Unit,
        Newtype(f32),
        Tuple(u8, String),
        Struct { wide: u128, signed: i128 },
    }

    #[derive(Debug, Clone, Serialize)]
    struct All {
        integers: (u8, u16, u32, u64, i8, i16, i32, i64),
        floats: (f32, f64),
        flag: bool,
        text: String,
        list: Vec<Option<i64>>,
        map: BTreeMap<String, [u32; 3]>,
        nothing: ((), Unit),
        wrapped: (Newtype, Pair),
        kinds: Vec<Kind>,
    }

    fn kind() -> impl Strategy<Value = Kind> {
        prop_oneof![
            Just(Kind::Unit),
            any::<f32>().prop_map(Kind::Newtype),
            any::<(u8, String)>().prop_map(|(number, text)| Kind::Tuple(number, text)),
            any::<(u128, i128)>().prop_map(|(wide, signed)| Kind::Struct { wide, signed }),
        ]
    }

    proptest! {
        #[test]
        fn every_kind_of_value_is_written_as_bincode_writes_it(
            integers in any::<(u8, u16, u32, u64, i8, i16, i32, i64)>(),
            floats in any::<(f32, f64)>(),
            (flag, text) in any::<(bool, String)>(),
            list in any::<Vec<Option<i64>>>(),
            map in any::<BTreeMap<String, [u32; 3]>>(),
            (number, tiny, letter) in any::<(u16, i8, char)>(),
            kinds in prop::collection::vec(kind(), 0..4),
        ) {
            let (nothing, wrapped) = (((), Unit), (Newtype(number), Pair(tiny, letter)));
            let all =
                All { integers, floats, flag, text, list, map, nothing, wrapped, kinds };
            prop_assert_eq!(own(&all), bincode(&all));
        }
    }

    #[test]
    fn what_bincode_refuses_is_refused() {
        struct Endless;
        impl Serialize for Endless {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_seq((0..3_u8).filter(|number| *number > 0))
            }
        }
        struct Failing;
        impl Serialize for Failing {
            fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(S::Error::custom("never"))
            }
        }
        assert_eq!((own(&Endless), own(&Failing)), (None, None));
        assert_eq!((bincode(&Endless), bincode(&Failing)), (None, None));
    }

    #[test]
    fn bytes_and_displayed_text_have_their_length_in_front() {
        struct Bytes;
        impl Serialize for Bytes {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_bytes(&[1, 2, 3])
            }
        }
        struct Displayed;
        impl Serialize for Displayed {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(&17.5)
            }
        }
        assert_eq!(own(&Bytes), bincode(&Bytes));
        assert_eq!(own(&Displayed), bincode(&Displayed));
    }
}
