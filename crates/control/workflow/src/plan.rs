//! What a run is to do. Written once, in the transaction that begins it.

use std::fmt;

use jiff::Timestamp;
use lifeboat_model::{RegionName, ServiceName};
use lifeboat_quorum::{Nodes, RunId};
use serde::{Deserialize, Serialize};

/// What kind of move it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Planned, without loss.
    Switchover,
    /// Unplanned.
    Failover,
    /// The old primary comes back as a standby after a failover.
    Fallback,
}

impl Kind {
    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Switchover => "switchover",
            Self::Failover => "failover",
            Self::Fallback => "fallback",
        }
    }

    /// Its steps, in order.
    pub fn steps(self) -> &'static [Step] {
        use Step::*;
        match self {
            Self::Switchover => {
                &[Precheck, Release, Complete, Begin, Promote, Serve, Traffic, Return, Report]
            }
            Self::Failover => {
                &[Revoke, Seal, Fence, Complete, Begin, Promote, Serve, Traffic, Reprotect, Report]
            }
            Self::Fallback => &[Salvage, Rejoin, Report],
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// A step of the built-in plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The candidate streams, is close, and could take over.
    Precheck,
    /// The primary stops cleanly and says where its WAL ends.
    Release,
    /// The lease can no longer be renewed.
    Revoke,
    /// Receivers acknowledge nothing more for the epoch.
    Seal,
    /// Nobody can commit under the epoch any more.
    Fence,
    /// The candidate has replayed what is required.
    Complete,
    /// The next epoch begins, in the repositories and in the record.
    Begin,
    /// The candidate becomes the primary, and writes.
    Promote,
    /// The epoch serves.
    Serve,
    /// Clients are led to it.
    Traffic,
    /// The old primary follows the new one.
    Return,
    /// Receivers and standbys of the new epoch.
    Reprotect,
    /// What only the loser has is set apart.
    Salvage,
    /// The loser becomes a standby.
    Rejoin,
    /// What was measured.
    Report,
}

impl Step {
    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Precheck => "precheck",
            Self::Release => "release",
            Self::Revoke => "revoke",
            Self::Seal => "seal",
            Self::Fence => "fence",
            Self::Complete => "complete",
            Self::Begin => "begin",
            Self::Promote => "promote",
            Self::Serve => "serve",
            Self::Traffic => "traffic",
            Self::Return => "return",
            Self::Reprotect => "reprotect",
            Self::Salvage => "salvage",
            Self::Rejoin => "rejoin",
            Self::Report => "report",
        }
    }

    /// What it does, for a plan that a person reads.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Precheck => "see that the candidate streams, is close, and could take over",
            Self::Release => "stop the primary cleanly; its WAL ends with a shutdown checkpoint",
            Self::Revoke => "take the lease away: it can no longer be renewed",
            Self::Seal => "seal the receivers, so that nothing more is acknowledged",
            Self::Fence => "see every process of the old primary killed, or wait out the lease",
            Self::Complete => "bring the candidate to the last acknowledged position",
            Self::Begin => "begin the next epoch, in every repository and in the quorum store",
            Self::Promote => "promote the candidate under its own lease, and commit a write",
            Self::Serve => "declare that the epoch serves",
            Self::Traffic => "lead clients there: load balancers, DNS, checked at every server",
            Self::Return => "make the old primary a standby of the new one",
            Self::Reprotect => "start receivers and standbys of the new epoch",
            Self::Salvage => "set apart what only the old primary has: WAL, and rows as CSV",
            Self::Rejoin => "make the old primary a standby: rewind it, or copy it anew",
            Self::Report => "report what was measured",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// A run's plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Its number within the service.
    pub run: RunId,
    /// The service.
    pub service: ServiceName,
    /// What kind of move it is.
    pub kind: Kind,
    /// The region that holds the service.
    pub from: RegionName,
    /// The region that shall hold it.
    pub to: RegionName,
    /// The nodes that hold it.
    pub old: Nodes,
    /// The nodes that shall hold it.
    pub new: Nodes,
    /// The epoch that it ends.
    pub epoch: u64,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Who asked: a person, or a controller.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when the service was seen to fail; none for a planned move.
    pub failing_since: Option<Timestamp>,
    /// When an observer last saw a write committed through the clients' endpoint.
    #[serde(default)]
    pub last_worked: Option<Timestamp>,
    /// The newest commit that its new nodes had replayed then, where they tell.
    #[serde(default)]
    pub newest_commit: Option<Timestamp>,
    /// When, by the wall clock of whoever asked.
    pub at: Timestamp,
    /// The digest of the spec that it was made by.
    pub spec: String,
}
