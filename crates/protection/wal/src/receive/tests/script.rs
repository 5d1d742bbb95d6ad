//! Servers that do what a test says, and what a receiver did with them.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use lifeboat_environment::{Environment, Failpoints};
use lifeboat_model::spec::Durable;
use lifeboat_model::{Lsn, SegmentName, SystemIdentifier, Timeline};
use lifeboat_objects::{Blocking, Key};
use lifeboat_repository::enroll::enroll;
use lifeboat_repository::fragment::{FragmentName, decode_fragment};
use lifeboat_repository::keys::WriterKey;
use lifeboat_repository::layout;
use lifeboat_repository::object::ObjectType;
use lifeboat_repository::repository::Repository;
use lifeboat_repository::wal_file::{WalFacts, decode};
use lifeboat_telemetry::{Cancel, Code, Event as Told, Failure, Outcome, Recorder, Reporter};
use lifeboat_wire::{
    Data, EndOfTimeline, Error, Event, KeepaliveMessage, ServerError, SlotName, Start, Status,
    System,
};

use super::written::{SEGMENT, Wal, size};
use crate::receive::sender::{Greeting, Sender, Servers, SlotState};
use crate::receive::{ReceiveRequest, Received, receive_from};
use crate::tests::world::{DATABASE, SYSTEM, World, failpoints};

pub const NAME: &str = "lifeboat_payments_ledger_east";

/// What a server does besides sending its WAL.
#[derive(Debug, Clone, PartialEq)]
pub enum Trick {
    /// The connection breaks before this position is sent.
    BreakAt(Lsn),
    /// So many bytes are left out here.
    Skip(Lsn, u64),
    /// A byte is another one.
    Flip(Lsn),
    /// It says nothing any more.
    Silence,
    /// It shuts down once everything is acknowledged.
    Shutdown,
}

/// A server.
#[derive(Debug, Clone)]
pub struct Server {
    pub system: u64,
    pub in_recovery: bool,
    pub incarnation: Option<u64>,
    pub epoch: Option<u64>,
    pub timeline: u32,
    /// Every timeline that it has WAL of, and where its successor branched off.
    pub wal: BTreeMap<u32, Wal>,
    pub switches: BTreeMap<u32, Lsn>,
    /// WAL before this is gone.
    pub kept_from: Lsn,
    pub slot: SlotState,
    pub tricks: VecDeque<Trick>,
    pub pieces: Vec<usize>,
    /// Refuses every session with this SQLSTATE.
    pub refuses: Option<&'static str>,
}

impl Server {
    pub fn of(wal: Wal) -> Self {
        Self {
            system: SYSTEM,
            in_recovery: false,
            incarnation: None,
            epoch: None,
            timeline: wal.timeline.0,
            kept_from: wal.start,
            wal: BTreeMap::from([(wal.timeline.0, wal)]),
            switches: BTreeMap::new(),
            slot: SlotState::Missing,
            tricks: VecDeque::new(),
            pieces: vec![100_000],
            refuses: None,
        }
    }

    pub fn trick(mut self, trick: Trick) -> Self {
        self.tricks.push_back(trick);
        self
    }

    /// The same server after a promotion.
    pub fn promoted(mut self, timeline: u32, at: Lsn, seed: u64, grow: u64) -> Self {
        let mut branch = self.wal[&self.timeline].branch(timeline, at, seed);
        branch.grow(grow);
        self.switches.insert(self.timeline, at);
        self.wal.insert(timeline, branch);
        self.timeline = timeline;
        self
    }

    pub fn newest(&self) -> &Wal {
        &self.wal[&self.timeline]
    }

    fn history(&self, timeline: u32) -> String {
        let older = self.switches.iter().filter(|(older, _)| **older < timeline);
        older.map(|(older, at)| format!("{older}\t{at}\tno recovery target specified\n")).collect()
    }
}

