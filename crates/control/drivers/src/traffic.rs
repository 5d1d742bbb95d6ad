//! What leads clients to a region: DNS records and load balancers.
//!
//! What the drivers have in common: [`Stamp`] is what stands beside a record and says for which epoch
//! it was set; `verdict` decides from what one server shows whether it may be changed; `answers`
//! makes one picture of many servers. [`rfc2136`] and [`haproxy`] do it to real ones, [`model`] to
//! the simulator's.

mod answers;
pub mod haproxy;
pub mod model;
pub mod rfc2136;
mod stamp;
mod targets;
mod verdict;

use futures::future::LocalBoxFuture;
use lifeboat_model::RegionName;
use lifeboat_telemetry::Outcome;

pub use stamp::Stamp;
pub use targets::{records_without_driver, traffic_drivers};
pub use verdict::{Found, LeadsTo, Verdict, judge};

/// Where a record leads to now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointing {
    /// The epoch that the record carries; none if nothing of ours is there.
    pub epoch: Option<u64>,
    /// The region whose targets it has; none if they are nobody's.
    pub region: Option<RegionName>,
    /// Servers that do not answer or answer otherwise, in words; empty if all agree.
    pub dissent: Vec<String>,
    /// Resolvers that lead clients elsewhere for a while, in words. Only observing asks them.
    pub lagging: Vec<String>,
}

/// One traffic record of a service. Changes are compare-and-swap by epoch: what carries a higher
/// one is never changed.
pub trait TrafficDriver {
    /// What it is called, for people.
    fn name(&self) -> String;

    /// Where it leads, asked of every server that is authoritative for it.
    fn observe(&self) -> LocalBoxFuture<'_, Outcome<Pointing>>;

    /// Leads it to `region` for `epoch`, on every server that answers. Refused where a higher epoch
    /// is found; never leaves it empty.
    fn point(&self, region: RegionName, epoch: u64) -> LocalBoxFuture<'_, Outcome<Pointing>>;
}
