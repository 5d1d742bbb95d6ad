//! The keys, and which leader may change them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_quorum::{Commit, MemoryStore, Revision, Snapshot, Transaction};

type Watch = Box<dyn Fn(&Change<'_>)>;

/// A key that was changed.
#[derive(Debug)]
pub struct Change<'a> {
    /// The key.
    pub key: &'a str,
    /// What it held before.
    pub before: Option<&'a [u8]>,
    /// What it holds now.
    pub after: Option<&'a [u8]>,
    /// When whoever changed it had decided, in true time; none if it came from outside.
    pub sent: Option<Duration>,
}

/// What all members agree on.
#[derive(Default)]
pub struct Truth {
    keys: RefCell<MemoryStore>,
    applied: RefCell<BTreeMap<u64, Commit>>,
    numbered: Cell<u64>,
    term: Cell<u64>,
    leader: Cell<Option<usize>>,
    watches: RefCell<Vec<Watch>>,
}

impl Truth {
    /// Calls `watch` for each key that changes.
    pub fn watch(&self, watch: impl Fn(&Change<'_>) + 'static) {
        self.watches.borrow_mut().push(Box::new(watch));
    }

    /// The value of a key.
    pub fn value(&self, key: &str) -> Option<Vec<u8>> {
        self.keys.borrow().look(key, 0).get(key).map(|entry| entry.value.clone())
    }

    /// All keys below `prefix` that changed after `since`.
    pub fn read(&self, prefix: &str, since: Revision) -> Snapshot {
        self.keys.borrow().look(prefix, since)
    }

    /// What a snapshot of a member would hold.
    pub fn snapshot(&self) -> MemoryStore {
        self.keys.borrow().fork()
    }

    /// All members are restored from a snapshot: everything since then never was.
    pub fn restore(&self, snapshot: MemoryStore) {
        *self.keys.borrow_mut() = snapshot;
    }

    pub(super) fn number(&self) -> u64 {
        self.numbered.set(self.numbered.get() + 1);
        self.numbered.get()
    }

    pub(super) fn leader(&self) -> Option<usize> {
        self.leader.get()
    }

    pub(super) fn elected(&self, term: u64, leader: usize) {
        self.term.set(term);
        self.leader.set(Some(leader));
    }

    pub(super) fn is_applied(&self, number: u64) -> bool {
        self.applied.borrow().contains_key(&number)
    }

    /// Makes a change in the name of the leader of `term`, or says what came of it when it was
    /// made before; none if there is a newer leader.
    pub(super) fn apply(&self, term: u64, entry: &super::Entry) -> Option<Commit> {
        let before = self.applied.borrow().get(&entry.number).copied();
        if before.is_some() || term < self.term.get() {
            return before;
        }
        let outcome = self.carry_out(&entry.transaction, Some(entry.sent));
        self.applied.borrow_mut().insert(entry.number, outcome);
        Some(outcome)
    }

    /// A transaction of nobody in this world; one that exceeds the limits is none.
    pub fn commit(&self, transaction: &Transaction) -> Commit {
        self.carry_out(transaction, None)
    }

    fn carry_out(&self, transaction: &Transaction, sent: Option<Duration>) -> Commit {
        let before: Vec<Option<Vec<u8>>> =
            transaction.puts.iter().map(|put| self.value(&put.key)).collect();
        let outcome = self.keys.borrow().change(transaction.clone()).unwrap_or(Commit::Conflict);
        if let Commit::Done(_) = outcome {
            for (before, put) in before.iter().zip(&transaction.puts) {
                let (before, after) = (before.as_deref(), put.value.as_deref());
                let change = Change { key: &put.key, before, after, sent };
                self.watches.borrow().iter().for_each(|watch| watch(&change));
            }
        }
        outcome
    }
}
