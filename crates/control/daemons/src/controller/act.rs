//! One service: its run goes on, else its upkeep, else it is judged.

use std::rc::Rc;
use std::time::Duration;

use lifeboat_failover::candidate::ABSENT_AFTER;
use lifeboat_failover::{
    Evidence, Judgement, Next, Proposal, Service, Turn, Verdict, View, Wanted, Writes, advance,
    judge, start, upkeep,
};
use lifeboat_model::RegionName;
use lifeboat_quorum::{Commit, EpochRecord, Seen as Sight, Transaction};
use lifeboat_workflow::Kind;

use super::Controller;
use crate::inquiry::spoken;

/// What a service needs now.
pub(super) enum Deed {
    /// A transaction, and what it is good for.
    Commit(String, Transaction),
    /// The next epoch of its run is to be chosen.
    Choose(Box<Proposal>),
    /// The epoch that was chosen is to begin.
    Begin(Box<EpochRecord>),
}

/// Whom a deed has to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whom {
    /// The quorum store alone.
    Store,
    /// Repositories too.
    Repositories,
}

impl Deed {
    /// Whom it has to wait for.
    pub fn waits_for(&self) -> Whom {
        match self {
            Self::Commit(..) => Whom::Store,
            Self::Choose(_) | Self::Begin(_) => Whom::Repositories,
        }
    }
}

