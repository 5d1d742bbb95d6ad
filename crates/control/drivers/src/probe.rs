//! What an observer does to see a service (R3).

use futures::future::LocalBoxFuture;
use lifeboat_model::ServiceName;
use lifeboat_quorum::Seen;

/// What one probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// The outcome.
    pub seen: Seen,
    /// Why, in words.
    pub why: String,
}

/// A committed write through the endpoint that clients use.
pub trait Probe {
    /// Probes one service, within its own timeout.
    fn probe<'a>(&'a self, service: &'a ServiceName) -> LocalBoxFuture<'a, Probed>;
}
