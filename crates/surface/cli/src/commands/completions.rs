//! `lifeboat completions`: the command line for a shell's tab key.

use clap::CommandFactory;
use clap_complete::Shell;
use lifeboat_telemetry::Outcome;
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::Arguments;
use crate::output::Report;

/// Print a script that completes Lifeboat's command line in a shell
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat completions bash > /etc/bash_completion.d/lifeboat
  lifeboat completions zsh > ~/.zfunc/_lifeboat")]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// A completion script.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Completions {
    /// The shell that reads it.
    shell: String,
    /// The script.
    script: String,
}

impl Report for Completions {
    const COMMAND: &'static str = "completions";

    fn text(&self) -> String {
        self.script.clone()
    }
}

/// Generates the script.
pub fn run(args: &Args) -> Outcome<Completions> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Arguments::command(), "lifeboat", &mut script);
    Ok(Completions {
        shell: args.shell.to_string(),
        script: String::from_utf8_lossy(&script).into_owned(),
    })
}
