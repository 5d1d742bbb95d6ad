use jiff::Timestamp;
use lifeboat_telemetry::Code;

use super::super::map::{MAX_RELATIONS, MAX_RUNS};
use super::super::times::MAX_BUCKETS;
use super::*;
use lifeboat_cluster::wal::DatabaseOfTablespace;

/// Something that WAL says.
#[derive(Debug, Clone, Copy)]
enum Step {
    Change(u32, bool, u32),
    Create(u32, bool),
    Drop(u32),
    Truncate(u32, u32),
    Database,
}

fn step() -> impl Strategy<Value = Step> {
    let block = prop_oneof![0_u32..40, any::<u32>()];
    prop_oneof![
        20 => (0_u32..4, any::<bool>(), block.clone()).prop_map(|(a, b, c)| Step::Change(a, b, c)),
        1 => (0_u32..4, any::<bool>()).prop_map(|(a, b)| Step::Create(a, b)),
        1 => (0_u32..4).prop_map(Step::Drop),
        2 => (0_u32..4, block).prop_map(|(a, b)| Step::Truncate(a, b)),
        1 => Just(Step::Database),
    ]
}

fn fork(init: bool) -> Fork {
    if init { Fork::Init } else { Fork::Main }
}

fn collect(from: u64, steps: &[Step]) -> ChangeMap {
    let mut map = ChangeMap::starting(Lsn(from), TIMELINE);
    for step in steps {
        match *step {
            Step::Change(number, init, block) => map.insert((file(number), fork(init)), block),
            Step::Create(number, init) => {
                map.note_fact(
                    Lsn(from),
                    &Fact::FileCreated { relation: file(number), fork: fork(init) },
                );
            }
            Step::Drop(number) => map.change((file(number), Fork::Main), |it| it.dropped = true),
            Step::Truncate(number, blocks) => {
                let fact = Fact::FileTruncated { relation: file(number), blocks: Some(blocks) };
                map.note_fact(Lsn(from), &fact);
            }
            Step::Database => {
                let name = DatabaseOfTablespace { tablespace: 1663, database: 5 };
                map.note_fact(Lsn(from), &Fact::DatabaseCreated(name));
            }
        }
    }
    map.finish(Lsn(from + steps.len() as u64), TIMELINE);
    map
}

/// Whether a block may have changed, by the simplest reckoning.
fn is_changed(steps: &[Step], number: u32, init: bool, block: u32) -> bool {
    steps.iter().any(|step| match *step {
        Step::Change(a, b, c) => (a, b, c) == (number, init, block),
        Step::Create(a, b) => (a, b) == (number, init),
        Step::Drop(_) => false,
        Step::Truncate(a, blocks) => a == number && !init && block >= blocks,
        Step::Database => true,
    })
}

