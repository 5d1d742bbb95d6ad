//! Ports that lie, for mutants.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use lifeboat_environment::Timer;
use lifeboat_quorum::{
    Commit, Desired, Entry, Goal, NodeStatus, Progress, Revision, Snapshot, Store, StoreError,
    Transaction, decode, encode,
};

use crate::etcd::SimStore;
use crate::executor::SimTimer;
use crate::mutant::Mutant;

/// The order and the status of a node, as far as they were read.
type Known = (Option<Entry>, Option<Entry>);

/// A store that leaves out what a mutant leaves out.
pub struct WrongStore {
    store: SimStore,
    mutant: Option<Mutant>,
    /// The revision at which a lease was first seen.
    first: RefCell<BTreeMap<String, Revision>>,
    /// The order and the status of each node, as they were read last.
    nodes: RefCell<BTreeMap<String, Known>>,
}

impl WrongStore {
    /// A store for controllers and persons.
    pub fn new(store: SimStore, mutant: Option<Mutant>) -> Self {
        Self { store, mutant, first: RefCell::default(), nodes: RefCell::default() }
    }

    /// What agents would say if the fence that they were ordered were done.
    fn take_for_done(&self, snapshot: &mut Snapshot) {
        let mut told: BTreeMap<String, Entry> = BTreeMap::new();
        for entry in &snapshot.entries {
            let (of_order, place) = match entry.key.split_once("/desired/") {
                Some((_, place)) => (true, place),
                None => match entry.key.split_once("/status/") {
                    Some((_, place)) => (false, place),
                    None => continue,
                },
            };
            let mut nodes = self.nodes.borrow_mut();
            let known = nodes.entry(place.to_owned()).or_default();
            *(if of_order { &mut known.0 } else { &mut known.1 }) = Some(entry.clone());
            let (Some(order), Some(status)) = known else { continue };
            let Ok(desired) = decode::<Desired<Goal>>(order) else { continue };
            let Ok(mut says) = decode::<NodeStatus>(status) else { continue };
            if desired.goal == Goal::Fence {
                says.token = desired.token;
                says.progress = Progress::Done { evidence: "nobody knows".to_owned() };
                let revision = order.revision.max(status.revision);
                let (key, value) = (status.key.clone(), encode(&says));
                told.insert(key.clone(), Entry { key, value, revision });
            }
        }
        snapshot.entries.retain(|entry| !told.contains_key(&entry.key));
        snapshot.entries.extend(told.into_values());
        snapshot.entries.sort_by(|one, other| one.key.cmp(&other.key));
    }

    async fn read_wrongly(&self, prefix: &str, since: Revision) -> Result<Snapshot, StoreError> {
        let mut snapshot = self.store.read(prefix, since).await?;
        if self.mutant == Some(Mutant::WaiterIgnoresRenewals) {
            let mut first = self.first.borrow_mut();
            for entry in snapshot.entries.iter_mut().filter(|entry| entry.key.contains("/lease/")) {
                entry.revision = *first.entry(entry.key.clone()).or_insert(entry.revision);
            }
        }
        if self.mutant == Some(Mutant::PromoteOnUnknownFence) {
            self.take_for_done(&mut snapshot);
        }
        Ok(snapshot)
    }
}

impl Store for WrongStore {
    fn read<'a>(
        &'a self,
        prefix: &'a str,
        since: Revision,
    ) -> LocalBoxFuture<'a, Result<Snapshot, StoreError>> {
        Box::pin(self.read_wrongly(prefix, since))
    }

    fn commit(
        &self,
        mut transaction: Transaction,
    ) -> LocalBoxFuture<'_, Result<Commit, StoreError>> {
        let of_record = transaction.puts.iter().any(|put| put.key.ends_with("/epoch"));
        transaction.compares.retain(|compare| match self.mutant {
            Some(Mutant::BlindRecord) => !of_record,
            Some(Mutant::BlindJournal) => {
                !compare.key.contains("/journal/") && !compare.key.ends_with("/epoch")
            }
            _ => true,
        });
        self.store.commit(transaction)
    }
}

/// A clock that jumps when a controller has just read the store for the first time.
pub struct WrongTimer {
    timer: SimTimer,
    started: Duration,
    jump: Duration,
}

impl WrongTimer {
    /// A controller's timer; it jumps by `jump` soon after the start.
    pub fn new(timer: SimTimer, jump: Duration) -> Self {
        let started = timer.elapsed();
        Self { timer, started, jump }
    }
}

impl Timer for WrongTimer {
    fn elapsed(&self) -> Duration {
        let now = self.timer.elapsed();
        let early = now.saturating_sub(self.started) < Duration::from_millis(500);
        if early { now } else { now + self.jump }
    }

    fn sleep(&self, duration: Duration) -> LocalBoxFuture<'static, ()> {
        self.timer.sleep(duration)
    }
}
