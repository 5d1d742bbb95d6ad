//! WAL that real servers wrote.

use std::collections::BTreeMap;
use std::fs;

use jiff::Timestamp;
use lifeboat_model::{Lsn, Timeline};
use lifeboat_objects::Blocking;
use lifeboat_testkit::postgres::{Cluster, Stop};

use super::world::{DATABASE, World};
use crate::fetch::Fetched;
use crate::push::How;
use crate::status::{Inventory, recoverability};

fn archiving(major: u32, megabytes: u32) -> Cluster {
    Cluster::builder(major)
        .wal_segment_size_mb(megabytes)
        // Files become ready and stay so: the test is the archiver.
        .setting("archive_mode = on")
        .setting("archive_command = 'false'")
        .start()
        .unwrap()
}

fn ready(cluster: &Cluster) -> Vec<String> {
    let entries = fs::read_dir(cluster.data().join("pg_wal/archive_status")).unwrap();
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.strip_suffix(".ready").map(str::to_owned)
        })
        .collect();
    names.sort();
    names
}

fn done(cluster: &Cluster, name: &str) {
    let status = cluster.data().join("pg_wal/archive_status");
    fs::rename(status.join(format!("{name}.ready")), status.join(format!("{name}.done"))).unwrap();
}

/// Archives everything that is ready, as the archiver does, and returns what it was: the server
/// may reuse the files.
fn archive(world: &World, cluster: &Cluster) -> BTreeMap<String, Vec<u8>> {
    let mut archived = BTreeMap::new();
    for name in ready(cluster) {
        world.push(&name).unwrap_or_else(|failure| panic!("{name}: {failure}"));
        let content = fs::read(cluster.data().join("pg_wal").join(&name)).unwrap();
        done(cluster, &name);
        archived.insert(name, content);
    }
    archived
}

fn assert_comes_back(world: &World, archived: &BTreeMap<String, Vec<u8>>) {
    for (name, original) in archived {
        let answer = world.fetch(name).unwrap_or_else(|failure| panic!("{name}: {failure}"));
        assert!(matches!(answer, Fetched::Done { .. }), "{name}");
        assert!(world.fetched().unwrap() == *original, "{name} came back changed");
    }
}

fn time(cluster: &Cluster, sql: &str) -> Timestamp {
    let text = cluster.psql(&format!(
        "SELECT to_char(({sql}) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
    ));
    text.unwrap().trim().parse().unwrap()
}

fn a_real_servers_wal_comes_back(major: u32, megabytes: u32) {
    let cluster = archiving(major, megabytes);
    let world = World::of_cluster(cluster.data());
    cluster.psql("CREATE TABLE notes (n int); SELECT pg_switch_wal()").unwrap();
    let mut moments = Vec::new();
    for number in 0..3 {
        cluster.psql(&format!("INSERT INTO notes VALUES ({number})")).unwrap();
        let at = cluster.psql("SELECT pg_walfile_name(pg_current_wal_lsn())").unwrap();
        moments.push((time(&cluster, "SELECT clock_timestamp()"), at.trim().to_owned()));
        cluster.psql("INSERT INTO notes VALUES (-1); SELECT pg_switch_wal()").unwrap();
    }
    let point: Lsn =
        cluster.psql("SELECT pg_create_restore_point('here')").unwrap().trim().parse().unwrap();
    cluster.psql("SELECT pg_switch_wal()").unwrap();

    let names = archive(&world, &cluster);
    assert!(names.len() >= 5, "{:?}", names.keys());
    assert_eq!(world.stored("east"), world.stored("west"));
    assert_comes_back(&world, &names);

    let blocking = Blocking::new().unwrap();
    let regions = world.open_regions();
    let inventory = Inventory::read(&blocking, regions.nearest(), &world.stream.keys).unwrap();
    for (moment, segment) in moments {
        let found = inventory.locate(Timeline(1), moment).unwrap().unwrap();
        assert_eq!(found.segment.to_string(), segment, "{moment}");
    }
    let points = inventory.restore_points(Timeline(1), "here", Lsn::ZERO).unwrap();
    assert_eq!(points.iter().map(|found| found.lsn).collect::<Vec<_>>(), [point]);
    assert!(inventory.gaps().is_empty());
}

#[test]
fn segments_of_version_15_come_back() {
    a_real_servers_wal_comes_back(15, 1);
}

#[test]
fn segments_of_version_18_come_back() {
    a_real_servers_wal_comes_back(18, 16);
}

#[test]
fn large_segments_of_version_15_come_back() {
    a_real_servers_wal_comes_back(15, 64);
}