proptest! {
    #[test]
    fn a_map_answers_as_its_steps_do(
        steps in proptest::collection::vec(step(), 0..600),
        cut in any::<proptest::sample::Index>(),
        other in any::<u32>(),
    ) {
        let whole = collect(100, &steps);
        let at = cut.index(steps.len() + 1);
        let (earlier, later) = steps.split_at(at);
        let merged =
            collect(100, earlier).merge(collect(100 + at as u64, later)).unwrap();
        prop_assert_eq!(merged.encode(), whole.encode());
        let decoded = ChangeMap::decode(&whole.encode()).unwrap();
        prop_assert_eq!(decoded.encode(), whole.encode());
        let blocks: BTreeSet<u32> = steps.iter().flat_map(|step| match *step {
            Step::Change(_, _, block) | Step::Truncate(_, block) => {
                vec![block, block.saturating_sub(1), block.saturating_add(1)]
            }
            _ => vec![other],
        }).chain(0..42).collect();
        for number in 0..4 {
            for init in [false, true] {
                let changed = decoded.changed(file(number), fork(init));
                for block in &blocks {
                    let expected = is_changed(&steps, number, init, *block);
                    prop_assert_eq!(changed.contains(*block), expected, "{} {}", number, block);
                }
            }
        }
    }

    #[test]
    fn blocks_are_a_set(inserted in proptest::collection::vec(0_u32..5000, 0..3000)) {
        let mut blocks = Blocks::default();
        inserted.iter().for_each(|block| blocks.insert(*block));
        let set: BTreeSet<u32> = inserted.iter().copied().collect();
        let listed: Vec<u32> = blocks.runs().iter().flat_map(|run| run.first..=run.last).collect();
        prop_assert_eq!(listed, set.iter().copied().collect::<Vec<_>>());
        for block in 0..5001 {
            prop_assert_eq!(blocks.contains(block), set.contains(&block));
        }
        for pair in blocks.runs().windows(2) {
            prop_assert!(pair[0].last + 1 < pair[1].first, "runs touch");
        }
    }

    #[test]
    fn damaged_bytes_never_panic(
        steps in proptest::collection::vec(step(), 0..60),
        at in any::<proptest::sample::Index>(),
        value in any::<u8>(),
        length in any::<proptest::sample::Index>(),
    ) {
        let mut bytes = collect(100, &steps).encode();
        // Only a map that is whole otherwise must refuse to be cut: a byte that changed a count may
        // make the rest superfluous. What a changed byte means, the object's content address says.
        let cut = length.index(bytes.len());
        prop_assert!(ChangeMap::decode(&bytes[..cut]).is_err());
        let at = at.index(bytes.len());
        bytes[at] = value;
        let _ = ChangeMap::decode(&bytes);
        let _ = ChangeMap::decode(&bytes[..cut]);
        let _ = TimeIndex::decode(&bytes);
    }

    #[test]
    fn random_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 1..2000)) {
        let _ = ChangeMap::decode(&bytes);
        let _ = TimeIndex::decode(&bytes);
        bytes[0] = 1;
        let _ = ChangeMap::decode(&bytes);
        let _ = TimeIndex::decode(&bytes);
    }
}

#[test]
fn spans_that_do_not_touch_do_not_merge() {
    let map = |from: u64, to: u64, timeline: u32| {
        let mut map = ChangeMap::starting(Lsn(from), Timeline(timeline));
        map.finish(Lsn(to), Timeline(timeline));
        map
    };
    assert!(map(1, 5, 1).merge(map(6, 9, 1)).is_err());
    assert!(map(1, 5, 2).merge(map(5, 9, 1)).is_err());
    let merged = map(1, 5, 1).merge(map(5, 9, 2)).unwrap();
    assert_eq!(merged.span(), Span { from: Lsn(1), to: Lsn(9), timeline: Timeline(2) });
}

#[test]
fn maps_of_free_space_and_visibility_are_always_whole() {
    let map = ChangeMap::starting(Lsn(1), TIMELINE);
    assert_eq!(map.changed(file(1), Fork::Main), Changed::Nothing);
    assert_eq!(map.changed(file(1), Fork::FreeSpace), Changed::Everything);
    assert_eq!(map.changed(file(1), Fork::Visibility), Changed::Everything);
}

#[test]
fn a_relation_with_too_many_runs_becomes_whole() {
    let mut map = ChangeMap::starting(Lsn(1), TIMELINE);
    map.insert((file(1), Fork::Main), 7);
    for block in 0..=MAX_RUNS as u32 {
        map.insert((file(2), Fork::Main), block * 2);
    }
    assert!(map.weight <= MAX_RUNS);
    assert_eq!(map.changed(file(2), Fork::Main), Changed::Everything);
    let Changed::Blocks { runs, from } = map.changed(file(1), Fork::Main) else { panic!() };
    assert_eq!((runs, from), (vec![Run { first: 7, last: 7 }], None));
}

#[test]
fn a_file_that_is_filled_is_one_run() {
    let mut map = ChangeMap::starting(Lsn(1), TIMELINE);
    for block in 0..1_000_000 {
        // Each block is changed several times, as rows are put into it.
        for _ in 0..3 {
            map.insert((file(1), Fork::Main), block);
        }
    }
    // The first blocks wait for the run that they begin.
    assert!(map.encode().len() < 40, "{} bytes", map.encode().len());
    assert!(map.weight < 1000, "{} runs", map.weight);
}

#[test]
fn a_database_with_too_many_relations_becomes_whole() {
    let mut map = ChangeMap::starting(Lsn(1), TIMELINE);
    let other = RelationFile { database: 6, ..file(1) };
    map.insert((other, Fork::Main), 1);
    for number in 0..=MAX_RELATIONS as u32 {
        map.insert((file(number), Fork::Main), 1);
    }
    assert_eq!(map.relations().count(), 1);
    assert_eq!(map.changed(file(u32::MAX), Fork::Main), Changed::Everything);
    assert!(!map.changed(other, Fork::Main).contains(2));
}