/// What happened on the wire, over all sessions.
#[derive(Debug, Default)]
pub struct Seen {
    pub acknowledged: Vec<(u32, Lsn)>,
    pub started: Vec<(u32, Lsn)>,
    pub sessions: usize,
}

/// The servers of a test; the receiver is asked to end when the last one has no more to say.
pub struct Script {
    pub servers: Vec<Rc<RefCell<Server>>>,
    pub seen: Rc<RefCell<Seen>>,
    cancel: Cancel,
    /// Ends the run when this is acknowledged.
    goal: Option<Lsn>,
    /// Called with each status, while the receiver waits.
    pub watch: Rc<dyn Fn(u32, Lsn)>,
    /// Ends the run at the session after these.
    pub sessions_max: usize,
    /// The data directory of every server.
    pub data_directory: Option<PathBuf>,
}

impl Servers for Script {
    fn names(&self) -> Vec<String> {
        (1..=self.servers.len()).map(|number| format!("node-{number}")).collect()
    }

    fn data_directory(&self, _: usize) -> Option<PathBuf> {
        self.data_directory.clone()
    }

    fn open(&mut self, number: usize) -> Outcome<Box<dyn Sender>> {
        if self.seen.borrow().sessions == self.sessions_max {
            self.cancel.request();
            return Err(Failure::new(Code::ClusterUnreachable, "the test is over"));
        }
        self.seen.borrow_mut().sessions += 1;
        // A test that never comes to its end must end all the same.
        assert!(self.seen.borrow().sessions < 200, "the receiver does not get on");
        let server = Rc::clone(&self.servers[number]);
        if let Some(sqlstate) = server.borrow().refuses {
            return Err(refusal(sqlstate).at("node"));
        }
        Ok(Box::new(Session {
            server,
            seen: Rc::clone(&self.seen),
            cancel: self.cancel.clone(),
            goal: self.goal,
            watch: Rc::clone(&self.watch),
            at: None,
            acknowledged: Lsn::ZERO,
            asked: false,
            silent: false,
            quiet: 0,
        }))
    }
}

pub fn refusal(sqlstate: &str) -> Error {
    Error::Server(Box::new(ServerError {
        severity: "ERROR".to_owned(),
        sqlstate: sqlstate.to_owned(),
        message: "no".to_owned(),
        detail: None,
        hint: None,
    }))
}

struct Session {
    server: Rc<RefCell<Server>>,
    seen: Rc<RefCell<Seen>>,
    cancel: Cancel,
    goal: Option<Lsn>,
    watch: Rc<dyn Fn(u32, Lsn)>,
    at: Option<(u32, Lsn)>,
    acknowledged: Lsn,
    asked: bool,
    silent: bool,
    quiet: u32,
}

impl Sender for Session {
    fn place(&self) -> String {
        "node".to_owned()
    }

    fn greet(&mut self) -> Result<Greeting, Error> {
        let server = self.server.borrow();
        let system = System {
            identifier: SystemIdentifier(server.system),
            timeline: Timeline(server.timeline),
            flushed: server.newest().end(),
        };
        let Server { in_recovery, incarnation, epoch, .. } = *server;
        Ok(Greeting { system, in_recovery, segment_size: size(), incarnation, epoch })
    }

    fn history(&mut self, timeline: Timeline) -> Result<Option<Bytes>, Error> {
        Ok(Some(Bytes::from(self.server.borrow().history(timeline.0))))
    }

    fn slot(&mut self, _: &SlotName) -> Result<SlotState, Error> {
        Ok(self.server.borrow().slot)
    }

    fn make_slot(&mut self, slot: &SlotName) -> Result<bool, Error> {
        assert_eq!(slot.as_str(), NAME);
        let mut server = self.server.borrow_mut();
        let made = server.slot == SlotState::Missing;
        if made {
            server.slot = SlotState::Keeps(server.kept_from);
        }
        Ok(made)
    }

