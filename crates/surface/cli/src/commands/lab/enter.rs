//! `lifeboat lab enter`: runs a command where a domain of the lab is.

use std::ffi::OsString;

use lifeboat_lab::enter::{Entrance, enter};
use lifeboat_lab::layout::{Domain, Layout};
use lifeboat_lab::state;
use lifeboat_telemetry::Failure;

use super::Place;
use crate::context::Context;

/// Run a command inside a domain of a lab: its network, its disk, its resolver, its account
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat lab enter clients -- psql -h ledger.lab.test -U ledger books
  lifeboat lab enter west -- lifeboat status
  lifeboat lab enter east -- bash")]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// Keep root's rights
    #[arg(long)]
    privileged: bool,
    /// Leave the terminal
    #[arg(long, hide = true)]
    detached: bool,
    /// The domain: east, west, north or clients
    domain: String,
    /// The command
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Becomes the command; returns why it could not.
pub fn run(args: &Args, context: &Context) -> Failure {
    match prepare(args, context) {
        Ok((layout, domain)) => enter(&Entrance {
            layout: &layout,
            domain,
            privileged: args.privileged,
            command: &args.command,
            detached: args.detached,
            cancel: &context.cancel,
        }),
        Err(failure) => failure,
    }
}

fn prepare(args: &Args, context: &Context) -> Result<(Layout, Domain), Failure> {
    let root = args.place.root(&context.environment)?;
    let state = state::read(&root)?;
    Ok((Layout::new(root, state.isolation), args.domain.parse()?))
}
