use std::time::Duration;

use jiff::Timestamp;
use lifeboat_model::{Lsn, Timeline};
use lifeboat_quorum::{Beginning, EpochState, Fence, FenceProof, Goal, Instance, Transition};
use lifeboat_workflow::{Change, Kind, Run, Step, StepState};

use super::world::{World, name, primary, standby};
use crate::{Mirror, Next, Turn, Wanted, Writes, advance, start};

/// Begins a move to the west.
fn begin(world: &mut World, kind: Kind) {
    let view = world.view();
    let wanted = Wanted {
        kind,
        to: Some(name("west")),
        by: "test".to_owned(),
        reason: "test".to_owned(),
        failing_since: None,
        last_worked: None,
    };
    let at = Timestamp::UNIX_EPOCH;
    let started = start(&world.service, &view, &world.keys, &wanted, world.now, at);
    let (_, transaction) = started.unwrap();
    world.commit(transaction);
}

/// One turn of a controller; what it says where it waits.
fn turn(world: &mut World) -> Option<String> {
    let view = world.view();
    let (run, observed) = view.run.clone()?;
    let record = view.record.as_ref()?;
    let turn = Turn {
        service: &world.service,
        view: &view,
        record,
        run: &run,
        observed,
        traffic: Some(&[]),
        answered: Some(Duration::ZERO),
        now: world.now,
        at: Timestamp::UNIX_EPOCH,
    };
    let writes = match advance(&turn) {
        Next::Wait(why) => return Some(why),
        Next::Write(writes) => *writes,
        Next::Begin(next) => Writes::new(Change::Done, "").record(*next),
        Next::Choose(proposal) => {
            let fence = Fence {
                epoch: record.value.epoch,
                proof: proposal.proof,
                at: Timestamp::UNIX_EPOCH,
            };
            let beginning = Beginning {
                epoch: record.value.epoch + 1,
                region: proposal.region,
                holders: proposal.holders,
                fence,
                synchronous: proposal.synchronous,
                degraded: proposal.degraded,
                at: Timestamp::UNIX_EPOCH,
                spec: String::new(),
            };
            let next = record.value.apply(Transition::Begin(Box::new(beginning))).unwrap();
            Writes { facts: Run::choice(&next), ..Writes::new(Change::Started, "") }
        }
    };
    let read = (&record.value, record.revision);
    let at = Timestamp::UNIX_EPOCH;
    let transaction = writes.transaction(&world.service, &world.keys, read, &run, "test", at);
    world.commit(transaction);
    None
}

/// Turns until it waits; says for what, and at which step.
fn until_it_waits(world: &mut World) -> (Option<Step>, String) {
    for _ in 0..50 {
        if let Some(why) = turn(world) {
            return (world.view().run.and_then(|(run, _)| run.step()), why);
        }
        if world.view().run.is_none() {
            return (None, "over".to_owned());
        }
    }
    panic!("it never waits");
}

fn shut_down(end: u64) -> Instance {
    Instance::Down { timeline: Timeline(1), shut_down_at: Some(Lsn(end)) }
}

#[test]
fn a_switchover_promotes_only_what_has_replayed_the_last_record() {
    let mut world = World::serving();
    begin(&mut world, Kind::Switchover);
    assert_eq!(until_it_waits(&mut world).0, Some(Step::Release));
    assert_eq!(world.order("east-1").unwrap().1, Goal::Release);
    assert_eq!(world.record().state, EpochState::Releasing);
    world.say("east-1", shut_down(500), 0);
    assert_eq!(until_it_waits(&mut world).0, Some(Step::Complete));
    assert_eq!(world.order("west-1").unwrap().1, Goal::Hold { complete: Some(Lsn(500)) });
    world.say("west-1", standby(499), 0);
    let (step, why) = until_it_waits(&mut world);
    assert_eq!(step, Some(Step::Complete), "{why}");
    world.say("west-1", standby(500), 0);
    assert_eq!(until_it_waits(&mut world).0, Some(Step::Promote));
    let record = world.record();
    assert_eq!((record.epoch, record.state), (2, EpochState::Starting));
    assert_eq!(record.synchronous.receivers, [name("east")], "those outside the new region");
    world.say("west-1", primary(600), 2);
    assert_eq!(until_it_waits(&mut world).0, Some(Step::Return));
    assert!(matches!(world.order("east-1").unwrap().1, Goal::Follow { .. }));
    world.say("east-1", standby(600), 0);
    assert_eq!(until_it_waits(&mut world), (None, "over".to_owned()));
    let record = world.record();
    assert_eq!((record.epoch, record.state, record.run), (2, EpochState::Serving, None));
}

#[test]
fn nobody_begins_an_epoch_who_has_just_begun_to_look() {
    let mut world = World::serving();
    begin(&mut world, Kind::Switchover);
    until_it_waits(&mut world);
    world.say("east-1", shut_down(500), 0);
    until_it_waits(&mut world);
    world.say("west-1", standby(500), 0);
    // A controller that was started again, perhaps on a store that was restored.
    world.mirror = Mirror::new();
    assert_eq!(until_it_waits(&mut world).0, Some(Step::Begin));
    world.pass(world.service.timing.lease - Duration::from_millis(1));
    assert_eq!(until_it_waits(&mut world).0, Some(Step::Begin));
    world.pass(Duration::from_millis(1));
    assert_eq!(until_it_waits(&mut world).0, Some(Step::Promote));
}

