//! The command line as a whole: global flags and the command.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser};

use crate::commands::Command;

/// Protects PostgreSQL in two regions, and proves that it comes back
///
/// Standard output carries data, standard error the rest. Exit codes: 0 done, 1 failed, 2 usage
/// or spec, 3 damage found, 4 refused for safety, 5 partial, 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "lifeboat", version, max_term_width = 100, disable_help_subcommand = true)]
pub struct Arguments {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The spec; without it `./lifeboat.yaml`, then `/etc/lifeboat/lifeboat.yaml`
    #[arg(long, global = true, value_name = "FILE", env = "LIFEBOAT_SPEC", hide_env_values = true)]
    pub spec: Option<PathBuf>,
    /// The region in which this process runs
    #[arg(
        long,
        global = true,
        value_name = "REGION",
        env = "LIFEBOAT_REGION",
        hide_env_values = true
    )]
    pub here: Option<String>,
    /// Print one JSON document, and progress as JSON lines on standard error
    #[arg(long, global = true)]
    pub json: bool,
    /// Log more on standard error; twice for still more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Show no progress and no notes
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
}

/// The words of a raw command line that are neither flags nor values of global flags.
pub fn command_words(arguments: &[OsString]) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = arguments.iter().skip(1).filter_map(|argument| argument.to_str());
    while let Some(argument) = rest.next() {
        match argument {
            "--spec" | "--here" => drop(rest.next()),
            flag if flag.starts_with('-') => {}
            word => words.push(word),
        }
    }
    words
}

/// Whether a raw command line asks for JSON, also one that does not parse.
pub fn wants_json(arguments: &[OsString]) -> bool {
    arguments.iter().any(|argument| argument == "--json")
}
