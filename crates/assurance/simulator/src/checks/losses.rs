//! What was acknowledged must be there afterwards, and what is reported of loss must be true.

use std::collections::BTreeSet;

use lifeboat_quorum::{EpochRecord, EpochState, RunId};
use lifeboat_workflow::{Change, Entry, Kind, Plan, Step};

use super::{Acknowledged, Checks, State};
use crate::plant::Plant;
use crate::postgres::Node;

impl Checks {
    /// A promised commit is in the log of every later primary; any commit is, if the move was a
    /// planned one. What else is lost counts against what the run reports.
    pub(super) fn look_for_losses(&self, plant: &Plant, node: &Node) {
        let state = &mut *self.state.borrow_mut();
        let Some(commits) = state.acknowledged.get(&node.database) else { return };
        let disk = node.disk.borrow();
        let has: BTreeSet<u64> = disk.log.records().iter().map(|record| record.id).collect();
        let lost: Vec<&Acknowledged> = commits
            .iter()
            .filter(|commit| !has.contains(&commit.id) && !state.given_up.contains(&commit.id))
            .collect();
        let planned = begun_by(state, node) == Some(Kind::Switchover) && !state.restored;
        if let Some(commit) = lost.iter().find(|commit| commit.promised || planned) {
            let why = if planned { "and the move was planned" } else { "which promised RPO 0" };
            plant.sim.fail(format!(
                "{} is a primary without commit {}, acknowledged by {} at {:?} in epoch {}, {why}",
                node.name, commit.id, commit.node, commit.at, commit.epoch
            ));
        }
        let record = state.record.as_ref().filter(|record| holds(record, node));
        if let Some(record) = record.filter(|_| !lost.is_empty()) {
            let text = format!("lacks {} acknowledged commits of no promise", lost.len());
            plant.sim.note_of(node.postgres, text);
            *state.losses.entry(record.epoch).or_default() += lost.len();
            state.given_up.extend(lost.iter().map(|commit| commit.id));
        }
    }

    /// I31: a plan or a transition is written once and never changed. A report of no loss is true.
    pub fn journal_changed(
        &self,
        plant: &Plant,
        key: &str,
        before: Option<&[u8]>,
        after: Option<&[u8]>,
    ) {
        if before.is_some() {
            plant.sim.fail(format!("{key} is written a second time"));
        }
        let Some(after) = after else { return };
        plant.sim.note("journal", format!("{key} {}", String::from_utf8_lossy(after)));
        if let Ok(plan) = serde_json::from_slice::<Plan>(after) {
            self.state.borrow_mut().plans.insert(plan.run, plan);
        } else if let Ok(entry) = serde_json::from_slice::<Entry>(after) {
            self.look_at_report(plant, key, &entry);
        }
    }

    /// Every reported RPO is at least the true loss.
    fn look_at_report(&self, plant: &Plant, key: &str, entry: &Entry) {
        let state = self.state.borrow();
        let run = key.rsplit('/').nth(2).and_then(|run| run.parse().ok()).map(RunId);
        let Some(plan) = run.and_then(|run| state.plans.get(&run)) else { return };
        let reports = entry.change == Change::Done
            && plan.steps.get(entry.step as usize) == Some(&Step::Report)
            && plan.kind != Kind::Fallback;
        let epoch = state.record.as_ref().map_or(0, |record| record.epoch);
        let lost = state.losses.get(&epoch).copied().unwrap_or_default();
        let none = entry.facts.get("rpo").is_some_and(|rpo| rpo == "0");
        if reports && none && lost > 0 && !state.restored {
            let run = plan.run;
            plant.sim.fail(format!("run {run} reports that nothing was lost; {lost} commits were"));
        }
    }
}

fn holds(record: &EpochRecord, node: &Node) -> bool {
    record.holders.get(&node.database) == Some(&node.name)
}

/// What kind of move made this node the holder of an epoch that does not serve yet.
fn begun_by(state: &State, node: &Node) -> Option<Kind> {
    let record = state.record.as_ref().filter(|record| holds(record, node))?;
    let run = record.run.filter(|_| record.state == EpochState::Starting)?;
    Some(state.plans.get(&run)?.kind)
}
