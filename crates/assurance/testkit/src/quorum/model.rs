//! What a store should hold: every change ever made, in order, looked through from the end.

use anyhow::{Result, ensure};
use lifeboat_environment::Random;
use lifeboat_quorum::{Commit, Entry, Revision, Transaction};

const KEYS: u64 = 6;

pub(super) struct Model {
    prefix: String,
    changes: Vec<(String, Option<Vec<u8>>, Revision)>,
    /// The revision that was answered last.
    last: Revision,
    counter: u64,
}

impl Model {
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), changes: Vec::new(), last: 0, counter: 0 }
    }

    pub fn revision(&self) -> Revision {
        self.last
    }

    /// A transaction over few keys, so that conditions hold about half of the time.
    pub fn random(&mut self, random: &dyn Random) -> Transaction {
        let chance = |outcomes: u64| random.next_u64() % outcomes;
        let mut transaction = Transaction::new();
        for number in 0..KEYS {
            let key = format!("{}{number}", self.prefix);
            transaction = match chance(6) {
                0 | 1 => transaction.when(&key, self.revision_of(&key)),
                2 if chance(4) == 0 => transaction.when(&key, self.last / 2),
                _ => transaction,
            };
            transaction = match chance(5) {
                0 | 1 => {
                    self.counter += 1;
                    transaction.put(&key, &self.counter)
                }
                2 => transaction.delete(&key),
                _ => transaction,
            };
        }
        transaction
    }

    /// 0, or some revision of the past.
    pub fn random_revision(&self, random: &dyn Random) -> Revision {
        match self.changes.len() as u64 {
            0 => 0,
            count => {
                let place = (random.next_u64() % (count + 1)) as usize;
                self.changes.get(place).map_or(0, |(_, _, revision)| *revision)
            }
        }
    }

    /// Whether a store's answer is right; then it is part of the history.
    pub fn check(&mut self, transaction: &Transaction, commit: Commit) -> Result<()> {
        let mut compares = transaction.compares.iter();
        let holds = compares.all(|compare| self.revision_of(&compare.key) == compare.revision);
        let Commit::Done(revision) = commit else {
            ensure!(!holds, "refused although all conditions hold");
            return Ok(());
        };
        ensure!(holds, "made although a condition does not hold");
        let puts = transaction.puts.iter();
        let real = puts.filter(|put| put.value.is_some() || self.revision_of(&put.key) > 0);
        let real: Vec<_> = real.cloned().collect();
        match real.is_empty() {
            true => ensure!(revision >= self.last, "older than the commit before it"),
            false => ensure!(revision > self.last, "not newer than the commit before it"),
        }
        self.last = revision;
        self.changes.extend(real.into_iter().map(|put| (put.key, put.value, revision)));
        Ok(())
    }

    /// What a read since `revision` finds.
    pub fn since(&self, revision: Revision) -> Vec<Entry> {
        let keys = (0..KEYS).map(|number| format!("{}{number}", self.prefix));
        let present = keys.filter_map(|key| {
            let (_, value, revision) = self.changes.iter().rfind(|(name, _, _)| *name == key)?;
            Some(Entry { key, value: value.clone()?, revision: *revision })
        });
        present.filter(|entry| entry.revision > revision).collect()
    }

    fn revision_of(&self, key: &str) -> Revision {
        let change = self.changes.iter().rfind(|(name, _, _)| name == key);
        change.map_or(0, |(_, value, revision)| value.as_ref().map_or(0, |_| *revision))
    }
}
