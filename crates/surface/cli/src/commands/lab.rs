//! `lifeboat lab`: two regions and a witness on this machine, from real parts.

pub mod break_fault;
pub mod demo;
pub mod down;
pub mod enter;
pub mod heal;
pub mod judge;
pub mod part;
pub mod status;
pub mod up;

use std::path::PathBuf;

use lifeboat_environment::Environment;
use lifeboat_lab::process::MARK;
use lifeboat_telemetry::{Code, Failure, Outcome};

/// Two regions and a witness on this machine, to see how they fail
#[derive(Debug, clap::Subcommand)]
pub enum Lab {
    Up(up::Args),
    Status(status::Args),
    Break(break_fault::Args),
    Heal(heal::Args),
    Judge(judge::Args),
    Demo(demo::Args),
    Down(down::Args),
    Enter(enter::Args),
    /// The application, as the lab starts it
    #[command(hide = true)]
    Ledger(part::Args),
    /// The relay, as the lab starts it
    #[command(hide = true)]
    Relay(part::Args),
}

/// Where the lab lies.
#[derive(Debug, Clone, clap::Args)]
pub struct Place {
    /// The lab's directory [default: LIFEBOAT_LAB, else /tmp/lifeboat-lab]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// Short, for sockets lie below it and their paths are bounded.
const USUAL: &str = "/tmp/lifeboat-lab";

impl Place {
    /// The directory, as an absolute path without links as far as it exists.
    pub fn root(&self, environment: &Environment) -> Outcome<PathBuf> {
        let named = self.directory.clone();
        let named = named.or_else(|| environment.variable(MARK).map(PathBuf::from));
        let path = named.unwrap_or_else(|| PathBuf::from(USUAL));
        let path = std::path::absolute(&path).map_err(|error| {
            Failure::new(Code::LocalFile, "the lab's directory has no absolute path").because(error)
        })?;
        Ok(path.canonicalize().unwrap_or(path))
    }
}
