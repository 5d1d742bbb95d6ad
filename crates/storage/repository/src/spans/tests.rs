//! Against a map of single positions.

use std::collections::BTreeSet;

use lifeboat_model::Lsn;
use proptest::prelude::*;

use super::Spans;

proptest! {
    #[test]
    fn spans_are_a_set_of_positions(
        inserted in prop::collection::vec((0u64..60, 0u64..12), 0..14),
        asked in 0u64..70,
        length in 1u64..20,
    ) {
        let mut spans = Spans::default();
        let mut there = BTreeSet::new();
        for (start, length) in inserted {
            spans.insert(Lsn(start), Lsn(start + length));
            there.extend(start..start + length);
        }
        let mut end = asked;
        while there.contains(&end) {
            end += 1;
        }
        prop_assert_eq!(spans.end_from(Lsn(asked)), Lsn(end));
        let covered = (asked..asked + length).all(|position| there.contains(&position));
        prop_assert_eq!(spans.covers(Lsn(asked), Lsn(asked + length)), covered);
        prop_assert_eq!(spans.last(), there.last().map(|last| Lsn(last + 1)));

        let all: Vec<(Lsn, Lsn)> = spans.iter().collect();
        let positions: BTreeSet<u64> = all.iter().flat_map(|(from, to)| from.0..to.0).collect();
        prop_assert_eq!(&positions, &there);
        // Merged: two of them never touch.
        prop_assert!(all.windows(2).all(|two| two[0].1 < two[1].0));

        let holes: BTreeSet<u64> =
            spans.holes_from(Lsn(asked)).iter().flat_map(|(from, to)| from.0..to.0).collect();
        let end = there.last().map_or(0, |last| last + 1);
        let missing: BTreeSet<u64> =
            (asked..end).filter(|position| !there.contains(position)).collect();
        prop_assert_eq!(holes, missing);
    }
}
