//! Whether a region could take a service over (R4).

use std::time::Duration;

use lifeboat_model::{DatabaseName, NodeName, RegionName};
use lifeboat_quorum::Instance;

use crate::Service;
use crate::view::View;

/// An agent that has not reported for this long is not there.
pub const ABSENT_AFTER: Duration = Duration::from_secs(5);

/// Sees that every database has a node there that could take over, be it by a restore from the
/// region's repository; else says why not.
pub fn check(
    service: &Service,
    view: &View,
    region: &RegionName,
    now: Duration,
) -> Result<(), Vec<String>> {
    check_with(service, view, region, now, check_node)
}

/// As [`check`], for a move that nobody asked for: only what stands ready counts.
pub fn check_standby(
    service: &Service,
    view: &View,
    region: &RegionName,
    now: Duration,
) -> Result<(), Vec<String>> {
    check_with(service, view, region, now, |view, database, node, now| {
        let why = check_node(view, database, node, now);
        let absent = view
            .node(database, node)
            .is_some_and(|status| status.value.instance == Instance::Absent);
        match why.is_empty() && absent {
            true => vec![format!("{node} of {database} is no standby: it would be restored.")],
            false => why,
        }
    })
}

fn check_with(
    service: &Service,
    view: &View,
    region: &RegionName,
    now: Duration,
    check_node: impl Fn(&View, &DatabaseName, &NodeName, Duration) -> Vec<String>,
) -> Result<(), Vec<String>> {
    let nodes = service.nodes_in(region).map_err(|failure| vec![failure.to_string()])?;
    let mut why = Vec::new();
    for (database, node) in &nodes {
        why.extend(check_node(view, database, node, now));
    }
    if why.is_empty() { Ok(()) } else { Err(why) }
}

fn check_node(view: &View, database: &DatabaseName, node: &NodeName, now: Duration) -> Vec<String> {
    let Some(status) = view.node(database, node) else {
        return vec![format!("No agent has ever reported for {node} of {database}.")];
    };
    if status.age(now) >= ABSENT_AFTER {
        let seconds = status.age(now).as_secs();
        return vec![format!("The agent of {node} of {database} is silent for {seconds} s.")];
    }
    let found = match &status.value.instance {
        Instance::Standby { .. } => None,
        // Without a standby the database is restored from the region's repository.
        Instance::Absent => None,
        Instance::Down { .. } => Some("is down"),
        Instance::Unclear => Some("does not answer"),
        Instance::Primary { .. } => Some("takes writes, and the record does not let it"),
    };
    let mut why: Vec<String> =
        found.map(|found| format!("{node} of {database} {found}.")).into_iter().collect();
    why.extend(status.value.not_ready.iter().map(|line| format!("{node} of {database}: {line}")));
    why
}
