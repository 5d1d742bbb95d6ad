//! DNS UPDATE (RFC 2136), signed by TSIG (RFC 8945), as BIND, Knot and PowerDNS speak it.
//!
//! The [`Stamp`] of a record `db.example.test.` is the only TXT record of
//! `_lifeboat.db.example.test.`; so a key needs to be allowed A and AAAA of the one name and TXT of
//! the other, and nothing else.
//!
//! A change is compare-and-swap, a server at a time: one UPDATE message says what this driver has
//! read, address and stamp alike, as prerequisites, and replaces both. The server does all of it or
//! nothing. Between any two questions the name has an address, and a stamp only grows. Whoever is
//! refused reads again and finds what somebody else wrote.
//!
//! Servers are asked over TCP, at once, each for at most [`PATIENCE`] an exchange; each is changed as
//! soon as it has answered, for waiting for the silent ones would only let clients wait. Answers of
//! servers are believed by their signature. The resolver, if there is one, is only observed.

mod exchange;
mod message;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use futures::future::{LocalBoxFuture, join_all};
use hickory_proto::rr::Name;
use lifeboat_environment::Environment;
use lifeboat_model::{RegionName, ServiceName};
use lifeboat_telemetry::{Code, Failure, Outcome};

use self::exchange::Peer;
pub use self::exchange::{Key, PATIENCE};
use self::message::{Record, Shown};
use super::answers::{Answer, picture, result};
use super::verdict::{foreign, superseded};
use super::{Found, LeadsTo, Pointing, Stamp, TrafficDriver, Verdict, judge};

/// How often a change is tried again that somebody else's came before.
const ATTEMPTS: usize = 8;

/// What a record is and who serves it.
#[derive(Debug)]
pub struct Settings {
    /// The service that it belongs to.
    pub service: ServiceName,
    /// Its name.
    pub record: String,
    /// Its zone; none for its parent.
    pub zone: Option<String>,
    /// How long resolvers may remember it; whole seconds.
    pub ttl: Duration,
    /// The addresses of each region.
    pub targets: BTreeMap<RegionName, BTreeSet<IpAddr>>,
    /// The servers that are told, HOST:PORT.
    pub servers: Vec<String>,
    /// A caching resolver, HOST:PORT.
    pub resolver: Option<String>,
    /// What signs; none where servers trust addresses.
    pub key: Option<Key>,
}

/// One DNS record on its servers.
pub struct Rfc2136 {
    record: Record,
    targets: BTreeMap<RegionName, BTreeSet<IpAddr>>,
    servers: Vec<Peer>,
    resolver: Option<Peer>,
}

