//! A running server.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use lifeboat_environment::{Clock, Timer};
use lifeboat_model::{DatabaseId, NodeName, RegionName};
use lifeboat_quorum::Instance;

use super::{Node, Request, Rule, Streamed, Written, standby};
use crate::executor::SimTimer;
use crate::message::Reply;
use crate::plant::Plant;
use crate::scene::REGIONS;
use crate::wal::{self, Log, Record, Tip};

/// Records that are streamed at once.
const BATCH: usize = 500;
/// A follower that was silent for so long does not count as one.
const SILENT: Duration = Duration::from_millis(1500);

/// What a server tells the world besides its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// A commit was acknowledged.
    Acknowledged(u64),
    /// It takes writes from now on.
    IsPrimary,
    /// No process of it is left.
    Died,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Starting,
    Standby,
    Promoting,
    Primary,
    Stopping,
}

struct Waiting {
    length: usize,
    id: u64,
    local: bool,
    reply: Reply<Written>,
}

struct Follower {
    flushed: usize,
    seen: Duration,
    parked: Option<(usize, Reply<Streamed>)>,
}

/// What is lost when its processes die.
pub(super) struct Memory {
    pub mode: Mode,
    pub upstream: Option<NodeName>,
    pub streaming: bool,
    /// Flushed WAL that was replayed.
    pub replayed: usize,
    rule: Rule,
    epoch: Option<u64>,
    /// Written, not flushed.
    buffer: Vec<Record>,
    flushing: bool,
    waiting: Vec<Waiting>,
    followers: BTreeMap<String, Follower>,
}

/// A server's tasks share this.
#[derive(Clone)]
pub(super) struct Server {
    pub plant: Plant,
    pub node: Rc<Node>,
    pub timer: SimTimer,
    pub memory: Rc<RefCell<Memory>>,
}

impl Server {
    /// Starts the processes of a server.
    pub fn start(plant: &Plant, node: &Rc<Node>, upstream: Option<NodeName>) {
        let memory = Memory {
            mode: Mode::Starting,
            upstream,
            streaming: false,
            replayed: 0,
            rule: Rule::default(),
            epoch: None,
            buffer: Vec::new(),
            flushing: false,
            waiting: Vec::new(),
            followers: BTreeMap::new(),
        };
        let server = Self {
            plant: plant.clone(),
            node: Rc::clone(node),
            timer: plant.sim.timer(node.postgres),
            memory: Rc::new(RefCell::new(memory)),
        };
        node.lives.set(true);
        let mut listener = node.address.listen();
        let recovery = server.clone();
        plant.sim.spawn(node.postgres, async move { recovery.recover().await });
        plant.sim.spawn(node.postgres, async move {
            loop {
                let request = listener.next().await;
                server.handle(request);
            }
        });
    }

    async fn recover(&self) {
        let (least, most) = self.plant.tuning.recovery;
        self.timer.sleep(self.plant.sim.between(least, most)).await;
        let standby = {
            let mut disk = self.node.disk.borrow_mut();
            disk.shut_down = None;
            self.memory.borrow_mut().replayed = disk.log.len();
            disk.standby
        };
        if standby {
            self.memory.borrow_mut().mode = Mode::Standby;
            self.plant.sim.note_of(self.node.postgres, "is a standby");
            standby::run(self).await;
        } else {
            self.become_primary();
        }
    }

    pub(super) fn become_primary(&self) {
        self.reload();
        self.memory.borrow_mut().mode = Mode::Primary;
        let tip = self.node.disk.borrow().log.tip();
        let at = wal::lsn(tip.length);
        let timeline = self.node.disk.borrow().log.timeline();
        self.plant
            .sim
            .note_of(self.node.postgres, format!("is the primary, timeline {timeline} at {at}"));
        self.plant.told(&self.node, Told::IsPrimary);
    }

    fn reload(&self) {
        let names = self.node.disk.borrow().names.clone();
        self.memory.borrow_mut().epoch = self.node.disk.borrow().epoch;
        match Rule::parse(&names) {
            Ok(rule) => self.memory.borrow_mut().rule = rule,
            Err(bad) => self.plant.sim.fail(format!("{}: {bad}", self.node.name)),
        }
        self.settle();
    }

