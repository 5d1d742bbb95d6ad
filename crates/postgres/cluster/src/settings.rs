//! `postgresql.conf` and its relatives: read over includes, changed without losing a byte of what
//! people wrote.

mod edit;
mod grant;
mod recovery;
mod rules;
mod sources;
mod syntax;

use thiserror::Error;

pub use edit::{append_block, comment_out, quote};
pub use grant::{
    GRANT_DESCRIPTOR, GRANT_FILE, GRANT_TEXT, grant_path, guarded, is_guarded, unguarded,
};
pub use recovery::{RECOVERY_SIGNAL, RecoveryPlan, STANDBY_SIGNAL, TargetAction, recovery_names};
pub use rules::{NamedList, named_lists, plain_path};
pub use sources::{Sources, read_sources};
pub use syntax::{Setting, parse};

/// A line that PostgreSQL would refuse.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line} is no setting: {reason}")]
pub struct SettingsError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: &'static str,
}

#[cfg(test)]
mod tests;
