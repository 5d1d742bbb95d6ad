use std::collections::BTreeMap;
use std::time::Duration;

use futures::executor::block_on;
use futures::future::{LocalBoxFuture, join};
use jiff::Timestamp;
use lifeboat_drivers::{MemoryEpochs, Mood, Probe, Probed};
use lifeboat_environment::ManualClock;
use lifeboat_failover::{Wanted, first_epoch, start};
use lifeboat_quorum::{EpochRecord, MemoryStore, RunId, Seen as Sight, Transaction, Transition};
use lifeboat_workflow::{Change, Kind, Run, Step};

use super::*;
use crate::tests::{FakeTimer, name, service};

mod many;

/// Nobody looks in these tests.
struct Blind;

impl Probe for Blind {
    fn probe<'a>(&'a self, _: &'a ServiceName) -> LocalBoxFuture<'a, Probed> {
        Box::pin(async { Probed { seen: Sight::Unknown, why: String::new() } })
    }
}

/// What controllers meet in.
struct Meeting {
    service: Service,
    keys: Keys,
    store: MemoryStore,
    epochs: MemoryEpochs,
    timer: FakeTimer,
    traffic: BTreeMap<ServiceName, Vec<Box<dyn TrafficDriver>>>,
    notes: RefCell<Vec<String>>,
}

impl Meeting {
    /// The first epoch serves, in the east.
    fn new() -> Self {
        Self::of(service(), &MemoryStore::new())
    }

    /// The same, of a service beside others.
    fn of(service: Service, store: &MemoryStore) -> Self {
        let meeting = Self {
            service,
            keys: Keys::default(),
            store: store.clone(),
            epochs: MemoryEpochs::new(),
            timer: FakeTimer::default(),
            traffic: BTreeMap::new(),
            notes: RefCell::default(),
        };
        let at = Timestamp::UNIX_EPOCH;
        let (record, transaction) = first_epoch(&meeting.service, &meeting.keys, 1, at).unwrap();
        block_on(meeting.epochs.record(&meeting.service.name, &record)).unwrap();
        meeting.store.change(transaction).unwrap();
        meeting.serves();
        meeting
    }

    fn change(&self, record: &EpochRecord) {
        let key = self.keys.epoch(&self.service.name);
        self.store.change(Transaction::new().put(key, record)).unwrap();
    }

    /// The epoch serves, and no run is at work.
    fn serves(&self) {
        let record = self.view().record.unwrap().value;
        let record = record.apply(Transition::Serve).unwrap();
        self.change(&record.apply(Transition::Finish).unwrap());
    }

    fn view(&self) -> View {
        let mut mirror = Mirror::new();
        mirror.take(self.store.look(self.keys.all(), 0), Duration::ZERO);
        View::of(&self.service, &self.keys, &mirror).unwrap()
    }

    /// A failover that has come to its step `begin`.
    fn fail_over(&self) -> Run {
        let view = self.view();
        let record = view.record.as_ref().unwrap();
        let to = self.service.other_than(&record.value.region).unwrap();
        let run = RunId(record.value.last_run + 1);
        let wanted = Wanted {
            kind: Kind::Failover,
            to: Some(to.clone()),
            by: "test".to_owned(),
            reason: "test".to_owned(),
            failing_since: None,
            last_worked: None,
        };
        for node in ["east-1", "west-1"] {
            let place = self.keys.status(&self.service.name, &name("ledger"), &name(node));
            let status = crate::tests::standby_status();
            self.store.change(Transaction::new().put(place, &status)).unwrap();
        }
        let at = Timestamp::UNIX_EPOCH;
        let begun = start(&self.service, &self.view(), &self.keys, &wanted, Duration::ZERO, at);
        let (plan, transaction) = begun.unwrap();
        assert_eq!(plan.run, run);
        self.store.change(transaction).unwrap();
        let mut run = Run::new(plan);
        while run.step() != Some(Step::Begin) {
            let entry = run.entry(Change::Done, "as it was", "test", at);
            let key = self.keys.transition(&self.service.name, run.plan.run, run.next_number());
            self.store.change(Transaction::new().create(key, &entry)).unwrap();
            run.journal.push(entry);
        }
        run
    }