    fn drop_slot(&mut self, _: &SlotName) -> Result<(), Error> {
        self.server.borrow_mut().slot = SlotState::Missing;
        Ok(())
    }

    fn start(&mut self, start: Start) -> Result<(), Error> {
        let server = self.server.borrow();
        let timeline = start.timeline.0;
        assert!(server.wal.contains_key(&timeline), "timeline {timeline} was asked for");
        assert!(start.lsn.0.is_multiple_of(SEGMENT), "{}", start.lsn);
        self.seen.borrow_mut().started.push((timeline, start.lsn));
        self.at = Some((timeline, start.lsn));
        Ok(())
    }

    fn next(&mut self, wait: Duration) -> Result<Option<Event>, Error> {
        let (timeline, at) = self.at.expect("the stream has begun");
        let server = Rc::clone(&self.server);
        let mut server = server.borrow_mut();
        if let Some(event) = self.play(&mut server, at)? {
            return Ok(event);
        }
        if at < server.kept_from {
            return Err(refusal("58P01"));
        }
        let wal = &server.wal[&timeline];
        let switch = server.switches.get(&timeline).copied();
        let end = switch.unwrap_or_else(|| wal.end());
        if at < end {
            let piece = server.pieces[at.0 as usize % server.pieces.len()] as u64;
            let stop = server.tricks.iter().filter_map(|trick| match trick {
                Trick::BreakAt(stop) | Trick::Skip(stop, _) if *stop > at => Some(*stop),
                _ => None,
            });
            let to = Lsn(at.0 + piece.max(1)).min(end).min(stop.min().unwrap_or(Lsn::MAX));
            let mut bytes = wal.slice(at, to).to_vec();
            for trick in &server.tricks {
                if let Trick::Flip(place) = trick
                    && (at..to).contains(place)
                {
                    bytes[(place.0 - at.0) as usize] ^= 0x40;
                }
            }
            self.at = Some((timeline, to));
            let sent_at = Timestamp::UNIX_EPOCH;
            let data = Data { start: at, server_end: end, sent_at, bytes: bytes.into() };
            return Ok(Some(Event::Data(data)));
        }
        if let Some(switch) = switch {
            let later = server.wal.keys().find(|later| **later > timeline);
            let next = Timeline(*later.expect("a successor"));
            return Ok(Some(Event::EndOfTimeline(EndOfTimeline { next, switch })));
        }
        if server.tricks.front() == Some(&Trick::Shutdown) && self.acknowledged >= end {
            server.tricks.pop_front();
            return Ok(Some(Event::Shutdown));
        }
        self.idle(wait, end)
    }

    fn status(&mut self, status: Status) -> Result<(), Error> {
        let timeline = self.at.map_or(0, |(timeline, _)| timeline);
        self.acknowledged = status.flushed();
        self.seen.borrow_mut().acknowledged.push((timeline, status.flushed()));
        (self.watch)(timeline, status.flushed());
        if self.goal.is_some_and(|goal| self.acknowledged >= goal) {
            self.cancel.request();
        }
        Ok(())
    }
}

impl Session {
    /// Does the first trick, if it is time for it.
    fn play(&mut self, server: &mut Server, at: Lsn) -> Result<Option<Option<Event>>, Error> {
        match server.tricks.front() {
            Some(Trick::BreakAt(place)) if at == *place => {
                server.tricks.pop_front();
                Err(Error::Closed)
            }
            Some(Trick::Skip(place, count)) if at == *place => {
                let (from, timeline) = (Lsn(at.0 + count), self.at.unwrap().0);
                let bytes = server.wal[&timeline].slice(from, Lsn(from.0 + 100)).to_vec();
                server.tricks.pop_front();
                let sent_at = Timestamp::UNIX_EPOCH;
                let data = Data { start: from, server_end: from, sent_at, bytes: bytes.into() };
                Ok(Some(Some(Event::Data(data))))
            }
            Some(Trick::Silence) => {
                server.tricks.pop_front();
                self.silent = true;
                Ok(Some(None))
            }
            _ if self.silent => Ok(Some(None)),
            _ => Ok(None),
        }
    }

