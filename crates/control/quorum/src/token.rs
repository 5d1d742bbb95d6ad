//! What every order carries, so that whoever carries it out can tell an old one.

use serde::{Deserialize, Serialize};

/// Which attempt of which step of which run in which epoch. Ordered: an agent carries out nothing
/// below the highest one that it has seen, also after a restart.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The epoch that the order belongs to.
    pub epoch: u64,
    /// The number of the run within its service; they only grow.
    pub run: u64,
    /// The step of its plan.
    pub step: u32,
    /// The attempt at that step.
    pub attempt: u32,
}

impl std::fmt::Display for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { epoch, run, step, attempt } = self;
        write!(formatter, "epoch {epoch}, run {run}, step {step}, attempt {attempt}")
    }
}
