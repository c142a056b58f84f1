//! The shape of a type as its `Deserialize` asks for it: names of structures, fields and variants, and
//! the primitive types in them.
//!
//! Owns the text from which a type is recognised when its bytes come back. A type is asked to make
//! itself of sample values; what it asks for is written down. A type that refuses the samples ends the
//! text there. Must not depend on the compiler, the path of a type or the order of a hash table.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::de::value::Error as Refused;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer,
    MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// How often a type is asked, each time for other variants of its enums.
const PASSES_MAX: usize = 64;

/// How deep types lie within one another.
const DEPTH_MAX: usize = 32;

/// The most bytes of a shape.
const BYTES_MAX: usize = 16 * 1024;

/// The shape of a type as text.
pub(crate) fn shape_of<T: DeserializeOwned>() -> String {
    let mut enums = BTreeMap::new();
    let mut root = String::new();
    for pass in 0..PASSES_MAX {
        let mut tracer = Tracer { out: String::new(), enums, open: Vec::new(), is_new: false };
        // Whatever it says: what it asked for is in the text.
        let _refused = T::deserialize(&mut tracer);
        enums = tracer.enums;
        if pass == 0 {
            root = tracer.out;
        }
        if !tracer.is_new {
            break;
        }
    }
    for (name, variants) in &enums {
        let _ = write!(root, "; {name}: {}", variants.seen.join(" | "));
    }
    let end = (0..=root.len().min(BYTES_MAX)).rev().find(|end| root.is_char_boundary(*end));
    root.truncate(end.unwrap_or_default());
    root
}

/// The variants of an enum that were asked for.
#[derive(Default)]
struct Variants {
    seen: Vec<String>,
}

struct Tracer {
    out: String,
    enums: BTreeMap<&'static str, Variants>,
    /// The structures that are being made.
    open: Vec<&'static str>,
    /// A variant was asked for that had not been before.
    is_new: bool,
}

impl Tracer {
    fn put(&mut self, text: &str) -> Result<(), Refused> {
        if self.out.len() > BYTES_MAX {
            return Err(Refused::custom("the shape is too long"));
        }
        self.out.push_str(text);
        Ok(())
    }

    /// Goes into a structure; one within itself ends the text.
    fn enter(&mut self, name: &'static str) -> Result<(), Refused> {
        self.put(name)?;
        if self.open.contains(&name) || self.open.len() >= DEPTH_MAX {
            return Err(Refused::custom("the type contains itself"));
        }
        self.open.push(name);
        Ok(())
    }
}