impl Controller<'_> {
    /// What a service needs, by what was last read.
    pub(super) fn see(&self, service: &Service, now: Duration) -> Option<(Rc<View>, Deed)> {
        let view = self.view_of(&service.name)?;
        if !self.trusts(service, &view) {
            return None;
        }
        let deed = match &view.run {
            Some(_) => self.carry_on(service, &view, now),
            None => self.keep_or_judge(service, &view, now),
        };
        Some((view, deed?))
    }

    /// Does it, and says whether reading again is worth it.
    pub(super) async fn carry_out(
        &self,
        service: &Service,
        view: &View,
        deed: Deed,
        now: Duration,
    ) -> bool {
        let transition = match (deed, self.turn(service, view, now)) {
            (Deed::Commit(what, transaction), _) => return self.commit(&what, transaction).await,
            (Deed::Choose(proposal), Some(turn)) => {
                let writes = self.choose(&turn, *proposal).await;
                writes.map(|writes| self.transition(&turn, &writes))
            }
            (Deed::Begin(next), Some(turn)) => {
                let writes = self.begin(&turn, *next).await;
                writes.map(|writes| self.transition(&turn, &writes))
            }
            (Deed::Choose(_) | Deed::Begin(_), None) => return false,
        };
        match transition {
            Ok((what, transaction)) => self.commit(&what, transaction).await,
            Err(failure) => {
                self.note(format!("the next epoch cannot begin: {}", spoken(&failure)));
                false
            }
        }
    }

    /// Commits, and says whether reading again is worth it.
    async fn commit(&self, what: &str, transaction: Transaction) -> bool {
        match self.ports.store.commit(transaction).await {
            Ok(Commit::Done(_)) => {
                self.note(what.to_owned());
                true
            }
            // Another controller was quicker: it wrote the same, or something newer.
            Ok(Commit::Conflict) => true,
            Err(error) => {
                self.note(format!("{what}: {error}"));
                false
            }
        }
    }

    /// A run, as it stands; none if there is none.
    fn turn<'a>(&self, service: &'a Service, view: &'a View, now: Duration) -> Option<Turn<'a>> {
        let (record, (run, observed)) = (view.record.as_ref()?, view.run.as_ref()?);
        Some(Turn {
            service,
            view,
            record,
            run,
            observed: *observed,
            traffic: None,
            answered: self.answered(service, record.value.epoch),
            now,
            at: self.ports.clock.now(),
        })
    }

    /// The next thing that a run does.
    pub(super) fn carry_on(&self, service: &Service, view: &View, now: Duration) -> Option<Deed> {
        let turn = self.turn(service, view, now)?;
        let traffic = self.traffic.borrow();
        let traffic = traffic.get(&service.name);
        let traffic = traffic.filter(|(epoch, _)| *epoch == turn.record.value.epoch);
        let turn = Turn { traffic: traffic.map(|(_, lines)| lines.as_slice()), ..turn };
        match advance(&turn) {
            Next::Wait(_) => None,
            Next::Write(writes) => {
                let (what, transaction) = self.transition(&turn, &writes);
                Some(Deed::Commit(what, transaction))
            }
            Next::Choose(proposal) => Some(Deed::Choose(proposal)),
            Next::Begin(next) => Some(Deed::Begin(next)),
        }
    }

    /// How long ago as many observers as it takes to see a service fail had first written through the
    /// clients' endpoint in an epoch, or all that speak, if they are fewer; none while they have not.
    /// More than one, for some clients have an old answer of DNS, as some observers do; not all, for
    /// one may be cut off itself.
    fn answered(&self, service: &Service, epoch: u64) -> Option<Duration> {
        let voices = self.voices_on(&service.name);
        let speaking: Vec<_> = voices.values().filter(|voice| voice.age < ABSENT_AFTER).collect();
        let needed = speaking.len().min(usize::from(service.policy.observers_agree));
        let wrote = speaking
            .iter()
            .filter(|voice| voice.said.epoch == epoch && voice.said.write == Sight::Works);
        let mut ago: Vec<_> = wrote.map(|voice| voice.said.for_how_long + voice.age).collect();
        ago.sort_unstable_by(|one, other| other.cmp(one));
        ago.get(needed.checked_sub(1)?).copied()
    }

    /// One transition of a run, with all that belongs to it.
    fn transition(&self, turn: &Turn<'_>, writes: &Writes) -> (String, Transaction) {
        let Turn { service, record, run, .. } = turn;
        let read = (&record.value, record.revision);
        let (keys, at) = (&self.settings.keys, self.ports.clock.now());
        let by = self.settings.domain.as_str();
        let transaction = writes.transaction(service, keys, read, run, by, at);
        let step = run.step().map_or("end", lifeboat_workflow::Step::name);
        let what = format!(
            "{} run {}: {step} {:?}: {}",
            service.name, run.plan.run, writes.change, writes.evidence
        );
        (what, transaction)
    }

    /// What a service needs that no run is at work on.
    fn keep_or_judge(&self, service: &Service, view: &View, now: Duration) -> Option<Deed> {
        let record = view.record.as_ref()?;
        let kept = {
            let mut heard = self.stalls.borrow_mut();
            let stalls = heard.entry(service.name.clone()).or_default();
            stalls.hear(view);
            upkeep(service, view, stalls, now, self.ports.clock.now())
        };
        if let Some(upkeep) = kept {
            let transaction = upkeep.transaction(service, &self.settings.keys, record);
            return Some(Deed::Commit(format!("{}: {}", service.name, upkeep.why), transaction));
        }
        let judgement = self.judge(service, view, now);
        let verdict = judgement.verdict.clone();
        let mut judgements = self.judgements.borrow_mut();
        if judgements.get(&service.name) != Some(&verdict) {
            self.note(format!("{}: {verdict:?}: {}", service.name, judgement.reasons.join(" ")));
            judgements.insert(service.name.clone(), verdict.clone());
        }
        match verdict {
            Verdict::Move { to } => self.fire(service, view, to, &judgement, now),
            Verdict::Stay | Verdict::Watch | Verdict::Ask { .. } | Verdict::Stuck => None,
        }
    }

    fn judge(&self, service: &Service, view: &View, now: Duration) -> Judgement {
        let voices = self.voices_on(&service.name);
        let moved = self.moved.borrow().get(&service.name).map_or(now, |(_, at)| *at);
        judge(&Evidence {
            service,
            view,
            voices: &voices,
            since_move: now.saturating_sub(moved),
            now,
        })
    }

    fn fire(
        &self,
        service: &Service,
        view: &View,
        to: RegionName,
        judgement: &Judgement,
        now: Duration,
    ) -> Option<Deed> {
        let at = self.ports.clock.now();
        let voices = self.voices_on(&service.name);
        let failing = voices.values().filter(|voice| voice.said.write == Sight::Fails);
        let mut failing: Vec<_> =
            failing.map(|voice| voice.said.for_how_long + voice.age).collect();
        failing.sort_unstable_by(|one, other| other.cmp(one));
        // One that is cut off itself may have seen it fail for hours.
        let agreed = failing.get(usize::from(service.policy.observers_agree).saturating_sub(1));
        let failing_since = agreed.and_then(|agreed| at.checked_sub(*agreed).ok());
        let worked = voices.values().filter_map(|voice| Some(voice.said.worked_ago? + voice.age));
        let last_worked = worked.min().and_then(|ago| at.checked_sub(ago).ok());
        let wanted = Wanted {
            kind: Kind::Failover,
            to: Some(to),
            by: format!("controller in {}", self.settings.domain),
            reason: judgement.reasons.join(" "),
            failing_since,
            last_worked,
        };
        match start(service, view, &self.settings.keys, &wanted, now, at) {
            Ok((plan, transaction)) => {
                let what = format!("{}: failover to {} begins", service.name, plan.to);
                Some(Deed::Commit(what, transaction))
            }
            Err(failure) => {
                self.note(format!("{}: {}", service.name, failure.full_message()));
                None
            }
        }
    }
}