    fn settings(&self, domain: &str) -> Settings {
        Settings {
            domain: name(domain),
            services: BTreeMap::from([(self.service.name.clone(), self.service.clone())]),
            keys: self.keys.clone(),
            poll: Duration::from_millis(50),
            probe_every: Duration::from_secs(2),
            probe_failing_every: Duration::from_millis(500),
            traffic_every: Duration::from_secs(2),
        }
    }

    /// Gives `work` two controllers that have read nothing yet, each with a clock of its own.
    fn two<T>(&self, work: impl AsyncFnOnce(&Controller<'_>, &Controller<'_>) -> T) -> T {
        let clocks = [1_000_000, 2_000_000]
            .map(|second| ManualClock::at(Timestamp::from_second(second).unwrap()));
        let note = |text| self.notes.borrow_mut().push(text);
        let ports = clocks.each_ref().map(|clock| Ports {
            timer: &self.timer,
            clock,
            store: &self.store,
            probe: &Blind,
            epochs: &self.epochs,
            traffic: &self.traffic,
            note: &note,
        });
        let settings = [self.settings("east"), self.settings("north")];
        let [one, other] = [0, 1].map(|at| Controller::new(&settings[at], &ports[at]));
        block_on(work(&one, &other))
    }
}

impl Controller<'_> {
    /// Asks the repositories, and reads what stands in the store after that, for a full lease.
    async fn settle(&self) {
        for service in self.settings.services.values() {
            let inquiry = &self.inquiries[&service.name];
            inquiry.ask(self.ports.timer, self.ports.epochs, service).await;
        }
        self.watch().await;
    }

    /// Reads the store for a full lease.
    async fn watch(&self) {
        for _ in 0..=10 {
            self.read().await.unwrap();
            self.ports.timer.sleep(service().timing.lease / 10).await;
        }
    }

    /// One turn of each service, as far as it goes.
    async fn turns(&self) {
        self.read().await.unwrap();
        for service in self.settings.services.values() {
            while self.does_what_is_due(service).await {
                self.read().await.unwrap();
            }
        }
    }

    /// Whether something was written.
    async fn does_what_is_due(&self, service: &Service) -> bool {
        let now = self.now();
        let Some((view, deed)) = self.see(service, now) else { return false };
        self.carry_out(service, &view, deed, now).await
    }

    /// The same, whether the store is to be believed or not.
    async fn carries_on(&self, service: &Service) -> bool {
        let (view, now) = (self.view_of(&service.name).unwrap(), self.now());
        let deed = self.carry_on(service, &view, now).unwrap();
        self.carry_out(service, &view, deed, now).await
    }
}

#[test]
fn rivals_begin_epochs_without_gaps() {
    let meeting = Meeting::new();
    for epoch in 2..6 {
        meeting.fail_over();
        meeting.two(async |one, other| {
            join(one.settle(), other.settle()).await;
            join(one.turns(), other.turns()).await;
            join(one.turns(), other.turns()).await;
        });
        let record = meeting.view().record.unwrap().value;
        assert_eq!((record.epoch, record.run), (epoch, Some(RunId(epoch - 1))));
        let numbers: Vec<u64> = (1..=epoch).collect();
        assert_eq!(meeting.epochs.numbers(&meeting.service.name), numbers);
        meeting.serves();
    }
}

#[test]
fn whoever_goes_on_after_a_crash_creates_the_object_that_was_chosen() {
    let meeting = Meeting::new();
    meeting.fail_over();
    // One has chosen and created, and dies before the record.
    meeting.two(async |one, _| {
        one.watch().await;
        assert!(one.carries_on(&meeting.service).await);
    });
    let (run, _) = meeting.view().run.unwrap();
    let chosen = run.chosen().unwrap();
    assert_eq!(chosen.epoch, 2);
    assert!(!run.can_go_back());
    block_on(meeting.epochs.record(&meeting.service.name, &chosen)).unwrap();
    meeting.two(async |_, other| {
        other.settle().await;
        other.turns().await;
    });
    assert_eq!(meeting.view().record.unwrap().value, chosen, "of another clock, the same record");
    assert_eq!(meeting.epochs.numbers(&meeting.service.name), [1, 2]);
}

