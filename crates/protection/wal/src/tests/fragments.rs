//! Segments that are there as fragments only: fetched, counted, waited for.

use std::fs;
use std::time::Duration;

use lifeboat_cluster::wal::{identify_segment, scan};
use lifeboat_environment::{Random, SeededRandom};
use lifeboat_model::{Lsn, SegmentName, Timeline};
use lifeboat_objects::Blocking;
use lifeboat_repository::crypt::{SigningKey, random_key};
use lifeboat_repository::layout;
use lifeboat_repository::receiver::{Durable, ReceiverBody, claim_epoch};
use lifeboat_repository::wal_file::{Ancestor, RestorePoint, WalFacts};
use lifeboat_telemetry::Code;
use lifeboat_testkit::postgres::Cluster;

use super::world::{DATABASE, World};
use crate::fetch::Fetched;
use crate::status::{Inventory, Window, recoverability};
use crate::{Needed, bring_to_all, wait_until_archived};

const MB: u64 = 1 << 20;
const KB: u64 = 1 << 10;

/// Ships bytes of a segment that begins with `seed` in every page, to one region.
fn ship(world: &World, region: &str, segment: SegmentName, (from, to): (u64, u64), epoch: u32) {
    ship_other(world, region, segment, (from, to), epoch, 1);
}

fn ship_other(
    world: &World,
    region: &str,
    segment: SegmentName,
    (from, to): (u64, u64),
    epoch: u32,
    seed: u8,
) {
    let content = world.segment(segment, seed);
    let start = segment.start(world.size).unwrap().0;
    let plain = &content[from as usize..to as usize];
    let facts = WalFacts {
        last_record: Some(Lsn(start + to - 8)),
        last_commit_us: Some((start + to) as i64),
        ..WalFacts::default()
    };
    let timeline = segment.timeline().0;
    world.put_fragment(region, (timeline, start + from, start + to), epoch, plain, &facts);
}

fn fetched(world: &World, name: SegmentName) -> Vec<u8> {
    match world.fetch(&name.to_string()).unwrap_or_else(|failure| panic!("{name}: {failure}")) {
        Fetched::Done { .. } => world.fetched().unwrap(),
        Fetched::Absent { reason } => panic!("{reason}"),
    }
}

fn padded(world: &World, name: SegmentName, upto: u64) -> Vec<u8> {
    let mut content = world.segment(name, 1);
    content[upto as usize..].fill(0);
    content
}

fn absent(world: &World, name: &str) {
    let answer = world.fetch(name);
    assert!(matches!(answer, Ok(Fetched::Absent { .. })), "{name}: {answer:?}");
}

fn refused(world: &World, name: SegmentName) -> Code {
    let failure = world.fetch(&name.to_string()).unwrap_err();
    assert_eq!(world.fetched(), None);
    failure.code()
}

#[test]
fn a_segment_is_made_of_fragments_of_any_epoch() {
    let world = World::new();
    let name = world.name(1, 7);
    for (span, epoch) in [((0, 300), 1), ((0, 200 * KB), 2), ((100 * KB, 700 * KB), 3)] {
        ship(&world, "east", name, span, epoch);
    }
    ship(&world, "east", name, (600 * KB, MB), 4);
    assert!(fetched(&world, name) == world.segment(name, 1));
    absent(&world, &world.name(1, 8).to_string());
}

#[test]
fn the_last_segment_grows_and_what_was_given_is_never_kept() {
    let world = World::new();
    let (name, next) = (world.name(1, 7), world.name(1, 8));
    let mut end = 0;
    for upto in [9 * KB, 9 * KB + 8, 100 * KB, 900 * KB] {
        ship(&world, "east", name, (end, upto), 1);
        end = upto;
        assert!(fetched(&world, name) == padded(&world, name, upto), "{upto}");
        absent(&world, &next.to_string());
        // Not even the process that fetches ahead keeps it.
        assert_eq!(world.prefetch(&world.name(1, 6).to_string()).unwrap(), 0);
    }
    ship(&world, "east", name, (end, MB), 1);
    assert!(fetched(&world, name) == world.segment(name, 1));
    assert_eq!(world.prefetch(&world.name(1, 6).to_string()).unwrap(), 1);
    let answer = world.fetch(&name.to_string()).unwrap();
    assert!(matches!(answer, Fetched::Done { region: None, .. }), "{answer:?}");
    ship(&world, "east", next, (0, 50 * KB), 2);
    assert!(fetched(&world, next) == padded(&world, next, 50 * KB));
}

