//! What an agent believes: a record that is older than what is known elsewhere is not acted on.

mod glass;

use futures::executor::block_on;
use jiff::Timestamp;
use lifeboat_drivers::{FileMemory, MemoryEpochs, Mood};
use lifeboat_failover::first_epoch;
use lifeboat_model::Timeline;
use lifeboat_quorum::{MemoryStore, RunId, Transaction, Transition};
use lifeboat_workflow::{Change, Kind, Plan, Run, Step};

use super::*;
use crate::tests::{FakeInstance, FakeTimer, name, service};

/// An agent of east-1, and what it acts through.
struct Site {
    settings: Settings,
    store: MemoryStore,
    epochs: MemoryEpochs,
    timer: FakeTimer,
    instance: FakeInstance,
    memory: FileMemory,
    notes: RefCell<Vec<String>>,
    _folder: tempfile::TempDir,
}

impl Site {
    /// The store has this epoch of the east, with its order to be the primary.
    fn new(epoch: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let site = Self {
            settings: Settings {
                service: service(),
                database: name("ledger"),
                node: name("east-1"),
                agent: 1,
                keys: Keys::default(),
                poll: Duration::from_millis(50),
                patience: Duration::from_secs(600),
                serve_without_quorum: false,
            },
            store: MemoryStore::new(),
            epochs: MemoryEpochs::new(),
            timer: FakeTimer::default(),
            instance: FakeInstance::down(),
            memory: FileMemory::new(folder.path().join("token")),
            notes: RefCell::default(),
            _folder: folder,
        };
        let Settings { service, keys, database, node, .. } = &site.settings;
        let (_, transaction) = first_epoch(service, keys, epoch, Timestamp::UNIX_EPOCH).unwrap();
        site.store.change(transaction).unwrap();
        let goal = Goal::Primary { required: None, synchronous_standby_names: String::new() };
        let order = Desired { token: Token { epoch, ..Token::default() }, goal };
        let key = keys.desired(&service.name, database, node);
        site.store.change(Transaction::new().put(key, &order)).unwrap();
        site
    }

    /// A higher epoch of the west lies in the repositories; its run, if one made it.
    fn archive(&self, epoch: u64, run: Option<u64>) -> EpochRecord {
        let west = Service { home: name("west"), ..service() };
        let keys = &self.settings.keys;
        let (record, _) = first_epoch(&west, keys, epoch, Timestamp::UNIX_EPOCH).unwrap();
        let record = EpochRecord { run: run.map(RunId), ..record };
        self.epochs.put(&west.name, record.clone());
        record
    }

    /// An epoch of a region that no run made.
    fn archive_for(&self, region: &str, epoch: u64) {
        let there = Service { home: name(region), ..service() };
        let keys = &self.settings.keys;
        let (record, _) = first_epoch(&there, keys, epoch, Timestamp::UNIX_EPOCH).unwrap();
        self.epochs.put(&there.name, record);
    }

    /// Gives `work` an agent that has just begun.
    fn agent<T>(&self, work: impl AsyncFnOnce(&Agent<'_>) -> T) -> T {
        let note = |text| self.notes.borrow_mut().push(text);
        let ports = Ports {
            timer: &self.timer,
            store: &self.store,
            instance: &self.instance,
            memory: &self.memory,
            epochs: &self.epochs,
            deadline: &|_| {},
            note: &note,
        };
        block_on(work(&Agent::new(&self.settings, &ports)))
    }

    fn has_lease(&self) -> bool {
        let Settings { service, keys, database, .. } = &self.settings;
        let key = keys.lease(&service.name, database);
        self.store.look(&key, 0).get(&key).is_some()
    }
}

impl Agent<'_> {
    /// Its loops, one turn of each; some as often as it takes to become the primary.
    async fn turn(&self) {
        for _ in 0..4 {
            self.read().await.unwrap();
            self.renew_once().await;
            self.do_once().await;
        }
    }

    async fn ask(&self) {
        let Ports { timer, epochs, .. } = self.ports;
        self.inquiry.ask(*timer, *epochs, &self.settings.service).await;
    }
}

#[test]
fn an_epoch_below_one_in_a_repository_gets_no_lease() {
    let site = Site::new(3);
    site.archive(5, None);
    site.agent(async |agent| {
        agent.turn().await;
        assert!(!site.has_lease(), "nothing begins before the answer");
        agent.ask().await;
        agent.turn().await;
        assert!(!site.has_lease());
        assert!(!site.instance.is_primary());
        let progress = agent.progress.borrow().clone();
        let Progress::Failed { why } = progress else { panic!("{progress:?}") };
        assert!(why.starts_with("LB7003") && why.contains("lifeboat apply --adopt"), "{why}");
        assert!(why.contains("has epoch 5, for west"), "{why}");
    });
}