    fn handle(&self, request: Request) {
        let mode = self.memory.borrow().mode;
        match request {
            Request::Write { id, local, reply } => self.write(mode, id, local, reply),
            Request::Stream { name, tip, epoch, reply } => {
                if mode != Mode::Primary && mode != Mode::Stopping {
                    return reply.send(Streamed::NotPrimary);
                }
                self.stream(name, tip, epoch, reply);
            }
            // A server that starts answers nobody: who asks waits in vain.
            Request::Inspect { reply } if mode != Mode::Starting => reply.send(self.inspect()),
            Request::Inspect { .. } => {}
            Request::Compare { reply } => {
                let log = || self.node.disk.borrow().log.clone();
                reply.send((mode == Mode::Primary).then(log));
            }
            Request::Follow { upstream, reply } => {
                self.memory.borrow_mut().upstream = upstream;
                reply.send(());
            }
            Request::Reload { reply } => {
                self.reload();
                reply.send(());
            }
            Request::Promote { reply } => {
                reply.send(mode == Mode::Standby || mode == Mode::Promoting);
                if mode == Mode::Standby {
                    self.memory.borrow_mut().mode = Mode::Promoting;
                }
            }
            Request::Stop { reply } => {
                reply.send(());
                self.stop(mode);
            }
        }
    }

    fn stream(&self, name: String, tip: Tip, epoch: Option<u64>, reply: Reply<Streamed>) {
        let its = self.memory.borrow().epoch;
        if epoch.zip(its).is_some_and(|(wanted, its)| its < wanted) {
            return reply.send(Streamed::NotPrimary);
        }
        if !self.node.disk.borrow().log.passes(tip) {
            return reply.send(Streamed::Diverged(self.node.disk.borrow().log.clone()));
        }
        let checks = &self.plant.checks;
        checks.heard_flushed(&self.plant, &self.node, &name, tip.length, its.unwrap_or_default());
        let seen = self.timer.elapsed();
        let parked = Some((tip.length, reply));
        let follower = Follower { flushed: tip.length, seen, parked };
        self.memory.borrow_mut().followers.insert(name, follower);
        self.settle();
    }

    fn write(&self, mode: Mode, id: u64, local: bool, reply: Reply<Written>) {
        if mode != Mode::Primary {
            return reply.send(Written::ReadOnly);
        }
        let length = self.append(id, !local);
        self.memory.borrow_mut().waiting.push(Waiting { length, id, local, reply });
    }

    /// Writes a record; returns the length of the log with it.
    fn append(&self, id: u64, commits: bool) -> usize {
        let timeline = self.node.disk.borrow().log.timeline();
        let at = commits.then(|| self.plant.sim.clock(self.node.host).now());
        let mut memory = self.memory.borrow_mut();
        memory.buffer.push(Record { id, timeline, at });
        let length = self.node.disk.borrow().log.len() + memory.buffer.len();
        let flush = !std::mem::replace(&mut memory.flushing, true);
        drop(memory);
        if flush {
            let server = self.clone();
            let flusher = async move { server.flush().await };
            self.plant.sim.spawn(self.node.postgres, flusher);
        }
        length
    }

    async fn flush(&self) {
        loop {
            // What is written while the disk works is flushed by the next round.
            let round = self.memory.borrow().buffer.len();
            if round == 0 {
                self.memory.borrow_mut().flushing = false;
                return;
            }
            let (least, most) = self.plant.disk(self.node.host);
            self.timer.sleep(self.plant.sim.between(least, most)).await;
            let records: Vec<Record> = self.memory.borrow_mut().buffer.drain(..round).collect();
            {
                let mut disk = self.node.disk.borrow_mut();
                records.into_iter().for_each(|record| disk.log.push(record));
            }
            self.settle();
        }
    }

