//! A directory as one text: small, and a difference can be read.
//!
//! ```text
//! dir PATH
//! file PATH LENGTH
//! OFFSET HEX             64 bytes of the file; where no line says anything, it has zeros
//! ```

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

const LINE: usize = 64;

/// The content of every file below `dir`.
pub(crate) fn pack(dir: &Path) -> String {
    let mut text = String::new();
    pack_below(dir, "", &mut text);
    text
}

fn pack_below(dir: &Path, prefix: &str, text: &mut String) {
    let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        assert!(!path.contains(char::is_whitespace), "{path}");
        if entry.file_type().unwrap().is_dir() {
            writeln!(text, "dir {path}").unwrap();
            pack_below(&entry.path(), &format!("{path}/"), text);
            continue;
        }
        let bytes = fs::read(entry.path()).unwrap();
        writeln!(text, "file {path} {}", bytes.len()).unwrap();
        for (at, line) in (0..).step_by(LINE).zip(bytes.chunks(LINE)) {
            if line.iter().any(|byte| *byte != 0) {
                write!(text, "{at} ").unwrap();
                for byte in line {
                    write!(text, "{byte:02x}").unwrap();
                }
                text.push('\n');
            }
        }
    }
}

/// Makes the directory again.
pub(crate) fn unpack(text: &str, dir: &Path) {
    let mut file = None;
    for line in text.lines() {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["dir", path] => fs::create_dir(dir.join(path)).unwrap(),
            ["file", path, len] => {
                let made = File::create(dir.join(path)).unwrap();
                made.set_len(len.parse().unwrap()).unwrap();
                file = Some(made);
            }
            [at, hex] => {
                let file = file.as_mut().unwrap();
                file.seek(SeekFrom::Start(at.parse().unwrap())).unwrap();
                let digits: Vec<_> = hex.as_bytes().chunks(2).collect();
                let byte = |two: &&[u8]| {
                    u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()
                };
                file.write_all(&digits.iter().map(byte).collect::<Vec<_>>()).unwrap();
            }
            _ => panic!("{line}"),
        }
    }
}
