//! Servers that are not what they should be, and connections that break.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use lifeboat_environment::{Clock, Environment, ManualClock, SeededRandom};
use lifeboat_model::spec::Durable;
use lifeboat_model::{Lsn, SystemIdentifier};
use lifeboat_repository::ids::Incarnation;
use lifeboat_repository::wal_file::WalFacts;
use lifeboat_telemetry::Code;
use proptest::prelude::*;

use super::script::{Server, Stage, Trick, code};
use super::written::{SEGMENT, Wal};
use crate::incarnation::Marker;
use crate::tests::world::{DATABASE, SYSTEM};

fn wal(bytes: u64) -> Wal {
    let mut wal = Wal::new(1, 3 * SEGMENT, 77);
    wal.grow(bytes);
    wal
}

#[test]
fn everything_is_acknowledged_shipped_and_stored() {
    let stage = Stage::new();
    let wal = wal(3 * SEGMENT + 300_000);
    let (outcome, _, seen) = stage.receive(vec![Server::of(wal.clone())]);
    let received = outcome.unwrap();
    assert_eq!((received.flushed, received.waiting_bytes), (Some((wal.timeline, wal.end())), 0));
    assert_eq!(seen.started, [(1, wal.start)]);
    assert!(seen.acknowledged.windows(2).all(|pair| pair[0].1 <= pair[1].1));
    stage.holds(&wal, wal.end());
    // Three whole segments under their own names; what is left of them in the spool is one to
    // check the next one with, and the next one.
    assert_eq!(stage.objects("wal").len(), 3);
    let left = std::fs::read_dir(stage.spool().join("00000001")).unwrap().count();
    assert_eq!(left, 2);
    assert_eq!(stage.objects("receivers"), ["00000001"]);
}

#[test]
fn fragments_end_where_records_end_and_know_their_commits() {
    let stage = Stage::new();
    let wal = wal(200_000);
    let (outcome, ..) = stage.receive(vec![Server::of(wal.clone())]);
    outcome.unwrap();
    let mut commits = 0;
    for (_, start, plain, facts) in stage.pieces() {
        let end = Lsn(start.0 + plain.len() as u64);
        assert!(wal.ends.contains(&end), "{end} is no end of a record");
        commits += usize::from(facts.last_commit_us.is_some());
        assert!(facts.last_record.is_some_and(|last| last >= start && last < end));
    }
    assert!(commits > 0);
}

#[test]
fn an_idle_server_costs_no_object() {
    let stage = Stage::new();
    let wal = wal(100_000);
    let (outcome, servers, _) = stage.receive(vec![Server::of(wal.clone())]);
    outcome.unwrap();
    let before = (stage.objects("fragments"), stage.objects("receivers"));
    stage.receive(servers).0.unwrap();
    assert_eq!((stage.objects("fragments"), stage.objects("receivers")), before);
}

#[test]
fn a_connection_that_breaks_is_taken_up_where_it_broke() {
    let wal = wal(3 * SEGMENT);
    let places = [
        wal.start.0 + SEGMENT,
        wal.start.0 + 1,
        wal.start.0 + 2 * SEGMENT - 1,
        wal.start.0 + 8192 + 10,
    ];
    for place in places {
        let stage = Stage::new();
        let server = Server::of(wal.clone()).trick(Trick::BreakAt(Lsn(place)));
        let (outcome, _, seen) = stage.receive(vec![server]);
        outcome.unwrap();
        assert_eq!(seen.started, [(1, wal.start), (1, Lsn(place - place % SEGMENT))]);
        stage.holds(&wal, wal.end());
    }
}

#[test]
fn bytes_that_are_left_out_end_the_receiver_and_nothing_behind_them_is_acknowledged() {
    let wal = wal(3 * SEGMENT);
    for (place, count) in [(SEGMENT, SEGMENT), (SEGMENT, 8192), (SEGMENT + 5000, 8)] {
        let place = Lsn(wal.start.0 + place);
        let mut stage = Stage::new();
        let server = Server::of(wal.clone()).trick(Trick::Skip(place, count));
        let (outcome, _, seen) = stage.receive(vec![server]);
        assert_eq!(code(&outcome), Code::WalInvalid);
        assert!(seen.acknowledged.iter().all(|(_, lsn)| *lsn <= place), "{seen:?}");
        stage.keeps_what_it_acknowledged(&wal, &seen);
    }
}

#[test]
fn a_page_header_that_is_damaged_on_the_way_is_never_acknowledged() {
    let wal = wal(2 * SEGMENT);
    // Magic number, address, system identifier, segment size.
    for place in [SEGMENT, 8192 + 9, SEGMENT + 26, SEGMENT + 34] {
        let stage = Stage::new();
        let place = Lsn(wal.start.0 + place);
        let server = Server::of(wal.clone()).trick(Trick::Flip(place));
        let (outcome, _, seen) = stage.receive(vec![server]);
        assert!(matches!(code(&outcome), Code::WalInvalid | Code::ClusterMismatch), "{outcome:?}");
        assert!(seen.acknowledged.iter().all(|(_, lsn)| *lsn <= place));
    }
}

