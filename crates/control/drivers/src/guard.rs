//! How an agent speaks to the guard, PostgreSQL's parent (F11). The guard itself is a daemon.
//!
//! All calls block, each for a time that its documentation says, and each opens a connection of
//! its own: an agent that restarts, or one of a newer version, simply asks again.

mod boot;
mod client;
mod force;
pub mod processes;
mod protocol;

use std::path::PathBuf;
use std::time::Duration;

pub use boot::{Managed, manage, unmanage, unmanaged};
pub use client::{Client, arguments, connect, launch};
pub use protocol::{
    Answer, Ask, End, EndReason, GuardStatus, Mode, Options, Phase, Refusal, Reply, Request, Stop,
    Stopped, VERSION,
};

/// What a guard needs to know of its instance, for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardPlan {
    /// The `lifeboat` binary; this process's own if there is none.
    pub program: Option<PathBuf>,
    /// A directory of this instance's guard alone, for its socket, lock and logs. Made if absent.
    /// At most 80 bytes long, for sockets have short names.
    pub state: PathBuf,
    /// The data directory. PostgreSQL runs as its owner.
    pub data_directory: PathBuf,
    /// The directory with `postgres`.
    pub bin_directory: PathBuf,
    /// Where `postgresql.conf` lies if not in the data directory, as with Debian.
    pub config_file: Option<PathBuf>,
    /// Where PostgreSQL's standard error goes; `postgres.log` in the state directory if not said.
    pub server_log: Option<PathBuf>,
    /// The farthest that a deadline may lie ahead: a lease. An agent whose clock is wrong cannot
    /// disarm the guard.
    pub longest: Duration,
    /// How long a SIGTERM to the guard waits for a fast shutdown before it kills.
    pub stop_limit: Duration,
    /// A watchdog device, armed before the first deadline and disarmed when nothing is left.
    pub watchdog: Option<PathBuf>,
}

impl GuardPlan {
    /// The socket on which the guard listens.
    pub fn socket(&self) -> PathBuf {
        self.state.join("guard.sock")
    }

    /// What the guard says.
    pub fn log(&self) -> PathBuf {
        self.state.join("guard.log")
    }

    /// Where PostgreSQL's standard error goes.
    pub fn server_log(&self) -> PathBuf {
        self.server_log.clone().unwrap_or_else(|| self.state.join("postgres.log"))
    }

    /// What only one guard at a time holds.
    pub fn lock(&self) -> PathBuf {
        self.state.join("guard.lock")
    }
}
