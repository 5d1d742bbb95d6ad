//! Durations, sizes and rates as the spec writes them, each with its unit.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::word::{InvalidWord, schema_as_text, serde_as_text};

const TIME_SPAN: &str = "a duration such as 500ms, 15s, 5m, 4h or 35d";
const BYTE_SIZE: &str = "a size such as 512KiB, 64MiB or 2GiB";
const BYTE_RATE: &str = "a rate such as 200MiB/s";

/// Units of time in milliseconds, largest first.
const TIMES: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
/// Units of size in bytes, largest first.
const SIZES: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A length of time in whole milliseconds: `500ms`, `15s`, `5m`, `4h`, `35d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TimeSpan(u64);

impl TimeSpan {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// So many milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// So many seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// The milliseconds.
    pub fn millis(self) -> u64 {
        self.0
    }

    /// This and `more`, without overflow.
    #[must_use]
    pub fn saturating_add(self, more: Self) -> Self {
        Self(self.0.saturating_add(more.0))
    }

    /// For clocks and timers.
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zero = "0s";
        write_with_unit(formatter, self.0, &TIMES, zero)
    }
}

impl FromStr for TimeSpan {
    type Err = InvalidWord;

    fn from_str(text: &str) -> Result<Self, InvalidWord> {
        with_unit(text, &TIMES).map(Self).ok_or_else(|| InvalidWord::new(text, TIME_SPAN))
    }
}

serde_as_text!(TimeSpan);
schema_as_text!(
    TimeSpan,
    "TimeSpan",
    "A duration such as 500ms, 15s, 5m, 4h or 35d.",
    "^[0-9]+(ms|s|m|h|d)$"
);

/// A number of bytes: `64MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

impl fmt::Display for ByteSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_with_unit(formatter, self.0, &SIZES, "0B")
    }
}

impl FromStr for ByteSize {
    type Err = InvalidWord;

    fn from_str(text: &str) -> Result<Self, InvalidWord> {
        with_unit(text, &SIZES).map(Self).ok_or_else(|| InvalidWord::new(text, BYTE_SIZE))
    }
}

serde_as_text!(ByteSize);
schema_as_text!(
    ByteSize,
    "ByteSize",
    "A size such as 512KiB, 64MiB or 2GiB.",
    "^[0-9]+(B|KiB|MiB|GiB|TiB)$"
);

/// Bytes per second: `200MiB/s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteRate(pub u64);

impl fmt::Display for ByteRate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/s", ByteSize(self.0))
    }
}

impl FromStr for ByteRate {
    type Err = InvalidWord;

    fn from_str(text: &str) -> Result<Self, InvalidWord> {
        text.strip_suffix("/s")
            .and_then(|size| with_unit(size, &SIZES))
            .filter(|rate| *rate > 0)
            .map(Self)
            .ok_or_else(|| InvalidWord::new(text, BYTE_RATE))
    }
}

serde_as_text!(ByteRate);
schema_as_text!(ByteRate, "ByteRate", "A rate such as 200MiB/s.", "^[0-9]+(B|KiB|MiB|GiB|TiB)/s$");

/// Digits and one unit, nothing between; `None` also on overflow.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    digits.parse::<u64>().ok()?.checked_mul(*factor)
}

/// The largest unit that leaves a whole number.
fn write_with_unit(
    formatter: &mut fmt::Formatter<'_>,
    value: u64,
    units: &[(&str, u64)],
    zero: &str,
) -> fmt::Result {
    match units.iter().find(|(_, factor)| value.is_multiple_of(*factor)) {
        _ if value == 0 => formatter.write_str(zero),
        Some((unit, factor)) => write!(formatter, "{}{unit}", value / factor),
        None => write!(formatter, "{value}"),
    }
}

crate::reader::read_as_word! {
    TimeSpan = "a duration such as 500ms, 15s, 5m, 4h or 35d",
    ByteSize = "a size such as 512KiB, 64MiB or 2GiB",
    ByteRate = "a rate such as 200MiB/s",
}
