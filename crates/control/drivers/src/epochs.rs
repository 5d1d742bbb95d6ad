//! Epochs as create-once objects in the repositories (F9): what survives the quorum store.

mod repositories;

use futures::future::LocalBoxFuture;
use lifeboat_model::{RegionName, ServiceName};
use lifeboat_quorum::EpochRecord;
use lifeboat_telemetry::Outcome;

pub use repositories::{Away, RepositoryEpochs};

/// An epoch that a repository knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownEpoch {
    /// Its number.
    pub epoch: u64,
    /// The region that it was created for; none if its object cannot be trusted, or says something
    /// else in another repository.
    pub region: Option<RegionName>,
    /// The repositories that know it.
    pub repositories: Vec<RegionName>,
}

/// The epochs of services in all repositories.
pub trait EpochArchive {
    /// The highest epoch that any reachable repository knows. Fails only if none is reachable.
    fn highest<'a>(
        &'a self,
        service: &'a ServiceName,
    ) -> LocalBoxFuture<'a, Outcome<Option<KnownEpoch>>>;

    /// Creates the epoch's object in every reachable repository. Refused if another one has it: the
    /// same number was given twice. Returns the repositories that have it now.
    fn record<'a>(
        &'a self,
        service: &'a ServiceName,
        record: &'a EpochRecord,
    ) -> LocalBoxFuture<'a, Outcome<Vec<RegionName>>>;
}
