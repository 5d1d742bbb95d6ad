//! `lifeboat lab break`: injects a fault.

use lifeboat_lab::fault::{Fault, KINDS, inject};
use lifeboat_lab::host::Host;
use lifeboat_lab::state::Held;
use lifeboat_telemetry::{Code, Failure, Outcome};
use schemars::JsonSchema;
use serde::Serialize;

use super::Place;
use crate::context::Context;
use crate::output::{Report, table};

/// Break something in a lab
///
/// Where no domain is named, it is east.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat lab break --list
  lifeboat lab break region east
  lifeboat lab break kill west/agent
  lifeboat lab break slow-link east west 200ms
  lifeboat lab break freeze east/postgres")]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// Say what each fault does
    #[arg(long)]
    list: bool,
    /// The fault
    #[arg(required_unless_present = "list", value_name = "FAULT")]
    fault: Option<String>,
    /// Where, and how much
    #[arg(value_name = "WHERE")]
    words: Vec<String>,
}

/// What was broken, or what can be.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Broken {
    /// The fault, as it would be typed.
    fault: Option<String>,
    /// What was done.
    done: Option<String>,
    /// All faults.
    faults: Vec<Known>,
}

/// A fault that there is.
#[derive(Debug, Serialize, JsonSchema)]
struct Known {
    /// Its name.
    name: &'static str,
    /// What may follow it.
    takes: &'static str,
    /// What it does.
    does: &'static str,
}

impl Report for Broken {
    const COMMAND: &'static str = "lab break";

    fn text(&self) -> String {
        match &self.done {
            Some(done) => format!("{done}\n"),
            None => {
                let rows = self.faults.iter();
                let rows = rows.map(|one| [one.name, one.takes, one.does].map(str::to_owned));
                table(["Fault", "Where", "What it does"], rows.collect())
            }
        }
    }
}

/// Breaks it.
pub fn run(args: &Args, context: &Context) -> Outcome<Broken> {
    if args.list {
        let known = |kind: lifeboat_lab::fault::Kind| Known {
            name: kind.name,
            takes: kind.takes,
            does: kind.does,
        };
        return Ok(Broken { fault: None, done: None, faults: KINDS.map(known).into() });
    }
    let name = args.fault.as_deref().ok_or_else(|| {
        Failure::new(Code::Usage, "no fault was named").hint("--list shows them.")
    })?;
    let fault = Fault::parse(name, &args.words)?;
    let held = Held::open(&args.place.root(&context.environment)?)?;
    let (environment, reporter, cancel) =
        (&context.environment, &context.reporter, &context.cancel);
    let mut host = Host { held, environment, reporter, cancel };
    let text = fault.text();
    let done = inject(&mut host, fault)?;
    Ok(Broken { fault: Some(text), done: Some(done), faults: Vec::new() })
}
