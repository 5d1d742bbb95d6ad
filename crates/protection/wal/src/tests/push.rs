use std::fs;
use std::path::Path;

use lifeboat_repository::ids::Incarnation;
use lifeboat_telemetry::Code;

use super::world::{DATABASE, World, failpoints};
use crate::incarnation::Marker;
use crate::push::How;
use lifeboat_model::SystemIdentifier;

const HISTORY: &[u8] = b"1\t0/3000000\tno recovery target specified\n";

#[test]
fn a_segment_lies_in_both_regions_with_the_same_bytes() {
    let world = World::new();
    let name = world.make(1, 7);
    let pushed = world.push(&name).unwrap();
    assert_eq!(pushed.how, How::Stored);
    assert_eq!(pushed.regions, ["east", "west"]);
    assert!(pushed.lag.is_empty());
    assert_eq!(world.stored("east"), world.stored("west"));
    assert_eq!(world.stored("east").keys().collect::<Vec<_>>(), [&name]);
}

#[test]
fn the_same_content_again_is_success_and_other_content_a_split_brain() {
    let world = World::new();
    let name = world.make(1, 7);
    world.push(&name).unwrap();
    let before = world.stored("east");
    assert_eq!(world.push(&name).unwrap().how, How::Identical);
    world.write(&name, &world.segment(world.name(1, 7), 2));
    let failure = world.push(&name).unwrap_err();
    assert_eq!(failure.code(), Code::SplitBrain, "{failure}");
    assert_eq!(world.stored("east"), before);
    assert_eq!(world.stored("west"), before);
}

