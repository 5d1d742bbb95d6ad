use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use lifeboat_quorum::{Commit, Store, StoreError, Transaction};

use crate::chance::Chance;
use crate::etcd::{Etcd, EtcdTiming, SimStore};
use crate::executor::{HostId, ProcessId, Sim};
use crate::network::{Link, Network};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

struct World {
    sim: Sim,
    network: Network,
    hosts: Vec<HostId>,
    etcd: Etcd,
    client: ProcessId,
}

fn world(seed: u64) -> World {
    let sim = Sim::new(Chance::new(seed));
    let usual = Link { least: ms(2), most: ms(15), lost_permille: 0, cut: false };
    let network = Network::new(sim.clone(), usual);
    let hosts: Vec<HostId> =
        ["east", "west", "north"].map(|name| sim.host(name, ms(1000), 0)).to_vec();
    let etcd = Etcd::new(&network, &hosts, EtcdTiming::default());
    (0..3).for_each(|member| etcd.start(member));
    let client = sim.process(hosts[0], "client");
    sim.run_until(ms(4000));
    World { sim, network, hosts, etcd, client }
}

impl World {
    fn store(&self) -> Rc<SimStore> {
        Rc::new(self.etcd.client(self.client, ms(750)))
    }

    /// Runs one task of the client to its end.
    fn run<T: 'static>(&self, task: impl Future<Output = T> + 'static) -> T {
        let slot = Rc::new(RefCell::new(None));
        let result = Rc::clone(&slot);
        self.sim.spawn(self.client, async move {
            *result.borrow_mut() = Some(task.await);
        });
        let end = self.sim.now() + Duration::from_secs(60);
        while slot.borrow().is_none() && self.sim.now() < end {
            self.sim.run_until(self.sim.now() + ms(10));
        }
        slot.take().expect("the task ends")
    }

    fn commit(&self, transaction: Transaction) -> Result<Commit, StoreError> {
        let store = self.store();
        self.run(async move { store.commit(transaction).await })
    }

    fn cut(&self, a: HostId, b: HostId) {
        self.network.set(a, b, |link| link.cut = true);
        self.network.set(b, a, |link| link.cut = true);
    }

    fn leader(&self) -> usize {
        self.etcd.leader().expect("there is a leader")
    }
}

#[test]
fn one_of_two_that_compare_the_same_revision_wins() {
    let world = world(1);
    let first = world.commit(Transaction::new().create("a", &1));
    assert_eq!(first, Ok(Commit::Done(2)));
    assert_eq!(world.commit(Transaction::new().create("a", &2)), Ok(Commit::Conflict));
    assert_eq!(world.commit(Transaction::new().when("a", 2).put("a", &3)), Ok(Commit::Done(3)));
    let store = world.store();
    let read = world.run(async move { store.read("", 2).await }).unwrap();
    assert_eq!((read.revision, read.revision_of("a")), (3, 3));
    world.sim.end();
}

#[test]
fn the_death_of_a_leader_costs_an_election_and_nothing_else() {
    for seed in 0..20 {
        let world = world(seed);
        let leader = world.leader();
        world.sim.kill(world.etcd.process(leader));
        let during = world.commit(Transaction::new().create("a", &1));
        world.sim.run_until(world.sim.now() + Duration::from_secs(5));
        assert_ne!(world.leader(), leader);
        let after = world.commit(Transaction::new().create("b", &1));
        assert!(matches!(after, Ok(Commit::Done(_))), "{seed}: {during:?} {after:?}");
        world.sim.end();
    }
}

#[test]
fn a_leader_in_a_minority_changes_nothing_and_answers_nothing() {
    for seed in 0..20 {
        let world = world(seed);
        let leader = world.leader();
        let (cut, rest): (Vec<_>, Vec<_>) = (0..3).partition(|member| *member == leader);
        for other in rest {
            world.cut(world.hosts[cut[0]], world.hosts[other]);
        }
        world.sim.run_until(world.sim.now() + Duration::from_secs(5));
        let alone =
            Rc::new(world.etcd.client(world.sim.process(world.hosts[leader], "alone"), ms(750)));
        let store = Rc::clone(&alone);
        let read = world.run(async move { store.read("", 0).await });
        assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
        let commit =
            world.run(async move { alone.commit(Transaction::new().create("x", &1)).await });
        assert!(matches!(commit, Err(StoreError::Unavailable(_))), "{commit:?}");
        assert_ne!(world.leader(), leader);
        world.sim.end();
    }
}

#[test]
fn without_a_majority_there_is_no_answer_and_with_one_again_there_is() {
    let world = world(5);
    world.sim.kill(world.etcd.process(0));
    world.sim.kill(world.etcd.process(1));
    world.sim.run_until(world.sim.now() + Duration::from_secs(5));
    assert!(world.commit(Transaction::new().create("a", &1)).is_err());
    world.etcd.start(0);
    world.sim.run_until(world.sim.now() + Duration::from_secs(5));
    assert!(world.commit(Transaction::new().create("b", &1)).is_ok());
    world.sim.end();
}

/// The answer is lost, the change is not: sometimes at once, sometimes by the next leader.
#[test]
fn a_commit_without_an_answer_may_land() {
    let (mut landed, mut lost) = (0, 0);
    for seed in 0..60 {
        let world = world(seed);
        let leader = world.leader();
        let store = world.store();
        let done: Rc<RefCell<Option<Result<Commit, StoreError>>>> = Rc::default();
        let result = Rc::clone(&done);
        world.sim.spawn(world.client, async move {
            *result.borrow_mut() = Some(store.commit(Transaction::new().create("a", &1)).await);
        });
        world.sim.run_until(world.sim.now() + ms(seed % 30));
        world.sim.kill(world.etcd.process(leader));
        world.sim.run_until(world.sim.now() + Duration::from_secs(8));
        let there = world.etcd.truth().value("a").is_some();
        match done.take() {
            Some(Ok(_)) => assert!(there),
            Some(Err(_)) if there => landed += 1,
            Some(Err(_)) => lost += 1,
            None => panic!("a call ends within its timeout"),
        }
        world.sim.end();
    }
    assert!(landed > 0 && lost > 0, "{landed} landed, {lost} lost");
}

/// The suite that real members pass (`quorum/tests/stores.rs`), on this executor.
#[test]
fn the_model_does_what_every_store_does() {
    let world = world(11);
    let long = Duration::from_secs(10);
    let (one, other) =
        (world.etcd.client(world.client, long), world.etcd.client(world.client, long));
    let passed = world
        .run(async move { lifeboat_testkit::quorum::conformance(&one, &other, "lifeboat/").await });
    passed.unwrap();
    world.sim.end();
}
