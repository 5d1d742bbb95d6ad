use std::time::Duration;

use futures::executor::block_on;
use futures::future::{LocalBoxFuture, ready};
use lifeboat_drivers::traffic::LeadsTo;
use lifeboat_drivers::traffic::model::{ModelServers, ModelTraffic};
use lifeboat_environment::Timer;
use lifeboat_model::RegionName;
use lifeboat_quorum::{Beginning, Fence, FenceProof, Nodes, RunId, Synchronous, Transition};
use proptest::prelude::*;

use super::*;

/// No time passes.
struct Still;

impl Timer for Still {
    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, _: Duration) -> LocalBoxFuture<'static, ()> {
        Box::pin(ready(()))
    }
}

fn region(name: &str) -> RegionName {
    name.parse().unwrap()
}

fn starting(epoch: u64, name: &str) -> EpochRecord {
    EpochRecord::first(Beginning {
        epoch,
        region: region(name),
        holders: Nodes::new(),
        fence: Fence { epoch: 0, proof: FenceProof::NoHolder, at: jiff::Timestamp::UNIX_EPOCH },
        synchronous: Synchronous::default(),
        degraded: None,
        at: jiff::Timestamp::UNIX_EPOCH,
        spec: String::new(),
    })
}

fn serving(epoch: u64, name: &str) -> EpochRecord {
    starting(epoch, name).apply(Transition::Serve).unwrap()
}

fn drivers(servers: &ModelServers) -> Vec<Box<dyn TrafficDriver>> {
    let (service, regions) = ("ledger".parse().unwrap(), ["east", "west"].map(region).into());
    let model = ModelTraffic::new(service, regions, servers.clone(), &Still, || Duration::ZERO);
    vec![Box::new(model)]
}

fn to(name: &str) -> LeadsTo {
    LeadsTo::Region(region(name))
}

fn one(record: &EpochRecord, drivers: &[Box<dyn TrafficDriver>], settled: bool) -> TrafficState {
    let mut states = block_on(reconcile(record, drivers, settled));
    assert_eq!(states.len(), 1);
    states.remove(0)
}

#[test]
fn only_what_serves_is_led_to() {
    let servers = ModelServers::new(1);
    let drivers = drivers(&servers);
    let record = serving(1, "east");
    for other in [
        starting(1, "east"),
        record.apply(Transition::Release(RunId(1))).unwrap(),
        record.apply(Transition::Revoke(RunId(1))).unwrap(),
    ] {
        assert!(block_on(reconcile(&other, &drivers, false)).is_empty());
        assert_eq!(servers.ask(0), Some((LeadsTo::Nowhere, None)));
    }
    let state = one(&record, &drivers, false);
    assert_eq!((state.missing, state.repaired.len(), state.remarks.len()), (None, 0, 0));
    assert_eq!(servers.ask(0), Some((to("east"), Some(1))));
    assert!(block_on(reconcile(&record, &[], true)).is_empty());
}

#[test]
fn drift_is_told_and_put_right() {
    let servers = ModelServers::new(2);
    let drivers = drivers(&servers);
    let record = serving(3, "west");
    assert_eq!(one(&record, &drivers, false).missing, None);
    for drifted in [LeadsTo::Nowhere, to("east"), LeadsTo::Elsewhere("203.0.113.9".to_owned())] {
        servers.meddle(0, drifted);
        let state = one(&record, &drivers, true);
        assert_eq!((state.missing, state.repaired.len()), (None, 1), "{:?}", state.remarks);
        assert_eq!(servers.ask(0), Some((to("west"), Some(3))));
        assert_eq!(one(&record, &drivers, true).repaired.len(), 0);
    }
    // What a change cannot replace is told again and again.
    servers.meddle(0, LeadsTo::Taken("it is an alias".to_owned()));
    for _ in 0..2 {
        let state = one(&record, &drivers, true);
        assert_eq!((state.missing, state.repaired.len(), state.remarks.len()), (None, 0, 1));
    }
    servers.meddle(1, LeadsTo::Taken("it is an alias".to_owned()));
    let state = one(&record, &drivers, true);
    assert!(state.missing.is_some() && state.pointing.is_none());
    assert_eq!(state.remarks.len(), 2);
}

#[test]
fn silent_servers_and_later_epochs_stay_as_they_are() {
    let servers = ModelServers::new(2);
    let drivers = drivers(&servers);
    one(&serving(3, "west"), &drivers, false);
    servers.set_answers(0, false);
    let state = one(&serving(3, "west"), &drivers, true);
    assert_eq!((state.missing, state.remarks.len()), (None, 1));
    servers.set_answers(1, false);
    for settled in [false, true] {
        assert!(one(&serving(3, "west"), &drivers, settled).missing.is_some());
    }
    servers.set_answers(0, true);
    servers.set_answers(1, true);
    for settled in [false, true] {
        let state = one(&serving(2, "east"), &drivers, settled);
        assert!(state.missing.is_some(), "epoch 2 came after 3");
        assert_eq!(servers.ask(0), Some((to("west"), Some(3))));
    }
}

#[derive(Debug, Clone)]
enum Event {
    Look { epoch: u64, settled: bool },
    Meddle(usize, u8),
    Answers(usize, bool),
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1..6_u64, any::<bool>()).prop_map(|(epoch, settled)| Event::Look { epoch, settled }),
        2 => (0..3_usize, 0..4_u8).prop_map(|(server, what)| Event::Meddle(server, what)),
        2 => (0..3_usize, any::<bool>()).prop_map(|(server, answers)| Event::Answers(server, answers)),
    ]
}

/// Each epoch has one region, as the quorum store sees to.
fn home(epoch: u64) -> &'static str {
    if epoch.is_multiple_of(2) { "east" } else { "west" }
}

proptest! {
    /// Whatever happens, in whatever order controllers wake up: no server's epoch falls, and once all
    /// answer, a look at the newest epoch leads all of them there.
    #[test]
    fn epochs_never_fall_and_the_newest_wins(events in proptest::collection::vec(events(), 1..40)) {
        let servers = ModelServers::new(3);
        let drivers = drivers(&servers);
        let mut known = [None; 3];
        for event in events {
            match event {
                Event::Look { epoch, settled } => {
                    one(&serving(epoch, home(epoch)), &drivers, settled);
                }
                Event::Meddle(server, what) => servers.meddle(server, match what {
                    0 => LeadsTo::Nowhere,
                    1 => to("east"),
                    2 => to("west"),
                    // Only where it is ours: what is others' from the start stays so.
                    _ if known[server].is_some() => LeadsTo::Elsewhere("203.0.113.9".to_owned()),
                    _ => LeadsTo::Nowhere,
                }),
                Event::Answers(server, answers) => servers.set_answers(server, answers),
            }
            for (server, known) in known.iter_mut().enumerate() {
                if let Some((_, epoch)) = servers.ask(server) {
                    prop_assert!(epoch >= *known, "server {server}: {epoch:?} after {known:?}");
                    *known = epoch;
                }
            }
        }
        (0..3).for_each(|server| servers.set_answers(server, true));
        let state = one(&serving(9, "west"), &drivers, true);
        prop_assert_eq!(state.missing, None);
        for server in 0..3 {
            prop_assert_eq!(servers.ask(server), Some((to("west"), Some(9))));
        }
    }
}
