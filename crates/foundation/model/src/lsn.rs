//! Positions in the WAL.

use std::fmt;
use std::str::FromStr;

use crate::word::{InvalidWord, serde_as_text};

/// A position in the WAL, printed as PostgreSQL does: `0/16B3740`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The first position; PostgreSQL calls it invalid.
    pub const ZERO: Self = Self(0);
    /// The last position.
    pub const MAX: Self = Self(u64::MAX);

    /// This position and `bytes` more, if there is one.
    pub fn checked_add(self, bytes: u64) -> Option<Self> {
        self.0.checked_add(bytes).map(Self)
    }

    /// Bytes from `earlier` to here; zero if it is later.
    pub fn distance_from(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = InvalidWord;

    fn from_str(text: &str) -> Result<Self, InvalidWord> {
        let half = |digits: &str| {
            let plain = (1..=8).contains(&digits.len())
                && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Self(half(high)? << 32 | half(low)?)))
            .ok_or_else(|| InvalidWord::new(text, "an LSN such as 0/16B3740"))
    }
}

serde_as_text!(Lsn);

/// A timeline: it grows with each promotion, and starts at 1.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Timeline(pub u32);

impl Timeline {
    /// The timeline of a new cluster.
    pub const FIRST: Self = Self(1);
}

impl fmt::Display for Timeline {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// What `initdb` gave a cluster and all its copies. Text in JSON, for it exceeds 2^53.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemIdentifier(pub u64);

impl fmt::Display for SystemIdentifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl FromStr for SystemIdentifier {
    type Err = InvalidWord;

    fn from_str(text: &str) -> Result<Self, InvalidWord> {
        let plain = text.bytes().all(|digit| digit.is_ascii_digit());
        plain
            .then(|| text.parse().ok().map(Self))
            .flatten()
            .ok_or_else(|| InvalidWord::new(text, "a system identifier (a decimal number)"))
    }
}

serde_as_text!(SystemIdentifier);
