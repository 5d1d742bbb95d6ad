//! What agent and guard say to each other: one line of JSON each way, small and versioned.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A guard answers requests of this version and refuses others.
pub const VERSION: u32 = 1;

/// A line from an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// Chosen by the agent; the reply carries it back.
    pub sequence: u64,
    /// What it wants.
    pub ask: Ask,
}

/// What an agent may want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    /// How things are.
    Status,
    /// Start PostgreSQL, which must not be running.
    Start {
        /// How.
        options: Options,
        /// Until when it may live, by CLOCK_BOOTTIME; none for a standby.
        deadline: Option<Duration>,
    },
    /// The instance may live until then.
    Extend {
        /// By CLOCK_BOOTTIME.
        deadline: Duration,
    },
    /// Kill every process of the instance.
    Fence,
    /// Shut PostgreSQL down.
    Stop {
        /// How.
        how: Stop,
        /// After this, whatever is left is killed.
        limit: Duration,
    },
    /// Be gone. Refused while an instance lives.
    End,
}

/// How PostgreSQL is started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Settings for its command line, where they win over every file. Never a secret: everybody
    /// on the host sees them.
    pub settings: BTreeMap<String, String>,
    /// Variables for its environment, besides the guard's own.
    pub variables: BTreeMap<String, String>,
}

/// How PostgreSQL is shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// Ends sessions, writes a checkpoint, sends all WAL.
    Fast,
    /// No checkpoint: the next start recovers.
    Immediate,
}

/// A line from a guard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// [`VERSION`].
    pub version: u32,
    /// That of the request.
    pub sequence: u64,
    /// What came of it.
    pub answer: Answer,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// How things are.
    Status(Box<GuardStatus>),
    /// PostgreSQL's process, as this host numbers it.
    Started {
        /// Its number.
        postmaster: i32,
    },
    /// Both processes of the guard know it.
    Extended {
        /// The deadline that holds now.
        deadline: Duration,
    },
    /// Nothing of the instance is left.
    Gone(End),
    /// The guard ends now.
    Ending,
    /// It was not done.
    Refused {
        /// Which kind.
        refusal: Refusal,
        /// Why, in words.
        why: String,
    },
}

/// Why something was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The request cannot be carried out as things are: nothing was changed.
    State,
    /// The deadline is past, or too far ahead.
    Deadline,
    /// PostgreSQL did not start.
    Start,
    /// The data directory would let others start it.
    Unmanaged,
    /// Somebody else runs a server there, or what is left of one.
    Held,
    /// Processes are left although all were sent SIGKILL.
    Left,
    /// The request cannot be read, or is of another version.
    Request,
}

/// How things are with a guard and its instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardStatus {
    /// How it holds the processes of the instance together.
    pub mode: Mode,
    /// What the instance is doing.
    pub phase: Phase,
    /// The upper process.
    pub keeper: i32,
    /// The lower process, PostgreSQL's parent, while there is one.
    pub init: Option<i32>,
    /// PostgreSQL's first process, as this host numbers it, while it lives.
    pub postmaster: Option<i32>,
    /// Whether `postmaster.pid` holds that same number, so that `pg_ctl reload` works.
    pub numbers_agree: bool,
    /// Until when the instance may live; none for ever.
    pub deadline: Option<Duration>,
    /// How the last instance of this guard came to its end.
    pub last_end: Option<End>,
    /// Whether both processes are locked in memory.
    pub memory_locked: bool,
    /// Whether a watchdog device is armed.
    pub watchdog_armed: bool,
    /// The guard's version of Lifeboat.
    pub release: String,
}

/// How a guard holds an instance together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A PID namespace, which dies with its init.
    Namespace,
    /// Orphans come to the guard, which walks the process table.
    Subreaper,
}

/// What an instance is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// There is none.
    Down,
    /// Its first process is being made.
    Starting,
    /// Its first process lives.
    Up,
    /// It was told to shut down.
    Stopping,
    /// It is being killed.
    Killing,
}

/// How an instance came to its end. Nothing of it is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// Why.
    pub reason: EndReason,
    /// How many of its processes had to be killed, as far as they were seen.
    pub killed: u32,
    /// From the first signal until nothing was left.
    pub took: Duration,
    /// When nothing was left, by CLOCK_BOOTTIME.
    pub at: Duration,
}

/// Why an instance came to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum EndReason {
    /// Nobody extended its life.
    Deadline,
    /// An agent asked for it.
    Fenced,
    /// It was told to shut down and its first process ended by itself.
    Stopped {
        /// Its exit code, 0 for a clean shutdown; none if a signal ended it.
        code: Option<i32>,
    },
    /// It was told to shut down and had not done so in time.
    StopTimedOut,
    /// PostgreSQL's first process ended unasked; the rest was killed.
    PostmasterEnded {
        /// Its exit code; none if a signal ended it.
        code: Option<i32>,
    },
    /// PostgreSQL's first process could not be made.
    NotStarted,
    /// One process of the guard ended, and the other one killed the instance.
    GuardDied,
}

/// What came of a shutdown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// Whether PostgreSQL itself finished: its shutdown checkpoint is on disk (fast).
    pub clean: bool,
    /// How it went.
    pub end: End,
}
