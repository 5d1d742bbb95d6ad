//! What a run measured: how long the service was away, and what was lost (R22).

use std::time::Duration;

use jiff::Timestamp;
use lifeboat_model::Lsn;
use lifeboat_telemetry::duration;
use lifeboat_workflow::{Change, Facts, Kind, Run, Step};

use crate::Service;

/// Between two probes of an observer, with the time that a probe takes to fail.
const UNNOTICED: Duration = Duration::from_secs(10);

/// What a run measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// From the last write that is known to have been possible until as many observers as it takes to
    /// see a service fail had written through the clients' endpoint.
    pub away: Option<Duration>,
    /// How long each step took, by the wall clocks of the controllers that wrote about it.
    pub steps: Vec<(Step, Duration)>,
    /// What is known of loss.
    pub loss: Loss,
}

/// What is known of loss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    /// Nothing that was acknowledged: proved by positions.
    None {
        /// What was required, for each database.
        required: Vec<(String, Lsn)>,
    },
    /// Unknown until the loser's disk is read.
    Unknown {
        /// Why it cannot be said.
        why: String,
        /// The newest commit that the winner has, for each database.
        newest: Vec<(String, String)>,
    },
}

/// Measures a run from its journal.
pub fn measure(service: &Service, run: &Run, at: Timestamp) -> Measured {
    let loss = loss(service, run);
    let noticed = match run.plan.kind {
        Kind::Failover => run.plan.failing_since.or(Some(run.plan.at)),
        Kind::Switchover => started(run, Step::Release),
        Kind::Fallback => None,
    };
    let begin = noticed.map(|noticed| {
        // Commits that came later were no client's: an agent's probe waits for nobody. A planned
        // stop begins with a checkpoint, while clients go on.
        let over = match run.plan.kind {
            Kind::Switchover => run.end_of(Step::Release).map_or(noticed, |entry| entry.at),
            Kind::Failover | Kind::Fallback => noticed,
        };
        let credible = |at: &Timestamp| is_credible(*at, noticed, over);
        let last = last_commits(service, run, &loss).filter(credible).max();
        last.unwrap_or_else(|| halfway(run.plan.last_worked.filter(credible), noticed))
    });
    let answered = run.fact(Step::Traffic, "answered").and_then(|at| at.parse().ok());
    let serves = || run.end_of(Step::Serve).map(|entry| entry.at);
    let end = answered.or_else(serves).unwrap_or(at);
    let away = begin.and_then(|begin| between(begin, end));
    let steps = run.plan.steps.iter().filter_map(|step| Some((*step, took(run, *step)?)));
    Measured { away, steps: steps.collect(), loss }
}

/// The newest commit that is there, and the one that was there when the run began, where nothing that was
/// acknowledged is missing.
fn last_commits(service: &Service, run: &Run, loss: &Loss) -> impl Iterator<Item = Timestamp> {
    let commits = service.databases.keys().filter_map(|database| {
        let fact = run.fact(Step::Complete, &format!("newest_commit.{database}"))?;
        fact.parse::<Timestamp>().ok()
    });
    let known = matches!(loss, Loss::None { .. });
    [commits.max(), run.plan.newest_commit].into_iter().flatten().filter(move |_| known)
}

/// Clients were last served between an observer's last write and its first failure: halfway is at most
/// half as far off.
fn halfway(worked: Option<Timestamp>, noticed: Timestamp) -> Timestamp {
    let between = worked.and_then(|worked| between(worked, noticed));
    between.and_then(|between| noticed.checked_sub(between / 2).ok()).unwrap_or(noticed)
}

/// Writes ended about when somebody noticed: an observer does at its next probe. Clocks differ: one
/// that says something else is not believed.
fn is_credible(newest: Timestamp, noticed: Timestamp, over: Timestamp) -> bool {
    newest <= over && between(newest, noticed).is_none_or(|before| before <= UNNOTICED)
}

