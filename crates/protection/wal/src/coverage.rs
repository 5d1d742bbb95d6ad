//! Which WAL is there, told by names alone: segments, and fragments of any writer epoch.
//!
//! A segment is there if its object is, or if fragments cover it. A timeline ends where coverage
//! without a hole ends; a hole with something behind it is a gap.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_model::{Lsn, SegmentName, SegmentSize, Timeline};
use lifeboat_repository::fragment::FragmentName;
use lifeboat_repository::spans::Spans;
use lifeboat_repository::wal_file::Ancestor;

/// What is there of every timeline.
#[derive(Debug, Clone)]
pub struct Coverage {
    size: SegmentSize,
    timelines: BTreeMap<Timeline, Held>,
    histories: BTreeMap<Timeline, Vec<Ancestor>>,
}

/// What is there of one timeline.
#[derive(Debug, Clone, Default)]
struct Held {
    segments: BTreeSet<u64>,
    fragments: BTreeSet<FragmentName>,
    spans: Spans,
}

/// How fragments make a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assembly {
    /// The fewest fragments that cover the segment from its start on without a hole, in order.
    pub pieces: Vec<FragmentName>,
    /// Other fragments that repeat what the pieces hold: their bytes must be the same.
    pub witnesses: Vec<FragmentName>,
    /// Where the pieces end: at the end of the segment, or of what is known.
    pub end: Lsn,
}

/// The way to a timeline: what a recovery reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leg {
    /// The timeline.
    pub timeline: Timeline,
    /// Where it branched off.
    pub start: Lsn,
    /// Where the next one branches off; the last one has no end.
    pub end: Option<Lsn>,
}

impl Coverage {
    /// Puts together what is there. Names that no cluster with this segment size can have made are
    /// left out.
    pub fn new(
        size: SegmentSize,
        segments: impl IntoIterator<Item = SegmentName>,
        fragments: impl IntoIterator<Item = FragmentName>,
        histories: BTreeMap<Timeline, Vec<Ancestor>>,
    ) -> Self {
        let mut coverage = Self { size, timelines: BTreeMap::new(), histories };
        for name in segments {
            let number = name.number(size);
            if let (true, Some((start, end))) = (name.fits(size), bounds(number, size)) {
                let held = coverage.timelines.entry(name.timeline()).or_default();
                held.segments.insert(number);
                held.spans.insert(start, end);
            }
        }
        for name in fragments.into_iter().filter(|name| lies_in_one_segment(name, size)) {
            let held = coverage.timelines.entry(name.timeline).or_default();
            held.fragments.insert(name);
            held.spans.insert(name.start, name.end);
        }
        coverage.leave_out_copies();
        coverage
    }

    /// A timeline begins with a copy of its parent's last segment. As long as only that copy has
    /// come, the timeline holds nothing, and what reads it must go on reading the parent.
    fn leave_out_copies(&mut self) {
        for (timeline, ancestors) in &self.histories {
            let (Some(parent), Some(held)) = (ancestors.last(), self.timelines.get_mut(timeline))
            else {
                continue;
            };
            if held.spans.last().is_some_and(|last| last <= parent.end) {
                self.timelines.remove(timeline);
            }
        }
    }

    /// Every timeline of which WAL is there.
    pub fn timelines(&self) -> impl Iterator<Item = Timeline> {
        self.timelines.keys().copied()
    }

    /// What is there of a timeline.
    pub fn spans(&self, timeline: Timeline) -> Option<&Spans> {
        self.timelines.get(&timeline).map(|held| &held.spans)
    }

    /// Whether the object of a segment is there.
    pub fn has_segment(&self, timeline: Timeline, number: u64) -> bool {
        self.timelines.get(&timeline).is_some_and(|held| held.segments.contains(&number))
    }

    /// Whether all of a segment is there, as one object or as fragments.
    pub fn has_whole(&self, timeline: Timeline, number: u64) -> bool {
        let spans = self.spans(timeline);
        spans
            .zip(bounds(number, self.size))
            .is_some_and(|(spans, (from, to))| spans.covers(from, to))
    }

    /// Where what is there of a timeline ends without a hole, from the start of the segment that
    /// holds `from`; `None` if not even the first byte of that segment is there.
    pub fn end_of_run(&self, timeline: Timeline, from: Lsn) -> Option<Lsn> {
        let start = segment_start(from, self.size);
        let end = self.spans(timeline)?.end_from(start);
        (end > start).then_some(end)
    }

    /// The first segment of which anything is there.
    pub fn first(&self, timeline: Timeline) -> Option<SegmentName> {
        let (start, _) = self.spans(timeline)?.iter().next()?;
        Some(SegmentName::from_lsn(timeline, start, self.size))
    }

