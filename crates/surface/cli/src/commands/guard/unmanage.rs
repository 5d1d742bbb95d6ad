//! `lifeboat guard unmanage`: everybody can start the server again.

use lifeboat_drivers::guard::unmanage;
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

/// Let everybody start this host's data directory again
///
/// Takes back what `guard manage` did, and says so in the audit log. After that, whoever starts
/// the server makes a primary of it, also if the service has moved to another region: its writes
/// would be lost. Be sure that it has not.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat guard unmanage payments/ledger")]
pub struct Args {
    /// The database, as SERVICE/DATABASE; without it the only one
    #[arg(value_name = "DB")]
    database: Option<DatabaseId>,
}

/// A directory that everybody can start.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Unmanaged(Configuration);

impl Report for Unmanaged {
    const COMMAND: &'static str = "guard unmanage";

    fn text(&self) -> String {
        let Self(configuration) = self;
        let place = &configuration.data_directory;
        format!("{place} can be started by everybody.\n{}", configuration.lines())
    }
}

/// Gives up the data directory of the node on this host.
pub fn run(args: &Args, context: &Context) -> Outcome<Unmanaged> {
    let site = Site::open(context)?;
    let (id, database) = site.database(args.database.as_ref())?;
    let (name, node) = site.node(&id, database)?;
    let changed = unmanage(&node.data_directory, None)?;
    let blocking = Blocking::new()?;
    let access = site.access(&blocking);
    let facts = [("node", name.to_string())];
    let act = ("guard unmanage", id.to_string());
    record(context, &access, &mut access.regions()?, act, facts);
    Ok(Unmanaged(Configuration::new(id.to_string(), &node.data_directory, &changed)))
}
