//! Against a map of single bytes, in units that make segments small.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_model::{Lsn, SegmentName, SegmentSize, Timeline};
use lifeboat_repository::fragment::FragmentName;
use lifeboat_repository::wal_file::Ancestor;
use proptest::prelude::*;

use super::{Assembly, Coverage};

/// A segment has 16 units.
const UNIT: u64 = 64 << 10;
const UNITS: u64 = 16;
const SEGMENTS: u64 = 4;
const END: u64 = UNITS * SEGMENTS;

fn size() -> SegmentSize {
    SegmentSize::new(UNIT * UNITS).unwrap()
}

fn segment(timeline: u32, number: u64) -> SegmentName {
    SegmentName::new(Timeline(timeline), number, size()).unwrap()
}

fn fragment(timeline: u32, start: u64, end: u64, epoch: u32) -> FragmentName {
    let (start, end) = (Lsn(start * UNIT), Lsn(end * UNIT));
    FragmentName { timeline: Timeline(timeline), start, end, epoch }
}

/// One timeline: segments by number, fragments by first unit, length and epoch.
fn timeline(number: u32) -> impl Strategy<Value = (Vec<SegmentName>, Vec<FragmentName>)> {
    let segments = prop::collection::vec(0..SEGMENTS, 0..3);
    let fragments = prop::collection::vec((0..END, 1..=UNITS, 1u32..4), 0..16);
    (segments, fragments).prop_map(move |(segments, fragments)| {
        let segments = segments.into_iter().map(|one| segment(number, one)).collect();
        let cut = |(start, length, epoch): (u64, u64, u32)| {
            let end = (start + length).min((start / UNITS + 1) * UNITS);
            fragment(number, start, end, epoch)
        };
        (segments, fragments.into_iter().map(cut).collect())
    })
}

/// The units of a timeline that are there.
fn units(segments: &[SegmentName], fragments: &[FragmentName]) -> BTreeSet<u64> {
    let of_segments = segments.iter().flat_map(|name| {
        let first = name.number(size()) * UNITS;
        first..first + UNITS
    });
    let of_fragments = fragments.iter().flat_map(|name| name.start.0 / UNIT..name.end.0 / UNIT);
    of_segments.chain(of_fragments).collect()
}

fn run(there: &BTreeSet<u64>, from: u64) -> u64 {
    (from..).find(|unit| !there.contains(unit)).unwrap()
}

proptest! {
    #[test]
    fn a_timeline_is_what_its_pieces_cover((segments, fragments) in timeline(1), from in 0..END) {
        let there = units(&segments, &fragments);
        let names = (segments.clone(), fragments.clone());
        let coverage = Coverage::new(size(), names.0, names.1, BTreeMap::new());
        let first = from / UNITS * UNITS;
        let end = run(&there, first);
        let expected = (end > first).then_some(Lsn(end * UNIT));
        prop_assert_eq!(coverage.end_of_run(Timeline(1), Lsn(from * UNIT + 7)), expected);
        for number in 0..SEGMENTS {
            let whole = (number * UNITS..(number + 1) * UNITS).all(|unit| there.contains(&unit));
            prop_assert_eq!(coverage.has_whole(Timeline(1), number), whole);
        }
        let last = coverage.last(Timeline(1)).map(|name| name.number(size()));
        prop_assert_eq!(last, there.last().map(|unit| unit / UNITS));
        let first = coverage.first(Timeline(1)).map(|name| name.number(size()));
        prop_assert_eq!(first, there.first().map(|unit| unit / UNITS));
    }

    #[test]
    fn a_segment_is_made_of_the_fewest_pieces((_, fragments) in timeline(1), number in 0..SEGMENTS) {
        let coverage = Coverage::new(size(), [], fragments.clone(), BTreeMap::new());
        let within = |name: &&FragmentName| name.start.0 / UNIT / UNITS == number;
        let own: BTreeSet<FragmentName> = fragments.iter().filter(within).copied().collect();
        let there = units(&[], &own.iter().copied().collect::<Vec<_>>());
        let (start, end) = (number * UNITS, run(&there, number * UNITS));
        let Some(assembly) = coverage.assembly(Timeline(1), number) else {
            prop_assert_eq!(end, start);
            return Ok(());
        };
        prop_assert_eq!(assembly.end, Lsn(end * UNIT));
        // Without a hole, in order, none of them in vain.
        let mut next = Lsn(start * UNIT);
        for piece in &assembly.pieces {
            prop_assert!(own.contains(piece) && piece.start <= next && piece.end > next);
            next = piece.end;
        }
        prop_assert_eq!(next, assembly.end);
        prop_assert_eq!(assembly.pieces.len(), fewest(&own, start, end));
        // Whatever else overlaps is a witness.
        let others = own.iter().filter(|name| name.start < assembly.end);
        let others: Vec<FragmentName> =
            others.filter(|name| !assembly.pieces.contains(name)).copied().collect();
        prop_assert_eq!(assembly.witnesses, others);
    }

    #[test]
    fn a_way_is_made_of_its_timelines(
        one in timeline(1), two in timeline(2), three in timeline(3),
        first in 1..END, second in 0..END,
    ) {
        let second = first + second % (END - first);
        let (first_end, second_end) = (Lsn(first * UNIT), Lsn(second * UNIT));
        let root = Ancestor { timeline: Timeline(1), end: first_end };
        let middle = Ancestor { timeline: Timeline(2), end: second_end };
        let histories = BTreeMap::from([(Timeline(2), vec![root]), (Timeline(3), vec![root, middle])]);
        let all = [one, two, three];
        let segments = all.iter().flat_map(|one| one.0.clone());
        let fragments = all.iter().flat_map(|one| one.1.clone());
        let coverage = Coverage::new(size(), segments, fragments, histories);
        let legs = [(0, first), (first, second), (second, u64::MAX)];
        let mut there = BTreeSet::new();
        for ((segments, fragments), (from, to)) in all.iter().zip(legs) {
            let own = units(segments, fragments);
            // Only a copy of the parent.
            if own.last().is_none_or(|last| *last < from) {
                continue;
            }
            there.extend(own.into_iter().filter(|unit| *unit >= from / UNITS * UNITS && *unit < to));
        }
        let along = coverage.along(Timeline(3));
        let found: BTreeSet<u64> =
            along.iter().flat_map(|(start, end)| start.0 / UNIT..end.0 / UNIT).collect();
        prop_assert_eq!(found, there);
    }
}

