//! `quorum` and `people`: where leases and epochs live, and who may decide.

use std::path::PathBuf;

use super::Empty;
use crate::reader::{choices, section};
use crate::{Reference, Secret, TimeSpan};

section! {
    /// Where leases and epochs live: in etcd, or on one machine.
    pub struct Quorum {
        /// An etcd with members in three failure domains.
        etcd: Option<Etcd>,
        /// This machine alone; no automatic failover.
        local: Option<Empty>,
        /// How long the holder may serve without a renewal. Default: 10s.
        lease: TimeSpan = TimeSpan::from_secs(10),
        /// How often it is renewed. Default: 1s.
        renew: TimeSpan = TimeSpan::from_secs(1),
        /// When a probe of the database counts as failed. Default: 1s.
        probe_timeout: TimeSpan = TimeSpan::from_secs(1),
        /// When a request to the quorum store counts as failed. Default: 1s.
        store_timeout: TimeSpan = TimeSpan::from_secs(1),
        /// How long it takes to kill every process of an instance. Default: 2s.
        fence_deadline: TimeSpan = TimeSpan::from_secs(2),
        /// What is left for clocks that run at different speed. Default: 1s.
        margin: TimeSpan = TimeSpan::from_secs(1),
        /// What the primary does when the quorum store is lost. Default: stop.
        on_quorum_loss: OnQuorumLoss = OnQuorumLoss::Stop,
    }
}

section! {
    /// An etcd cluster.
    pub struct Etcd {
        /// Its client addresses.
        endpoints: Vec<Reference>,
        /// The authority that signed its certificates.
        ca: Option<PathBuf>,
        /// This client's certificate.
        cert: Option<PathBuf>,
        /// This client's key.
        key: Option<Secret>,
    }
}

choices! {
    /// What the primary does when the quorum store is lost.
    pub enum OnQuorumLoss {
        /// Stop serving when the lease ends.
        Stop = "stop",
        /// Go on serving; excludes automatic failover.
        Serve = "serve",
    }
}

section! {
    /// A person.
    pub struct Person {
        /// The person's public key: ed25519:BASE64.
        key: String,
        /// What the person may do.
        roles: Vec<Role>,
    }
}

choices! {
    /// What a person may do.
    pub enum Role {
        /// Read.
        Viewer = "viewer",
        /// Approve steps of other persons' runs.
        Approver = "approver",
        /// Start, resume and abort runs.
        Operator = "operator",
    }
}
