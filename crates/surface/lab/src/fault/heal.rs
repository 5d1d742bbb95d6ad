//! Everything back to what it was meant to be, whatever was broken.

use std::collections::BTreeSet;

use lifeboat_telemetry::Outcome;
use nix::sys::signal::Signal;

use super::inject::{boot, find_repository};
use crate::host::Host;
use crate::layout::Domain;
use crate::parts::RELAY;
use crate::process::{self, Life};
use crate::relay::write_list;
use crate::{disk, network};

/// Undoes every fault; what it did. It looks at what is, not at what was broken, so that it also
/// heals what another hand did, and what a lab that was killed forgot.
pub fn heal(host: &mut Host<'_>) -> Outcome<Vec<String>> {
    let mut done = links(host)?;
    for domain in Domain::ALL {
        done.extend(thaw(host, domain)?);
        if domain.is_region() && disk::drain(host.layout(), domain)? {
            done.push(format!("gave space back to {domain}"));
        }
        if find_repository(host.layout(), domain)? {
            done.push(format!("the repository of {domain} is there again"));
        }
        crate::parts::jump(host.layout(), domain, 0)?;
        let missing = host.missing(domain);
        let labels: Vec<String> = missing.iter().map(|unit| format!("{domain}/{unit}")).collect();
        if labels.is_empty() {
            continue;
        }
        if host.is_dead(domain) {
            boot(host, domain)?;
        } else {
            host.start_enabled(domain)?;
        }
        done.push(format!("started {}", labels.join(", ")));
    }
    host.held.state.faults.clear();
    host.held.save()?;
    Ok(done)
}

fn links(host: &mut Host<'_>) -> Outcome<Vec<String>> {
    let layout = host.layout().clone();
    if !layout.has_namespaces() {
        return Ok(Vec::new());
    }
    let mut done = Vec::new();
    for link in network::cuts(&layout) {
        network::mend(&layout, link)?;
        done.push(format!("mended {} to {}", link.0, link.1));
    }
    for link in crate::relay::read_list(&layout) {
        network::straighten(&layout, (link.from, link.to))?;
        done.push(format!("{} to {} goes straight again", link.from, link.to));
    }
    write_list(&layout, &[])?;
    host.stop(Domain::Clients, RELAY)?;
    Ok(done)
}

fn thaw(host: &Host<'_>, domain: Domain) -> Outcome<Option<String>> {
    let layout = host.layout();
    let all: BTreeSet<_> = process::of_domain(layout, &host.held.state.units, domain);
    let frozen: Vec<_> = all.into_iter().filter(|one| one.life() == Life::Frozen).collect();
    process::freeze(layout, domain, false)?;
    for one in &frozen {
        one.signal(Signal::SIGCONT);
    }
    Ok((!frozen.is_empty()).then(|| format!("thawed {} processes of {domain}", frozen.len())))
}
