//! Two words that only the spec uses: a schedule and a compression.

use std::fmt;
use std::str::FromStr;

use crate::word::{InvalidWord, schema_as_text};

const SCHEDULE: &str = "a schedule in five cron fields such as \"0 2 * * *\" (UTC)";
const COMPRESSION: &str = "a compression: zstd-1 to zstd-19, or none";

/// A schedule in five cron fields, in UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule(String);

impl FromStr for Schedule {
    type Err = InvalidWord;

    fn from_str(text: &str) -> Result<Self, InvalidWord> {
        let valid = text.len() <= 200
            && text.split_whitespace().count() == 5
            && text.parse::<croner::Cron>().is_ok();
        valid.then(|| Self(text.to_owned())).ok_or_else(|| InvalidWord::new(text, SCHEDULE))
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

schema_as_text!(
    Schedule,
    "Schedule",
    "Five cron fields in UTC, such as \"0 2 * * *\".",
    r"^\S+( +\S+){4}$"
);

/// How frames are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    None,
    /// zstd at this level.
    Zstd(u8),
}

impl Default for Compression {
    fn default() -> Self {
        Self::Zstd(1)
    }
}

impl FromStr for Compression {
    type Err = InvalidWord;

    fn from_str(text: &str) -> Result<Self, InvalidWord> {
        if text == "none" {
            return Ok(Self::None);
        }
        let level = text.strip_prefix("zstd-").filter(|level| !level.starts_with(['0', '+']));
        level
            .and_then(|level| level.parse().ok())
            .filter(|level| (1..=19).contains(level))
            .map(Self::Zstd)
            .ok_or_else(|| InvalidWord::new(text, COMPRESSION))
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => formatter.write_str("none"),
            Self::Zstd(level) => write!(formatter, "zstd-{level}"),
        }
    }
}

schema_as_text!(
    Compression,
    "Compression",
    "zstd-1 to zstd-19, or none.",
    "^(none|zstd-(1[0-9]|[1-9]))$"
);

crate::reader::read_as_word! {
    Schedule = "a schedule as text",
    Compression = "a compression as text",
}
