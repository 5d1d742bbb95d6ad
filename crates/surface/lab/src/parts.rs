//! What each domain of a lab is made of, in the order in which its host starts it.

mod settings;
mod spec;
mod tls;

use std::collections::BTreeMap;

use lifeboat_telemetry::Outcome;

use crate::layout::{Domain, ETCD_PORT, Layout};
use crate::programs;
use crate::state::Unit;

pub use settings::write_settings;
pub(crate) use settings::{access, database};
pub use spec::text as spec_text;

/// etcd's member.
pub const ETCD: &str = "etcd";
/// The region's DNS server, or the clients' resolver.
pub const DNS: &str = "dns";
/// The load balancer.
pub const BALANCER: &str = "haproxy";
/// Runs guards and receivers.
pub const AGENT: &str = "agent";
/// Observes, judges and runs plans.
pub const CONTROLLER: &str = "controller";
/// The application and its clients.
pub const LEDGER: &str = "ledger";
/// Carries the packets of bad links.
pub const RELAY: &str = "relay";

/// Everything of a lab. Daemons of Lifeboat are enabled later, once there is what they run;
/// with `fake_time` their wall clocks can be moved.
pub fn units(layout: &Layout, fake_time: bool) -> Outcome<Vec<Unit>> {
    let mut units = Vec::new();
    for domain in Domain::VOTERS {
        units.push(etcd(layout, domain)?);
    }
    for domain in [Domain::East, Domain::West, Domain::Clients] {
        let settings = layout.settings().join(format!("named-{domain}.conf"));
        let words = ["-g", "-n", "1", "-c", &settings.to_string_lossy()].map(str::to_owned);
        let command = std::iter::once(programs::require("named")?).chain(words).collect();
        units.push(unit(domain, DNS, command));
    }
    for domain in layout.balanced() {
        let settings = layout.settings().join(format!("haproxy-{domain}.cfg"));
        let words = ["-db", "-f", &settings.to_string_lossy()].map(str::to_owned);
        let command = std::iter::once(programs::require("haproxy")?).chain(words).collect();
        units.push(unit(domain, BALANCER, command));
    }
    for domain in Domain::REGIONS {
        units.push(daemon(layout, domain, AGENT, fake_time));
    }
    for domain in Domain::VOTERS {
        units.push(daemon(layout, domain, CONTROLLER, fake_time));
    }
    units.push(own(layout, LEDGER));
    units.push(own(layout, RELAY));
    Ok(units)
}

fn unit(domain: Domain, name: &str, command: Vec<String>) -> Unit {
    Unit {
        domain,
        name: name.to_owned(),
        privileged: false,
        command,
        variables: BTreeMap::new(),
        enabled: false,
        process: None,
    }
}

/// A daemon of Lifeboat, as a user would start it.
fn daemon(layout: &Layout, domain: Domain, name: &str, fake_time: bool) -> Unit {
    let spec = layout.spec().to_string_lossy().into_owned();
    let words = ["--spec", &spec, "--here", domain.name(), name].map(str::to_owned);
    let binary = layout.binary().to_string_lossy().into_owned();
    let mut unit = unit(domain, name, std::iter::once(binary).chain(words).collect());
    if let (true, Some(library)) = (fake_time, self::fake_time()) {
        let clock = clock(layout, domain).to_string_lossy().into_owned();
        let variables = [
            ("LD_PRELOAD", library),
            ("FAKETIME_TIMESTAMP_FILE", clock),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            // Leases are counted on a clock that no administrator can move.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value));
        unit.variables.extend(variables);
    }
    unit
}

/// The library that shows processes another wall clock, if this machine has it.
pub fn fake_time() -> Option<String> {
    let path = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    std::path::Path::new(path).is_file().then(|| path.to_owned())
}

/// By how much the wall clock of a domain is off, for that library.
fn clock(layout: &Layout, domain: Domain) -> std::path::PathBuf {
    layout.settings().join(format!("clock-{domain}"))
}

/// Moves the wall clock that a domain's daemons see.
pub(crate) fn jump(layout: &Layout, domain: Domain, seconds: i64) -> Outcome<()> {
    crate::disk::write(layout, &clock(layout, domain), &format!("{seconds:+}s\n"))
}

/// A process of the lab itself, which enters namespaces and so keeps root's rights.
fn own(layout: &Layout, name: &str) -> Unit {
    let root = layout.root().to_string_lossy().into_owned();
    let binary = layout.binary().to_string_lossy().into_owned();
    let words = ["--quiet", "lab", name, "--directory", &root].map(str::to_owned);
    let command = std::iter::once(binary).chain(words).collect();
    Unit { privileged: true, ..unit(Domain::Clients, name, command) }
}

fn etcd(layout: &Layout, domain: Domain) -> Outcome<Unit> {
    let peer = ETCD_PORT + 1;
    let url = |domain: Domain, port: u16| format!("http://{}:{port}", layout.host(domain));
    let members = Domain::VOTERS.map(|member| format!("{member}={}", url(member, peer))).join(",");
    let data = layout.disk(domain).join("etcd");
    let words = [
        ("name", domain.name().to_owned()),
        ("data-dir", data.to_string_lossy().into_owned()),
        ("listen-client-urls", url(domain, ETCD_PORT)),
        ("advertise-client-urls", url(domain, ETCD_PORT)),
        ("listen-peer-urls", url(domain, peer)),
        ("initial-advertise-peer-urls", url(domain, peer)),
        ("initial-cluster", members),
        ("initial-cluster-token", layout.id()),
        ("initial-cluster-state", "new".to_owned()),
        ("logger", "zap".to_owned()),
        ("log-level", "warn".to_owned()),
    ];
    let words = words.into_iter().map(|(name, value)| format!("--{name}={value}"));
    let mut unit = unit(domain, ETCD, Vec::new());
    unit.command = std::iter::once(programs::require("etcd")?).chain(words).collect();
    // Its variables would override the flags, and there are none of ours to pass on.
    unit.variables.insert("GOMAXPROCS".to_owned(), "1".to_owned());
    Ok(unit)
}