#[test]
fn a_flipped_bit_in_a_stored_digest_is_damage_and_no_split_brain() {
    let world = World::new();
    let name = world.make(1, 7);
    world.push(&name).unwrap();
    for region in ["east", "west"] {
        let path = world.object(region, &name);
        let mut bytes = fs::read(&path).unwrap();
        let digest = world.stream.keys.content_digest(&world.segment(world.name(1, 7), 1));
        let at = bytes.windows(32).position(|window| window == digest).unwrap();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    let failure = world.push(&name).unwrap_err();
    assert_eq!(failure.code(), Code::ObjectDamaged, "{failure}");
}

#[test]
fn one_region_is_enough_and_the_other_gets_the_same_bytes_later() {
    let world = World::new();
    let name = world.make(1, 7);
    world.lose("west");
    let pushed = world.push(&name).unwrap();
    assert_eq!(pushed.regions, ["east"]);
    assert_eq!(pushed.lag.keys().collect::<Vec<_>>(), ["west"]);
    world.find("west");
    assert!(world.stored("west").is_empty());
    let again = world.push(&name).unwrap();
    assert_eq!((again.how, again.lag.len()), (How::Stored, 0));
    assert_eq!(world.stored("east"), world.stored("west"));
}

#[test]
fn a_region_that_failed_is_left_alone_for_a_while() {
    let world = World::new();
    let first = world.make(1, 7);
    world.push(&first).unwrap();
    world.lose("west");
    let second = world.make(1, 8);
    world.push(&second).unwrap();
    fs::rename(world.folder.path().join("lost"), world.repository("west")).unwrap();
    let third = world.make(1, 9);
    let pushed = world.push(&third).unwrap();
    assert_eq!(pushed.regions, ["east"]);
    assert!(pushed.lag["west"].contains("left alone"), "{:?}", pushed.lag);
}

#[test]
fn a_silent_region_holds_nobody_up() {
    let mut world = World::new();
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    world.silent = Some(("west", listener.local_addr().unwrap().port()));
    let variables = [("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    world.environment = world.environment.clone().with_variables(variables.into());
    let names = [world.make(1, 7), world.make(1, 8)];
    // Both patience and deadline are a minute: who waits for the region gets no answer in time.
    let pushed = world.push(&names[0]).unwrap();
    assert_eq!(pushed.regions, ["east"]);
    assert!(pushed.lag["west"].contains("no answer within"), "{:?}", pushed.lag);
    let pushed = world.push(&names[1]).unwrap();
    assert!(pushed.lag["west"].contains("left alone"), "{:?}", pushed.lag);
}

#[test]
fn where_all_regions_failed_none_rests() {
    let world = World::new();
    let name = world.make(1, 7);
    world.lose("east");
    let east = world.folder.path().join("lost");
    let west = world.folder.path().join("lost-too");
    fs::rename(world.repository("west"), &west).unwrap();
    assert!(world.push(&name).is_err());
    fs::rename(east, world.repository("east")).unwrap();
    fs::rename(west, world.repository("west")).unwrap();
    assert_eq!(world.push(&name).unwrap().regions, ["east", "west"]);
}

#[test]
fn without_any_region_the_push_fails_with_the_cause() {
    let mut world = World::new();
    world.regions = vec!["east"];
    let name = world.make(1, 7);
    world.lose("east");
    assert_eq!(world.push(&name).unwrap_err().code(), Code::StoreUnavailable);
}

#[test]
fn what_is_ready_is_pushed_ahead_and_answered_later() {
    let world = World::new();
    let names: Vec<String> = (7..12).map(|number| world.make(1, number)).collect();
    names.iter().for_each(|name| world.ready(name));
    let mut pushed = world.push(&names[0]).unwrap();
    pushed.ahead.sort();
    assert_eq!(pushed.ahead, names[1..]);
    assert_eq!(world.stored("west").len(), 5);
    // No repository is asked any more.
    world.lose("east");
    for name in &names[1..] {
        assert_eq!(world.push(name).unwrap().how, How::Ahead, "{name}");
        // The memory is for one call: PostgreSQL asks again only if it did not hear the answer.
        assert_ne!(world.push(name).unwrap().how, How::Ahead, "{name}");
    }
}

#[test]
fn no_more_than_the_limit_is_pushed_ahead() {
    let mut world = World::new();
    world.ahead.files = 2;
    let names: Vec<String> = (7..12).map(|number| world.make(1, number)).collect();
    names.iter().for_each(|name| world.ready(name));
    let mut pushed = world.push(&names[0]).unwrap();
    pushed.ahead.sort();
    assert_eq!(pushed.ahead, names[1..3]);
}

#[test]
fn an_ack_never_answers_for_another_content() {
    let world = World::new();
    let names = [world.make(1, 7), world.make(1, 8)];
    names.iter().for_each(|name| world.ready(name));
    world.push(&names[0]).unwrap();
    // The same name, the same length, written anew.
    world.write(&names[1], &world.segment(world.name(1, 8), 9));
    assert_eq!(world.push(&names[1]).unwrap_err().code(), Code::SplitBrain);
}

#[test]
fn a_tampered_or_moved_ack_is_not_believed() {
    let world = World::new();
    let names = [world.make(1, 7), world.make(1, 8), world.make(1, 9)];
    names[..2].iter().for_each(|name| world.ready(name));
    world.push(&names[0]).unwrap();
    let acks = world.state().join("spool").join(world.stream.keys.stream().to_string());
    let acks = acks.join("acks");
    let ack = fs::read_to_string(acks.join(&names[1])).unwrap();
    fs::write(acks.join(&names[2]), &ack).unwrap();
    assert_eq!(world.push(&names[2]).unwrap().how, How::Stored);
    let other = if ack.starts_with('0') { "1" } else { "0" };
    fs::write(acks.join(&names[1]), format!("{other}{}", &ack[1..])).unwrap();
    assert_eq!(world.push(&names[1]).unwrap().how, How::Identical);
}

#[test]
fn a_bad_neighbour_does_not_spoil_the_answer() {
    let world = World::new();
    let names = [world.make(1, 7), world.make(1, 8)];
    names.iter().for_each(|name| world.ready(name));
    world.write(&names[1], b"torn");
    let pushed = world.push(&names[0]).unwrap();
    assert_eq!((pushed.how, pushed.ahead.len()), (How::Stored, 0));
    assert_eq!(world.push(&names[1]).unwrap_err().code(), Code::WalInvalid);
}

#[test]
fn while_another_call_pushes_ahead_this_one_sees_to_its_own_file() {
    let world = World::new();
    let names = [world.make(1, 7), world.make(1, 8)];
    names.iter().for_each(|name| world.ready(name));
    let spool = world.state().join("spool").join(world.stream.keys.stream().to_string());
    fs::create_dir_all(&spool).unwrap();
    let lock = fs::File::create(spool.join("lock")).unwrap();
    lock.lock().unwrap();
    let pushed = world.push(&names[0]).unwrap();
    assert_eq!((pushed.how, pushed.ahead.len()), (How::Stored, 0));
}

#[test]
fn an_unusable_spool_costs_time_only() {
    let world = World::new();
    let names = [world.make(1, 7), world.make(1, 8)];
    names.iter().for_each(|name| world.ready(name));
    fs::write(world.state().join("spool"), "not a folder").unwrap();
    assert_eq!(world.push(&names[0]).unwrap().how, How::Stored);
    assert_eq!(world.push(&names[1]).unwrap().how, How::Stored);
}

#[test]
fn history_label_and_partial_files_are_archived() {
    let world = World::new();
    world.write("00000002.history", HISTORY);
    let segment = world.name(1, 3);
    let partial = format!("{segment}.partial");
    world.write(&partial, &world.segment(segment, 4));
    let label = format!("{segment}.00000028.backup");
    let text = format!(
        "START WAL LOCATION: 0/300028 (file {segment})\nSTOP WAL LOCATION: 0/300100 (file \
         {segment})\nCHECKPOINT LOCATION: 0/300060\nBACKUP METHOD: streamed\nBACKUP FROM: \
         primary\nSTART TIME: 2026-11-21 00:00:00 UTC\nLABEL: x\nSTART TIMELINE: 1\nSTOP TIME: \
         2026-11-21 00:00:01 UTC\nSTOP TIMELINE: 1\n"
    );
    world.write(&label, text.as_bytes());
    for name in ["00000002.history", &partial, &label] {
        assert_eq!(world.push(name).unwrap().how, How::Stored, "{name}");
        assert_eq!(world.push(name).unwrap().how, How::Identical, "{name}");
    }
    assert_eq!(world.stored("east").len(), 3);
    assert_eq!(world.stored("east"), world.stored("west"));
}

#[test]
fn histories_that_nobody_asks_for_are_pushed_once() {
    let world = World::new();
    fs::write(world.data().join("global/pg_control"), world.control(2)).unwrap();
    world.write("00000002.history", HISTORY);
    let names = [world.make(2, 3), world.make(2, 4)];
    assert_eq!(world.push(&names[0]).unwrap().ahead, ["00000002.history"]);
    assert!(world.push(&names[1]).unwrap().ahead.is_empty());
}

#[test]
fn a_file_that_is_not_what_its_name_says_is_refused() {
    let world = World::new();
    let name = world.name(1, 7).to_string();
    let good = world.segment(world.name(1, 7), 1);
    let mut foreign = good.clone();
    foreign[24] ^= 1;
    let mut short = good.clone();
    short.pop();
    let cases: [(&str, &[u8], Code); 6] = [
        ("recycled", &world.segment(world.name(1, 5), 1), Code::WalInvalid),
        ("foreign", &foreign, Code::ClusterMismatch),
        ("short", &short, Code::WalInvalid),
        ("long", &[good.as_slice(), b"x"].concat(), Code::WalInvalid),
        ("empty", b"", Code::WalInvalid),
        ("zeros", &vec![0; good.len()], Code::WalInvalid),
    ];
    for (what, content, code) in cases {
        world.write(&name, content);
        let failure = world.push(&name).unwrap_err();
        assert_eq!(failure.code(), code, "{what}: {failure}");
    }
    world.write("00000002.history", b"");
    assert_eq!(world.push("00000002.history").unwrap_err().code(), Code::WalInvalid);
    world.write("../passwd", b"x");
    assert_eq!(world.push("../passwd").unwrap_err().code(), Code::Usage);
    assert!(world.stored("east").is_empty());
}

#[test]
fn large_segments_are_stored_in_parts() {
    let world = World::with_segments_of(64);
    let name = world.make(1, 7);
    assert_eq!(world.push(&name).unwrap().how, How::Stored);
    let parts = [name.clone(), format!("{name}.part-00000000"), format!("{name}.part-00000001")];
    assert_eq!(world.stored("east").into_keys().collect::<Vec<_>>(), parts);
    assert_eq!(world.push(&name).unwrap().how, How::Identical);
    // What a crash left is used, and a region that lacks a part gets the same bytes.
    fs::remove_file(world.object("east", &name)).unwrap();
    fs::remove_file(world.object("west", &name)).unwrap();
    fs::remove_file(world.object("west", &parts[1])).unwrap();
    assert_eq!(world.push(&name).unwrap().how, How::Stored);
    assert_eq!(world.stored("east"), world.stored("west"));
    world.fetch(&name).unwrap();
    assert_eq!(world.fetched().unwrap(), world.segment(world.name(1, 7), 1));
    // Only the second part differs.
    let mut other = world.segment(world.name(1, 7), 1);
    other[40 << 20] ^= 1;
    world.write(&name, &other);
    assert_eq!(world.push(&name).unwrap_err().code(), Code::SplitBrain);
}

#[test]
fn a_copy_in_another_directory_may_not_write() {
    let world = World::new();
    let name = world.make(1, 7);
    let clone = world.folder.path().join("clone");
    fs::create_dir_all(clone.join("pg_wal")).unwrap();
    fs::create_dir_all(clone.join("global")).unwrap();
    fs::write(clone.join("global/pg_control"), world.control(1)).unwrap();
    fs::copy(world.data().join("pg_wal").join(&name), clone.join("pg_wal").join(&name)).unwrap();
    let path = Path::new("pg_wal").join(&name);
    let failure = world.push_from(&clone, &path).unwrap_err();
    assert_eq!(failure.code(), Code::CloneRefused);
    // Nor by an absolute path.
    let failure = world.push_from(&clone, &world.data().join(&path)).unwrap_err();
    assert_eq!(failure.code(), Code::CloneRefused);
    assert!(world.stored("east").is_empty());
    // Any path will do for the cluster itself.
    assert!(world.push_from(world.data(), &clone.join(&path)).is_ok());
}

#[test]
fn another_cluster_in_the_place_is_refused() {
    let mut world = World::new();
    let name = world.make(1, 7);
    world.stream.system_identifier += 1;
    assert_eq!(world.push(&name).unwrap_err().code(), Code::BindingConflict);
}

#[test]
fn who_was_replaced_as_the_source_may_not_write_even_if_one_region_does_not_know() {
    let world = World::new();
    let name = world.make(1, 7);
    world.lose("east");
    world.grant(2, Incarnation(2));
    world.find("east");
    let failure = world.push(&name).unwrap_err();
    assert_eq!(failure.code(), Code::CloneRefused, "{failure}");
    assert!(world.stored("east").is_empty());
}

#[test]
fn the_marker_decides_which_incarnation_may_write() {
    let mut world = World::new();
    let name = world.make(1, 7);
    let system = SystemIdentifier(world.stream.system_identifier);
    let mark = |number, granted| {
        Marker::new(DATABASE, system, Incarnation(number), granted).write(world.data()).unwrap();
    };
    mark(2, false);
    assert_eq!(world.push(&name).unwrap_err().code(), Code::CloneRefused);
    mark(2, true);
    assert_eq!(world.push(&name).unwrap_err().code(), Code::CloneRefused);
    fs::write(world.data().join(crate::incarnation::MARKER), "{").unwrap();
    assert_eq!(world.push(&name).unwrap_err().code(), Code::CloneRefused);
    mark(2, true);
    world.grant(2, Incarnation(2));
    world.stream.incarnation = Incarnation(2);
    world.stream.binding = 2;
    world.stream.keys = world.secrets.stream(system.0, Incarnation(2));
    assert_eq!(world.push(&name).unwrap().how, How::Stored);
    // The first incarnation has no marker; it is not the source any more.
    fs::remove_file(world.data().join(crate::incarnation::MARKER)).unwrap();
    let other = world.make(1, 8);
    assert_eq!(world.push(&other).unwrap_err().code(), Code::CloneRefused);
}

#[test]
fn a_failure_at_any_stage_leaves_nothing_that_the_next_call_trips_over() {
    for stage in ["push.start", "push.encoded", "push.stored", "push.acked"] {
        let mut world = World::new();
        let name = world.make(1, 7);
        world.environment =
            world.environment.clone().with_failpoints(failpoints(&format!("{stage}=error*1")));
        assert_eq!(world.push(&name).unwrap_err().code(), Code::Failpoint, "{stage}");
        world.push(&name).unwrap_or_else(|failure| panic!("{stage}: {failure}"));
        assert_eq!(world.stored("east"), world.stored("west"), "{stage}");
        assert_eq!(world.stored("east").len(), 1, "{stage}");
    }
}
