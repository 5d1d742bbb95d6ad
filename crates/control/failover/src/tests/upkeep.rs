use std::time::Duration;

use jiff::Timestamp;
use lifeboat_quorum::{Degraded, EpochState, Goal, Synchronous, Transaction, Transition};

use super::world::{World, ledger, name, primary, primary_with, standby};
use crate::{Stalls, upkeep};

fn keep(world: &mut World) -> Option<String> {
    keep_with(world, &mut Stalls::default())
}

/// As a controller that has heard what `stalls` has.
fn keep_with(world: &mut World, stalls: &mut Stalls) -> Option<String> {
    let view = world.view();
    stalls.hear(&view);
    let upkeep = upkeep(&world.service, &view, stalls, world.now, Timestamp::UNIX_EPOCH)?;
    let record = view.record.as_ref().unwrap();
    let transaction = upkeep.transaction(&world.service, &world.keys, record);
    world.commit(transaction);
    Some(upkeep.why)
}

#[test]
fn a_first_epoch_gets_its_orders_and_serves_once_its_holder_writes() {
    let mut world = World::new();
    assert!(keep(&mut world).is_some());
    assert!(matches!(world.order("east-1").unwrap().1, Goal::Primary { .. }));
    assert!(matches!(world.order("west-1").unwrap().1, Goal::Follow { .. }));
    assert_eq!(keep(&mut world), None, "orders are written once");
    world.say("west-1", standby(1), 0);
    world.say("east-1", primary(1), 0);
    assert_eq!(keep(&mut world), None, "it writes without a lease");
    world.say("east-1", primary(1), 1);
    assert!(keep(&mut world).is_some());
    assert_eq!(world.record().state, EpochState::Serving);
    assert_eq!(keep(&mut world), None);
}

#[test]
fn a_lost_promise_comes_back_in_three_writes() {
    let mut world = World::serving();
    while keep(&mut world).is_some() {}
    let why = "the receiver was lost".to_owned();
    let degraded = Degraded { since: Timestamp::UNIX_EPOCH, why };
    let change = Transition::Synchronize(Synchronous::default(), Some(degraded));
    let next = world.record().apply(change).unwrap();
    let key = world.keys.epoch(&world.service.name);
    world.commit(Transaction::new().put(key, &next));
    assert!(keep(&mut world).is_some(), "the primary is told to wait for nobody");
    world.say("east-1", primary(1), 1);
    assert_eq!(keep(&mut world), None, "the receiver is not there");
    world.receiver_says("west", 1, None);
    assert!(keep(&mut world).is_some());
    let record = world.record();
    assert_eq!((record.synchronous.needed, record.degraded.is_some()), (1, true));
    assert!(keep(&mut world).is_some(), "the primary is told to wait");
    assert_eq!(keep(&mut world), None, "it has not said that it does");
    world.say("east-1", primary(1), 1);
    assert!(keep(&mut world).is_some());
    assert_eq!(world.record().degraded, None);
    let names = match world.order("east-1").unwrap().1 {
        Goal::Primary { synchronous_standby_names, .. } => synchronous_standby_names,
        goal => panic!("{goal:?}"),
    };
    assert_eq!(names, r#"ANY 1 ("lifeboat_payments_ledger_west")"#);
    assert!(world.service.databases.contains_key(&ledger()));
    assert_eq!(world.service.home, name("east"));
}

/// What the primary's order says of receivers.
fn names_of(world: &mut World) -> String {
    match world.order("east-1").unwrap().1 {
        Goal::Primary { synchronous_standby_names, .. } => synchronous_standby_names,
        goal => panic!("{goal:?}"),
    }
}

/// A service whose commits wait for the west, for 30 s at the most.
fn waits_for_30_s() -> World {
    let mut world = World::serving();
    world.service.databases.get_mut(&ledger()).unwrap().degrade_after =
        Some(Duration::from_secs(30));
    world.receiver_says("west", 1, None);
    while keep(&mut world).is_some() {}
    world
}

/// Each second the primary says that commits wait.
fn stall(world: &mut World, stalls: &mut Stalls, seconds: u64) -> Option<String> {
    for _ in 0..seconds {
        world.pass(Duration::from_secs(1));
        world.say("east-1", primary_with(&[], true), 1);
        if let Some(why) = keep_with(world, stalls) {
            return Some(why);
        }
    }
    None
}

#[test]
fn commits_that_have_waited_for_long_enough_go_on_and_wait_again_later() {
    let (mut world, mut stalls) = (waits_for_30_s(), Stalls::default());
    assert_eq!(stall(&mut world, &mut stalls, 30), None, "from the first word to the last");
    let why = stall(&mut world, &mut stalls, 1).unwrap();
    assert!(why.starts_with("degraded: commits waited for 30 s"), "{why}");
    // Recorded first: the primary still waits.
    let record = world.record();
    assert_eq!(record.synchronous, Synchronous::default());
    assert!(record.degraded.is_some());
    assert_ne!(names_of(&mut world), "");
    assert!(keep_with(&mut world, &mut stalls).is_some(), "now it is told");
    assert_eq!(names_of(&mut world), "");
    // A receiver that runs, but does not reach the primary, brings nothing back.
    world.receiver_says("west", 1, None);
    world.say("east-1", primary_with(&[], false), 1);
    assert_eq!(keep_with(&mut world, &mut stalls), None);
    world.say("east-1", primary_with(&["west"], false), 1);
    assert!(keep_with(&mut world, &mut stalls).is_some(), "the set is recorded");
    assert!(keep_with(&mut world, &mut stalls).is_some(), "the primary is told");
    assert_eq!(keep_with(&mut world, &mut stalls), None, "it has not said that it waits");
    world.say("east-1", primary_with(&["west"], false), 1);
    assert!(keep_with(&mut world, &mut stalls).is_some());
    let record = world.record();
    assert_eq!((record.synchronous.needed, record.degraded), (1, None));
}

#[test]
fn only_a_stall_that_is_heard_without_a_break_counts() {
    let (mut world, mut stalls) = (waits_for_30_s(), Stalls::default());
    assert_eq!(stall(&mut world, &mut stalls, 29), None);
    // The controller was away, or the primary silent: nobody knows what was in between.
    world.pass(Duration::from_secs(60));
    assert_eq!(keep_with(&mut world, &mut stalls), None);
    assert_eq!(stall(&mut world, &mut stalls, 29), None);
    // One word that it does not wait begins it anew.
    world.say("east-1", primary_with(&["west"], false), 1);
    assert_eq!(keep_with(&mut world, &mut stalls), None);
    assert_eq!(stall(&mut world, &mut stalls, 30), None);
    // A controller that has just begun has heard nothing.
    assert_eq!(keep_with(&mut world, &mut Stalls::default()), None);
    assert!(stall(&mut world, &mut stalls, 1).is_some());
}

#[test]
fn with_block_commits_wait_for_ever() {
    let (mut world, mut stalls) = (waits_for_30_s(), Stalls::default());
    world.service.databases.get_mut(&ledger()).unwrap().degrade_after = None;
    assert_eq!(stall(&mut world, &mut stalls, 600), None);
}
