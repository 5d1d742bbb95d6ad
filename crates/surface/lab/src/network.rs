//! A namespace for each domain, one that routes between them, and what cuts their links.

use std::fs;
use std::process::Command;

use lifeboat_telemetry::Outcome;

use crate::layout::{Domain, Layout};
use crate::shell::{attempt, tool};

/// Where the rules of a cut stand among those of the hub.
const CUT: &str = "100";
/// What leaves the relay goes straight on.
const RETURN: &str = "50";
/// What is to pass the relay.
const DETOUR: &str = "200";
/// The table that leads into the relay.
const TABLE: &str = "77";
/// The relay's device in the hub.
pub const RELAY: &str = "relay";

/// One direction between two domains.
pub type Link = (Domain, Domain);

/// Builds the namespaces. What a lab that was killed left of them goes first.
pub fn build(layout: &Layout) -> Outcome<()> {
    tear_down(layout)?;
    let hub = layout.hub();
    tool("ip", &["netns", "add", &hub])?;
    inside(&hub, &["ip", "link", "set", "lo", "up"])?;
    settings(&hub, &["net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0"])?;
    settings(&hub, &["net.ipv4.conf.default.rp_filter=0"])?;
    for domain in Domain::ALL {
        build_domain(layout, domain)?;
    }
    inside(&hub, &["ip", "tuntap", "add", "dev", RELAY, "mode", "tun"])?;
    inside(&hub, &["ip", "link", "set", RELAY, "up"])?;
    inside(&hub, &["ip", "route", "add", "default", "dev", RELAY, "table", TABLE])?;
    inside(&hub, &["ip", "rule", "add", "pref", RETURN, "iif", RELAY, "lookup", "main"])?;
    Ok(())
}

fn build_domain(layout: &Layout, domain: Domain) -> Outcome<()> {
    let (hub, own) = (layout.hub(), layout.namespace(domain));
    let gateway = layout.gateway(domain).to_string();
    tool("ip", &["netns", "add", &own])?;
    // Names of devices are the namespace's own, so two labs never meet.
    let words = ["link", "add", "uplink", "netns", &own, "type", "veth", "peer", "name"];
    tool("ip", &[&words[..], &[domain.name(), "netns", &hub]].concat())?;
    inside(&hub, &["ip", "addr", "add", &format!("{gateway}/24"), "dev", domain.name()])?;
    inside(&hub, &["ip", "link", "set", domain.name(), "up"])?;
    // PostgreSQL's account may have DNS's port.
    settings(&own, &["net.ipv4.ip_unprivileged_port_start=0"])?;
    inside(&own, &["ip", "link", "set", "lo", "up"])?;
    for address in layout.addresses(domain) {
        inside(&own, &["ip", "addr", "add", &format!("{address}/24"), "dev", "uplink"])?;
    }
    inside(&own, &["ip", "link", "set", "uplink", "up"])?;
    inside(&own, &["ip", "route", "add", "default", "via", &gateway])
}

/// Takes all namespaces of the lab away, however far they were built.
pub fn tear_down(layout: &Layout) -> Outcome<()> {
    let names = std::iter::once(layout.hub())
        .chain(Domain::ALL.into_iter().map(|domain| layout.namespace(domain)));
    for name in names {
        if fs::exists(format!("/run/netns/{name}")).unwrap_or(false) {
            tool("ip", &["netns", "del", &name])?;
        }
    }
    Ok(())
}

/// Lets nothing pass from one domain to another.
pub fn cut(layout: &Layout, (from, to): Link) -> Outcome<()> {
    rule(layout, "add", CUT, (from, to), &["blackhole"])
}

/// Lets it pass again.
pub fn mend(layout: &Layout, (from, to): Link) -> Outcome<()> {
    unrule(layout, CUT, (from, to), &["blackhole"])
}

/// Leads what goes from one domain to another through the relay.
pub fn divert(layout: &Layout, link: Link) -> Outcome<()> {
    rule(layout, "add", DETOUR, link, &["lookup", TABLE])
}

/// Lets it go straight again.
pub fn straighten(layout: &Layout, link: Link) -> Outcome<()> {
    unrule(layout, DETOUR, link, &["lookup", TABLE])
}

/// The directions that are cut now, as the kernel has them.
pub fn cuts(layout: &Layout) -> Vec<Link> {
    let words = ["netns", "exec", &layout.hub(), "ip", "rule", "show", "pref", CUT];
    let Ok(text) = tool("ip", &words) else { return Vec::new() };
    let pairs = Domain::ALL.into_iter().flat_map(|from| Domain::ALL.map(|to| (from, to)));
    pairs
        .filter(|(from, to)| {
            let (from, to) = (layout.network(*from), layout.network(*to));
            text.lines().any(|line| line.contains(&format!("from {from} to {to} ")))
        })
        .collect()
}

fn rule(layout: &Layout, verb: &str, pref: &str, link: Link, then: &[&str]) -> Outcome<()> {
    let (from, to) = (layout.network(link.0), layout.network(link.1));
    let words = ["ip", "rule", verb, "pref", pref, "from", &from, "to", &to, "iif"];
    inside(&layout.hub(), &[&words[..], &[link.0.name()], then].concat())
}

/// Takes a rule away as often as it is there, so that healing twice is no error.
fn unrule(layout: &Layout, pref: &str, (from, to): Link, then: &[&str]) -> Outcome<()> {
    let networks = (layout.network(from), layout.network(to));
    let hub = layout.hub();
    let words =
        ["netns", "exec", &hub, "ip", "rule", "del", "pref", pref, "from", &networks.0, "to"];
    let words = [&words[..], &[&networks.1, "iif", from.name()], then].concat();
    while attempt(Command::new("ip").args(&words))?.status.success() {}
    Ok(())
}

fn settings(namespace: &str, assignments: &[&str]) -> Outcome<()> {
    inside(namespace, &[&["sysctl", "-qw"], assignments].concat())
}

fn inside(namespace: &str, words: &[&str]) -> Outcome<()> {
    tool("ip", &[&["netns", "exec", namespace], words].concat()).map(drop)
}
