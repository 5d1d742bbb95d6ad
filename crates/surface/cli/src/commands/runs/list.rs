//! `lifeboat runs list`: the moves of services.

use std::collections::BTreeSet;

use lifeboat_failover::Service;
use lifeboat_model::ServiceName;
use lifeboat_quorum::RunId;
use lifeboat_telemetry::Outcome;
use schemars::JsonSchema;
use serde::Serialize;

use super::{run_of, state};
use crate::context::Context;
use crate::control::{Control, Sight};
use crate::output::{Report, moment, table};
use crate::site::Site;

/// List the moves of services, newest last
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat runs list
  lifeboat runs list payments")]
pub struct Args {
    /// The service; without it all
    #[arg(value_name = "SERVICE")]
    service: Option<ServiceName>,
}

/// The runs.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Listed {
    /// The runs.
    runs: Vec<Row>,
}

/// A run.
#[derive(Debug, Serialize, JsonSchema)]
struct Row {
    /// Its service.
    service: String,
    /// Its number within the service.
    run: u64,
    /// What kind of move it is.
    kind: &'static str,
    /// The region that held the service.
    from: String,
    /// The region that shall hold it.
    to: String,
    /// `at work`, `waits`, `goes back`, `done` or `went back`.
    state: &'static str,
    /// The step that it is at; null at its end.
    step: Option<&'static str>,
    /// Who began it.
    by: String,
    /// When.
    begun_at: String,
}

impl Report for Listed {
    const COMMAND: &'static str = "runs list";

    fn text(&self) -> String {
        if self.runs.is_empty() {
            return "No service was ever moved.\n".to_owned();
        }
        let row = |row: &Row| {
            let step = row.step.unwrap_or("");
            let words = [row.kind, &row.from, &row.to, row.state, step, &row.by, &row.begun_at];
            let [kind, from, to, state, step, by, at] = words.map(str::to_owned);
            [row.service.clone(), row.run.to_string(), kind, from, to, state, step, by, at]
        };
        let headings = ["service", ">run", "kind", "from", "to", "state", "step", "by", "begun at"];
        table(headings, self.runs.iter().map(row).collect())
    }
}

/// Lists.
pub fn run(args: &Args, context: &Context) -> Outcome<Listed> {
    let site = Site::open_anywhere(context)?;
    let control = Control::open(&site)?;
    let sight = control.read()?;
    let mut runs = Vec::new();
    let wanted =
        |service: &&Service| args.service.as_ref().is_none_or(|name| *name == service.name);
    if let Some(name) = &args.service {
        control.service(name)?;
    }
    for service in control.services.values().filter(wanted) {
        for number in numbers(&control, &sight, service) {
            let run = run_of(&control, &sight, service, number)?;
            runs.push(Row {
                service: service.name.to_string(),
                run: number.0,
                kind: run.plan.kind.name(),
                from: run.plan.from.to_string(),
                to: run.plan.to.to_string(),
                state: state(&run),
                step: run.step().map(lifeboat_workflow::Step::name),
                by: run.plan.by.clone(),
                begun_at: moment(run.plan.at),
            });
        }
    }
    Ok(Listed { runs })
}

/// The numbers of a service's runs, in order.
fn numbers(control: &Control, sight: &Sight, service: &Service) -> BTreeSet<RunId> {
    let prefix = control.keys.runs(&service.name);
    let below = sight.mirror.below(&prefix);
    below.filter_map(|(key, _, _)| key.split('/').next()?.parse().ok().map(RunId)).collect()
}
