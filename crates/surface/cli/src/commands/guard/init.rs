//! `lifeboat guard init`: the lower process of a guard.

use lifeboat_telemetry::Outcome;
use schemars::JsonSchema;
use serde::Serialize;

use crate::context::Context;
use crate::output::Report;

/// Be PostgreSQL's parent below `guard run`, which starts this by itself
#[derive(Debug, clap::Args)]
#[command(
    hide = true,
    after_long_help = "Examples:
  lifeboat guard init"
)]
pub struct Args {}

/// An instance that has ended.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Ended {}

impl Report for Ended {
    const COMMAND: &'static str = "guard init";

    fn text(&self) -> String {
        String::new()
    }
}

/// Runs until nothing of the instance is left.
pub fn run(context: &Context) -> Outcome<Ended> {
    lifeboat_daemons::guard::init(&context.environment)?;
    Ok(Ended {})
}
