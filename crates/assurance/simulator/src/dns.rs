//! Name servers of both regions, and the clients' resolver.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use futures::future::{LocalBoxFuture, join_all};
use lifeboat_drivers::traffic::{Found, LeadsTo, Stamp, Verdict, judge};
use lifeboat_drivers::{Pointing, TrafficDriver};
use lifeboat_environment::Timer;
use lifeboat_model::{RegionName, ServiceName};
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::executor::{HostId, ProcessId, SimTimer};
use crate::message::{Address, Reply, Unanswered};
use crate::plant::Plant;

const ANSWER: Duration = Duration::from_millis(400);
/// How long a controller takes at most from what it saw to what it sends.
const THINKS: Duration = Duration::from_micros(500);
/// How long a resolver keeps an answer.
pub const TTL: Duration = Duration::from_secs(1);

/// What a name server is asked.
pub enum Request {
    /// The record: production's mark, which says where it leads and for which epoch.
    Query {
        /// It.
        reply: Reply<Option<Stamp>>,
    },
    /// Changes the record if it is as it was read.
    Swap {
        /// What was read; none if it does not matter, as for a wrong client.
        read: Option<Option<Stamp>>,
        /// What it shall be.
        wanted: Stamp,
        /// The record afterwards.
        reply: Reply<Option<Stamp>>,
    },
}

/// A name server; clones are handles to the same one.
#[derive(Clone)]
pub struct NameServer {
    /// Its process.
    pub process: ProcessId,
    /// Where it is asked.
    pub address: Address<Request>,
    plant: Plant,
    record: Rc<RefCell<Option<Stamp>>>,
}

impl NameServer {
    /// A name server on a host; it does not run yet.
    pub fn new(plant: &Plant, host: HostId) -> Self {
        let name = format!("{}/dns", plant.sim.host_name(host));
        let process = plant.sim.process(host, &name);
        let address = Address::new(&plant.network, process);
        Self { process, address, plant: plant.clone(), record: Rc::default() }
    }

    /// Starts it.
    pub fn start(&self) {
        let (mut listener, server) = (self.address.listen(), self.clone());
        self.plant.sim.spawn(self.process, async move {
            loop {
                match listener.next().await {
                    Request::Query { reply } => reply.send(server.record.borrow().clone()),
                    Request::Swap { read, wanted, reply } => {
                        server.swap(read, wanted);
                        reply.send(server.record.borrow().clone());
                    }
                }
            }
        });
    }

    /// Somebody puts an old zone in its place: it knows the name no more.
    pub fn lose(&self) {
        self.plant.sim.note_of(self.process, "loses the name");
        *self.record.borrow_mut() = None;
    }

    fn swap(&self, read: Option<Option<Stamp>>, wanted: Stamp) {
        let before = self.record.borrow().clone();
        if read.is_some_and(|read| read != before) || before.as_ref() == Some(&wanted) {
            return;
        }
        let text = format!("leads to {} for epoch {}", wanted.region, wanted.epoch);
        self.plant.sim.note_of(self.process, text);
        self.plant.checks.pointed(&self.plant, before.as_ref(), &wanted);
        *self.record.borrow_mut() = Some(wanted);
    }
}

/// The service's name, in the hands of a controller.
pub struct SimTraffic {
    servers: Vec<NameServer>,
    service: ServiceName,
    process: ProcessId,
    /// Whether nothing is compared, as a wrong driver would.
    pub blind: bool,
}

impl SimTraffic {
    /// The name, for a process.
    pub fn new(servers: &[NameServer], service: &ServiceName, process: ProcessId) -> Self {
        Self { servers: servers.to_vec(), service: service.clone(), process, blind: false }
    }

    async fn query(&self, server: &NameServer) -> Outcome<Option<Stamp>> {
        let query = |reply| Request::Query { reply };
        self.answered(server, server.address.ask(self.process, ANSWER, query).await)
    }

    fn answered<A>(&self, server: &NameServer, answer: Result<A, Unanswered>) -> Outcome<A> {
        let name = server.plant.sim.name_of(server.process);
        answer.map_err(|why| {
            Failure::new(Code::TrafficSilent, format!("{name} does not answer ({why:?})"))
        })
    }

