//! How far a recovery goes.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Lsn;

/// The point at which a recovery ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecoveryTarget {
    /// The end of the WAL that the repository has.
    Latest,
    /// The end of the backup: the first consistent state.
    Immediate,
    /// The last commit up to a moment.
    Time {
        /// The moment.
        at: Timestamp,
        /// Whether a commit at exactly this moment is kept.
        inclusive: bool,
    },
    /// A position in the WAL.
    Lsn(Lsn),
    /// The commit of a transaction, with its epoch as `pg_current_xact_id()` prints it.
    Xid(u64),
    /// A restore point made by `pg_create_restore_point`.
    Name(String),
    /// The end of the named backup.
    Backup(String),
}

impl fmt::Display for RecoveryTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => formatter.write_str("latest"),
            Self::Immediate => formatter.write_str("immediate"),
            Self::Time { at, inclusive: true } => write!(formatter, "time {at}"),
            Self::Time { at, inclusive: false } => write!(formatter, "just before time {at}"),
            Self::Lsn(lsn) => write!(formatter, "lsn {lsn}"),
            Self::Xid(xid) => write!(formatter, "xid {xid}"),
            Self::Name(name) => write!(formatter, "name {name}"),
            Self::Backup(name) => write!(formatter, "backup {name}"),
        }
    }
}
