//! `lifeboat lab demo`: builds a lab, tells the story of a service that moves, takes it away.

use std::time::Duration;

use lifeboat_lab::demo::demo;
use lifeboat_lab::down::down;
use lifeboat_lab::oracle::TOLERANCE;
use lifeboat_lab::up::up;
use lifeboat_telemetry::{Code, Failure, Outcome, duration};
use schemars::JsonSchema;
use serde::Serialize;

use super::Place;
use super::judge::Judged;
use super::up::wish;
use crate::context::Context;
use crate::output::{Mark, Report, strong, table};

/// The objectives of the lab's tier.
const RTO: Duration = Duration::from_secs(15);

/// See a service move: by plan, by disaster, and home again
///
/// Builds a lab, moves the service to the west under load, kills everything of the west at once,
/// sees it come up in the east by itself, refuses the old primary, makes it a standby again, and
/// accounts for every write that a client was told of. Takes about two minutes.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat lab demo
  lifeboat lab demo --keep")]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// Addresses of the loopback instead of namespaces
    #[arg(long)]
    loopback: bool,
    /// Leave the lab up at the end, and say how to look at it
    #[arg(long)]
    keep: bool,
}

/// What it came to.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Told {
    /// What the oracle found.
    judged: Judged,
    /// The recovery time objective, in milliseconds.
    rto_objective_ms: u64,
    /// Whether every objective was met.
    met: bool,
    /// Where the lab still is, if it was kept.
    kept: Option<String>,
    #[serde(skip)]
    failure: Option<Failure>,
}

impl Report for Told {
    const COMMAND: &'static str = "lab demo";

    fn text(&self) -> String {
        let verdict = |met: bool| match met {
            true => Mark::Good.paint("met"),
            false => Mark::Bad.paint("MISSED"),
        };
        let told = |ms: u64| duration(Duration::from_millis(ms));
        let mut rows = Vec::new();
        for (place, one) in self.judged.outages().iter().enumerate() {
            let what = if place == 0 { "planned move" } else { "region lost" };
            for (who, ms) in [("first write after it", one.0), ("slowest client", one.1)] {
                rows.push([
                    format!("RTO, {what}: {who}"),
                    told(ms),
                    duration(RTO),
                    verdict(u128::from(ms) <= RTO.as_millis()),
                ]);
            }
        }
        let (acknowledged, kept) = (self.judged.acknowledged(), self.judged.holds());
        // Only the oracle knows, and what it found wrong follows.
        let measured = |good: &str| if kept { good.to_owned() } else { "see below".to_owned() };
        let row = |what: &str, measured: String, objective: &str| {
            [what.to_owned(), measured, objective.to_owned(), verdict(kept)]
        };
        let lost = measured(&format!("0 of {acknowledged}"));
        rows.push(row("RPO: acknowledged writes that are gone", lost, "0"));
        rows.push(row("servers that acknowledge at the same time", measured("none"), "none"));
        let mut text = format!(
            "{}\n\n{}\n{}",
            strong("What it came to"),
            table(["", ">measured", ">objective", ""], rows),
            self.judged.text(),
        );
        if let Some(directory) = &self.kept {
            text += &format!(
                "\nThe lab is left up in {directory}:\n\
                 lifeboat lab status --directory {directory}\n\
                 lifeboat lab enter --directory {directory} north -- lifeboat runs list\n\
                 lifeboat lab down --directory {directory}\n"
            );
        }
        text
    }

    fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}

/// Tells it.
pub fn run(args: &Args, context: &Context) -> Outcome<Told> {
    let root = args.place.root(&context.environment)?;
    let wish = wish(root.clone(), args.loopback)?;
    let story = || -> Outcome<Judged> {
        let mut host = up(&wish, &context.environment, &context.reporter, &context.cancel)?;
        demo(&mut host).map(|evidence| Judged::of(&evidence, &context.environment, TOLERANCE))
    };
    let judged = story();
    if !args.keep {
        down(&root)?;
    }
    let mut judged = judged?;
    let slowest = judged.outages().into_iter().map(|(_, slowest)| slowest).max();
    let in_time = slowest.is_some_and(|ms| u128::from(ms) <= RTO.as_millis());
    let met = judged.holds() && in_time;
    let missed = || {
        let message = format!("a client could not write for more than {}", duration(RTO));
        Failure::new(Code::ObjectiveMissed, message)
            .hint("Is this machine busy? `lifeboat lab demo --keep` leaves all logs.")
    };
    let failure = judged.take_failure().or_else(|| (!met).then(missed));
    Ok(Told {
        judged,
        rto_objective_ms: u64::try_from(RTO.as_millis()).unwrap_or(u64::MAX),
        met,
        kept: args.keep.then(|| root.display().to_string()),
        failure,
    })
}
