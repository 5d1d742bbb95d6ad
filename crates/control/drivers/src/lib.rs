//! What a move touches, one module a system, each behind a trait that says what is promised.
//!
//! Agents and controllers know the traits alone; the simulator implements them with models.

mod endpoint;
mod epochs;
mod grant;
pub mod guard;
mod instance;
mod memory;
pub mod postgres;
mod probe;
mod receiver;
pub mod traffic;

pub use endpoint::{Endpoint, EndpointProbe};
pub use epochs::{Away, EpochArchive, KnownEpoch, MemoryEpochs, Mood, RepositoryEpochs};
pub use grant::Grant;
pub use instance::{InstanceDriver, Killed, ShutDown, StartAs};
pub use memory::{FileMemory, Memory};
pub use probe::{Probe, Probed};
pub use receiver::{ReceiverDriver, ReceiverProcess, ReceiverSettings};
pub use traffic::{Pointing, TrafficDriver};
