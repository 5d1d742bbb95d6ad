//! Where in the WAL a moment or a named point lies.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lifeboat_model::{Lsn, SegmentName, Timeline};
use lifeboat_repository::wal_file::{RestorePoint, WalFacts};
use lifeboat_telemetry::Outcome;
use serde::Serialize;

use super::inventory::Inventory;

/// A segment and what it says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Located {
    /// The segment.
    pub segment: SegmentName,
    /// Where it starts.
    pub start: Lsn,
    /// Time of its first commit.
    pub first_commit: Option<Timestamp>,
    /// Time of its last commit.
    pub last_commit: Option<Timestamp>,
}

impl Inventory<'_> {
    /// The segments that lead to the end of a timeline, along its history, oldest first.
    pub fn lineage(&self, timeline: Timeline) -> Vec<SegmentName> {
        let ancestors = self.ancestors(timeline).unwrap_or_default();
        let ends = ancestors.iter().map(|ancestor| (ancestor.timeline, Some(ancestor.end)));
        let mut names = Vec::new();
        let mut start = Lsn::ZERO;
        for (timeline, end) in ends.chain([(timeline, None)]) {
            let segments = self.timelines.get(&timeline).into_iter().flatten();
            let numbers = segments.map(|(number, _)| *number);
            let first = self.size.number_of(start);
            // The segment in which the successor begins is the successor's.
            let within = |number: &u64| {
                *number >= first && end.is_none_or(|end| *number < self.size.number_of(end))
            };
            names.extend(
                numbers
                    .filter(within)
                    .filter_map(|number| SegmentName::new(timeline, number, self.size)),
            );
            start = end.unwrap_or(start);
        }
        names
    }

    /// The first segment on the way to the end of `timeline` in which a transaction committed at
    /// `time` or later; `None` if `time` lies behind everything that is stored. Reads about as
    /// many heads as the number of segments has binary digits.
    pub fn locate(&self, timeline: Timeline, time: Timestamp) -> Outcome<Option<Located>> {
        let lineage = self.lineage(timeline);
        let mut heads = Heads { inventory: self, lineage: &lineage, known: BTreeMap::new() };
        let (mut low, mut high) = (0, lineage.len());
        let mut found = None;
        while low < high {
            let middle = low + (high - low) / 2;
            // Segments without commits say nothing: the next one with some speaks for them.
            match heads.first_with_commit(middle, high)? {
                Some((at, last)) if last < time => low = at + 1,
                Some((at, _)) => (found, high) = (Some(at), middle),
                None => high = middle,
            }
        }
        let Some(at) = found else { return Ok(None) };
        let (Some(segment), facts) = (lineage.get(at).copied(), heads.facts(at)?) else {
            return Ok(None);
        };
        Ok(Some(Located {
            segment,
            start: segment.start(self.size).unwrap_or_default(),
            first_commit: facts.first_commit_us.and_then(instant),
            last_commit: facts.last_commit_us.and_then(instant),
        }))
    }

    /// Every point of that name on the way to the end of `timeline`, oldest first. Reads every
    /// head, newest first, down to `since`.
    pub fn restore_points(
        &self,
        timeline: Timeline,
        name: &str,
        since: Lsn,
    ) -> Outcome<Vec<(SegmentName, RestorePoint)>> {
        let mut points = Vec::new();
        for segment in self.lineage(timeline).into_iter().rev() {
            let number = segment.number(self.size);
            if number < self.size.number_of(since) {
                break;
            }
            let facts = self.facts(segment.timeline(), number)?;
            let named = facts.restore_points.into_iter().rev();
            let named = named.filter(|point| point.name == name && point.lsn >= since);
            points.extend(named.map(|point| (segment, point)));
        }
        points.reverse();
        Ok(points)
    }
}

/// Heads that were read, for a search that comes back to them.
struct Heads<'a> {
    inventory: &'a Inventory<'a>,
    lineage: &'a [SegmentName],
    known: BTreeMap<usize, WalFacts>,
}

impl Heads<'_> {
    fn facts(&mut self, at: usize) -> Outcome<WalFacts> {
        if let Some(facts) = self.known.get(&at) {
            return Ok(facts.clone());
        }
        let Some(name) = self.lineage.get(at) else {
            return Ok(WalFacts::default());
        };
        let facts = self.inventory.facts(name.timeline(), name.number(self.inventory.size))?;
        self.known.insert(at, facts.clone());
        Ok(facts)
    }

    /// The first segment from `at` on, before `end`, with a commit, and the time of its last one.
    fn first_with_commit(&mut self, at: usize, end: usize) -> Outcome<Option<(usize, Timestamp)>> {
        for at in at..end {
            if let Some(last) = self.facts(at)?.last_commit_us.and_then(instant) {
                return Ok(Some((at, last)));
            }
        }
        Ok(None)
    }
}

fn instant(micros: i64) -> Option<Timestamp> {
    Timestamp::from_microsecond(micros).ok()
}
