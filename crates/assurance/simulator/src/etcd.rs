//! A model of etcd: three members, one a failure domain, behind [`lifeboat_quorum::Store`].
//!
//! The keys are one truth that nobody doubts; what is modelled is who may change it and when:
//! leaders, elections, majorities, disks, and commits whose answer is lost and that land later.

mod client;
mod elect;
mod member;
mod truth;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

pub use client::SimStore;
use lifeboat_quorum::{Commit, MemoryStore, Revision, Snapshot, StoreError, Transaction};
use member::Durable;
pub use truth::Truth;

use crate::executor::{HostId, ProcessId, Sim};
use crate::message::{Address, Reply};
use crate::network::Network;

/// The times of a member.
#[derive(Debug, Clone, Copy)]
pub struct EtcdTiming {
    /// Between two heartbeats of a leader.
    pub heartbeat: Duration,
    /// From when on a follower believes that there is no leader; at random up to twice that.
    pub election: Duration,
}

impl Default for EtcdTiming {
    fn default() -> Self {
        Self { heartbeat: Duration::from_millis(100), election: Duration::from_millis(1000) }
    }
}

/// What members are asked, by clients and by each other.
pub(crate) enum Request {
    Read { prefix: String, since: Revision, reply: Reply<Result<Snapshot, StoreError>> },
    Commit { entry: Entry, reply: Reply<Result<Commit, StoreError>> },
    Heartbeat { term: u64, leader: usize },
    HeartbeatSeen { term: u64, by: usize },
    Append { term: u64, leader: usize, entry: Entry },
    Appended { term: u64, number: u64, by: usize },
    Vote { term: u64, candidate: usize, newest: u64 },
    Voted { term: u64, by: usize },
}

/// A change that is not yet made. Its number is the client's: what is sent to several members is
/// made once.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    number: u64,
    /// When whoever sent it had decided, in true time.
    sent: Duration,
    by: ProcessId,
    transaction: Transaction,
}

impl Entry {
    fn number(&self) -> u64 {
        self.number
    }
}

struct Member {
    process: ProcessId,
    address: Address<Request>,
    durable: RefCell<Durable>,
    /// How long a write to its disk takes.
    disk: Cell<(Duration, Duration)>,
}

/// A moment in the life of a commit that depends on what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// Somebody has decided, and not a byte has left him.
    Decided,
    /// It was made, and nobody was told.
    Landed,
}

type Trap = Box<dyn FnOnce()>;

/// The store; clones are handles to the same one.
#[derive(Clone)]
pub struct Etcd {
    inner: Rc<Inner>,
}

struct Inner {
    sim: Sim,
    timing: EtcdTiming,
    members: Vec<Member>,
    truth: Truth,
    traps: RefCell<BTreeMap<(ProcessId, Moment), Trap>>,
}

const QUICK_DISK: (Duration, Duration) = (Duration::from_micros(300), Duration::from_millis(3));
const SLOW_DISK: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(900));

impl Etcd {
    /// One member on each of these hosts; none of them runs yet.
    pub fn new(network: &Network, hosts: &[HostId], timing: EtcdTiming) -> Self {
        let sim = network.sim().clone();
        let members = hosts.iter().map(|host| {
            let process = sim.process(*host, &format!("{}/etcd", sim.host_name(*host)));
            Member {
                process,
                address: Address::new(network, process),
                durable: RefCell::default(),
                disk: Cell::new(QUICK_DISK),
            }
        });
        let members = members.collect();
        let truth = Truth::default();
        let traps = RefCell::default();
        Self { inner: Rc::new(Inner { sim, timing, members, truth, traps }) }
    }

    /// The keys as they truly are, for checkers.
    pub fn truth(&self) -> &Truth {
        &self.inner.truth
    }

    /// The process of a member.
    pub fn process(&self, member: usize) -> ProcessId {
        self.inner.members[member].process
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.inner.members.len()
    }

    /// Whether there is no member at all.
    pub fn is_empty(&self) -> bool {
        self.inner.members.is_empty()
    }

    /// Starts a member that does not run.
    pub fn start(&self, member: usize) {
        member::start(self, member);
    }

    /// Which member believes that it leads, if one does.
    pub fn leader(&self) -> Option<usize> {
        self.inner.truth.leader()
    }

    /// All members are made anew from a snapshot, and started.
    pub fn restore(&self, snapshot: MemoryStore) {
        for member in 0..self.len() {
            self.inner.sim.kill(self.process(member));
            self.inner.members[member].durable.borrow_mut().tail.clear();
        }
        self.inner.truth.restore(snapshot);
        for member in 0..self.len() {
            self.start(member);
        }
    }

    /// Makes the disk of a member slow, or quick again.
    pub fn slow_disk(&self, member: usize, slow: bool) {
        self.inner.members[member].disk.set(if slow { SLOW_DISK } else { QUICK_DISK });
    }

    /// Does something when a process's next commit is at this moment.
    pub fn when(&self, process: ProcessId, moment: Moment, call: impl FnOnce() + 'static) {
        self.inner.traps.borrow_mut().insert((process, moment), Box::new(call));
    }

    /// Forgets what was to be done at moments that did not come.
    pub fn forget_moments(&self) {
        self.inner.traps.borrow_mut().clear();
    }

    fn reached(&self, entry: &Entry, moment: Moment) {
        // What is told of oneself depends on nothing.
        if entry.transaction.compares.is_empty() {
            return;
        }
        let trap = self.inner.traps.borrow_mut().remove(&(entry.by, moment));
        if let Some(call) = trap {
            call();
        }
    }

    /// Makes a change in the name of a leader.
    fn apply(&self, term: u64, entry: &Entry) -> Option<Commit> {
        let outcome = self.inner.truth.apply(term, entry);
        if let Some(Commit::Done(_)) = outcome {
            self.reached(entry, Moment::Landed);
        }
        outcome
    }

    /// The store as a process sees it; every call ends within `timeout` by its clock.
    pub fn client(&self, process: ProcessId, timeout: Duration) -> SimStore {
        SimStore::new(self.clone(), process, timeout)
    }
}
