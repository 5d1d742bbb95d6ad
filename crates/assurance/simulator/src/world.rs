//! A whole service in two regions and a witness: every process, and how each is started and ended.

mod daemons;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use lifeboat_failover::first_epoch;
use lifeboat_model::{DatabaseId, DatabaseName, NodeName, RegionName};
use lifeboat_quorum::{Commit, Keys};

use crate::chance::Chance;
use crate::checks::Checks;
use crate::client;
use crate::dns::NameServer;
use crate::etcd::{Etcd, EtcdTiming};
use crate::executor::{HostId, ProcessId, Sim};
use crate::mutant::Mutant;
use crate::network::Network;
use crate::plant::Plant;
use crate::ports::TokenFile;
use crate::postgres::{self, Node};
use crate::receiver::Place;
use crate::repository::Repository;
use crate::scene::{DOMAINS, REGIONS, Scene};
use crate::wal::Record;

/// A process that faults are done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    /// The agent of a node.
    Agent(usize),
    /// The server of a node.
    Postgres(usize),
    /// The guard of a node.
    Guard(usize),
    /// A receiver.
    Receiver(usize),
    /// The controller of a domain.
    Controller(usize),
    /// The etcd member of a domain.
    Etcd(usize),
    /// The name server of a region.
    Dns(usize),
    /// The repository of a region.
    Repository(usize),
}

/// What an agent keeps on its disk.
#[derive(Default)]
pub(crate) struct AgentFiles {
    node: Rc<TokenFile>,
    receiver: Rc<TokenFile>,
}

/// The world of one run.
pub struct World {
    /// Handles to all models.
    pub plant: Plant,
    /// What the seed decided.
    pub scene: Scene,
    /// Where things lie in the store.
    pub keys: Keys,
    /// The store.
    pub etcd: Etcd,
    /// What is wrong on purpose.
    pub mutant: Option<Mutant>,
    hosts: Vec<HostId>,
    apps: Vec<(usize, HostId)>,
    nodes: Vec<Rc<Node>>,
    agents: Vec<ProcessId>,
    files: Vec<AgentFiles>,
    receivers: Vec<Rc<Place>>,
    controllers: Vec<ProcessId>,
    servers: Vec<NameServer>,
    repositories: Vec<Repository>,
    running: RefCell<BTreeSet<Unit>>,
    down: [Cell<bool>; 3],
}

impl World {
    /// Builds the world of a seed; everything runs afterwards, nothing has happened yet.
    pub fn new(mut scene: Scene, chance: Chance, mutant: Option<Mutant>) -> Rc<Self> {
        if mutant == Some(Mutant::SlowKill) {
            scene.tuning.kill = scene.service.timing.fence_deadline * 3;
        }
        if mutant == Some(Mutant::Drift) {
            scene.drift_ppm = [-250_000, 250_000, 250_000];
        }
        let sim = Sim::new(chance);
        let network = Network::new(sim.clone(), scene.link);
        let booted = |sim: &Sim| sim.between(Duration::from_secs(10), Duration::from_secs(90_000));
        let hosts: Vec<HostId> = DOMAINS
            .iter()
            .zip(scene.drift_ppm)
            .map(|(name, drift)| sim.host(name, booted(&sim), drift))
            .collect();
        let plant = Plant::new(&network, scene.tuning, Rc::new(Checks::default()), mutant);
        let etcd = Etcd::new(&network, &hosts, EtcdTiming::default());
        let servers: Vec<NameServer> =
            hosts.iter().take(2).map(|host| NameServer::new(&plant, *host)).collect();
        let mut world = Self {
            keys: Keys::default(),
            etcd,
            mutant,
            apps: Vec::new(),
            nodes: Vec::new(),
            agents: Vec::new(),
            files: Vec::new(),
            receivers: Vec::new(),
            controllers: Vec::new(),
            servers,
            repositories: Vec::new(),
            running: RefCell::default(),
            down: Default::default(),
            plant,
            scene,
            hosts,
        };
        world.furnish();
        let world = Rc::new(world);
        world.watch();
        world.units().into_iter().for_each(|unit| world.start(unit));
        world.begin();
        world
    }

