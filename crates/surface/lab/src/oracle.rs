//! The oracle: what must hold of everything that clients were told, after whatever happened.
//!
//! It reads what the clients noted, what the survivor holds and what the moves reported, and knows
//! nothing of how a move works. A check that could not run, and a scenario in which nothing
//! happened, fail as a violation does.

mod terms;
mod times;

use std::collections::BTreeSet;
use std::time::Duration;

use lifeboat_telemetry::{Code, Failure, Outcome};
use schemars::JsonSchema;
use serde::Serialize;

use crate::ledger::{Answer, Entry, History};
use crate::state::Disturbed;

pub use terms::{Term, terms};
pub use times::{Outage, outages};

/// Writer, session and number of a row.
pub type Row = (String, u64, u64);

/// Everything that an oracle judges.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// What clients noted.
    pub history: History,
    /// The rows of the node that is the primary at the end; none if they could not be read.
    pub survivor: Option<Survivor>,
    /// What was done to the lab: faults, and moves that a person asked for.
    pub disturbances: Vec<Disturbed>,
    /// The moves as they were reported, in their order; none if the reports could not be read.
    pub moves: Option<Vec<Move>>,
}

/// The primary at the end.
#[derive(Debug, Clone, Default)]
pub struct Survivor {
    /// Its name.
    pub node: String,
    /// What it holds.
    pub rows: BTreeSet<Row>,
}

/// A move as it was reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Which run.
    pub run: String,
    /// The node that wrote before.
    pub from: String,
    /// The node that writes since.
    pub to: String,
    /// For how long nobody could write, as reported.
    pub rto: Option<Duration>,
    /// What is lost, as reported.
    pub loss: Loss,
    /// The steps of its plan that the journal does not explain.
    pub unexplained: Vec<String>,
}

/// What a move reports to have lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nothing that was acknowledged.
    Nothing,
    /// What was acknowledged in the last so long before the end of the old primary.
    Last(Duration),
    /// It is not known yet: any acknowledged row may be missing.
    Unknown,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// It holds; on what that rests.
    Holds(String),
    /// It does not; each case.
    Violated(Vec<String>),
    /// It could not be checked; why.
    NotChecked(String),
}

/// One check and its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Check {
    /// What must hold.
    pub name: &'static str,
    /// Whether it does.
    pub finding: Finding,
}

/// All checks of one scenario.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Verdict {
    /// The checks.
    pub checks: Vec<Check>,
}

/// How far a report may be from what clients saw.
pub const TOLERANCE: Duration = Duration::from_secs(1);
/// No more cases than that are told.
const SHOWN: usize = 10;

/// Judges a scenario.
pub fn judge(evidence: &Evidence) -> Verdict {
    judge_within(evidence, TOLERANCE)
}

/// As [`judge`], where this machine is so busy that reports may be further from what clients saw.
pub fn judge_within(evidence: &Evidence, tolerance: Duration) -> Verdict {
    let checks = [
        ("something was done to the lab", disturbed(evidence)),
        ("clients were answered", answered(evidence)),
        ("one node writes at a time", terms::one_at_a_time(evidence)),
        ("what was acknowledged is there", kept(evidence)),
        ("what was refused is not there", refused(evidence)),
        ("reported times are what clients saw", times::reported(evidence, tolerance)),
        ("the journal explains each step", explained(evidence)),
    ];
    let checks = checks.into_iter().map(|(name, finding)| Check { name, finding });
    Verdict { checks: checks.collect() }
}

impl Verdict {
    /// Whether everything was checked and holds.
    pub fn holds(&self) -> bool {
        self.checks.iter().all(|check| matches!(check.finding, Finding::Holds(_)))
    }

    /// Fails with everything that does not hold.
    pub fn outcome(&self) -> Outcome<()> {
        if self.holds() {
            return Ok(());
        }
        let violated =
            self.checks.iter().any(|check| matches!(check.finding, Finding::Violated(_)));
        let (code, message) = if violated {
            (Code::OracleViolated, "what clients were told does not hold")
        } else {
            (Code::OracleBlind, "not everything could be checked")
        };
        Err(Failure::new(code, message)
            .hint("The history of the clients lies in the lab's directory: ledger/history.jsonl.")
            .details(self.lines()))
    }

    /// Each check in a line, and below it what is wrong.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for Check { name, finding } in &self.checks {
            match finding {
                Finding::Holds(on) => lines.push(format!("holds: {name} ({on})")),
                Finding::NotChecked(why) => lines.push(format!("NOT CHECKED: {name}: {why}")),
                Finding::Violated(cases) => {
                    lines.push(format!("VIOLATED: {name}"));
                    lines.extend(cases.iter().take(SHOWN).map(|case| format!("  {case}")));
                    if let Some(more) = cases.len().checked_sub(SHOWN).filter(|more| *more > 0) {
                        lines.push(format!("  and {more} more"));
                    }
                }
            }
        }
        lines
    }
}