#[test]
fn counts_above_their_maximum_are_refused() {
    // Version, span 0 to 0 on timeline 0, then a count.
    let refused = |mut bytes: Vec<u8>, count: u64| {
        lifeboat_repository::cursor::put_varint(&mut bytes, count);
        ChangeMap::decode(&bytes).map(drop).unwrap_err().code()
    };
    assert_eq!(refused(vec![1, 0, 0, 0], 65), Code::LimitExceeded);
    assert_eq!(refused(vec![1, 0, 0, 0, 0], 65_537), Code::LimitExceeded);
    assert_eq!(refused(vec![1, 0, 0, 0, 0, 0], 262_145), Code::LimitExceeded);
    // One relation, 1/1/1.
    assert_eq!(refused(vec![1, 0, 0, 0, 0, 0, 1, 0, 1, 1, 1], (1 << 22) + 1), Code::LimitExceeded);
    let mut bytes = vec![1, 0, 0, 0];
    lifeboat_repository::cursor::put_varint(&mut bytes, 1 + MAX_BUCKETS as u64);
    assert_eq!(TimeIndex::decode(&bytes).map(drop).unwrap_err().code(), Code::LimitExceeded);
    assert_eq!(ChangeMap::decode(&[2]).unwrap_err().code(), Code::ObjectDamaged);
}

#[test]
fn the_bytes_are_as_described() {
    let mut map = ChangeMap::starting(Lsn(300), TIMELINE);
    for block in [5, 7, 8, 9, 20] {
        map.insert((file(16384), Fork::Main), block);
    }
    map.note_fact(Lsn(300), &Fact::FileCreated { relation: file(16390), fork: Fork::Init });
    map.finish(Lsn(310), TIMELINE);
    let relation = [0, 0xFF, 0x0C, 5, 0x80, 0x80, 1, 3, 5 << 1, 1 << 1 | 1, 1, 10 << 1];
    let created = [1 | 16 | 64, 6];
    let mut expected = vec![1, 0xAC, 2, 10, 1, 0, 0, 2];
    expected.extend(relation);
    expected.extend(created);
    assert_eq!(map.encode(), expected);
}

#[test]
fn an_index_comes_back_as_it_was() {
    let mut index = TimeIndex::starting(Lsn(100), TIMELINE);
    let time = |seconds: i64| Timestamp::from_second(seconds).unwrap();
    for step in 0_u64..100 {
        // Not by time, and long apart.
        let at = time(1_000_000 + (step as i64) * 7 - (step as i64 % 3) * 20);
        index.note_end(Lsn(100 + step * 100_000), Lsn(150 + step * 100_000), at);
    }
    index.points.push(NamedPoint { lsn: Lsn(700), time: time(-5), name: "here".to_owned() });
    index.losses.push(Loss {
        kind: LossKind::Deleted,
        lsn: Lsn(900),
        end: Lsn(950),
        before: Lsn(800),
        xid: 77,
        time: time(9),
        rows: 12,
        files: vec![file(16384)],
        tables: vec![(5, 16384)],
    });
    index.finish(Lsn(20_000_000), TIMELINE);
    assert_eq!(TimeIndex::decode(&index.encode()).unwrap(), index);
}

#[test]
fn an_index_stays_small() {
    let mut index = TimeIndex::starting(Lsn(0), TIMELINE);
    let end = MAX_BUCKETS as u64 * 3;
    for step in 0..end {
        let at = Timestamp::from_second(i64::try_from(step).unwrap() * 2).unwrap();
        index.note_end(Lsn(step << 17), Lsn((step << 17) + 40), at);
    }
    assert_eq!(index.ends(), end);
    assert!(index.buckets.len() <= MAX_BUCKETS);
    let half = Timestamp::from_second(i64::try_from(end).unwrap()).unwrap();
    let Moment::Within { from, to } = index.locate(half) else { panic!() };
    let expected = Lsn((end / 2 + 1) << 17);
    assert!(from <= expected && expected < to, "{from} {expected} {to}");
}