    /// Puts everything in its place.
    fn furnish(&mut self) {
        let sim = self.plant.sim.clone();
        for (place, region) in REGIONS.iter().enumerate() {
            let region: RegionName = region.parse().expect("a region's name");
            let repository =
                Repository::new(&self.plant.network, region.clone(), self.hosts[place]);
            self.plant.add_repository(repository.clone());
            self.repositories.push(repository);
            for (database, content) in &self.scene.service.databases {
                let of_region = content.nodes.iter().filter(|(_, of)| **of == region);
                for (name, _) in of_region {
                    let host = self.hosts[place];
                    self.nodes.push(node(&self.plant, database, name, &region, host));
                    self.agents.push(sim.process(host, &format!("{name}/agent-{database}")));
                    self.files.push(AgentFiles::default());
                    let id = DatabaseId {
                        service: self.scene.service.name.clone(),
                        database: database.clone(),
                    };
                    let receiver = Place::new(&self.plant, &id, &region, host, self.mutant);
                    self.receivers.push(receiver);
                }
            }
        }
        for (domain, host) in DOMAINS.iter().zip(&self.hosts) {
            self.controllers.push(sim.process(*host, &format!("{domain}/controller")));
        }
        for (place, domain) in DOMAINS.iter().enumerate() {
            let host = sim.host(&format!("{domain}-app"), Duration::from_secs(60), 0);
            self.apps.push((place, host));
            for database in self.scene.service.databases.keys() {
                client::start(&self.plant, database, &self.servers, host, self.scene.pause);
            }
        }
    }

    /// Checkers see every change of the record and of statuses.
    fn watch(self: &Rc<Self>) {
        let epoch = self.keys.epoch(&self.scene.service.name);
        let plant = self.plant.clone();
        let journal = self.keys.runs(&self.scene.service.name);
        let lease = format!("{}lease/", self.keys.service(&self.scene.service.name));
        self.etcd.truth().watch(move |change| {
            if change.key == epoch {
                plant.checks.record_changed(&plant, change.before, change.after);
            } else if change.key.starts_with(&journal) {
                plant.checks.journal_changed(&plant, change.key, change.before, change.after);
            } else if let (Some(database), Some(after), Some(sent)) =
                (change.key.strip_prefix(&lease), change.after, change.sent)
            {
                plant.checks.renewed(&plant, database, after, sent);
            }
        });
    }

    /// `lifeboat apply`: the first epoch.
    fn begin(&self) {
        let at = jiff::Timestamp::UNIX_EPOCH;
        match first_epoch(&self.scene.service, &self.keys, 1, at) {
            Ok((_, transaction)) => match self.etcd.truth().commit(&transaction) {
                Commit::Done(_) => {}
                Commit::Conflict => self.plant.sim.fail("the first epoch conflicts".to_owned()),
            },
            Err(failure) => self.plant.sim.fail(failure.full_message()),
        }
    }

    /// All processes that faults are done to.
    pub fn units(&self) -> Vec<Unit> {
        let mut units = Vec::new();
        units.extend((0..self.etcd.len()).map(Unit::Etcd));
        units.extend((0..self.servers.len()).map(Unit::Dns));
        units.extend((0..self.repositories.len()).map(Unit::Repository));
        units.extend((0..self.nodes.len()).map(Unit::Guard));
        units.extend((0..self.nodes.len()).map(Unit::Postgres));
        units.extend((0..self.receivers.len()).map(Unit::Receiver));
        units.extend((0..self.agents.len()).map(Unit::Agent));
        units.extend((0..self.controllers.len()).map(Unit::Controller));
        units
    }

    /// The process of a unit.
    pub fn process(&self, unit: Unit) -> ProcessId {
        match unit {
            Unit::Agent(place) => self.agents[place],
            Unit::Postgres(place) => self.nodes[place].postgres,
            Unit::Guard(place) => self.nodes[place].guard,
            Unit::Receiver(place) => self.receivers[place].process,
            Unit::Controller(place) => self.controllers[place],
            Unit::Etcd(place) => self.etcd.process(place),
            Unit::Dns(place) => self.servers[place].process,
            Unit::Repository(place) => self.repositories[place].process,
        }
    }

    /// The domain of a unit.
    pub fn domain(&self, unit: Unit) -> usize {
        let host = self.plant.sim.host_of(self.process(unit));
        self.hosts.iter().position(|one| *one == host).unwrap_or_default()
    }

    /// The host of a domain.
    pub fn host(&self, domain: usize) -> HostId {
        self.hosts[domain]
    }

    /// All hosts of a domain, those of its applications too.
    pub fn hosts_of(&self, domain: usize) -> Vec<HostId> {
        let apps = self.apps.iter().filter(|(of, _)| *of == domain).map(|(_, host)| *host);
        std::iter::once(self.hosts[domain]).chain(apps).collect()
    }

