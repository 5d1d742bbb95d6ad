//! The next epoch of a run: chosen once, in the journal; then created, in the repositories (F9).
//!
//! Between both anybody may crash, and everybody may be at work at once. What was chosen stands in
//! the journal, so whoever goes on creates the same object again, and no number is lost over it.

use lifeboat_failover::{Elsewhere, Proposal, Turn, Writes};
use lifeboat_model::RegionName;
use lifeboat_quorum::{Beginning, EpochRecord, Fence, Transition};
use lifeboat_telemetry::{Code, Outcome};
use lifeboat_workflow::{Change, Kind, Run};

use super::Controller;

impl Controller<'_> {
    /// Chooses the next epoch.
    pub(super) async fn choose(&self, turn: &Turn<'_>, proposal: Proposal) -> Outcome<Writes> {
        let record = &turn.record.value;
        let epoch = self.number_above(turn, record.epoch).await?;
        let at = self.ports.clock.now();
        let Proposal { region, holders, proof, synchronous, degraded } = proposal;
        let fence = Fence { epoch: record.epoch, proof, at };
        let spec = turn.service.digest.clone();
        let beginning =
            Beginning { epoch, region, holders, fence, synchronous, degraded, at, spec };
        Ok(match record.apply(Transition::Begin(Box::new(beginning))) {
            Ok(next) => chosen(&next),
            Err(error) => Writes::new(Change::Failed, error.to_string()),
        })
    }

    /// Creates the object of the epoch that was chosen; its record comes after it.
    pub(super) async fn begin(&self, turn: &Turn<'_>, next: EpochRecord) -> Outcome<Writes> {
        let record = &turn.record.value;
        if next.fence.epoch != record.epoch || next.epoch <= record.epoch {
            let why = format!("epoch {} does not follow on epoch {}", next.epoch, record.epoch);
            return Ok(Writes::new(Change::Failed, why));
        }
        let known = match self.ports.epochs.record(&turn.service.name, &next).await {
            Ok(regions) => regions.iter().map(RegionName::as_str).collect::<Vec<_>>().join(", "),
            // A number that another holder has is never given again.
            Err(failure) if failure.code() == Code::EpochTaken => {
                self.note(failure.full_message());
                let epoch = self.number_above(turn, next.epoch).await?;
                return Ok(chosen(&EpochRecord { epoch, ..next }));
            }
            Err(failure) if turn.run.plan.kind == Kind::Failover => {
                self.note(format!("no repository took the epoch: {}", failure.full_message()));
                "no repository".to_owned()
            }
            Err(failure) => return Err(failure),
        };
        let evidence = format!("epoch {} for {}, known to {known}", next.epoch, next.region);
        Ok(Writes::new(Change::Done, evidence).record(next))
    }

    /// A number above `least` that exceeds all that any repository or agent has seen.
    async fn number_above(&self, turn: &Turn<'_>, least: u64) -> Outcome<u64> {
        let archived = match self.ports.epochs.highest(&turn.service.name).await {
            Ok(known) => {
                let (service, keys) = (turn.service, &self.settings.keys);
                let elsewhere = Elsewhere { archived: known, remembered: 0 };
                // Another holder than the store knows of may be writing.
                let refusal =
                    elsewhere.refuse(service, keys, &self.mirror.borrow(), &turn.record.value)?;
                if let Some(failure) = refusal {
                    return Err(failure);
                }
                elsewhere.highest()
            }
            // A planned move needs a repository for the epoch's object anyway; until it has one
            // nothing was chosen, and it can go back.
            Err(failure) if turn.run.plan.kind != Kind::Failover => return Err(failure),
            Err(_) => 0,
        };
        let seen = turn.view.status.values().map(|seen| seen.value.token.epoch).max();
        Ok(least.max(archived).max(seen.unwrap_or(0)).saturating_add(1))
    }
}

fn chosen(next: &EpochRecord) -> Writes {
    let mut writes = Writes::new(Change::Started, format!("epoch {} it will be", next.epoch));
    writes.facts = Run::choice(next);
    writes
}
