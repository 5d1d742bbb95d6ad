//! Keys, values and revisions in memory: what the stores of one machine have in common.

use std::collections::BTreeMap;

use crate::{Commit, Compare, Entry, Put, Revision, Snapshot, Transaction};

/// The present state of a store. Starts at revision 1, as etcd does, so that 0 is always "before
/// everything".
#[derive(Debug, Clone)]
pub(crate) struct Keyspace {
    revision: Revision,
    entries: BTreeMap<String, (Vec<u8>, Revision)>,
}

impl Keyspace {
    pub(crate) fn new() -> Self {
        Self { revision: 1, entries: BTreeMap::new() }
    }

    /// What a file says, whose revisions are its own.
    pub(crate) fn at(revision: Revision) -> Self {
        Self { revision, entries: BTreeMap::new() }
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    pub(crate) fn read(&self, prefix: &str, since: Revision) -> Snapshot {
        let below = self.entries.range(prefix.to_owned()..);
        let below = below.take_while(|(key, _)| key.starts_with(prefix));
        let changed = below.filter(|(_, (_, revision))| *revision > since);
        let entries = changed.map(|(key, (value, revision))| Entry {
            key: key.clone(),
            value: value.clone(),
            revision: *revision,
        });
        Snapshot { revision: self.revision, entries: entries.collect() }
    }

    /// Whether all conditions hold now.
    pub(crate) fn holds(&self, compares: &[Compare]) -> bool {
        compares.iter().all(|compare| self.revision_of(&compare.key) == compare.revision)
    }

    /// Whether the changes would change anything: a key that is not there cannot go away.
    pub(crate) fn changes(&self, puts: &[Put]) -> bool {
        puts.iter().any(|put| put.value.is_some() || self.entries.contains_key(&put.key))
    }

    /// Makes the changes, at the next revision.
    pub(crate) fn apply(&mut self, puts: Vec<Put>) {
        self.revision = self.revision.saturating_add(1);
        for put in puts {
            self.set(put, self.revision);
        }
    }

    /// Sets one key as of a revision.
    pub(crate) fn set(&mut self, put: Put, revision: Revision) {
        match put.value {
            Some(value) => self.entries.insert(put.key, (value, revision)),
            None => self.entries.remove(&put.key),
        };
    }

    /// A whole transaction.
    pub(crate) fn commit(&mut self, transaction: Transaction) -> Commit {
        if !self.holds(&transaction.compares) {
            return Commit::Conflict;
        }
        if self.changes(&transaction.puts) {
            self.apply(transaction.puts);
        }
        Commit::Done(self.revision)
    }

    fn revision_of(&self, key: &str) -> Revision {
        self.entries.get(key).map_or(0, |(_, revision)| *revision)
    }
}