    /// Production's verdict on what one server shows, and what it says.
    async fn set(&self, server: &NameServer, wanted: &Stamp) -> Outcome<Option<Stamp>> {
        let mark = self.query(server).await?;
        let leads_to =
            mark.as_ref().map_or(LeadsTo::Nowhere, |mark| LeadsTo::Region(mark.region.clone()));
        let found = Found { stamp: mark.clone(), leads_to, flaw: None };
        let verdict = if self.blind { Verdict::Set } else { judge(&found, wanted) };
        match verdict {
            Verdict::Keep => return Ok(mark),
            Verdict::Superseded(mark) => {
                let message = format!("it carries epoch {} already", mark.epoch);
                return Err(Failure::new(Code::TrafficSuperseded, message));
            }
            Verdict::Foreign(why) => return Err(Failure::new(Code::TrafficForeign, why)),
            Verdict::Set => {}
        }
        // The process may be frozen after it has looked and before a byte leaves it.
        let plant = &server.plant;
        plant.is_pointing(self.process);
        plant.sim.timer(self.process).sleep(plant.sim.between(Duration::ZERO, THINKS)).await;
        let (read, sent) = ((!self.blind).then_some(mark), wanted.clone());
        let swap = |reply| Request::Swap { read, wanted: sent, reply };
        self.answered(server, server.address.ask(self.process, ANSWER, swap).await)
    }

    fn picture(&self, answers: Vec<Outcome<Option<Stamp>>>) -> Outcome<Pointing> {
        let (mut found, mut dissent) = (Vec::new(), Vec::new());
        for answer in answers {
            match answer {
                Ok(mark) => found.push(mark),
                Err(failure) if failure.code() == Code::TrafficSuperseded => return Err(failure),
                Err(failure) => dissent.push(failure.full_message()),
            }
        }
        if found.is_empty() {
            return Err(Failure::new(Code::TrafficSilent, "no name server answers"));
        }
        let newest = found.iter().flatten().max_by_key(|mark| mark.epoch).cloned();
        if found.iter().any(|mark| *mark != newest) {
            dissent.push("the servers do not agree".to_owned());
        }
        let (epoch, region) = newest.map(|mark| (mark.epoch, mark.region)).unzip();
        Ok(Pointing { epoch, region, dissent, lagging: Vec::new() })
    }

    async fn observed(&self) -> Outcome<Pointing> {
        let answers = join_all(self.servers.iter().map(|server| self.query(server))).await;
        self.picture(answers)
    }

    async fn pointed(&self, region: RegionName, epoch: u64) -> Outcome<Pointing> {
        let wanted = Stamp { service: self.service.clone(), epoch, region };
        let answers = join_all(self.servers.iter().map(|server| self.set(server, &wanted))).await;
        self.picture(answers)
    }
}

impl TrafficDriver for SimTraffic {
    fn name(&self) -> String {
        "the service's name".to_owned()
    }

    fn observe(&self) -> LocalBoxFuture<'_, Outcome<Pointing>> {
        Box::pin(self.observed())
    }

    fn point(&self, region: RegionName, epoch: u64) -> LocalBoxFuture<'_, Outcome<Pointing>> {
        Box::pin(self.pointed(region, epoch))
    }
}

/// A caching resolver, as clients have one.
pub struct Resolver {
    plant: Plant,
    servers: Vec<NameServer>,
    process: ProcessId,
    timer: SimTimer,
    ttl: Duration,
    cached: RefCell<Option<(RegionName, Duration)>>,
    turn: Cell<usize>,
}

impl Resolver {
    /// A resolver of a process.
    pub fn new(plant: &Plant, servers: &[NameServer], process: ProcessId, ttl: Duration) -> Self {
        let timer = plant.sim.timer(process);
        Self {
            plant: plant.clone(),
            servers: servers.to_vec(),
            process,
            timer,
            ttl,
            cached: RefCell::default(),
            turn: Cell::new(plant.sim.chance(|chance| chance.place(servers.len()))),
        }
    }

    /// Where the name leads; none if no server says so.
    pub async fn resolve(&self) -> Option<RegionName> {
        let now = self.timer.elapsed();
        let cached = self.cached.borrow().clone();
        if let Some((region, _)) = cached.filter(|(_, until)| now < *until) {
            return Some(region);
        }
        for _ in 0..self.servers.len() {
            let server = &self.servers[self.turn.get()];
            let query = |reply| Request::Query { reply };
            match server.address.ask(self.process, ANSWER, query).await {
                Ok(Some(mark)) => {
                    let until = self.timer.elapsed() + self.ttl;
                    *self.cached.borrow_mut() = Some((mark.region.clone(), until));
                    return Some(mark.region);
                }
                Ok(None) | Err(_) => {
                    let next = self.plant.sim.chance(|chance| chance.place(self.servers.len()));
                    self.turn.set(next);
                }
            }
        }
        None
    }
}
