//! What can be broken in a lab, by name.

mod heal;
mod inject;

use std::time::Duration;

use lifeboat_telemetry::{Code, Failure, Outcome};
use serde::{Deserialize, Serialize};

use crate::layout::{Domain, Layout};
use crate::parts::{AGENT, CONTROLLER, DNS, ETCD};

pub use heal::heal;
pub use inject::inject;

/// PostgreSQL itself, which is no unit: the agent's guard runs it.
pub const POSTGRES: &str = "postgres";
/// The guard, PostgreSQL's parent.
pub const GUARD: &str = "guard";

/// A fault, with where and how much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// SIGKILL to one part.
    Kill(Domain, String),
    /// Stops one part.
    Freeze(Domain, String),
    /// Stops everything of a domain.
    FreezeDomain(Domain),
    /// Two domains cannot reach each other.
    Partition(Domain, Domain),
    /// One domain does not reach another one, whose packets still come.
    OneWay(Domain, Domain),
    /// A domain cannot reach any other one.
    Isolate(Domain),
    /// Packets between two domains come late.
    SlowLink(Domain, Domain, Duration),
    /// Packets between two domains are lost.
    LossyLink(Domain, Domain, u8),
    /// No byte is free on a region's disk.
    FullDisk(Domain),
    /// A domain's daemons see another wall clock.
    ClockJump(Domain, i64),
    /// A region's host loses its power and starts again.
    PowerLoss(Domain),
    /// A member of etcd dies.
    EtcdMember(Domain),
    /// The leader of etcd dies.
    EtcdLeader,
    /// Two of three members of etcd die.
    EtcdMajority,
    /// A controller dies.
    Controller(Domain),
    /// A domain's host is killed and starts again.
    Reboot(Domain),
    /// Somebody starts PostgreSQL by hand.
    PgCtlStart(Domain),
    /// Everything of a domain dies at once.
    Region(Domain),
}

/// What a fault needs of the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Nothing,
    Namespaces,
    Disk,
    Freezer,
    FakeTime,
}

/// A kind of fault, for people.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Its name.
    pub name: &'static str,
    /// What may follow it.
    pub takes: &'static str,
    /// What it does.
    pub does: &'static str,
    needs: Need,
}

const fn kind(name: &'static str, takes: &'static str, needs: Need, does: &'static str) -> Kind {
    Kind { name, takes, does, needs }
}

/// All kinds.
pub const KINDS: [Kind; 17] = [
    kind("kill", "[DOMAIN/PART]", Need::Nothing, "SIGKILL to one part, postgres unless said"),
    kind("freeze", "[DOMAIN[/PART]]", Need::Freezer, "stop a part, or a domain by its cgroup"),
    kind("partition", "[DOMAIN DOMAIN]", Need::Namespaces, "cut a link in both directions"),
    kind("one-way", "[FROM TO]", Need::Namespaces, "cut a link in one direction"),
    kind("isolate", "[DOMAIN]", Need::Namespaces, "cut all links of a domain"),
    kind("slow-link", "[DOMAIN DOMAIN [5s]]", Need::Namespaces, "delay packets by a relay"),
    kind("lossy-link", "[DOMAIN DOMAIN [30%]]", Need::Namespaces, "lose packets in a relay"),
    kind("full-disk", "[DOMAIN]", Need::Disk, "leave no byte free on a region's disk"),
    kind(
        "clock-jump",
        "[DOMAIN [1h [back]]]",
        Need::FakeTime,
        "move the wall clock of a domain's daemons",
    ),
    kind("power-loss", "[DOMAIN]", Need::Disk, "lose what was not flushed, and boot"),
    kind("etcd-member", "[DOMAIN]", Need::Nothing, "kill one member of etcd"),
    kind("etcd-leader", "", Need::Nothing, "kill the leader of etcd"),
    kind("etcd-majority", "", Need::Nothing, "kill two of three members of etcd"),
    kind("controller", "[DOMAIN]", Need::Nothing, "kill a controller"),
    kind("reboot", "[DOMAIN]", Need::Nothing, "kill a host, clear its sockets, and boot it"),
    kind("pg-ctl-start", "[DOMAIN]", Need::Nothing, "start PostgreSQL by hand, past its guard"),
    kind("region", "[DOMAIN]", Need::Nothing, "kill everything of a domain at once"),
];

