//! Input files of every kind that a user may have.

use std::fs;
use std::path::{Path, PathBuf};

use super::random::Random;

/// Writes mixed files of about `bytes` bytes in all: prose, bytes that are no text, odd white
/// space, an empty file, lines of a megabyte, a last line without an end.
pub(crate) fn write(dir: &Path, bytes: usize, seed: u64) -> Vec<PathBuf> {
    let mut random = Random::new(seed);
    let files = [
        ("prose.txt", prose(&mut random, bytes / 2)),
        ("bytes.bin", noise(&mut random, bytes / 4)),
        ("empty.txt", Vec::new()),
        ("spaces.txt", odd_spaces(&mut random, bytes / 8)),
        ("long.txt", long_lines(&mut random)),
        ("one line", b"a last line without an end".to_vec()),
    ];
    let write = |(name, content): (&str, Vec<u8>)| {
        let path = dir.join(name);
        fs::write(&path, content).unwrap();
        path
    };
    files.into_iter().map(write).collect()
}

fn prose(random: &mut Random, bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while out.len() < bytes {
        for _ in 0..random.below(16) {
            // Small numbers are frequent, as short words are.
            let rank = random.below(20_000) * random.below(20_000) / 20_000;
            out.extend_from_slice(format!("w\u{f6}rd{rank} ").as_bytes());
        }
        out.push(b'\n');
    }
    out
}

fn noise(random: &mut Random, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|_| random.byte()).collect()
}

fn odd_spaces(random: &mut Random, bytes: usize) -> Vec<u8> {
    let pieces: [&[u8]; 10] =
        [b"a", b"bb", b"\r\n", b"\n", b"\t", b"\x0b", b"\x0c", b" ", b"\xc2\xa0", b"\0"];
    let mut out = Vec::new();
    while out.len() < bytes {
        let piece: &&[u8] = random.pick(&pieces);
        out.extend_from_slice(piece);
    }
    out
}

fn long_lines(random: &mut Random) -> Vec<u8> {
    let mut out = vec![b'x'; 1024 * 1024];
    out.push(b'\n');
    out.extend((0..1024 * 1024).map(|_| if random.below(6) == 0 { b' ' } else { b'y' }));
    out
}

/// The crate's own `.rs` and `.md` files, in the order of their paths.
pub(crate) fn files_of_the_crate() -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(Path::new(env!("CARGO_MANIFEST_DIR")), &mut found);
    found.sort();
    found
}

fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !path.is_symlink() && name != "target" && name != ".git" {
            collect(&path, found);
        } else if path.is_file() && path.extension().is_some_and(|e| e == "rs" || e == "md") {
            found.push(path);
        }
    }
}
