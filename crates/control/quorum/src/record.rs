//! The epoch of a service: one record, changed only by controllers, by compare-and-swap (F16).

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use lifeboat_model::{DatabaseName, NodeName, RegionName};
use serde::{Deserialize, Serialize};

/// Which node of each database.
pub type Nodes = BTreeMap<DatabaseName, NodeName>;

/// A run of a service, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub u64);

impl fmt::Display for RunId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

/// What an epoch is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpochState {
    /// Nobody holds it, and nobody may write.
    Vacant,
    /// The holder may become the primary.
    Starting,
    /// The holder is the primary.
    Serving,
    /// A planned move: the holder stops cleanly. Its lease can be renewed until it has.
    Releasing,
    /// An unplanned move: the lease can no longer be renewed.
    Revoking,
}

/// How it is known that nobody can commit under the former epoch any more (R10).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fence {
    /// The epoch that is over.
    pub epoch: u64,
    /// The proof.
    pub proof: FenceProof,
    /// When it was found, by a controller's wall clock; for display.
    pub at: Timestamp,
}

/// A proof of a fence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FenceProof {
    /// There was no holder: the first epoch.
    NoHolder,
    /// The holder's agent says that every process of the instance is gone, or it was shut down.
    Confirmed {
        /// By which nodes.
        nodes: Nodes,
    },
    /// A full lease has passed since its last change.
    LeaseOver {
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
    /// A person typed that the old primary cannot write (`--break-glass`).
    Person {
        /// Who.
        name: String,
        /// What was typed.
        statement: String,
    },
}

/// What commits wait for in an epoch. Recorded before it takes effect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Synchronous {
    /// How many of the receivers; 0 if commits wait for nobody.
    pub needed: u8,
    /// The regions of the receivers that count.
    pub receivers: Vec<RegionName>,
}

/// Since when a promise does not hold, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Degraded {
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub why: String,
}

/// The record of a service's present epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochRecord {
    /// Its number; grows by at least one with each move.
    pub epoch: u64,
    /// What it is doing.
    pub state: EpochState,
    /// The region that holds it.
    pub region: RegionName,
    /// The node of each database that may write.
    pub holders: Nodes,
    /// The run that changes it now.
    pub run: Option<RunId>,
    /// The number of the newest run there ever was.
    pub last_run: u64,
    /// How the former epoch was ended.
    pub fence: Fence,
    /// What commits wait for.
    pub synchronous: Synchronous,
    /// Since when RPO is not held, if it is not.
    pub degraded: Option<Degraded>,
    /// When the epoch began, by a controller's wall clock.
    pub began: Timestamp,
    /// The digest of the spec that it was decided by.
    pub spec: String,
}

/// A change of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition {
    /// The holder has written: the epoch serves.
    Serve,
    /// A run takes the service; nothing changes for its holder yet.
    Claim(RunId),
    /// The holder is to stop cleanly.
    Release(RunId),
    /// A planned move was given up: the holder goes on, in the same epoch.
    Resume,
    /// An unplanned move begins: the lease can no longer be renewed.
    Revoke(RunId),
    /// The record is older than what is known elsewhere: nobody may hold it, no run changes it.
    Withdraw,
    /// The next epoch begins, for these holders.
    Begin(Box<Beginning>),
    /// The run is over.
    Finish,
    /// What commits wait for changes while the epoch serves.
    Synchronize(Synchronous, Option<Degraded>),
}

/// How an epoch begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beginning {
    /// Its number; more than every epoch that any repository or agent has seen.
    pub epoch: u64,
    /// Who holds it.
    pub region: RegionName,
    /// The node of each database.
    pub holders: Nodes,
    /// How the former epoch was ended.
    pub fence: Fence,
    /// What commits wait for.
    pub synchronous: Synchronous,
    /// Whether RPO is held from its first commit on.
    pub degraded: Option<Degraded>,
    /// When.
    pub at: Timestamp,
    /// The digest of the spec.
    pub spec: String,
}

/// A change that an epoch does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("epoch {epoch} is {state:?}: {why}")]
pub struct Refused {
    epoch: u64,
    state: EpochState,
    why: &'static str,
}

