//! The quorum store as one reader sees it: what stands there, and since when it has for him.

use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_model::{DatabaseName, NodeName, RegionName};
use lifeboat_quorum::{
    Desired, Entry, EpochRecord, Goal, Keys, Lease, NodeStatus, ReceiverGoal, ReceiverStatus,
    Revision, RunId, Snapshot, StoreError, Waiter, decode,
};
use lifeboat_workflow::{Plan, Run};
use serde::de::DeserializeOwned;

use crate::Service;

/// A value of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen<T> {
    /// The value.
    pub value: T,
    /// When it was last changed, in the store's count.
    pub revision: Revision,
    /// When this reader saw that change, by its own clock.
    pub observed: Duration,
}

impl<T> Seen<T> {
    /// For how long this reader has seen it unchanged.
    pub fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.observed)
    }
}

/// All keys below a prefix, kept up to date by reads of what changed.
#[derive(Debug, Clone, Default)]
pub struct Mirror {
    entries: BTreeMap<String, (Entry, Duration)>,
    revision: Revision,
    first_read: Option<Duration>,
}

impl Mirror {
    /// Nothing was read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The revision up to which it is up to date; what the next read begins after.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Whether anything was ever read.
    pub fn is_read(&self) -> bool {
        self.first_read.is_some()
    }

    /// Takes in what a read found that ended at `now`. Returns the keys that changed.
    pub fn take(&mut self, snapshot: Snapshot, now: Duration) -> Vec<String> {
        self.first_read.get_or_insert(now);
        self.revision = self.revision.max(snapshot.revision);
        let mut changed = Vec::new();
        for entry in snapshot.entries {
            let known = self.entries.get(&entry.key);
            if known.is_none_or(|(known, _)| known.revision < entry.revision) {
                changed.push(entry.key.clone());
                self.entries.insert(entry.key.clone(), (entry, now));
            }
        }
        changed
    }

    /// A key's value.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<Seen<T>>, StoreError> {
        self.entries.get(key).map(|(entry, observed)| seen(entry, *observed)).transpose()
    }

    /// The entries below a prefix.
    pub fn below<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Entry, Duration)> {
        self.entries
            .range(prefix.to_owned()..)
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(move |(key, (entry, observed))| (&key[prefix.len()..], entry, *observed))
    }
}

fn seen<T: DeserializeOwned>(entry: &Entry, observed: Duration) -> Result<Seen<T>, StoreError> {
    Ok(Seen { value: decode(entry)?, revision: entry.revision, observed })
}

/// Values by database and node, or by database and region.
pub type Table<K, T> = BTreeMap<(DatabaseName, K), Seen<T>>;

/// A service, as one reader sees it.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The record; none before `lifeboat apply`.
    pub record: Option<Seen<EpochRecord>>,
    /// The lease of each database.
    pub leases: BTreeMap<DatabaseName, Seen<Lease>>,
    /// What is wanted of nodes.
    pub desired: Table<NodeName, Desired<Goal>>,
    /// What nodes say.
    pub status: Table<NodeName, NodeStatus>,
    /// What is wanted of receivers.
    pub receiver_desired: Table<RegionName, Desired<ReceiverGoal>>,
    /// What receivers say.
    pub receivers: Table<RegionName, ReceiverStatus>,
    /// The run that changes the service, and when this reader saw its last transition.
    pub run: Option<(Run, Duration)>,
    /// When this reader read the store for the first time.
    pub first_read: Duration,
}

impl View {
    /// Reads the view of a service out of a mirror.
    pub fn of(service: &Service, keys: &Keys, mirror: &Mirror) -> Result<Self, StoreError> {
        let name = &service.name;
        let record: Option<Seen<EpochRecord>> = mirror.get(&keys.epoch(name))?;
        let run = record.as_ref().and_then(|record| record.value.run);
        let run = run.map(|run| read_run(service, keys, mirror, run)).transpose()?.flatten();
        let mut view = Self {
            record,
            run,
            first_read: mirror.first_read.unwrap_or_default(),
            ..Self::default()
        };
        for (database, content) in &service.databases {
            if let Some(lease) = mirror.get(&keys.lease(name, database))? {
                view.leases.insert(database.clone(), lease);
            }
            for node in content.nodes.keys() {
                let place = (database.clone(), node.clone());
                let desired = mirror.get(&keys.desired(name, database, node))?;
                desired.map(|seen| view.desired.insert(place.clone(), seen));
                let status = mirror.get(&keys.status(name, database, node))?;
                status.map(|seen| view.status.insert(place, seen));
            }
            for region in &content.receivers {
                let place = (database.clone(), region.clone());
                let desired = mirror.get(&keys.receiver_desired(name, database, region))?;
                desired.map(|seen| view.receiver_desired.insert(place.clone(), seen));
                let status = mirror.get(&keys.receiver_status(name, database, region))?;
                status.map(|seen| view.receivers.insert(place, seen));
            }
        }
        Ok(view)
    }

    /// Whoever waits for the end of a database's lease.
    pub fn waiter(&self, database: &DatabaseName) -> Waiter {
        let mut waiter = Waiter::new();
        match self.leases.get(database) {
            Some(lease) => waiter.observe(lease.revision, lease.observed),
            None => waiter.observe(0, self.first_read),
        }
        waiter
    }

    /// What a node says.
    pub fn node(&self, database: &DatabaseName, node: &NodeName) -> Option<&Seen<NodeStatus>> {
        self.status.get(&(database.clone(), node.clone()))
    }

    /// What a receiver says.
    pub fn receiver(
        &self,
        database: &DatabaseName,
        region: &RegionName,
    ) -> Option<&Seen<ReceiverStatus>> {
        self.receivers.get(&(database.clone(), region.clone()))
    }
}

/// A run and when its last transition was seen; none if its plan is not there.
pub fn read_run(
    service: &Service,
    keys: &Keys,
    mirror: &Mirror,
    run: RunId,
) -> Result<Option<(Run, Duration)>, StoreError> {
    let Some(plan) = mirror.get::<Plan>(&keys.plan(&service.name, run))? else { return Ok(None) };
    let mut observed = plan.observed;
    let mut found = Run::new(plan.value);
    loop {
        let key = keys.transition(&service.name, run, found.next_number());
        let Some(entry) = mirror.get(&key)? else { return Ok(Some((found, observed))) };
        observed = observed.max(entry.observed);
        found.journal.push(entry.value);
    }
}
