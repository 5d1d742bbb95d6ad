//! `lifeboat unmanage`: a data directory starts for everybody again.

use std::path::PathBuf;

use lifeboat_drivers::guard;
use lifeboat_model::{DatabaseId, NodeName};
use lifeboat_objects::Blocking;
use lifeboat_telemetry::Outcome;
use schemars::JsonSchema;
use serde::Serialize;

use super::standby::settings;
use crate::context::Context;
use crate::output::Report;
use crate::record::record;
use crate::site::Site;

/// Let a data directory start without the guard again
///
/// A managed directory refuses every start but that of `lifeboat guard`, so that a server which was
/// failed over never comes back as a second primary. This takes that protection away, and says so
/// in the audit log. Stop the region's agent first: it would manage the directory again.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat unmanage payments/ledger --here east")]
pub struct Args {
    /// The database, as SERVICE/DATABASE
    #[arg(value_name = "DB")]
    database: DatabaseId,
    /// The node, where the region has several
    #[arg(long, value_name = "NAME")]
    node: Option<NodeName>,
}

/// A directory that is not managed any more.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Unmanaged {
    /// `SERVICE/DATABASE`.
    database: String,
    /// The node.
    node: String,
    /// Its data directory.
    data_directory: PathBuf,
    /// The configuration files that were changed; none if it was not managed.
    changed: Vec<PathBuf>,
}

impl Report for Unmanaged {
    const COMMAND: &'static str = "unmanage";

    fn text(&self) -> String {
        let shown = self.data_directory.display();
        match self.changed.is_empty() {
            true => format!("{shown} was not managed.\n"),
            false => format!(
                "{shown} starts for everybody now. If another node of {} writes, do not start it.\n",
                self.database
            ),
        }
    }
}

/// Takes the lines of the guard out of the configuration.
pub fn run(args: &Args, context: &Context) -> Outcome<Unmanaged> {
    let site = Site::open(context)?;
    let blocking = Blocking::new()?;
    let access = site.access(&blocking);
    let (id, database) = site.database(Some(&args.database))?;
    let settings = settings(&site, (&id, database), args.node.as_ref())?;
    let data_directory = settings.node()?.data_directory.clone();
    let managed = guard::unmanage(&data_directory, settings.config_file()?.as_deref())?;
    let node = settings.node.to_string();
    if !managed.changed.is_empty() {
        match access.regions() {
            Ok(mut regions) => {
                let facts =
                    [("node", node.clone()), ("directory", data_directory.display().to_string())];
                record(context, &access, &mut regions, ("unmanage", id.to_string()), facts);
            }
            Err(failure) => {
                context.reporter.warn(format!("this is not in the audit log: {failure}"));
            }
        }
    }
    let database = id.to_string();
    Ok(Unmanaged { database, node, data_directory, changed: managed.changed })
}