    /// Nothing to send: asks for an answer once, then waits.
    fn idle(&mut self, wait: Duration, end: Lsn) -> Result<Option<Event>, Error> {
        if !self.asked {
            self.asked = true;
            let sent_at = Timestamp::UNIX_EPOCH;
            let message = KeepaliveMessage { server_end: end, sent_at, reply_requested: true };
            return Ok(Some(Event::Keepalive(message)));
        }
        self.quiet += 1;
        assert!(self.quiet < 2000, "everything was sent, and it is not acknowledged");
        std::thread::sleep(wait.min(Duration::from_millis(5)));
        Ok(None)
    }
}

/// A receiver in a world of its own.
pub struct Stage {
    pub world: World,
    pub writer: WriterKey,
    pub told: Recorder,
    pub durable: Durable,
    pub failpoints: Failpoints,
    pub spool_limit: u64,
    pub epoch: u64,
    pub environment: Environment,
}

impl Stage {
    pub fn new() -> Self {
        let world = World::new();
        let mut regions = world.open_regions();
        let blocking = Blocking::new().unwrap();
        let enrolled = enroll(&world.environment, &mut regions, &world.secrets, "test");
        let writer = blocking.run(enrolled).unwrap();
        let environment = world.environment.clone();
        Self {
            world,
            writer,
            told: Recorder::default(),
            durable: Durable::Spool,
            failpoints: Failpoints::default(),
            spool_limit: 64 * SEGMENT,
            epoch: 0,
            environment,
        }
    }

    pub fn fails_at(&mut self, list: &str) {
        self.failpoints = failpoints(list);
    }

    pub fn spool(&self) -> PathBuf {
        let stream = self.world.stream.keys.stream().to_string();
        self.world.state().join("receive").join(stream).join("east")
    }

    /// Receives until everything is acknowledged, or until it fails.
    pub fn receive(&self, servers: Vec<Server>) -> (Outcome<Received>, Vec<Server>, Seen) {
        let goal = servers.iter().map(|server| server.newest().end()).max();
        let mut script = self.script(servers, goal);
        let outcome = self.run(&mut script, false);
        let servers = script.servers.iter().map(|server| server.borrow().clone()).collect();
        (outcome, servers, script.seen.take())
    }

    /// Ships what the spool holds.
    pub fn drain(&self) -> Outcome<Received> {
        self.run(&mut self.script(Vec::new(), None), true)
    }

    /// What servers will do; the run ends once `goal` is acknowledged.
    pub fn script(&self, servers: Vec<Server>, goal: Option<Lsn>) -> Script {
        Script {
            servers: servers.into_iter().map(|server| Rc::new(RefCell::new(server))).collect(),
            seen: Rc::default(),
            cancel: Cancel::new(),
            goal,
            watch: Rc::new(|_, _| {}),
            sessions_max: usize::MAX,
            data_directory: None,
        }
    }

    pub fn run(&self, script: &mut Script, drain: bool) -> Outcome<Received> {
        let environment = self.environment.clone().with_failpoints(self.failpoints.clone());
        let blocking = Blocking::new().unwrap();
        let cancel = script.cancel.clone();
        receive_from(
            &ReceiveRequest {
                environment: &environment,
                cancel: &cancel,
                reporter: &Reporter::new(self.told.clone()),
                blocking: &blocking,
                database: DATABASE,
                region: "east",
                host: "here",
                name: NAME,
                writer: &self.writer,
                stream: &self.world.stream,
                nodes: &[],
                state: &self.world.state(),
                level: 1,
                flush_every: Duration::from_millis(20),
                durable: self.durable,
                epoch: self.epoch,
                spool_limit: self.spool_limit,
                drain,
                open: &|| blocking.run(Repository::open(self.world.store("east"))),
            },
            script,
        )
    }

