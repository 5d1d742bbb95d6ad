//! Runs: a plan of steps, and a journal of what became of them, that any controller can carry on.
//!
//! The plan is written once, when the run begins. The journal has one key a transition, numbered
//! without holes and created if absent: of two controllers that write the same number one wins,
//! and the other one reads what happened.

mod journal;
mod plan;

pub use journal::{Change, Entry, Facts, Run, StepState};
pub use plan::{Kind, Plan, Step};

#[cfg(test)]
mod tests;
