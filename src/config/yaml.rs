//! YAML as a flat list of keys with dots, each with its line.
//!
//! Only what the caller asks for is kept. Size, depth and key length are bounded, so reading a file
//! costs no more than its size.

use saphyr_parser::{Event, Parser, ScalarStyle};

use crate::error::{Error, Result};
use crate::limits::{CONFIG_DEPTH_MAX, CONFIG_FILE_BYTES_MAX, CONFIG_KEY_BYTES_MAX};

/// A key and what stands behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaf {
    pub(super) key: String,
    /// None for a list or for nothing at all.
    pub(super) value: Option<String>,
    /// The line of the key, from 1.
    pub(super) line: usize,
}

/// What is open around the next event.
enum Open {
    /// A mapping; its own key is as many bytes of the path.
    Mapping { base: usize, key_line: Option<usize> },
    /// A list, whose content is no key of anybody.
    List,
}

/// The keys for which `keep` is true, in order of the text; nested mappings and dots are the same.
///
/// # Errors
/// `Invalid`, with the line: the text is too large or too deep, is not one YAML mapping, or holds an
/// alias, whose keys would be lost.
pub(super) fn leaves(text: &str, keep: impl Fn(&str) -> bool) -> Result<Vec<Leaf>> {
    if text.len() > CONFIG_FILE_BYTES_MAX {
        let size = text.len();
        return Err(Error::invalid(format!(
            "the configuration has {size} bytes, the most is {CONFIG_FILE_BYTES_MAX}"
        )));
    }
    let mut reader = Reader { keep, open: Vec::new(), path: String::new(), leaves: Vec::new() };
    let mut documents = 0;
    for event in Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        let (event, span) = event
            .map_err(|error| at(error.marker().line(), &format!("not YAML: {}", error.info())))?;
        let line = span.start.line();
        if matches!(event, Event::DocumentStart(_)) {
            documents += 1;
            if documents > 1 {
                return Err(at(line, "a second YAML document begins; there may be one"));
            }
        }
        reader.take(&event, line)?;
    }
    Ok(reader.leaves)
}

fn at(line: usize, what: &str) -> Error {
    Error::invalid(format!("line {line}: {what}"))
}

struct Reader<K> {
    keep: K,
    open: Vec<Open>,
    /// The key of the innermost mapping, and behind it the one that waits for its value.
    path: String,
    leaves: Vec<Leaf>,
}

