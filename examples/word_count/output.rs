//! `counts.tsv`: written whole beside its name, then renamed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tidegate::{Error, Result};

/// The name of the table below the output directory.
const COUNTS: &str = "counts.tsv";

/// Where the table of counts stands once the run has ended.
pub(crate) fn counts_path(output: &Path) -> PathBuf {
    output.join(COUNTS)
}

/// Where the lines go.
pub(crate) fn lines_dir(output: &Path) -> PathBuf {
    output.join("lines")
}

/// Makes the table durable under its name: count, tab, word, sorted by the word's bytes. The sink
/// for lines has made the directory.
pub(crate) fn write_counts(output: &Path, counts: &BTreeMap<Vec<u8>, u64>) -> Result<()> {
    let failed = |source| Error::io(format!("write {}", counts_path(output).display()), source);
    let temporary = output.join(format!(".{COUNTS}.tmp"));
    write_table(&temporary, counts).map_err(failed)?;
    fs::rename(&temporary, counts_path(output)).map_err(failed)?;
    sync_dir(output).map_err(failed)
}

/// Removes the table of an earlier run, which this run will write again.
pub(crate) fn remove_counts(output: &Path) -> Result<()> {
    match fs::remove_file(counts_path(output)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", counts_path(output).display()), error))
        }
        _ => Ok(()),
    }
}

/// Removes the lines of a run whose state is gone.
pub(crate) fn remove_lines(output: &Path) -> Result<()> {
    let dir = lines_dir(output);
    let failed = |source| Error::io(format!("clear {}", dir.display()), source);
    let entries = match fs::read_dir(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_string_lossy().starts_with("part-") {
            fs::remove_file(entry.path()).map_err(failed)?;
        }
    }
    sync_dir(&dir).map_err(failed)
}

fn write_table(path: &Path, counts: &BTreeMap<Vec<u8>, u64>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1024 * 1024, File::create(path)?);
    for (word, count) in counts {
        write!(out, "{count}\t")?;
        out.write_all(word)?;
        out.write_all(b"\n")?;
    }
    out.into_inner()?.sync_all()
}

#[cfg(unix)]
fn sync_dir(path: &Path) -> io::Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path)?.sync_all()
}

/// Elsewhere a directory cannot be opened as a file; renames are durable on their own there.
#[cfg(not(unix))]
fn sync_dir(_: &Path) -> io::Result<()> {
    Ok(())
}
