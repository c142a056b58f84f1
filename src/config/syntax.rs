//! Values as Flink writes them: `10 s`, `20 kb`, `true`.

use crate::error::{Error, Result};

const NS_PER_MS: u128 = 1_000_000;

/// Nanoseconds in each unit of time, by every spelling, in lower case.
const TIME_UNITS: [(&[&str], u128); 7] = [
    (&["d", "day", "days"], 24 * 60 * 60 * 1000 * NS_PER_MS),
    (&["h", "hour", "hours"], 60 * 60 * 1000 * NS_PER_MS),
    (&["min", "m", "minute", "minutes"], 60 * 1000 * NS_PER_MS),
    (&["s", "sec", "secs", "second", "seconds"], 1000 * NS_PER_MS),
    (&["", "ms", "milli", "millis", "millisecond", "milliseconds"], NS_PER_MS),
    (&["\u{b5}s", "micro", "micros", "microsecond", "microseconds"], 1000),
    (&["ns", "nano", "nanos", "nanosecond", "nanoseconds"], 1),
];

/// Bytes in each unit of size, by every spelling, in lower case.
const SIZE_UNITS: [(&[&str], u128); 5] = [
    (&["", "b", "bytes"], 1),
    (&["k", "kb", "kibibytes"], 1 << 10),
    (&["m", "mb", "mebibytes"], 1 << 20),
    (&["g", "gb", "gibibytes"], 1 << 30),
    (&["t", "tb", "tebibytes"], 1 << 40),
];

/// A time in whole milliseconds, rounded down; a plain number is milliseconds.
pub(super) fn millis(text: &str) -> Result<i64> {
    let ns = quantity(text, &TIME_UNITS, "a time such as 10 s, 500 ms, 1 min or 2 h")?;
    i64::try_from(ns / NS_PER_MS)
        .map_err(|_| Error::invalid(format!("{text:?} is longer than any time can be set to")))
}

/// A size in bytes; a plain number is bytes, and every unit a power of 1024.
pub(super) fn bytes(text: &str) -> Result<i32> {
    let bytes = quantity(text, &SIZE_UNITS, "a size such as 4096, 20 kb or 1 mb")?;
    i32::try_from(bytes).map_err(|_| Error::invalid(format!("{text:?} is more than 2 gb")))
}

/// A size in bytes that may be larger than 2 GiB.
pub(super) fn long_bytes(text: &str) -> Result<i64> {
    let bytes = quantity(text, &SIZE_UNITS, "a size such as 4096, 20 kb or 100 gb")?;
    i64::try_from(bytes).map_err(|_| Error::invalid(format!("{text:?} is more than any store")))
}

/// A whole number.
pub(super) fn count(text: &str) -> Result<i32> {
    text.trim().parse().map_err(|_| {
        let (least, most) = (i32::MIN, i32::MAX);
        Error::invalid(format!("{text:?} is not a whole number from {least} to {most}"))
    })
}

/// `true` or `false` in any case.
pub(super) fn flag(text: &str) -> Result<bool> {
    match text.trim() {
        word if word.eq_ignore_ascii_case("true") => Ok(true),
        word if word.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err(Error::invalid(format!("{text:?} is neither true nor false"))),
    }
}

fn quantity(text: &str, units: &[(&[&str], u128)], what: &str) -> Result<u128> {
    let refuse = || Error::invalid(format!("{text:?} is not {what}"));
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let number: u64 = number.parse().map_err(|_| refuse())?;
    let unit = unit.trim_start().to_lowercase();
    let (_, factor) =
        units.iter().find(|(names, _)| names.contains(&unit.as_str())).ok_or_else(refuse)?;
    // A u64 times a day in nanoseconds stays below 2^111.
    Ok(u128::from(number).saturating_mul(*factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_flink_writes_them() {
        for (text, ms) in [
            ("10 s", 10_000),
            ("500ms", 500),
            ("1 min", 60_000),
            ("2 h", 7_200_000),
            ("3", 3),
            (" 1 D ", 86_400_000),
            ("2 secs", 2_000),
            ("1500 \u{b5}s", 1),
            ("999999 ns", 0),
            ("0", 0),
        ] {
            assert_eq!(millis(text).unwrap(), ms, "{text:?}");
        }
        for text in ["", "s", "-1 s", "1.5 s", "10 parsecs", "2 mins", "1 s 2", "99999999999999 d"]
        {
            assert!(millis(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes_are_read_as_flink_writes_them() {
        for (text, size) in [
            ("4096", 4096),
            ("20kb", 20_480),
            ("1 mb", 1 << 20),
            ("7 Bytes", 7),
            ("1 kibibytes", 1024),
        ] {
            assert_eq!(bytes(text).unwrap(), size, "{text:?}");
        }
        for text in ["", "kb", "-1", "1 kib", "2 gb", "99999999999999999999"] {
            assert!(bytes(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_flag_and_a_count_are_nothing_else() {
        assert!(flag("TRUE").unwrap() && !flag(" false").unwrap());
        assert_eq!(count(" -5 ").unwrap(), -5);
        assert!(flag("yes").is_err() && count("1.0").is_err() && count("2147483648").is_err());
    }
}
