//! Epochs as create-once objects in the repositories (F9): what survives the quorum store.

mod memory;
mod repositories;

use futures::future::LocalBoxFuture;
use lifeboat_model::{RegionName, ServiceName};
use lifeboat_quorum::{EpochRecord, Nodes, RunId};
use lifeboat_telemetry::Outcome;

pub use memory::{MemoryEpochs, Mood};
pub use repositories::{Away, RepositoryEpochs};

/// An epoch that a repository knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownEpoch {
    /// Its number.
    pub epoch: u64,
    /// The region that it was created for; none if its object cannot be trusted, or says something
    /// else in another repository.
    pub region: Option<RegionName>,
    /// The nodes that it was created for, as far as that.
    pub holders: Nodes,
    /// The run that created it; none as well where a person did, without a quorum store.
    pub run: Option<RunId>,
    /// The repositories that know it.
    pub repositories: Vec<RegionName>,
}

/// The epochs of services in all repositories. Each call ends within seconds, whoever is away.
pub trait EpochArchive {
    /// The highest epoch that any reachable repository knows. Fails only if none is reachable.
    fn highest<'a>(
        &'a self,
        service: &'a ServiceName,
    ) -> LocalBoxFuture<'a, Outcome<Option<KnownEpoch>>>;

    /// Creates the epoch's object in every reachable repository; the same again, for the same run,
    /// changes nothing. Refused if another one has it: the same number was given twice. Returns
    /// the repositories that have it now.
    fn record<'a>(
        &'a self,
        service: &'a ServiceName,
        record: &'a EpochRecord,
    ) -> LocalBoxFuture<'a, Outcome<Vec<RegionName>>>;
}

#[cfg(test)]
mod tests;
