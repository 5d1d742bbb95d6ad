//! What a lab is doing, without asking anything of it that could hang.

use std::path::Path;
use std::time::Duration;

use lifeboat_environment::Environment;
use lifeboat_telemetry::Outcome;
use schemars::JsonSchema;
use serde::Serialize;

use crate::fault::POSTGRES;
use crate::layout::{Domain, Isolation, Layout};
use crate::ledger::History;
use crate::process::{self, Life};
use crate::relay::read_list;
use crate::state::{self, State};
use crate::{etcd, network, postgres};

/// A lab.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Status {
    /// Its directory.
    pub directory: String,
    /// Whether domains have namespaces, disks and cgroups, or addresses of the loopback alone.
    pub namespaces: bool,
    /// Whether `lab up` came to its end.
    pub complete: bool,
    /// Its processes.
    pub parts: Vec<Part>,
    /// The region whose PostgreSQL takes writes; more than one is a catastrophe.
    pub writes: Vec<Domain>,
    /// The domain whose member leads etcd, if one does.
    pub etcd_leader: Option<Domain>,
    /// The faults that were not healed, as they would be typed.
    pub faults: Vec<String>,
    /// Links that let nothing pass, as `FROM to TO`.
    pub cut: Vec<String>,
    /// Links that pass the relay.
    pub bad: Vec<String>,
    /// What clients were told.
    pub clients: Option<Clients>,
}

/// One process.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Part {
    /// Where it runs.
    pub domain: Domain,
    /// What it is.
    pub name: String,
    /// `up`, `frozen`, `down`, or `off` for what was not started yet.
    pub state: &'static str,
    /// Its process.
    pub pid: Option<i32>,
}

/// What clients were told so far.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Clients {
    /// Acknowledged writes.
    pub acknowledged: usize,
    /// How long ago the last one came, in milliseconds.
    pub last_ms: u64,
    /// The node that acknowledged it.
    pub by: String,
}

/// Looks at the lab in a directory.
pub fn status(root: &Path, environment: &Environment) -> Outcome<Status> {
    let state = state::read(root)?;
    let layout = Layout::new(root, state.isolation);
    let namespaces = state.isolation == Isolation::Namespaces;
    let cuts = if namespaces { network::cuts(&layout) } else { Vec::new() };
    let bad = read_list(&layout).into_iter().map(|link| {
        let (from, to) = (link.from, link.to);
        format!("{from} to {to}: {} ms late, {} % lost", link.delay_ms, link.loss_percent)
    });
    Ok(Status {
        directory: root.display().to_string(),
        namespaces,
        complete: state.complete,
        parts: parts(&layout, &state),
        writes: Domain::REGIONS
            .into_iter()
            .filter(|region| postgres::is_primary(&layout, *region))
            .collect(),
        etcd_leader: etcd::leader(&layout),
        faults: state.faults.iter().map(crate::fault::Fault::text).collect(),
        cut: cuts.into_iter().map(|(from, to)| format!("{from} to {to}")).collect(),
        bad: bad.collect(),
        clients: clients(&layout, environment),
    })
}

fn parts(layout: &Layout, state: &State) -> Vec<Part> {
    let mut parts = Vec::new();
    for domain in Domain::ALL {
        for unit in state.units.iter().filter(|unit| unit.domain == domain) {
            let life = unit.process.map_or(Life::Down, |process| process.life());
            let word = match life {
                Life::Down if !unit.enabled => "off",
                life => word(life),
            };
            let pid = unit.process.filter(|_| life != Life::Down).map(|process| process.pid);
            parts.push(Part { domain, name: unit.name.clone(), state: word, pid });
        }
        if domain.is_region() {
            parts.push(server(layout, state, domain));
        }
    }
    parts
}

/// PostgreSQL, which is below a guard and no unit.
fn server(layout: &Layout, state: &State, domain: Domain) -> Part {
    let all = process::of_domain(layout, &state.units, domain);
    let own = all.into_iter().filter(|one| process::program(*one) == POSTGRES).collect();
    let postmaster = process::roots(&own).into_iter().next();
    Part {
        domain,
        name: POSTGRES.to_owned(),
        state: postmaster.map_or("down", |one| word(one.life())),
        pid: postmaster.map(|one| one.pid),
    }
}

fn word(life: Life) -> &'static str {
    match life {
        Life::Up => "up",
        Life::Frozen => "frozen",
        Life::Down => "down",
    }
}

fn clients(layout: &Layout, environment: &Environment) -> Option<Clients> {
    let (acknowledged, last) = History::last_acknowledged(&layout.history())?;
    let ago = environment.clock().elapsed().saturating_sub(Duration::from_nanos(last.done_ns));
    Some(Clients {
        acknowledged,
        last_ms: u64::try_from(ago.as_millis()).unwrap_or(u64::MAX),
        by: last.node.unwrap_or_default(),
    })
}