    /// The nodes.
    pub fn nodes(&self) -> &[Rc<Node>] {
        &self.nodes
    }

    /// The name servers, one a region.
    pub fn name_servers(&self) -> &[NameServer] {
        &self.servers
    }

    /// The files of the agents of a domain: full, or not any more.
    pub fn fill_disk(&self, domain: usize, full: bool) {
        for (place, files) in self.files.iter().enumerate() {
            if self.domain(Unit::Agent(place)) == domain {
                files.node.full.set(full);
                files.receiver.full.set(full);
            }
        }
    }

    /// Starts a unit as its supervisor would; nothing happens if it runs, or its domain is down.
    pub fn start(self: &Rc<Self>, unit: Unit) {
        if self.down[self.domain(unit)].get() || !self.running.borrow_mut().insert(unit) {
            return;
        }
        match unit {
            // The agent starts these.
            Unit::Postgres(_) | Unit::Receiver(_) => {
                self.running.borrow_mut().remove(&unit);
            }
            Unit::Guard(place) => postgres::start_guard(&self.plant, &self.nodes[place]),
            Unit::Agent(place) => self.start_agent(place),
            Unit::Controller(place) => self.start_controller(place),
            Unit::Etcd(place) => self.etcd.start(place),
            Unit::Dns(place) => self.servers[place].start(),
            Unit::Repository(place) => self.repositories[place].start(),
        }
    }

    /// SIGKILL.
    pub fn kill(&self, unit: Unit) {
        self.plant.sim.note_of(self.process(unit), "is killed");
        match unit {
            Unit::Postgres(place) => self.nodes[place].die(&self.plant, "killed"),
            // Whoever watches the guard kills the server, and a new guard is started.
            Unit::Guard(place) => postgres::guard_died(&self.plant, &self.nodes[place]),
            Unit::Receiver(place) => self.receivers[place].die(&self.plant, false),
            _ => {
                self.plant.sim.kill(self.process(unit));
                self.running.borrow_mut().remove(&unit);
            }
        }
    }

    /// The power of a domain goes off.
    pub fn crash(&self, domain: usize) {
        self.plant.sim.note(DOMAINS[domain], "loses its power");
        self.plant.checks.goes_on(self.hosts[domain], self.plant.sim.now());
        self.down[domain].set(true);
        for unit in self.units().into_iter().filter(|unit| self.domain(*unit) == domain) {
            self.plant.sim.kill(self.process(unit));
            self.running.borrow_mut().remove(&unit);
            match unit {
                Unit::Postgres(place) => {
                    self.nodes[place].die(&self.plant, "no power");
                    self.nodes[place].deadline.borrow_mut().clear();
                }
                Unit::Receiver(place) => self.receivers[place].die(&self.plant, true),
                _ => {}
            }
        }
    }

    /// The power of a domain is back: everything that starts by itself does.
    pub fn power_on(self: &Rc<Self>, domain: usize) {
        if !self.down[domain].replace(false) {
            return;
        }
        self.plant.sim.note(DOMAINS[domain], "is switched on");
        self.plant.sim.reboot_clock(self.hosts[domain]);
        for unit in self.units().into_iter().filter(|unit| self.domain(*unit) == domain) {
            self.start(unit);
        }
    }

    /// Whether a unit has a process now.
    pub fn is_running(&self, unit: Unit) -> bool {
        match unit {
            Unit::Postgres(place) => self.nodes[place].lives.get(),
            Unit::Receiver(place) => self.receivers[place].runs_for(&self.plant).is_some(),
            _ => self.running.borrow().contains(&unit),
        }
    }

    /// Whether a domain is without power.
    pub fn is_down(&self, domain: usize) -> bool {
        self.down[domain].get()
    }
}

/// A place with a data directory: the first region has the primary, the other one its standby.
fn node(
    plant: &Plant,
    database: &DatabaseName,
    name: &NodeName,
    region: &RegionName,
    host: HostId,
) -> Rc<Node> {
    let node = Node::new(plant, database, name, region, host);
    {
        let mut disk = node.disk.borrow_mut();
        disk.exists = true;
        disk.standby = region.as_str() != REGIONS[0];
        disk.log.push(Record { id: u64::MAX, timeline: 1, at: None });
    }
    plant.add_node(&node);
    node
}
