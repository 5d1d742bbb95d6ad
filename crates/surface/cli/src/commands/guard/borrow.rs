//! `lifeboat guard borrow`: tools that read the configuration of a managed directory.

use std::ffi::OsString;
use std::path::PathBuf;

use lifeboat_telemetry::Outcome;
use schemars::JsonSchema;
use serde::Serialize;

use crate::output::Report;

/// Run a tool that reads the configuration of a managed directory, as its owner
///
/// pg_rewind starts `postgres` for a moment, which a managed directory refuses. Nothing may run on
/// the directory, and the tool must leave nothing behind.
#[derive(Debug, clap::Args)]
#[command(
    hide = true,
    after_long_help = "Examples:
  lifeboat guard borrow --data /var/lib/postgresql/15/main -- pg_rewind --dry-run ..."
)]
pub struct Args {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The tool and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Never seen: the tool took the place of this process.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Borrowed {}

impl Report for Borrowed {
    const COMMAND: &'static str = "guard borrow";

    fn text(&self) -> String {
        String::new()
    }
}

/// Becomes the tool, or fails.
pub fn run(args: &Args) -> Outcome<Borrowed> {
    let mut command = args.command.iter();
    let program = command.next().map(PathBuf::from).unwrap_or_default();
    let arguments: Vec<OsString> = command.cloned().collect();
    match lifeboat_daemons::guard::borrow(&args.data, &program, &arguments)? {}
}