#[test]
fn an_epoch_below_what_the_agent_remembers_is_refused_without_asking() {
    let site = Site::new(3);
    site.memory.remember(Token { epoch: 4, ..Token::default() }).unwrap();
    site.epochs.be(Mood::Silent);
    site.agent(async |agent| {
        agent.turn().await;
        agent.ask().await;
        agent.turn().await;
        assert!(!site.has_lease());
        assert!(
            matches!(&*agent.progress.borrow(), Progress::Failed { why } if why.contains("epoch 4"))
        );
    });
}

#[test]
fn who_does_not_answer_is_passed_over() {
    for mood in [Mood::Away, Mood::Silent] {
        let site = Site::new(3);
        site.archive(5, None);
        site.epochs.be(mood);
        site.agent(async |agent| {
            agent.turn().await;
            assert!(!site.has_lease());
            let before = site.timer.elapsed();
            agent.ask().await;
            assert!(site.timer.elapsed() - before <= Duration::from_secs(3));
            agent.turn().await;
            assert!(site.has_lease() && site.instance.is_primary(), "{mood:?}");
        });
    }
}

#[test]
fn what_writes_goes_on_while_the_answer_is_out_and_ends_with_it() {
    let site = Site::new(3);
    site.agent(async |agent| {
        agent.turn().await;
        agent.ask().await;
        agent.turn().await;
        assert!(site.instance.is_primary());
    });
    let lease = |site: &Site| site.store.look("", 0).revision;
    // The agent begins anew beside an instance that writes.
    site.archive(5, None);
    site.agent(async |agent| {
        let before = lease(&site);
        agent.turn().await;
        assert!(lease(&site) > before && site.instance.is_primary(), "it is renewed");
        agent.ask().await;
        agent.turn().await;
        let after = lease(&site);
        agent.turn().await;
        assert!(lease(&site) == after && !site.instance.is_primary(), "it is killed");
    });
}

#[test]
fn after_a_lease_without_the_store_they_are_asked_again() {
    let site = Site::new(3);
    site.agent(async |agent| {
        agent.turn().await;
        agent.ask().await;
        agent.turn().await;
        assert!(!agent.inquiry.is_open());
        site.archive(4, None);
        site.timer.pass(Duration::from_secs(5));
        agent.read().await.unwrap();
        assert!(!agent.inquiry.is_open(), "a moment without it is nothing");
        site.timer.pass(Duration::from_secs(7));
        agent.read().await.unwrap();
        assert!(agent.inquiry.is_open());
        agent.ask().await;
        agent.turn().await;
        assert!(!site.instance.is_primary());
    });
    assert_eq!(site.epochs.asked(), 2);
}

#[test]
fn an_epoch_that_is_about_to_begin_is_no_reason_to_refuse_the_present_one() {
    let site = Site::new(3);
    let next = site.archive(4, Some(1));
    let Settings { service, keys, .. } = &site.settings;
    let plan = Plan {
        run: RunId(1),
        service: service.name.clone(),
        kind: Kind::Failover,
        from: name("east"),
        to: name("west"),
        old: service.nodes_in(&name("east")).unwrap(),
        new: service.nodes_in(&name("west")).unwrap(),
        epoch: 3,
        steps: vec![Step::Begin],
        by: String::new(),
        reason: String::new(),
        failing_since: None,
        newest_commit: None,
        last_worked: None,
        at: Timestamp::UNIX_EPOCH,
        spec: String::new(),
    };
    let run = Run::new(plan);
    let mut entry = run.entry(Change::Started, "", "test", Timestamp::UNIX_EPOCH);
    entry.facts = Run::choice(&next);
    let transaction = Transaction::new()
        .create(keys.plan(&service.name, RunId(1)), &run.plan)
        .create(keys.transition(&service.name, RunId(1), 0), &entry);
    site.store.change(transaction).unwrap();
    site.agent(async |agent| {
        agent.turn().await;
        agent.ask().await;
        agent.turn().await;
        assert!(site.has_lease() && site.instance.is_primary());
    });
}

#[test]
fn an_epoch_that_went_down_is_reason_for_doubt() {
    let site = Site::new(3);
    site.agent(async |agent| {
        agent.turn().await;
        agent.ask().await;
        agent.turn().await;
        let (record, _) = agent.record().unwrap();
        let key = site.settings.keys.epoch(&site.settings.service.name);
        let older = EpochRecord { epoch: 2, ..record.apply(Transition::Serve).unwrap() };
        site.store.change(Transaction::new().put(key, &older)).unwrap();
        agent.turn().await;
        assert!(agent.inquiry.is_open(), "they are to be asked");
        assert!(!site.instance.is_primary(), "it has seen a higher one itself");
    });
    let Instance::Down { timeline, .. } = site.instance.now() else { panic!("it lives") };
    assert_eq!(timeline, Timeline(1));
}