#[test]
fn a_large_segment_is_made_of_fragments_too() {
    let world = World::with_segments_of(64);
    let name = world.name(1, 3);
    let pieces = [0, 7, 15, 20, 28, 36, 40, 48, 56, 63];
    for two in pieces.windows(2) {
        ship(&world, "east", name, (two[0] * MB, two[1] * MB), 1);
    }
    assert!(fetched(&world, name) == padded(&world, name, 63 * MB));
    ship(&world, "east", name, (62 * MB, 64 * MB), 2);
    assert!(fetched(&world, name) == world.segment(name, 1));
}

#[test]
fn a_hole_is_a_gap_unless_another_region_fills_it() {
    let world = World::new();
    let name = world.name(1, 7);
    ship(&world, "east", name, (0, 100 * KB), 1);
    ship(&world, "east", name, (200 * KB, 300 * KB), 1);
    assert_eq!(refused(&world, name), Code::WalGap);
    // Behind a whole segment that follows, an end is a hole.
    ship(&world, "east", name, (100 * KB, 200 * KB), 1);
    ship(&world, "east", world.name(1, 8), (0, MB), 1);
    assert_eq!(refused(&world, name), Code::WalGap);
    // The other region has the rest under a name of its own epoch.
    ship(&world, "west", name, (250 * KB, 800 * KB), 1);
    assert_eq!(refused(&world, name), Code::WalGap);
    ship(&world, "west", name, (800 * KB, MB), 1);
    assert!(fetched(&world, name) == world.segment(name, 1));
}

#[test]
fn the_end_is_that_of_the_planned_region() {
    let world = World::new();
    let name = world.name(1, 7);
    ship(&world, "west", name, (0, 500 * KB), 1);
    // East has never heard of it: there it does not exist.
    absent(&world, &name.to_string());
    ship(&world, "east", name, (0, 400 * KB), 1);
    assert!(fetched(&world, name) == padded(&world, name, 400 * KB));
    let mut plan = world.plan();
    plan.frontier = vec![world.name(1, 8)];
    let failure = world.fetch_by(&plan, &name.to_string()).unwrap_err();
    assert_eq!(failure.code(), Code::WalGap);
    // Without the planned region nobody can say where the end is; what is whole is whole.
    world.lose("east");
    let failure = world.fetch(&name.to_string()).unwrap_err();
    assert_eq!(failure.code(), Code::StoreUnavailable);
    ship(&world, "west", name, (500 * KB, MB), 1);
    assert!(fetched(&world, name) == world.segment(name, 1));
}

#[test]
fn two_histories_are_refused_wherever_they_meet() {
    let pieces = |world: &World, region: &str, seed: u8| {
        let name = world.name(1, 7);
        ship_other(world, region, name, (0, 400 * KB), 1, seed);
        name
    };
    // In what is used, in what only repeats it, and in a piece of the last segment.
    let spans = [(300 * KB, MB), (100 * KB, 200 * KB), (390 * KB, 500 * KB)];
    for span in spans {
        for standby in [false, true] {
            let world = World::new();
            let name = pieces(&world, "east", 1);
            ship_other(&world, "east", name, span, 2, 9);
            if span.0 == 100 * KB {
                ship(&world, "east", name, (400 * KB, MB), 1);
            }
            if standby {
                fs::write(world.target().join("standby.signal"), "").unwrap();
            }
            assert_eq!(refused(&world, name), Code::SplitBrain, "{span:?} {standby}");
            // A whole copy elsewhere does not say which one is meant.
            let other = world.make(1, 7);
            world.push(&other).unwrap();
            fs::remove_file(world.object("east", &other)).unwrap();
            assert_eq!(refused(&world, name), Code::SplitBrain, "{span:?} {standby}");
        }
    }
    let world = World::new();
    let name = pieces(&world, "east", 1);
    ship(&world, "east", world.name(1, 8), (0, MB), 1);
    ship_other(&world, "west", name, (300 * KB, MB), 1, 9);
    assert_eq!(refused(&world, name), Code::SplitBrain, "in two regions");
}