/// A finding from its cases.
fn cases(cases: Vec<String>, on: impl FnOnce() -> String) -> Finding {
    if cases.is_empty() { Finding::Holds(on()) } else { Finding::Violated(cases) }
}

fn disturbed(evidence: &Evidence) -> Finding {
    let names: Vec<&str> = evidence.disturbances.iter().map(|one| one.name.as_str()).collect();
    match names.is_empty() {
        true => Finding::NotChecked("no fault was injected and nothing was moved".to_owned()),
        false => Finding::Holds(names.join(", ")),
    }
}

fn answered(evidence: &Evidence) -> Finding {
    let total = evidence.history.acknowledged().count();
    if total == 0 {
        return Finding::NotChecked("no write was acknowledged".to_owned());
    }
    let Some(first) = evidence.disturbances.iter().map(|one| one.at_ns).min() else {
        return Finding::NotChecked("nothing was done, so nothing came before it".to_owned());
    };
    let before = evidence.history.acknowledged().filter(|entry| entry.done_ns < first).count();
    if before == 0 {
        let why = "no write was acknowledged before the first thing that was done";
        return Finding::NotChecked(why.to_owned());
    }
    Finding::Holds(format!("{total} acknowledged writes, {before} before the first disturbance"))
}

fn row(entry: &Entry) -> Row {
    (entry.writer.clone(), entry.session, entry.sequence)
}

/// Every acknowledged row is on the survivor, or inside of what was reported lost.
fn kept(evidence: &Evidence) -> Finding {
    let Some(survivor) = &evidence.survivor else {
        return Finding::NotChecked("the rows of the survivor could not be read".to_owned());
    };
    let Some(moves) = &evidence.moves else {
        return Finding::NotChecked("what was reported lost could not be read".to_owned());
    };
    let all: Vec<&Entry> = evidence.history.acknowledged().collect();
    if all.is_empty() {
        return Finding::NotChecked("no write was acknowledged".to_owned());
    }
    let mut lost = Vec::new();
    let mut reported = 0_usize;
    for entry in &all {
        if survivor.rows.contains(&row(entry)) {
            continue;
        }
        if moves.iter().any(|one| covers(one, entry, &evidence.history)) {
            reported += 1;
        } else {
            lost.push(told(entry));
        }
    }
    cases(lost, || {
        format!(
            "{} of {} on {}, {reported} inside of what was reported lost",
            all.len() - reported,
            all.len(),
            survivor.node
        )
    })
}

/// Whether what a move reports lost includes this write.
fn covers(one: &Move, entry: &Entry, history: &History) -> bool {
    if entry.node.as_deref() != Some(one.from.as_str()) {
        return false;
    }
    match one.loss {
        Loss::Nothing => false,
        Loss::Unknown => true,
        Loss::Last(window) => {
            let of_node = history.acknowledged().filter(|other| other.node == entry.node);
            let last = of_node.map(|other| other.done_ns).max().unwrap_or_default();
            entry.done_ns + times::nanos(window + TOLERANCE) >= last
        }
    }
}

/// What a server refused in so many words is nowhere.
fn refused(evidence: &Evidence) -> Finding {
    let Some(survivor) = &evidence.survivor else {
        return Finding::NotChecked("the rows of the survivor could not be read".to_owned());
    };
    let all = evidence.history.entries.iter().filter(|entry| entry.answer == Answer::Refused);
    let (mut number, mut there) = (0_usize, Vec::new());
    for entry in all {
        number += 1;
        if survivor.rows.contains(&row(entry)) {
            there.push(told(entry));
        }
    }
    cases(there, || format!("{number} refused writes"))
}

fn explained(evidence: &Evidence) -> Finding {
    let Some(moves) = &evidence.moves else {
        return Finding::NotChecked("the journals could not be read".to_owned());
    };
    // Whoever wrote last and whoever writes now are known from clients alone.
    let seen = terms(&evidence.history).len().saturating_sub(1);
    let mut missing: Vec<String> = moves
        .iter()
        .flat_map(|one| one.unexplained.iter().map(move |step| format!("{}: {step}", one.run)))
        .collect();
    if moves.len() < seen {
        missing.push(format!("clients saw {seen} moves, {} were reported", moves.len()));
    }
    cases(missing, || format!("{} moves", moves.len()))
}

/// A write in a few words.
fn told(entry: &Entry) -> String {
    format!(
        "{} session {} row {} by {} at {:.3} s",
        entry.writer,
        entry.session,
        entry.sequence,
        entry.node.as_deref().unwrap_or("nobody known"),
        Duration::from_nanos(entry.done_ns).as_secs_f64(),
    )
}

#[cfg(test)]
mod tests;
