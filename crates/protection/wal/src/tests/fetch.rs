use std::fs;
use std::os::unix::fs::PermissionsExt;

use lifeboat_model::Timeline;
use lifeboat_telemetry::Code;

use super::world::{World, failpoints};
use crate::fetch::Fetched;

const HISTORY: &[u8] = b"1\t0/3000000\tno recovery target specified\n";

fn absent(world: &World, name: &str) -> bool {
    match world.fetch(name) {
        Ok(Fetched::Absent { .. }) => {
            assert_eq!(world.fetched(), None);
            true
        }
        Ok(Fetched::Done { .. }) => panic!("{name} was fetched"),
        Err(failure) => {
            assert_eq!(failure.code(), Code::WalGap, "{name}: {failure}");
            false
        }
    }
}

fn from(world: &World, name: &str) -> Option<String> {
    match world.fetch(name).unwrap_or_else(|failure| panic!("{name}: {failure}")) {
        Fetched::Done { region, .. } => region,
        Fetched::Absent { reason } => panic!("{reason}"),
    }
}

fn push_all(world: &World, numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
    let names: Vec<String> = numbers.into_iter().map(|number| world.make(1, number)).collect();
    names.iter().for_each(|name| drop(world.push(name).unwrap()));
    names
}

#[test]
fn what_was_pushed_comes_back_byte_by_byte() {
    let world = World::new();
    let names = push_all(&world, [7]);
    assert_eq!(from(&world, &names[0]).unwrap(), "east");
    assert_eq!(world.fetched().unwrap(), world.segment(world.name(1, 7), 1));
    world.write("00000002.history", HISTORY);
    world.push("00000002.history").unwrap();
    from(&world, "00000002.history");
    assert_eq!(world.fetched().unwrap(), HISTORY);
    let left = fs::read_dir(world.target().join("pg_wal")).unwrap().count();
    assert_eq!(left, 1, "a staged file was left");
}

#[test]
fn a_segment_is_absent_only_behind_the_frontier_of_its_timeline() {
    let world = World::new();
    let names = push_all(&world, [7, 8, 10, 11]);
    let name = |number| world.name(1, number).to_string();
    assert!(absent(&world, &name(12)));
    assert!(absent(&world, &name(4000)));
    assert!(!absent(&world, &name(9)), "a gap");
    assert!(!absent(&world, &name(6)), "before the first");
    // Another timeline has its own frontier.
    assert!(absent(&world, &world.name(2, 9).to_string()));
    assert_eq!(names.len(), 4);
}

#[test]
fn what_the_plan_knew_of_is_a_gap_when_it_is_gone() {
    let world = World::new();
    push_all(&world, [7]);
    let mut plan = world.plan();
    plan.frontier = vec![world.name(1, 9)];
    for number in [8, 9] {
        let failure = world.fetch_by(&plan, &world.name(1, number).to_string()).unwrap_err();
        assert_eq!(failure.code(), Code::WalGap, "{number}");
    }
    let after = world.fetch_by(&plan, &world.name(1, 10).to_string()).unwrap();
    assert!(matches!(after, Fetched::Absent { .. }));
}

#[test]
fn a_history_is_absent_only_of_an_unknown_timeline() {
    let world = World::new();
    push_all(&world, [7]);
    assert!(absent(&world, "00000002.history"));
    assert!(absent(&world, "00000001.history"), "the first timeline has none");
    let name = world.make(3, 8);
    world.push(&name).unwrap();
    assert!(!absent(&world, "00000003.history"), "a known timeline");
    assert!(!absent(&world, "00000002.history"), "a hole before a known timeline");
    assert!(absent(&world, "00000004.history"));
    // A recovery that starts on this very timeline needs no history of it.
    let mut plan = world.plan();
    plan.timeline = Timeline(3);
    let answer = world.fetch_by(&plan, "00000003.history").unwrap();
    assert!(matches!(answer, Fetched::Absent { .. }));
}

#[test]
fn a_missing_repository_proves_nothing() {
    let world = World::new();
    let names = push_all(&world, [7]);
    world.lose("east");
    // Reading goes on elsewhere; absence is not judged there.
    assert_eq!(from(&world, &names[0]).unwrap(), "west");
    // It is asked last from now on, also by the process that fetches ahead.
    assert_eq!(world.prefetch(&world.name(1, 6).to_string()).unwrap(), 1);
    assert_eq!(from(&world, &names[0]), None);
    let failure = world.fetch(&world.name(1, 8).to_string()).unwrap_err();
    assert_eq!(failure.code(), Code::StoreUnavailable, "{failure}");
    // An empty folder in its place, as an unmounted disk shows it.
    fs::create_dir(world.repository("east")).unwrap();
    let failure = world.fetch(&world.name(1, 8).to_string()).unwrap_err();
    assert_eq!(failure.code(), Code::RepositoryMissing, "{failure}");
}

#[test]
fn an_unreadable_or_foreign_format_proves_nothing() {
    let world = World::new();
    push_all(&world, [7]);
    let next = world.name(1, 8).to_string();
    let format = world.repository("east").join("format");
    let good = fs::read(&format).unwrap();
    let mut bad = good.clone();
    bad[70] ^= 1;
    fs::write(&format, bad).unwrap();
    assert_eq!(world.fetch(&next).unwrap_err().code(), Code::FormatUnreadable);
    let other = World::new();
    fs::copy(other.repository("east").join("format"), &format).unwrap();
    assert_eq!(world.fetch(&next).unwrap_err().code(), Code::VaultMismatch);
    fs::write(&format, good).unwrap();
    assert!(absent(&world, &next));
}

