//! `lifeboat guard step`: becomes PostgreSQL.

use lifeboat_telemetry::Outcome;
use schemars::JsonSchema;
use serde::Serialize;

use crate::output::Report;

/// Become PostgreSQL below `guard init`, which starts this by itself
#[derive(Debug, clap::Args)]
#[command(
    hide = true,
    after_long_help = "Examples:
  lifeboat guard step"
)]
pub struct Args {}

/// Never seen: PostgreSQL took the place of this process.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Stepped {}

impl Report for Stepped {
    const COMMAND: &'static str = "guard step";

    fn text(&self) -> String {
        String::new()
    }
}

/// Becomes PostgreSQL, or fails.
pub fn run() -> Outcome<Stepped> {
    match lifeboat_daemons::guard::step()? {}
}
