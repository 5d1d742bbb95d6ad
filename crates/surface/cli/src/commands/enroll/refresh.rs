//! `lifeboat enroll refresh`: rights follow the spec.

use lifeboat_quorum::{Keys, Rights};
use lifeboat_telemetry::Outcome;
use schemars::JsonSchema;
use serde::Serialize;

use super::Office;
use crate::context::Context;
use crate::output::Report;

/// Give everybody who was invited the rights that the spec says now
///
/// After a service, a database or a node was added or went away. Nobody needs a new token.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat enroll refresh")]
pub struct Args {}

/// Whose rights are as the spec says.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Refreshed {
    /// Their names.
    names: Vec<String>,
}

impl Report for Refreshed {
    const COMMAND: &'static str = "enroll refresh";

    fn text(&self) -> String {
        self.names.iter().map(|name| format!("{name} has the rights of the spec.\n")).collect()
    }
}

/// Sets the rights of each.
pub fn run(context: &Context) -> Outcome<Refreshed> {
    let office = Office::open(context)?;
    let authority = office.authority()?;
    let admin = office.admin(&authority)?;
    let mut names = Vec::new();
    for issued in &authority.issued {
        let rights = Rights::of(&Keys::default(), &office.site.spec, issued)?;
        office.runtime.block_on(admin.set_rights(&issued.name, &rights))?;
        names.push(issued.name.clone());
    }
    Ok(Refreshed { names })
}
