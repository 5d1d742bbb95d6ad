//! Where in the WAL a moment or a named point lies.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lifeboat_model::{Lsn, SegmentName, SegmentSize, Timeline};
use lifeboat_repository::fragment::FragmentName;
use lifeboat_repository::wal_file::{RestorePoint, WalFacts};
use lifeboat_telemetry::Outcome;
use serde::Serialize;

use super::inventory::Inventory;
use crate::coverage::{Leg, bounds};

/// An object with WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A whole segment.
    Segment(SegmentName),
    /// A part of one that no object holds as a whole.
    Fragment(FragmentName),
}

impl Piece {
    /// The first position, and the one behind the last.
    pub(crate) fn span(&self, size: SegmentSize) -> (Timeline, Lsn, Lsn) {
        match self {
            Self::Segment(name) => {
                let (start, end) = bounds(name.number(size), size).unwrap_or_default();
                (name.timeline(), start, end)
            }
            Self::Fragment(name) => (name.timeline, name.start, name.end),
        }
    }
}

/// A piece of WAL and what it says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Located {
    /// The segment.
    pub segment: SegmentName,
    /// Where the piece starts: with the segment, or within it where that is not whole yet.
    pub start: Lsn,
    /// Where it ends.
    pub end: Lsn,
    /// Time of its first commit.
    pub first_commit: Option<Timestamp>,
    /// Time of its last commit.
    pub last_commit: Option<Timestamp>,
}

impl Inventory<'_> {
    /// The objects that hold a segment, in order.
    pub(super) fn pieces(&self, timeline: Timeline, number: u64) -> Vec<Piece> {
        if self.coverage.has_segment(timeline, number) {
            let name = SegmentName::new(timeline, number, self.size);
            return name.map(Piece::Segment).into_iter().collect();
        }
        let assembly = self.coverage.assembly(timeline, number);
        assembly.into_iter().flat_map(|one| one.pieces).map(Piece::Fragment).collect()
    }

    pub(super) fn piece_facts(&self, piece: &Piece) -> Outcome<WalFacts> {
        match piece {
            Piece::Segment(name) => self.facts(name.timeline(), name.number(self.size)),
            Piece::Fragment(name) => self.fragment_facts(name),
        }
    }

    /// The objects that lead to the end of a timeline, along its history, oldest first.
    pub(crate) fn lineage(&self, timeline: Timeline) -> Vec<Piece> {
        let mut by_number: BTreeMap<u64, Vec<Piece>> = BTreeMap::new();
        for Leg { timeline, start, end } in self.coverage.way(timeline) {
            let first = self.size.number_of(start);
            let last = end.map_or(u64::MAX, |end| self.size.number_of(end));
            for number in self.coverage.numbers(timeline, first, last) {
                // The segment in which the successor begins is the successor's, if it has it.
                by_number.insert(number, self.pieces(timeline, number));
            }
        }
        by_number.into_values().flatten().collect()
    }

    /// The first piece on the way to the end of `timeline` in which a transaction committed at
    /// `time` or later; `None` if `time` lies behind everything that is stored. Reads about as
    /// many heads as the number of pieces has binary digits.
    pub fn locate(&self, timeline: Timeline, time: Timestamp) -> Outcome<Option<Located>> {
        let lineage = self.lineage(timeline);
        let mut heads = Heads { inventory: self, lineage: &lineage, known: BTreeMap::new() };
        let (mut low, mut high) = (0, lineage.len());
        let mut found = None;
        while low < high {
            let middle = low + (high - low) / 2;
            // Pieces without commits say nothing: the next one with some speaks for them.
            match heads.first_with_commit(middle, high)? {
                Some((at, last)) if last < time => low = at + 1,
                Some((at, _)) => (found, high) = (Some(at), middle),
                None => high = middle,
            }
        }
        let Some(at) = found else { return Ok(None) };
        let (Some(piece), facts) = (lineage.get(at), heads.facts(at)?) else {
            return Ok(None);
        };
        let (timeline, start, end) = piece.span(self.size);
        Ok(Some(Located {
            segment: SegmentName::from_lsn(timeline, start, self.size),
            start,
            end,
            first_commit: facts.first_commit_us.and_then(instant),
            last_commit: facts.last_commit_us.and_then(instant),
        }))
    }

    /// Every point of that name on the way to the end of `timeline`, oldest first. Reads every
    /// head, newest first, down to the segment of `since`.
    pub fn restore_points(
        &self,
        timeline: Timeline,
        name: &str,
        since: Lsn,
    ) -> Outcome<Vec<RestorePoint>> {
        let mut points = Vec::new();
        for piece in self.lineage(timeline).into_iter().rev() {
            if piece.span(self.size).2 <= since {
                break;
            }
            let facts = self.piece_facts(&piece)?;
            let named = facts.restore_points.into_iter().rev();
            points.extend(named.filter(|point| point.name == name && point.lsn >= since));
        }
        points.reverse();
        // Pieces may overlap.
        points.dedup();
        Ok(points)
    }
}

/// Heads that were read, for a search that comes back to them.
struct Heads<'a> {
    inventory: &'a Inventory<'a>,
    lineage: &'a [Piece],
    known: BTreeMap<usize, WalFacts>,
}

impl Heads<'_> {
    fn facts(&mut self, at: usize) -> Outcome<WalFacts> {
        if let Some(facts) = self.known.get(&at) {
            return Ok(facts.clone());
        }
        let Some(piece) = self.lineage.get(at) else {
            return Ok(WalFacts::default());
        };
        let facts = self.inventory.piece_facts(piece)?;
        self.known.insert(at, facts.clone());
        Ok(facts)
    }

    /// The first piece from `at` on, before `end`, with a commit, and the time of its last one.
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