fn loss(service: &Service, run: &Run) -> Loss {
    let by_database = |step, name: &str| -> Vec<(String, String)> {
        let one = |database: &lifeboat_model::DatabaseName| {
            let found = run.fact(step, &format!("{name}.{database}"))?;
            Some((database.to_string(), found.to_owned()))
        };
        service.databases.keys().filter_map(one).collect()
    };
    let promised = match run.plan.kind {
        Kind::Switchover => run.was_done(Step::Complete).then(|| by_database(Step::Release, "end")),
        Kind::Failover => (run.fact(Step::Seal, "rpo_0") == Some("yes")
            && run.was_done(Step::Complete))
        .then(|| by_database(Step::Seal, "sealed")),
        // A fallback moves nothing: what differs was set apart.
        Kind::Fallback => Some(Vec::new()),
    };
    let newest = by_database(Step::Complete, "newest_commit");
    let Some(required) = promised else {
        let why = match run.end_of(Step::Seal).map(|entry| entry.change) {
            Some(Change::Skipped) => "a person went on without the seals",
            _ => "commits waited for no receiver outside the lost region",
        };
        return Loss::Unknown { why: why.to_owned(), newest };
    };
    let parsed = required.iter().map(|(name, lsn)| Some((name.clone(), lsn.parse().ok()?)));
    match parsed.collect() {
        Some(required) => Loss::None { required },
        None => {
            Loss::Unknown { why: "a position in the journal cannot be read".to_owned(), newest }
        }
    }
}

impl Measured {
    /// In one sentence.
    pub fn sentence(&self) -> String {
        let away = match self.away {
            Some(away) => format!("away for {}", duration(away)),
            None => "nothing was away".to_owned(),
        };
        format!("{away}; {}", self.loss.sentence())
    }

    /// For the journal.
    pub fn facts(&self) -> Facts {
        let mut facts = Facts::new();
        if let Some(away) = self.away {
            facts.insert("away_ms".to_owned(), away.as_millis().to_string());
        }
        for (step, took) in &self.steps {
            facts.insert(format!("step_ms.{step}"), took.as_millis().to_string());
        }
        let rpo = match self.loss {
            Loss::None { .. } => "0",
            Loss::Unknown { .. } => "unknown",
        };
        facts.insert("rpo".to_owned(), rpo.to_owned());
        facts
    }
}

impl Loss {
    /// In words.
    pub fn sentence(&self) -> String {
        let list = |pairs: &[(String, String)]| {
            pairs.iter().map(|(name, at)| format!("{name} {at}")).collect::<Vec<_>>().join(", ")
        };
        match self {
            Self::None { required } if required.is_empty() => "nothing was lost".to_owned(),
            Self::None { required } => {
                let pairs: Vec<_> =
                    required.iter().map(|(name, lsn)| (name.clone(), lsn.to_string())).collect();
                format!("nothing acknowledged was lost: replayed up to {}", list(&pairs))
            }
            Self::Unknown { why, newest } if newest.is_empty() => {
                format!("what was lost is unknown: {why}")
            }
            Self::Unknown { why, newest } => format!(
                "what was lost is unknown: {why}; the newest commit that is there: {}",
                list(newest)
            ),
        }
    }
}

fn started(run: &Run, step: Step) -> Option<Timestamp> {
    let position = run.plan.steps.iter().position(|known| *known == step)?;
    let entry = run
        .journal
        .iter()
        .find(|entry| entry.step as usize == position && entry.change == Change::Started);
    entry.map(|entry| entry.at)
}

/// From the end of the step before to its own end.
fn took(run: &Run, step: Step) -> Option<Duration> {
    let position = run.plan.steps.iter().position(|known| *known == step)?;
    let before = position.checked_sub(1).and_then(|before| run.plan.steps.get(before));
    let begin = before.map_or(Some(run.plan.at), |before| Some(run.end_of(*before)?.at))?;
    between(begin, run.end_of(step)?.at)
}

fn between(from: Timestamp, to: Timestamp) -> Option<Duration> {
    Duration::try_from(to.duration_since(from)).ok()
}
