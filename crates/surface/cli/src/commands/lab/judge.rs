//! `lifeboat lab judge`: whether all that clients were told holds.

use std::time::Duration;

use lifeboat_environment::Environment;
use lifeboat_lab::evidence::gather;
use lifeboat_lab::host::Host;
use lifeboat_lab::oracle::{Check, Evidence, judge_within, outages};
use lifeboat_lab::state::Held;
use lifeboat_model::TimeSpan;
use lifeboat_telemetry::{Failure, Outcome, duration};
use schemars::JsonSchema;
use serde::Serialize;

use super::Place;
use crate::context::Context;
use crate::output::{Report, moment, strong, table};

/// Judge all that clients of a lab were told: no lost write, never two writers, true reports
///
/// The clients end, so that every answer is known, and begin again afterwards. A check that could
/// not run fails, and so does a lab in which nothing was broken or moved.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat lab judge
  lifeboat lab judge --json")]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// How far a reported time may be from what clients saw
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    tolerance: TimeSpan,
}

/// What the oracle found.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Judged {
    /// Each check.
    checks: Vec<Check>,
    /// The writes that were acknowledged.
    acknowledged: u64,
    /// What was done to the lab, in its order.
    disturbances: Vec<String>,
    /// For how long clients could not write when the writer changed.
    outages: Vec<Outage>,
    #[serde(skip)]
    failure: Option<Failure>,
    #[serde(skip)]
    lines: Vec<String>,
}

/// A change of the writer, as clients of the endpoint saw it and as it was reported.
#[derive(Debug, Serialize, JsonSchema)]
struct Outage {
    /// The node that wrote before.
    from: String,
    /// The node that writes since.
    to: String,
    /// From the last acknowledgement of the one to the first of the other, in milliseconds.
    first_ms: u64,
    /// The same for the slowest client.
    slowest_ms: u64,
    /// What the run reported; null if it reported nothing.
    reported_ms: Option<u64>,
    /// When the first acknowledgement of the other one came, by the wall clock.
    resumed_at: String,
}

impl Report for Judged {
    const COMMAND: &'static str = "lab judge";

    fn text(&self) -> String {
        let told = |ms: u64| duration(Duration::from_millis(ms));
        let row = |one: &Outage| {
            let reported = one.reported_ms.map_or_else(|| "nothing".to_owned(), told);
            [one.from.clone(), one.to.clone(), told(one.first_ms), told(one.slowest_ms), reported]
        };
        let headings = ["from", "to", ">first write after", ">slowest client", ">reported"];
        let outages = match self.outages.is_empty() {
            true => "The writer never changed.\n".to_owned(),
            false => table(headings, self.outages.iter().map(row).collect()),
        };
        let lines: String = self.lines.iter().map(|line| format!("{line}\n")).collect();
        let heading = strong(&format!("{} acknowledged writes", self.acknowledged));
        format!("{heading}\n\n{outages}\n{lines}")
    }

    fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}

/// Judges it.
pub fn run(args: &Args, context: &Context) -> Outcome<Judged> {
    let held = Held::open(&args.place.root(&context.environment)?)?;
    let (environment, reporter, cancel) =
        (&context.environment, &context.reporter, &context.cancel);
    let mut host = Host { held, environment, reporter, cancel };
    let evidence = gather(&mut host)?;
    Ok(Judged::of(&evidence, environment, args.tolerance.duration()))
}

impl Judged {
    /// The verdict on some evidence.
    pub fn of(evidence: &Evidence, environment: &Environment, tolerance: Duration) -> Self {
        let verdict = judge_within(evidence, tolerance);
        let clock = environment.clock();
        let (now, elapsed) = (clock.now(), clock.elapsed());
        let wall = |since_boot: Duration| {
            let ago = elapsed.saturating_sub(since_boot);
            moment(now.checked_sub(ago).unwrap_or(now))
        };
        let reported = |place: usize| evidence.moves.as_ref()?.get(place)?.rto.map(millis);
        let outage = |(place, one): (usize, lifeboat_lab::oracle::Outage)| Outage {
            from: one.from,
            to: one.to,
            resumed_at: wall(Duration::from_nanos(one.began_ns) + one.first),
            first_ms: millis(one.first),
            slowest_ms: millis(one.slowest),
            reported_ms: reported(place),
        };
        // What does not hold is in the failure, once.
        let lines = if verdict.holds() { verdict.lines() } else { Vec::new() };
        let mut disturbances = evidence.disturbances.clone();
        disturbances.sort_by_key(|one| one.at_ns);
        Self {
            acknowledged: evidence.history.acknowledged().count() as u64,
            disturbances: disturbances.into_iter().map(|one| one.name).collect(),
            outages: outages(&evidence.history).into_iter().enumerate().map(outage).collect(),
            failure: verdict.outcome().err(),
            checks: verdict.checks,
            lines,
        }
    }

    /// How many writes were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Whether everything was checked and holds.
    pub fn holds(&self) -> bool {
        self.failure.is_none()
    }

    /// For each change of the writer, in milliseconds: until the first write, and until the
    /// slowest client wrote.
    pub fn outages(&self) -> Vec<(u64, u64)> {
        self.outages.iter().map(|one| (one.first_ms, one.slowest_ms)).collect()
    }

    /// What does not hold.
    pub fn take_failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