    /// What was said, one line each.
    pub fn said(&self) -> String {
        let lines = self.told.events().into_iter().filter_map(|event| match event {
            Told::Note { message } | Told::Warning { message } => Some(message + "\n"),
            _ => None,
        });
        lines.collect()
    }

    /// Names of the objects in a folder of the stream.
    pub fn objects(&self, folder: &str) -> Vec<String> {
        let prefix = format!("{}{folder}/", layout::stream(self.world.stream.keys.stream()));
        let store = self.world.store("east");
        let listed = Blocking::new().unwrap().run(store.list(&prefix)).unwrap();
        listed
            .iter()
            .map(|(key, _)| key.as_str().strip_prefix(&prefix).unwrap().to_owned())
            .collect()
    }

    pub fn object(&self, key: &Key) -> Bytes {
        fs::read(self.world.repository("east").join(key.as_str())).unwrap().into()
    }

    /// Every piece of WAL that the repository holds, as (timeline, start, bytes, facts).
    pub fn pieces(&self) -> Vec<(u32, Lsn, Vec<u8>, WalFacts)> {
        let keys = &self.world.stream.keys;
        let read_key = self.world.secrets.read_key().for_wal(keys.stream());
        let mut pieces = Vec::new();
        for name in self.objects("fragments") {
            let name: FragmentName = name.parse().unwrap();
            let key = layout::fragment(keys.stream(), &name).unwrap();
            let (head, plain) =
                decode_fragment(keys, &read_key, &name, &self.object(&key)).unwrap();
            pieces.push((name.timeline.0, name.start, plain, head.facts));
        }
        for name in self.objects("wal") {
            let Ok(name) = name.rsplit('/').next().unwrap().parse::<SegmentName>() else {
                continue;
            };
            let key = layout::wal(keys.stream(), &name.to_string()).unwrap();
            let kind = ObjectType::Segment;
            let (head, plain) = decode(keys, &read_key, kind, &key, &self.object(&key)).unwrap();
            pieces.push((name.timeline().0, name.start(size()).unwrap(), plain, head.facts));
        }
        pieces
    }

    /// The repository holds the WAL up to `to`, and nothing else than the WAL.
    #[track_caller]
    pub fn holds(&self, wal: &Wal, to: Lsn) {
        let mut covered = vec![false; wal.bytes.len()];
        for (timeline, start, plain, _) in self.pieces() {
            if timeline != wal.timeline.0 {
                continue;
            }
            let end = Lsn(start.0 + plain.len() as u64);
            assert!(
                end <= wal.end(),
                "{start} to {end} was shipped, the WAL ends at {}",
                wal.end()
            );
            assert!(plain == wal.slice(start, end), "{start} to {end} is not what was sent");
            let from = (start.0 - wal.start.0) as usize;
            covered[from..from + plain.len()].fill(true);
        }
        let reached = covered.iter().position(|covered| !covered).unwrap_or(covered.len());
        let reached = Lsn(wal.start.0 + reached as u64);
        assert!(reached >= to, "the repository holds up to {reached}, expected {to}");
    }

    /// Everything that was ever acknowledged can be had again: from the spool, from the repository.
    #[track_caller]
    pub fn keeps_what_it_acknowledged(&mut self, wal: &Wal, seen: &Seen) {
        self.failpoints = Failpoints::default();
        self.drain().unwrap();
        let most = seen.acknowledged.iter().filter(|(timeline, _)| *timeline == wal.timeline.0);
        let most = most.map(|(_, lsn)| *lsn).max().unwrap_or(wal.start);
        self.holds(wal, wal.whole(most));
    }
}

/// The code of a failure.
#[track_caller]
pub fn code<T: std::fmt::Debug>(outcome: &Outcome<T>) -> Code {
    outcome.as_ref().map_err(Failure::code).unwrap_err()
}
