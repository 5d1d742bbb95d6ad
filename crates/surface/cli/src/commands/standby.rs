//! `lifeboat standby`: servers that follow the primary.

pub mod create;
pub mod salvage;

use std::sync::Arc;
use std::time::Duration;

use lifeboat_drivers::postgres::Settings;
use lifeboat_model::spec::Database;
use lifeboat_model::{DatabaseId, NodeName};
use lifeboat_quorum::Timing;
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::site::Site;

/// Make servers that follow the primary
#[derive(Debug, clap::Subcommand)]
pub enum Standby {
    Create(create::Args),
    Salvage(salvage::Args),
}

/// The times of a spec without a quorum: nothing that a command does here depends on them.
const USUAL: Timing = Timing {
    lease: Duration::from_secs(10),
    renew: Duration::from_secs(1),
    probe_timeout: Duration::from_secs(1),
    store_timeout: Duration::from_secs(1),
    fence_deadline: Duration::from_secs(2),
    margin: Duration::from_secs(1),
};

/// What the driver of a node of this host is made with.
pub fn settings(
    site: &Site<'_>,
    (id, database): (&DatabaseId, &Database),
    named: Option<&NodeName>,
) -> Outcome<Settings> {
    let node = match named {
        Some(named) if database.nodes.contains_key(named) => named.clone(),
        Some(named) => {
            let known: Vec<&str> = database.nodes.keys().map(NodeName::as_str).collect();
            return Err(Failure::new(Code::Usage, format!("{id} has no node {named}"))
                .hint(format!("Its nodes are {}.", known.join(", "))));
        }
        None => site.node(id, database)?.0.clone(),
    };
    let program = std::env::current_exe().map_err(|error| {
        Failure::new(Code::LocalFile, "this program cannot be found").because(error)
    })?;
    Ok(Settings {
        environment: site.context().environment.clone(),
        spec: Arc::new(site.spec.clone()),
        spec_path: site.origin.clone(),
        program,
        state: site.state.clone(),
        database: id.clone(),
        node,
        timing: site.spec.quorum.as_ref().map_or(USUAL, Timing::of),
    })
}
