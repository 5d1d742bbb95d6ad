//! The production daemons, with the models as their ports.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use lifeboat_daemons::{agent, controller, receiver};
use lifeboat_drivers::TrafficDriver;
use lifeboat_model::{DatabaseName, RegionName};

use super::World;
use crate::dns::SimTraffic;
use crate::mutant::Mutant;
use crate::ports::{SimArchive, SimMemory, SimProbe};
use crate::postgres::SimInstance;
use crate::receiver::SimReceiver;
use crate::scene::DOMAINS;
use crate::wrong::{WrongStore, WrongTimer};

impl World {
    fn poll(&self) -> Duration {
        self.scene.service.timing.renew / self.scene.polls
    }

    /// One agent: the node's loops and the receiver's, in one process.
    pub(super) fn start_agent(self: &Rc<Self>, place: usize) {
        let process = self.agents[place];
        let sim = &self.plant.sim;
        let (node, service) = (Rc::clone(&self.nodes[place]), self.scene.service.clone());
        let timing = service.timing;
        let settings = agent::Settings {
            database: node.database.clone(),
            node: node.name.clone(),
            agent: sim.chance(crate::chance::Chance::draw),
            keys: self.keys.clone(),
            poll: self.poll(),
            patience: Duration::from_secs(20),
            serve_without_quorum: false,
            service,
        };
        let (timer, store) = (sim.timer(process), self.etcd.client(process, timing.store_timeout));
        let mut instance = SimInstance::new(&self.plant, &node, process, timing);
        instance.mutant = self.mutant;
        let name = sim.name_of(process);
        let mut memory = SimMemory::new(&self.plant, &name, &self.files[place].node);
        memory.mutant = self.mutant;
        let epochs = SimArchive::new(&self.plant, process);
        let notes = self.plant.clone();
        sim.spawn(process, async move {
            let ports = agent::Ports {
                timer: &timer,
                store: &store,
                instance: &instance,
                memory: &memory,
                epochs: &epochs,
                deadline: &|_| {},
                note: &|text| notes.sim.note_of(process, text),
            };
            agent::run(&settings, &ports).await;
        });
        self.start_receiver(place);
    }

    fn start_receiver(self: &Rc<Self>, place: usize) {
        let process = self.agents[place];
        let sim = &self.plant.sim;
        let service = &self.scene.service;
        let database = &self.nodes[place].database;
        if service.databases.get(database).is_none_or(|one| one.receivers.is_empty()) {
            return;
        }
        let settings = receiver::Settings {
            service: service.name.clone(),
            database: database.clone(),
            region: self.nodes[place].region.clone(),
            keys: self.keys.clone(),
            poll: self.poll(),
        };
        let timer = sim.timer(process);
        let store = self.etcd.client(process, service.timing.store_timeout);
        let mut driver = SimReceiver::new(&self.plant, &self.receivers[place], process);
        driver.lies = self.mutant == Some(Mutant::NoSeal);
        let name = format!("{} (receiver)", sim.name_of(process));
        let mut memory = SimMemory::new(&self.plant, &name, &self.files[place].receiver);
        memory.mutant = self.mutant;
        let notes = self.plant.clone();
        sim.spawn(process, async move {
            let ports = receiver::Ports {
                timer: &timer,
                store: &store,
                receiver: &driver,
                memory: &memory,
                note: &|text| notes.sim.note_of(process, text),
            };
            receiver::run(&settings, &ports).await;
        });
    }

    /// One controller, with its observer.
    pub(super) fn start_controller(self: &Rc<Self>, place: usize) {
        let process = self.controllers[place];
        let sim = &self.plant.sim;
        let mut service = self.scene.service.clone();
        let timing = service.timing;
        if self.mutant == Some(Mutant::ShortWait) {
            service.timing.lease /= 2;
        }
        let domain: RegionName = DOMAINS[place].parse().expect("a domain's name");
        let databases: Vec<DatabaseName> = service.databases.keys().cloned().collect();
        let name = service.name.clone();
        let settings = controller::Settings {
            domain,
            services: BTreeMap::from([(name.clone(), service)]),
            keys: self.keys.clone(),
            poll: self.poll() * 2,
            probe_every: Duration::from_secs(2),
            probe_failing_every: Duration::from_millis(500),
            traffic_every: Duration::from_secs(5),
        };
        let jump = match self.mutant {
            Some(Mutant::ResumeWithoutWatching) => timing.lease,
            _ => Duration::ZERO,
        };
        let timer = WrongTimer::new(sim.timer(process), jump);
        let clock = sim.clock(sim.host_of(process));
        let store = self.etcd.client(process, timing.store_timeout);
        let store = WrongStore::new(store, self.mutant);
        let timeout = Duration::from_millis(1000);
        let probe = SimProbe::new(&self.plant, &self.servers, process, &databases, timeout);
        let epochs = SimArchive::new(&self.plant, process);
        let mut names = SimTraffic::new(&self.servers, &name, process);
        names.blind = self.mutant == Some(Mutant::BlindTraffic);
        let names: Box<dyn TrafficDriver> = Box::new(names);
        let traffic = BTreeMap::from([(name, vec![names])]);
        let notes = self.plant.clone();
        sim.spawn(process, async move {
            let ports = controller::Ports {
                timer: &timer,
                clock: &clock,
                store: &store,
                probe: &probe,
                epochs: &epochs,
                traffic: &traffic,
                note: &|text| notes.sim.note_of(process, text),
            };
            controller::run(&settings, &ports).await;
        });
    }
}
