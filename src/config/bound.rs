//! The bound of each option, written once: setters and reading back share it.

use crate::error::{Error, Result};

/// The shortest checkpoint interval and timeout.
const MINIMAL_CHECKPOINT_TIME_MS: i64 = 10;

/// The largest inline threshold.
const INLINE_THRESHOLD_MAX: i32 = 1024 * 1024;

fn at_least<T: Copy + PartialOrd + std::fmt::Display>(
    what: &str,
    value: T,
    least: T,
    unit: &str,
) -> Result<T> {
    if value < least {
        return Err(Error::invalid(format!(
            "the {what} must be at least {least}{unit}, not {value}{unit}"
        )));
    }
    Ok(value)
}

pub(super) fn interval(ms: i64) -> Result<i64> {
    at_least("checkpoint interval", ms, MINIMAL_CHECKPOINT_TIME_MS, " ms")
}

pub(super) fn interval_during_backlog(ms: i64) -> Result<i64> {
    if ms == 0 {
        return Ok(0);
    }
    let what = "checkpoint interval during backlog, unless it is 0,";
    at_least(what, ms, MINIMAL_CHECKPOINT_TIME_MS, " ms")
}

pub(super) fn timeout(ms: i64) -> Result<i64> {
    at_least("checkpoint timeout", ms, MINIMAL_CHECKPOINT_TIME_MS, " ms")
}

pub(super) fn min_pause(ms: i64) -> Result<i64> {
    at_least("minimum pause between checkpoints", ms, 0, " ms")
}

pub(super) fn max_concurrent(count: i32) -> Result<i32> {
    at_least("maximum number of concurrent checkpoints", count, 1, "")
}

pub(super) fn tolerable_failures(count: i32) -> Result<i32> {
    at_least("tolerable number of failed checkpoints", count, 0, "")
}

pub(super) fn retained_max_age(ms: i64) -> Result<i64> {
    at_least("greatest age of a retained checkpoint", ms, 1, " ms")
}

pub(super) fn retained_max_bytes(bytes: i64) -> Result<i64> {
    at_least("most bytes of retained checkpoints", bytes, 1, " bytes")
}

pub(super) fn alignment_timeout(ms: i64) -> Result<i64> {
    at_least("alignment timeout", ms, 0, " ms")
}

pub(super) fn data_inline_threshold(bytes: i32) -> Result<i32> {
    if bytes > INLINE_THRESHOLD_MAX {
        return Err(Error::invalid(format!(
            "the inline threshold must be at most {INLINE_THRESHOLD_MAX} bytes, not {bytes}"
        )));
    }
    at_least("inline threshold", bytes, 0, " bytes")
}

pub(super) fn write_buffer_size(bytes: i32) -> Result<i32> {
    at_least("write buffer size", bytes, 0, " bytes")
}