#[test]
fn a_number_that_another_run_has_is_left_out() {
    let meeting = Meeting::new();
    let given_up = meeting.fail_over();
    let begin = async |controller: &Controller<'_>| {
        controller.watch().await;
        controller.carries_on(&meeting.service).await
    };
    // A run has chosen and created, and a person gives it up before the record.
    meeting.two(async |one, _| assert!(begin(one).await));
    let (run, _) = meeting.view().run.unwrap();
    assert_eq!(run.plan.run, given_up.plan.run);
    block_on(meeting.epochs.record(&meeting.service.name, &run.chosen().unwrap())).unwrap();
    meeting.change(&meeting.view().record.unwrap().value.apply(Transition::Finish).unwrap());
    // The next one chooses while no repository answers, so it chooses the same number.
    meeting.fail_over();
    meeting.epochs.be(Mood::Away);
    meeting.two(async |one, other| {
        assert!(begin(one).await);
        assert_eq!(meeting.view().run.unwrap().0.chosen().unwrap().epoch, 2);
        meeting.epochs.be(Mood::Well);
        other.settle().await;
        other.turns().await;
    });
    assert_eq!(meeting.view().record.unwrap().value.epoch, 3);
    assert_eq!(meeting.epochs.numbers(&meeting.service.name), [1, 2, 3]);
}

#[test]
fn a_record_older_than_the_repositories_is_not_acted_on() {
    let meeting = Meeting::new();
    let of_nobody = EpochRecord { epoch: 7, ..meeting.view().record.unwrap().value };
    block_on(meeting.epochs.record(&meeting.service.name, &of_nobody)).unwrap();
    for begins in [false, true] {
        if begins {
            meeting.fail_over();
        }
        let before = meeting.store.look("", 0).revision;
        meeting.two(async |one, other| {
            for controller in [one, other] {
                controller.turns().await;
                controller.settle().await;
                controller.turns().await;
                assert!(controller.serving(&meeting.service.name).is_none());
            }
        });
        assert_eq!(meeting.store.look("", 0).revision, before, "nothing was written");
        let notes = meeting.notes.take();
        assert_eq!(notes.len(), 2, "said once by each: {notes:?}");
        assert!(notes.iter().all(|note| note.starts_with("LB7003")), "{notes:?}");
    }
}

#[test]
fn an_epoch_that_turns_up_while_the_next_is_chosen_ends_the_choice() {
    let meeting = Meeting::new();
    meeting.fail_over();
    meeting.two(async |one, _| {
        one.settle().await;
        let of_nobody = EpochRecord { epoch: 7, run: None, ..meeting.view().record.unwrap().value };
        meeting.epochs.record(&meeting.service.name, &of_nobody).await.unwrap();
        one.turns().await;
    });
    assert_eq!(meeting.view().record.unwrap().value.epoch, 1);
    assert!(meeting.view().run.unwrap().0.chosen().is_none());
    let notes = meeting.notes.take();
    assert!(notes.iter().any(|note| note.contains("LB7003")), "{notes:?}");
}

#[test]
fn no_repository_is_needed_to_go_on() {
    let meeting = Meeting::new();
    meeting.fail_over();
    meeting.epochs.be(Mood::Silent);
    meeting.two(async |one, _| {
        one.turns().await;
        assert!(meeting.view().run.unwrap().0.chosen().is_none());
        one.settle().await;
        meeting.epochs.be(Mood::Away);
        one.turns().await;
    });
    assert_eq!(meeting.view().record.unwrap().value.epoch, 2);
}