/// By trying every number of pieces: how many it takes to cover the units.
fn fewest(own: &BTreeSet<FragmentName>, start: u64, end: u64) -> usize {
    let mut reached = BTreeSet::from([start]);
    for count in 0.. {
        if reached.contains(&end) {
            return count;
        }
        let from = |name: &&FragmentName| {
            reached.iter().any(|at| name.start.0 / UNIT <= *at && *at <= name.end.0 / UNIT)
        };
        let next: Vec<u64> = own.iter().filter(from).map(|name| name.end.0 / UNIT).collect();
        reached.extend(next);
    }
    unreachable!()
}

#[test]
fn names_that_the_cluster_cannot_have_made_count_for_nothing() {
    let over = fragment(1, UNITS - 1, UNITS + 1, 1);
    let other: SegmentName = "0000000100000000FFFFFFFF".parse().unwrap();
    let coverage = Coverage::new(size(), [other], [over], BTreeMap::new());
    assert_eq!(coverage.timelines().count(), 0);
    assert_eq!(coverage.last(Timeline(1)), None);
}

#[test]
fn a_timeline_of_which_only_the_copy_came_holds_nothing() {
    let switch = Lsn(20 * UNIT);
    let history = vec![Ancestor { timeline: Timeline(1), end: switch }];
    let histories = BTreeMap::from([(Timeline(2), history)]);
    let with = |end| {
        let parent = [segment(1, 0)];
        let fragments = [fragment(1, 16, 22, 1), fragment(2, 16, end, 2)];
        Coverage::new(size(), parent, fragments, histories.clone())
    };
    let copy = with(20);
    assert_eq!(copy.last(Timeline(2)), None);
    assert_eq!(copy.assembly(Timeline(2), 1), None);
    assert_eq!(copy.along(Timeline(2)).end_from(Lsn::ZERO), switch);
    let more = with(21);
    assert_eq!(more.last(Timeline(2)), Some(segment(2, 1)));
    assert_eq!(more.along(Timeline(2)).end_from(Lsn::ZERO), Lsn(21 * UNIT));
}

#[test]
fn nothing_is_assembled_behind_a_hole() {
    let fragments = [fragment(1, 1, 4, 1)];
    assert_eq!(Assembly::of(&fragments, Lsn::ZERO), None);
    let fragments = [fragment(1, 0, 2, 1), fragment(1, 3, 4, 1)];
    let assembly = Assembly::of(&fragments, Lsn::ZERO).unwrap();
    assert_eq!((assembly.end, assembly.pieces.len()), (Lsn(2 * UNIT), 1));
}
