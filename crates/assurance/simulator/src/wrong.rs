//! Ports that lie, for mutants.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use lifeboat_environment::Timer;
use lifeboat_quorum::{Commit, Revision, Snapshot, Store, StoreError, Transaction};

use crate::etcd::SimStore;
use crate::executor::SimTimer;
use crate::mutant::Mutant;

/// A store that leaves out what a mutant leaves out.
pub struct WrongStore {
    store: SimStore,
    mutant: Option<Mutant>,
    /// The revision at which a lease was first seen.
    first: RefCell<BTreeMap<String, Revision>>,
}

impl WrongStore {
    /// A store for controllers and persons.
    pub fn new(store: SimStore, mutant: Option<Mutant>) -> Self {
        Self { store, mutant, first: RefCell::default() }
    }

    async fn read_wrongly(&self, prefix: &str, since: Revision) -> Result<Snapshot, StoreError> {
        let mut snapshot = self.store.read(prefix, since).await?;
        if self.mutant == Some(Mutant::WaiterIgnoresRenewals) {
            let mut first = self.first.borrow_mut();
            for entry in snapshot.entries.iter_mut().filter(|entry| entry.key.contains("/lease/")) {
                entry.revision = *first.entry(entry.key.clone()).or_insert(entry.revision);
            }
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
        transaction.compares.retain(|compare| match self.mutant {
            Some(Mutant::BlindRecord) => !compare.key.ends_with("/epoch"),
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
