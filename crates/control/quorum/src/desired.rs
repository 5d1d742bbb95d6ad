//! What controllers want of a node or a receiver. Agents carry it out, and nobody else.

use lifeboat_model::{Lsn, NodeName};
use serde::{Deserialize, Serialize};

use crate::Token;

/// An order. Level-triggered: an agent carries out what stands here, and the same order again
/// changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Desired<G> {
    /// Which attempt of what this is. Lower ones are refused.
    pub token: Token,
    /// What is wanted.
    pub goal: G,
}

/// What is wanted of a PostgreSQL instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Goal {
    /// Be the primary of the token's epoch, for as long as lease and record allow it. A standby is
    /// promoted first, once it has replayed `required`.
    Primary {
        /// Not before this position is replayed; none where nothing is required.
        required: Option<Lsn>,
        /// The value of synchronous_standby_names, set before the first commit of a client.
        synchronous_standby_names: String,
    },
    /// Be a standby of this node.
    Follow {
        /// The node that writes.
        upstream: NodeName,
        /// What may be done if the directory has diverged.
        by: Return,
    },
    /// Receive nothing more by streaming, and report what is there (R14). With a position: fetch
    /// from the repository what is missing up to there, and replay it.
    Hold {
        /// Where to get to.
        complete: Option<Lsn>,
    },
    /// Stop cleanly: no new session, none left, checkpoint, shutdown (R13).
    Release,
    /// Kill every process of the instance now.
    Fence,
    /// Stay down.
    Down,
    /// Set apart what the loser wrote and nobody has: WAL from `fork` on as fragments, rows as CSV.
    Salvage {
        /// Where the winner's timeline branched off.
        fork: Lsn,
    },
}

/// How a node comes back as a standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Return {
    /// Only if its directory needs no change: it did not diverge.
    AsItIs,
    /// pg_rewind, after what differs was set apart.
    Rewind,
    /// A new copy from the repository.
    Clone,
}

/// What is wanted of a receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ReceiverGoal {
    /// Receive for the token's epoch.
    Receive,
    /// Never acknowledge again for this epoch and those before it, and ship what is there.
    Seal {
        /// The epoch that is over.
        epoch: u64,
    },
}
