//! One service: its run goes on, else its upkeep, else it is judged.

use std::time::Duration;

use lifeboat_failover::candidate::ABSENT_AFTER;
use lifeboat_failover::{
    Evidence, Judgement, Next, Seen, Service, Turn, Verdict, View, Wanted, Writes, advance, judge,
    start, upkeep,
};
use lifeboat_model::RegionName;
use lifeboat_quorum::{Commit, EpochRecord, Seen as Sight, Transaction};
use lifeboat_telemetry::Outcome;
use lifeboat_workflow::{Kind, Run};

use super::Controller;
use crate::inquiry::spoken;

/// A run makes this many transitions at most before other services have their turn.
const CHAIN: usize = 16;

impl Controller<'_> {
    pub(super) async fn act(&self, service: &Service, now: Duration) {
        let mut now = now;
        for _ in 0..CHAIN {
            let Some(view) = self.views.borrow().get(&service.name).cloned() else { return };
            if !self.trusts(service, &view) {
                return;
            }
            let wrote = match &view.run {
                Some((run, observed)) => self.carry_on(service, &view, run, *observed, now).await,
                None => self.keep_or_judge(service, &view, now).await,
            };
            if !wrote {
                return;
            }
            now = self.now();
            if self.read().await.is_err() {
                return;
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

    pub(super) async fn carry_on(
        &self,
        service: &Service,
        view: &View,
        run: &Run,
        observed: Duration,
        now: Duration,
    ) -> bool {
        let Some(record) = &view.record else { return false };
        let traffic = self.traffic.borrow().get(&service.name).cloned();
        let traffic = traffic.filter(|(epoch, _)| *epoch == record.value.epoch);
        let turn = Turn {
            service,
            view,
            record,
            run,
            observed,
            traffic: traffic.as_ref().map(|(_, lines)| lines.as_slice()),
            answered: self.answered(service, record.value.epoch),
            now,
            at: self.ports.clock.now(),
        };
        match advance(&turn) {
            Next::Wait(_) => false,
            Next::Write(writes) => self.write(service, record, run, &writes).await,
            Next::Choose(proposal) => {
                let chosen = self.choose(&turn, *proposal).await;
                self.write_epoch(&turn, chosen).await
            }
            Next::Begin(next) => {
                let begun = self.begin(&turn, *next).await;
                self.write_epoch(&turn, begun).await
            }
        }
    }

    async fn write_epoch(&self, turn: &Turn<'_>, writes: Outcome<Writes>) -> bool {
        match writes {
            Ok(writes) => self.write(turn.service, turn.record, turn.run, &writes).await,
            Err(failure) => {
                self.note(format!("the next epoch cannot begin: {}", spoken(&failure)));
                false
            }
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

    async fn write(
        &self,
        service: &Service,
        record: &Seen<EpochRecord>,
        run: &Run,
        writes: &Writes,
    ) -> bool {
        let read = (&record.value, record.revision);
        let (keys, at) = (&self.settings.keys, self.ports.clock.now());
        let by = self.settings.domain.as_str();
        let transaction = writes.transaction(service, keys, read, run, by, at);
        let step = run.step().map_or("end", lifeboat_workflow::Step::name);
        let what = format!(
            "{} run {}: {step} {:?}: {}",
            service.name, run.plan.run, writes.change, writes.evidence
        );
        self.commit(&what, transaction).await
    }

    async fn keep_or_judge(&self, service: &Service, view: &View, now: Duration) -> bool {
        let Some(record) = &view.record else { return false };
        let kept = {
            let mut heard = self.stalls.borrow_mut();
            let stalls = heard.entry(service.name.clone()).or_default();
            stalls.hear(view);
            upkeep(service, view, stalls, now, self.ports.clock.now())
        };
        if let Some(upkeep) = kept {
            let transaction = upkeep.transaction(service, &self.settings.keys, record);
            let what = format!("{}: {}", service.name, upkeep.why);
            return self.commit(&what, transaction).await;
        }
        let judgement = self.judge(service, view, now);
        let verdict = judgement.verdict.clone();
        let news = self.judgements.borrow().get(&service.name).map(|before| &before.verdict)
            != Some(&verdict);
        if news {
            self.note(format!("{}: {verdict:?}: {}", service.name, judgement.reasons.join(" ")));
        }
        self.judgements.borrow_mut().insert(service.name.clone(), judgement.clone());
        match verdict {
            Verdict::Move { to } => self.fire(service, view, to, &judgement, now).await,
            Verdict::Stay | Verdict::Watch | Verdict::Ask { .. } | Verdict::Stuck => false,
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

    async fn fire(
        &self,
        service: &Service,
        view: &View,
        to: RegionName,
        judgement: &Judgement,
        now: Duration,
    ) -> bool {
        let at = self.ports.clock.now();
        let voices = self.voices_on(&service.name);
        let failing = voices.values().filter(|voice| voice.said.write == Sight::Fails);
        let longest = failing.map(|voice| voice.said.for_how_long + voice.age).max();
        let failing_since = longest.and_then(|longest| at.checked_sub(longest).ok());
        let wanted = Wanted {
            kind: Kind::Failover,
            to: Some(to),
            by: format!("controller in {}", self.settings.domain),
            reason: judgement.reasons.join(" "),
            failing_since,
        };
        match start(service, view, &self.settings.keys, &wanted, now, at) {
            Ok((plan, transaction)) => {
                let what = format!("{}: failover to {} begins", service.name, plan.to);
                self.commit(&what, transaction).await
            }
            Err(failure) => {
                self.note(format!("{}: {}", service.name, failure.full_message()));
                false
            }
        }
    }
}
