use jiff::Timestamp;
use lifeboat_quorum::{Degraded, EpochState, Goal, Synchronous, Transaction, Transition};

use super::world::{World, ledger, name, primary, standby};
use crate::upkeep;

fn keep(world: &mut World) -> Option<String> {
    let view = world.view();
    let upkeep = upkeep(&world.service, &view, world.now, Timestamp::UNIX_EPOCH)?;
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
