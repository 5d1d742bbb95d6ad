use std::time::Duration;

use lifeboat_workflow::Kind;

use super::world::{World, name, primary, standby};
use crate::predict;

#[test]
fn a_silent_primary_is_waited_out_and_one_that_reports_is_not() {
    let mut world = World::serving();
    let (view, now) = (world.view(), world.now);
    let quick = predict(&world.service, &view, Kind::Failover, &name("west"), now);
    let planned = predict(&world.service, &view, Kind::Switchover, &name("west"), now);
    assert!(quick.away < Duration::from_secs(3) && planned.away < Duration::from_secs(3));
    assert!(planned.loss.starts_with("nothing") && quick.loss.starts_with("nothing"));
    world.pass(Duration::from_secs(60));
    let (view, now) = (world.view(), world.now);
    let slow = predict(&world.service, &view, Kind::Failover, &name("west"), now);
    assert!(slow.away > world.service.timing.lease);
}

#[test]
fn what_lags_takes_time_and_is_lost_where_no_commit_waits() {
    let mut world = World::serving();
    for database in world.service.databases.values_mut() {
        database.remote = 0;
    }
    let (lag, second) = (200_u64 << 20, Duration::from_secs(1));
    world.say("east-1", primary(100 + lag), 1);
    world.say("west-1", standby(100), 0);
    let (view, now) = (world.view(), world.now);
    let expected = predict(&world.service, &view, Kind::Failover, &name("west"), now);
    assert!(expected.away > 4 * second, "{:?}", expected.away);
    // The record still promises; a service whose record does not, says how much.
    assert!(expected.loss.starts_with("nothing"), "{}", expected.loss);
    let mut view = view;
    if let Some(record) = &mut view.record {
        record.value.synchronous.needed = 0;
    }
    let expected = predict(&world.service, &view, Kind::Failover, &name("west"), now);
    assert!(expected.loss.contains("200.0 MiB"), "{}", expected.loss);
}
