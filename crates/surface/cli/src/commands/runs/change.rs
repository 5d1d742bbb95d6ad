//! `lifeboat runs resume`, `skip` and `abort`: a person decides about a run that waits.

use lifeboat_failover::{Service, View};
use lifeboat_model::ServiceName;
use lifeboat_quorum::{RunId, Transaction, Transition};
use lifeboat_telemetry::{Code, Failure, Outcome};
use lifeboat_workflow::{Change, Kind, Run, Step, StepState};
use schemars::JsonSchema;
use serde::Serialize;

use super::run_of;
use crate::context::Context;
use crate::control::{Control, FENCE_STATEMENT, person};
use crate::output::Report;
use crate::site::Site;

/// Try the step at which a run waits again
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat runs resume payments 4")]
pub struct ResumeArgs {
    #[command(flatten)]
    which: Which,
}

/// Go on without the step at which a run waits
///
/// Without `seal`, commits that were acknowledged may be missing afterwards. Without `fence`, two
/// servers may write: type the statement only if you have switched the old one off yourself.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat runs skip payments 4 --why 'west lost its spool; the loss is accepted'
  lifeboat runs skip payments 4 --why 'powered off' --statement 'the old primary cannot write'")]
pub struct SkipArgs {
    #[command(flatten)]
    which: Which,
    /// Why, for the journal
    #[arg(long, value_name = "TEXT")]
    why: String,
    /// For the step `fence`: what you know of the old primary
    #[arg(long, value_name = "TEXT")]
    statement: Option<String>,
}

/// Give a run up
///
/// A switchover goes back to where it came from, until its new epoch has begun. A failover cannot
/// go back: its epoch stays as it is, nobody may write, and another failover can begin.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat runs abort payments 4 --why 'maintenance is over'")]
pub struct AbortArgs {
    #[command(flatten)]
    which: Which,
    /// Why, for the journal
    #[arg(long, value_name = "TEXT", default_value = "a person gave it up")]
    why: String,
}

/// Which run.
#[derive(Debug, clap::Args)]
struct Which {
    /// The service
    #[arg(value_name = "SERVICE")]
    service: ServiceName,
    /// The number of the run
    #[arg(value_name = "RUN")]
    run: u64,
}

/// What was decided.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Decided {
    /// The service.
    service: String,
    /// The run.
    run: u64,
    /// The step that it was about; null if none was left.
    step: Option<&'static str>,
    /// `resumed`, `skipped` or `aborted`.
    decision: &'static str,
}

/// One document for three commands.
macro_rules! reports {
    ($($(#[$doc:meta])* $name:ident = $command:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Serialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(Decided);

        impl Report for $name {
            const COMMAND: &'static str = $command;

            fn text(&self) -> String {
                self.0.text()
            }
        }
    )*};
}

reports! {
    /// A run that tries again.
    Resumed = "runs resume";
    /// A run that goes on without a step.
    Skipped = "runs skip";
    /// A run that was given up.
    Aborted = "runs abort";
}

impl Decided {
    fn text(&self) -> String {
        let Self { service, run, step, decision } = self;
        let step = step.unwrap_or("end");
        format!("Run {run} of {service}: {step} {decision}. A controller goes on from here.\n")
    }
}

/// Tries again.
pub fn resume(args: &ResumeArgs, context: &Context) -> Outcome<Resumed> {
    decide(&args.which, context, |run| {
        waits(run)?;
        Ok((Change::Retried, "a person has it tried again".to_owned(), "resumed"))
    })
    .map(Resumed)
}

/// Goes on without.
pub fn skip(args: &SkipArgs, context: &Context) -> Outcome<Skipped> {
    decide(&args.which, context, |run| {
        let fence = run.step() == Some(Step::Fence);
        if !fence {
            waits(run)?;
        }
        if matches!(run.step(), Some(Step::Begin | Step::Promote | Step::Serve | Step::Revoke)) {
            let message = "without this step there is nothing that could serve";
            return Err(Failure::new(Code::MoveRefused, message)
                .hint("Resume it once its cause is gone, or abort the run."));
        }
        if fence && args.statement.as_deref() != Some(FENCE_STATEMENT) {
            let message = "nothing proves yet that the old primary cannot write";
            return Err(Failure::new(Code::MoveRefused, message).hint(format!(
                "Wait for the end of its lease. If you have switched it off yourself, add \
                 --statement '{FENCE_STATEMENT}'."
            )));
        }
        let why = match &args.statement {
            Some(statement) => format!("{statement} ({})", args.why),
            None => args.why.clone(),
        };
        Ok((Change::Skipped, why, "skipped"))
    })
    .map(Skipped)
}

/// Gives up.
pub fn abort(args: &AbortArgs, context: &Context) -> Outcome<Aborted> {
    decide(&args.which, context, |run| {
        if run.is_over() {
            return Err(Failure::new(Code::MoveRefused, "the run is over already"));
        }
        match run.can_go_back() {
            true => Ok((Change::Aborting, args.why.clone(), "aborted")),
            false if run.plan.kind == Kind::Switchover && run.state() != StepState::Failed => {
                let message = "its new epoch has begun: it can only go on";
                Err(Failure::new(Code::MoveRefused, message)
                    .hint("Let it finish, then move the service back with a switchover."))
            }
            false => Ok((Change::Aborted, args.why.clone(), "aborted")),
        }
    })
    .map(Aborted)
}

fn waits(run: &Run) -> Outcome<()> {
    match run.state() {
        StepState::Failed => Ok(()),
        _ => Err(Failure::new(Code::MoveRefused, "the run does not wait for a person")
            .hint("`lifeboat runs show` says what it is doing.")),
    }
}

fn decide(
    which: &Which,
    context: &Context,
    decision: impl FnOnce(&Run) -> Outcome<(Change, String, &'static str)>,
) -> Outcome<Decided> {
    let site = Site::open_anywhere(context)?;
    let control = Control::open(&site)?;
    let service = control.service(&which.service)?;
    let sight = control.read()?;
    let view = sight.view(&control, service)?;
    let run = run_of(&control, &sight, service, RunId(which.run))?;
    let (change, evidence, decision) = decision(&run)?;
    let step = run.step().map(Step::name);
    let transaction = transaction(&control, context, service, &view, &run, change, evidence)?;
    control.commit(transaction, "The run went on meanwhile: look at it again.")?;
    Ok(Decided { service: service.name.to_string(), run: which.run, step, decision })
}

/// The transition; a run that is given up lets the service go in the same write.
fn transaction(
    control: &Control,
    context: &Context,
    service: &Service,
    view: &View,
    run: &Run,
    change: Change,
    evidence: String,
) -> Outcome<Transaction> {
    let keys = &control.keys;
    let Some(record) = view.record.as_ref().filter(|seen| seen.value.run == Some(run.plan.run))
    else {
        return Err(Failure::new(Code::MoveRefused, "the run does not hold its service any more"));
    };
    let entry = run.entry(change, evidence, &person(context), context.environment.clock().now());
    let key = keys.transition(&service.name, run.plan.run, run.next_number());
    let transaction =
        Transaction::new().when(keys.epoch(&service.name), record.revision).create(key, &entry);
    if change != Change::Aborted {
        return Ok(transaction);
    }
    let next = record.value.apply(Transition::Finish).map_err(|error| {
        Failure::new(Code::MoveRefused, error.to_string())
            .hint("It is in the middle of a step that must end first.")
    })?;
    Ok(transaction.put(keys.epoch(&service.name), &next))
}
