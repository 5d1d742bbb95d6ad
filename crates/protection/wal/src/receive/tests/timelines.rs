//! Promotions while it receives and while it was away, and WAL that is gone.

use lifeboat_model::{Lsn, Timeline};
use lifeboat_telemetry::Code;

use super::script::{Server, Stage, code};
use super::written::{SEGMENT, Wal};
use crate::receive::sender::SlotState;

fn first(bytes: u64) -> Wal {
    let mut wal = Wal::new(1, 3 * SEGMENT, 91);
    wal.grow(bytes);
    wal
}

#[test]
fn a_promotion_is_followed_with_its_history() {
    let stage = Stage::new();
    let wal = first(SEGMENT + 400_000);
    stage.receive(vec![Server::of(wal.clone())]).0.unwrap();
    let at = wal.end();
    let server = Server::of(wal.clone()).promoted(2, at, 5, 2 * SEGMENT);
    let new = server.newest().clone();
    let (outcome, _, seen) = stage.receive(vec![server]);
    assert_eq!(outcome.unwrap().flushed, Some((Timeline(2), new.end())));
    let begin = at.0 - at.0 % SEGMENT;
    assert_eq!(seen.started, [(2, Lsn(begin))]);
    stage.holds(&wal, at);
    stage.holds(&new, new.end());
    assert!(stage.objects("wal").contains(&"00000002/00000002.history".to_owned()));
    // The old timeline's last segment never becomes whole.
    assert!(!stage.objects("wal").iter().any(|name| name.ends_with("000000010000000000000004")));
}

#[test]
fn two_promotions_while_it_was_away_are_followed_one_after_the_other() {
    let stage = Stage::new();
    let wal = first(SEGMENT + 400_000);
    stage.receive(vec![Server::of(wal.clone())]).0.unwrap();
    let mut longer = wal.clone();
    longer.grow(SEGMENT);
    let at = longer.end();
    let server = Server::of(longer.clone()).promoted(2, at, 5, SEGMENT + 5000);
    let second = server.newest().clone();
    let server = server.promoted(3, second.end(), 6, SEGMENT);
    let third = server.newest().clone();
    let (outcome, _, seen) = stage.receive(vec![server]);
    outcome.unwrap();
    let timelines: Vec<u32> = seen.started.iter().map(|(timeline, _)| *timeline).collect();
    assert_eq!(timelines, [1, 2, 3]);
    stage.holds(&longer, at);
    stage.holds(&second, second.end());
    stage.holds(&third, third.end());
    for name in ["00000002/00000002.history", "00000003/00000003.history"] {
        assert!(stage.objects("wal").contains(&name.to_owned()), "{:?}", stage.objects("wal"));
    }
}

#[test]
fn an_old_primary_that_comes_back_is_refused() {
    let stage = Stage::new();
    let wal = first(SEGMENT);
    let old = Server::of(wal.clone());
    let new = old.clone().promoted(2, wal.end(), 5, SEGMENT);
    stage.receive(vec![new]).0.unwrap();
    let (outcome, _, seen) = stage.receive(vec![old]);
    assert_eq!(code(&outcome), Code::TimelineForeign);
    assert!(seen.acknowledged.is_empty());
}

#[test]
fn a_promotion_that_lost_what_is_held_is_followed_and_told() {
    let stage = Stage::new();
    let wal = first(SEGMENT + 400_000);
    stage.receive(vec![Server::of(wal.clone())]).0.unwrap();
    let at = wal.whole(Lsn(wal.start.0 + SEGMENT + 100_000));
    let server = Server::of(wal.clone()).promoted(2, at, 5, SEGMENT);
    let new = server.newest().clone();
    stage.receive(vec![server]).0.unwrap();
    assert!(stage.said().contains("LB5006"), "{}", stage.said());
    // What the server does not have is still there, on its own timeline.
    stage.holds(&wal, wal.end());
    stage.holds(&new, new.end());
}

#[test]
fn wal_that_was_removed_is_a_gap_with_a_name_and_a_record() {
    let stage = Stage::new();
    let wal = first(SEGMENT + 400_000);
    stage.receive(vec![Server::of(wal.clone())]).0.unwrap();
    let mut longer = wal.clone();
    longer.grow(5 * SEGMENT);
    let kept_from = Lsn(wal.start.0 + 4 * SEGMENT);
    let slot = SlotState::Keeps(Lsn(kept_from.0 + 100));
    let server = Server { kept_from, slot, ..Server::of(longer.clone()) };
    let (outcome, _, seen) = stage.receive(vec![server]);
    let received = outcome.unwrap();
    let [gap] = received.gaps.as_slice() else { panic!("{:?}", received.gaps) };
    assert_eq!((gap.from, gap.to), (wal.end(), kept_from));
    assert_eq!(seen.started.last(), Some(&(1, kept_from)));
    assert!(stage.said().contains("LB5008"), "{}", stage.said());
    let audit = stage.world.store("east");
    let blocking = lifeboat_objects::Blocking::new().unwrap();
    assert_eq!(blocking.run(audit.list("audit/")).unwrap().len(), 1);
    let pieces = stage.pieces();
    let reaches = |at: Lsn| {
        pieces
            .iter()
            .any(|(_, start, plain, _)| *start <= at && at.0 < start.0 + plain.len() as u64)
    };
    assert!(reaches(Lsn(wal.end().0 - 1)) && reaches(Lsn(longer.end().0 - 1)));
    assert!(!reaches(Lsn(wal.end().0 + SEGMENT)) && reaches(kept_from));
}

#[test]
fn a_slot_that_keeps_nothing_is_made_anew() {
    let stage = Stage::new();
    let wal = first(200_000);
    let server = Server { slot: SlotState::KeepsNothing, ..Server::of(wal.clone()) };
    let (outcome, servers, _) = stage.receive(vec![server]);
    outcome.unwrap();
    assert_eq!(servers[0].slot, SlotState::Keeps(wal.start));
    stage.holds(&wal, wal.end());
}

#[test]
fn a_receiver_without_its_spool_goes_on_where_the_repository_ends() {
    let stage = Stage::new();
    let wal = first(2 * SEGMENT + 400_000);
    stage.receive(vec![Server::of(wal.clone())]).0.unwrap();
    std::fs::remove_dir_all(stage.spool()).unwrap();
    let mut longer = wal.clone();
    longer.grow(SEGMENT);
    let (outcome, _, seen) = stage.receive(vec![Server::of(longer.clone())]);
    outcome.unwrap();
    let begin = wal.end().0 - wal.end().0 % SEGMENT;
    assert_eq!(seen.started, [(1, Lsn(begin))]);
    stage.holds(&longer, longer.end());
}

#[test]
fn a_segment_that_was_closed_by_a_switch_is_stored_as_the_server_has_it() {
    let stage = Stage::new();
    let mut wal = first(300_000);
    wal.switch();
    wal.grow(100_000);
    stage.receive(vec![Server::of(wal.clone())]).0.unwrap();
    stage.holds(&wal, wal.end());
    assert_eq!(stage.objects("wal").len(), 1);
    // The padding is not shipped piece by piece.
    let zeros = stage.pieces().into_iter().filter(|(_, start, plain, _)| {
        plain.iter().all(|byte| *byte == 0) && *start < Lsn(wal.start.0 + SEGMENT)
    });
    assert_eq!(zeros.count(), 0);
}
