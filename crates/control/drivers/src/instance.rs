//! A PostgreSQL instance below a guard.

use std::time::Duration;

use futures::future::LocalBoxFuture;
use lifeboat_model::{Lsn, NodeName, Timeline};
use lifeboat_quorum::{Instance, Return};
use lifeboat_telemetry::Outcome;

/// As what an instance is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartAs {
    /// A standby of `upstream`: its own pg_control says that it is one, or `standby.signal` is
    /// made. It gets no deadline, and may not take a write.
    Standby {
        /// The node to stream from; none to live from the archive alone.
        upstream: Option<NodeName>,
    },
    /// The primary that it was, until `deadline`.
    Primary {
        /// When the guard kills it, if nobody extends that; by CLOCK_BOOTTIME.
        deadline: Duration,
    },
}

/// What is known after every process of an instance was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Killed {
    /// How many processes were there.
    pub processes: u32,
    /// How long it took until none was left.
    pub took: Duration,
}

/// Where a clean shutdown ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutDown {
    /// The timeline.
    pub timeline: Timeline,
    /// The end of the shutdown checkpoint's record: a standby needs everything before it.
    pub end: Lsn,
}

/// One instance on this host. No call blocks for longer than it says; all are safe to repeat.
pub trait InstanceDriver {
    /// What it is doing. Ends within `probe_timeout`; what does not answer is `Unclear`.
    fn inspect(&self) -> LocalBoxFuture<'_, Outcome<Instance>>;

    /// A committed write with `synchronous_commit = local`, within `probe_timeout` (R3).
    fn probe(&self) -> LocalBoxFuture<'_, Outcome<()>>;

    /// Tells the guard until when the instance may live. Returns once the guard has confirmed it.
    /// A deadline never moves backwards but by [`InstanceDriver::fence`].
    fn extend(&self, deadline: Duration) -> LocalBoxFuture<'_, Outcome<()>>;

    /// Starts it below a guard, if it is not running. A standby whose directory is not there is made
    /// from this region's repository first. Returns once the postmaster was started; what
    /// it becomes is seen by `inspect`.
    fn start(&self, start: StartAs) -> LocalBoxFuture<'_, Outcome<()>>;

    /// Makes a running standby stream from `upstream`, or from nobody, without restarting it.
    fn follow(&self, upstream: Option<NodeName>) -> LocalBoxFuture<'_, Outcome<()>>;

    /// Sets synchronous_standby_names and the epoch that receivers are told, and sees that both
    /// hold. On a standby they hold from the first commit after a promotion on.
    fn synchronize(&self, names: String, epoch: u64) -> LocalBoxFuture<'_, Outcome<()>>;

    /// Promotes a running standby: the guard gets `deadline` first, then PostgreSQL is told. Returns
    /// once it was told; `inspect` says when it is a primary.
    fn promote(&self, deadline: Duration) -> LocalBoxFuture<'_, Outcome<()>>;

    /// R13: refuses new sessions, ends those that are left, checkpoints and shuts down; says where
    /// the WAL ends. Takes until all of it is done, or fails and leaves the instance running.
    fn release(&self) -> LocalBoxFuture<'_, Outcome<ShutDown>>;

    /// Stops a standby, or what has no deadline. Data is safe; nothing is promised about sessions.
    fn stop(&self) -> LocalBoxFuture<'_, Outcome<()>>;

    /// Kills every process of the instance and returns once none is left (R9).
    fn fence(&self) -> LocalBoxFuture<'_, Outcome<Killed>>;

    /// Brings the stopped directory to where it can follow `upstream`.
    fn come_back(&self, upstream: NodeName, by: Return) -> LocalBoxFuture<'_, Outcome<String>>;

    /// Sets apart what the stopped directory has from `fork` on: WAL into the repository, rows as
    /// CSV. Returns what was found, in words.
    fn salvage(&self, fork: Lsn) -> LocalBoxFuture<'_, Outcome<String>>;

    /// Where the present timeline branched off the one before; none on the first one.
    fn fork(&self) -> LocalBoxFuture<'_, Outcome<Option<Lsn>>>;

    /// What keeps it from becoming a good primary, in sentences (R4): settings below the primary's,
    /// missing slots, lag.
    fn readiness(&self) -> LocalBoxFuture<'_, Outcome<Vec<String>>>;
}
