//! Structs that are read from maps strictly: what is wrong is named by its key.
//!
//! Owns one macro. A key that nobody knows, a key given twice and a value of the wrong type are
//! errors with the key in front, at any depth. Never decides what may be missing.

/// A struct with an `Option` for each key that is read, `None` where it is missing; the keys behind
/// `ignored` are allowed, and their values are skipped.
macro_rules! keyed {
    (
        $(#[$doc:meta])*
        struct $name:ident($what:literal) { $($key:ident: $type:ty,)* }
        ignored { $($skipped:ident,)* }
    ) => {
        $(#[$doc])*
        #[derive(Default)]
        struct $name {
            $($key: Option<$type>,)*
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Keys;

                impl<'de> serde::de::Visitor<'de> for Keys {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($what)
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(
                        self,
                        mut map: A,
                    ) -> Result<$name, A::Error> {
                        use serde::de::Error;
                        let mut read = $name::default();
                        while let Some(key) = map.next_key::<String>()? {
                            match key.as_str() {
                                $(stringify!($key) => {
                                    if read.$key.is_some() {
                                        return Err(Error::duplicate_field(stringify!($key)));
                                    }
                                    read.$key = Some(map.next_value::<$type>().map_err(|error| {
                                        Error::custom(format_args!("{key}: {error}"))
                                    })?);
                                })*
                                $(stringify!($skipped) => {
                                    map.next_value::<serde::de::IgnoredAny>()?;
                                })*
                                _ => {
                                    let known = &[$(stringify!($key)),*];
                                    return Err(Error::unknown_field(&key, known));
                                }
                            }
                        }
                        Ok(read)
                    }
                }

                deserializer.deserialize_map(Keys)
            }
        }
    };
}

pub(super) use keyed;