#[test]
fn a_record_that_does_not_hold_stops_the_receiver_before_it_is_shipped() {
    let wal = wal(300_000);
    let stage = Stage::new();
    let place = Lsn(wal.start.0 + 100_000);
    let server = Server::of(wal.clone()).trick(Trick::Flip(place));
    let (outcome, ..) = stage.receive(vec![server]);
    assert_eq!(code(&outcome), Code::WalInvalid);
    let whole = wal.whole(place);
    assert!(
        stage.pieces().iter().all(|(_, start, plain, _)| start.0 + plain.len() as u64 <= whole.0)
    );
}

#[test]
fn other_wal_than_before_is_a_split_brain() {
    let stage = Stage::new();
    let one = wal(SEGMENT / 2);
    stage.receive(vec![Server::of(one.clone())]).0.unwrap();
    let mut other = Wal::new(1, one.start.0, 78);
    other.grow(SEGMENT);
    let (outcome, _, seen) = stage.receive(vec![Server::of(other)]);
    assert_eq!(code(&outcome), Code::SplitBrain);
    assert!(seen.acknowledged.iter().all(|(_, lsn)| *lsn == one.start), "{seen:?}");
    stage.holds(&one, one.end());
}

#[test]
fn without_a_spool_other_wal_than_was_shipped_is_a_split_brain() {
    let stage = Stage::new();
    let one = wal(SEGMENT / 2);
    stage.receive(vec![Server::of(one.clone())]).0.unwrap();
    std::fs::remove_dir_all(stage.spool()).unwrap();
    let mut other = Wal::new(1, one.start.0, 78);
    other.grow(SEGMENT);
    let (outcome, ..) = stage.receive(vec![Server::of(other)]);
    assert_eq!(code(&outcome), Code::SplitBrain);
    stage.holds(&one, one.end());
}

#[test]
fn a_copy_that_nobody_adopted_is_not_received_from() {
    let stage = Stage::new();
    let mut script = stage.script(vec![Server::of(wal(100_000))], None);
    let data = stage.world.data().to_owned();
    let system = SystemIdentifier(SYSTEM);
    Marker::new(DATABASE, system, Incarnation(2), false).write(&data).unwrap();
    script.data_directory = Some(data);
    let outcome = stage.run(&mut script, false);
    assert_eq!(code(&outcome), Code::CloneRefused);
    assert!(stage.objects("fragments").is_empty() && script.seen.borrow().started.is_empty());
}

#[test]
fn another_incarnation_that_was_granted_ends_the_receiver() {
    let stage = Stage::new();
    stage.world.grant(2, Incarnation(2));
    let (outcome, _, seen) = stage.receive(vec![Server::of(wal(100_000))]);
    assert_eq!(code(&outcome), Code::CloneRefused);
    assert!(seen.acknowledged.is_empty());
}

#[test]
fn a_segment_that_a_rival_stored_with_other_content_is_a_split_brain() {
    let stage = Stage::new();
    let wal = wal(SEGMENT / 2);
    stage.receive(vec![Server::of(wal.clone())]).0.unwrap();
    let mut longer = wal.clone();
    longer.grow(2 * SEGMENT);
    // Stored after the receiver has looked, and before it comes to store its own.
    let name = stage.world.name(1, 3).to_string();
    let once = Cell::new(true);
    let mut script = stage.script(vec![Server::of(longer.clone())], Some(longer.end()));
    let put = Rc::new(stage);
    let stage = Rc::clone(&put);
    script.watch = Rc::new(move |_, _| {
        if once.replace(false) {
            put.world.put("east", &name, &WalFacts::default());
        }
    });
    let outcome = stage.run(&mut script, false);
    assert_eq!(code(&outcome), Code::SplitBrain);
}

#[test]
fn wrong_servers_are_refused_each_with_its_code() {
    let wal = wal(100_000);
    let stage = Stage::new();
    let stranger = Server { system: 4711, ..Server::of(wal.clone()) };
    assert_eq!(code(&stage.receive(vec![stranger]).0), Code::ClusterMismatch);
    let copy = Server { incarnation: Some(4711), ..Server::of(wal.clone()) };
    assert_eq!(code(&stage.receive(vec![copy]).0), Code::CloneRefused);
    for (sqlstate, expected) in [
        ("28P01", Code::ClusterPermission),
        ("28000", Code::ClusterPermission),
        ("53300", Code::ClusterSettings),
        ("53400", Code::ClusterSettings),
    ] {
        let server = Server { refuses: Some(sqlstate), ..Server::of(wal.clone()) };
        assert_eq!(code(&stage.receive(vec![server]).0), expected, "{sqlstate}");
    }
    assert!(stage.objects("fragments").is_empty());
}

