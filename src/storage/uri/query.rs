//! The parameters behind `?`: each known one taken once, and nothing left over.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::config::edit_distance;
use crate::error::{Error, Result};
use crate::storage::uri::percent;

/// A name longer than this is near to nothing.
const NEAREST_BYTES_MAX: usize = 64;

/// Parameters that nobody has taken yet.
#[derive(Debug)]
pub(in crate::storage) struct Query {
    parameters: BTreeMap<String, String>,
}

impl Query {
    /// Reads `name=value&name=value`.
    pub(in crate::storage) fn parse(text: Option<&str>) -> Result<Self> {
        let mut parameters = BTreeMap::new();
        let parts = text.into_iter().flat_map(|text| text.split('&'));
        for part in parts.filter(|part| !part.is_empty()) {
            let wrong = |why: &str| Error::invalid(format!("the parameter {part:?} {why}"));
            let (name, value) = part.split_once('=').ok_or_else(|| wrong("has no value"))?;
            let text = |coded: &str| {
                let bytes = percent::decode(coded);
                bytes.and_then(|bytes| String::from_utf8(bytes).ok())
            };
            let broken = || wrong("is not percent-encoded UTF-8");
            let (name, value) = (text(name).ok_or_else(broken)?, text(value).ok_or_else(broken)?);
            if name.is_empty() {
                return Err(wrong("has no name"));
            }
            if parameters.insert(name, value).is_some() {
                return Err(wrong("is given twice"));
            }
        }
        Ok(Self { parameters })
    }

    /// Takes a parameter in its type; `wanted` says what is expected of it.
    pub(in crate::storage) fn take<T: FromStr>(
        &mut self,
        name: &str,
        wanted: &str,
    ) -> Result<Option<T>> {
        let Some(value) = self.parameters.remove(name) else { return Ok(None) };
        let wrong = |_| Error::invalid(format!("{name}={value} is wrong: {wanted} is needed"));
        value.parse().map(Some).map_err(wrong)
    }

    /// All that is left.
    pub(super) fn into_parameters(self) -> BTreeMap<String, String> {
        self.parameters
    }

    /// Refuses what nobody took.
    pub(in crate::storage) fn finish(self, scheme: &str, known: &[&str]) -> Result<()> {
        let Some(name) = self.parameters.keys().next() else { return Ok(()) };
        let advice = match nearest(name, known) {
            Some(nearest) if known.len() > 1 => {
                format!("the nearest is {nearest}; it has {}", known.join(", "))
            }
            Some(only) => format!("its only one is {only}"),
            None => format!("it has {}", known.join(", ")),
        };
        Err(Error::invalid(format!("{scheme}: has no parameter {name:?}: {advice}")))
    }
}

/// The name with the fewest letters to change.
pub(super) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let is_short = name.len() <= NEAREST_BYTES_MAX;
    let known = known.iter().copied().filter(|_| is_short);
    known.min_by_key(|known| edit_distance(name, known))
}

/// Appends parameters in their order.
pub(in crate::storage) fn print<'a>(
    parameters: impl IntoIterator<Item = (&'a str, String)>,
    out: &mut String,
) {
    let mut sign = '?';
    for (name, value) in parameters {
        out.push(sign);
        percent::encode(name.as_bytes(), "", out);
        out.push('=');
        percent::encode(value.as_bytes(), "/:", out);
        sign = '&';
    }
}
