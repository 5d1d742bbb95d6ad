//! `lifeboat lab down`: takes a lab away.

use lifeboat_lab::down::down;
use lifeboat_telemetry::Outcome;
use schemars::JsonSchema;
use serde::Serialize;

use super::Place;
use crate::context::Context;
use crate::output::Report;

/// Take a lab away: its processes, networks, disks and its directory
///
/// Works whatever became of the lab, also after `lab up` was killed, and can be repeated.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat lab down
  lifeboat lab down --directory /tmp/mine")]
pub struct Args {
    #[command(flatten)]
    place: Place,
}

/// What was taken away.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TakenAway {
    /// The directory.
    directory: String,
    /// Whether there was anything.
    found: bool,
    /// How many processes were ended.
    processes: usize,
}

impl Report for TakenAway {
    const COMMAND: &'static str = "lab down";

    fn text(&self) -> String {
        let Self { directory, found, processes } = self;
        if *found {
            format!("The lab in {directory} is gone; {processes} processes were ended.\n")
        } else {
            format!("There is no lab in {directory}.\n")
        }
    }
}

/// Takes it away.
pub fn run(args: &Args, context: &Context) -> Outcome<TakenAway> {
    let root = args.place.root(&context.environment)?;
    let gone = down(&root)?;
    Ok(TakenAway {
        directory: root.display().to_string(),
        found: gone.found,
        processes: gone.processes,
    })
}
