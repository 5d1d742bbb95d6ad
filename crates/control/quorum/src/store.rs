//! The seam to a quorum store: read what changed, commit if nothing else changed meanwhile.

use futures::future::LocalBoxFuture;
use lifeboat_telemetry::{Code, Failure};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A point in a store's history. Grows with each commit, and never for a read.
pub type Revision = u64;

/// A key as a read found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
    /// When it was last changed.
    pub revision: Revision,
}

/// What a read found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The store's revision at the read.
    pub revision: Revision,
    /// The keys, in their order.
    pub entries: Vec<Entry>,
}

impl Snapshot {
    /// A key, if the read found it.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        let place = self.entries.binary_search_by(|entry| entry.key.as_str().cmp(key)).ok()?;
        self.entries.get(place)
    }

    /// When a key was last changed; 0 if it is not there.
    pub fn revision_of(&self, key: &str) -> Revision {
        self.get(key).map_or(0, |entry| entry.revision)
    }
}

/// A condition: the key was last changed at this revision; 0 for a key that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    /// The key.
    pub key: String,
    /// Its last change.
    pub revision: Revision,
}

/// A change; without a value the key goes away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// The key.
    pub key: String,
    /// Its new value.
    pub value: Option<Vec<u8>>,
}

/// Changes that happen together, if all conditions hold, or not at all. At most 64 of each, each
/// key changed at most once, keys of at most 512 bytes, values of at most 256 KiB, 1 MiB in all;
/// whatever exceeds that is denied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// The conditions.
    pub compares: Vec<Compare>,
    /// The changes.
    pub puts: Vec<Put>,
}

impl Transaction {
    /// No condition, no change.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only if `key` was last changed at `revision`; 0 for a key that is not there.
    #[must_use]
    pub fn when(mut self, key: impl Into<String>, revision: Revision) -> Self {
        self.compares.push(Compare { key: key.into(), revision });
        self
    }

    /// Sets a key.
    #[must_use]
    pub fn put(mut self, key: impl Into<String>, value: &impl Serialize) -> Self {
        self.puts.push(Put { key: key.into(), value: Some(encode(value)) });
        self
    }

    /// Sets a key that must not be there.
    #[must_use]
    pub fn create(self, key: impl Into<String>, value: &impl Serialize) -> Self {
        let key = key.into();
        self.when(key.clone(), 0).put(key, value)
    }

    /// Takes a key away.
    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.puts.push(Put { key: key.into(), value: None });
        self
    }

    /// Refuses what exceeds the limits. Every store asks before it does anything, so that what one
    /// takes the others take too.
    pub fn check(&self) -> Result<(), StoreError> {
        let refuse = |why: &str| Err(StoreError::Denied(format!("a transaction with {why}")));
        if self.compares.len() > MAX_OPERATIONS || self.puts.len() > MAX_OPERATIONS {
            return refuse("more than 64 conditions or changes");
        }
        let compared = self.compares.iter().map(|compare| &compare.key);
        let mut keys = compared.chain(self.puts.iter().map(|put| &put.key));
        if keys.any(|key| key.is_empty() || key.len() > MAX_KEY_BYTES) {
            return refuse("an empty key or one of more than 512 bytes");
        }
        let mut changed: Vec<&str> = self.puts.iter().map(|put| put.key.as_str()).collect();
        changed.sort_unstable();
        if changed.is_sorted_by(|one, next| one < next) {
            let sizes = self.puts.iter().map(|put| put.value.as_ref().map_or(0, Vec::len));
            if sizes.clone().any(|size| size > MAX_VALUE_BYTES) {
                return refuse("a value of more than 256 KiB");
            }
            if sizes.sum::<usize>() > MAX_TRANSACTION_BYTES {
                return refuse("values of more than 1 MiB together");
            }
            return Ok(());
        }
        refuse("two changes of one key")
    }
}

const MAX_OPERATIONS: usize = 64;
const MAX_KEY_BYTES: usize = 512;
const MAX_VALUE_BYTES: usize = 256 << 10;
/// etcd takes requests of 1.5 MiB, and base64 makes four bytes of three.
const MAX_TRANSACTION_BYTES: usize = 1 << 20;

/// How a commit ended, where that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// All changes were made, at this revision.
    Done(Revision),
    /// A condition did not hold; nothing was changed.
    Conflict,
}

/// Why a store did not answer as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No answer in time, or none that can be trusted. A commit may or may not have happened.
    #[error("the quorum store does not answer: {0}")]
    Unavailable(String),
    /// The store refuses who asks.
    #[error("the quorum store refuses: {0}")]
    Denied(String),
    /// The store's history went backwards or is another one: nothing may be decided from it.
    #[error("the quorum store went back from revision {known} to {found}")]
    Regressed {
        /// What was seen before.
        known: Revision,
        /// What it says now.
        found: Revision,
    },
    /// A key holds what nobody wrote.
    #[error("{key} in the quorum store cannot be read: {why}")]
    Damaged {
        /// The key.
        key: String,
        /// What is wrong with it.
        why: String,
    },
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let (code, hint) = match &error {
            StoreError::Unavailable(_) => (
                Code::QuorumUnavailable,
                "Nothing moves by itself until a majority of its members answers.",
            ),
            StoreError::Denied(_) => (
                Code::QuorumDenied,
                "Give this process the user and the certificate that `lifeboat enroll` made.",
            ),
            StoreError::Regressed { .. } | StoreError::Damaged { .. } => (
                Code::QuorumRegressed,
                "Was it restored from a snapshot? Epochs in the repositories are newer; move \
                 services by hand until it was set up again.",
            ),
        };
        Self::new(code, error.to_string()).hint(hint)
    }
}

/// A store of keys in three failure domains, or on one machine.
///
/// Reads are linearizable: they see every commit that was answered before they began. Each call
/// ends within the store's own timeout.
pub trait Store {
    /// All keys below `prefix` that changed after `since`; 0 for all of them. A key that was
    /// deleted is just missing from a read of all.
    fn read<'a>(
        &'a self,
        prefix: &'a str,
        since: Revision,
    ) -> LocalBoxFuture<'a, Result<Snapshot, StoreError>>;

    /// Makes the changes if all conditions hold.
    fn commit(&self, transaction: Transaction) -> LocalBoxFuture<'_, Result<Commit, StoreError>>;
}

/// The bytes of a value.
pub fn encode(value: &impl Serialize) -> Vec<u8> {
    // Types of this crate are plain data with text as keys, which always has a JSON form; an empty
    // value is one that every reader refuses.
    serde_json::to_vec(value).unwrap_or_default()
}

/// The value of an entry.
pub fn decode<T: DeserializeOwned>(entry: &Entry) -> Result<T, StoreError> {
    serde_json::from_slice(&entry.value)
        .map_err(|error| StoreError::Damaged { key: entry.key.clone(), why: error.to_string() })
}