macro_rules! primitives {
    ($($method:ident $visit:ident $sample:literal $text:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
            self.put($text)?;
            visitor.$visit($sample)
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Tracer {
    type Error = Refused;

    primitives! {
        deserialize_bool visit_bool false "bool";
        deserialize_i8 visit_i8 1 "i8";
        deserialize_i16 visit_i16 1 "i16";
        deserialize_i32 visit_i32 1 "i32";
        deserialize_i64 visit_i64 1 "i64";
        deserialize_i128 visit_i128 1 "i128";
        deserialize_u8 visit_u8 1 "u8";
        deserialize_u16 visit_u16 1 "u16";
        deserialize_u32 visit_u32 1 "u32";
        deserialize_u64 visit_u64 1 "u64";
        deserialize_u128 visit_u128 1 "u128";
        deserialize_f32 visit_f32 1.0 "f32";
        deserialize_f64 visit_f64 1.0 "f64";
        deserialize_char visit_char 'a' "char";
        deserialize_str visit_borrowed_str "" "str";
        deserialize_string visit_borrowed_str "" "str";
        deserialize_bytes visit_borrowed_bytes b"" "bytes";
        deserialize_byte_buf visit_borrowed_bytes b"" "bytes";
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.put("any")?;
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.put("?")?;
        visitor.visit_some(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.put("()")?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.put(name)?;
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.enter(name)?;
        self.put("(")?;
        let value = visitor.visit_newtype_struct(&mut *self)?;
        self.open.pop();
        self.put(")")?;
        Ok(value)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.put("[")?;
        let value = visitor.visit_seq(Items { tracer: &mut *self, names: &[], left: 1 })?;
        self.put("]")?;
        Ok(value)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.put("(")?;
        let value = visitor.visit_seq(Items { tracer: &mut *self, names: &[], left: len })?;
        self.put(")")?;
        Ok(value)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.enter(name)?;
        let value = self.deserialize_tuple(len, visitor)?;
        self.open.pop();
        Ok(value)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.put("{")?;
        let value = visitor.visit_map(Items { tracer: &mut *self, names: &[], left: 1 })?;
        self.put("}")?;
        Ok(value)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.enter(name)?;
        self.put("{")?;
        let items = Items { tracer: &mut *self, names: fields, left: fields.len() };
        let value = visitor.visit_seq(items)?;
        self.open.pop();
        self.put("}")?;
        Ok(value)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.put(name)?;
        if self.open.len() >= DEPTH_MAX {
            return Err(Refused::custom("the type contains itself"));
        }
        self.open.push(name);
        let seen = self.enums.entry(name).or_default().seen.len();
        let number = if seen < variants.len() { seen } else { 0 };
        let outside = std::mem::take(&mut self.out);
        if seen < variants.len() {
            self.is_new = true;
            let variant = variants.get(number).copied().unwrap_or_default();
            self.enums.entry(name).or_default().seen.push(variant.to_owned());
        }
        let value = visitor.visit_enum(Variant { tracer: &mut *self, number });
        let within = std::mem::replace(&mut self.out, outside);
        if seen < variants.len()
            && let Some(text) = self.enums.entry(name).or_default().seen.get_mut(seen)
        {
            text.push_str(&within);
        }
        self.open.pop();
        value
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_u64(0)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_unit()
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// What lies within a structure, a sequence or a map.
struct Items<'t> {
    tracer: &'t mut Tracer,
    names: &'static [&'static str],
    left: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Refused> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        if let Some((name, rest)) = self.names.split_first() {
            self.tracer.put(name)?;
            self.tracer.put(":")?;
            self.names = rest;
        }
        let value = seed.deserialize(&mut *self.tracer)?;
        if self.left > 0 {
            self.tracer.put(",")?;
        }
        Ok(Some(value))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> MapAccess<'de> for Items<'_> {
    type Error = Refused;

    fn next_key_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Refused> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.tracer).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Refused> {
        self.tracer.put(":")?;
        seed.deserialize(&mut *self.tracer)
    }
}

/// One variant of an enum.
struct Variant<'t> {
    tracer: &'t mut Tracer,
    number: usize,
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Refused;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Refused> {
        let number = u32::try_from(self.number).unwrap_or(u32::MAX);
        let deserializer: serde::de::value::U32Deserializer<Refused> = number.into_deserializer();
        seed.deserialize(deserializer).map(|value| (value, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Refused;

    fn unit_variant(self) -> Result<(), Refused> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Refused> {
        self.tracer.put("(")?;
        let value = seed.deserialize(&mut *self.tracer)?;
        self.tracer.put(")")?;
        Ok(value)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Refused> {
        self.tracer.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.tracer.put("{")?;
        let items = Items { tracer: &mut *self.tracer, names: fields, left: fields.len() };
        let value = visitor.visit_seq(items)?;
        self.tracer.put("}")?;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape counts")]
    struct Bid {
        price: u64,
        by: Option<String>,
        at: (u8, i64),
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape counts")]
    enum Event {
        Opened,
        Bid(Bid),
        Moved { from: u32, to: u32 },
        Nested(Box<Event>, bool),
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape counts")]
    struct Tree {
        name: String,
        children: Vec<Tree>,
    }

    #[test]
    fn a_shape_has_the_names_and_types_that_make_the_bytes() {
        assert_eq!(shape_of::<u64>(), "u64");
        assert_eq!(shape_of::<(String, Vec<f32>)>(), "(str,[f32])");
        assert_eq!(shape_of::<BTreeMap<u8, bool>>(), "{u8:bool}");
        assert_eq!(shape_of::<Bid>(), "Bid{price:u64,by:?str,at:(u8,i64)}");
    }

    #[test]
    fn every_variant_of_an_enum_is_asked_for() {
        let shape = shape_of::<Event>();
        for part in ["Opened", "Bid(Bid{price:u64", "Moved{from:u32,to:u32}", "Nested(Event"] {
            assert!(shape.contains(part), "{shape} lacks {part}");
        }
        assert_eq!(shape, shape_of::<Event>());
    }

    #[test]
    fn types_that_contain_themselves_come_to_an_end() {
        assert_eq!(shape_of::<Tree>(), "Tree{name:str,children:[Tree");
    }
}
