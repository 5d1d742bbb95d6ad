//! Everything but the controller: the store, agents, two more observers, and the faults.
//!
//! Agents and observers write as often as the real ones do; what they find out takes no time.

mod agents;
mod observers;
mod serve;

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use anyhow::{Context, Result};
use lifeboat_environment::{Clock, SystemClock};
use lifeboat_failover::{Service, first_epoch};
use lifeboat_model::{DatabaseName, NodeName, RegionName, ServiceName};
use lifeboat_quorum::{EpochRecord, EpochState, Keys, MemoryStore, Put, Transaction, decode};
use tokio::time::sleep;

pub use agents::Node;
pub use observers::Observer;
pub use serve::serve;

use crate::services::{self, REGIONS};

/// How often it is looked what is due.
const TICK: Duration = Duration::from_millis(5);
/// How long an agent takes to see an order.
const ORDER: Duration = Duration::from_millis(50);

/// One service in the world.
pub struct Place {
    /// The service.
    pub name: ServiceName,
    /// Its nodes, by the number of their region.
    pub nodes: [Node; 2],
    /// Its record, as it stands in the store.
    pub record: EpochRecord,
    /// When the record became what it is.
    pub moved: Duration,
    /// When the lease was last renewed.
    pub renewed: Duration,
    /// When the controller last had an answer of its probe, and since when it waits for one.
    pub probed: (Option<Duration>, Option<Duration>),
    /// What became of the last fault.
    pub story: Story,
}

/// When what happened after a fault.
#[derive(Debug, Clone, Copy, Default)]
pub struct Story {
    /// The primary died.
    pub fault: Option<Duration>,
    /// The policy allows the move from here on.
    pub allowed: Option<Duration>,
    /// The run and the record `revoking` were written.
    pub decided: Option<Duration>,
    /// The record of the next epoch was written.
    pub begun: Option<Duration>,
    /// The lease that had to be waited for was last renewed.
    pub renewed: Option<Duration>,
    /// The run was over.
    pub over: Option<Duration>,
}

/// What is due at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// A node reports.
    Report(usize, usize),
    /// A node renews its lease.
    Renew(usize, usize),
    /// A node sees its order.
    Order(usize, usize),
    /// An observer probes.
    Look(usize, usize),
    /// An observer's probe has found nothing.
    Silent(usize, usize),
}

/// The world.
pub struct World {
    /// The store.
    pub store: MemoryStore,
    /// Where things lie in it.
    pub keys: Keys,
    /// The services.
    pub places: RefCell<Vec<Place>>,
    /// The observers beside the controller's own.
    pub observers: RefCell<Vec<Observer>>,
    /// Questions of the controller so far: reads, commits, probes.
    pub asked: Cell<[u64; 3]>,
    index: BTreeMap<ServiceName, usize>,
    due: RefCell<BinaryHeap<Reverse<(Duration, Due)>>>,
    database: DatabaseName,
    names: [NodeName; 2],
}

/// The machine's clock.
pub fn now() -> Duration {
    SystemClock.elapsed()
}

impl World {
    /// Every service begins its first epoch at home.
    pub fn new(all: &[Service]) -> Result<Self> {
        let (store, keys) = (MemoryStore::new(), Keys::default());
        let regions: [RegionName; 2] = [services::name(REGIONS[0])?, services::name(REGIONS[1])?];
        let mut places = Vec::new();
        for service in all {
            let (record, transaction) = first_epoch(service, &keys, 1, SystemClock.now())?;
            store.change(transaction)?;
            let at_home = service.home == regions[0];
            places.push(Place {
                name: service.name.clone(),
                nodes: [Node::new(at_home), Node::new(!at_home)],
                record,
                moved: now(),
                renewed: now(),
                probed: (None, None),
                story: Story::default(),
            });
        }
        let index = places.iter().enumerate().map(|(at, place)| (place.name.clone(), at));
        let world = Self {
            index: index.collect(),
            store,
            keys,
            observers: RefCell::new(Observer::both(&regions, all.len())),
            places: RefCell::new(places),
            asked: Cell::default(),
            due: RefCell::default(),
            database: services::database()?,
            names: [services::node(&regions[0])?, services::node(&regions[1])?],
        };
        world.begin();
        Ok(world)
    }

