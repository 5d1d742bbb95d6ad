//! What happened, in order, and one number over all of it.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// Lines that are kept; the hash is over all.
const KEPT: usize = 4000;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When, in true time.
    pub at: Duration,
    /// To whom.
    pub who: String,
    /// What.
    pub what: String,
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:>9.4}  {:<18} {}", self.at.as_secs_f64(), self.who, self.what)
    }
}

/// The history of one run.
#[derive(Debug, Default)]
pub struct History {
    hasher: blake3::Hasher,
    lines: VecDeque<Line>,
}

impl History {
    /// Something that a person wants to read.
    pub fn note(&mut self, at: Duration, who: &str, what: String) {
        self.hasher.update(who.as_bytes());
        self.hasher.update(what.as_bytes());
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(Line { at, who: who.to_owned(), what });
    }

    /// Something that only counts for the hash: a step of a task, a timer.
    pub fn mix(&mut self, at: u64, what: u64) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&at.to_le_bytes());
        bytes[8..].copy_from_slice(&what.to_le_bytes());
        self.hasher.update(&bytes);
    }

    /// The same seed and the same code give the same number.
    pub fn hash(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }

    /// The newest lines.
    pub fn lines(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter()
    }
}
