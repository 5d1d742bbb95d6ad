//! Bindings: which stream a database writes, granted by the vault's root, one object a grant.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{Incarnation, StreamId};

/// The body of a binding object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindingBody {
    /// `SERVICE/DATABASE`.
    pub database: String,
    /// The cluster.
    pub system_identifier: u64,
    /// The incarnation that may write from now on; all earlier ones may not.
    pub incarnation: Incarnation,
    /// The stream of both.
    pub stream: StreamId,
    /// When it was granted.
    pub granted_at: Timestamp,
}

/// A binding as read, with its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Sequence number, from 1.
    pub number: u32,
    /// What it says.
    pub body: BindingBody,
}
