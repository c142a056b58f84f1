//! How reports look to people: aligned columns, sizes, times.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

const MS_PER_DAY: u64 = 24 * 60 * 60 * 1000;

/// Rows under a line of column names; numbers stand to the right.
pub(super) struct Table {
    indent: usize,
    columns: Vec<(&'static str, Side)>,
    rows: Vec<Vec<String>>,
}

/// The side at which the cells of a column end up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

impl Table {
    pub(super) fn new(indent: usize, columns: &[(&'static str, Side)]) -> Self {
        Self { indent, columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row with one cell for each column.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    fn line<'a>(
        &self,
        f: &mut fmt::Formatter<'_>,
        widths: &[usize],
        cells: impl Iterator<Item = &'a str>,
    ) -> fmt::Result {
        let mut line = " ".repeat(self.indent);
        for (cell, (width, (_, side))) in cells.zip(widths.iter().zip(&self.columns)) {
            match side {
                Side::Left => write!(line, "{cell:<width$}  ")?,
                Side::Right => write!(line, "{cell:>width$}  ")?,
            }
        }
        writeln!(f, "{}", line.trim_end())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths: Vec<_> = self.columns.iter().map(|(name, _)| name.len()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        self.line(f, &widths, self.columns.iter().map(|(name, _)| *name))?;
        self.rows.iter().try_for_each(|row| self.line(f, &widths, row.iter().map(String::as_str)))
    }
}

/// Text from a store, which must not move the cursor of a terminal.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.into() };
    Cow::Owned(text.chars().map(escape).collect())
}

/// `1 place`, `2 places`.
pub(super) fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// `999 B`, `1.2 KiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit_bytes = 1024_u128;
    let mut name = "KiB";
    for larger in UNITS.iter().skip(1) {
        if u128::from(bytes) < unit_bytes * 1024 {
            break;
        }
        unit_bytes *= 1024;
        name = larger;
    }
    let tenths = u128::from(bytes) * 10 / unit_bytes;
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

/// `999 ms`, `12.3 s`.
pub(super) fn duration(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{ms} ms"),
        _ => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
    }
}

/// A wall time in UTC, from milliseconds since 1970.
pub(super) fn time(ms: u64) -> String {
    let (days, in_day) = (ms / MS_PER_DAY, ms % MS_PER_DAY);
    let (year, month, day) = date(days);
    let (seconds, ms) = (in_day / 1000, in_day % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Year, month and day of the Gregorian calendar, from days since 1970.
///
/// Counts in years that begin in March, so that the leap day is the last of its year, and in eras of
/// 400 years, which all have 146097 days.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let leap_days = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
    // A leap day taken off for each four years, given back for each hundred, off for each 400.
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let (month, next_year) =
        if month_from_march < 10 { (month_from_march + 3, 0) } else { (month_from_march - 9, 1) };
    (era * 400 + year_of_era + next_year, month, day)
}
