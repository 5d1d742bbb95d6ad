//! `lifeboat lab status`: what runs, who writes, what is broken.

use lifeboat_lab::layout::Domain;
use lifeboat_lab::status::{Status, status};
use lifeboat_telemetry::Outcome;
use schemars::JsonSchema;
use serde::Serialize;

use super::Place;
use crate::context::Context;
use crate::output::{Report, strong, table};

/// Show what runs in a lab, who writes, and what is broken
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat lab status
  lifeboat lab status --json")]
pub struct Args {
    #[command(flatten)]
    place: Place,
}

/// The lab.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Shown {
    status: Status,
}

impl Report for Shown {
    const COMMAND: &'static str = "lab status";

    fn text(&self) -> String {
        let Status { directory, complete, parts, .. } = &self.status;
        let mut names: Vec<&str> = Vec::new();
        for part in parts {
            if !names.contains(&part.name.as_str()) {
                names.push(&part.name);
            }
        }
        let rows = names.into_iter().map(|name| {
            let of = |domain: Domain| {
                let part = parts.iter().find(|part| part.domain == domain && part.name == name);
                part.map_or_else(String::new, |part| state(part.state))
            };
            let [east, west, north, clients] = Domain::ALL.map(of);
            [name.to_owned(), east, west, north, clients]
        });
        let unfinished = if *complete { "" } else { " (`lab up` did not come to its end)" };
        format!(
            "{} in {directory}{unfinished}\n\n{}\n{}",
            strong("Lab"),
            table(["Part", "east", "west", "north", "clients"], rows.collect()),
            self.lines(),
        )
    }
}

/// What a person must see stands out also where there are no colours.
fn state(word: &str) -> String {
    match word {
        "up" | "off" => word.to_owned(),
        other => other.to_uppercase(),
    }
}

impl Shown {
    fn lines(&self) -> String {
        let Status { writes, etcd_leader, faults, cut, bad, clients, .. } = &self.status;
        let list = |items: &[String]| {
            if items.is_empty() { "none".to_owned() } else { items.join(", ") }
        };
        let writes: Vec<String> = writes.iter().map(ToString::to_string).collect();
        let told = clients.as_ref().map_or_else(
            || "nothing yet".to_owned(),
            |clients| {
                let ago = f64::from(u32::try_from(clients.last_ms).unwrap_or(u32::MAX)) / 1000.0;
                let (number, by) = (clients.acknowledged, &clients.by);
                format!("{number} acknowledged writes, the last one {ago:.1} s ago by {by}")
            },
        );
        let leader = etcd_leader.map_or("nobody", Domain::name);
        format!(
            "Takes writes:  {}\nLeads etcd:    {leader}\nClients:       {told}\n\
             Faults:        {}\nCut links:     {}\nBad links:     {}\n",
            list(&writes),
            list(faults),
            list(cut),
            list(bad)
        )
    }
}

/// Looks at it.
pub fn run(args: &Args, context: &Context) -> Outcome<Shown> {
    let root = args.place.root(&context.environment)?;
    Ok(Shown { status: status(&root, &context.environment)? })
}