impl Fault {
    /// The fault that these words name.
    pub fn parse(name: &str, words: &[String]) -> Outcome<Self> {
        let unknown = || {
            let names = KINDS.map(|kind| kind.name).join(", ");
            Failure::new(Code::LabFaultUnknown, format!("there is no fault `{name}`"))
                .hint(format!("`lifeboat lab break --list` says what each does: {names}."))
        };
        let kind = KINDS.iter().find(|kind| kind.name == name).ok_or_else(unknown)?;
        let mut words = Words { kind, words };
        let fault = match name {
            "kill" => {
                let (domain, part) = words.part()?;
                Self::Kill(domain, part.unwrap_or_else(|| POSTGRES.to_owned()))
            }
            "freeze" => match words.part()? {
                (domain, None) => Self::FreezeDomain(domain),
                (domain, Some(part)) => Self::Freeze(domain, part),
            },
            "partition" => Self::Partition(words.domain()?, words.other()?),
            "one-way" => Self::OneWay(words.domain()?, words.other()?),
            "isolate" => Self::Isolate(words.domain()?),
            "slow-link" => Self::SlowLink(words.domain()?, words.other()?, words.delay()?),
            "lossy-link" => Self::LossyLink(words.domain()?, words.other()?, words.percent()?),
            "full-disk" => Self::FullDisk(words.region()?),
            "clock-jump" => Self::ClockJump(words.domain()?, words.jump()?),
            "power-loss" => Self::PowerLoss(words.region()?),
            "etcd-member" => Self::EtcdMember(words.domain()?),
            "etcd-leader" => Self::EtcdLeader,
            "etcd-majority" => Self::EtcdMajority,
            "controller" => Self::Controller(words.domain()?),
            "reboot" => Self::Reboot(words.domain()?),
            "pg-ctl-start" => Self::PgCtlStart(words.region()?),
            "region" => Self::Region(words.domain()?),
            _ => return Err(unknown()),
        };
        words.none_left()?;
        Ok(fault)
    }

    /// Its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kill(..) => "kill",
            Self::Freeze(..) | Self::FreezeDomain(_) => "freeze",
            Self::Partition(..) => "partition",
            Self::OneWay(..) => "one-way",
            Self::Isolate(_) => "isolate",
            Self::SlowLink(..) => "slow-link",
            Self::LossyLink(..) => "lossy-link",
            Self::FullDisk(_) => "full-disk",
            Self::ClockJump(..) => "clock-jump",
            Self::PowerLoss(_) => "power-loss",
            Self::EtcdMember(_) => "etcd-member",
            Self::EtcdLeader => "etcd-leader",
            Self::EtcdMajority => "etcd-majority",
            Self::Controller(_) => "controller",
            Self::Reboot(_) => "reboot",
            Self::PgCtlStart(_) => "pg-ctl-start",
            Self::Region(_) => "region",
        }
    }

    /// As it would be typed.
    pub fn text(&self) -> String {
        let kind = self.kind();
        match self {
            Self::Kill(domain, part) | Self::Freeze(domain, part) => {
                format!("{kind} {domain}/{part}")
            }
            Self::Partition(one, other) | Self::OneWay(one, other) => {
                format!("{kind} {one} {other}")
            }
            Self::SlowLink(one, other, delay) => {
                format!("{kind} {one} {other} {}ms", delay.as_millis())
            }
            Self::LossyLink(one, other, percent) => format!("{kind} {one} {other} {percent}%"),
            Self::ClockJump(domain, seconds) => {
                let back = if *seconds < 0 { " back" } else { "" };
                format!("{kind} {domain} {}s{back}", seconds.unsigned_abs())
            }
            Self::FreezeDomain(domain)
            | Self::Isolate(domain)
            | Self::FullDisk(domain)
            | Self::PowerLoss(domain)
            | Self::EtcdMember(domain)
            | Self::Controller(domain)
            | Self::Reboot(domain)
            | Self::PgCtlStart(domain)
            | Self::Region(domain) => format!("{kind} {domain}"),
            Self::EtcdLeader | Self::EtcdMajority => kind.to_owned(),
        }
    }

    /// Refuses what this lab cannot do.
    fn check(&self, layout: &Layout) -> Outcome<()> {
        let needs = match self {
            // A part can be stopped by a signal.
            Self::Freeze(..) => Need::Nothing,
            _ => {
                let mut kinds = KINDS.iter();
                kinds.find(|kind| kind.name == self.kind()).map_or(Need::Nothing, |kind| kind.needs)
            }
        };
        let lacks = match needs {
            Need::Namespaces if !layout.has_namespaces() => "network namespaces, so root",
            Need::Disk if !self.has_disk(layout) => "a disk of its own for the region, so root",
            Need::Freezer if !layout.cgroup().exists() => "cgroups with a freezer, so root",
            Need::FakeTime if !self.has_fake_time(layout) => "`lab up --fake-time` and libfaketime",
            _ => return Ok(()),
        };
        let message = format!("this lab cannot inject {}: it needs {lacks}", self.kind());
        Err(Failure::new(Code::LabFaultRefused, message)
            .hint("Nothing was changed. `lifeboat lab break --list` says what each fault needs."))
    }

    /// Whether the daemons of the domain were started with another wall clock in reach.
    fn has_fake_time(&self, layout: &Layout) -> bool {
        let Self::ClockJump(domain, _) = self else { return false };
        let state = crate::state::read(layout.root());
        let unit = state.ok().and_then(|state| state.unit(*domain, CONTROLLER).cloned());
        unit.is_some_and(|unit| unit.variables.contains_key("LD_PRELOAD"))
    }

    fn has_disk(&self, layout: &Layout) -> bool {
        match self {
            Self::FullDisk(domain) | Self::PowerLoss(domain) => {
                crate::disk::is_own(layout, *domain)
            }
            _ => false,
        }
    }
}