impl<K: Fn(&str) -> bool> Reader<K> {
    fn take(&mut self, event: &Event<'_>, line: usize) -> Result<()> {
        match event {
            Event::Scalar(text, style, ..) => self.scalar(text, *style, line),
            Event::MappingStart(..) => self.mapping(line),
            Event::SequenceStart(..) => self.list(line),
            Event::MappingEnd | Event::SequenceEnd => {
                self.open.pop();
                self.value_ends();
                Ok(())
            }
            Event::Alias(_) => Err(at(line, "an alias (*name) is not supported; write it out")),
            _ => Ok(()),
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, line: usize) -> Result<()> {
        let is_null =
            style == ScalarStyle::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL");
        match self.open.last_mut() {
            None if is_null => Ok(()),
            None => Err(at(line, "expected keys with values")),
            Some(Open::List) => Ok(()),
            Some(Open::Mapping { base, key_line: key_line @ None }) => {
                *key_line = Some(line);
                if *base > 0 {
                    self.path.push('.');
                }
                self.path.push_str(text);
                if self.path.len() > CONFIG_KEY_BYTES_MAX {
                    return Err(at(line, "the key is too long"));
                }
                Ok(())
            }
            Some(Open::Mapping { key_line: Some(line), .. }) => {
                let line = *line;
                self.leaf((!is_null).then(|| text.to_owned()), line);
                self.value_ends();
                Ok(())
            }
        }
    }

    fn mapping(&mut self, line: usize) -> Result<()> {
        let is_key = matches!(self.open.last(), Some(Open::Mapping { key_line: None, .. }));
        if is_key {
            return Err(at(line, "a mapping cannot be a key"));
        }
        self.enter(Open::Mapping { base: self.path.len(), key_line: None }, line)
    }

    fn list(&mut self, line: usize) -> Result<()> {
        match self.open.last() {
            None => return Err(at(line, "expected keys with values, not a list")),
            Some(Open::Mapping { key_line: None, .. }) => {
                return Err(at(line, "a list cannot be a key"));
            }
            Some(Open::Mapping { key_line: Some(line), .. }) => {
                let line = *line;
                self.leaf(None, line);
            }
            Some(Open::List) => {}
        }
        self.enter(Open::List, line)
    }

    fn enter(&mut self, open: Open, line: usize) -> Result<()> {
        if self.open.len() == CONFIG_DEPTH_MAX {
            return Err(at(line, &format!("nested more than {CONFIG_DEPTH_MAX} deep")));
        }
        self.open.push(open);
        Ok(())
    }

    /// The value of the innermost key was read to its end.
    fn value_ends(&mut self) {
        if let Some(Open::Mapping { base, key_line }) = self.open.last_mut() {
            self.path.truncate(*base);
            *key_line = None;
        }
    }

    fn leaf(&mut self, value: Option<String>, line: usize) {
        let in_list = self.open.iter().any(|open| matches!(open, Open::List));
        if !in_list && (self.keep)(&self.path) {
            self.leaves.push(Leaf { key: self.path.clone(), value, line });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<(String, Option<String>, usize)> {
        let leaves = leaves(text, |_| true).unwrap();
        leaves.into_iter().map(|leaf| (leaf.key, leaf.value, leaf.line)).collect()
    }

    fn one(key: &str, value: &str, line: usize) -> (String, Option<String>, usize) {
        (key.into(), Some(value.into()), line)
    }

    #[test]
    fn nested_flat_and_mixed_keys_are_the_same() {
        let nested = "a:\n  b:\n    c: 1 # why\n  d: 'x y'\n";
        assert_eq!(all(nested), [one("a.b.c", "1", 3), one("a.d", "x y", 4)]);
        assert_eq!(
            all("\n# note\na.b: 2\r\nc: {d: 3}\n"),
            [one("a.b", "2", 3), one("c.d", "3", 4)]
        );
        assert_eq!(
            all("a.b:\n  c.d: hdfs://host:8020/x"),
            [one("a.b.c.d", "hdfs://host:8020/x", 2)]
        );
        assert_eq!(all("\u{feff}a: 1"), [one("a", "1", 1)]);
    }

    #[test]
    fn nothing_and_lists_are_no_values_and_what_follows_them_is_found() {
        let text = "a:\nb: ~\nc: [1, {d: 2}, [3]]\ne:\n  - f: 4\ng: ''\n";
        let none = |key: &str, line| (key.to_owned(), None, line);
        assert_eq!(
            all(text),
            [none("a", 1), none("b", 2), none("c", 3), none("e", 4), one("g", "", 6)]
        );
        assert_eq!(all(""), []);
        assert_eq!(all("# nothing\n---\n"), []);
    }

    #[test]
    fn what_is_not_one_bounded_mapping_is_refused_with_its_line() {
        let deep = "[".repeat(1000);
        let long = format!("a: 1\n{}: 2", "k".repeat(CONFIG_KEY_BYTES_MAX + 1));
        for (text, line) in [
            ("- a", 1),
            ("\nword", 2),
            ("a: 1\nb: c: d", 2),
            ("a: 'open", 1),
            ("a: &x 1\nb: *x", 2),
            ("a: 1\n---\nb: 2", 2),
            ("? {a: b}\n: c", 1),
            ("? [a]\n: c", 1),
            (&format!("a: {deep}"), 1),
            (&long, 2),
        ] {
            let error = leaves(text, |_| true).unwrap_err().to_string();
            assert!(error.starts_with(&format!("line {line}: ")), "{text:.40?}: {error}");
        }
        assert!(leaves(&" ".repeat(CONFIG_FILE_BYTES_MAX + 1), |_| true).is_err());
    }
}
