//! Names of the files that PostgreSQL hands to its archive.

use std::fmt;
use std::str::FromStr;

use crate::word::{InvalidWord, serde_as_text};
use crate::{Lsn, Timeline};

const SEGMENT_NAME: &str = "the name of a WAL segment (24 hexadecimal digits)";
const WAL_FILE_NAME: &str = "the name of a WAL segment, or of a .partial, .history or .backup file";

/// A cluster's `wal_segment_size`: a power of two from 1 MiB to 1 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentSize(u32);

impl SegmentSize {
    /// What `initdb` uses unless told otherwise.
    pub const DEFAULT: Self = Self(16 << 20);

    /// The size, if PostgreSQL allows it.
    pub fn new(bytes: u64) -> Option<Self> {
        let allowed = (1 << 20..=1 << 30).contains(&bytes) && bytes.is_power_of_two();
        allowed.then(|| u32::try_from(bytes).ok().map(Self)).flatten()
    }

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        u64::from(self.0)
    }

    /// Segments with the same first half of the number: 4 GiB hold so many.
    fn per_log(self) -> u64 {
        (1 << 32) / self.bytes()
    }

    /// The number of the segment that holds `lsn`.
    pub fn number_of(self, lsn: Lsn) -> u64 {
        lsn.0 / self.bytes()
    }

    /// Where `lsn` lies in its segment.
    pub fn offset_of(self, lsn: Lsn) -> u64 {
        lsn.0 % self.bytes()
    }
}

/// The name of a segment; it means a position only together with the segment size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    timeline: Timeline,
    log: u32,
    segment: u32,
}

impl SegmentName {
    /// The segment `number` of a timeline; `None` past the last one there can be.
    pub fn new(timeline: Timeline, number: u64, size: SegmentSize) -> Option<Self> {
        let log = u32::try_from(number / size.per_log()).ok()?;
        let segment = u32::try_from(number % size.per_log()).ok()?;
        Some(Self { timeline, log, segment })
    }

    /// The segment that holds the byte at `lsn`.
    pub fn from_lsn(timeline: Timeline, lsn: Lsn, size: SegmentSize) -> Self {
        let log = (lsn.0 >> 32) as u32;
        let segment = ((lsn.0 & 0xFFFF_FFFF) / size.bytes()) as u32;
        Self { timeline, log, segment }
    }

    /// The timeline.
    pub fn timeline(self) -> Timeline {
        self.timeline
    }

    /// Whether a cluster with this segment size can have made the name.
    pub fn fits(self, size: SegmentSize) -> bool {
        u64::from(self.segment) < size.per_log()
    }

    /// The segment's number, counted over all positions. Meaningless unless the name fits.
    pub fn number(self, size: SegmentSize) -> u64 {
        u64::from(self.log) * size.per_log() + u64::from(self.segment)
    }

    /// The first position in the segment; `None` if the name does not fit the size.
    pub fn start(self, size: SegmentSize) -> Option<Lsn> {
        self.fits(size)
            .then(|| Lsn((u64::from(self.log) << 32) | (u64::from(self.segment) * size.bytes())))
    }

    /// The segment after this one on the same timeline.
    pub fn next(self, size: SegmentSize) -> Option<Self> {
        Self::new(self.timeline, self.number(size).checked_add(1)?, size)
    }

    /// The same positions on another timeline.
    #[must_use]
    pub fn on(self, timeline: Timeline) -> Self {
        Self { timeline, ..self }
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:08X}{:08X}{:08X}", self.timeline.0, self.log, self.segment)
    }
}

impl FromStr for SegmentName {
    type Err = InvalidWord;

    fn from_str(text: &str) -> Result<Self, InvalidWord> {
        let part = |from: usize| text.get(from..from + 8).and_then(hexadecimal);
        let parts = (part(0), part(8), part(16));
        match parts {
            (Some(timeline), Some(log), Some(segment)) if text.len() == 24 && timeline > 0 => {
                Ok(Self { timeline: Timeline(timeline), log, segment })
            }
            _ => Err(InvalidWord::new(text, SEGMENT_NAME)),
        }
    }
}

serde_as_text!(SegmentName);

/// A file that `archive_command` or `restore_command` may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WalFileName {
    /// A whole segment.
    Segment(SegmentName),
    /// The last, incomplete segment of a timeline that ended (`.partial`).
    Partial(SegmentName),
    /// The history of a timeline (`.history`).
    History(Timeline),
    /// The label that PostgreSQL leaves of a base backup (`.backup`).
    Backup {
        /// The segment in which the backup starts.
        segment: SegmentName,
        /// Where in that segment.
        offset: u32,
    },
}

impl fmt::Display for WalFileName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(name) => name.fmt(formatter),
            Self::Partial(name) => write!(formatter, "{name}.partial"),
            Self::History(timeline) => write!(formatter, "{:08X}.history", timeline.0),
            Self::Backup { segment, offset } => write!(formatter, "{segment}.{offset:08X}.backup"),
        }
    }
}

impl FromStr for WalFileName {
    type Err = InvalidWord;

    fn from_str(text: &str) -> Result<Self, InvalidWord> {
        let invalid = || InvalidWord::new(text, WAL_FILE_NAME);
        let segment = |name: &str| name.parse().map_err(|_| invalid());
        if let Some(name) = text.strip_suffix(".partial") {
            return Ok(Self::Partial(segment(name)?));
        }
        if let Some(name) = text.strip_suffix(".history") {
            let timeline = hexadecimal(name).filter(|timeline| *timeline > 0);
            return Ok(Self::History(Timeline(timeline.ok_or_else(invalid)?)));
        }
        if let Some(name) = text.strip_suffix(".backup") {
            let (name, offset) = name.split_once('.').ok_or_else(invalid)?;
            let offset = hexadecimal(offset).ok_or_else(invalid)?;
            return Ok(Self::Backup { segment: segment(name)?, offset });
        }
        Ok(Self::Segment(segment(text)?))
    }
}

serde_as_text!(WalFileName);

/// Eight digits as PostgreSQL writes them: lower case would name another file.
fn hexadecimal(digits: &str) -> Option<u32> {
    let plain =
        digits.len() == 8 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'A'..=b'F'));
    plain.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}