/// The words after a fault's name.
struct Words<'a> {
    kind: &'a Kind,
    words: &'a [String],
}

impl Words<'_> {
    fn next(&mut self) -> Option<&str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }

    fn wrong(&self, word: &str) -> Failure {
        let Kind { name, takes, .. } = self.kind;
        Failure::new(Code::LabFaultUnknown, format!("`{word}` says nothing to {name}"))
            .hint(format!("It is `lifeboat lab break {name} {takes}`."))
    }

    fn domain(&mut self) -> Outcome<Domain> {
        self.next().map_or(Ok(Domain::East), str::parse)
    }

    fn other(&mut self) -> Outcome<Domain> {
        self.next().map_or(Ok(Domain::West), str::parse)
    }

    fn region(&mut self) -> Outcome<Domain> {
        let domain = self.domain()?;
        if domain.is_region() { Ok(domain) } else { Err(self.wrong(domain.name())) }
    }

    fn part(&mut self) -> Outcome<(Domain, Option<String>)> {
        let Some(word) = self.next().map(str::to_owned) else { return Ok((Domain::East, None)) };
        let Some((domain, part)) = word.split_once('/') else { return Ok((word.parse()?, None)) };
        let known = [POSTGRES, GUARD, ETCD, DNS, AGENT, CONTROLLER, crate::parts::BALANCER];
        if known.contains(&part) {
            Ok((domain.parse()?, Some(part.to_owned())))
        } else {
            Err(self.wrong(&word).detail(format!("Its parts are {}.", known.join(", "))))
        }
    }

    fn delay(&mut self) -> Outcome<Duration> {
        let Some(word) = self.next().map(str::to_owned) else {
            return Ok(Duration::from_secs(5));
        };
        word.parse::<lifeboat_model::TimeSpan>()
            .map(lifeboat_model::TimeSpan::duration)
            .map_err(|_| self.wrong(&word))
    }

    fn jump(&mut self) -> Outcome<i64> {
        let Some(word) = self.next().map(str::to_owned) else { return Ok(3600) };
        let span: lifeboat_model::TimeSpan = word.parse().map_err(|_| self.wrong(&word))?;
        let seconds = i64::try_from(span.duration().as_secs()).unwrap_or(i64::MAX / 2);
        match self.next().map(str::to_owned).as_deref() {
            None => Ok(seconds),
            Some("back") => Ok(-seconds),
            Some(other) => Err(self.wrong(other)),
        }
    }

    fn percent(&mut self) -> Outcome<u8> {
        let Some(word) = self.next().map(str::to_owned) else { return Ok(30) };
        let number = word.trim_end_matches('%').parse::<u8>().ok();
        number.filter(|number| *number <= 100).ok_or_else(|| self.wrong(&word))
    }

    fn none_left(&mut self) -> Outcome<()> {
        match self.next().map(str::to_owned) {
            Some(word) => Err(self.wrong(&word)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
