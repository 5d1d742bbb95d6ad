//! What became of a run's steps.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lifeboat_quorum::{EpochRecord, Token};
use serde::{Deserialize, Serialize};

use crate::{Kind, Plan, Step};

/// Facts by name; a name may end in `.DATABASE`.
pub type Facts = BTreeMap<String, String>;

/// The fact under which `begin` keeps the record that it has chosen.
const CHOSEN: &str = "record";

/// One transition: a value of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The step's position in the plan.
    pub step: u32,
    /// What happened to it.
    pub change: Change,
    /// What was found, in words.
    pub evidence: String,
    /// What later steps and the report need of it.
    pub facts: Facts,
    /// Who wrote it: a controller, or a person.
    pub by: String,
    /// When, by that one's wall clock.
    pub at: Timestamp,
}

/// What happened to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// An attempt begins.
    Started,
    /// Its effect was seen.
    Done,
    /// It did not come to its effect, and waits for a person.
    Failed,
    /// A person decided to go on without it.
    Skipped,
    /// A person decided to try it again.
    Retried,
    /// The run goes back to where it came from.
    Aborting,
    /// The run is back where it came from.
    Aborted,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepState {
    /// Nothing was written about the step yet.
    Ready,
    /// An attempt is under way.
    Started,
    /// It waits for a person: `runs resume`, `skip` or `abort`.
    Failed,
    /// The run goes back.
    Aborting,
    /// All steps are done or skipped.
    Over,
    /// The run went back.
    Aborted,
}

/// A run, as plan and journal tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its plan.
    pub plan: Plan,
    /// Its journal, in order.
    pub journal: Vec<Entry>,
}

impl Run {
    /// A run of which nothing was done yet.
    pub fn new(plan: Plan) -> Self {
        Self { plan, journal: Vec::new() }
    }

    /// The number of the next transition.
    pub fn next_number(&self) -> u32 {
        u32::try_from(self.journal.len()).unwrap_or(u32::MAX)
    }

    /// The position of the step that is to be done: the first one that is neither done nor skipped.
    pub fn position(&self) -> u32 {
        let ends = |entry: &&Entry| matches!(entry.change, Change::Done | Change::Skipped);
        u32::try_from(self.journal.iter().filter(ends).count()).unwrap_or(u32::MAX)
    }

    /// The step that is to be done; none if all are.
    pub fn step(&self) -> Option<Step> {
        self.plan.steps.get(self.position() as usize).copied()
    }

    /// How the run stands.
    pub fn state(&self) -> StepState {
        let mut state = StepState::Ready;
        for entry in &self.journal {
            state = match entry.change {
                Change::Started => StepState::Started,
                Change::Done | Change::Skipped | Change::Retried => StepState::Ready,
                Change::Failed => StepState::Failed,
                Change::Aborting => StepState::Aborting,
                Change::Aborted => return StepState::Aborted,
            };
        }
        match state {
            StepState::Ready if self.step().is_none() => StepState::Over,
            state => state,
        }
    }

    /// Whether nothing of it is left to do.
    pub fn is_over(&self) -> bool {
        matches!(self.state(), StepState::Over | StepState::Aborted)
    }

    /// How many attempts at the present step have begun.
    pub fn attempts(&self) -> u32 {
        let step = self.position();
        let begun = self.journal.iter().filter(|entry| {
            entry.step == step && matches!(entry.change, Change::Started | Change::Aborting)
        });
        u32::try_from(begun.count()).unwrap_or(u32::MAX)
    }

    /// What orders of the present attempt carry, in the given epoch.
    pub fn token(&self, epoch: u64) -> Token {
        Token { epoch, run: self.plan.run.0, step: self.position(), attempt: self.attempts() }
    }

    /// When the present attempt began; by a wall clock, for display.
    pub fn since(&self) -> Timestamp {
        self.journal.last().map_or(self.plan.at, |entry| entry.at)
    }

    /// The transition that ended a step, if it is over.
    pub fn end_of(&self, step: Step) -> Option<&Entry> {
        let position = self.plan.steps.iter().position(|known| *known == step)?;
        self.journal.iter().find(|entry| {
            entry.step as usize == position
                && matches!(entry.change, Change::Done | Change::Skipped)
        })
    }

    /// Whether a step was done, rather than skipped or left.
    pub fn was_done(&self, step: Step) -> bool {
        self.end_of(step).is_some_and(|entry| entry.change == Change::Done)
    }

    /// Whether it can still go back to where it came from: nothing was begun that another node
    /// could have written in, and no repository can know an epoch above the one to go back to.
    pub fn can_go_back(&self) -> bool {
        self.plan.kind == Kind::Switchover
            && !self.is_over()
            && self.end_of(Step::Begin).is_none()
            && self.choices().next().is_none()
    }

    /// The next epoch as it stands in the journal; none before it was chosen. Every controller
    /// makes the epoch's object from this one, so that all of them make the same.
    pub fn chosen(&self) -> Option<EpochRecord> {
        self.choices().last()
    }

    /// Whether it was about to begin this epoch, whatever became of that.
    pub fn chose(&self, epoch: u64) -> bool {
        self.choices().any(|record| record.epoch == epoch)
    }

    /// Facts that name an epoch as the one to begin, for the entry that starts the step.
    pub fn choice(record: &EpochRecord) -> Facts {
        // A record is plain data, which always has a JSON form; text that is none is no choice.
        let text = serde_json::to_string(record).unwrap_or_default();
        Facts::from([(CHOSEN.to_owned(), text)])
    }

    fn choices(&self) -> impl Iterator<Item = EpochRecord> {
        let begin = self.plan.steps.iter().position(|step| *step == Step::Begin);
        let entries = self.journal.iter().filter(move |entry| {
            entry.change == Change::Started && Some(entry.step as usize) == begin
        });
        entries.filter_map(|entry| serde_json::from_str(entry.facts.get(CHOSEN)?).ok())
    }

    /// An entry about the present step.
    pub fn entry(
        &self,
        change: Change,
        evidence: impl Into<String>,
        by: &str,
        at: Timestamp,
    ) -> Entry {
        let (step, evidence, facts) = (self.position(), evidence.into(), Facts::new());
        Entry { step, change, evidence, facts, by: by.to_owned(), at }
    }

    /// A fact that a step found when it was done.
    pub fn fact(&self, step: Step, name: &str) -> Option<&str> {
        self.end_of(step)?.facts.get(name).map(String::as_str)
    }
}
