use std::fs;

use jiff::Timestamp;
use lifeboat_model::{Lsn, Timeline};
use lifeboat_objects::Blocking;
use lifeboat_repository::wal_file::{Ancestor, RestorePoint, WalFacts};

use super::world::{DATABASE, World};
use crate::status::{Inventory, Window, recoverability};

const MB: u64 = 1 << 20;

/// Segments of a mebibyte whose commits lie ten seconds apart.
fn facts(number: u64) -> WalFacts {
    let second = i64::try_from(number).unwrap() * 10;
    WalFacts {
        first_commit_us: Some((second + 1) * 1_000_000),
        last_commit_us: Some((second + 9) * 1_000_000),
        last_record: Some(Lsn((number + 1) * MB)),
        ..WalFacts::default()
    }
}

fn put(world: &World, timeline: u32, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        for region in &world.regions {
            world.put(region, &world.name(timeline, number).to_string(), &facts(number));
        }
    }
}

fn put_history(world: &World, timeline: u32, ancestors: &[(u32, u64)]) {
    let ancestors = ancestors
        .iter()
        .map(|(timeline, end)| Ancestor { timeline: Timeline(*timeline), end: Lsn(*end) });
    let facts = WalFacts { ancestors: ancestors.collect(), ..WalFacts::default() };
    for region in &world.regions {
        world.put(region, &format!("{timeline:08X}.history"), &facts);
    }
}