#[test]
fn damage_is_found_and_what_only_repeats_may_be_damaged() {
    let world = World::new();
    let name = world.name(1, 7);
    ship(&world, "east", name, (0, MB), 1);
    ship(&world, "east", name, (0, 100 * KB), 2);
    let folder = layout::fragments(world.stream.keys.stream(), Timeline(1));
    let place = |end: u64, epoch: u32| {
        let name = format!("{:016x}-{:016x}-{epoch:08x}", 7 * MB, 7 * MB + end);
        world.repository("east").join(&folder).join(name)
    };
    let damage = |path: std::path::PathBuf| {
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    damage(place(100 * KB, 2));
    assert!(fetched(&world, name) == world.segment(name, 1));
    fs::remove_file(world.target().join("pg_wal/RECOVERYXLOG")).unwrap();
    damage(place(MB, 1));
    assert_eq!(refused(&world, name), Code::ObjectDamaged);
}

fn put_history(world: &World, timeline: u32, ancestors: &[(u32, u64)]) {
    let ancestors = ancestors
        .iter()
        .map(|(timeline, end)| Ancestor { timeline: Timeline(*timeline), end: Lsn(*end) });
    let facts = WalFacts { ancestors: ancestors.collect(), ..WalFacts::default() };
    world.put("east", &format!("{timeline:08X}.history"), &facts);
}

#[test]
fn a_timeline_of_which_only_the_parents_copy_came_is_not_there_yet() {
    let world = World::new();
    ship(&world, "east", world.name(1, 7), (0, 500 * KB), 1);
    put_history(&world, 2, &[(1, 7 * MB + 400 * KB)]);
    let child = world.name(2, 7);
    ship(&world, "east", child, (0, 300 * KB), 2);
    absent(&world, &child.to_string());
    ship(&world, "east", child, (300 * KB, 400 * KB), 2);
    absent(&world, &child.to_string());
    ship(&world, "east", child, (400 * KB, 401 * KB), 2);
    assert!(fetched(&world, child) == padded(&world, child, 401 * KB));
    // Its history counts from the first fragment on.
    let answer = world.fetch("00000003.history").unwrap();
    assert!(matches!(answer, Fetched::Absent { .. }));
    ship(&world, "east", world.name(4, 7), (0, 10 * KB), 3);
    for timeline in [3, 4] {
        let failure = world.fetch(&format!("{timeline:08X}.history")).unwrap_err();
        assert_eq!(failure.code(), Code::WalGap, "{timeline}");
    }
}

fn window(world: &World) -> Window {
    let blocking = Blocking::new().unwrap();
    let regions = world.open_regions();
    recoverability(&blocking, &regions, &world.stream.keys, DATABASE).unwrap()
}

#[test]
fn the_window_ends_where_the_last_whole_record_that_was_shipped_begins() {
    let world = World::new();
    world.put_backup("00000001-00000001", 1, (5 * MB + 40, 5 * MB + 200), 100);
    ship(&world, "east", world.name(1, 5), (0, 100), 1);
    assert!(!window(&world).regions[0].backups[0].usable);
    ship(&world, "east", world.name(1, 5), (100, 200), 1);
    let first = window(&world);
    assert!(first.regions[0].backups[0].usable, "{first:?}");
    assert_eq!(first.regions[0].spans[0].to.lsn, Lsn(5 * MB + 200));
    ship(&world, "east", world.name(1, 5), (150, MB), 2);
    ship(&world, "east", world.name(1, 6), (0, 100 * KB), 2);
    // One without a whole record, and without a commit.
    let (start, end) = (6 * MB + 100 * KB, 6 * MB + 108 * KB);
    let plain = &world.segment(world.name(1, 6), 1)[100 << 10..108 << 10];
    world.put_fragment("east", (1, start, end), 2, plain, &WalFacts::default());
    let east = &window(&world).regions[0];
    assert_eq!(east.gaps, []);
    let [span] = east.spans.as_slice() else { panic!("{east:?}") };
    assert_eq!(span.to.lsn, Lsn(6 * MB + 100 * KB - 8));
    let shipped = east.shipped.unwrap();
    assert_eq!((shipped.timeline, shipped.lsn), (Timeline(1), Lsn(end)));
    let commit = shipped.last_commit.unwrap();
    assert_eq!(commit.as_microsecond() as u64, 6 * MB + 100 * KB);
    assert_eq!(span.to.time.unwrap(), commit.max(span.from.time.unwrap()));
    assert_eq!(east.timelines[0].last, Some(world.name(1, 6)));

    // A hole in front of something is a gap; the window ends there.
    ship(&world, "east", world.name(1, 8), (0, 10 * KB), 3);
    let east = &window(&world).regions[0];
    let gaps: Vec<_> = east.gaps.iter().map(|gap| (gap.first, gap.last, gap.segments)).collect();
    assert_eq!(gaps, [(world.name(1, 6), world.name(1, 7), 2)]);
    assert_eq!(east.spans[0].to.lsn, Lsn(6 * MB + 100 * KB - 8));
}

#[test]
fn moments_and_points_are_found_in_fragments() {
    let world = World::new();
    let name = world.name(1, 6);
    world.put(
        "east",
        &world.name(1, 5).to_string(),
        &WalFacts { last_commit_us: Some(1_000_000), ..WalFacts::default() },
    );
    for (number, epoch) in [(0, 1), (1, 1), (2, 2)] {
        let (from, to) = (number * 10 * KB, (number + 1) * 10 * KB);
        let second = (number as i64 + 2) * 1_000_000;
        let point =
            RestorePoint { lsn: Lsn(6 * MB + to), time_us: second, name: "here".to_owned() };
        let facts = WalFacts {
            first_commit_us: Some(second),
            last_commit_us: Some(second + 500_000),
            restore_points: if number == 1 { vec![point] } else { Vec::new() },
            ..WalFacts::default()
        };
        let plain = &world.segment(name, 1)[from as usize..to as usize];
        world.put_fragment("east", (1, 6 * MB + from, 6 * MB + to), epoch, plain, &facts);
    }
    let blocking = Blocking::new().unwrap();
    let regions = world.open_regions();
    let inventory = Inventory::read(&blocking, regions.nearest(), &world.stream.keys).unwrap();
    let locate = |micros| {
        let time = jiff::Timestamp::from_microsecond(micros).unwrap();
        let found = inventory.locate(Timeline(1), time).unwrap();
        found.map(|found| (found.segment, found.start.0, found.end.0))
    };
    assert_eq!(locate(900_000), Some((world.name(1, 5), 5 * MB, 6 * MB)));
    assert_eq!(locate(2_400_000), Some((name, 6 * MB, 6 * MB + 10 * KB)));
    assert_eq!(locate(2_600_000), Some((name, 6 * MB + 10 * KB, 6 * MB + 20 * KB)));
    assert_eq!(locate(4_500_000), Some((name, 6 * MB + 20 * KB, 6 * MB + 30 * KB)));
    assert_eq!(locate(4_500_001), None);
    let points = inventory.restore_points(Timeline(1), "here", Lsn(5 * MB)).unwrap();
    assert_eq!(points.iter().map(|point| point.lsn.0).collect::<Vec<_>>(), [6 * MB + 20 * KB]);
    assert_eq!(inventory.frontier(), [name]);
}

fn receiver(host: &str) -> ReceiverBody {
    ReceiverBody {
        writer: "test".to_owned(),
        region: "east".to_owned(),
        host: host.to_owned(),
        control_epoch: 3,
        started_at: jiff::Timestamp::from_second(50).unwrap(),
        durable: Durable::Repository,
    }
}

/// Takes an epoch in the east.
fn claim(world: &World, host: &str, signer: &SigningKey) -> u32 {
    let regions = world.open_regions();
    let stream = world.stream.keys.stream();
    let body = receiver(host);
    let claimed = claim_epoch(regions.nearest(), stream, signer, &body);
    Blocking::new().unwrap().run(claimed).unwrap()
}

#[test]
fn every_receiver_is_told_with_what_it_shipped_last() {
    let world = World::new();
    world.put_backup("00000001-00000001", 1, (5 * MB + 40, 5 * MB + 200), 100);
    let signer = world.enroll();
    assert_eq!(["db1", "db2", "db3"].map(|host| claim(&world, host, &signer)), [1, 2, 3]);
    let forger = SigningKey::from_seed(&random_key(&world.environment)).unwrap();
    assert_eq!(claim(&world, "db4", &forger), 4);
    ship(&world, "east", world.name(1, 5), (0, MB), 1);
    world.put("east", &world.name(1, 5).to_string(), &WalFacts::default());
    ship(&world, "east", world.name(1, 6), (0, 10 * KB), 3);
    ship(&world, "east", world.name(1, 6), (10 * KB, 20 * KB), 3);
    let east = &window(&world).regions[0];
    let newest: Vec<_> = east.receivers.iter().map(|one| (one.epoch, one.newest)).collect();
    let expected = [(1, Some(6 * MB)), (2, None), (3, Some(6 * MB + 20 * KB))];
    assert_eq!(newest, expected.map(|(epoch, end)| (epoch, end.map(Lsn))));
    let first = &east.receivers[0];
    let body = receiver("db1");
    assert_eq!(
        (&first.host, &first.writer, first.started_at),
        (&body.host, &body.writer, body.started_at)
    );
    assert_eq!((first.durable, first.control_epoch), (body.durable, body.control_epoch));
    let [problem] = east.problems.as_slice() else { panic!("{:?}", east.problems) };
    assert!(problem.contains("receivers/00000004"), "{problem}");
}

fn needed(world: &World, stop: u64) -> Needed {
    let (timeline, segment_size) = (Timeline(1), world.size);
    Needed { timeline, start: Lsn(5 * MB + 40), stop: Lsn(stop), segment_size }
}

fn wait(world: &World, stop: u64) -> Result<(), Code> {
    let blocking = Blocking::new().unwrap();
    let regions = world.open_regions();
    let stream = world.stream.keys.stream();
    let deadline = Duration::from_millis(300);
    let needed = needed(world, stop);
    wait_until_archived(
        &world.environment,
        &blocking,
        &regions,
        stream,
        needed,
        deadline,
        || Ok(()),
    )
    .map_err(|failure| failure.code())
}

#[test]
fn a_backup_is_content_with_fragments_up_to_its_end() {
    let world = World::new();
    world.push(&world.make(1, 5)).unwrap();
    assert_eq!(wait(&world, 6 * MB + 300), Err(Code::WalNotArchived));
    ship(&world, "east", world.name(1, 6), (0, 200), 1);
    assert_eq!(wait(&world, 6 * MB + 300), Err(Code::WalNotArchived));
    ship(&world, "east", world.name(1, 6), (200, 300), 1);
    wait(&world, 6 * MB + 300).unwrap();
    assert_eq!(wait(&world, 6 * MB + 301), Err(Code::WalNotArchived));
}

#[test]
fn fragments_are_brought_to_a_region_that_lacks_them() {
    let world = World::new();
    world.push(&world.make(1, 5)).unwrap();
    let regions = &mut world.open_regions();
    let (blocking, stream) = (Blocking::new().unwrap(), world.stream.keys.stream());
    claim(&world, "db1", &world.enroll());
    ship(&world, "east", world.name(1, 6), (0, 200), 1);
    ship(&world, "east", world.name(1, 6), (200, 400), 1);
    // A receiver of that region has shipped a part of it, in an epoch of its own.
    ship(&world, "west", world.name(1, 6), (0, 200), 1);
    bring_to_all(&blocking, regions, stream, needed(&world, 6 * MB + 300)).unwrap();
    let stored = |region: &str| {
        let store = world.store(region);
        let below = |prefix: String| blocking.run(store.list(&prefix)).unwrap().len();
        (below(layout::all_fragments(stream)), below(layout::receivers(stream)))
    };
    assert_eq!(stored("west"), (2, 1));
    assert_eq!(stored("east"), (2, 1));
    // Nothing is brought twice.
    bring_to_all(&blocking, regions, stream, needed(&world, 6 * MB + 300)).unwrap();
    assert_eq!(stored("west"), (2, 1));
}

#[test]
fn a_segment_that_a_region_is_storing_itself_is_left_to_it() {
    let world = World::new();
    world.push(&world.make(1, 6)).unwrap();
    let regions = &mut world.open_regions();
    let (blocking, stream) = (Blocking::new().unwrap(), world.stream.keys.stream());
    let name = world.name(1, 6).to_string();
    let head = layout::wal(stream, &name).unwrap();
    let part = layout::wal_part(stream, &name, 0).unwrap();
    // Encrypted twice, equal WAL differs.
    for region in ["east", "west"] {
        let bytes = format!("{region}'s own").into();
        blocking.run(world.store(region).create(&part, bytes)).unwrap();
    }
    blocking.run(world.store("west").delete(&head)).unwrap();
    bring_to_all(&blocking, regions, stream, needed(&world, 6 * MB + 300)).unwrap();
    assert!(blocking.run(world.store("west").stat(&head)).unwrap().is_none());
    assert_eq!(regions.all().len(), 2);
    // Its receiver left nothing there: then it is brought whole.
    blocking.run(world.store("west").delete(&part)).unwrap();
    bring_to_all(&blocking, regions, stream, needed(&world, 6 * MB + 300)).unwrap();
    assert!(blocking.run(world.store("west").stat(&head)).unwrap().is_some());
}

/// Points between records of all lengths, so that they and the cuts lie anywhere.
fn points_of_a_server(cluster: &Cluster) -> Vec<Lsn> {
    cluster.psql("CREATE TABLE notes (n int)").unwrap();
    let made = cluster.psql(
        "SELECT pg_create_restore_point('here') || \
         substr(pg_logical_emit_message(false, 'x', repeat('x', n * 7 % 3000))::text, 1, 0) \
         FROM generate_series(1, 1000) AS n",
    );
    // What follows makes all before it durable.
    cluster.psql("INSERT INTO notes VALUES (1)").unwrap();
    made.unwrap().lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn every_point_of_a_real_server_is_found_however_its_wal_is_cut() {
    let cluster = Cluster::builder(15).wal_segment_size_mb(1).start().unwrap();
    let world = World::of_cluster(cluster.data());
    let made = points_of_a_server(&cluster);
    let end: Lsn =
        cluster.psql("SELECT pg_current_wal_flush_lsn()").unwrap().trim().parse().unwrap();
    let random = SeededRandom::new(3);
    let first = made[0].0 / MB;
    for number in first..=end.0 / MB {
        let name = world.name(1, number);
        let content = fs::read(cluster.data().join("pg_wal").join(name.to_string())).unwrap();
        let identity = identify_segment(&content, name).unwrap();
        let length = end.0.saturating_sub(number * MB).min(MB);
        let mut from = 0;
        while from < length {
            let to = (from + 1 + random.next_u64() % 30_000).min(length);
            let from_there = from.saturating_sub(random.next_u64() % 5_000);
            let epoch = 1 + (random.next_u64() % 3) as u32;
            let span = (1, number * MB + from_there, number * MB + to);
            let within = |point: &&lifeboat_cluster::wal::RestorePoint| {
                (span.1 + 1..=span.2).contains(&point.lsn.0)
            };
            let summary = scan(&content[..to as usize], &identity);
            let points = summary.restore_points.iter().filter(within);
            let points = points.map(|point| RestorePoint {
                lsn: point.lsn,
                time_us: 0,
                name: point.name.clone(),
            });
            let facts = WalFacts { restore_points: points.collect(), ..WalFacts::default() };
            let plain = &content[from_there as usize..to as usize];
            world.put_fragment("east", span, epoch, plain, &facts);
            from = to;
        }
    }
    world.put_backup("00000001-00000001", 1, (first * MB, first * MB + 1), 100);
    let blocking = Blocking::new().unwrap();
    let regions = world.open_regions();
    let inventory = Inventory::read(&blocking, regions.nearest(), &world.stream.keys).unwrap();
    let found = inventory.restore_points(Timeline(1), "here", Lsn::ZERO).unwrap();
    let found: Vec<Lsn> = found.iter().map(|point| point.lsn).collect();
    // One that runs on into the next segment is in nobody's summary.
    let crosses = |lsn: &&Lsn| lsn.0 % MB < 200;
    let lost: Vec<&Lsn> = made.iter().filter(|lsn| !found.contains(lsn)).collect();
    assert!(lost.iter().all(crosses), "{lost:?}");
    assert!(found.iter().all(|lsn| made.contains(lsn)));
}
