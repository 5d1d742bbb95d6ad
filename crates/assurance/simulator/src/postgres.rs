//! A model of PostgreSQL below a guard, as far as moving a service needs it.
//!
//! Servers have WAL, a timeline, sessions whose commits wait for the own disk and for others,
//! and a standby's stream. They die, start slowly, are frozen, and lose what was not flushed.

mod driver;
mod guard;
mod parse;
mod server;
mod standby;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

pub use driver::SimInstance;
pub use guard::{died as guard_died, start as start_guard};
use lifeboat_daemons::guard::Deadline;
use lifeboat_model::{DatabaseName, NodeName, RegionName};
use lifeboat_quorum::Instance;
pub use parse::Rule;
pub use server::Told;

use crate::executor::{HostId, ProcessId};
use crate::message::{Address, Reply};
use crate::plant::Plant;
use crate::wal::{Log, Record, Tip};

/// What a data directory holds.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    /// Whether there is one at all.
    pub exists: bool,
    /// Flushed WAL.
    pub log: Log,
    /// Whether it comes up as a standby.
    pub standby: bool,
    /// Where a clean shutdown ended.
    pub shut_down: Option<usize>,
    /// synchronous_standby_names.
    pub names: String,
    /// The epoch that receivers are told.
    pub epoch: Option<u64>,
    /// From here on its WAL was set apart by a salvage.
    pub salvaged_from: Option<usize>,
}

/// How a write ended, for the session that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// Committed.
    Committed,
    /// The server takes no writes.
    ReadOnly,
}

/// WAL as a stream brings it.
#[derive(Debug, Clone)]
pub enum Streamed {
    /// What follows on the place that was asked for; empty if there is nothing new yet.
    Data(Vec<Record>),
    /// The server's log does not go through that place; this is its log.
    Diverged(Log),
    /// The server is no primary.
    NotPrimary,
}

/// What a server is asked.
pub enum Request {
    /// A commit.
    Write {
        /// The id of its record; never used twice.
        id: u64,
        /// Waits for the own disk alone.
        local: bool,
        /// How it ended.
        reply: Reply<Written>,
    },
    /// The next WAL; says what the asker has flushed.
    Stream {
        /// application_name.
        name: String,
        /// What was flushed.
        tip: Tip,
        /// Only from a server that became a primary in this epoch or later, or was told none.
        epoch: Option<u64>,
        /// The next WAL.
        reply: Reply<Streamed>,
    },
    /// What it is doing.
    Inspect {
        /// That.
        reply: Reply<Instance>,
    },
    /// Its WAL, to compare with.
    Compare {
        /// That; none from a standby.
        reply: Reply<Option<Log>>,
    },
    /// Stream from this node, or from nobody.
    Follow {
        /// The node.
        upstream: Option<NodeName>,
        /// Once it is set.
        reply: Reply<()>,
    },
    /// Read the settings again.
    Reload {
        /// Once they hold.
        reply: Reply<()>,
    },
    /// Become a primary.
    Promote {
        /// Once it was told; whether it is a standby.
        reply: Reply<bool>,
    },
    /// Stop cleanly; sessions are ended.
    Stop {
        /// Once the postmaster has gone on with it.
        reply: Reply<()>,
    },
}

/// What a guard is told.
pub enum GuardRequest {
    /// Start the server, if it is not running.
    Start {
        /// Until when it may live; none for a standby.
        deadline: Option<Duration>,
        /// What it streams from.
        upstream: Option<NodeName>,
        /// Once the postmaster was started.
        reply: Reply<()>,
    },
    /// It may live until then.
    Extend {
        /// When.
        deadline: Duration,
        /// Once the guard will act by it; whether it accepted.
        reply: Reply<bool>,
    },
    /// Kill everything now.
    Kill {
        /// Once nothing is left; how long it took.
        reply: Reply<Duration>,
    },
}

/// The place of one instance; lives as long as the world.
pub struct Node {
    /// Whose.
    pub database: DatabaseName,
    /// Its name.
    pub name: NodeName,
    /// Its region.
    pub region: RegionName,
    /// Its host.
    pub host: HostId,
    /// The process group of the server.
    pub postgres: ProcessId,
    /// The guard.
    pub guard: ProcessId,
    /// Where the server is asked.
    pub address: Address<Request>,
    /// Where the guard is told.
    pub guard_address: Address<GuardRequest>,
    /// The data directory.
    pub disk: RefCell<Disk>,
    /// Until when the guard lets it live, by the host's clock.
    pub deadline: RefCell<Deadline>,
    /// Whether any process of the server lives.
    pub lives: Cell<bool>,
    /// Whether processes are being killed.
    pub killing: Cell<bool>,
}

impl Node {
    /// The place of an instance on a host.
    pub fn new(
        plant: &Plant,
        database: &DatabaseName,
        name: &NodeName,
        region: &RegionName,
        host: HostId,
    ) -> Rc<Self> {
        let sim = &plant.sim;
        let postgres = sim.process(host, &format!("{name}/postgres"));
        let guard = sim.process(host, &format!("{name}/guard"));
        Rc::new(Self {
            database: database.clone(),
            name: name.clone(),
            region: region.clone(),
            host,
            postgres,
            guard,
            address: Address::new(&plant.network, postgres),
            guard_address: Address::new(&plant.network, guard),
            disk: RefCell::default(),
            deadline: RefCell::new(Deadline::new(plant.tuning.lease)),
            lives: Cell::new(false),
            killing: Cell::new(false),
        })
    }

    /// Every process of the server is gone, at once.
    pub fn die(&self, plant: &Plant, why: &str) {
        if self.lives.replace(false) {
            plant.sim.note_of(self.postgres, format!("dies: {why}"));
            plant.told(self, Told::Died);
        }
        plant.sim.kill(self.postgres);
        self.killing.set(false);
    }
}
