//! Traffic for the simulator: servers in memory that change by compare-and-swap as BIND does, with
//! messages that take time and servers that are silent. The same suite as over real ones holds.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use futures::future::{LocalBoxFuture, join_all};
use lifeboat_environment::Timer;
use lifeboat_model::{RegionName, ServiceName};
use lifeboat_telemetry::{Code, Failure, Outcome};

use super::answers::{Answer, picture, result};
use super::verdict::{foreign, superseded};
use super::{Found, LeadsTo, Pointing, Stamp, TrafficDriver, Verdict, judge};

/// How often a change is tried again that somebody else's came before.
const ATTEMPTS: usize = 8;

/// The servers of one record. Clones are the same servers.
#[derive(Debug, Clone)]
pub struct ModelServers(Rc<RefCell<Vec<ModelServer>>>);

#[derive(Debug, Clone)]
struct ModelServer {
    stamp: Option<Stamp>,
    leads_to: LeadsTo,
    answers: bool,
}

impl ModelServers {
    /// So many servers without the record.
    pub fn new(count: usize) -> Self {
        let server = ModelServer { stamp: None, leads_to: LeadsTo::Nowhere, answers: true };
        Self(Rc::new(RefCell::new(vec![server; count])))
    }

    /// Whether a server answers from now on. What it holds, it keeps.
    pub fn set_answers(&self, server: usize, answers: bool) {
        if let Some(server) = self.0.borrow_mut().get_mut(server) {
            server.answers = answers;
        }
    }

    /// Somebody else changes where a server leads, and nothing else.
    pub fn meddle(&self, server: usize, leads_to: LeadsTo) {
        if let Some(server) = self.0.borrow_mut().get_mut(server) {
            server.leads_to = leads_to;
        }
    }

    /// What clients get of a server: where it leads, and the epoch of its stamp. None if it is silent.
    pub fn ask(&self, server: usize) -> Option<(LeadsTo, Option<u64>)> {
        let servers = self.0.borrow();
        let server = servers.get(server).filter(|server| server.answers)?;
        Some((server.leads_to.clone(), server.stamp.as_ref().map(|stamp| stamp.epoch)))
    }

    fn count(&self) -> usize {
        self.0.borrow().len()
    }

    fn read(&self, server: usize) -> Outcome<Found> {
        let servers = self.0.borrow();
        let Some(found) = servers.get(server).filter(|server| server.answers) else {
            return Err(silent(server));
        };
        Ok(Found { stamp: found.stamp.clone(), leads_to: found.leads_to.clone(), flaw: None })
    }

    /// All or nothing, if it is still as it was read.
    fn swap(&self, server: usize, read: &Found, wanted: &Stamp) -> Outcome<()> {
        let mut servers = self.0.borrow_mut();
        let Some(held) = servers.get_mut(server).filter(|server| server.answers) else {
            return Err(silent(server));
        };
        if (&held.stamp, &held.leads_to) == (&read.stamp, &read.leads_to) {
            held.leads_to = LeadsTo::Region(wanted.region.clone());
            held.stamp = Some(wanted.clone());
        }
        Ok(())
    }
}

fn silent(server: usize) -> Failure {
    Failure::new(Code::TrafficSilent, format!("model {server} does not answer"))
        .hint("Let it answer.")
}

/// One who changes a record. Each has its own way to the servers.
pub struct ModelTraffic<'a> {
    service: ServiceName,
    regions: BTreeSet<RegionName>,
    servers: ModelServers,
    timer: &'a dyn Timer,
    delay: Box<dyn Fn() -> Duration + 'a>,
}

impl<'a> ModelTraffic<'a> {
    /// A driver of a service's record with targets in these regions. Each message takes `delay`,
    /// which may be another one each time.
    pub fn new(
        service: ServiceName,
        regions: BTreeSet<RegionName>,
        servers: ModelServers,
        timer: &'a dyn Timer,
        delay: impl Fn() -> Duration + 'a,
    ) -> Self {
        Self { service, regions, servers, timer, delay: Box::new(delay) }
    }

    /// A message there, or back.
    async fn message(&self) {
        self.timer.sleep((self.delay)()).await;
    }

    async fn read(&self, server: usize) -> Outcome<Found> {
        self.message().await;
        let found = self.servers.read(server);
        self.message().await;
        found
    }

    async fn set(&self, server: usize, wanted: &Stamp) -> Outcome<Found> {
        let place = format!("model {server}");
        if !self.regions.contains(&wanted.region) {
            let message = format!("the model has no target in region {}", wanted.region);
            return Err(Failure::new(Code::SpecInvalid, message).hint("Add one."));
        }
        for _ in 0..ATTEMPTS {
            let found = self.read(server).await?;
            match judge(&found, wanted) {
                Verdict::Keep => return Ok(found),
                Verdict::Superseded(stamp) => return Err(superseded(&place, &stamp, wanted)),
                Verdict::Foreign(why) => return Err(foreign(&place, &why)),
                Verdict::Set => {}
            }
            self.message().await;
            self.servers.swap(server, &found, wanted)?;
            self.message().await;
        }
        Err(Failure::new(Code::TrafficContested, format!("{place} changes all the time"))
            .hint("Find out who changes it."))
    }
}

impl TrafficDriver for ModelTraffic<'_> {
    fn name(&self) -> String {
        "model record".to_owned()
    }

    fn observe(&self) -> LocalBoxFuture<'_, Outcome<Pointing>> {
        Box::pin(async {
            let answers = join_all((0..self.servers.count()).map(async |server| Answer {
                server: format!("model {server}"),
                found: self.read(server).await,
            }));
            picture(answers.await)
        })
    }

    fn point(&self, region: RegionName, epoch: u64) -> LocalBoxFuture<'_, Outcome<Pointing>> {
        let wanted = Stamp { service: self.service.clone(), epoch, region };
        Box::pin(async move {
            let answers = join_all((0..self.servers.count()).map(async |server| Answer {
                server: format!("model {server}"),
                found: self.set(server, &wanted).await,
            }));
            result(answers.await)
        })
    }
}
