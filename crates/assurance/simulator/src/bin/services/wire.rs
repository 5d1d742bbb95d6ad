//! What the controller's process and the world say to each other: lines of JSON on a socket.

use std::time::Duration;

use lifeboat_model::ServiceName;
use lifeboat_quorum::{Entry, Put, Revision, Snapshot};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// How long the store takes to answer a read, and to make a commit durable.
pub const READ: Duration = Duration::from_millis(2);
/// See [`READ`].
pub const COMMIT: Duration = Duration::from_millis(5);
/// How long a write through an endpoint takes.
pub const WRITE: Duration = Duration::from_millis(3);
/// How long a probe of a server takes that is silent: two timeouts.
pub const SILENCE: Duration = Duration::from_millis(1000);
/// How long the repositories take.
pub const ARCHIVE: Duration = Duration::from_millis(100);

/// A question, and the number that its answer carries.
#[derive(Debug, Serialize, Deserialize)]
pub struct Asked {
    /// The number.
    pub id: u64,
    /// The question.
    pub what: Ask,
}

/// A question.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    /// What changed below a prefix.
    Read(String, Revision),
    /// Conditions and changes.
    Commit(Vec<(String, Revision)>, Vec<(String, Option<Box<RawValue>>)>),
    /// A write through a service's endpoint.
    Probe(ServiceName),
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answered {
    /// The number of the question.
    pub id: u64,
    /// The answer.
    pub what: Answer,
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// What a read found.
    Found(Revision, Vec<(String, Box<RawValue>, Revision)>),
    /// The revision of a commit; none for a conflict.
    Committed(Option<Revision>),
    /// The store refuses, and says why.
    Denied(String),
    /// Whether the write was committed.
    Probed(bool),
}

/// The text of a value: every value of the store is JSON.
pub fn text(value: Vec<u8>) -> anyhow::Result<Box<RawValue>> {
    Ok(RawValue::from_string(String::from_utf8(value)?)?)
}

/// What a read found, for the socket.
pub fn found(snapshot: Snapshot) -> anyhow::Result<Answer> {
    let one = |entry: Entry| Ok((entry.key, text(entry.value)?, entry.revision));
    let entries = snapshot.entries.into_iter().map(one).collect::<anyhow::Result<_>>()?;
    Ok(Answer::Found(snapshot.revision, entries))
}

/// What a read found, from the socket.
pub fn snapshot(revision: Revision, found: Vec<(String, Box<RawValue>, Revision)>) -> Snapshot {
    let one = |(key, value, revision): (String, Box<RawValue>, Revision)| Entry {
        key,
        value: Box::<str>::from(value).into_string().into_bytes(),
        revision,
    };
    Snapshot { revision, entries: found.into_iter().map(one).collect() }
}

/// A change, from the socket.
pub fn put((key, value): (String, Option<Box<RawValue>>)) -> Put {
    Put { key, value: value.map(|value| Box::<str>::from(value).into_string().into_bytes()) }
}
