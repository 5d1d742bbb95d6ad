//! HAProxy, by its admin socket.
//!
//! HAProxy decides by itself: it asks each agent `GET /primary`, which is answered by 200 only under
//! a live lease. So a controller can neither send clients to a node that may not write, nor keep them
//! from one that may, for longer than the next check. What this driver does on the socket only makes
//! the next check's answer true at once: servers of other regions count as down and their
//! sessions are cut, those of the region count as up.
//!
//! `record` is the backend; the targets of a region are names of its servers. Each needs a health
//! check, for without one a stamp would stay. What a person put into maintenance stays there while
//! nothing moves; a move ends it for the region that it goes to, and says so.
//!
//! The [`Stamp`] is a variable of the process, `proc.lifeboat.BACKEND`. HAProxy cannot compare and swap
//! it: of two controllers at the same moment, the one with the lower epoch may be the last to write.
//! That moves nobody for longer than one check, and the other one sees and corrects it when it looks
//! next. Like everything said on the socket, the variable is lost by a reload, and set again.

mod runtime;
mod servers;

use std::collections::{BTreeMap, BTreeSet};

use futures::future::{LocalBoxFuture, join_all};
use lifeboat_model::{RegionName, ServiceName};
use lifeboat_telemetry::{Code, Failure, Outcome};

use self::runtime::Socket;
use self::servers::Server;
use super::answers::{Answer, picture, result};
use super::verdict::{foreign, superseded};
use super::{Found, LeadsTo, Pointing, Stamp, TrafficDriver, Verdict, judge};

/// How often it is looked again whether what was said holds.
const ATTEMPTS: usize = 3;

/// What a backend is and who holds it.
#[derive(Debug)]
pub struct Settings {
    /// The service that it belongs to.
    pub service: ServiceName,
    /// The backend.
    pub backend: String,
    /// The servers of each region.
    pub targets: BTreeMap<RegionName, BTreeSet<String>>,
    /// Admin sockets: a path or HOST:PORT, one a HAProxy.
    pub sockets: Vec<String>,
}

/// One backend on its HAProxies.
pub struct Haproxy {
    service: ServiceName,
    backend: String,
    variable: String,
    targets: BTreeMap<RegionName, BTreeSet<String>>,
    sockets: Vec<Socket>,
}

/// What one HAProxy shows.
struct Shown {
    found: Found,
    servers: Vec<Server>,
}

impl Haproxy {
    /// A driver. Fails if a name could be read as more than a name.
    pub fn new(settings: Settings) -> Outcome<Self> {
        let Settings { service, backend, targets, sockets } = settings;
        let names = targets.values().flatten().chain([&backend]);
        if let Some(name) = names.into_iter().find(|name| !is_name(name)) {
            let message = format!("`{name}` is no name of a backend or server in HAProxy");
            let hint = "Write the name alone, as after `backend` or `server` in haproxy.cfg.";
            return Err(Failure::new(Code::SpecInvalid, message).hint(hint));
        }
        let sockets = sockets.iter().map(|socket| Socket::new(socket)).collect();
        Ok(Self { variable: variable(&backend), service, backend, targets, sockets })
    }

    async fn read(&self, socket: &Socket) -> Outcome<Shown> {
        let state = format!("show servers state {}", self.backend);
        let variable = format!("get var {}", self.variable);
        let (state, variable) = futures::join!(socket.say(&state), socket.say(&variable));
        let servers = servers::read(&state?).map_err(|why| self.refused(socket, &why))?;
        let text = servers::variable(&variable?).map_err(|why| self.refused(socket, &why))?;
        let stamp = text.as_deref().and_then(Stamp::read);
        let stamp = stamp.filter(|stamp| stamp.service == self.service);
        let leads_to = match (&stamp, text) {
            (None, Some(_)) => LeadsTo::Taken(format!("{} is set by others", self.variable)),
            _ => self.leads_to(socket, &servers)?,
        };
        let ours = |server: &&Server| {
            let region = stamp.as_ref().and_then(|stamp| self.targets.get(&stamp.region));
            server.is_held && region.is_some_and(|names| names.contains(&server.name))
        };
        let held = servers.iter().find(ours);
        let flaw = held.map(|server| format!("holds server {} in maintenance", server.name));
        Ok(Shown { found: Found { stamp, leads_to, flaw }, servers })
    }

    /// The region whose servers are up.
    fn leads_to(&self, socket: &Socket, servers: &[Server]) -> Outcome<LeadsTo> {
        let mut regions: BTreeMap<&RegionName, Vec<&str>> = BTreeMap::new();
        for server in servers.iter().filter(|server| server.is_up()) {
            let region = self.targets.iter().find(|(_, names)| names.contains(&server.name));
            match region {
                Some((region, _)) => regions.entry(region).or_default().push(&server.name),
                None => {
                    let what = format!("server {} is up, and no region's", server.name);
                    return Ok(LeadsTo::Taken(what));
                }
            }
        }
        for name in self.targets.values().flatten() {
            let known = servers.iter().find(|server| server.name == *name);
            let checked = known.map(|server| server.is_checked);
            let why = match checked {
                Some(true) => continue,
                Some(false) => format!("server {name} has no health check"),
                None => format!("there is no server {name}"),
            };
            return Err(self.refused(socket, &why));
        }
        let mut all = regions.keys();
        Ok(match (all.next(), all.next()) {
            (None, _) => LeadsTo::Nowhere,
            (Some(region), None) => LeadsTo::Region((*region).clone()),
            _ => LeadsTo::Elsewhere(regions.into_values().flatten().collect::<Vec<_>>().join(", ")),
        })
    }

