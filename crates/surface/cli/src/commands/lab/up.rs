//! `lifeboat lab up`: builds a lab and starts it.

use std::path::PathBuf;

use lifeboat_lab::layout::{DATABASE, ENDPOINT};
use lifeboat_lab::up::{Wish, up};
use lifeboat_telemetry::{Code, Failure, Outcome};
use schemars::JsonSchema;
use serde::Serialize;

use super::Place;
use crate::context::Context;
use crate::output::Report;

/// Build a lab and start everything in it
///
/// PostgreSQL with a standby, etcd, BIND, HAProxy, repositories, receivers, guards, agents and
/// controllers in east, west and north, and clients that remember every answer. As root each of
/// them has a network, a disk and a cgroup of its own; else addresses of the loopback, and fewer
/// faults.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat lab up
  lifeboat lab up --directory /tmp/mine
  lifeboat lab break region east; lifeboat lab status; lifeboat lab heal
  lifeboat lab down")]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// Addresses of the loopback instead of namespaces
    #[arg(long)]
    loopback: bool,
    /// Only what is not Lifeboat's: no daemons, no clients
    #[arg(long)]
    bare: bool,
    /// Start the daemons so that their wall clocks can be moved (needs libfaketime)
    #[arg(long)]
    fake_time: bool,
}

/// A lab that was started.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Started {
    /// Its directory.
    directory: String,
    /// Its spec.
    spec: String,
    /// What clients use.
    endpoint: String,
    /// The database, as commands name it.
    database: String,
    /// Whether it has namespaces.
    namespaces: bool,
}

impl Report for Started {
    const COMMAND: &'static str = "lab up";

    fn text(&self) -> String {
        let Self { directory, spec, endpoint, .. } = self;
        format!(
            "The lab is up in {directory}.\n\n\
             lifeboat lab status                          what runs, who writes\n\
             lifeboat --spec {spec} status   the service\n\
             lifeboat lab enter clients -- dig {endpoint}\n\
             lifeboat lab break --list                    what can be broken\n\
             lifeboat lab down                            take it all away\n"
        )
    }
}

/// Builds it.
pub fn run(args: &Args, context: &Context) -> Outcome<Started> {
    let wish = Wish {
        bare: args.bare,
        fake_time: args.fake_time,
        ..wish(args.place.root(&context.environment)?, args.loopback)?
    };
    let host = up(&wish, &context.environment, &context.reporter, &context.cancel)?;
    Ok(Started {
        directory: host.layout().root().display().to_string(),
        spec: host.layout().spec().display().to_string(),
        endpoint: ENDPOINT.to_owned(),
        database: DATABASE.to_owned(),
        namespaces: host.layout().has_namespaces(),
    })
}

/// A whole lab that uses this binary.
pub fn wish(root: PathBuf, loopback: bool) -> Outcome<Wish> {
    let binary = std::env::current_exe().map_err(|error| {
        Failure::new(Code::LocalFile, "the running binary cannot be found").because(error)
    })?;
    Ok(Wish { root, binary, loopback, bare: false, fake_time: false })
}
