//! What the example must produce, counted apart from it, and what it did produce.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The outputs of a run, its lines sorted.
#[derive(PartialEq, Eq)]
pub(crate) struct Outputs {
    pub(crate) counts: Vec<u8>,
    pub(crate) lines: Vec<String>,
}

/// Counts byte by byte, with nothing of the library.
pub(crate) fn expected(files: &[PathBuf]) -> Outputs {
    let mut counts: HashMap<Vec<u8>, u64> = HashMap::new();
    let mut lines = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let mut word = Vec::new();
        let (mut number, mut words, mut line_is_open) = (1_u64, 0_u64, false);
        for byte in fs::read(file).unwrap() {
            let is_space = byte == 32 || (9..=13).contains(&byte);
            if is_space && !word.is_empty() {
                *counts.entry(std::mem::take(&mut word)).or_default() += 1;
                words += 1;
            }
            if !is_space {
                word.push(byte);
            }
            line_is_open = byte != 10;
            if !line_is_open {
                lines.push(format!("{index}\t{number}\t{words}"));
                (number, words) = (number + 1, 0);
            }
        }
        if !word.is_empty() {
            *counts.entry(word).or_default() += 1;
            words += 1;
        }
        if line_is_open {
            lines.push(format!("{index}\t{number}\t{words}"));
        }
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort();
    let mut table = Vec::new();
    for (word, count) in counts {
        table.extend_from_slice(format!("{count}\t").as_bytes());
        table.extend_from_slice(&word);
        table.push(b'\n');
    }
    lines.sort();
    Outputs { counts: table, lines }
}

/// Reads what a run left. Nothing pending may be left beside it.
pub(crate) fn found(output: &Path) -> Outputs {
    let counts = fs::read(output.join("counts.tsv")).unwrap();
    let mut lines = Vec::new();
    for entry in fs::read_dir(output.join("lines")).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(name.starts_with("part-"), "{name} is left beside the committed files");
        let content = fs::read_to_string(&path).unwrap();
        assert!(content.is_empty() || content.ends_with('\n'), "{name} is cut off");
        lines.extend(content.lines().map(str::to_owned));
    }
    lines.sort();
    Outputs { counts, lines }
}

/// How many files of lines are committed.
pub(crate) fn committed_files(output: &Path) -> usize {
    let names = fs::read_dir(output.join("lines")).into_iter().flatten().flatten();
    names.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"part-")).count()
}

/// Fails with the first difference instead of megabytes of both.
pub(crate) fn assert_same(found: &Outputs, expected: &Outputs) {
    assert_same_rows("line of lines/", &found.lines, &expected.lines);
    let rows = |table: &[u8]| -> Vec<String> {
        table.split(|byte| *byte == b'\n').map(|row| row.escape_ascii().to_string()).collect()
    };
    if found.counts != expected.counts {
        assert_same_rows("row of counts.tsv", &rows(&found.counts), &rows(&expected.counts));
        panic!("counts.tsv differs");
    }
}

fn assert_same_rows(what: &str, found: &[String], expected: &[String]) {
    let pairs = found.iter().zip(expected).enumerate();
    for (at, (found, expected)) in pairs {
        assert!(found == expected, "{what} {at} is {found:.80} and should be {expected:.80}");
    }
    assert_eq!(found.len(), expected.len(), "{what}: how many");
}

/// With at least once no line is missing, and no word is counted too seldom.
pub(crate) fn assert_at_least(found: &Outputs, expected: &Outputs) {
    let mut lines = found.lines.clone();
    lines.dedup();
    assert_same_rows("line of lines/", &lines, &expected.lines);
    let counts = |table: &[u8]| -> HashMap<Vec<u8>, u64> {
        let rows = table.split(|byte| *byte == b'\n').filter(|row| !row.is_empty());
        rows.map(|row| {
            let mut columns = row.splitn(2, |byte| *byte == b'\t');
            let count = std::str::from_utf8(columns.next().unwrap()).unwrap().parse().unwrap();
            (columns.next().unwrap().to_vec(), count)
        })
        .collect()
    };
    let (found, expected) = (counts(&found.counts), counts(&expected.counts));
    assert_eq!(found.len(), expected.len(), "distinct words");
    for (word, count) in expected {
        let found = found.get(&word).copied().unwrap_or_default();
        assert!(found >= count, "{:.80} counted {found} times", word.escape_ascii());
    }
}
