//! What an observer sees from its failure domain.

use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_model::{RegionName, ServiceName};
use serde::{Deserialize, Serialize};

/// What one observer sees of a share of the services: the value of one of its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observations {
    /// The failure domain that it looks from.
    pub domain: RegionName,
    /// Grows with each round: an observer whose beat stands still says nothing any more.
    pub beat: u64,
    /// What it sees of each service.
    pub services: BTreeMap<ServiceName, Observation>,
}

impl Observations {
    /// How many services a value tells of at most. With reasons that are [`Observation::brief`], it
    /// never exceeds what a store takes.
    pub const SERVICES: usize = 64;
}

/// What it sees of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observation {
    /// The epoch that was current when it looked.
    pub epoch: u64,
    /// The committed write through the clients' endpoint.
    pub write: Seen,
    /// For how long it has been what it is, by this observer's own clock.
    pub for_how_long: Duration,
    /// How long ago it last saw a write committed, by its own clock.
    #[serde(default)]
    pub worked_ago: Option<Duration>,
    /// Why, in words.
    pub why: String,
}

/// How many bytes a reason has at most.
const BRIEF: usize = 400;

impl Observation {
    /// A reason that is short enough to be told.
    pub fn brief(why: &str) -> String {
        if why.len() <= BRIEF {
            return why.to_owned();
        }
        let end = why.floor_char_boundary(BRIEF - '…'.len_utf8());
        format!("{}…", why.get(..end).unwrap_or_default())
    }
}

/// The outcome of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// A write was committed.
    Works,
    /// The server answers and commits locally; a commit waits for receivers or standbys (R3: a
    /// stalled quorum is no failed database).
    Stalled,
    /// No write was committed.
    Fails,
    /// The observer could not look, or has not yet.
    Unknown,
}
