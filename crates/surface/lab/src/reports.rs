//! The moves of the lab's service, as Lifeboat itself reports them: `runs list` and `runs show`.

use std::time::Duration;

use jiff::Timestamp;
use lifeboat_telemetry::Outcome;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::host::Host;
use crate::layout::{Domain, SERVICE};
use crate::oracle::{Loss, Move};
use crate::state::{Disturbed, local};

/// What was reported.
#[derive(Debug, Clone, Default)]
pub struct Reports {
    /// The moves that came to their end, in their order.
    pub moves: Vec<Move>,
    /// The beginning of each run, on the clock of clients.
    pub begun: Vec<Disturbed>,
    /// The runs that are at work, or wait for a person.
    pub unfinished: Vec<String>,
}

#[derive(Deserialize)]
struct Document<T> {
    result: T,
}

#[derive(Deserialize)]
struct Listed {
    runs: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    run: u64,
    kind: String,
    from: String,
    to: String,
    state: String,
    begun_at: Timestamp,
}

#[derive(Deserialize)]
struct Shown {
    away_ms: Option<u64>,
    rpo: Option<String>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    step: String,
    state: String,
    evidence: String,
}

/// Reads them, from whichever domain answers.
pub fn read(host: &Host<'_>) -> Outcome<Reports> {
    let clock = host.environment.clock();
    let (now, elapsed) = (clock.now(), clock.elapsed());
    let listed: Listed = ask(host, &["runs", "list", SERVICE])?;
    let mut reports = Reports::default();
    for row in &listed.runs {
        let name = format!("run {}, {} from {} to {}", row.run, row.kind, row.from, row.to);
        let ago = Duration::try_from(now.duration_since(row.begun_at)).unwrap_or_default();
        let at_ns = elapsed.saturating_sub(ago).as_nanos();
        let at_ns = u64::try_from(at_ns).unwrap_or(u64::MAX);
        reports.begun.push(Disturbed { name: name.clone(), at_ns });
        match row.state.as_str() {
            "done" if row.kind == "fallback" => {}
            "done" => {
                let shown = ask(host, &["runs", "show", SERVICE, &row.run.to_string()])?;
                reports.moves.push(moved(row, name, &shown));
            }
            "went back" => {}
            state => reports.unfinished.push(format!("{name}: {state}")),
        }
    }
    Ok(reports)
}

fn moved(row: &Row, run: String, shown: &Shown) -> Move {
    let is_explained = |step: &&Step| {
        matches!(step.state.as_str(), "done" | "skipped") && !step.evidence.is_empty()
    };
    let unexplained = shown.steps.iter().filter(|step| !is_explained(step));
    Move {
        run,
        from: format!("{}-1", row.from),
        to: format!("{}-1", row.to),
        rto: shown.away_ms.map(Duration::from_millis),
        loss: match shown.rpo.as_deref() {
            Some("0") => Loss::Nothing,
            _ => Loss::Unknown,
        },
        unexplained: unexplained.map(|step| format!("{} is {}", step.step, step.state)).collect(),
    }
}

/// The result of a command that reads the quorum store.
fn ask<T: DeserializeOwned>(host: &Host<'_>, words: &[&str]) -> Outcome<T> {
    let words = [&["lifeboat"], words, &["--json"]].concat();
    let mut last = None;
    for domain in [Domain::North, Domain::West, Domain::East] {
        match host.quietly(domain, &words) {
            Ok(said) => {
                let read = serde_json::from_str::<Document<T>>(&said);
                return read.map(|document| document.result).map_err(|error| {
                    local("cannot read the answer of the daemons' store in", host.layout().root())
                        .because(error)
                });
            }
            Err(failure) => last = Some(failure),
        }
    }
    Err(last.unwrap_or_else(|| local("no domain answers in", host.layout().root())))
}