#[test]
fn a_switchover_that_is_not_complete_in_time_goes_back() {
    let mut world = World::serving();
    begin(&mut world, Kind::Switchover);
    until_it_waits(&mut world);
    world.say("east-1", shut_down(500), 0);
    until_it_waits(&mut world);
    world.pass(Duration::from_secs(20));
    let (_, why) = until_it_waits(&mut world);
    assert!(why.contains("goes back"), "{why}");
    let record = world.record();
    assert_eq!((record.epoch, record.state), (1, EpochState::Serving));
    assert!(matches!(world.order("east-1").unwrap().1, Goal::Primary { .. }));
    world.say("east-1", primary(500), 1);
    assert_eq!(until_it_waits(&mut world).1, "over");
    assert_eq!(world.record().run, None);
}

#[test]
fn a_failover_seals_then_waits_for_the_lease_and_requires_what_was_acknowledged() {
    let mut world = World::serving();
    world.receiver_says("west", 1, None);
    begin(&mut world, Kind::Failover);
    assert_eq!(until_it_waits(&mut world).0, Some(Step::Seal));
    world.receiver_says("west", 1, Some((1, 700)));
    assert_eq!(until_it_waits(&mut world).0, Some(Step::Fence));
    world.pass(Duration::from_millis(5900));
    assert_eq!(until_it_waits(&mut world).0, Some(Step::Fence), "the lease is not over");
    world.pass(Duration::from_millis(200));
    world.say("west-1", standby(100), 0);
    assert_eq!(until_it_waits(&mut world).0, Some(Step::Complete));
    assert_eq!(world.order("west-1").unwrap().1, Goal::Hold { complete: Some(Lsn(700)) });
    world.say("west-1", standby(700), 0);
    assert_eq!(until_it_waits(&mut world).0, Some(Step::Promote));
    let record = world.record();
    assert!(matches!(record.fence.proof, FenceProof::LeaseOver { .. }));
    assert_eq!(record.synchronous.needed, 0, "no receiver outside the west is left");
    assert!(record.degraded.is_some());
    world.say("west-1", primary(800), 2);
    assert_eq!(until_it_waits(&mut world).1, "over");
}

/// The receiver of a region that was lost was heard a moment before: commits that waited for it
/// would wait for ever.
#[test]
fn a_failover_counts_on_no_receiver_that_was_not_heard_since() {
    for (east, needed) in [(None, 0), (Some((1, 100)), 1)] {
        let mut world = World::serving();
        world.receiver_says("west", 1, None);
        begin(&mut world, Kind::Failover);
        until_it_waits(&mut world);
        world.receiver_says("east", 1, east);
        world.receiver_says("west", 1, Some((1, 100)));
        assert_eq!(until_it_waits(&mut world).0, Some(Step::Fence));
        world.say("east-1", Instance::Down { timeline: Timeline(1), shut_down_at: None }, 0);
        assert_eq!(until_it_waits(&mut world).0, Some(Step::Complete));
        world.say("west-1", standby(100), 0);
        assert_eq!(until_it_waits(&mut world).0, Some(Step::Promote));
        let record = world.record();
        assert_eq!(record.synchronous.needed, needed, "{east:?}");
        assert_eq!(record.degraded.is_none(), needed > 0, "{east:?}");
    }
}

#[test]
fn without_enough_seals_a_failover_waits_for_a_person() {
    let mut world = World::serving();
    begin(&mut world, Kind::Failover);
    assert_eq!(until_it_waits(&mut world).0, Some(Step::Seal));
    // The other region's receiver alone says nothing about what the west acknowledged.
    world.receiver_says("east", 1, Some((1, 700)));
    world.pass(Duration::from_secs(60));
    let (step, why) = until_it_waits(&mut world);
    assert_eq!(step, Some(Step::Seal), "{why}");
    let (run, _) = world.view().run.unwrap();
    assert_eq!(run.state(), StepState::Failed);
}

#[test]
fn a_confirmed_fence_is_not_waited_for() {
    let mut world = World::serving();
    world.receiver_says("west", 1, None);
    begin(&mut world, Kind::Failover);
    until_it_waits(&mut world);
    world.receiver_says("west", 1, Some((1, 100)));
    assert_eq!(until_it_waits(&mut world).0, Some(Step::Fence));
    world.say("east-1", Instance::Down { timeline: Timeline(1), shut_down_at: None }, 0);
    assert_eq!(until_it_waits(&mut world).0, Some(Step::Complete));
    world.say("west-1", standby(100), 0);
    until_it_waits(&mut world);
    assert!(matches!(world.record().fence.proof, FenceProof::Confirmed { .. }));
}
