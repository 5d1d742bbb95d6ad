//! One controller over many services: none of them waits for another one.

use std::future::pending;

use futures::future::select;
use lifeboat_drivers::{EpochArchive, KnownEpoch};
use lifeboat_telemetry::Outcome;

use super::*;

/// Whatever is asked about these services is never answered.
struct Silent(BTreeSet<ServiceName>, MemoryEpochs);

impl Silent {
    async fn answers(&self, service: &ServiceName) {
        if self.0.contains(service) {
            pending::<()>().await;
        }
    }
}

impl Probe for Silent {
    fn probe<'a>(&'a self, service: &'a ServiceName) -> LocalBoxFuture<'a, Probed> {
        Box::pin(async {
            self.answers(service).await;
            Probed { seen: Sight::Works, why: String::new() }
        })
    }
}

impl EpochArchive for Silent {
    fn highest<'a>(
        &'a self,
        service: &'a ServiceName,
    ) -> LocalBoxFuture<'a, Outcome<Option<KnownEpoch>>> {
        Box::pin(async {
            self.answers(service).await;
            self.1.highest(service).await
        })
    }

    fn record<'a>(
        &'a self,
        service: &'a ServiceName,
        record: &'a EpochRecord,
    ) -> LocalBoxFuture<'a, Outcome<Vec<RegionName>>> {
        Box::pin(async {
            self.answers(service).await;
            self.1.record(service, record).await
        })
    }
}

/// So many services in one store; those that the test names are silent.
fn many(count: usize, silent: impl Fn(usize) -> bool) -> (Vec<Meeting>, Silent) {
    let store = MemoryStore::new();
    let named = |number| Service { name: name(&format!("s{number:04}")), ..service() };
    let meetings: Vec<_> = (0..count).map(|number| Meeting::of(named(number), &store)).collect();
    let silent = meetings.iter().enumerate().filter(|(number, _)| silent(*number));
    let silent = silent.map(|(_, meeting)| meeting.service.name.clone()).collect();
    (meetings, Silent(silent, MemoryEpochs::new()))
}

/// Gives `work` a controller of all of them, and an hour: on this clock all that sleep share the turns.
fn for_an_hour(
    meetings: &[Meeting],
    silent: &Silent,
    work: impl AsyncFnOnce(&Controller<'_>),
) -> Vec<String> {
    let [first, ..] = meetings else { panic!("there are services") };
    let notes = RefCell::new(Vec::new());
    let ports = Ports {
        timer: &first.timer,
        clock: &ManualClock::at(Timestamp::UNIX_EPOCH),
        store: &first.store,
        probe: silent,
        epochs: silent,
        traffic: &first.traffic,
        note: &|text| notes.borrow_mut().push(text),
    };
    let services = meetings.iter().map(|one| (one.service.name.clone(), one.service.clone()));
    let settings = Settings { services: services.collect(), ..first.settings("north") };
    let controller = Controller::new(&settings, &ports);
    let hour = async {
        while first.timer.elapsed() < Duration::from_secs(3600) {
            first.timer.sleep(Duration::from_millis(50)).await;
        }
    };
    block_on(select(pin!(work(&controller)), pin!(hour)));
    notes.take()
}

#[test]
fn what_is_silent_keeps_nobody_from_looking_at_others() {
    let (meetings, silent) = many(150, |number| number % 3 > 0);
    for_an_hour(&meetings, &silent, async |controller| {
        controller.read().await.unwrap();
        controller.observe().await;
    });
    let keys = Keys::default();
    let found = meetings[0].store.look(&keys.observer(&name("north")), 0);
    assert_eq!(found.entries.len(), 150_usize.div_ceil(Observations::SERVICES));
    let told = found.entries.iter().flat_map(|entry| {
        let said: Observations = lifeboat_quorum::decode(entry).unwrap();
        assert!(said.beat > 10, "a share with silent services is told on and on");
        said.services.into_keys()
    });
    let told: Vec<ServiceName> = told.filter(|service| !silent.0.contains(service)).collect();
    assert_eq!(told.len(), 50);
}

#[test]
fn a_run_that_waits_for_a_repository_holds_up_no_other() {
    let (meetings, silent) = many(100, |number| number < 99);
    meetings.iter().for_each(|meeting| drop(meeting.fail_over()));
    for_an_hour(&meetings, &silent, async |controller| {
        futures::join!(controller.decide(), controller.inquire());
    });
    let epochs: Vec<_> =
        meetings.iter().map(|one| one.view().record.unwrap().value.epoch).collect();
    assert_eq!(epochs[98..], [1, 2], "{epochs:?}");
}

#[test]
fn a_value_that_cannot_be_read_holds_up_no_other_service() {
    let (meetings, silent) = many(2, |_| false);
    let key = Keys::default().lease(&meetings[0].service.name, &name("ledger"));
    meetings[0].store.change(Transaction::new().put(key, &"nonsense")).unwrap();
    meetings[1].fail_over();
    let notes = for_an_hour(&meetings, &silent, async |controller| {
        futures::join!(controller.decide(), controller.inquire());
    });
    assert_eq!(meetings[1].view().record.unwrap().value.epoch, 2);
    let told = notes.iter().filter(|note| note.contains("cannot be read")).count();
    assert_eq!(told, 1, "{notes:?}");
}
