//! The controller: one a failure domain. Observes, judges, and carries runs on.
//!
//! It touches no resource but repositories (an epoch's object) and traffic, both by
//! compare-and-swap. Everything else it does is a transaction that compares what it read, so any
//! number of controllers at once do what one would.

mod act;
mod begin;
mod deeds;
mod observe;
mod traffic;
mod trust;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures::future::select;
use lifeboat_drivers::{EpochArchive, Probe, TrafficDriver};
use lifeboat_environment::{Clock, Timer};
use lifeboat_failover::{Mirror, Service, Stalls, Verdict, View, Voice, Voices};
use lifeboat_model::{RegionName, ServiceName};
use lifeboat_quorum::{EpochState, Keys, Observations, Store, StoreError};
use tokio::sync::Notify;

use crate::inquiry::Inquiry;
use deeds::Deeds;

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
    views: RefCell<BTreeMap<ServiceName, Rc<View>>>,
    /// What observers say.
    voices: RefCell<Voices>,
    /// Since when each service's epoch serves, or does not, as seen from here.
    moved: RefCell<BTreeMap<ServiceName, (Phase, Duration)>>,
    /// What traffic does not do yet, by service and the epoch that it was looked at in.
    traffic: RefCell<BTreeMap<ServiceName, (u64, Vec<String>)>>,
    /// What was last judged, for news of it.
    judgements: RefCell<BTreeMap<ServiceName, Verdict>>,
    /// For how long commits have been waiting for receivers, by service.
    stalls: RefCell<BTreeMap<ServiceName, Stalls>>,
    /// What is known of each service's epochs from elsewhere.
    inquiries: BTreeMap<ServiceName, Inquiry>,
    /// Services whose record is older than that.
    refused: RefCell<BTreeSet<ServiceName>>,
    /// Wakes the reader: something was written.
    wrote: Notify,
    /// Wakes who leads a service's traffic: its epoch is another one, or does something else, or it
    /// may be acted on.
    news: BTreeMap<ServiceName, Notify>,
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
            wrote: Notify::new(),
            news: settings.services.keys().map(|name| (name.clone(), Notify::new())).collect(),
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

    /// Reads, and does what services need, for ever. What is written is read back at once; what a
    /// service waits for, others do not.
    async fn decide(&self) {
        let mut deeds = Deeds::new(self);
        let mut trouble = false;
        loop {
            // Whatever is decided is decided as of before the read.
            let now = self.now();
            match deeds.go_on_until(self.read()).await {
                Ok(changed) => {
                    trouble = false;
                    deeds.begin(&changed, now);
                }
                Err(error) if trouble => drop(error),
                Err(error) => {
                    trouble = true;
                    self.note(error.to_string());
                }
            }
            let pause = self.ports.timer.sleep(self.settings.poll);
            deeds.go_on_until(select(pause, pin!(self.wrote.notified()))).await;
        }
    }

    /// Reads what changed. Returns the services that it is about.
    async fn read(&self) -> Result<BTreeSet<ServiceName>, StoreError> {
        let keys = &self.settings.keys;
        let (since, began) = (self.mirror.borrow().revision(), self.now());
        let snapshot = self.ports.store.read(keys.all(), since).await?;
        let now = self.now();
        if snapshot.revision < since {
            self.inquiries.values().for_each(Inquiry::doubt);
        }
        let first = !self.mirror.borrow().is_read();
        let changed = self.mirror.borrow_mut().take(snapshot, now);
        let below = keys.services();
        let services: BTreeSet<ServiceName> = match first {
            true => self.settings.services.keys().cloned().collect(),
            false => changed.iter().filter_map(|key| service_of(&below, key)).collect(),
        };
        services.iter().for_each(|name| self.look_at(name, now));
        self.hear(&changed);
        self.saw_epochs((began, now));
        Ok(services)
    }

    /// Sees a service as it stands in the mirror. One that cannot be read is not acted on, and holds
    /// up no other.
    fn look_at(&self, name: &ServiceName, now: Duration) {
        let Some(service) = self.settings.services.get(name) else { return };
        match View::of(service, &self.settings.keys, &self.mirror.borrow()) {
            Ok(view) => {
                self.note_epoch(name, &view, now);
                self.views.borrow_mut().insert(name.clone(), Rc::new(view));
            }
            Err(error) => {
                self.views.borrow_mut().remove(name);
                self.note(error.to_string());
            }
        }
    }

    fn hear(&self, changed: &[String]) {
        let (mirror, below) = (self.mirror.borrow(), self.settings.keys.observers());
        for key in changed.iter().filter(|key| key.starts_with(&below)) {
            match mirror.get::<Observations>(key) {
                Ok(Some(seen)) => self.voices.borrow_mut().hear(seen),
                Ok(None) => {}
                Err(error) => self.note(error.to_string()),
            }
        }
    }

    fn note_epoch(&self, name: &ServiceName, view: &View, now: Duration) {
        let Some(record) = view.record.as_ref().map(|seen| &seen.value) else { return };
        let phase = (record.epoch, record.state == EpochState::Serving);
        let mut moved = self.moved.borrow_mut();
        if moved.get(name).is_none_or(|(known, _)| *known != phase) {
            moved.insert(name.clone(), (phase, now));
            self.tell_news_of(name);
        }
    }

    /// What observers say of a service.
    fn voices_on(&self, name: &ServiceName) -> BTreeMap<RegionName, Voice> {
        self.voices.borrow().on(name, self.now())
    }

    fn view_of(&self, name: &ServiceName) -> Option<Rc<View>> {
        self.views.borrow().get(name).cloned()
    }

    /// Ends when there is news of a service. One waits for it at a time.
    async fn news_of(&self, name: &ServiceName) {
        match self.news.get(name) {
            Some(news) => news.notified().await,
            None => pending().await,
        }
    }

    fn tell_news_of(&self, name: &ServiceName) {
        if let Some(news) = self.news.get(name) {
            news.notify_one();
        }
    }

    /// When it is a service's turn in something that each has every so often: not all at once.
    fn turn_of(&self, name: &ServiceName, every: Duration) -> Duration {
        let before = self.settings.services.range::<ServiceName, _>(..name).count();
        let all = self.settings.services.len().max(1);
        every.mul_f64(before as f64 / all as f64)
    }
}

fn service_of(below: &str, key: &str) -> Option<ServiceName> {
    key.strip_prefix(below)?.split('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests;