impl EpochRecord {
    /// The first epoch of a service that nobody moved yet.
    pub fn first(beginning: Beginning) -> Self {
        Self {
            epoch: beginning.epoch,
            state: EpochState::Starting,
            region: beginning.region,
            holders: beginning.holders,
            run: None,
            last_run: 0,
            fence: beginning.fence,
            synchronous: beginning.synchronous,
            degraded: beginning.degraded,
            began: beginning.at,
            spec: beginning.spec,
        }
    }

    /// Whether this node may write now, as far as the record says. Its lease decides.
    pub fn allows(&self, database: &DatabaseName, node: &NodeName) -> bool {
        matches!(self.state, EpochState::Starting | EpochState::Serving)
            && self.holders.get(database) == Some(node)
    }

    /// Whether this node's agent may renew the lease: while it serves, and while it stops cleanly.
    pub fn may_renew(&self, database: &DatabaseName, node: &NodeName) -> bool {
        !matches!(self.state, EpochState::Vacant | EpochState::Revoking)
            && self.holders.get(database) == Some(node)
    }

    /// The record after a change; the only way from one state to the next.
    pub fn apply(&self, transition: Transition) -> Result<Self, Refused> {
        use EpochState::{Releasing, Revoking, Serving, Starting, Vacant};
        let mut next = self.clone();
        match (self.state, transition) {
            (Starting, Transition::Serve) => next.state = Serving,
            (Serving, Transition::Claim(run)) => next.take(run, self)?,
            (Serving, Transition::Release(run)) => {
                next.take(run, self)?;
                next.state = Releasing;
            }
            (Releasing, Transition::Resume) => next.state = Serving,
            (Starting | Serving | Releasing | Revoking | Vacant, Transition::Revoke(run)) => {
                next.take(run, self)?;
                next.state = Revoking;
            }
            (_, Transition::Withdraw) => (next.state, next.run) = (Revoking, None),
            (Releasing | Revoking | Vacant, Transition::Begin(beginning)) => {
                next = self.begin(*beginning)?;
            }
            // A run that a person gave up leaves the epoch as it is; another one may go on from there.
            (Serving | Starting | Revoking | Vacant, Transition::Finish) => next.run = None,
            (Serving, Transition::Synchronize(synchronous, degraded)) => {
                (next.synchronous, next.degraded) = (synchronous, degraded);
            }
            _ => return Err(self.refuse("this change is not allowed from there")),
        }
        Ok(next)
    }

    /// One run a service: another one may only take over what no run changes.
    fn take(&mut self, run: RunId, before: &Self) -> Result<(), Refused> {
        let known = before.run == Some(run);
        if before.run.is_some() && !known {
            return Err(before.refuse("another run is changing it"));
        }
        if !known && run.0 <= before.last_run {
            return Err(before.refuse("the run's number was used before"));
        }
        (self.run, self.last_run) = (Some(run), run.0);
        Ok(())
    }

    fn begin(&self, beginning: Beginning) -> Result<Self, Refused> {
        if beginning.epoch <= self.epoch {
            return Err(self.refuse("the next epoch must be a higher one"));
        }
        if beginning.fence.epoch != self.epoch {
            return Err(self.refuse("the fence is of another epoch"));
        }
        if matches!(beginning.fence.proof, FenceProof::NoHolder) && self.state != EpochState::Vacant
        {
            return Err(self.refuse("somebody held it, and no proof says that it is fenced"));
        }
        let FenceProof::Confirmed { nodes } = &beginning.fence.proof else {
            let (run, last_run) = (self.run, self.last_run);
            return Ok(Self { run, last_run, ..Self::first(beginning) });
        };
        // Each holder was confirmed, or the proof is none.
        if self.holders.iter().any(|(database, node)| nodes.get(database) != Some(node)) {
            return Err(self.refuse("not every holder is confirmed to be fenced"));
        }
        let (run, last_run) = (self.run, self.last_run);
        Ok(Self { run, last_run, ..Self::first(beginning) })
    }

    fn refuse(&self, why: &'static str) -> Refused {
        Refused { epoch: self.epoch, state: self.state, why }
    }
}
