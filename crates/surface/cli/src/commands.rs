//! The command tree: one file a command, folders as the commands nest.

pub mod completions;
pub mod explain;

use clap::Subcommand;
use lifeboat_telemetry::Outcome;

use crate::context::Context;
use crate::output::{Output, Report};

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    Explain(explain::Args),
    Completions(completions::Args),
}

/// Runs a command, prints its report and returns its exit code.
pub fn run(command: Command, context: &Context, output: Output) -> Outcome<u8> {
    match command {
        Command::Explain(args) => print(output, explain::run(&args)),
        Command::Completions(args) => print(output, completions::run(&args)),
    }
}

fn print<R: Report>(output: Output, result: Outcome<R>) -> Outcome<u8> {
    let report = result?;
    output.report(&report)?;
    Ok(report.exit_code())
}
