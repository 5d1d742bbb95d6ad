//! What a command may use besides its own arguments.

use lifeboat_environment::Environment;
use lifeboat_model::RegionName;
use lifeboat_telemetry::{Cancel, Code, Failure, Outcome, Reporter};

use crate::arguments::Global;
use crate::progress;

/// The world of one command.
#[derive(Debug)]
pub struct Context {
    /// Time, chance and variables.
    pub environment: Environment,
    /// The flags that every command takes.
    pub global: Global,
    /// Set by the first SIGINT or SIGTERM.
    pub cancel: Cancel,
    /// Shows progress in the way that the flags and the terminal ask for.
    pub reporter: Reporter,
}

impl Context {
    /// Prepares the world; opens and reads nothing.
    pub fn new(environment: Environment, global: Global, cancel: Cancel) -> Self {
        let reporter = progress::reporter(&environment, &global);
        Self { environment, global, cancel, reporter }
    }

    /// The region in which this process runs, if it was said.
    pub fn here(&self) -> Outcome<Option<RegionName>> {
        let here = self.global.here.as_deref().map(str::parse).transpose();
        here.map_err(|error| {
            Failure::new(Code::RegionUnknown, "--here names no region")
                .because(error)
                .hint("Name a region of the spec with --here or LIFEBOAT_REGION.")
        })
    }
}
