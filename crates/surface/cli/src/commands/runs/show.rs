//! `lifeboat runs show`: one run, step by step.

use std::time::Duration;

use lifeboat_model::ServiceName;
use lifeboat_quorum::RunId;
use lifeboat_telemetry::{Outcome, duration};
use schemars::JsonSchema;
use serde::Serialize;

use super::{StepShown, away_ms, fact, run_of, state, steps};
use crate::context::Context;
use crate::control::Control;
use crate::output::{Report, moment, strong, table};
use crate::site::Site;

/// Show a run, step by step, with what was found
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat runs show payments 4")]
pub struct Args {
    /// The service
    #[arg(value_name = "SERVICE")]
    service: ServiceName,
    /// The number of the run
    #[arg(value_name = "RUN")]
    run: u64,
}

/// A run.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Shown {
    /// Its service.
    service: String,
    /// Its number.
    run: u64,
    /// What kind of move it is.
    kind: &'static str,
    /// The region that held the service.
    from: String,
    /// The region that shall hold it.
    to: String,
    /// The epoch that it ends.
    epoch: u64,
    /// `at work`, `waits`, `goes back`, `done` or `went back`.
    state: &'static str,
    /// Who began it.
    by: String,
    /// Why.
    reason: String,
    /// When.
    begun_at: String,
    /// For how long clients could not write, in milliseconds; null before the end.
    away_ms: Option<u64>,
    /// What was lost: `0` or `unknown`; null before the end.
    rpo: Option<String>,
    /// Its steps.
    steps: Vec<StepShown>,
}

impl Report for Shown {
    const COMMAND: &'static str = "runs show";

    fn text(&self) -> String {
        let Self { service, run, kind, from, to, epoch, state, by, reason, begun_at, .. } = self;
        let heading = format!("Run {run} of {service}: {kind} from {from} to {to}, {state}");
        let row = |step: &StepShown| {
            let took = step.took_ms.map(|took| duration(Duration::from_millis(took)));
            let what = if step.evidence.is_empty() { step.meaning } else { &step.evidence };
            [step.step, step.state, &took.unwrap_or_default(), what].map(str::to_owned)
        };
        let steps = table(["step", "state", ">took", "what"], self.steps.iter().map(row).collect());
        format!(
            "{}\nBegun {begun_at} by {by}, in epoch {epoch}: {reason}\n\n{steps}",
            strong(&heading)
        )
    }
}

/// Shows.
pub fn run(args: &Args, context: &Context) -> Outcome<Shown> {
    let site = Site::open_anywhere(context)?;
    let control = Control::open(&site)?;
    let service = control.service(&args.service)?;
    let run = run_of(&control, &control.read()?, service, RunId(args.run))?;
    Ok(Shown {
        service: service.name.to_string(),
        run: args.run,
        kind: run.plan.kind.name(),
        from: run.plan.from.to_string(),
        to: run.plan.to.to_string(),
        epoch: run.plan.epoch,
        state: state(&run),
        by: run.plan.by.clone(),
        reason: run.plan.reason.clone(),
        begun_at: moment(run.plan.at),
        away_ms: away_ms(&run),
        rpo: fact(&run, "rpo"),
        steps: steps(&run),
    })
}
