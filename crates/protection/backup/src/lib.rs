//! Base backup of a running cluster into one or several repositories.
//!
//! [`run`] is the flow; its steps are the sibling modules, in the order of their use.

mod archive;
mod commit;
mod contents;
mod copy;
mod describe;
mod finish;
mod frames;
mod open;
mod outside;
mod read;
mod receivers;
mod run;
mod schedule;
mod session;
mod source;
mod throttle;
mod upload;

pub use run::{BackupContext, BackupReport, BackupRequest, run};
pub use source::{ServerFacts, Source};

#[cfg(test)]
mod tests;
