//! What the two processes of a guard, and the one that becomes PostgreSQL, say to each other. All
//! are of the same binary, so this has no versions.

use std::path::PathBuf;
use std::time::Duration;

use lifeboat_drivers::guard::{End, Options, Stop};
use serde::{Deserialize, Serialize};

/// From keeper to init.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Down {
    /// First of all, and once.
    Begin(Begin),
    /// The instance may live until then.
    Extend(Duration),
    /// Kill it.
    Fence,
    /// Shut it down; kill what is left after the duration.
    Stop(Stop, Duration),
}

/// What init needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Begin {
    pub program: PathBuf,
    pub data_directory: PathBuf,
    pub config_file: Option<PathBuf>,
    pub server_log: PathBuf,
    pub options: Options,
    pub deadline: Option<Duration>,
    pub longest: Duration,
    /// Whether init must be the first process of a namespace.
    pub namespace: bool,
}

/// From init to keeper.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Up {
    /// PostgreSQL's first process exists.
    Started {
        /// As the host numbers it.
        postmaster: i32,
        numbers_agree: bool,
        memory_locked: bool,
    },
    /// There was none, and nothing is left.
    NotStarted(String),
    /// Known here too.
    Extended(Duration),
    /// Every process was sent SIGKILL; now they are waited for.
    Killing,
    /// Nothing is left. Init ends.
    Ended(End),
}

/// From the process that becomes PostgreSQL to init.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromStep {
    /// Its numbers.
    Hello {
        /// As the host sees it, or whoever mounted `/proc`.
        outer: i32,
        /// As it sees itself.
        inner: i32,
    },
    /// It could not become PostgreSQL.
    Failed(String),
}

/// From init to the process that becomes PostgreSQL.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Become {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub variables: Vec<(String, String)>,
    pub data_directory: PathBuf,
}