#[test]
fn the_primary_is_found_among_standbys_and_dead_nodes() {
    let wal = wal(100_000);
    let stage = Stage::new();
    let standby = Server { in_recovery: true, ..Server::of(wal.clone()) };
    let dead = Server { refuses: Some("57P03"), ..Server::of(wal.clone()) };
    let (outcome, ..) = stage.receive(vec![dead, standby, Server::of(wal.clone())]);
    outcome.unwrap();
    stage.holds(&wal, wal.end());
}

#[test]
fn an_old_epochs_primary_that_still_lives_is_told_nothing() {
    let wal = wal(100_000);
    let mut ahead = wal.clone();
    ahead.grow(50_000);
    let mut stage = Stage::new();
    stage.epoch = 4;
    let old = Server { epoch: Some(3), ..Server::of(ahead) };
    let mut alone = stage.script(vec![old.clone()], None);
    alone.sessions_max = 2;
    stage.run(&mut alone, false).unwrap();
    assert!(alone.seen.borrow().started.is_empty());
    assert!(stage.said().contains("is the primary of epoch 3, and 4 has begun"));
    // One that was told the epoch is, and one that was never told any.
    for epoch in [Some(4), None] {
        let new = Server { epoch, ..Server::of(wal.clone()) };
        let mut both = stage.script(vec![old.clone(), new], Some(wal.end()));
        stage.run(&mut both, false).unwrap();
        assert!(both.seen.borrow().acknowledged.iter().all(|(_, at)| *at <= wal.end()));
        stage.holds(&wal, wal.end());
    }
}

#[test]
fn a_server_that_says_nothing_is_left_and_asked_anew() {
    let mut stage = Stage::new();
    let clock = Arc::new(Hurried(ManualClock::at(Timestamp::UNIX_EPOCH)));
    stage.environment = Environment::for_test(clock, Arc::new(SeededRandom::new(3)));
    let wal = wal(100_000);
    let (outcome, _, seen) = stage.receive(vec![Server::of(wal.clone()).trick(Trick::Silence)]);
    outcome.unwrap();
    assert!(stage.said().contains("has said nothing for"), "{}", stage.said());
    assert_eq!(seen.sessions, 2);
    stage.holds(&wal, wal.end());
}

/// A clock that goes on at every look.
struct Hurried(ManualClock);

impl Clock for Hurried {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn elapsed(&self) -> Duration {
        self.0.advance(Duration::from_millis(50));
        self.0.elapsed()
    }

    fn sleep(&self, duration: Duration) {
        self.0.advance(duration);
    }
}

#[test]
fn a_server_that_shuts_down_gets_its_acknowledgement_first() {
    let stage = Stage::new();
    let wal = wal(100_000);
    let server = Server::of(wal.clone()).trick(Trick::Shutdown);
    let mut script = stage.script(vec![server], None);
    script.sessions_max = 1;
    stage.run(&mut script, false).unwrap();
    assert!(script.servers[0].borrow().tricks.is_empty());
    assert!(stage.said().contains("was shut down"), "{}", stage.said());
    stage.holds(&wal, wal.end());
}

#[test]
fn with_durable_repository_only_what_is_shipped_is_acknowledged() {
    let mut stage = Stage::new();
    stage.durable = Durable::Repository;
    let wal = wal(SEGMENT + 200_000);
    let (outcome, _, seen) = stage.receive(vec![Server::of(wal.clone())]);
    outcome.unwrap();
    assert!(seen.acknowledged.iter().any(|(_, lsn)| *lsn == wal.end()));
    std::fs::remove_dir_all(stage.spool()).unwrap();
    stage.holds(&wal, wal.end());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn pieces_of_any_length_give_the_same_repository(
        pieces in proptest::collection::vec(1_usize..70_000, 1..20),
        breaks in proptest::collection::vec(0_u64..(2 * SEGMENT), 0..3),
        small in any::<bool>(),
    ) {
        let wal = wal(if small { 40_000 } else { 2 * SEGMENT + 10_000 });
        let stage = Stage::new();
        let mut server = Server::of(wal.clone());
        server.pieces = if small { vec![1, 2, 3, 5, 7, 11] } else { pieces };
        let mut breaks = breaks;
        breaks.sort_unstable();
        for place in breaks.into_iter().map(|at| Lsn(wal.start.0 + at)).filter(|at| *at < wal.end()) {
            server = server.trick(Trick::BreakAt(place));
        }
        let (outcome, ..) = stage.receive(vec![server]);
        outcome.unwrap();
        stage.holds(&wal, wal.end());
    }
}
