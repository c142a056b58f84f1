//! The committed inputs of a target.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The most inputs of one target, and the most bytes of all of them.
const INPUTS_MAX: usize = 200;
const BYTES_MAX: usize = 200 * 1024;

/// The corpus of `target` holds the seeds, byte for byte, and `run` finds no fault with any input
/// in it. `TIDEGATE_WRITE_CORPUS=1` writes the seeds.
pub(super) fn check(target: &str, seeds: &BTreeMap<String, Vec<u8>>, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    for (name, bytes) in seeds {
        if std::env::var_os("TIDEGATE_WRITE_CORPUS").is_some() {
            fs::create_dir_all(&corpus).unwrap();
            fs::write(corpus.join(name), bytes).unwrap();
        }
        assert!(fs::read(corpus.join(name)).unwrap() == *bytes, "{name} differs");
    }
    let (mut inputs, mut total) = (0, 0);
    for entry in fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        (inputs, total) = (inputs + 1, total + bytes.len());
        let outcome = std::panic::catch_unwind(|| run(&bytes));
        assert!(outcome.is_ok(), "{}", path.display());
    }
    assert!(inputs >= seeds.len());
    assert!(inputs <= INPUTS_MAX && total <= BYTES_MAX, "{inputs} inputs, {total} bytes");
}