#[test]
fn damage_is_cured_by_the_other_region_and_else_is_an_error() {
    let world = World::new();
    let names = push_all(&world, [7]);
    let good = fs::read(world.object("east", &names[0])).unwrap();
    for at in [0, 20, 70, 200, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(world.object("east", &names[0]), bad).unwrap();
        assert_eq!(from(&world, &names[0]).unwrap(), "west", "byte {at}");
    }
    fs::write(world.object("east", &names[0]), &good[..good.len() - 7]).unwrap();
    fs::write(world.object("west", &names[0]), &good[..100]).unwrap();
    let failure = world.fetch(&names[0]).unwrap_err();
    assert_eq!(failure.code(), Code::ObjectDamaged, "{failure}");
    fs::remove_file(world.target().join("pg_wal/RECOVERYXLOG")).unwrap();
    // A segment under another's name.
    let other = push_all(&world, [8]);
    fs::copy(world.object("east", &other[0]), world.object("east", &names[0])).unwrap();
    assert!(world.fetch(&names[0]).is_err());
    assert_eq!(world.fetched(), None);
}

#[test]
fn a_missing_part_is_damage_and_never_absence() {
    let world = World::with_segments_of(64);
    let names = push_all(&world, [7]);
    for region in ["east", "west"] {
        fs::remove_file(world.object(region, &format!("{}.part-00000001", names[0]))).unwrap();
    }
    let failure = world.fetch(&names[0]).unwrap_err();
    assert_eq!(failure.code(), Code::ObjectDamaged, "{failure}");
    assert_eq!(world.fetched(), None);
}

#[test]
fn a_segment_of_another_cluster_is_not_handed_out() {
    let world = World::new();
    let names = push_all(&world, [7]);
    let mut plan = world.plan();
    plan.system_identifier.0 += 1;
    let failure = world.fetch_by(&plan, &names[0]).unwrap_err();
    assert_eq!(failure.code(), Code::ClusterMismatch, "{failure}");
    assert_eq!(world.fetched(), None);
}

#[test]
fn absence_needs_no_key_but_reading_does() {
    let world = World::new();
    let names = push_all(&world, [7]);
    let key = world.state().join("read.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(world.fetch(&names[0]).unwrap_err().code(), Code::KeyUnavailable);
    fs::remove_file(&key).unwrap();
    assert_eq!(world.fetch(&names[0]).unwrap_err().code(), Code::KeyUnavailable);
    assert!(absent(&world, &world.name(1, 8).to_string()));
}

#[test]
fn a_standby_hears_not_available_now() {
    let world = World::new();
    push_all(&world, [7, 9]);
    fs::write(world.target().join("standby.signal"), "").unwrap();
    assert!(absent(&world, &world.name(1, 8).to_string()));
    world.lose("east");
    assert!(absent(&world, &world.name(1, 10).to_string()));
}

#[test]
fn nonsense_is_never_absence() {
    let world = World::new();
    for name in ["", "x", "../../etc/passwd", "000000010000000000000007.gz", "RECOVERYXLOG"] {
        assert_eq!(world.fetch(name).unwrap_err().code(), Code::Usage, "{name}");
    }
}

#[test]
fn what_was_fetched_ahead_is_used_and_checked() {
    let world = World::new();
    let names = push_all(&world, 7..30);
    let Fetched::Done { prefetch, .. } = world.fetch(&names[0]).unwrap() else { panic!() };
    assert!(prefetch);
    let fetched = world.prefetch(&names[0]).unwrap();
    // Either thread keeps a place free for what the other may be about to add.
    assert!((15..=16).contains(&fetched), "{fetched}");
    let folder = fs::read_dir(world.plan().prefetch).unwrap().next().unwrap().unwrap().path();
    fs::write(folder.join(&names[2]), "torn").unwrap();
    assert_eq!(from(&world, &names[1]), None);
    assert_eq!(world.fetched().unwrap(), world.segment(world.name(1, 8), 1));
    assert_eq!(from(&world, &names[2]).unwrap(), "east");
    assert_eq!(world.fetched().unwrap(), world.segment(world.name(1, 9), 1));
    // The queue of a recovery that went elsewhere is cleared.
    world.prefetch(&names[20]).unwrap();
    let mut left: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, [names[21].as_str(), names[22].as_str(), "lock"]);
}

#[test]
fn one_process_fills_the_queue_and_earlier_boots_are_forgotten() {
    let world = World::new();
    let names = push_all(&world, 7..9);
    let old = world.plan().prefetch.join("an-earlier-boot");
    fs::create_dir_all(&old).unwrap();
    fs::write(old.join(&names[1]), "torn").unwrap();
    assert_eq!(from(&world, &names[1]).unwrap(), "east");
    assert_eq!(world.prefetch(&names[0]).unwrap(), 1);
    assert!(!old.exists());
    let folder = fs::read_dir(world.plan().prefetch).unwrap().next().unwrap().unwrap().path();
    let lock = fs::File::open(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    fs::remove_file(folder.join(&names[1])).unwrap();
    assert_eq!(world.prefetch(&names[0]).unwrap(), 0);
}

#[test]
fn a_failure_at_any_stage_leaves_no_file_for_postgresql() {
    for stage in ["fetch.read", "fetch.written"] {
        let mut world = World::new();
        let names = push_all(&world, [7]);
        world.environment =
            world.environment.clone().with_failpoints(failpoints(&format!("{stage}=error*2")));
        assert_eq!(world.fetch(&names[0]).unwrap_err().code(), Code::Failpoint, "{stage}");
        assert_eq!(world.fetched(), None, "{stage}");
    }
}