    async fn set(&self, socket: &Socket, wanted: &Stamp) -> Outcome<Found> {
        let place = format!("backend {} at {socket}", self.backend);
        let Some(targets) = self.targets.get(&wanted.region).filter(|names| !names.is_empty())
        else {
            let message = format!("{} has no server in region {}", self.backend, wanted.region);
            return Err(Failure::new(Code::SpecInvalid, message)
                .hint("Add the region to `targets` of this record."));
        };
        let mut ended = None;
        for _ in 0..ATTEMPTS {
            let Shown { mut found, servers } = self.read(socket).await?;
            // Said once an epoch: from then on checks decide, and what they decide is only told.
            if found.stamp.as_ref() == Some(wanted) {
                found.flaw = found.flaw.or(ended);
                return Ok(found);
            }
            // Servers of several regions are up after each start, until they were checked.
            if let LeadsTo::Elsewhere(_) = found.leads_to {
                found.leads_to = LeadsTo::Nowhere;
            }
            match judge(&found, wanted) {
                Verdict::Superseded(stamp) => return Err(superseded(&place, &stamp, wanted)),
                Verdict::Foreign(why) => return Err(foreign(&place, &why)),
                Verdict::Keep | Verdict::Set => {}
            }
            let held =
                servers.iter().find(|server| server.is_held && targets.contains(&server.name));
            ended =
                held.map(|server| format!("held server {} in maintenance until now", server.name));
            let answer = socket.say(&self.commands(&servers, targets, wanted)).await?;
            if let Some(refusal) = answer.lines().find(|line| !line.trim().is_empty()) {
                return Err(self.refused(socket, refusal));
            }
        }
        Err(Failure::new(Code::TrafficContested, format!("{place} changes all the time"))
            .hint("Something else sets the same variable. Two installations of Lifeboat?"))
    }

    /// One line: who it is for, then others down, then ours up.
    fn commands(&self, servers: &[Server], targets: &BTreeSet<String>, wanted: &Stamp) -> String {
        let backend = &self.backend;
        let stamp = wanted.to_string().replace(' ', "\\ ");
        let mut commands = vec![
            "experimental-mode on".to_owned(),
            format!("set var {} str({stamp})", self.variable),
        ];
        for name in self.targets.values().flatten().filter(|name| !targets.contains(*name)) {
            commands.push(format!("set server {backend}/{name} health down"));
            commands.push(format!("shutdown sessions server {backend}/{name}"));
        }
        for name in targets {
            if servers.iter().any(|server| server.name == *name && server.is_held) {
                commands.push(format!("set server {backend}/{name} state ready"));
            }
            commands.push(format!("set server {backend}/{name} health up"));
        }
        commands.join(";")
    }

    fn refused(&self, socket: &Socket, why: &str) -> Failure {
        let message = format!("backend {} at {socket}: {why}", self.backend);
        Failure::new(Code::TrafficProxy, message)
            .hint("Compare `record` and `targets` with the backend and its servers in haproxy.cfg.")
    }
}

impl TrafficDriver for Haproxy {
    fn name(&self) -> String {
        format!("HAProxy backend {}", self.backend)
    }

    fn observe(&self) -> LocalBoxFuture<'_, Outcome<Pointing>> {
        Box::pin(async {
            let answers = join_all(self.sockets.iter().map(async |socket| Answer {
                server: socket.to_string(),
                found: self.read(socket).await.map(|shown| shown.found),
            }));
            picture(answers.await)
        })
    }

    fn point(&self, region: RegionName, epoch: u64) -> LocalBoxFuture<'_, Outcome<Pointing>> {
        let wanted = Stamp { service: self.service.clone(), epoch, region };
        Box::pin(async move {
            let answers = join_all(self.sockets.iter().map(async |socket| Answer {
                server: socket.to_string(),
                found: self.set(socket, &wanted).await,
            }));
            result(answers.await)
        })
    }
}

/// What HAProxy takes for a name; so nothing else can get onto its socket.
fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
    (1..=200).contains(&text.len()) && text.bytes().all(plain)
}

/// The name of the variable: variables take fewer letters than backends.
fn variable(backend: &str) -> String {
    let escaped = backend.chars().map(|letter| match letter {
        letter if letter.is_ascii_alphanumeric() => letter.to_string(),
        other => format!("_{:02x}", u32::from(other)),
    });
    format!("proc.lifeboat.{}", escaped.collect::<String>())
}

#[cfg(test)]
mod tests;