    /// Everybody begins somewhere within a second or two, not all at once.
    fn begin(&self) {
        let (count, start) = (self.places.borrow().len(), now());
        for place in 0..count {
            let share = |of: Duration| start + of.mul_f64(place as f64 / count as f64);
            for node in 0..2 {
                self.at(share(services::RENEW), Due::Renew(place, node));
                self.at(share(agents::REPORT), Due::Report(place, node));
                self.at(share(services::PROBE_EVERY), Due::Look(place, node));
            }
        }
    }

    /// Something is due at some time.
    pub fn at(&self, when: Duration, what: Due) {
        self.due.borrow_mut().push(Reverse((when, what)));
    }

    /// Lives for ever.
    pub async fn live(&self) -> Result<()> {
        loop {
            while let Some((when, what)) = self.next_due() {
                match what {
                    Due::Report(place, node) => self.report(place, node, when)?,
                    Due::Renew(place, node) => self.renew(place, node, when)?,
                    Due::Order(place, node) => self.obey(place, node)?,
                    Due::Look(place, observer) => self.look(place, observer),
                    Due::Silent(place, observer) => self.find_silent(place, observer),
                }
            }
            self.tell()?;
            sleep(TICK).await;
        }
    }

    fn next_due(&self) -> Option<(Duration, Due)> {
        let mut due = self.due.borrow_mut();
        due.peek().filter(|Reverse((when, _))| *when <= now())?;
        due.pop().map(|Reverse(next)| next)
    }

    /// Whether clients can write.
    pub fn works(&self, place: usize) -> bool {
        self.places.borrow().get(place).is_some_and(Place::works)
    }

    /// A node dies, or comes back without its instance.
    pub fn set_alive(&self, place: usize, node: usize, alive: bool) {
        if let Some(place) = self.places.borrow_mut().get_mut(place) {
            place.nodes[node].set_alive(alive);
        }
        self.at(now() + ORDER, Due::Order(place, node));
    }

    /// What the controller wrote, as those see it whom it concerns.
    fn hear(&self, puts: &[Put]) -> Result<()> {
        for put in puts {
            let Some(rest) = put.key.strip_prefix(&self.keys.services()) else { continue };
            let mut parts = rest.split('/');
            let Some(place) = parts.next().and_then(|name| self.index.get(name)) else { continue };
            match parts.next() {
                Some("epoch") => self.hear_epoch(*place)?,
                Some("desired") => {
                    let node = put.key.rsplit('/').next();
                    let node = self.names.iter().position(|name| Some(name.as_str()) == node);
                    self.at(now() + ORDER, Due::Order(*place, node.context("a stranger's order")?));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn hear_epoch(&self, at: usize) -> Result<()> {
        let mut places = self.places.borrow_mut();
        let place = places.get_mut(at).context("no such service")?;
        let key = self.keys.epoch(&place.name);
        let found = self.store.look(&key, 0);
        let record: EpochRecord = decode(found.get(&key).context("no record")?)?;
        let before = std::mem::replace(&mut place.record, record);
        let (now, record) = (now(), &place.record);
        if (before.epoch, before.state) != (record.epoch, record.state) {
            place.moved = now;
        }
        if record.state == EpochState::Revoking && before.state != EpochState::Revoking {
            place.story.decided = Some(now);
            place.story.renewed = Some(place.renewed);
        }
        if record.epoch > before.epoch {
            place.story.begun = Some(now);
        }
        if record.run.is_none() && before.run.is_some() {
            place.story.over = Some(now);
        }
        Ok(())
    }

    /// Writes as somebody who is not asked.
    fn put(&self, transaction: Transaction) -> Result<()> {
        self.store.change(transaction)?;
        Ok(())
    }
}

impl Place {
    /// The number of the region that holds it.
    pub fn holder(&self) -> usize {
        usize::from(self.record.region.as_str() == REGIONS[1])
    }

    /// Whether clients can write.
    pub fn works(&self) -> bool {
        self.nodes[self.holder()].serves(self.record.epoch)
    }

    /// Whether it serves and nothing is under way.
    pub fn is_calm(&self) -> bool {
        self.record.state == EpochState::Serving && self.record.run.is_none() && self.works()
    }
}
