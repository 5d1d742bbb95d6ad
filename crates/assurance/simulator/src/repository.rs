//! A region's repository: WAL that was shipped, and epochs, each created once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use lifeboat_environment::Timer;
use lifeboat_model::{DatabaseName, RegionName, ServiceName};

use crate::executor::{HostId, ProcessId};
use crate::message::{Address, Reply};
use crate::network::Network;
use crate::wal::{Log, Record};

/// An epoch's object: its region, and what tells two objects of one number apart.
pub type EpochObject = (RegionName, Vec<u8>);

/// What a repository is asked.
pub enum Request {
    /// Records that follow on the one with the id `behind`.
    Ship {
        /// Whose.
        database: DatabaseName,
        /// The record before them.
        behind: u64,
        /// They.
        records: Vec<Record>,
        /// Once they are durable.
        reply: Reply<()>,
    },
    /// What follows on a record.
    After {
        /// Whose.
        database: DatabaseName,
        /// The record.
        id: u64,
        /// How many at the most.
        most: usize,
        /// They.
        reply: Reply<Vec<Record>>,
    },
    /// The highest epoch.
    Highest {
        /// Of which service.
        service: ServiceName,
        /// Its number and object.
        reply: Reply<Option<(u64, EpochObject)>>,
    },
    /// Creates an epoch's object if it is not there.
    Record {
        /// Of which service.
        service: ServiceName,
        /// Its number.
        epoch: u64,
        /// Its object.
        object: EpochObject,
        /// Whether it is there now, with this content.
        reply: Reply<bool>,
    },
}

#[derive(Default)]
struct Content {
    behind: BTreeMap<(DatabaseName, u64), Vec<Record>>,
    epochs: BTreeMap<(ServiceName, u64), EpochObject>,
}

/// A repository; clones are handles to the same one.
#[derive(Clone)]
pub struct Repository {
    /// Its region.
    pub region: RegionName,
    /// The store's process.
    pub process: ProcessId,
    /// Where it is asked.
    pub address: Address<Request>,
    network: Network,
    content: Rc<RefCell<Content>>,
}

impl Repository {
    /// A repository on a host; its process does not run yet.
    pub fn new(network: &Network, region: RegionName, host: HostId) -> Self {
        let process = network.sim().process(host, &format!("{region}/repository"));
        let address = Address::new(network, process);
        Self { region, process, address, network: network.clone(), content: Rc::default() }
    }

    /// Starts the store's process.
    pub fn start(&self) {
        let sim = self.network.sim();
        let (mut listener, timer) = (self.address.listen(), sim.timer(self.process));
        let (repository, sim) = (self.clone(), sim.clone());
        sim.clone().spawn(self.process, async move {
            loop {
                let request = listener.next().await;
                timer.sleep(sim.between(Duration::from_millis(1), Duration::from_millis(6))).await;
                repository.answer(request);
            }
        });
    }

    fn answer(&self, request: Request) {
        let content = &mut *self.content.borrow_mut();
        match request {
            Request::Ship { database, mut behind, records, reply } => {
                for record in records {
                    let next = content.behind.entry((database.clone(), behind)).or_default();
                    if !next.contains(&record) {
                        next.push(record);
                    }
                    behind = record.id;
                }
                reply.send(());
            }
            Request::After { database, id, most, reply } => {
                reply.send(content.follow(&database, id, most));
            }
            Request::Highest { service, reply } => {
                let mut known = content.epochs.iter().filter(|((of, _), _)| *of == service);
                let highest = known.next_back();
                reply.send(highest.map(|((_, epoch), object)| (*epoch, object.clone())));
            }
            Request::Record { service, epoch, object, reply } => {
                let there =
                    content.epochs.entry((service, epoch)).or_insert_with(|| object.clone());
                reply.send(*there == object);
            }
        }
    }

    /// All that it has of a database, along the newest timeline.
    pub fn log(&self, database: &DatabaseName) -> Log {
        let mut log = Log::default();
        for record in self.content.borrow().follow(database, 0, usize::MAX) {
            log.push(record);
        }
        log
    }

    /// The newest timeline that it knows.
    pub fn newest_timeline(&self) -> u32 {
        let content = self.content.borrow();
        content.behind.values().flatten().map(|record| record.timeline).max().unwrap_or(1)
    }
}

impl Content {
    /// Where two timelines branch, the newer one.
    fn follow(&self, database: &DatabaseName, mut id: u64, most: usize) -> Vec<Record> {
        let mut found = Vec::new();
        while found.len() < most {
            let next = self.behind.get(&(database.clone(), id));
            let Some(next) = next.and_then(|next| next.iter().max_by_key(|next| next.timeline))
            else {
                break;
            };
            id = next.id;
            found.push(*next);
        }
        found
    }
}
