//! The command tree: one file a command, folders as the commands nest.

pub mod completions;
pub mod explain;
pub mod init;
pub mod schema;

use clap::Subcommand;
use lifeboat_telemetry::Outcome;

use crate::context::Context;
use crate::output::{Output, Report};

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    Init(init::Args),
    Explain(explain::Args),
    Schema(schema::Args),
    Completions(completions::Args),
}

/// Runs a command, prints its report and returns its exit code.
pub fn run(command: Command, context: &Context, output: Output) -> Outcome<u8> {
    match command {
        Command::Init(args) => print(output, init::run(&args, context)),
        Command::Explain(args) => print(output, explain::run(&args)),
        Command::Schema(schema::Args {}) => print(output, schema::run()),
        Command::Completions(args) => print(output, completions::run(&args)),
    }
}

fn print<R: Report>(output: Output, result: Outcome<R>) -> Outcome<u8> {
    let report = result?;
    output.report(&report)?;
    Ok(report
        .failure()
        .map_or(0, |failure| failure.kind().exit_code()))
}