impl Rfc2136 {
    /// A driver. Fails if the names are no DNS names, or the key signs nothing.
    pub fn new(settings: Settings, environment: &Environment) -> Outcome<Self> {
        let Settings { service, record, zone, ttl, targets, servers, resolver, key } = settings;
        let name = dns_name(&record)?;
        let zone = zone.map_or_else(|| Ok(name.base_name()), |zone| dns_name(&zone))?;
        if !zone.zone_of(&name) {
            let message = format!("the record {name} is not in the zone {zone}");
            return Err(invalid(message));
        }
        let stamped = name.prepend_label("_lifeboat").map_err(|error| {
            invalid(format!("the record {name} leaves no room for its stamp")).because(error)
        })?;
        let ttl_seconds = u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX).min(i32::MAX as u32);
        let signer = key.as_ref().map(Key::signer).transpose()?;
        let peer = |address: &String| Peer::new(address, signer.clone(), environment);
        let servers = servers.iter().map(peer).collect();
        let resolver = resolver.map(|address| Peer::new(&address, None, environment));
        let record = Record { name, stamped, zone, service, ttl_seconds };
        Ok(Self { record, targets, servers, resolver })
    }

    /// What one server shows.
    async fn read(&self, server: &Peer) -> Outcome<Shown> {
        let answers = server.ask(self.record.questions()).await?;
        for answer in &answers {
            message::expect_authority(server, &self.record, answer)?;
        }
        Ok(Shown::of(&self.record, &answers, &self.targets))
    }

    /// Sets it on one server.
    async fn set(&self, server: &Peer, wanted: &Stamp) -> Outcome<Found> {
        let place = || format!("{} at {server}", self.record.name);
        let targets = self.targets.get(&wanted.region).filter(|targets| !targets.is_empty());
        let targets = targets.ok_or_else(|| {
            invalid(format!("{} has no address in region {}", self.record.name, wanted.region))
        })?;
        for _ in 0..ATTEMPTS {
            let shown = self.read(server).await?;
            match judge(&shown.found, wanted) {
                Verdict::Keep => return Ok(shown.found),
                Verdict::Superseded(stamp) => return Err(superseded(&place(), &stamp, wanted)),
                Verdict::Foreign(why) => return Err(foreign(&place(), &why)),
                Verdict::Set => {}
            }
            let update = self.record.update(&shown, targets, wanted);
            let answers = server.ask(vec![update]).await?;
            for answer in &answers {
                message::read_update(server, &self.record, answer)?;
            }
        }
        Err(Failure::new(Code::TrafficContested, format!("{} changes all the time", place()))
            .hint("Something else changes this record. Find it by the server's log of updates."))
    }

    async fn observe_all(&self) -> Outcome<Pointing> {
        let servers = join_all(self.servers.iter().map(async |server| Answer {
            server: server.to_string(),
            found: self.read(server).await.map(|shown| shown.found),
        }));
        let resolver = async {
            match &self.resolver {
                Some(resolver) => Some((resolver, self.resolve(resolver).await)),
                None => None,
            }
        };
        let (answers, resolved) = futures::join!(servers, resolver);
        let mut pointing = picture(answers)?;
        if let Some((resolver, resolved)) = resolved {
            pointing.lagging.extend(self.hear(resolver, resolved, &pointing));
        }
        Ok(pointing)
    }

    async fn resolve(&self, resolver: &Peer) -> Outcome<Shown> {
        let answers = resolver.ask(self.record.questions_for_clients()).await?;
        Ok(Shown::of(&self.record, &answers, &self.targets))
    }

    /// What keeps clients of this resolver from going where the servers lead.
    fn hear(
        &self,
        resolver: &Peer,
        resolved: Outcome<Shown>,
        pointing: &Pointing,
    ) -> Option<String> {
        let shown = match resolved {
            Ok(shown) => shown,
            Err(failure) => return Some(format!("resolver: {}", failure.full_message())),
        };
        let still = |whose: &str| {
            let seconds = shown.longest_ttl_seconds;
            format!("resolver {resolver} leads to {whose}, for at most {seconds} s more")
        };
        match &shown.found.leads_to {
            LeadsTo::Region(region) if pointing.region.as_ref() == Some(region) => None,
            LeadsTo::Region(region) => Some(still(region.as_str())),
            LeadsTo::Elsewhere(whose) | LeadsTo::Taken(whose) => Some(still(whose)),
            LeadsTo::Nowhere => Some(format!("resolver {resolver} finds no address")),
        }
    }
}

impl TrafficDriver for Rfc2136 {
    fn name(&self) -> String {
        format!("DNS record {}", self.record.name)
    }

    fn observe(&self) -> LocalBoxFuture<'_, Outcome<Pointing>> {
        Box::pin(self.observe_all())
    }

    fn point(&self, region: RegionName, epoch: u64) -> LocalBoxFuture<'_, Outcome<Pointing>> {
        let wanted = Stamp { service: self.record.service.clone(), epoch, region };
        Box::pin(async move {
            let answers = join_all(self.servers.iter().map(async |server| {
                let set = self.set(server, &wanted);
                let found = server.within(3 * PATIENCE, set).await;
                Answer { server: server.to_string(), found }
            }));
            result(answers.await)
        })
    }
}

fn dns_name(text: &str) -> Outcome<Name> {
    let mut name = Name::from_ascii(text)
        .map_err(|error| invalid(format!("`{text}` is no DNS name")).because(error))?;
    name.set_fqdn(true);
    Ok(name)
}

fn invalid(message: String) -> Failure {
    Failure::new(Code::SpecInvalid, message).hint("Correct this traffic record in the spec.")
}
