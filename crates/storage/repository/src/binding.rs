//! Bindings: which stream a database writes, granted by the vault's root, one object a grant.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lifeboat_telemetry::Outcome;
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

/// The bindings that one repository holds, by their number, damaged ones among them.
pub type FoundBindings = Vec<(u32, Outcome<Binding>)>;

/// Puts together what several repositories hold, oldest first. All hold the same objects, signed by
/// the vault's root: what is damaged in one is taken from another, and is a failure only if no
/// repository has it whole.
pub fn merge(found: Vec<FoundBindings>) -> Outcome<Vec<Binding>> {
    let mut all: BTreeMap<u32, Outcome<Binding>> = BTreeMap::new();
    for (number, binding) in found.into_iter().flatten() {
        let known = all.get(&number);
        if known.is_none() || (known.is_some_and(Result::is_err) && binding.is_ok()) {
            all.insert(number, binding);
        }
    }
    all.into_values().collect()
}
