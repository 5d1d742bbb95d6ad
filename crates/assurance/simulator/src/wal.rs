//! WAL, as far as moving a service needs it: a list of records, each unlike any other.

use jiff::Timestamp;
use lifeboat_model::{Lsn, Timeline};

/// Where the first record begins, and how long each one is.
const BASE: u64 = 0x0300_0000;
const STEP: u64 = 0x100;

/// A record. Its id is never given twice, so two logs that hold it are equal up to there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// What tells it from all others.
    pub id: u64,
    /// The timeline that it was written on.
    pub timeline: u32,
    /// When it was written, by the writer's wall clock; none if it commits nothing.
    pub at: Option<Timestamp>,
}

/// The WAL from the beginning of the cluster on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    records: Vec<Record>,
}

/// A place in a log: how many records are before it, and the last of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    /// How many records.
    pub length: usize,
    /// The last one's id; 0 if there is none.
    pub id: u64,
}

impl Log {
    /// How many records it has.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Its end.
    pub fn tip(&self) -> Tip {
        Tip { length: self.len(), id: self.records.last().map_or(0, |record| record.id) }
    }

    /// The timeline of its end.
    pub fn timeline(&self) -> u32 {
        self.records.last().map_or(1, |record| record.timeline)
    }

    /// Whether it goes through this place.
    pub fn passes(&self, tip: Tip) -> bool {
        match tip.length.checked_sub(1) {
            None => true,
            Some(last) => self.records.get(last).is_some_and(|record| record.id == tip.id),
        }
    }

    /// Up to where two logs are equal.
    pub fn common(&self, other: &Self) -> usize {
        let equal = |(mine, theirs): &(&Record, &Record)| mine.id == theirs.id;
        self.records.iter().zip(&other.records).take_while(equal).count()
    }

    /// At most `most` records behind a place.
    pub fn after(&self, length: usize, most: usize) -> Vec<Record> {
        self.records.iter().skip(length).take(most).copied().collect()
    }

    /// Adds a record.
    pub fn push(&mut self, record: Record) {
        self.records.push(record);
    }

    /// Adds records that follow on a place; whether they did.
    pub fn extend_from(&mut self, from: Tip, records: &[Record]) -> bool {
        let fits = from == self.tip();
        if fits {
            self.records.extend_from_slice(records);
        }
        fits
    }

    /// Cuts it off.
    pub fn truncate(&mut self, length: usize) {
        self.records.truncate(length);
    }

    /// Whether it holds a record.
    pub fn holds(&self, id: u64) -> bool {
        self.records.iter().any(|record| record.id == id)
    }

    /// Its records.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Where its newest timeline begins.
    pub fn fork(&self) -> usize {
        let newest = self.timeline();
        self.records.iter().rposition(|record| record.timeline != newest).map_or(0, |last| last + 1)
    }
}

/// The LSN behind so many records.
pub fn lsn(length: usize) -> Lsn {
    Lsn(BASE + STEP * length as u64)
}

/// How many records lie before an LSN.
pub fn length(lsn: Lsn) -> usize {
    usize::try_from(lsn.0.saturating_sub(BASE).div_ceil(STEP)).unwrap_or(usize::MAX)
}

/// A timeline's number.
pub fn timeline(number: u32) -> Timeline {
    Timeline(number)
}
