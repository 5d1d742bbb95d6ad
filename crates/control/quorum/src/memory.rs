//! A store in this process's memory, for tests and the simulator.

use std::cell::RefCell;
use std::future::ready;
use std::rc::Rc;

use futures::future::LocalBoxFuture;

use crate::keyspace::Keyspace;
use crate::{Commit, Revision, Snapshot, Store, StoreError, Transaction};

/// A store that is gone with the process. Clones share what it holds; nothing in it waits, so the
/// order of calls is the order of effects.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    keys: Rc<RefCell<Keyspace>>,
}

impl MemoryStore {
    /// An empty one.
    pub fn new() -> Self {
        Self { keys: Rc::new(RefCell::new(Keyspace::new())) }
    }

    /// A store with the same keys and revisions that shares nothing with this one, as a cluster that
    /// was restored from a snapshot.
    pub fn fork(&self) -> Self {
        Self { keys: Rc::new(RefCell::new(self.keys.borrow().clone())) }
    }

    /// What [`Store::read`] answers, without a future.
    pub fn look(&self, prefix: &str, since: Revision) -> Snapshot {
        self.keys.borrow().read(prefix, since)
    }

    /// What [`Store::commit`] does, without a future.
    pub fn change(&self, transaction: Transaction) -> Result<Commit, StoreError> {
        transaction.check()?;
        Ok(self.keys.borrow_mut().commit(transaction))
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Store for MemoryStore {
    fn read<'a>(
        &'a self,
        prefix: &'a str,
        since: Revision,
    ) -> LocalBoxFuture<'a, Result<Snapshot, StoreError>> {
        Box::pin(ready(Ok(self.look(prefix, since))))
    }

    fn commit(&self, transaction: Transaction) -> LocalBoxFuture<'_, Result<Commit, StoreError>> {
        Box::pin(ready(self.change(transaction)))
    }
}
