//! Which positions of a timeline are there: disjoint spans, kept merged.

use std::collections::BTreeMap;

use lifeboat_model::Lsn;

/// A set of positions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spans(BTreeMap<Lsn, Lsn>);

impl Spans {
    /// Adds the positions from `start` up to, not including, `end`.
    pub fn insert(&mut self, start: Lsn, end: Lsn) {
        if start >= end {
            return;
        }
        let (mut start, mut end) = (start, end);
        // Spans that overlap or touch become one; only the last one that begins before can.
        while let Some((&other_start, &other_end)) = self.0.range(..=end).next_back() {
            if other_end < start {
                break;
            }
            self.0.remove(&other_start);
            start = start.min(other_start);
            end = end.max(other_end);
        }
        self.0.insert(start, end);
    }

    /// The first position at or behind `lsn` that is not there.
    pub fn end_from(&self, lsn: Lsn) -> Lsn {
        let before = self.0.range(..=lsn).next_back();
        before.map_or(lsn, |(_, end)| lsn.max(*end))
    }

    /// Whether every position from `start` up to, not including, `end` is there.
    pub fn covers(&self, start: Lsn, end: Lsn) -> bool {
        self.end_from(start) >= end
    }

    /// The spans, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (Lsn, Lsn)> {
        self.0.iter().map(|(start, end)| (*start, *end))
    }

    /// What is missing from `start` up to the last position that is there.
    pub fn holes_from(&self, start: Lsn) -> Vec<(Lsn, Lsn)> {
        let mut holes = Vec::new();
        let mut next = start;
        for (from, to) in self.iter().filter(|(_, to)| *to > start) {
            if next < from {
                holes.push((next, from));
            }
            next = to;
        }
        holes
    }

    /// The position behind the last one.
    pub fn last(&self) -> Option<Lsn> {
        self.0.last_key_value().map(|(_, end)| *end)
    }
}

#[cfg(test)]
mod tests;
