//! What the tests of `word_count` share.
#![expect(clippy::unwrap_used, clippy::panic, reason = "what goes wrong here fails the test")]

pub(crate) mod child;
pub(crate) mod corpus;
pub(crate) mod count;
pub(crate) mod damage;
pub(crate) mod random;

use std::path::{Path, PathBuf};

use child::{Run, text};

impl Run {
    /// A run of the example over these files.
    pub(crate) fn new(dir: &Path, inputs: &[PathBuf]) -> Self {
        let mut run = Self::of("word_count", dir);
        for input in inputs {
            run = run.with(&["--input", &text(input)]);
        }
        run
    }
}
