//! The controller: one a failure domain. Observes, judges, and carries runs on.
//!
//! It touches no resource but repositories (an epoch's object) and traffic, both by
//! compare-and-swap. Everything else it does is a transaction that compares what it read, so any
//! number of controllers at once do what one would.

mod act;
mod begin;
mod observe;
mod traffic;
mod trust;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lifeboat_drivers::{EpochArchive, Probe, TrafficDriver};
use lifeboat_environment::{Clock, Timer};
use lifeboat_failover::{Judgement, Mirror, Service, Stalls, View, Voice};
use lifeboat_model::{RegionName, ServiceName};
use lifeboat_quorum::{EpochState, Keys, Observations, Store, StoreError};

use crate::inquiry::Inquiry;

/// How a controller behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The failure domain that it looks from.
    pub domain: RegionName,
    /// The services that it looks after.
    pub services: BTreeMap<ServiceName, Service>,
    /// Where things lie in the store.
    pub keys: Keys,
    /// How often the store is read.
    pub poll: Duration,
    /// How often a service that works is probed (R3: every 2 s or less often).
    pub probe_every: Duration,
    /// How often a service that fails is probed.
    pub probe_failing_every: Duration,
    /// How often traffic is looked at.
    pub traffic_every: Duration,
}

/// What a controller acts through.
pub struct Ports<'a> {
    /// Time.
    pub timer: &'a dyn Timer,
    /// The wall clock, for display.
    pub clock: &'a dyn Clock,
    /// The quorum store.
    pub store: &'a dyn Store,
    /// What sees services.
    pub probe: &'a dyn Probe,
    /// Epochs in the repositories.
    pub epochs: &'a dyn EpochArchive,
    /// What leads clients to each service.
    pub traffic: &'a BTreeMap<ServiceName, Vec<Box<dyn TrafficDriver>>>,
    /// Who is told what an operator should know.
    pub note: &'a dyn Fn(String),
}

/// An epoch, and whether it serves.
type Phase = (u64, bool);

/// A controller at work.
struct Controller<'a> {
    settings: &'a Settings,
    ports: &'a Ports<'a>,
    mirror: RefCell<Mirror>,
    views: RefCell<BTreeMap<ServiceName, View>>,
    /// What observers say, and when each was heard.
    voices: RefCell<BTreeMap<RegionName, (Observations, Duration)>>,
    /// Since when each service's epoch serves, or does not, as seen from here.
    moved: RefCell<BTreeMap<ServiceName, (Phase, Duration)>>,
    /// What traffic does not do yet, by service and the epoch that it was looked at in.
    traffic: RefCell<BTreeMap<ServiceName, (u64, Vec<String>)>>,
    judgements: RefCell<BTreeMap<ServiceName, Judgement>>,
    /// For how long commits have been waiting for receivers, by service.
    stalls: RefCell<BTreeMap<ServiceName, Stalls>>,
    /// What is known of each service's epochs from elsewhere.
    inquiries: BTreeMap<ServiceName, Inquiry>,
    /// Services whose record is older than that.
    refused: RefCell<BTreeSet<ServiceName>>,
    beat: Cell<u64>,
}

/// Runs for ever.
pub async fn run(settings: &Settings, ports: &Ports<'_>) {
    let controller = Controller::new(settings, ports);
    futures::join!(
        controller.decide(),
        controller.inquire(),
        controller.observe(),
        controller.lead_traffic()
    );
}

impl<'a> Controller<'a> {
    fn new(settings: &'a Settings, ports: &'a Ports<'a>) -> Self {
        Self {
            settings,
            ports,
            mirror: RefCell::new(Mirror::new()),
            views: RefCell::default(),
            voices: RefCell::default(),
            moved: RefCell::default(),
            traffic: RefCell::default(),
            judgements: RefCell::default(),
            stalls: RefCell::default(),
            inquiries: settings
                .services
                .keys()
                .map(|name| (name.clone(), Inquiry::new(0)))
                .collect(),
            refused: RefCell::default(),
            beat: Cell::new(0),
        }
    }
}

impl Controller<'_> {
    fn now(&self) -> Duration {
        self.ports.timer.elapsed()
    }

    fn note(&self, message: impl Into<String>) {
        (self.ports.note)(message.into());
    }

    /// Reads, and acts on every service, for ever.
    async fn decide(&self) {
        let mut trouble = false;
        loop {
            // Whatever is decided is decided as of before the read.
            let now = self.now();
            match self.read().await {
                Ok(()) => {
                    trouble = false;
                    for service in self.settings.services.values() {
                        self.act(service, now).await;
                    }
                }
                Err(error) if trouble => drop(error),
                Err(error) => {
                    trouble = true;
                    self.note(error.to_string());
                }
            }
            self.ports.timer.sleep(self.settings.poll).await;
        }
    }

    /// Reads what changed.
    async fn read(&self) -> Result<(), StoreError> {
        let keys = &self.settings.keys;
        let (since, began) = (self.mirror.borrow().revision(), self.now());
        let snapshot = self.ports.store.read(keys.all(), since).await?;
        let now = self.now();
        if snapshot.revision < since {
            self.inquiries.values().for_each(Inquiry::doubt);
        }
        let first = !self.mirror.borrow().is_read();
        let changed = self.mirror.borrow_mut().take(snapshot, now);
        let mirror = self.mirror.borrow();
        let services: BTreeSet<ServiceName> = match first {
            true => self.settings.services.keys().cloned().collect(),
            false => changed.iter().filter_map(|key| service_of(keys, key)).collect(),
        };
        for name in services {
            let Some(service) = self.settings.services.get(&name) else { continue };
            let view = View::of(service, keys, &mirror)?;
            self.note_epoch(&name, &view, now);
            self.views.borrow_mut().insert(name, view);
        }
        let observers = keys.observers();
        for key in changed.iter().filter(|key| key.starts_with(&observers)) {
            if let Some(seen) = mirror.get::<Observations>(key)? {
                let domain = seen.value.domain.clone();
                self.voices.borrow_mut().insert(domain, (seen.value, now));
            }
        }
        self.saw_epochs((began, now));
        Ok(())
    }

    fn note_epoch(&self, name: &ServiceName, view: &View, now: Duration) {
        let Some(record) = view.record.as_ref().map(|seen| &seen.value) else { return };
        let phase = (record.epoch, record.state == EpochState::Serving);
        let mut moved = self.moved.borrow_mut();
        if moved.get(name).is_none_or(|(known, _)| *known != phase) {
            moved.insert(name.clone(), (phase, now));
        }
    }

    /// What observers say of a service.
    fn voices_on(&self, name: &ServiceName) -> BTreeMap<RegionName, Voice> {
        let now = self.now();
        let voices = self.voices.borrow();
        let one = |(domain, (said, heard)): (&RegionName, &(Observations, Duration))| {
            let said = said.services.get(name)?.clone();
            Some((domain.clone(), Voice { said, age: now.saturating_sub(*heard) }))
        };
        voices.iter().filter_map(one).collect()
    }
}

fn service_of(keys: &Keys, key: &str) -> Option<ServiceName> {
    key.strip_prefix(&keys.services())?.split('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests;
