//! Faults, injected.

use std::collections::BTreeSet;

use lifeboat_telemetry::{Code, Failure, Outcome};
use nix::sys::signal::Signal;

use super::{Fault, GUARD, POSTGRES};
use crate::host::Host;
use crate::layout::{Domain, Layout};
use crate::parts::{CONTROLLER, ETCD, RELAY};
use crate::process::{self, Identity, Life};
use crate::relay::{BadLink, read_list, write_list};
use crate::state::Disturbed;
use crate::{disk, etcd, network};

/// Breaks something. It is remembered before it is done.
pub fn inject(host: &mut Host<'_>, fault: Fault) -> Outcome<String> {
    fault.check(host.layout())?;
    let at_ns = u64::try_from(host.environment.clock().elapsed().as_nanos()).unwrap_or(u64::MAX);
    host.held.state.disturbances.push(Disturbed { name: fault.text(), at_ns });
    host.held.state.faults.push(fault.clone());
    host.held.save()?;
    let done = match act(host, &fault) {
        Err(failure) if failure.code() == Code::LabFaultRefused => {
            // Nothing was done.
            host.held.state.disturbances.pop();
            host.held.state.faults.pop();
            host.held.save()?;
            return Err(failure);
        }
        done => done?,
    };
    if matches!(fault, Fault::Reboot(_) | Fault::PowerLoss(_) | Fault::PgCtlStart(_)) {
        // Over, once it has happened.
        host.held.state.faults.pop();
        host.held.save()?;
    }
    Ok(done)
}

fn act(host: &mut Host<'_>, fault: &Fault) -> Outcome<String> {
    let layout = host.layout().clone();
    match fault {
        Fault::Kill(domain, part) => kill(host, *domain, part),
        Fault::Freeze(domain, part) => freeze(host, *domain, part),
        Fault::FreezeDomain(domain) => {
            process::freeze(&layout, *domain, true)?;
            Ok(format!("everything of {domain} is frozen"))
        }
        Fault::Partition(one, other) => {
            network::cut(&layout, (*one, *other))?;
            network::cut(&layout, (*other, *one))?;
            Ok(format!("nothing passes between {one} and {other}"))
        }
        Fault::OneWay(from, to) => {
            network::cut(&layout, (*from, *to))?;
            Ok(format!("nothing passes from {from} to {to}"))
        }
        Fault::Isolate(domain) => isolate(&layout, *domain),
        Fault::SlowLink(one, other, delay) => {
            let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            worsen(host, (*one, *other), delay_ms, 0)
        }
        Fault::LossyLink(one, other, percent) => worsen(host, (*one, *other), 0, *percent),
        Fault::FullDisk(domain) => {
            disk::fill(&layout, *domain)?;
            Ok(format!("no byte is free on the disk of {domain}"))
        }
        Fault::ClockJump(domain, seconds) => {
            crate::parts::jump(&layout, *domain, *seconds)?;
            Ok(format!("the wall clock of {domain} is {seconds} s off"))
        }
        Fault::EtcdMember(domain) => dead(host, &[*domain], ETCD),
        Fault::EtcdLeader => {
            let leader = etcd::require_leader(&layout)?;
            dead(host, &[leader], ETCD)
        }
        Fault::EtcdMajority => dead(host, &[Domain::West, Domain::North], ETCD),
        Fault::Controller(domain) => dead(host, &[*domain], CONTROLLER),
        Fault::PowerLoss(domain) | Fault::Reboot(domain) => restart(host, *domain, fault),
        Fault::PgCtlStart(domain) => Ok(pg_ctl_start(host, *domain)),
        Fault::Region(domain) => {
            let number = die(host, *domain)?;
            let lost = lose_repository(&layout, *domain)?;
            Ok(format!("{number} processes of {domain} are dead{lost}"))
        }
    }
}

/// Kills one unit in each of some domains.
fn dead(host: &mut Host<'_>, domains: &[Domain], part: &str) -> Outcome<String> {
    for domain in domains {
        host.kill(*domain, part)?;
    }
    let labels = domains.iter().map(|domain| format!("{domain}/{part}")).collect::<Vec<_>>();
    Ok(format!("killed {}", labels.join(" and ")))
}

/// A host goes down, with or without what it had not flushed, and starts again.
fn restart(host: &mut Host<'_>, domain: Domain, fault: &Fault) -> Outcome<String> {
    if matches!(fault, Fault::PowerLoss(_)) {
        disk::cut_power(host.layout(), domain)?;
    }
    die(host, domain)?;
    boot(host, domain)?;
    Ok(format!("{domain} went down and has started again"))
}

/// The processes of a part of a domain.
fn processes(host: &Host<'_>, domain: Domain, part: &str) -> Outcome<BTreeSet<Identity>> {
    let layout = host.layout();
    let all = || process::of_domain(layout, &host.held.state.units, domain);
    let found: BTreeSet<Identity> = match part {
        POSTGRES => all().into_iter().filter(|one| process::program(*one) == POSTGRES).collect(),
        GUARD => {
            let is_guard = |one: &Identity| process::words(*one).iter().any(|word| word == GUARD);
            all().into_iter().filter(is_guard).collect()
        }
        unit => host.process(domain, unit).into_iter().collect(),
    };
    if found.is_empty() {
        return Err(Failure::new(Code::LabFaultRefused, format!("{domain}/{part} does not run"))
            .hint("`lifeboat lab status` shows what does; `lifeboat lab heal` starts it."));
    }
    Ok(found)
}

