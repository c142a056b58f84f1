//! The files of the tree, and the code of a source apart from its comments, texts and tests.

use std::fs;
use std::path::{Path, PathBuf};

/// Directories that are written by people; everything else is made by tools.
const DIRECTORIES: [&str; 7] = [".ci", "benches", "docs", "examples", "fuzz", "src", "tests"];

/// Made by tools within them.
const MADE: [&str; 7] = [
    "benches/peers/target",
    "examples/auctions/target",
    "fuzz/artifacts",
    "fuzz/corpus",
    "fuzz/coverage",
    "fuzz/target",
    "tests/data",
];

/// One file of the tree.
pub(crate) struct Source {
    /// From the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    pub(crate) fn is_rust(&self) -> bool {
        self.has_extension("rs")
    }

    pub(crate) fn has_extension(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|found| found == extension)
    }

    /// True for a file that is compiled into tests only.
    pub(crate) fn is_test(&self) -> bool {
        self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || self.path.ends_with("/tests.rs")
    }

    /// The code without comments and texts; each stands as blanks, so that lines stay where they are.
    pub(crate) fn code(&self) -> String {
        split(&self.text).0
    }

    /// The comments of a source, or the whole of any other file.
    pub(crate) fn prose(&self) -> String {
        if self.is_rust() { split(&self.text).1 } else { self.text.clone() }
    }

    /// The code that is in the library, without its tests.
    pub(crate) fn production(&self) -> String {
        if self.is_test() { String::new() } else { without_tests(&self.code()) }
    }
}

/// The root of the tree.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file that people write, in the order of the paths.
pub(crate) fn tree() -> Vec<Source> {
    let mut paths: Vec<PathBuf> =
        entries(&root()).into_iter().filter(|path| path.is_file()).collect();
    for directory in DIRECTORIES {
        walk(&root().join(directory), &mut paths);
    }
    let mut files: Vec<Source> = paths.iter().filter_map(|path| read(path)).collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(files.iter().any(|file| file.path == "src/lib.rs"), "the tree was not found");
    files
}

/// The sources below `src`.
pub(crate) fn library() -> Vec<Source> {
    tree().into_iter().filter(|file| file.is_rust() && file.path.starts_with("src/")).collect()
}

fn walk(directory: &Path, paths: &mut Vec<PathBuf>) {
    for path in entries(directory) {
        if MADE.iter().any(|made| path == root().join(made)) {
            continue;
        }
        if path.is_dir() {
            walk(&path, paths);
        } else {
            paths.push(path);
        }
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// A file of text that is no licence and no lock file.
fn read(path: &Path) -> Option<Source> {
    let name = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
    let wanted = [".md", ".rs", ".toml"].iter().any(|end| name.ends_with(end));
    if !wanted && !name.starts_with(".ci/") {
        return None;
    }
    Some(Source { text: fs::read_to_string(path).unwrap(), path: name })
}

/// Code and comments of a source: each with blanks where the other was, and texts in neither.
pub(crate) fn split(text: &str) -> (String, String) {
    let mut code = String::new();
    let mut comments = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (len, is_comment, is_text) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), true, false)
        } else if rest.starts_with("/*") {
            (rest.find("*/").map_or(rest.len(), |at| at + 2), true, false)
        } else if let Some(len) = text_len(rest, code.chars().last()) {
            (len, false, true)
        } else {
            (first.len_utf8(), false, false)
        };
        let (piece, after) = rest.split_at(len);
        let blanks: String = piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        code.push_str(if is_comment || is_text { &blanks } else { piece });
        comments.push_str(if is_comment || piece == "\n" { piece } else { &blanks });
        rest = after;
    }
    (code, comments)
}

/// The length of the text or character that `rest` starts with.
fn text_len(rest: &str, before: Option<char>) -> Option<usize> {
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let unprefixed = rest.strip_prefix('b').filter(|_| !in_word).unwrap_or(rest);
    let prefix = rest.len() - unprefixed.len();
    if let Some(raw) = unprefixed.strip_prefix('r').filter(|_| !in_word || prefix == 1) {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = prefix + 1 + hashes + 1;
            return Some(rest[body..].find(&end).map_or(rest.len(), |at| body + at + end.len()));
        }
    }
    if unprefixed.starts_with('"') {
        return Some(prefix + quoted_len(unprefixed, '"'));
    }
    // A lifetime has no quote behind its first character.
    let character = unprefixed.strip_prefix('\'')?;
    let second = character.chars().nth(1)?;
    (character.starts_with('\\') || second == '\'').then(|| prefix + quoted_len(unprefixed, '\''))
}

fn quoted_len(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if !escaped && c == quote {
            return at + 1;
        }
        escaped = !escaped && c == '\\';
    }
    text.len()
}

/// Blanks every item that is compiled for tests only.
pub(crate) fn without_tests(code: &str) -> String {
    let mut out = String::new();
    let mut rest = code;
    while let Some(at) = ["#[cfg(test)]", "#[cfg(all(test", "#[test]"]
        .iter()
        .filter_map(|attribute| rest.find(attribute))
        .min()
    {
        let (before, item) = rest.split_at(at);
        let (item, after) = item.split_at(item_len(item));
        out.push_str(before);
        out.extend(item.chars().filter(|c| *c == '\n'));
        rest = after;
    }
    out + rest
}

/// The length of an item with its attributes: to its `;` or its closing brace.
pub(crate) fn item_len(item: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in item.char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && c == '}' {
                    return at + 1;
                }
            }
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    item.len()
}
