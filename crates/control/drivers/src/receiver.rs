//! The receiver of one database in this region.

mod child;
mod process;

use futures::future::LocalBoxFuture;
use lifeboat_quorum::SealStatus;
use lifeboat_telemetry::Outcome;

pub use process::{ReceiverProcess, ReceiverSettings};

/// Runs `wal receive` as a child with limits of its own.
pub trait ReceiverDriver {
    /// Makes sure that a receiver runs for `epoch`; one for an older epoch is ended first.
    fn receive(&self, epoch: u64) -> LocalBoxFuture<'_, Outcome<()>>;

    /// Seals it for `epoch`: when this returns, it has acknowledged its last for that epoch. Ships
    /// what the spool holds; `shipped` says whether the repository has all of it.
    fn seal(&self, epoch: u64) -> LocalBoxFuture<'_, Outcome<SealStatus>>;

    /// Whether it runs now, and for which epoch.
    fn running(&self) -> Option<u64>;
}
