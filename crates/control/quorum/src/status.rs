//! What agents say of themselves. Written by the agent alone.

use std::time::Duration;

use jiff::Timestamp;
use lifeboat_model::{Lsn, NodeName, RegionName, Timeline};
use serde::{Deserialize, Serialize};

use crate::Token;

/// The state of a node, as its agent sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeStatus {
    /// Grows with each report: one that stands still is an agent that does.
    pub beat: u64,
    /// The highest order that it has accepted.
    pub token: Token,
    /// How far it is with that order.
    pub progress: Progress,
    /// What the instance is doing.
    pub instance: Instance,
    /// The epoch of the lease that it holds now.
    pub lease: Option<u64>,
    /// For how long its local writes have been committed in time, without a break; none if the last
    /// one was not.
    pub writes: Option<Duration>,
    /// Where its present timeline branched off the one before.
    pub fork: Option<Lsn>,
    /// What keeps it from becoming a good primary, in sentences; empty is ready.
    pub not_ready: Vec<String>,
}

/// How far an order is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Progress {
    /// There is none.
    #[default]
    None,
    /// At work on it.
    Working {
        /// What it is doing, in words.
        doing: String,
    },
    /// The instance is as wanted.
    Done {
        /// What was found, for the run's journal.
        evidence: String,
    },
    /// It cannot be done as things are.
    Failed {
        /// Why.
        why: String,
    },
}

/// What a PostgreSQL instance is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Instance {
    /// There is no data directory.
    Absent,
    /// No process of it lives.
    Down {
        /// Its timeline by pg_control.
        timeline: Timeline,
        /// The end of the last checkpoint record if it was shut down cleanly, as primary or standby.
        shut_down_at: Option<Lsn>,
    },
    /// It starts, or does not answer.
    Unclear,
    /// It is in recovery and answers.
    Standby {
        /// The timeline that it replays.
        timeline: Timeline,
        /// Flushed by its WAL receiver; none if it streams nothing.
        received: Option<Lsn>,
        /// Replayed.
        replayed: Lsn,
        /// The commit time of the last transaction that it replayed.
        replayed_commit: Option<Timestamp>,
        /// Whether it streams now.
        streaming: bool,
    },
    /// It takes writes.
    Primary {
        /// Its timeline.
        timeline: Timeline,
        /// Written and flushed.
        flushed: Lsn,
        /// The standbys that stream from it, by node, with what each has flushed.
        standbys: Vec<(NodeName, Lsn)>,
        /// The regions whose receivers stream from it and have caught up.
        #[serde(default)]
        receivers: Vec<RegionName>,
        /// Whether commits wait for more receivers than there are.
        stalled: bool,
    },
}

impl Instance {
    /// Whether it can take a write.
    pub fn is_primary(&self) -> bool {
        matches!(self, Self::Primary { .. })
    }

    /// The furthest position that a standby has, whether replayed yet or not.
    pub fn furthest(&self) -> Option<Lsn> {
        match self {
            Self::Standby { received, replayed, .. } => {
                Some(received.map_or(*replayed, |received| received.max(*replayed)))
            }
            _ => None,
        }
    }
}

/// The state of a receiver, as its agent sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiverStatus {
    /// Grows with each report.
    pub beat: u64,
    /// The highest order that it has accepted.
    pub token: Token,
    /// How far it is with that order.
    pub progress: Progress,
    /// The epoch that it receives for.
    pub epoch: u64,
    /// Its seal, once there is one.
    pub sealed: Option<SealStatus>,
    /// Whether the process runs.
    pub running: bool,
}

/// A seal that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealStatus {
    /// This epoch and all before it are over for the receiver.
    pub epoch: u64,
    /// The timeline of its last flushed position.
    pub timeline: Option<Timeline>,
    /// No record that ends behind this was ever acknowledged.
    pub flushed: Option<Lsn>,
    /// Whether the repository has everything up to there.
    pub shipped: bool,
}
