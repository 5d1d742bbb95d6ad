use lifeboat_model::{Lsn, SegmentSize, Timeline};
use lifeboat_repository::wal_file::Ancestor;
use proptest::prelude::*;

use super::{Histories, Needed};

const SIZE: SegmentSize = SegmentSize::DEFAULT;

fn at(number: u64) -> Lsn {
    Lsn(number * SIZE.bytes() + 4711)
}

fn history(timeline: u32, ancestors: &[(u32, u64)]) -> (Timeline, Vec<Ancestor>) {
    let one =
        |(timeline, end): &(u32, u64)| Ancestor { timeline: Timeline(*timeline), end: at(*end) };
    (Timeline(timeline), ancestors.iter().map(one).collect())
}

fn needed(
    backups: &[(u32, u64)],
    histories: impl IntoIterator<Item = (Timeline, Vec<Ancestor>)>,
) -> Option<Needed> {
    let starts: Vec<_> = backups.iter().map(|(one, start)| (Timeline(*one), at(*start))).collect();
    Needed::by(&starts, histories.into_iter().collect(), SIZE)
}

#[test]
fn without_a_backup_nothing_is_known_to_be_superfluous() {
    assert_eq!(needed(&[], []), None);
}

#[test]
fn a_backup_needs_what_follows_on_its_timeline_and_on_those_behind_it() {
    let histories =
        [history(2, &[(1, 20)]), history(3, &[(1, 20), (2, 30)]), history(4, &[(1, 5)])];
    let needed = needed(&[(1, 10), (1, 15)], histories).unwrap();
    let contains = |timeline, number| needed.contains(Timeline(timeline), number);
    assert!(!contains(1, 9) && contains(1, 10) && contains(1, 99));
    assert!(!contains(2, 19) && contains(2, 20), "from the branch on");
    assert!(!contains(3, 29) && contains(3, 30), "over two branches");
    assert!(!contains(4, 5) && !contains(4, 99), "it branched off before the backup");
}

#[test]
fn a_timeline_of_unknown_origin_is_kept_unless_it_is_older() {
    let needed = needed(&[(3, 10)], [history(3, &[(1, 4), (2, 6)])]).unwrap();
    assert!(needed.contains(Timeline(4), 0), "it may descend from the backup");
    assert!(!needed.contains(Timeline(2), 99), "nothing leads from the backup back to it");
}

proptest! {
    /// A tree of timelines, each branching off from one that is older: compared with a walk from
    /// every backup along every branch.
    #[test]
    fn nothing_that_a_backup_leads_to_is_given_up(
        branches in prop::collection::vec((any::<prop::sample::Index>(), 0..40_u64), 0..7),
        backups in prop::collection::vec((any::<prop::sample::Index>(), 0..40_u64), 1..5),
    ) {
        let mut histories = Histories::new();
        for (number, (parent, end)) in (2..).zip(&branches) {
            let parent = Timeline(u32::try_from(parent.index(number as usize - 1)).unwrap() + 1);
            let mut ancestors = histories.get(&parent).cloned().unwrap_or_default();
            // PostgreSQL never branches off before the beginning of the parent.
            let begin = ancestors.last().map_or(Lsn::ZERO, |last: &Ancestor| last.end);
            ancestors.push(Ancestor { timeline: parent, end: at(*end).max(begin) });
            histories.insert(Timeline(number), ancestors);
        }
        let timelines = branches.len() + 1;
        let begin = |timeline: Timeline| {
            histories.get(&timeline).and_then(|all| all.last()).map_or(Lsn::ZERO, |one| one.end)
        };
        let starts: Vec<(Timeline, Lsn)> = backups.iter().map(|(timeline, start)| {
            let timeline = Timeline(u32::try_from(timeline.index(timelines)).unwrap() + 1);
            (timeline, at(*start).max(begin(timeline)))
        }).collect();
        let found = Needed::by(&starts, histories.clone(), SIZE).unwrap();
        for (timeline, start) in &starts {
            let mut ways = vec![(*timeline, *start)];
            while let Some((timeline, from)) = ways.pop() {
                for number in SIZE.number_of(from)..45 {
                    prop_assert!(found.contains(timeline, number), "{timeline} {number}");
                }
                for (child, ancestors) in &histories {
                    let parent = ancestors.last().unwrap();
                    if parent.timeline == timeline && parent.end >= from {
                        ways.push((*child, parent.end));
                    }
                }
            }
        }
    }
}