    /// The last segment of which anything is there: the frontier.
    pub fn last(&self, timeline: Timeline) -> Option<SegmentName> {
        let last = self.spans(timeline)?.last()?;
        Some(SegmentName::from_lsn(timeline, Lsn(last.0.saturating_sub(1)), self.size))
    }

    /// Numbers of the segments from `first` to `last` of which the beginning or all is there.
    pub(crate) fn numbers(&self, timeline: Timeline, first: u64, last: u64) -> BTreeSet<u64> {
        let held = self.timelines.get(&timeline).into_iter();
        let of_fragments = held.clone().flat_map(|held| &held.fragments);
        let begins = |name: &&FragmentName| self.size.offset_of(name.start) == 0;
        let of_fragments = of_fragments.filter(begins).map(|name| self.size.number_of(name.start));
        let of_segments = held.flat_map(|held| &held.segments).copied();
        let wanted = |number: &u64| (first..=last).contains(number);
        of_segments.chain(of_fragments).filter(wanted).collect()
    }

    /// How fragments make a segment.
    pub fn assembly(&self, timeline: Timeline, number: u64) -> Option<Assembly> {
        let (start, end) = bounds(number, self.size)?;
        let held = self.timelines.get(&timeline)?;
        let lowest = FragmentName { timeline, start, end: Lsn::ZERO, epoch: 0 };
        let fragments = held.fragments.range(lowest..).take_while(|name| name.start < end);
        let fragments: Vec<FragmentName> = fragments.copied().collect();
        Assembly::of(&fragments, start)
    }

    /// The legs of the way to the end of a timeline, oldest first.
    pub fn way(&self, timeline: Timeline) -> Vec<Leg> {
        let ancestors = self.histories.get(&timeline).into_iter().flatten();
        let ends = ancestors.map(|one| (one.timeline, Some(one.end))).chain([(timeline, None)]);
        let mut start = Lsn::ZERO;
        let mut legs = Vec::new();
        for (timeline, end) in ends {
            legs.push(Leg { timeline, start, end });
            start = end.unwrap_or(start);
        }
        legs
    }

    /// What is there on the way to the end of a timeline. A recovery takes the segment in which a
    /// timeline branches off from the newest timeline that has it.
    pub fn along(&self, timeline: Timeline) -> Spans {
        let mut spans = Spans::default();
        for leg in self.way(timeline) {
            let first = segment_start(leg.start, self.size);
            let own = self.spans(leg.timeline).into_iter().flat_map(Spans::iter);
            for (start, end) in own {
                spans.insert(start.max(first), end.min(leg.end.unwrap_or(Lsn::MAX)));
            }
        }
        spans
    }
}

impl Assembly {
    /// Of the fragments of one segment, in order. `None` if none of them holds its first byte.
    pub fn of(fragments: &[FragmentName], start: Lsn) -> Option<Self> {
        let mut pieces: Vec<FragmentName> = Vec::new();
        let mut end = start;
        let mut furthest: Option<FragmentName> = None;
        for name in fragments {
            if name.start > end
                && let Some(next) = furthest.take().filter(|next| next.end > end)
            {
                pieces.push(next);
                end = next.end;
            }
            if name.start > end {
                break;
            }
            if furthest.is_none_or(|known| known.end < name.end) {
                furthest = Some(*name);
            }
        }
        if let Some(next) = furthest.filter(|next| next.end > end) {
            pieces.push(next);
            end = next.end;
        }
        if pieces.is_empty() {
            return None;
        }
        let is_witness = |name: &&FragmentName| name.start < end && !pieces.contains(name);
        let witnesses = fragments.iter().filter(is_witness).copied().collect();
        Some(Self { pieces, witnesses, end })
    }
}

/// First position of a segment, and the one behind its last.
pub(crate) fn bounds(number: u64, size: SegmentSize) -> Option<(Lsn, Lsn)> {
    let start = Lsn(number.checked_mul(size.bytes())?);
    Some((start, start.checked_add(size.bytes())?))
}

/// Where the segment that holds `lsn` starts.
pub(crate) fn segment_start(lsn: Lsn, size: SegmentSize) -> Lsn {
    Lsn(lsn.0 - size.offset_of(lsn))
}

/// A receiver makes no fragment that goes over the end of a segment.
pub(crate) fn lies_in_one_segment(name: &FragmentName, size: SegmentSize) -> bool {
    let last = Lsn(name.end.0.saturating_sub(1));
    size.number_of(name.start) == size.number_of(last)
}

#[cfg(test)]
mod tests;
