//! Restore: plan, fetch, materialise, recovery settings.
//!
//! [`plan()`] says what would be done and refuses what cannot work; [`restore()`] does it. Reading
//! order: `restore.rs`, then its steps in the order in which they are called.

mod aside;
mod batch;
mod choose;
mod claim;
mod configuration;
mod copy;
mod flush;
mod lanes;
mod local;
mod long;
mod manifest;
mod pages;
mod plan;
mod queue;
mod recovery;
mod request;
mod restore;
mod source;
mod space;
mod strays;
mod sums;
mod survey;
mod table;
mod tablespaces;
mod target;

pub use claim::{Found, Marker};
pub use plan::plan;
pub use request::{
    FetchCommand, PlannedBackup, PlannedTablespace, Prediction, RestorePlan, RestoreReport,
    RestoreRequest, Space, TargetAction,
};
pub use restore::{RestoreContext, restore};
pub use source::Source;

#[cfg(test)]
mod tests;
