//! `lifeboat switchover`, `failover` and `fallback`: a run begins, and is watched.

mod break_glass;

use std::time::Duration;

use lifeboat_environment::{SystemTimer, Timer};
use lifeboat_failover::{Prediction, Service, Wanted, predict, start};
use lifeboat_model::{RegionName, ServiceName, TimeSpan};
use lifeboat_telemetry::{Code, Failure, Outcome, duration};
use lifeboat_workflow::{Change, Entry, Kind, Plan, Run, StepState};
use schemars::JsonSchema;
use serde::Serialize;

use super::runs::{StepShown, away_ms, fact, run_of, steps};
use crate::context::Context;
use crate::control::{Control, Sight, person};
use crate::output::{Report, strong, table};
use crate::site::Site;

/// Move a service to the other region without loss
///
/// The primary is stopped cleanly, the standby replays to the exact end of its WAL, is promoted,
/// and clients are led there. Until the new epoch begins it goes back by itself if anything fails.
/// Controllers carry it out; this command begins it and watches. Interrupting the command does not
/// interrupt the move.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat switchover payments --to west --dry-run
  lifeboat switchover payments --to west")]
pub struct SwitchoverArgs {
    #[command(flatten)]
    common: Common,
}

/// Move a service whose primary is lost or cut off
///
/// The epoch is revoked, receivers are sealed, the old primary is fenced, or its lease is waited
/// out, and the standby is completed to the last acknowledged position before it is promoted.
/// There is no way back but another move.
///
/// While no quorum answers, nobody else can see the old primary dead: --break-glass moves the
/// service by your word that it is, on the host that takes it over. It writes without a lease then,
/// for a time that ends by itself.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat failover payments --to west --dry-run
  lifeboat failover payments --to west
  lifeboat failover payments --to west --break-glass --dry-run --here west
  lifeboat failover payments --to west --break-glass --here west \\
      --statement 'the old primary cannot write' --for 24h")]
pub struct FailoverArgs {
    #[command(flatten)]
    common: Common,
    /// Move it although no quorum answers; run on the host of the node that takes over
    #[arg(long, requires_all = ["service", "to"], conflicts_with = "no_wait")]
    break_glass: bool,
    /// With --break-glass: what you know of the old primary
    #[arg(long, value_name = "TEXT", requires = "break_glass")]
    statement: Option<String>,
    /// With --break-glass: how long it may write without a lease, at most 7d
    #[arg(long = "for", value_name = "DURATION", default_value = "24h", requires = "break_glass")]
    lasting: TimeSpan,
}

/// Bring the loser of a failover back as a standby
///
/// What only the loser has is set apart first: its WAL in the repository, rows as CSV. Then it is
/// rewound. Traffic does not move: that is a switchover, afterwards.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat fallback payments --dry-run
  lifeboat fallback payments")]
pub struct FallbackArgs {
    /// The service
    #[arg(value_name = "SERVICE")]
    service: ServiceName,
    /// Show what would be done and the state it would begin from, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Begin it and do not wait for its end
    #[arg(long)]
    no_wait: bool,
}

/// What both moves take.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// The service
    #[arg(value_name = "SERVICE", required_unless_present = "all")]
    service: Option<ServiceName>,
    /// All services
    #[arg(long, conflicts_with = "service")]
    all: bool,
    /// The region to move to; without it the other one
    #[arg(long, visible_alias = "region", value_name = "REGION")]
    to: Option<RegionName>,
    /// Show what would be done and the state it would begin from, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Why, for the journal
    #[arg(long, value_name = "TEXT", default_value = "a person asked")]
    reason: String,
    /// Begin it and do not wait for its end
    #[arg(long)]
    no_wait: bool,
}

/// A move, or what it would be.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Moved {
    /// `switchover`, `failover` or `fallback`.
    kind: &'static str,
    /// Whether nothing was changed.
    dry_run: bool,
    /// Each service.
    moves: Vec<Move>,
    /// What was done instead without a quorum; null with one.
    break_glass: Option<break_glass::BrokenGlass>,
    #[serde(skip)]
    failure: Option<Failure>,
}