fn kill(host: &mut Host<'_>, domain: Domain, part: &str) -> Outcome<String> {
    let mut found = processes(host, domain, part)?;
    if part == POSTGRES {
        // The postmaster alone: its backends live on (V13), if nobody else sees to them.
        let postmasters = process::roots(&found);
        found.retain(|one| postmasters.contains(one));
    }
    for one in &found {
        one.signal(Signal::SIGKILL);
    }
    let names = found.iter().map(|one| one.pid.to_string()).collect::<Vec<_>>();
    host.wait_for(&format!("the end of {domain}/{part}"), |_| {
        Ok(found.iter().all(|one| one.life() == Life::Down))
    })?;
    Ok(format!("killed {domain}/{part} (pid {})", names.join(", ")))
}

fn freeze(host: &Host<'_>, domain: Domain, part: &str) -> Outcome<String> {
    let mut stopped = BTreeSet::new();
    // What is stopped starts nobody: the next look finds whom this one missed.
    loop {
        let found = processes(host, domain, part)?;
        let fresh: Vec<Identity> = found.difference(&stopped).copied().collect();
        if fresh.is_empty() {
            return Ok(format!("stopped {} processes of {domain}/{part}", stopped.len()));
        }
        fresh.iter().for_each(|one| one.signal(Signal::SIGSTOP));
        stopped.extend(fresh);
    }
}

fn isolate(layout: &Layout, domain: Domain) -> Outcome<String> {
    for other in Domain::ALL.into_iter().filter(|other| *other != domain) {
        network::cut(layout, (domain, other))?;
        network::cut(layout, (other, domain))?;
    }
    Ok(format!("nothing passes to or from {domain}"))
}

/// Leads both directions of a link through the relay.
fn worsen(
    host: &mut Host<'_>,
    (one, other): (Domain, Domain),
    delay_ms: u64,
    loss_percent: u8,
) -> Outcome<String> {
    let layout = host.layout().clone();
    let mut links = read_list(&layout);
    for (from, to) in [(one, other), (other, one)] {
        links.retain(|link| (link.from, link.to) != (from, to));
        links.push(BadLink { from, to, delay_ms, loss_percent });
    }
    write_list(&layout, &links)?;
    host.start(Domain::Clients, RELAY)?;
    for link in [(one, other), (other, one)] {
        network::straighten(&layout, link)?;
        network::divert(&layout, link)?;
    }
    Ok(format!("{delay_ms} ms and {loss_percent} % loss, each way, between {one} and {other}"))
}

/// Kills everything of a domain at once.
fn die(host: &mut Host<'_>, domain: Domain) -> Outcome<usize> {
    let layout = host.layout().clone();
    // Frozen first, so that nothing sees a part of its host die before itself.
    process::freeze(&layout, domain, true)?;
    let all = process::of_domain(&layout, &host.held.state.units, domain);
    for one in &all {
        one.signal(Signal::SIGKILL);
    }
    process::freeze(&layout, domain, false)?;
    let units = host.held.state.units.clone();
    process::kill_all(|| process::of_domain(&layout, &units, domain))?;
    Ok(all.len())
}

/// Takes a region's repository out of reach.
fn lose_repository(layout: &Layout, domain: Domain) -> Outcome<&'static str> {
    let place = layout.repository(domain);
    if !place.exists() {
        return Ok("");
    }
    std::fs::rename(&place, layout.lost_repository(domain))
        .map_err(|error| crate::state::local("cannot move", &place).because(error))?;
    Ok(", and its repository is gone")
}

/// Brings a region's repository back.
pub(super) fn find_repository(layout: &Layout, domain: Domain) -> Outcome<bool> {
    let place = layout.lost_repository(domain);
    if !place.exists() {
        return Ok(false);
    }
    std::fs::rename(&place, layout.repository(domain))
        .map_err(|error| crate::state::local("cannot move", &place).because(error))?;
    Ok(true)
}

/// Starts a host as its power button does.
pub(super) fn boot(host: &mut Host<'_>, domain: Domain) -> Outcome<()> {
    let layout = host.layout().clone();
    if domain.is_region() && layout.has_namespaces() {
        disk::unmount_below(&layout.disk(domain))?;
        host.wait_for(&format!("the end of the disk of {domain}"), |host| {
            Ok(!disk::is_held(host.layout(), domain))
        })?;
        disk::mount(&layout, domain)?;
    }
    let runtime = layout.runtime(domain);
    std::fs::remove_dir_all(&runtime)
        .map_err(|error| crate::state::local("cannot clear", &runtime).because(error))?;
    disk::make_folder(&layout, &runtime)?;
    host.start_enabled(domain)
}

fn pg_ctl_start(host: &Host<'_>, domain: Domain) -> String {
    let data = host.layout().data(domain).to_string_lossy().into_owned();
    let log = host.layout().logs(domain).join("pg_ctl.log").to_string_lossy().into_owned();
    let words = ["pg_ctl", "start", "-w", "-t", "10", "-D", &data, "-l", &log];
    match host.program(domain, &words) {
        Ok(_) => format!("PostgreSQL of {domain} STARTED by hand"),
        Err(failure) => {
            let mut lines = process::tail(log.as_ref());
            lines.insert(0, format!("PostgreSQL of {domain} did not start: {failure}"));
            lines.join("\n")
        }
    }
}
