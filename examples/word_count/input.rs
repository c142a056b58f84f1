//! The input files and what identifies them: a saved run continues only over the same bytes.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use tidegate::{Error, Result};

use crate::arguments::crate_dir;

/// The longest line in bytes, without its end.
pub(crate) const LINE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// One input file as it was when the program started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InputFile {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) lines: u64,
    crc32: u32,
}

/// The input files in argument order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Input {
    pub(crate) files: Vec<InputFile>,
    /// True when the user named none.
    pub(crate) is_default: bool,
}

impl Input {
    /// The given files, or those of the crate when none is given.
    pub(crate) fn open(given: &[PathBuf]) -> Result<Self> {
        let is_default = given.is_empty();
        let paths = if is_default { files_of(&crate_dir())? } else { given.to_vec() };
        let files: Vec<_> =
            paths.iter().map(|path| InputFile::read(path)).collect::<Result<_>>()?;
        if files.is_empty() {
            return Err(Error::invalid(format!(
                "there is no .rs or .md file below {}: name files with --input",
                crate_dir().display()
            )));
        }
        Ok(Self { files, is_default })
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    pub(crate) fn lines(&self) -> u64 {
        self.files.iter().map(|file| file.lines).sum()
    }

    /// One line for each file: checksum, length, path. Equal text means equal input.
    pub(crate) fn identity(&self) -> String {
        let lines: Vec<_> = self.files.iter().map(InputFile::identity).collect();
        lines.join("\n")
    }

    /// Says in words how a saved identity differs from this input, if it does.
    pub(crate) fn difference(&self, saved: &str) -> Option<String> {
        let saved: Vec<_> = saved.lines().collect();
        if saved.len() != self.files.len() {
            return Some(format!(
                "the saved run reads {} files, this one {}",
                saved.len(),
                self.files.len()
            ));
        }
        let mut pairs = self.files.iter().zip(saved).enumerate();
        let (index, (file, saved)) = pairs.find(|(_, (file, saved))| file.identity() != *saved)?;
        Some(format!(
            "file {index} is now {}, in the saved run it is {saved} (checksum, bytes, path)",
            file.identity()
        ))
    }
}

impl InputFile {
    fn read(path: &Path) -> Result<Self> {
        let refuse = |why: &str| Error::invalid(format!("{} {why}", path.display()));
        let failed = |source| Error::io(format!("read {}", path.display()), source);
        let path = path.canonicalize().map_err(failed)?;
        let mut file = File::open(&path).map_err(failed)?;
        let kind = file.metadata().map_err(failed)?.file_type();
        if kind.is_dir() {
            return Err(refuse("is a directory, not a file"));
        }
        if !kind.is_file() {
            return Err(refuse("is not a regular file: it cannot be read again after a restart"));
        }
        let mut scan = Scan::default();
        let mut buffer = vec![0; 1024 * 1024];
        loop {
            let count = file.read(&mut buffer).map_err(failed)?;
            let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
                break;
            };
            scan.take(bytes);
            if scan.longest > LINE_BYTES_MAX {
                return Err(refuse(&format!(
                    "has a line of more than {LINE_BYTES_MAX} bytes near line {}",
                    scan.ends + 1
                )));
            }
        }
        let lines = scan.ends + u64::from(scan.open > 0);
        Ok(Self { path, bytes: scan.bytes, lines, crc32: scan.crc32.finalize() })
    }

    fn identity(&self) -> String {
        let path = self.path.as_os_str().as_encoded_bytes().escape_ascii();
        format!("{:08x} {} {path}", self.crc32, self.bytes)
    }
}

/// What one pass over a file finds.
#[derive(Default)]
struct Scan {
    crc32: crc32fast::Hasher,
    bytes: u64,
    /// Line ends so far.
    ends: u64,
    /// Bytes since the last line end.
    open: u64,
    longest: u64,
}

impl Scan {
    fn take(&mut self, bytes: &[u8]) {
        self.crc32.update(bytes);
        self.bytes += bytes.len() as u64;
        let mut parts = bytes.split(|byte| *byte == b'\n');
        // The first part belongs to the line that was open; each further one follows a line end.
        self.open += parts.next().map_or(0, |part| part.len() as u64);
        self.longest = self.longest.max(self.open);
        for part in parts {
            self.ends += 1;
            self.open = part.len() as u64;
            self.longest = self.longest.max(self.open);
        }
    }
}

/// All `.rs` and `.md` files below `root`, sorted by path, without what was built.
fn files_of(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(dir) = open.pop() {
        let failed = |source| Error::io(format!("list {}", dir.display()), source);
        for entry in std::fs::read_dir(&dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            let path = entry.path();
            if kind.is_dir() && entry.file_name() != "target" && entry.file_name() != ".git" {
                open.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|e| e == "rs" || e == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
