//! Who may write: epochs, leases and tokens in a store of keys that changes by compare-and-swap.
//!
//! [`Store`] is the seam: etcd, one machine's files, and the simulator's model implement it and
//! pass one suite. Everything above it is data ([`EpochRecord`], [`Lease`], [`Desired`],
//! [`NodeStatus`], …) and pure rules over it: [`EpochRecord::apply`] says which moves an epoch may
//! make, [`Holder`] until when the holder of a lease may serve, [`Waiter`] from when on it is over.

mod desired;
mod etcd;
mod identity;
mod keys;
mod keyspace;
mod lease;
mod local;
mod memory;
mod observation;
mod open;
mod record;
mod status;
mod store;
mod timing;
mod token;

pub use desired::{Desired, Goal, ReceiverGoal, Return};
pub use etcd::{EtcdAccess, EtcdAdmin, EtcdStore, Login};
pub use identity::{
    Authority, Certificate, Identity, Invitation, Issued, Right, Rights, Role, Sealed,
    ServerCertificate, SignedStore,
};
pub use keys::Keys;
pub use lease::{Holder, Lease, Waiter};
pub use local::LocalStore;
pub use memory::MemoryStore;
pub use observation::{Observation, Observations, Seen};
pub use open::open;
pub use record::{
    Beginning, Degraded, EpochRecord, EpochState, Fence, FenceProof, Nodes, Refused, RunId,
    Synchronous, Transition,
};
pub use status::{Instance, NodeStatus, Progress, ReceiverStatus, SealStatus};
pub use store::{
    Commit, Compare, Entry, Put, Revision, Snapshot, Store, StoreError, Transaction, decode, encode,
};
pub use timing::Timing;
pub use token::Token;

#[cfg(test)]
mod tests;