#[test]
fn a_promotion_is_archived_with_history_and_partial_segment() {
    let mut cluster = archiving(15, 1);
    let world = World::of_cluster(cluster.data());
    cluster.psql("CREATE TABLE notes (n int); SELECT pg_switch_wal()").unwrap();
    cluster.psql("INSERT INTO notes VALUES (1)").unwrap();
    cluster.stop(Stop::Fast).unwrap();
    // A server in recovery removes what is ready without asking the archiver.
    let mut names = archive(&world, &cluster);
    fs::write(cluster.data().join("recovery.signal"), "").unwrap();
    let mut settings = fs::read_to_string(cluster.configuration()).unwrap();
    settings.push_str("restore_command = 'false'\n");
    fs::write(cluster.configuration(), settings).unwrap();
    cluster.start().unwrap();
    cluster.wait_for("SELECT pg_is_in_recovery()", "f").unwrap();
    cluster.psql("INSERT INTO notes VALUES (2); CHECKPOINT; SELECT pg_switch_wal()").unwrap();
    names.extend(archive(&world, &cluster));
    assert!(names.keys().any(|name| name == "00000002.history"), "{:?}", names.keys());
    assert!(names.keys().any(|name| name.ends_with(".partial")), "{:?}", names.keys());
    assert!(names.keys().any(|name| name.starts_with("00000002") && name.len() == 24));
    assert_comes_back(&world, &names);

    let blocking = Blocking::new().unwrap();
    let regions = world.open_regions();
    let window = recoverability(&blocking, &regions, &world.stream.keys, DATABASE).unwrap();
    assert!(!window.has_problems(), "{window:?}");
    let timelines = &window.regions[0].timelines;
    assert_eq!(timelines.len(), 2);
    let (parent, switch) = timelines[1].parent.unwrap();
    assert_eq!(parent, Timeline(1));
    let first = timelines[1].first.unwrap();
    assert_eq!(first.number(world.size), world.size.number_of(switch));
    // Answers that PostgreSQL builds on.
    assert!(matches!(world.fetch("00000003.history").unwrap(), Fetched::Absent { .. }));
    assert_eq!(world.push("00000002.history").unwrap().how, How::Identical);
}

/// Restore points whose records begin in one segment and end in the next.
#[test]
fn a_restore_point_across_two_segments_of_version_15_is_known() {
    const SEGMENT: u64 = 1 << 20;
    let cluster = archiving(15, 1);
    let world = World::of_cluster(cluster.data());
    cluster.psql("CREATE TABLE things (id int); CHECKPOINT").unwrap();
    let mut crossed = Vec::new();
    for attempt in 0..60 {
        // Another process of the server may write in between: then it is tried again. Filling
        // comes in two steps: first roughly, then up to a place in the last 96 bytes.
        let fill = |left: u64| {
            cluster
                .psql(&format!(
                    "SELECT pg_logical_emit_message(false, '', repeat('x', greatest(0, ({SEGMENT} -
                         (pg_current_wal_insert_lsn() - '0/0')::bigint % {SEGMENT})::int - {left})))"
                ))
                .unwrap();
        };
        fill(20_000);
        fill(600);
        let name = format!("point {attempt}");
        let target = 24 + attempt % 8 * 8;
        let answer = cluster
            .psql(&format!(
                "SELECT pg_logical_emit_message(false, '', repeat('x', greatest(0, ({SEGMENT} -
                     (pg_current_wal_insert_lsn() - '0/0')::bigint % {SEGMENT})::int - {target} - 58)));
                 SELECT pg_current_wal_insert_lsn() - '0/0';
                 SELECT pg_create_restore_point('{name}') - '0/0'"
            ))
            .unwrap();
        let numbers: Vec<u64> = answer.lines().filter_map(|line| line.parse().ok()).collect();
        let [.., begin, end] = numbers[..] else { panic!("{answer}") };
        // What ends within the first hundred bytes of a segment began in the one before.
        if begin / SEGMENT < end / SEGMENT && begin % SEGMENT > SEGMENT - 96 {
            crossed.push((name, Lsn(end)));
        }
        if crossed.len() >= 3 {
            break;
        }
    }
    assert!(crossed.len() >= 3, "{crossed:?}");
    cluster.psql("SELECT pg_switch_wal()").unwrap();
    archive(&world, &cluster);
    let regions = world.open_regions();
    let blocking = Blocking::new().unwrap();
    let inventory = Inventory::read(&blocking, regions.nearest(), &world.stream.keys).unwrap();
    for (name, lsn) in crossed {
        let points = inventory.restore_points(Timeline(1), &name, Lsn::ZERO).unwrap();
        assert_eq!(points.iter().map(|found| found.lsn).collect::<Vec<_>>(), [lsn], "{name}");
    }
}
