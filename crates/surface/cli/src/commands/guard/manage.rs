//! `lifeboat guard manage`: from now on only a guard can start the server.

use lifeboat_drivers::guard::manage;
use lifeboat_model::DatabaseId;
use lifeboat_objects::Blocking;
use lifeboat_telemetry::Outcome;
use schemars::JsonSchema;
use serde::Serialize;

use super::Configuration;
use crate::context::Context;
use crate::output::Report;
use crate::record::record;
use crate::site::Site;

/// Make this host's data directory refuse every start but a guard's
///
/// Adds a line to every postgresql.conf from which the server may be started. From then on
/// `pg_ctl start`, `pg_ctlcluster`, systemd and a reboot cannot bring it up beside the primary of
/// another region. A server that runs goes on until it is stopped; then the agent starts it. The
/// agent does this by itself.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat guard manage payments/ledger")]
pub struct Args {
    /// The database, as SERVICE/DATABASE; without it the only one
    #[arg(value_name = "DB")]
    database: Option<DatabaseId>,
}

/// A directory that only a guard can start.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Managed(Configuration);

impl Report for Managed {
    const COMMAND: &'static str = "guard manage";

    fn text(&self) -> String {
        let Self(configuration) = self;
        let place = &configuration.data_directory;
        format!("{place} starts below a guard only.\n{}", configuration.lines())
    }
}

/// Manages the data directory of the node on this host.
pub fn run(args: &Args, context: &Context) -> Outcome<Managed> {
    let site = Site::open(context)?;
    let (id, database) = site.database(args.database.as_ref())?;
    let (name, node) = site.node(&id, database)?;
    let managed = manage(&node.data_directory, None)?;
    let blocking = Blocking::new()?;
    let access = site.access(&blocking);
    let facts = [("node", name.to_string())];
    let act = ("guard manage", id.to_string());
    record(context, &access, &mut access.regions()?, act, facts);
    Ok(Managed(Configuration::new(id.to_string(), &node.data_directory, &managed)))
}