/// The move of one service.
#[derive(Debug, Serialize, JsonSchema)]
struct Move {
    /// The service.
    service: String,
    /// Its run.
    run: u64,
    /// The region that held it.
    from: String,
    /// The region that shall hold it.
    to: String,
    /// `planned`, `begun`, `done`, `aborted` or `waits`.
    state: &'static str,
    /// For how long clients could not write, in milliseconds; null if not known.
    away_ms: Option<u64>,
    /// What was lost: `0` or `unknown`; null before the end.
    rpo: Option<String>,
    /// With `--dry-run`: for how long clients would not be able to write, in milliseconds.
    predicted_away_ms: Option<u64>,
    /// With `--dry-run`: what would be lost.
    predicted_loss: Option<String>,
    /// What the last step found.
    evidence: String,
    /// Its steps.
    steps: Vec<StepShown>,
}

/// One document for three commands.
macro_rules! reports {
    ($($(#[$doc:meta])* $name:ident = $command:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Serialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(Moved);

        impl Report for $name {
            const COMMAND: &'static str = $command;

            fn text(&self) -> String {
                self.0.text()
            }

            fn failure(&self) -> Option<&Failure> {
                self.0.failure.as_ref()
            }
        }
    )*};
}

reports! {
    /// A switchover.
    SwitchedOver = "switchover";
    /// A failover.
    FailedOver = "failover";
    /// A fallback.
    FallenBack = "fallback";
}

impl Moved {
    fn text(&self) -> String {
        if let Some(broken) = &self.break_glass {
            return broken.text(self.dry_run);
        }
        let mut text = String::new();
        for one in &self.moves {
            let Move { service, from, to, run, .. } = one;
            let kind = self.kind;
            text += &strong(&format!("{kind} of {service} from {from} to {to}, run {run}\n"));
            let row = |step: &StepShown| {
                let took = step.took_ms.map(|took| duration(Duration::from_millis(took)));
                let what = if self.dry_run { step.meaning } else { &step.evidence };
                [
                    step.step.to_owned(),
                    step.state.to_owned(),
                    took.unwrap_or_default(),
                    what.to_owned(),
                ]
            };
            text += &table(["step", "state", ">took", "what"], one.steps.iter().map(row).collect());
            text += &match one.state {
                "planned" => one.expected(),
                "begun" => format!("Watch it: lifeboat runs show {service} {run}\n"),
                _ => format!("{}\n", one.evidence),
            };
        }
        text
    }
}

/// Begins a switchover and watches it.
pub fn switchover(args: &SwitchoverArgs, context: &Context) -> Outcome<SwitchedOver> {
    begin(Kind::Switchover, &args.common, context).map(SwitchedOver)
}

/// Begins a failover and watches it.
pub fn failover(args: &FailoverArgs, context: &Context) -> Outcome<FailedOver> {
    let Common { service: Some(service), to: Some(to), dry_run, reason, .. } = &args.common else {
        return begin(Kind::Failover, &args.common, context).map(FailedOver);
    };
    if !args.break_glass {
        return begin(Kind::Failover, &args.common, context).map(FailedOver);
    }
    let (statement, lasting, dry_run) = (args.statement.as_deref(), args.lasting, *dry_run);
    let wanted = break_glass::Wanted { service, to, statement, lasting, reason, dry_run };
    let broken = break_glass::run(&wanted, context)?;
    let kind = Kind::Failover.name();
    let moves = Vec::new();
    let moved = Moved { kind, dry_run, moves, break_glass: Some(broken), failure: None };
    Ok(FailedOver(moved))
}

/// Begins a fallback and watches it.
pub fn fallback(args: &FallbackArgs, context: &Context) -> Outcome<FallenBack> {
    let common = Common {
        service: Some(args.service.clone()),
        all: false,
        to: None,
        dry_run: args.dry_run,
        reason: "a person asked".to_owned(),
        no_wait: args.no_wait,
    };
    begin(Kind::Fallback, &common, context).map(FallenBack)
}

fn begin(kind: Kind, args: &Common, context: &Context) -> Outcome<Moved> {
    let site = Site::open_anywhere(context)?;
    let control = Control::open(&site)?;
    let services: Vec<&Service> = match &args.service {
        Some(name) => vec![control.service(name)?],
        None => control.services.values().collect(),
    };
    let sight = control.read_twice()?;
    let mut moved = Moved {
        kind: kind.name(),
        dry_run: args.dry_run,
        moves: Vec::new(),
        break_glass: None,
        failure: None,
    };
    let mut begun = Vec::new();
    for service in services {
        let view = sight.view(&control, service)?;
        let wanted = Wanted {
            kind,
            to: args.to.clone(),
            by: person(context),
            reason: args.reason.clone(),
            failing_since: None,
            last_worked: None,
        };
        let (now, at) = (Sight::now(), context.environment.clock().now());
        let (plan, transaction) = start(service, &view, &control.keys, &wanted, now, at)?;
        if args.dry_run {
            let expected = predict(service, &view, kind, &plan.to, now);
            moved.moves.push(Move::planned(plan, expected));
            continue;
        }
        control.commit(transaction, "Look at `lifeboat status`, and run it again.")?;
        context.reporter.note(format!("run {} of {} begins", plan.run, service.name));
        begun.push((service, plan));
    }
    for (service, plan) in begun {
        let run = match args.no_wait {
            true => Run::new(plan),
            false => watch(&control, context, service, &plan)?,
        };
        moved.take(&run, args.no_wait);
    }
    Ok(moved)
}

/// Follows a run until it is over, waits for a person, or somebody interrupts the watching.
fn watch(control: &Control, context: &Context, service: &Service, plan: &Plan) -> Outcome<Run> {
    let mut sight = control.read()?;
    let mut told = 0;
    loop {
        let run = run_of(control, &sight, service, plan.run)?;
        for entry in run.journal.get(told..).unwrap_or_default() {
            tell(context, &run, entry);
        }
        told = run.journal.len();
        if run.is_over() || run.state() == StepState::Failed {
            return Ok(run);
        }
        if context.cancel.is_requested() {
            let message =
                format!("run {} of {} goes on without this command", plan.run, service.name);
            return Err(Failure::new(Code::Interrupted, message)
                .hint(format!("Watch it: lifeboat runs show {} {}", service.name, plan.run)));
        }
        control.runtime.block_on(async { SystemTimer.sleep(control.poll()).await });
        // A store that is away for a moment is no reason to stop watching.
        if let Err(failure) = control.read_again(&mut sight) {
            context.reporter.note(failure.to_string());
        }
    }
}

fn tell(context: &Context, run: &Run, entry: &Entry) {
    let step = run.plan.steps.get(entry.step as usize).map_or("end", |step| step.name());
    let change = match entry.change {
        Change::Started => return context.reporter.note(format!("{step} …")),
        Change::Done => "done",
        Change::Failed => "failed",
        Change::Skipped => "skipped",
        Change::Retried => "again",
        Change::Aborting => "goes back",
        Change::Aborted => "went back",
    };
    context.reporter.note(format!("{step} {change}: {}", entry.evidence));
}

impl Move {
    fn expected(&self) -> String {
        let away = self.predicted_away_ms.map(Duration::from_millis).unwrap_or_default();
        let away = match away.is_zero() {
            true => "clients notice nothing".to_owned(),
            false => format!("clients cannot write for about {}", duration(away)),
        };
        let loss = self.predicted_loss.as_deref().unwrap_or("unknown");
        format!("Predicted: {away}; lost is {loss}.\nNothing was changed (--dry-run).\n")
    }
}

impl Moved {
    fn take(&mut self, run: &Run, no_wait: bool) {
        let (state, failure) = match run.state() {
            _ if no_wait => ("begun", None),
            StepState::Over => ("done", None),
            StepState::Aborted => {
                let message = format!("run {} of {} went back", run.plan.run, run.plan.service);
                ("aborted", Some(Failure::new(Code::MoveAborted, message)))
            }
            _ => {
                let step = run.step().map_or("end", |step| step.name());
                let (service, number) = (&run.plan.service, run.plan.run);
                let message = format!("run {number} of {service} waits at step {step}");
                let hint = format!(
                    "See `lifeboat runs show {service} {number}`, then resume, skip or abort it."
                );
                ("waits", Some(Failure::new(Code::RunStopped, message).hint(hint)))
            }
        };
        self.moves.push(Move::of(run, state));
        self.failure = self.failure.take().or(failure);
    }
}

impl Move {
    /// A move that is only thought about.
    fn planned(plan: Plan, expected: Prediction) -> Self {
        let away = u64::try_from(expected.away.as_millis()).ok();
        Self {
            predicted_away_ms: away,
            predicted_loss: Some(expected.loss),
            ..Self::of(&Run::new(plan), "planned")
        }
    }

    fn of(run: &Run, state: &'static str) -> Self {
        let last = run.journal.last();
        Self {
            service: run.plan.service.to_string(),
            run: run.plan.run.0,
            from: run.plan.from.to_string(),
            to: run.plan.to.to_string(),
            state,
            away_ms: away_ms(run),
            rpo: fact(run, "rpo"),
            predicted_away_ms: None,
            predicted_loss: None,
            evidence: last.map(|entry| entry.evidence.clone()).unwrap_or_default(),
            steps: steps(run),
        }
    }
}
