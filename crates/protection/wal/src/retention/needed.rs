//! From where on each timeline backups need WAL.

use std::collections::BTreeMap;

use lifeboat_model::{Lsn, SegmentSize, Timeline};
use lifeboat_repository::wal_file::Ancestor;

/// The ancestors of each timeline whose history is known.
pub type Histories = BTreeMap<Timeline, Vec<Ancestor>>;

/// The first segment that is needed of each timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    from: BTreeMap<Timeline, u64>,
    histories: Histories,
    /// The oldest timeline with a backup.
    oldest: Timeline,
}

impl Needed {
    /// What backups that start at these positions need: all that follows on their own timeline and
    /// on each that branched off behind them. `None` without any backup: then nothing is known to
    /// be superfluous.
    pub fn by(starts: &[(Timeline, Lsn)], histories: Histories, size: SegmentSize) -> Option<Self> {
        let mut from = BTreeMap::new();
        let mut need = |timeline: Timeline, position: Lsn| {
            let number = size.number_of(position);
            let first = from.entry(timeline).or_insert(number);
            *first = number.min(*first);
        };
        for (own, start) in starts {
            need(*own, *start);
            for (timeline, ancestors) in &histories {
                let behind = |one: &Ancestor| one.timeline == *own && one.end >= *start;
                if let (true, Some(parent)) = (ancestors.iter().any(behind), ancestors.last()) {
                    need(*timeline, parent.end);
                }
            }
        }
        let oldest = starts.iter().map(|(timeline, _)| *timeline).min()?;
        Some(Self { from, histories, oldest })
    }

    /// Whether a backup needs this segment, or might need it.
    pub fn contains(&self, timeline: Timeline, number: u64) -> bool {
        match self.from.get(&timeline) {
            Some(first) => number >= *first,
            // A younger timeline of unknown origin may well descend from a backup.
            None => timeline > self.oldest && !self.histories.contains_key(&timeline),
        }
    }

    /// The first segment that is needed of each timeline, by its number.
    pub fn first(&self) -> impl Iterator<Item = (Timeline, u64)> {
        self.from.iter().map(|(timeline, number)| (*timeline, *number))
    }
}
