//! What every bench of a store needs: a directory, fresh bytes, the bare file, times in pairs.

use std::fmt::Display;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId};
use tidegate::clock::{Clock, SystemClock};

pub(crate) const MIB: usize = 1 << 20;
pub(crate) const CHUNK: usize = 256 * 1024;
const PAGE: usize = 4096;

/// A directory of one bench alone, on the disk that holds the build.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-store-{name}"));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Incompressible bytes.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut word = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// State of which every page is one that was never seen before each round.
pub(crate) struct Fresh {
    pub(crate) bytes: Vec<u8>,
    pub(crate) round: u64,
}

impl Fresh {
    pub(crate) fn new(len: usize) -> Self {
        Self { bytes: noise(len), round: 0 }
    }

    /// The next round.
    pub(crate) fn stamp(&mut self) {
        let len = self.bytes.len();
        self.stamp_within(0, len);
    }

    /// The next round, of which only `len` bytes from `at` on are new.
    pub(crate) fn stamp_within(&mut self, at: usize, len: usize) {
        self.round += 1;
        for (page, at) in (0_u64..).zip((at..at + len).step_by(PAGE)) {
            let word = (self.round << 32 | page).to_le_bytes();
            let end = self.bytes.len().min(at + word.len());
            self.bytes[at..end].copy_from_slice(&word[..end - at]);
        }
    }
}

/// How long it takes.
pub(crate) fn timed(act: impl FnOnce()) -> Duration {
    let clock = SystemClock::new();
    act();
    clock.now()
}

/// The baseline: one thread, 256 KiB chunks each with a crc32, 1 MiB writes, no space reserved, one
/// sync at the end.
pub(crate) fn raw_log(path: &Path, bytes: &[u8]) {
    let mut file = File::create(path).unwrap();
    let mut buffer = Vec::with_capacity(MIB + 4096);
    for chunk in bytes.chunks(CHUNK) {
        buffer.extend_from_slice(&crc32fast::hash(chunk).to_le_bytes());
        buffer.extend_from_slice(chunk);
        if buffer.len() >= MIB {
            file.write_all(&buffer).unwrap();
            buffer.clear();
        }
    }
    file.write_all(&buffer).unwrap();
    file.sync_data().unwrap();
}

/// `raw_log` to a file that is there for the time of the write only.
pub(crate) fn time_raw_log(dir: &Path, bytes: &[u8]) -> Duration {
    let path = dir.join("raw.log");
    let time = timed(|| raw_log(&path, bytes));
    fs::remove_file(&path).unwrap();
    time
}

/// Reads to the end; the sink takes every byte and keeps none.
pub(crate) fn drain(buffer: &mut [u8], mut read: impl FnMut(&mut [u8]) -> usize) -> usize {
    let mut total = 0;
    loop {
        let len = read(buffer);
        if len == 0 {
            return total;
        }
        std::io::sink().write_all(black_box(&buffer[..len])).unwrap();
        total += len;
    }
}

/// Bytes that this process handed to the system so far, as Linux counts them. The log's length
/// would not do: it has space reserved ahead, and freed segments leave it.
pub(crate) fn written_bytes() -> u64 {
    let counts = fs::read_to_string("/proc/self/io").unwrap();
    let count = counts.lines().find_map(|line| line.strip_prefix("wchar: "));
    count.unwrap().parse().unwrap()
}

/// Times of a subject, each beside the time of its baseline just before: what disturbs the machine
/// disturbs both. Criterion sees the subject's times; the ratio is printed.
#[derive(Default)]
pub(crate) struct Pairs {
    speeds: Vec<f64>,
    written: Vec<f64>,
}

impl Pairs {
    /// One iteration: both, the subject's time.
    pub(crate) fn measure(
        &mut self,
        baseline: impl FnOnce() -> Duration,
        subject: impl FnOnce() -> Duration,
    ) -> Duration {
        let baseline = baseline();
        let before = written_bytes();
        let subject = subject();
        #[allow(clippy::cast_precision_loss, reason = "a ratio of a few digits")]
        self.written.push((written_bytes() - before) as f64);
        self.speeds.push(baseline.as_secs_f64() / subject.as_secs_f64());
        subject
    }

    /// Prints how fast the subject was, and the bytes that it wrote for each of `bytes`.
    pub(crate) fn print(&mut self, what: &str, baseline: &str, bytes: usize) {
        self.speeds.sort_by(f64::total_cmp);
        self.written.sort_by(f64::total_cmp);
        let (Some(low), Some(high)) = (self.speeds.first(), self.speeds.last()) else {
            return;
        };
        let (count, median) = (self.speeds.len(), self.speeds[self.speeds.len() / 2]);
        println!("{what}: {median:.2} times the speed of {baseline}");
        println!("    median of {count} pairs, {low:.2} to {high:.2}");
        #[allow(clippy::cast_precision_loss, reason = "a ratio of a few digits")]
        let written = self.written[count / 2] / bytes as f64;
        println!("    bytes written for each byte of state: {written:.4}");
    }
}

/// A bench whose iterations run the baseline, too, and time each apart.
pub(crate) fn paired(
    group: &mut BenchmarkGroup<'_, WallTime>,
    (name, parameter): (&str, impl Display),
    (baseline_name, bytes): (&str, usize),
    mut iteration: impl FnMut(&mut Pairs) -> Duration,
) {
    let mut pairs = Pairs::default();
    let id = BenchmarkId::new(name, &parameter);
    group.bench_function(id, |b| {
        b.iter_custom(|rounds| (0..rounds).map(|_| iteration(&mut pairs)).sum());
    });
    pairs.print(&format!("{name}/{parameter}"), baseline_name, bytes);
}
