//! `lifeboat runs`: what moves did, and what waits for a person.

pub mod change;
pub mod list;
pub mod show;

use clap::Subcommand;
use lifeboat_failover::{Service, read_run};
use lifeboat_quorum::RunId;
use lifeboat_telemetry::{Code, Failure, Outcome};
use lifeboat_workflow::{Change, Run, Step, StepState};
use schemars::JsonSchema;
use serde::Serialize;

use crate::control::{Control, Sight};
use crate::output::moment;

/// See moves, and decide about those that wait for a person
#[derive(Debug, Subcommand)]
pub enum Runs {
    List(list::Args),
    Show(show::Args),
    Resume(change::ResumeArgs),
    Skip(change::SkipArgs),
    Abort(change::AbortArgs),
}

/// A step of a run.
#[derive(Debug, Serialize, JsonSchema)]
pub struct StepShown {
    /// Its name.
    pub step: &'static str,
    /// What it does.
    pub meaning: &'static str,
    /// `planned`, `started`, `done`, `failed`, `skipped`, `goes back` or `went back`.
    pub state: &'static str,
    /// How long it took, in milliseconds, by the clocks of the controllers; null before its end.
    pub took_ms: Option<u64>,
    /// When it ended, by the clock of the controller that wrote so; null before its end.
    pub ended_at: Option<String>,
    /// What was found.
    pub evidence: String,
}

/// A run by its number.
pub fn run_of(control: &Control, sight: &Sight, service: &Service, run: RunId) -> Outcome<Run> {
    match read_run(service, &control.keys, &sight.mirror, run)? {
        Some((run, _)) => Ok(run),
        None => Err(Failure::new(Code::RunMissing, format!("{} has no run {run}", service.name))
            .hint(format!("`lifeboat runs list {}` lists them.", service.name))),
    }
}

/// The steps of a run, with what became of each.
pub fn steps(run: &Run) -> Vec<StepShown> {
    let measured = |step: &Step| {
        let position = run.plan.steps.iter().position(|known| known == step)?;
        let before = position.checked_sub(1).and_then(|before| run.plan.steps.get(before));
        let begin = before.map_or(Some(run.plan.at), |before| Some(run.end_of(*before)?.at))?;
        let took = run.end_of(*step)?.at.duration_since(begin);
        u64::try_from(took.as_millis()).ok()
    };
    let one = |(position, step): (usize, &Step)| {
        let last = run.journal.iter().rfind(|entry| entry.step as usize == position);
        let state = match last.map(|entry| entry.change) {
            None => "planned",
            Some(Change::Started | Change::Retried) => "started",
            Some(Change::Done) => "done",
            Some(Change::Failed) => "failed",
            Some(Change::Skipped) => "skipped",
            Some(Change::Aborting) => "goes back",
            Some(Change::Aborted) => "went back",
        };
        StepShown {
            step: step.name(),
            meaning: step.meaning(),
            state,
            took_ms: measured(step),
            ended_at: run.end_of(*step).map(|entry| moment(entry.at)),
            evidence: last.map(|entry| entry.evidence.clone()).unwrap_or_default(),
        }
    };
    run.plan.steps.iter().enumerate().map(one).collect()
}

/// For how long clients could not write, in milliseconds, once that was measured.
pub fn away_ms(run: &Run) -> Option<u64> {
    fact(run, "away_ms")?.parse().ok()
}

/// A fact of the last thing that a run wrote: at its end, what it measured.
pub fn fact(run: &Run, name: &str) -> Option<String> {
    run.journal.last()?.facts.get(name).cloned()
}

/// A run's state in a word.
pub fn state(run: &Run) -> &'static str {
    match run.state() {
        StepState::Ready | StepState::Started => "at work",
        StepState::Failed => "waits",
        StepState::Aborting => "goes back",
        StepState::Over => "done",
        StepState::Aborted => "went back",
    }
}
