//! What the job does: lines to words to counts, and lines to their numbers of words.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tidegate::Result;
use tidegate::local::{FileSink, Flow, Output};

use crate::slow::Slow;
use crate::source::{FileSource, Line};
use crate::words::{Bytes, words};

/// The sources.
pub(crate) const READ: &str = "read";

/// The operator that counts, and its state.
pub(crate) const COUNT: &str = "count";

/// What is said of each input line.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct LineOfResult {
    file: u32,
    number: u64,
    words: u64,
}

/// Puts the job together. Both exchanges are keyed, so every barrier crosses many-to-many edges.
pub(crate) fn flow(
    sources: Vec<FileSource>,
    parallelism: u32,
    lines_dir: PathBuf,
    slow_sink: bool,
) -> Result<Flow> {
    let flow = Flow::new();
    let lines = flow.source(READ, sources)?;
    lines
        .flat_map(|line: Line, output: &mut Output<Bytes>| {
            words(&line.bytes).try_for_each(|word| output.emit(Bytes(word.to_vec())))
        })
        .key_by_ref(|word| word)
        .process(COUNT, parallelism, |scope| {
            let counts = scope.keyed_map::<Bytes, u64>(COUNT)?;
            Ok(move |word: Bytes, _: &mut Output<()>| counts.update(&word, |count| *count += 1))
        })?;
    lines
        .map(|line: Line| LineOfResult {
            file: line.file,
            number: line.number,
            words: words(&line.bytes).count() as u64,
        })
        .key_by(|line| (line.file, line.number))
        .sink("lines", parallelism, move |context| {
            let write = |line: &LineOfResult, out: &mut Vec<u8>| {
                let LineOfResult { file, number, words } = line;
                out.extend_from_slice(format!("{file}\t{number}\t{words}\n").as_bytes());
            };
            Ok(Slow::new(FileSink::new(&lines_dir, context, write)?, slow_sink))
        })?;
    Ok(flow)
}