    /// Acknowledges what may be, and sends on what is flushed.
    fn settle(&self) {
        let disk = self.node.disk.borrow();
        let mut memory = self.memory.borrow_mut();
        let memory = &mut *memory;
        let end = disk.log.len();
        for follower in memory.followers.values_mut() {
            if let Some((from, reply)) = follower.parked.take_if(|(from, _)| *from < end) {
                reply.send(Streamed::Data(disk.log.after(from, BATCH)));
            }
        }
        let flushed = memory.followers.iter();
        let flushed = flushed.map(|(name, follower)| (name.clone(), follower.flushed)).collect();
        let rule = &memory.rule;
        let done = |waiting: &mut Waiting| {
            waiting.length <= end && (waiting.local || rule.is_met(&flushed, waiting.length))
        };
        let acknowledged: Vec<Waiting> = memory.waiting.extract_if(.., done).collect();
        drop(disk);
        for commit in acknowledged {
            if !commit.local {
                self.plant.told(&self.node, Told::Acknowledged(commit.id));
            }
            commit.reply.send(Written::Committed);
        }
    }

    fn inspect(&self) -> Instance {
        let disk = self.node.disk.borrow();
        let memory = self.memory.borrow();
        let now = self.timer.elapsed();
        let timeline = wal::timeline(disk.log.timeline());
        if memory.mode != Mode::Primary {
            let replayed = disk.log.records().iter().take(memory.replayed);
            return Instance::Standby {
                timeline,
                received: memory.streaming.then(|| wal::lsn(disk.log.len())),
                replayed: wal::lsn(memory.replayed),
                replayed_commit: replayed.rev().find_map(|record| record.at),
                streaming: memory.streaming,
            };
        }
        let alive = |name: &str| {
            let follower = memory.followers.get(name);
            follower.is_some_and(|follower| now.saturating_sub(follower.seen) < SILENT)
        };
        let standbys = memory.followers.iter().filter(|(name, _)| alive(name));
        let standbys = standbys.filter_map(|(name, follower)| {
            let node = name.parse().ok().filter(|node| self.plant.is_node(node))?;
            Some((node, wal::lsn(follower.flushed)))
        });
        let streams = |region: &RegionName| {
            let service = "payments".parse().expect("a name");
            let id = DatabaseId { service, database: self.node.database.clone() };
            alive(&lifeboat_wal::receiver_name(&id, region))
        };
        let regions = REGIONS.iter().filter_map(|region| region.parse().ok());
        Instance::Primary {
            timeline,
            flushed: wal::lsn(disk.log.len()),
            standbys: standbys.collect(),
            receivers: regions.filter(streams).collect(),
            stalled: memory.rule.count(alive) < memory.rule.needed(),
        }
    }

    fn stop(&self, mode: Mode) {
        if mode == Mode::Stopping {
            return;
        }
        let primary = mode == Mode::Primary;
        self.memory.borrow_mut().mode = Mode::Stopping;
        // Sessions are ended; what they waited for is open.
        self.memory.borrow_mut().waiting.clear();
        let server = self.clone();
        self.plant.sim.spawn(self.node.postgres, async move {
            if primary {
                server.append(server.plant.id(), false);
                server.wait_for_followers().await;
            } else {
                server.timer.sleep(Duration::from_millis(20)).await;
            }
            let end = server.node.disk.borrow().log.len();
            server.node.disk.borrow_mut().shut_down = Some(end);
            server.node.deadline.borrow_mut().clear();
            server.node.die(&server.plant, "shut down cleanly");
        });
    }

    /// A shutdown waits until whoever streams has everything, the checkpoint included.
    async fn wait_for_followers(&self) {
        let end = self.timer.elapsed() + Duration::from_secs(4);
        loop {
            self.timer.sleep(Duration::from_millis(15)).await;
            let memory = self.memory.borrow();
            let length = self.node.disk.borrow().log.len();
            let now = self.timer.elapsed();
            let behind = memory.followers.values().any(|follower| {
                now.saturating_sub(follower.seen) < SILENT && follower.flushed < length
            });
            if now > end || (!behind && memory.buffer.is_empty()) {
                return;
            }
        }
    }

    pub(super) fn log(&self) -> Log {
        self.node.disk.borrow().log.clone()
    }
}
