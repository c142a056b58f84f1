//! Reads lines. Subtask i of n reads the files i, i + n, i + 2n, ...

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tidegate::local::{Next, Source};
use tidegate::{Error, Result};

use crate::input::{Input, InputFile, LINE_BYTES_MAX};
use crate::rate::RateLimit;

/// A line of an input file without its end.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// The file's index in argument order, from 0.
    pub(crate) file: u32,
    /// The line's number in its file, from 1.
    pub(crate) number: u64,
    /// Shared, because words and line numbers are made of it apart.
    pub(crate) bytes: Arc<[u8]>,
}

/// Where a source stands: before the next line that it will give.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Position {
    /// The file's place among those of this source.
    file: u64,
    /// Bytes from the start of that file.
    offset: u64,
    /// Lines before that, in that file.
    line: u64,
    /// Lines before that, in all files of this source.
    lines: u64,
}

/// How much all sources have read, counted from the start of the input and not of this run.
#[derive(Debug, Default)]
pub(crate) struct ReadSoFar {
    pub(crate) lines: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

/// One source subtask.
#[derive(Debug)]
pub(crate) struct FileSource {
    files: Vec<(u32, InputFile)>,
    at: Position,
    /// The size of the files that are done.
    bytes_before: u64,
    open: Option<BufReader<File>>,
    rate: Arc<RateLimit>,
    read: Arc<ReadSoFar>,
}

impl FileSource {
    /// The sources of a run, one for each of `read`.
    pub(crate) fn all(input: &Input, rate: &Arc<RateLimit>, read: &[Arc<ReadSoFar>]) -> Vec<Self> {
        let mut sources: Vec<_> = read
            .iter()
            .map(|read| Self {
                files: Vec::new(),
                at: Position::default(),
                bytes_before: 0,
                open: None,
                rate: Arc::clone(rate),
                read: Arc::clone(read),
            })
            .collect();
        let count = sources.len();
        for (index, file) in (0..).zip(&input.files) {
            if let Some(source) = sources.get_mut(index as usize % count) {
                source.files.push((index, file.clone()));
            }
        }
        sources
    }

    fn place(&self) -> usize {
        usize::try_from(self.at.file).unwrap_or(usize::MAX)
    }

    fn publish(&self) {
        self.read.bytes.store(self.bytes_before + self.at.offset, Ordering::Relaxed);
        self.read.lines.store(self.at.lines, Ordering::Relaxed);
    }
}

impl Source for FileSource {
    type Item = Line;
    type Position = Position;

    fn position(&self) -> Position {
        self.at
    }

    fn seek(&mut self, position: Position) -> Result<()> {
        self.at = position;
        self.open = None;
        self.bytes_before = self.files.iter().take(self.place()).map(|(_, file)| file.bytes).sum();
        self.publish();
        Ok(())
    }

    fn next(&mut self) -> Result<Next<Line>> {
        while let Some((index, file)) = self.files.get(self.place()) {
            if self.at.offset < file.bytes {
                if let Err(wait) = self.rate.take() {
                    return Ok(Next::Wait(wait));
                }
                let line = read_line(&mut self.open, &mut self.at, *index, file)?;
                self.publish();
                return Ok(Next::Item(line));
            }
            self.bytes_before += file.bytes;
            self.at = Position { file: self.at.file + 1, offset: 0, line: 0, lines: self.at.lines };
            self.open = None;
        }
        Ok(Next::End)
    }
}

/// Reads the line at the position. There is one: the position is before the file's end.
fn read_line(
    open: &mut Option<BufReader<File>>,
    at: &mut Position,
    index: u32,
    file: &InputFile,
) -> Result<Line> {
    let failed = |source| Error::io(format!("read {}", file.path.display()), source);
    let mut reader = if let Some(reader) = open.take() {
        reader
    } else {
        let mut opened = File::open(&file.path).map_err(failed)?;
        opened.seek(SeekFrom::Start(at.offset)).map_err(failed)?;
        BufReader::with_capacity(64 * 1024, opened)
    };
    let left = file.bytes - at.offset;
    let mut bytes = Vec::new();
    let count = reader
        .by_ref()
        .take(left.min(LINE_BYTES_MAX + 1))
        .read_until(b'\n', &mut bytes)
        .map_err(failed)? as u64;
    let ended = bytes.pop_if(|byte| *byte == b'\n').is_some();
    if !ended && count != left {
        return Err(Error::invalid(format!("{} has changed", file.path.display())));
    }
    at.offset += count;
    at.line += 1;
    at.lines += 1;
    *open = Some(reader);
    Ok(Line { file: index, number: at.line, bytes: bytes.into() })
}
