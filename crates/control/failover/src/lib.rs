//! Observe, judge, fence, promote, cut over: what is decided, as functions of what was read.
//!
//! Nothing here waits or touches anything: [`judge`] says whether a service should move, [`advance`]
//! what a run does next, [`upkeep`] what holds between runs. The daemons carry it out. Only
//! [`reconcile`] acts, through the drivers of traffic, which compare before they swap.

mod adopt;
mod advance;
pub mod candidate;
mod elsewhere;
mod judge;
mod orders;
mod predict;
mod report;
mod service;
mod stalls;
mod start;
mod traffic;
mod upkeep;
mod view;
mod voices;

pub use adopt::{Adoption, adopt, adoption, withdraw};
pub use advance::{Next, Proposal, Turn, advance};
pub use elsewhere::Elsewhere;
pub use judge::{Evidence, Judgement, Verdict, Voice, judge};
pub use orders::{Writes, names};
pub use predict::{Prediction, predict};
pub use report::{Measured, measure};
pub use service::{Database, Policy, Service};
pub use stalls::Stalls;
pub use start::{Wanted, first_epoch, start};
pub use traffic::{TrafficState, reconcile};
pub use upkeep::{Upkeep, upkeep};
pub use view::{Mirror, Seen, Table, View, read_run};
pub use voices::Voices;

#[cfg(test)]
mod tests;
