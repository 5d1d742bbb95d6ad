//! The services: as many as wanted, half of them at home in each region.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use lifeboat_failover::{Database, Policy, Service};
use lifeboat_model::{DatabaseName, Lsn, NodeName, RegionName, Timeline};
use lifeboat_quorum::{Goal, Instance, Timing};

/// The regions.
pub const REGIONS: [&str; 2] = ["east", "west"];
/// The failure domain that the controller looks from.
pub const HERE: &str = "north";

/// How often agents renew.
pub const RENEW: Duration = Duration::from_millis(500);
/// For how long a lease holds.
pub const LEASE: Duration = Duration::from_secs(6);
/// For how long a service must be seen to fail.
pub const UNHEALTHY_FOR: Duration = Duration::from_secs(2);
/// How often daemons read the store, as `lifeboat controller` makes it of [`RENEW`].
pub const POLL: Duration = Duration::from_millis(50);
/// How often observers look.
pub const PROBE_EVERY: Duration = Duration::from_secs(2);
/// How often they look at what fails.
pub const PROBE_FAILING_EVERY: Duration = Duration::from_millis(500);
/// Where everybody's WAL ends.
const END: Lsn = Lsn(0x0300_0060);

/// A name.
pub fn name<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse().ok().with_context(|| format!("`{text}` is no name"))
}

/// The one database of each service.
pub fn database() -> Result<DatabaseName> {
    name("ledger")
}

/// The node of a service in a region.
pub fn node(region: &RegionName) -> Result<NodeName> {
    name(&format!("{region}-1"))
}

/// All services.
pub fn all(count: usize) -> Result<Vec<Service>> {
    (0..count).map(one).collect()
}

fn one(number: usize) -> Result<Service> {
    let [east, west]: [RegionName; 2] = [name(REGIONS[0])?, name(REGIONS[1])?];
    let nodes = BTreeMap::from([(node(&east)?, east.clone()), (node(&west)?, west.clone())]);
    let (home, standby) = if number.is_multiple_of(2) { (east, west) } else { (west, east) };
    let content = Database { nodes, receivers: Vec::new(), remote: 0, degrade_after: None };
    Ok(Service {
        name: name(&format!("service-{number:04}"))?,
        home,
        standby: Some(standby),
        databases: BTreeMap::from([(database()?, content)]),
        timing: Timing {
            lease: LEASE,
            renew: RENEW,
            probe_timeout: Duration::from_millis(500),
            store_timeout: Duration::from_millis(750),
            fence_deadline: Duration::from_millis(1500),
            margin: Duration::from_millis(500),
        },
        // The next round comes at once: nothing is kept from moving because it has just moved.
        policy: Policy {
            automatic: true,
            observers_agree: 2,
            unhealthy_for: UNHEALTHY_FOR,
            dwell: Duration::ZERO,
        },
        rpo: Duration::from_secs(60),
        rto: Duration::from_secs(300),
        digest: "0".repeat(64),
    })
}

/// What an instance is once it has done what was wanted.
pub fn after(goal: &Goal) -> Instance {
    match goal {
        Goal::Primary { .. } => primary(),
        Goal::Follow { .. } => standby(true),
        Goal::Hold { .. } | Goal::Salvage { .. } => standby(false),
        Goal::Release | Goal::Fence | Goal::Down => down(),
    }
}

/// It takes writes.
pub fn primary() -> Instance {
    Instance::Primary {
        timeline: Timeline(1),
        flushed: END,
        standbys: Vec::new(),
        receivers: Vec::new(),
        stalled: false,
    }
}

/// It follows, with a stream or without.
pub fn standby(streaming: bool) -> Instance {
    Instance::Standby {
        timeline: Timeline(1),
        received: Some(END),
        replayed: END,
        replayed_commit: None,
        streaming,
    }
}

/// It was stopped.
pub fn down() -> Instance {
    Instance::Down { timeline: Timeline(1), shut_down_at: Some(END) }
}