fn window(world: &World) -> Window {
    let blocking = Blocking::new().unwrap();
    let regions = world.open_regions();
    recoverability(&blocking, &regions, &world.stream.keys, DATABASE).unwrap()
}

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn inventory<T>(world: &World, look: impl FnOnce(&Inventory<'_>) -> T) -> T {
    let blocking = Blocking::new().unwrap();
    let regions = world.open_regions();
    look(&Inventory::read(&blocking, regions.nearest(), &world.stream.keys).unwrap())
}

#[test]
fn an_empty_archive_recovers_nothing() {
    let world = World::new();
    let window = window(&world);
    assert_eq!(window.regions.len(), 2);
    assert!(window.regions.iter().all(|region| region.spans.is_empty()));
    assert!(!window.has_problems());
}

#[test]
fn a_span_goes_from_the_backup_to_the_first_gap() {
    let world = World::new();
    put(&world, 1, (3..10).chain(12..15));
    world.put_backup("00000001-00000001", 1, (4 * MB + 40, 5 * MB + 80), 55);
    world.put_backup("00000002-00000001", 1, (9 * MB + 40, 12 * MB + 80), 125);
    let window = window(&world);
    let east = &window.regions[0];
    assert_eq!(east.spans.len(), 1);
    let span = &east.spans[0];
    assert_eq!((span.from.lsn, span.to.lsn), (Lsn(5 * MB + 80), Lsn(10 * MB)));
    assert_eq!((span.from.time, span.to.time), (Some(time(55)), Some(time(99))));
    assert_eq!(span.backups, ["00000001-00000001"]);
    assert_eq!(east.backups.iter().map(|it| it.usable).collect::<Vec<_>>(), [true, false]);
    assert_eq!(east.gaps.len(), 1);
    assert_eq!((east.gaps[0].first, east.gaps[0].segments), (world.name(1, 10), 2));
    assert!(window.has_problems());
    let json = serde_json::to_value(&window).unwrap();
    assert_eq!(json["regions"][0]["spans"][0]["from"]["lsn"], "0/500050");
}

#[test]
fn a_branch_is_reached_through_its_history_only() {
    let world = World::new();
    put(&world, 1, 3..8);
    put(&world, 2, 7..12);
    world.put_backup("00000001-00000001", 1, (4 * MB, 5 * MB), 45);
    let before = window(&world);
    assert_eq!(before.regions[0].spans.len(), 1);
    assert!(before.regions[0].problems[0].contains("00000002.history"), "{before:?}");
    put_history(&world, 2, &[(1, 7 * MB + 100)]);
    let after = window(&world);
    let east = &after.regions[0];
    let ends: Vec<_> = east.spans.iter().map(|span| (span.timeline.0, span.to.lsn)).collect();
    assert_eq!(ends, [(1, Lsn(8 * MB)), (2, Lsn(12 * MB))]);
    assert_eq!(east.spans[1].from.lsn, Lsn(7 * MB + 100));
    assert_eq!(east.timelines[1].parent, Some((Timeline(1), Lsn(7 * MB + 100))));
    assert!(!after.has_problems(), "{after:?}");
}

#[test]
fn a_branch_before_the_backup_does_not_count() {
    let world = World::new();
    put(&world, 1, 3..12);
    put(&world, 2, 5..7);
    put_history(&world, 2, &[(1, 5 * MB + 100)]);
    world.put_backup("00000001-00000001", 1, (8 * MB, 9 * MB), 95);
    let spans = &window(&world).regions[0].spans;
    assert_eq!(spans.iter().map(|span| span.timeline.0).collect::<Vec<_>>(), [1]);
}

#[test]
fn gaps_at_a_branch_are_named_on_both_sides() {
    let world = World::new();
    put(&world, 1, 3..6);
    put(&world, 2, 9..12);
    put_history(&world, 2, &[(1, 7 * MB + 100)]);
    world.put_backup("00000001-00000001", 1, (3 * MB, 4 * MB), 45);
    let gaps = &window(&world).regions[0].gaps;
    let ranges: Vec<_> = gaps.iter().map(|gap| (gap.first, gap.last)).collect();
    let name = |timeline, number| world.name(timeline, number);
    assert_eq!(ranges, [(name(1, 6), name(1, 6)), (name(2, 7), name(2, 8))]);
}

#[test]
fn before_the_first_backup_nothing_was_promised() {
    let world = World::new();
    put(&world, 2, (9..11).chain(12..14).chain(16..18));
    put_history(&world, 2, &[(1, 3 * MB + 100)]);
    assert!(window(&world).regions[0].gaps.is_empty());
    world.put_backup("00000001-00000001", 2, (13 * MB, 13 * MB + 100), 135);
    let east = &window(&world).regions[0];
    let ranges: Vec<_> = east.gaps.iter().map(|gap| (gap.first, gap.last)).collect();
    assert_eq!(ranges, [(world.name(2, 14), world.name(2, 15))]);
    // What is there is still told.
    assert_eq!(east.timelines[0].first, Some(world.name(2, 9)));
    // The backup's own WAL was promised.
    world.put_backup("00000002-00000001", 2, (11 * MB, 12 * MB + 100), 125);
    assert_eq!(window(&world).regions[0].gaps[0].first, world.name(2, 11));
}

#[test]
fn the_lag_between_regions_is_named() {
    let world = World::new();
    put(&world, 1, 3..9);
    put_history(&world, 2, &[(1, 7 * MB)]);
    world.put_backup("00000001-00000001", 1, (4 * MB, 5 * MB), 45);
    for number in [4, 5, 7] {
        fs::remove_file(world.object("west", &world.name(1, number).to_string())).unwrap();
    }
    fs::remove_file(world.object("west", "00000002.history")).unwrap();
    let window = window(&world);
    assert!(window.regions[0].lag.is_empty());
    let lag = &window.regions[1].lag;
    assert_eq!((lag.segments, lag.ranges.len()), (3, 2));
    assert_eq!(lag.histories, ["00000002.history"]);
    assert!(lag.backups.is_empty());
    world.lose("west");
    let window = self::window(&world);
    assert_eq!(window.unreachable.keys().collect::<Vec<_>>(), ["west"]);
    assert!(window.regions[0].lag.is_empty());
}

#[test]
fn a_damaged_backup_hides_nothing_else() {
    let world = World::new();
    put(&world, 1, 3..9);
    world.put_backup("00000001-00000001", 1, (4 * MB, 5 * MB), 45);
    let stream = world.stream.keys.stream();
    let key = format!("streams/{stream}/manifests/00000001-00000001");
    let path = world.repository("east").join(key);
    let mut bytes = fs::read(&path).unwrap();
    bytes[300] ^= 1;
    fs::write(&path, bytes).unwrap();
    let window = window(&world);
    assert_eq!(window.regions[0].problems.len(), 1);
    assert_eq!(window.regions[0].timelines[0].segments, 6);
    assert_eq!(window.regions[1].spans.len(), 1);
}

#[test]
fn a_moment_is_found_with_few_reads_also_where_nothing_was_committed() {
    let world = World::new();
    put(&world, 1, 0..40);
    for number in (40..60).chain(61..64) {
        world.put("east", &world.name(1, number).to_string(), &WalFacts::default());
    }
    world.put("east", &world.name(1, 60).to_string(), &facts(60));
    inventory(&world, |inventory| {
        let find = |at| {
            let found = inventory.locate(Timeline(1), time(at)).unwrap();
            found.map(|found| found.segment.number(world.size))
        };
        for number in 0..40 {
            let second = i64::try_from(number).unwrap() * 10;
            assert_eq!(find(second), Some(number), "before {number}");
            assert_eq!(find(second + 5), Some(number), "within {number}");
            assert_eq!(find(second + 9), Some(number), "the last commit of {number}");
        }
        assert_eq!(find(400), Some(60));
        assert_eq!(find(609), Some(60));
        assert_eq!(find(610), None);
    });
}

#[test]
fn a_lineage_follows_the_history() {
    let world = World::new();
    put(&world, 1, 3..9);
    put(&world, 2, 5..12);
    put(&world, 3, 10..14);
    put_history(&world, 2, &[(1, 5 * MB + 1)]);
    put_history(&world, 3, &[(1, 5 * MB + 1), (2, 10 * MB)]);
    inventory(&world, |inventory| {
        let pieces = inventory.lineage(Timeline(3));
        let spans = pieces.iter().map(|piece| piece.span(world.size));
        let pairs: Vec<_> = spans.map(|(timeline, start, _)| (timeline.0, start.0 / MB)).collect();
        let expected = [1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 3].into_iter().zip(3..14);
        assert_eq!(pairs, expected.collect::<Vec<_>>());
        assert_eq!(inventory.frontier().len(), 3);
    });
}

#[test]
fn restore_points_are_found_by_name_however_many_there_are() {
    let world = World::new();
    put(&world, 1, 0..3);
    let mut facts = facts(3);
    for number in 0..200 {
        let name = format!("point-{}", number % 100);
        facts.restore_points.push(RestorePoint { lsn: Lsn(3 * MB + number), time_us: 0, name });
    }
    world.put("east", &world.name(1, 3).to_string(), &facts);
    inventory(&world, |inventory| {
        let points = inventory.restore_points(Timeline(1), "point-7", Lsn::ZERO).unwrap();
        let found: Vec<_> = points.iter().map(|point| point.lsn.0 - 3 * MB).collect();
        assert_eq!(found, [7, 107]);
        assert!(inventory.restore_points(Timeline(1), "other", Lsn::ZERO).unwrap().is_empty());
    });
}
