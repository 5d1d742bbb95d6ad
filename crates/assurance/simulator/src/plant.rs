//! What all models know of each other: the machines and systems of one simulated service.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use lifeboat_model::{DatabaseName, NodeName, RegionName};

use crate::checks::Checks;
use crate::executor::{HostId, ProcessId, Sim};
use crate::mutant::Mutant;
use crate::network::Network;
use crate::postgres::{Node, Told};
use crate::repository::Repository;

type Span = (Duration, Duration);

/// How quick things are under this seed.
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    /// From the start of a server until it answers.
    pub recovery: Span,
    /// What a promotion takes.
    pub promotion: Span,
    /// How long received WAL waits for its replay.
    pub replay: Span,
    /// How long flushed WAL waits until receivers ship it.
    pub ship: Duration,
    /// No deadline lies further ahead than this.
    pub lease: Duration,
    /// How long it takes at most to kill every process of a server.
    pub kill: Duration,
    /// How long a service has to fail before it is moved without a person.
    pub unhealthy: Duration,
}

/// Handles to everything; clones are handles to the same.
#[derive(Clone)]
pub struct Plant {
    /// Time and tasks.
    pub sim: Sim,
    /// The network.
    pub network: Network,
    /// How quick things are.
    pub tuning: Tuning,
    /// What must never happen.
    pub checks: Rc<Checks>,
    /// What is wrong on purpose.
    pub mutant: Option<Mutant>,
    inner: Rc<Inner>,
}

#[derive(Default)]
struct Inner {
    nodes: RefCell<BTreeMap<(DatabaseName, NodeName), Rc<Node>>>,
    repositories: RefCell<BTreeMap<RegionName, Repository>>,
    slow: RefCell<BTreeSet<HostId>>,
    unplugged: Cell<bool>,
    pointing: RefCell<BTreeMap<ProcessId, Box<dyn FnOnce()>>>,
    ids: Cell<u64>,
}

const QUICK_DISK: Span = (Duration::from_micros(200), Duration::from_millis(3));
const SLOW_DISK: Span = (Duration::from_millis(80), Duration::from_millis(700));

impl Plant {
    /// Nothing but the ground.
    pub fn new(
        network: &Network,
        tuning: Tuning,
        checks: Rc<Checks>,
        mutant: Option<Mutant>,
    ) -> Self {
        let (sim, network) = (network.sim().clone(), network.clone());
        Self { sim, network, tuning, checks, mutant, inner: Rc::default() }
    }

    /// Adds the place of an instance.
    pub fn add_node(&self, node: &Rc<Node>) {
        let place = (node.database.clone(), node.name.clone());
        self.inner.nodes.borrow_mut().insert(place, Rc::clone(node));
    }

    /// Adds a region's repository.
    pub fn add_repository(&self, repository: Repository) {
        self.inner.repositories.borrow_mut().insert(repository.region.clone(), repository);
    }

    /// The place of an instance.
    pub fn node(&self, database: &DatabaseName, name: &NodeName) -> Option<Rc<Node>> {
        self.inner.nodes.borrow().get(&(database.clone(), name.clone())).cloned()
    }

    /// Whether a node is called so.
    pub fn is_node(&self, name: &NodeName) -> bool {
        self.inner.nodes.borrow().keys().any(|(_, node)| node == name)
    }

    /// The nodes of a database.
    pub fn nodes_of(&self, database: &DatabaseName) -> Vec<Rc<Node>> {
        let nodes = self.inner.nodes.borrow();
        nodes.values().filter(|node| node.database == *database).cloned().collect()
    }

    /// All nodes.
    pub fn nodes(&self) -> Vec<Rc<Node>> {
        self.inner.nodes.borrow().values().cloned().collect()
    }

    /// The repository of a region.
    pub fn repository(&self, region: &RegionName) -> Option<Repository> {
        self.inner.repositories.borrow().get(region).cloned()
    }

    /// All repositories.
    pub fn repositories(&self) -> Vec<Repository> {
        self.inner.repositories.borrow().values().cloned().collect()
    }

    /// A number that nothing else has.
    pub fn id(&self) -> u64 {
        self.inner.ids.set(self.inner.ids.get() + 1);
        self.inner.ids.get()
    }

    /// How long a flush takes on a host now.
    pub fn disk(&self, host: HostId) -> Span {
        if self.inner.slow.borrow().contains(&host) { SLOW_DISK } else { QUICK_DISK }
    }

    /// Makes the disk of a host slow, or quick again.
    pub fn slow_disk(&self, host: HostId, slow: bool) {
        let mut hosts = self.inner.slow.borrow_mut();
        if slow {
            hosts.insert(host)
        } else {
            hosts.remove(&host)
        };
    }

    /// Whether standbys find nobody to stream from; receivers do.
    pub fn is_unplugged(&self) -> bool {
        self.inner.unplugged.get()
    }

    /// Takes the stream away from all standbys, or gives it back.
    pub fn unplug(&self, unplugged: bool) {
        self.inner.unplugged.set(unplugged);
    }

    /// Does something once a process has seen where a name leads, and is about to change it.
    pub fn when_pointing(&self, process: ProcessId, call: impl FnOnce() + 'static) {
        self.inner.pointing.borrow_mut().insert(process, Box::new(call));
    }

    /// A process is about to change a name.
    pub fn is_pointing(&self, process: ProcessId) {
        let trap = self.inner.pointing.borrow_mut().remove(&process);
        if let Some(call) = trap {
            call();
        }
    }

    /// Forgets what was to be done at moments that did not come.
    pub fn forget_moments(&self) {
        self.inner.pointing.borrow_mut().clear();
    }

    /// A server did what others can see.
    pub fn told(&self, node: &Node, told: Told) {
        self.checks.told(self, node, told);
    }

    /// WAL behind `length` is about to be thrown away.
    pub fn discarded(&self, node: &Node, length: usize) {
        self.checks.discarded(self, node, length);
    }
}
