//! `lifeboat lab heal`: undoes all faults.

use lifeboat_lab::fault::heal;
use lifeboat_lab::host::Host;
use lifeboat_lab::state::Held;
use lifeboat_telemetry::Outcome;
use schemars::JsonSchema;
use serde::Serialize;

use super::Place;
use crate::context::Context;
use crate::output::Report;

/// Undo every fault: mend links, thaw, give space back, start what is dead
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat lab heal")]
pub struct Args {
    #[command(flatten)]
    place: Place,
}

/// What was healed.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Healed {
    /// What was done.
    done: Vec<String>,
}

impl Report for Healed {
    const COMMAND: &'static str = "lab heal";

    fn text(&self) -> String {
        if self.done.is_empty() {
            return "Nothing was broken.\n".to_owned();
        }
        self.done.iter().map(|line| format!("{line}\n")).collect()
    }
}

/// Heals it.
pub fn run(args: &Args, context: &Context) -> Outcome<Healed> {
    let held = Held::open(&args.place.root(&context.environment)?)?;
    let (environment, reporter, cancel) =
        (&context.environment, &context.reporter, &context.cancel);
    let mut host = Host { held, environment, reporter, cancel };
    Ok(Healed { done: heal(&mut host)? })
}
